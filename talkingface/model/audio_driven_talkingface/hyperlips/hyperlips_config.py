"""Configuration keys of HyperLipsBase and SyncExpert. Not importing torch keeps --explain fast."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from talkingface.config.component_spec import ComponentSpec, vgg19
from talkingface.config.schema import ModelConfig, Section
from talkingface.model.detail_config import DetailLoss, FeatureWeights, face_features
from talkingface.model.dubbing_config import DubbingInfer

EXPERT_FRAMES = 5  # frames per window of the sync expert
_NETWORKS = "talkingface.model.audio_driven_talkingface.hyperlips.hyperlips_networks"


class MelSection(Section):
    """Fixed mel front end, that of the official weights and of the sync expert."""

    sample_rate: Literal[16000] = Field(16000, description="Sample rate of the audio, in Hz.")
    num_mels: Literal[80] = Field(80, description="Mel bands.")
    n_fft: Literal[800] = Field(800, description="FFT length in samples.")
    hop_size: Literal[200] = Field(200, description="Hop in samples; 80 columns per second.")
    win_size: Literal[800] = Field(800, description="Window length in samples.")
    mel_step_size: Literal[16] = Field(16, description="Columns per window (200 ms).")


class FrameWindows(Section):
    """Training items: windows of consecutive frames."""

    syncnet_T: int = Field(5, ge=1, description="Consecutive frames per training item.")
    windows_per_clip: int = Field(
        1, ge=1, description="Items per clip and epoch; the official loader takes one."
    )
    max_crop: int = Field(512, ge=64, description="Longest side of stored face crops, in px.")
    mel_frame_offset: int = Field(
        -1,
        ge=-5,
        le=5,
        description="Frame i is trained with the mel window of frame i + offset; -1 is official.",
    )
    allow_overlap: bool = Field(
        False, description="The reference window may overlap the target, as in the official loader."
    )
    min_shift: int = Field(
        5, ge=1, description="SyncExpert: minimum shift of a negative pair, in frames."
    )


class BaseWindows(FrameWindows):
    """Training items of HyperLipsBase."""

    align_reference: bool = Field(
        False,
        description="Turn each reference frame to the head pose of its target frame, in training "
        "and generation; the official code does not.",
    )
    reference: Literal["any", "open"] = Field(
        "any",
        description="Reference frames: any (official), or one of the fifth of the clip with the "
        "widest open mouth, which shows the teeth; for generation see infer.reference.",
    )
    fine: int = Field(
        1,
        ge=1,
        le=4,
        description="Factor of the resolution of targets and losses over image_size; only for "
        "model_params.warp, which takes pixels in any resolution.",
    )
    augment: bool = Field(
        False, description="Mirror training items and change their light; not in the official code."
    )


class HyperLipsNetwork(Section):
    """Size of generator and discriminator; the defaults are the official networks."""

    image_size: int = Field(
        128, ge=32, multiple_of=32, description="Side of the face crop in pixels."
    )
    width: float = Field(1.0, gt=0, le=2, description="Channel factor of the MobileNetV3 encoders.")
    aspp_channels: int = Field(
        128, ge=8, multiple_of=2, description="Channels of the deepest level."
    )
    hyper_dim: int = Field(
        64, ge=4, description="Length of the code from which the hyper kernels are computed."
    )
    decoder_channels: tuple[int, int, int, int] = Field(
        (80, 40, 32, 64), description="Channels of decode3, decode2, decode1 and of the tail."
    )
    disc_channels: int = Field(
        32, ge=4, description="Channels of the first block of the discriminator."
    )
    patch_channels: int = Field(
        16, ge=4, description="Channels of the first layer of the mouth's discriminator."
    )
    bn_momentum: float | None = Field(
        None,
        gt=0,
        le=1,
        description="BatchNorm momentum; null: official (0.01). Short trainings need about 0.1.",
    )
    warp: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Largest displacement of pixels that are taken from the reference, as a "
        "fraction of image_size; 0: official, every pixel is generated.",
    )


class HyperLipsLoss(DetailLoss):
    """Weights of the losses (official code)."""

    syncnet_wt: float = Field(
        0.03, ge=0, description="Sync loss; used only if weights of a sync expert exist."
    )
    disc_wt: float = Field(0.2, ge=0, description="Adversarial loss; 0: without discriminator.")
    l1_wt: float | None = Field(
        None, ge=0, description="Pixel L1; null: 1 - syncnet_wt - disc_wt of the active terms."
    )
    mouth_wt: float = Field(
        0.0,
        ge=0,
        description="Additional L1 on the centre of the lower half, for short trainings; this, the "
        "losses on fine structure and the two below are not in the official code.",
    )
    patch_wt: float = Field(
        0.0,
        ge=0,
        description="Adversarial loss of patches of the mouth; rises from 0 to this value in the "
        "second fifth of the training.",
    )
    matching_wt: float = Field(
        0.0, ge=0, description="L1 of the features of this discriminator; needs patch_wt."
    )
    perceptual_wt: float = Field(
        0.0,
        ge=0,
        description="L1 of VGG19 features, not in the official stage 1; needs weights.vgg.",
    )
    syncnet_gate: float | None = Field(
        None,
        gt=0,
        description="The sync loss is not used until its validation value is below this; null: "
        "always used. The official code defines 0.75 but never applies it.",
    )


class HyperLipsWeights(FeatureWeights):
    """Components of the losses."""

    sync_expert: str | None = Field(
        "auto",
        description="auto (checkpoints/, else the newest trained SyncExpert), a path, or null.",
    )
    vgg: str | None = Field(
        None, description="torchvision VGG19 state_dict (vgg19-dcbf9e9f.pth) for perceptual_wt."
    )


class HyperLipsInfer(DubbingInfer):
    """Generation (official code)."""

    retired: ClassVar[dict[str, str]] = {
        "max_size": "Faces of model_params.warp always have the resolution of the source."
    }

    reference: Literal["auto", "first", "open", "self", "index"] = Field(
        "auto",
        description="Reference crop. first: the first frame with a face (official). open: one of "
        "the tenth of the frames with the widest open mouth. auto: open if the network was trained "
        "with data.reference=open, else first. index: the frame reference_index. self: each frame "
        "itself, which contains the original mouth (only to reproduce the old toolkit).",
    )
    reference_index: int = Field(0, ge=0, description="Frame number for reference=index.")
    mel_frame_offset: int | None = Field(
        None,
        ge=-5,
        le=5,
        description="Mel shift in frames; null: as trained; 0: official code (40 ms off).",
    )
    batch_size: int = Field(8, ge=1, description="Frames generated together.")
    mask: Literal["landmarks", "box", "lips"] = Field(
        "landmarks",
        description="Pasted area: the lower face within its oval, the lower half of the crop, or "
        "only the lips; chin and cheeks are then bent from the source.",
    )
    match_light: bool = Field(
        True,
        description="Adapt the colours of the generated face to the frame along the border of the "
        "pasted area; the official code does not. Lips alone are always adapted.",
    )
    sharpen: float = Field(
        0.0, ge=0, le=5, description="Strength of the unsharp mask of the generated face; 0: off."
    )
    restore: str | None = Field(
        None,
        description="module:function that restores a face, (h,w,3) uint8 RGB to uint8 RGB, e.g. "
        "with GFPGAN; plugin_path is its folder.",
    )
    blend: float = Field(
        0.06,
        ge=0,
        le=0.5,
        description="Width of the soft border of the pasted area, as a fraction of the box.",
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
    data: BaseWindows = Field(default_factory=BaseWindows, description="Training items.")
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
        specs.update(face_features(cfg.loss, cfg.weights))
        if cfg.loss.perceptual_wt > 0:
            purpose = "the perceptual loss (loss.perceptual_wt)"
            specs["vgg"] = vgg19(cfg.weights.vgg, purpose, required=True)
        return specs


class FaceFeaturesNetwork(Section):
    """Size of the autoencoder."""

    image_size: int = Field(
        192, ge=64, multiple_of=8, description="Side of the face crop in pixels."
    )
    channels: tuple[int, int, int, int] = Field(
        (16, 32, 64, 96), description="Channels of the four levels, the full resolution first."
    )


class FaceFeaturesConfig(ModelConfig):
    """Keys of FaceFeatures."""

    fps: float = Field(25.0, gt=0, le=120, description="Frame rate of training data, in frames/s.")
    model_params: FaceFeaturesNetwork = Field(
        default_factory=FaceFeaturesNetwork, description="Network."
    )
    audio: MelSection = Field(default_factory=MelSection, description="Mel front end (fixed).")
    data: FrameWindows = Field(default_factory=FrameWindows, description="Training items.")


class SyncExpertNetwork(Section):
    """Size of the expert; the defaults are the official network."""

    image_size: int = Field(
        128,
        ge=64,
        multiple_of=32,
        description="Side of the face crop in px (lower half is used).",
    )
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
