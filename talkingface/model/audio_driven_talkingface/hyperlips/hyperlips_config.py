"""Configuration keys of HyperLipsBase and SyncExpert. No torch here: ``--explain`` stays fast."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from talkingface.config.component_spec import ComponentSpec, vgg19
from talkingface.config.schema import ModelConfig, Section

EXPERT_FRAMES = 5  # frames per window of the sync expert
_NETWORKS = "talkingface.model.audio_driven_talkingface.hyperlips.hyperlips_networks"


class MelSection(Section):
    """The front end is fixed: official weights and the sync expert are made for it."""

    sample_rate: Literal[16000] = Field(
        16000, description="Sound is resampled to this rate, in Hz."
    )
    num_mels: Literal[80] = Field(80, description="Mel bands.")
    n_fft: Literal[800] = Field(800, description="FFT length in samples.")
    hop_size: Literal[200] = Field(200, description="Hop in samples; 80 columns per second.")
    win_size: Literal[800] = Field(800, description="Window length in samples.")
    mel_step_size: Literal[16] = Field(16, description="Columns per window (200 ms).")


class FrameWindows(Section):
    """Which windows training draws."""

    syncnet_T: int = Field(5, ge=1, description="Consecutive frames per training item.")
    windows_per_clip: int = Field(
        1, ge=1, description="Items per clip and epoch; the official loader takes one."
    )
    max_crop: int = Field(
        512, ge=64, description="Long side of stored face crops at most, in pixels."
    )
    mel_frame_offset: int = Field(
        -1,
        ge=-5,
        le=5,
        description="Frame i is trained with the mel window of frame i + offset; -1 is official.",
    )
    allow_overlap: bool = Field(
        False,
        description="Let the reference window overlap the target, as the official loader does.",
    )
    min_shift: int = Field(
        5, ge=1, description="SyncExpert: least distance of a wrong pair in frames."
    )


class HyperLipsNetwork(Section):
    """Size of the generator and discriminator; the defaults are the official network."""

    image_size: int = Field(
        128, ge=32, multiple_of=32, description="Side of the face crop in pixels."
    )
    width: float = Field(
        1.0, gt=0, le=2, description="Channel factor of both MobileNetV3 encoders."
    )
    aspp_channels: int = Field(
        128, ge=8, multiple_of=2, description="Channels of the deepest level."
    )
    hyper_dim: int = Field(64, ge=4, description="Length of the code that makes the hyper kernels.")
    decoder_channels: tuple[int, int, int, int] = Field(
        (80, 40, 32, 64), description="Channels of decode3, decode2, decode1 and of the tail."
    )
    disc_channels: int = Field(32, ge=4, description="First channels of the discriminator.")
    bn_momentum: float | None = Field(
        None,
        gt=0,
        le=1,
        description="BatchNorm momentum; null: official (0.01). Short trainings need about 0.1.",
    )


class HyperLipsLoss(Section):
    """Weights of the losses (official code)."""

    syncnet_wt: float = Field(
        0.03, ge=0, description="Sync expert; used only when its weights exist."
    )
    disc_wt: float = Field(0.2, ge=0, description="Adversarial term; 0 builds no discriminator.")
    l1_wt: float | None = Field(
        None, ge=0, description="Pixel L1; null: 1 - syncnet_wt - disc_wt of the active terms."
    )
    mouth_wt: float = Field(
        0.0,
        ge=0,
        description="Extra L1 on the centre of the lower half (ours), for short trainings.",
    )
    perceptual_wt: float = Field(
        0.0, ge=0, description="VGG19 feature L1 (ours in stage 1); needs weights.vgg."
    )
    syncnet_gate: float | None = Field(
        None,
        gt=0,
        description="Keep the sync term at 0 until the validation sync loss is below this; the "
        "paper's code intends 0.75 but never applies it; null: always on.",
    )


class HyperLipsWeights(Section):
    """Components of the losses."""

    sync_expert: str | None = Field(
        "auto",
        description="auto (checkpoints/, else the newest trained SyncExpert), a path, or null.",
    )
    vgg: str | None = Field(
        None, description="torchvision VGG19 state_dict (vgg19-dcbf9e9f.pth) for perceptual_wt."
    )


class HyperLipsInfer(Section):
    """Generation (official code)."""

    reference: Literal["first", "self", "index"] = Field(
        "first",
        description="Reference crop: the first frame, a frame number, or self (each frame itself: "
        "leaks the original mouth; only to reproduce the old toolkit).",
    )
    reference_index: int = Field(0, ge=0, description="Frame number for reference=index.")
    mel_frame_offset: int | None = Field(
        None,
        ge=-5,
        le=5,
        description="Mel shift in frames; null: as trained; 0: upstream (40 ms off).",
    )
    when_short: Literal["pingpong", "loop", "truncate"] = Field(
        "pingpong",
        description="When the sound is longer than the video: play it back and forth, "
        "repeat it, or stop.",
    )
    batch_size: int = Field(8, ge=1, description="Frames generated together.")
    mask: Literal["landmarks", "box"] = Field(
        "landmarks",
        description="What is pasted back: the lower face within its oval, or the lower half of the "
        "crop.",
    )
    sharpen: float = Field(
        0.0, ge=0, le=5, description="Unsharp mask of the generated face before it is pasted."
    )
    restore: str | None = Field(
        None,
        description="module:function that restores a face, (S,S,3) uint8 RGB to the same, e.g. "
        "around GFPGAN; its folder is given by plugin_path.",
    )
    blend: float = Field(
        0.06,
        ge=0,
        le=0.5,
        description="Width of the soft border of the paste-back, share of the box.",
    )
    crf: int = Field(
        18, ge=0, le=51, description="x264 quality of written videos; lower is better."
    )


_OLD_NAMES = {
    "img_size": "model_params.image_size",
    "image_size": "model_params.image_size",
    "syncnet_T": "data.syncnet_T",
    "syncnet_wt": "loss.syncnet_wt",
    "disc_wt": "loss.disc_wt",
    "l1_wt": "loss.l1_wt",
    **{key: f"audio.{key}" for key in MelSection.model_fields},
}


class HyperLipsBaseConfig(ModelConfig):
    """Keys of HyperLipsBase."""

    aliases: ClassVar[dict[str, str]] = _OLD_NAMES

    fps: float = Field(25.0, gt=0, le=120, description="Frame rate of training data, in frames/s.")
    model_params: HyperLipsNetwork = Field(
        default_factory=HyperLipsNetwork, description="Networks."
    )
    audio: MelSection = Field(default_factory=MelSection, description="Mel front end (fixed).")
    data: FrameWindows = Field(default_factory=FrameWindows, description="Training items.")
    loss: HyperLipsLoss = Field(default_factory=HyperLipsLoss, description="Loss weights.")
    weights: HyperLipsWeights = Field(default_factory=HyperLipsWeights, description="Components.")
    infer: HyperLipsInfer = Field(default_factory=HyperLipsInfer, description="Generation.")

    @classmethod
    def components(cls, cfg: Any) -> dict[str, ComponentSpec]:
        specs = {}
        if cfg.loss.syncnet_wt > 0 and cfg.data.syncnet_T == EXPERT_FRAMES:
            specs["sync_expert"] = ComponentSpec(
                cfg.weights.sync_expert,
                "the sync loss (loss.syncnet_wt)",
                model="SyncExpert",
                files=("pretrain_sync_expert.pth",),
                network=f"{_NETWORKS}:SyncNetColor",
            )
        if cfg.loss.perceptual_wt > 0:
            purpose = "the perceptual loss (loss.perceptual_wt)"
            specs["vgg"] = vgg19(cfg.weights.vgg, purpose, required=True)
        return specs


class SyncExpertNetwork(Section):
    """Size of the expert; the defaults are the official network."""

    image_size: int = Field(128, ge=64, multiple_of=32, description="Crop size before halving.")
    width: float = Field(1.0, gt=0, le=2, description="Channel factor.")


class SyncExpertConfig(ModelConfig):
    """Keys of SyncExpert."""

    aliases: ClassVar[dict[str, str]] = {
        key: value for key, value in _OLD_NAMES.items() if not value.startswith("loss.")
    }

    fps: float = Field(25.0, gt=0, le=120, description="Frame rate of training data, in frames/s.")
    model_params: SyncExpertNetwork = Field(
        default_factory=SyncExpertNetwork, description="Network."
    )
    audio: MelSection = Field(default_factory=MelSection, description="Mel front end (fixed).")
    data: FrameWindows = Field(default_factory=FrameWindows, description="Training items.")
