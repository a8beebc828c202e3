"""Configuration keys of the audio2photoreal models. No torch here: ``--explain`` stays fast."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from talkingface.config.component_spec import ComponentSpec
from talkingface.config.schema import ModelConfig, PersonName, Section
from talkingface.model.sampling_steps import checked_steps
from talkingface.utils.paths import resolve

_PACKAGE = "talkingface.model.audio_driven_talkingface.a2p"
SAMPLE_RATE = 48_000
# Keys that a part must share with what it was trained with.
VQ_KEYS = ("fps", "data.guide_step")
LIP_KEYS = tuple(
    f"lips.{key}"
    for key in (
        "frontend", "n_vertices", "width", "heads", "ff", "encoders", "decoders", "block", "bands",
        "log_compression",
    )
)  # fmt: skip


class AudioFrontendConfig(Section):
    """Audio front end: features of the sound of both persons."""

    frontend: Literal["logmel", "vqwav2vec"] = Field(
        "logmel",
        description="logmel needs no weights; vqwav2vec is the paper's, frozen, with weights.",
    )
    weights: str | None = Field(
        None,
        description="vqwav2vec: fairseq's file, e.g. checkpoints/vq-wav2vec.pt, or the word random "
        "(untrained). Weights of A2P networks hold their own.",
    )
    log_compression: bool = Field(
        False,
        description="log(|x| + 1) of the features of vqwav2vec: a switch that its weights do not "
        "show. The recipe of vq-wav2vec does not set it.",
    )
    bands: int = Field(80, ge=8, le=256, description="logmel: bands; four rows make a frame.")

    @model_validator(mode="after")
    def _has_weights(self) -> AudioFrontendConfig:
        if self.weights and self.frontend != "vqwav2vec":
            raise ValueError("audio.weights belongs to audio.frontend=vqwav2vec")
        return self


class MotionWindows(Section):
    """Training and test windows."""

    max_seq_length: int = Field(600, ge=30, description="Frames of a window (official: 20 s).")
    min_seq_length: int | None = Field(
        None, ge=1, description="Least frames of a training window; null: two thirds, at most 400."
    )
    add_padding: bool = Field(
        True, description="Training windows of random length, filled up with zeros."
    )
    windows_per_scene: float = Field(
        1.0,
        gt=0,
        description="Random windows of an epoch, as a multiple of those that fit into the scenes.",
    )
    guide_step: int = Field(30, ge=1, description="Frames between key poses.")
    legacy_chunking: bool = Field(
        False, description="Cut test scenes as the released code, which loses a last full window."
    )
    flip_person: bool = Field(
        False, description="Test on the partner's recordings, with the two channels exchanged."
    )

    @model_validator(mode="after")
    def _lengths(self) -> MotionWindows:
        if self.min_seq_length and self.min_seq_length > self.max_seq_length:
            raise ValueError("min_seq_length is larger than max_seq_length")
        if self.guide_step > self.max_seq_length:
            raise ValueError("guide_step is larger than max_seq_length")
        return self


class CodesSection(Section):
    """Face codes of ordinary videos: coefficients of a landmark face model that is learnt from the
    training clips."""

    n: int = Field(28, ge=1, le=100, description="Numbers per frame.")
    frames_per_clip: int = Field(
        400, ge=1, description="Frames that each training clip gives to the face model."
    )


class LipSection(Section):
    """The lip regressor; sizes are the official ones."""

    frontend: Literal["logmel", "wav2vec"] = Field(
        "logmel", description="wav2vec (large) is the authors', with official lip weights."
    )
    n_vertices: int = Field(
        40, ge=1, description="Lip points: 40 landmarks; the authors' file has 338 vertices."
    )
    width: int = Field(512, ge=8, multiple_of=2, description="Width of the transformer.")
    heads: int = Field(4, ge=1, description="Attention heads.")
    ff: int = Field(1024, ge=8, description="Width of the feed-forward layers.")
    encoders: int = Field(2, ge=0, description="Encoder layers.")
    decoders: int = Field(4, ge=1, description="Decoder layers.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout.")
    weights: str | None = Field(
        None,
        description="wav2vec: fairseq's file of wav2vec large for training A2PLip, or the word "
        "random (untrained). Weights of A2PLip and A2PFace hold their own.",
    )
    block: int = Field(120, ge=1, le=300, description="Frames that are seen together.")
    bands: int = Field(80, ge=8, le=256, description="logmel: bands.")
    log_compression: bool = Field(True, description="wav2vec: log(|x| + 1) of its features.")

    @model_validator(mode="after")
    def _official_width(self) -> LipSection:
        if self.frontend == "wav2vec" and self.width != 512:
            raise ValueError("lips.frontend=wav2vec needs lips.width=512")
        return self


class A2PBase(ModelConfig):
    """Keys of all stages."""

    fps: float = Field(30.0, gt=0, le=120, description="Frame rate; divides 48000 / 4.")
    person: PersonName = Field(default_factory=PersonName, description="Person, of videos.")
    codes: CodesSection = Field(default_factory=CodesSection, description="Codes of videos.")
    data: MotionWindows = Field(default_factory=MotionWindows, description="Windows.")

    @field_validator("fps")
    @classmethod
    def _whole_samples(cls, value: float) -> float:
        if (SAMPLE_RATE / 4) % value:
            raise ValueError(
                f"{value:g} frames per second give no whole number of samples per frame at 48 kHz; "
                "take 30, 25, 24, 20, 40, 50 or 60"
            )
        return value


class SoundStage(A2PBase):
    """Keys of stages whose input is sound."""

    audio: AudioFrontendConfig = Field(
        default_factory=AudioFrontendConfig, description="Audio front end."
    )

    @classmethod
    def missing(cls, cfg: Any) -> list[str]:
        if "audio" not in cfg or cfg.audio.frontend != "vqwav2vec":
            return []
        key = "audio.frontend=vqwav2vec"
        return _missing_file(key, "audio.weights", cfg.audio.weights, "vq-wav2vec")


class LipLoss(Section):
    """Objective of the lip regressor."""

    velocity: float = Field(1.0, ge=0, description="Weight of the L2 on frame differences.")


class A2PLipConfig(A2PBase):
    """Keys of A2PLip."""

    lips: LipSection = Field(default_factory=LipSection, description="Network.")
    loss: LipLoss = Field(default_factory=LipLoss, description="Objective.")

    @classmethod
    def missing(cls, cfg: Any) -> list[str]:
        if cfg.lips.frontend != "wav2vec":
            return []
        return _missing_file(
            "lips.frontend=wav2vec", "lips.weights", cfg.lips.weights, "wav2vec_large"
        )


def _missing_file(key: str, weights: str, given: str | None, name: str) -> list[str]:
    if given == "random" or (given and resolve(given).is_file()):
        return []
    return [
        f"{key} needs {weights}: {given or 'none is given'}{' does not exist' if given else ''}. "
        f"Fetch {name}.pt of fairseq's first wav2vec models (nothing is downloaded by itself), or "
        f"take --{key.split('=')[0]}=logmel"
    ]


class DenoiserSection(Section):
    """The denoising network."""

    width: int = Field(512, ge=8, multiple_of=2, description="D (official: 512 face, 256 pose).")
    layers: int = Field(8, ge=1, description="Decoder layers (official: 8 face, 6 pose).")
    heads: int = Field(8, ge=1, description="Attention heads.")
    ff: int = Field(1024, ge=8, description="Width of the feed-forward layers.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout.")
    encoders: int = Field(2, ge=0, description="Layers over the sound (official: 2 face, 0 pose).")
    motion_dim: int | None = Field(
        None, ge=1, description="Values per frame; null: those of the dataset (256, 104, codes.n)."
    )
    legacy_positions: bool = Field(
        False,
        description="Positions count tokens instead of frames, so that motion and sound of a "
        "moment have different ones; official weights need it.",
    )


class DiffusionLoss(Section):
    """Objective of the diffusion models."""

    lambda_vel: float = Field(
        0.0, ge=0, description="Weight of the error of frame differences (official: 2 for poses)."
    )
    p_drop: float = Field(
        0.2, ge=0, le=1, description="Share of samples that train without sound, for guidance."
    )


class SamplerSection(Section):
    """How motion is sampled."""

    steps: int = Field(100, ge=1, le=1000, description="DDIM steps (ddim100); a divisor of 1000.")
    guidance: float = Field(
        2.0, ge=0, description="Classifier-free guidance; 1: none (official: 10 face, 2 pose)."
    )
    samples: int = Field(3, ge=1, le=20, description="Motions per sound in the evaluation.")
    overlap: int = Field(
        60, ge=0, description="Frames over which windows of a long sound are cross-faded."
    )
    results_npy: bool = Field(
        True,
        description="Tests also write results.npy in the original layout: about 1.4 GB for a whole "
        "released test set, since it repeats the sound per sample.",
    )

    @field_validator("steps")
    @classmethod
    def _divides(cls, value: int) -> int:
        return checked_steps(value)


class FaceWeights(Section):
    """Networks that were trained before."""

    lips: str | None = Field(
        "auto", description="A2PLip: auto, a path, or a run id; null: as lip_cond=none."
    )


class A2PFaceConfig(SoundStage):
    """Keys of A2PFace."""

    model_params: DenoiserSection = Field(default_factory=DenoiserSection, description="Network.")
    lip_cond: Literal["a2plip", "none"] = Field(
        "a2plip", description="Also follow the lips that A2PLip predicts; none: the sound alone."
    )
    lips: LipSection = Field(default_factory=LipSection, description="The lip regressor.")
    loss: DiffusionLoss = Field(default_factory=DiffusionLoss, description="Objective.")
    sampler: SamplerSection = Field(default_factory=SamplerSection, description="Sampling.")
    weights: FaceWeights = Field(default_factory=FaceWeights, description="Components.")

    @classmethod
    def components(cls, cfg: Any) -> dict[str, ComponentSpec]:
        if cfg.lip_cond == "none":
            return {}
        return {
            "lips": ComponentSpec(
                cfg.weights.lips,
                "the lips that the face follows (or --lip_cond=none)",
                model="A2PLip",
                files=("iter-0200000.pt",) if cfg.lips.frontend == "wav2vec" else (),
                network=f"{_PACKAGE}.a2p_common:lip_network",
                arguments=(cfg,),
                required=True,
                same_settings=("fps", *LIP_KEYS),
                optional_keys=("audio_encoder.wav2vec_model.wav2vec_predictions.",),
            )
        }

    @model_validator(mode="after")
    def _without_lips(self) -> A2PFaceConfig:
        if self.weights.lips is None:
            self.lip_cond = "none"
        return self


class A2PPoseConfig(SoundStage):
    """Keys of A2PPose."""

    model_params: DenoiserSection = Field(default_factory=DenoiserSection, description="Network.")
    loss: DiffusionLoss = Field(default_factory=DiffusionLoss, description="Objective.")
    sampler: SamplerSection = Field(default_factory=SamplerSection, description="Sampling.")


class QuantiserSection(Section):
    """Key poses as tokens."""

    codes: int = Field(1024, ge=2, description="Codes per stage.")
    width: int = Field(64, ge=2, description="Width of the latent vectors.")
    depth: int = Field(4, ge=1, le=16, description="Stages; tokens per key pose.")
    decay: float = Field(0.99, gt=0, lt=1, description="Of the moving averages of the codes.")
    threshold: float = Field(
        2.0, ge=0, description="A code used less often (averaged) starts anew."
    )
    kmeans_iters: int = Field(10, ge=1, description="Rounds of the k-means that they start from.")
    legacy_expiry: bool = Field(
        False, description="As released, where unused codes never come back."
    )
    motion_dim: int | None = Field(None, ge=1, description="Values per pose; null: 104.")


class VQLoss(Section):
    """Objective of the codec."""

    commit: float = Field(0.02, ge=0, description="Weight of the commitment loss.")
    velocity: float = Field(0.0, ge=0, description="Weight of the error of key differences.")


class A2PGuideVQConfig(A2PBase):
    """Keys of A2PGuideVQ."""

    vq: QuantiserSection = Field(default_factory=QuantiserSection, description="Network.")
    loss: VQLoss = Field(default_factory=VQLoss, description="Objective.")


class GuideSection(Section):
    """The guide transformer."""

    width: int = Field(
        64, ge=8, multiple_of=2, description="Width (official script default 8 is a trap)."
    )
    layers: int = Field(6, ge=1, description="Decoder layers.")
    heads: int = Field(4, ge=1, description="Attention heads.")
    ff: int = Field(1024, ge=8, description="Width of the feed-forward layers.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout.")
    num_audio_layers: int = Field(
        2, ge=0, le=8, description="Stacks of convolutions over the sound (old weights: 3)."
    )
    pad_audio: bool = Field(
        True,
        description="Convolutions keep the length of the sound; official weights need false, and "
        "then more than 24 tokens per stack.",
    )
    legacy_positions: bool = Field(False, description="As of A2PPose; official weights need it.")
    top_p: float = Field(0.94, ge=0, le=1, description="Nucleus of the sampling; 0: greedy.")


class GuideLoss(Section):
    """Objective of the guide."""

    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Of the cross entropy.")
    p_drop: float = Field(0.2, ge=0, le=1, description="Share of samples that train without sound.")


class GuideWeights(Section):
    """Networks that were trained before."""

    vq: str = Field("auto", description="A2PGuideVQ: auto, a path, or a run id.")


class A2PGuideConfig(SoundStage):
    """Keys of A2PGuide."""

    model_params: GuideSection = Field(default_factory=GuideSection, description="Network.")
    vq: QuantiserSection = Field(
        default_factory=QuantiserSection, description="Size of an official A2PGuideVQ."
    )
    loss: GuideLoss = Field(default_factory=GuideLoss, description="Objective.")
    weights: GuideWeights = Field(default_factory=GuideWeights, description="Components.")

    @classmethod
    def components(cls, cfg: Any) -> dict[str, ComponentSpec]:
        return {
            "vq": ComponentSpec(
                cfg.weights.vq,
                "the tokens of key poses",
                model="A2PGuideVQ",
                files=("a2p_guide_vq.pth",),
                network=f"{_PACKAGE}.a2p_guide:codec",
                arguments=(cfg,),
                required=True,
                at_inference=True,
                same_settings=(*VQ_KEYS, "vq.codes", "vq.depth", "vq.width"),
            )
        }
