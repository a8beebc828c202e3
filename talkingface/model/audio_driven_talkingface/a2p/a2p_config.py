"""Configuration keys of the audio2photoreal models. No torch here: ``--explain`` stays fast."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from talkingface.config.component_spec import ComponentSpec
from talkingface.config.schema import ModelConfig, PersonName, Section
from talkingface.data.scenes import SAMPLE_RATE
from talkingface.errors import ConfigError
from talkingface.model.sampling_steps import StepCount
from talkingface.utils.paths import resolve

_PACKAGE = "talkingface.model.audio_driven_talkingface.a2p"
VQ_KEYS = ("fps", "data.guide_step")  # must be equal in all models of key poses


class AudioFrontendConfig(Section):
    """Audio front end: features of the sound of both persons."""

    frontend: Literal["logmel", "vqwav2vec"] = Field(
        "logmel",
        description="vqwav2vec: the paper's pretrained network, frozen. logmel: a log-mel "
        "spectrogram, needs no weights.",
    )
    weights: str | None = Field(
        None,
        description="vqwav2vec: fairseq's file, e.g. checkpoints/vq-wav2vec.pt, or random for an "
        "untrained network. Weights of A2P models contain the front end.",
    )
    log_compression: bool = Field(
        False,
        description="vqwav2vec: log(|x| + 1) of its features, as the network was trained; its "
        "weights do not show this. fairseq's recipe of vq-wav2vec does not set it.",
    )
    bands: int = Field(80, ge=8, le=256, description="logmel: mel bands; 4 rows per video frame.")

    @model_validator(mode="after")
    def _has_weights(self) -> AudioFrontendConfig:
        if self.weights and self.frontend != "vqwav2vec":
            raise ValueError("audio.weights belongs to audio.frontend=vqwav2vec")
        return self


class MotionWindows(Section):
    """Training and test windows."""

    max_seq_length: int = Field(600, ge=30, description="Frames per window (official: 20 s).")
    min_seq_length: int | None = Field(
        None, ge=1, description="Minimum of training; null: 2/3 of max_seq_length, at most 400."
    )
    add_padding: bool = Field(True, description="Training: random lengths, padded with zeros.")
    windows_per_scene: float = Field(
        1.0, gt=0, description="Training windows per epoch / windows that fit into the scenes."
    )
    guide_step: int = Field(30, ge=1, description="Frames between key poses.")
    legacy_chunking: bool = Field(
        False, description="Cut test scenes as the released code, which may drop the last window."
    )
    flip_person: bool = Field(False, description="Test on the partner, with swapped channels.")

    @model_validator(mode="after")
    def _lengths(self) -> MotionWindows:
        if self.min_seq_length and self.min_seq_length > self.max_seq_length:
            raise ValueError("min_seq_length is larger than max_seq_length")
        if self.guide_step > self.max_seq_length:
            raise ValueError("guide_step is larger than max_seq_length")
        return self


class CodesSection(Section):
    """Face codes of videos: coefficients of a landmark face model fitted to the training clips."""

    n: int = Field(28, ge=1, le=100, description="Coefficients per frame.")
    frames_per_clip: int = Field(400, ge=1, description="Frames per clip for the face model.")


class LipSection(Section):
    """The lip regressor; sizes are the official ones."""

    frontend: Literal["logmel", "wav2vec"] = Field("logmel", description="Official: wav2vec large.")
    n_vertices: int = Field(40, ge=1, description="Lip points: 40 landmarks; official: 338.")
    width: int = Field(512, ge=8, multiple_of=2, description="Width of the transformer.")
    heads: int = Field(4, ge=1, description="Attention heads.")
    ff: int = Field(1024, ge=8, description="Width of the feed-forward layers.")
    encoders: int = Field(2, ge=0, description="Encoder layers.")
    decoders: int = Field(4, ge=1, description="Decoder layers.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout.")
    weights: str | None = Field(
        None,
        description="wav2vec: fairseq's file of wav2vec large for training A2PLip, or random for "
        "an untrained network. Weights of A2PLip and A2PFace contain the front end.",
    )
    block: int = Field(120, ge=1, le=300, description="Frames that are predicted together.")
    bands: int = Field(80, ge=8, le=256, description="logmel: mel bands.")
    log_compression: bool = Field(True, description="wav2vec: log(|x| + 1) of its features.")

    @model_validator(mode="after")
    def _official_width(self) -> LipSection:
        if self.frontend == "wav2vec" and self.width != 512:
            raise ValueError("lips.frontend=wav2vec needs lips.width=512")
        return self


class A2PBase(ModelConfig):
    """Keys of all audio2photoreal models."""

    fps: float = Field(30.0, gt=0, le=120, description="Frames per second; must divide 12000.")
    person: PersonName = Field(default_factory=PersonName, description="Person, for videos.")
    codes: CodesSection = Field(default_factory=CodesSection, description="Face codes of videos.")
    data: MotionWindows = Field(default_factory=MotionWindows, description="Windows.")

    @field_validator("fps")
    @classmethod
    def _whole_samples(cls, value: float) -> float:
        if (SAMPLE_RATE / 4) % value:
            raise ValueError(
                f"{value:g} frames per second give no whole number of samples per frame at 48 kHz; "
                "use 20, 24, 25, 30, 40, 50 or 60"
            )
        return value


class SoundStage(A2PBase):
    """Keys of the models whose input is the sound of both persons."""

    audio: AudioFrontendConfig = Field(
        default_factory=AudioFrontendConfig, description="Audio front end."
    )

    @classmethod
    def missing(cls, cfg: Any) -> list[str]:
        if "audio" not in cfg or cfg.audio.frontend != "vqwav2vec":
            return []
        return _missing_file("audio.frontend=vqwav2vec", cfg.audio.weights, "vq-wav2vec")


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
        return _missing_file("lips.frontend=wav2vec", cfg.lips.weights, "wav2vec_large")


def _missing_file(setting: str, weights: str | None, name: str) -> list[str]:
    if weights == "random" or (weights and resolve(weights).is_file()):
        return []
    section = setting.split(".")[0]
    problem = f"{weights} does not exist" if weights else "it is not set"
    return [
        f"{setting} needs {section}.weights: {problem}. Download {name}.pt of fairseq's wav2vec "
        f"models (the toolkit does not download it), or use --{section}.frontend=logmel"
    ]


class DenoiserSection(Section):
    """The denoising network."""

    width: int = Field(512, ge=8, multiple_of=2, description="D (official: 512 face, 256 pose).")
    layers: int = Field(8, ge=1, description="Decoder layers (official: 8 face, 6 pose).")
    heads: int = Field(8, ge=1, description="Attention heads.")
    ff: int = Field(1024, ge=8, description="Width of the feed-forward layers.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout.")
    encoders: int = Field(2, ge=0, description="Encoder layers (official: 2 face, 0 pose).")
    motion_dim: int | None = Field(
        None, ge=1, description="Values per frame; null: 256 face, 104 pose, codes.n for videos."
    )
    legacy_positions: bool = Field(
        False,
        description="Positions count tokens instead of frames, so that motion and sound of the "
        "same time have different positions; official weights need true.",
    )


class DiffusionLoss(Section):
    """Objective of the diffusion models."""

    lambda_vel: float = Field(0.0, ge=0, description="Weight of velocity loss (official pose: 2).")
    p_drop: float = Field(
        0.2, ge=0, le=1, description="Probability of training without sound, for guidance."
    )


class SamplerSection(Section):
    """Sampling of motion."""

    steps: StepCount = Field(100, ge=1, le=1000, description="DDIM steps; a divisor of 1000.")
    guidance: float = Field(
        2.0, ge=0, description="Classifier-free guidance; 1: none (official: 10 face, 2 pose)."
    )
    samples: int = Field(3, ge=1, le=20, description="Motions per sound in the evaluation.")
    overlap: int = Field(60, ge=0, description="Frames of cross-fading between two windows.")
    results_npy: bool = Field(
        True,
        description="Tests also write results.npy in the authors' layout: about 1.4 GB for a "
        "released test set, since it holds the sound once per sample.",
    )


class FaceWeights(Section):
    """Components: trained networks that the model needs."""

    lips: str | None = Field(
        "auto", description="A2PLip: auto, a path, or a run id; null: same as lip_cond=none."
    )


class A2PFaceConfig(SoundStage):
    """Keys of A2PFace."""

    model_params: DenoiserSection = Field(default_factory=DenoiserSection, description="Network.")
    lip_cond: Literal["a2plip", "none"] = Field(
        "a2plip", description="Condition: sound and lips predicted by A2PLip; none: only sound."
    )
    lips: LipSection = Field(default_factory=LipSection, description="The lip regressor.")
    loss: DiffusionLoss = Field(default_factory=DiffusionLoss, description="Objective.")
    sampler: SamplerSection = Field(default_factory=SamplerSection, description="Sampling.")
    weights: FaceWeights = Field(default_factory=FaceWeights, description="Components.")

    @classmethod
    def components(cls, cfg: Any) -> dict[str, ComponentSpec]:
        if cfg.lip_cond == "none":
            return {}
        sizes = [name for name in LipSection.model_fields if name not in ("dropout", "weights")]
        return {
            "lips": ComponentSpec(
                cfg.weights.lips,
                "the lips that the face is conditioned on (or --lip_cond=none)",
                model="A2PLip",
                files=("iter-0200000.pt",) if cfg.lips.frontend == "wav2vec" else (),
                network=f"{_PACKAGE}.a2p_common:lip_network",
                arguments=(cfg,),
                required=True,
                same_settings=("fps", *(f"lips.{name}" for name in sizes)),
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
    """The VQ-VAE of key poses."""

    codes: int = Field(1024, ge=2, description="Codes per stage.")
    width: int = Field(64, ge=2, description="Width of the latent vectors.")
    depth: int = Field(4, ge=1, le=16, description="Stages; tokens per key pose.")
    decay: float = Field(0.99, gt=0, lt=1, description="Decay of the codes' moving averages.")
    threshold: float = Field(2.0, ge=0, description="Codes with a lower mean count are reset.")
    kmeans_iters: int = Field(10, ge=1, description="Iterations of the initial k-means.")
    legacy_expiry: bool = Field(False, description="Unused codes stay unused, as released.")
    motion_dim: int | None = Field(None, ge=1, description="Values per pose; null: 104.")


class VQLoss(Section):
    """Objective of the codec."""

    commit: float = Field(0.02, ge=0, description="Weight of the commitment loss.")
    velocity: float = Field(0.0, ge=0, description="Weight of the loss on pose differences.")


class A2PGuideVQConfig(A2PBase):
    """Keys of A2PGuideVQ."""

    vq: QuantiserSection = Field(default_factory=QuantiserSection, description="Network.")
    loss: VQLoss = Field(default_factory=VQLoss, description="Objective.")


class GuideSection(Section):
    """The guide transformer."""

    width: int = Field(64, ge=8, multiple_of=2, description="Width (not the official script's 8).")
    layers: int = Field(6, ge=1, description="Decoder layers.")
    heads: int = Field(4, ge=1, description="Attention heads.")
    ff: int = Field(1024, ge=8, description="Width of the feed-forward layers.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout.")
    num_audio_layers: int = Field(
        2, ge=0, le=8, description="Stacks of convolutions over the sound (older weights: 3)."
    )
    pad_audio: bool = Field(
        True,
        description="Convolutions keep the length of the sound. Official weights need false; a "
        "sound then needs more than 24 tokens per stack.",
    )
    legacy_positions: bool = Field(False, description="As of A2PPose; official weights need true.")
    top_p: float = Field(0.94, ge=0, le=1, description="Nucleus probability mass; 0: greedy.")


class GuideLoss(Section):
    """Objective of the guide."""

    label_smoothing: float = Field(0.1, ge=0, lt=1, description="In the cross entropy.")
    p_drop: float = Field(0.2, ge=0, le=1, description="Probability of training without sound.")


class GuideWeights(Section):
    """Components: trained networks that the model needs."""

    vq: str = Field("auto", description="A2PGuideVQ: auto, a path, or a run id.")


class A2PGuideConfig(SoundStage):
    """Keys of A2PGuide."""

    model_params: GuideSection = Field(default_factory=GuideSection, description="Network.")
    vq: QuantiserSection = Field(default_factory=QuantiserSection, description="A2PGuideVQ.")
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


class A2PParts(Section):
    """Components: trained models that are joined."""

    face: str | None = Field("auto", description="A2PFace: auto, a path, or a run id; null: none.")
    pose: str | None = Field("auto", description="A2PPose: as face.")
    guide: str | None = Field("auto", description="A2PGuide: as face.")
    vq: str | None = Field("auto", description="A2PGuideVQ: as face.")
    renderer: str | None = Field(
        None, description="HeadGAN for codes of videos: auto, a path, or a run id; null: none."
    )


class A2PSampling(Section):
    """Sampling of the joined model; null: the setting of the trained part."""

    steps: StepCount | None = Field(None, ge=1, le=1000, description="DDIM steps of face and pose.")
    face_guidance: float | None = Field(None, ge=0, description="Guidance scale of the face.")
    pose_guidance: float | None = Field(None, ge=0, description="Guidance scale of the pose.")
    top_p: float | None = Field(None, ge=0, le=1, description="top_p of A2PGuide.")
    guide_source: Literal["model", "gt"] = Field(
        "model",
        description="Source of the key poses. gt: the real ones of test scenes, to evaluate "
        "A2PPose alone; the results contain a note of it.",
    )
    samples: int = Field(3, ge=1, le=20, description="Motions per sound in the evaluation.")
    results_npy: bool = Field(True, description="As sampler.results_npy of A2PFace.")


class A2PInfer(Section):
    """Generation with ``--infer``."""

    crf: int = Field(18, ge=0, le=51, description="H.264 quality of the videos; lower is better.")
    view: Literal["auto", "curves", "lips", "skeleton", "head"] = Field(
        "auto",
        description="Content of the video: curves of the motion; lip points; skeleton (needs "
        "infer.skeleton); head: the source's face by HeadGAN (needs --source and "
        "weights.renderer). auto: head with --source, else curves.",
    )
    channels: Literal["auto", "mono", "dyad"] = Field(
        "auto",
        description="Meaning of two channels: this person and the partner (dyad), or one voice "
        "(mono). auto: mono if they are nearly equal.",
    )
    skeleton: str | None = Field(
        None, description="Path of the authors' static_assets.pt, which is not part of the toolkit."
    )
    demo_normalisation: bool = Field(
        False,
        description="Scale a sound by its maximum, as the authors' demo, instead of to the "
        "loudness of the training data.",
    )


# Settings of the official weights, which contain the weights of their audio front ends.
_OFFICIAL = {"preset": "paper", "audio.weights": "random"}
# Part -> model and purpose.
_PARTS = {
    "face": ("A2PFace", "the face"),
    "pose": ("A2PPose", "the body"),
    "guide": ("A2PGuide", "the key poses"),
    "vq": ("A2PGuideVQ", "the tokens of key poses"),
}


class A2PConfig(A2PBase):
    """Keys of A2P, the joined model; each trained part keeps its own settings."""

    weights: A2PParts = Field(default_factory=A2PParts, description="Components.")
    sampling: A2PSampling = Field(default_factory=A2PSampling, description="Sampling.")
    infer: A2PInfer = Field(default_factory=A2PInfer, description="Generation.")

    @classmethod
    def components(cls, cfg: Any) -> dict[str, ComponentSpec]:
        weights = cfg.weights
        of_motion = cfg.dataset_entry.meta.get("kind") == "motion"
        possible = _PARTS if of_motion else ("face",)
        wanted = [name for name in possible if getattr(weights, name) is not None]
        if not {"face", "pose"} & set(wanted):
            raise ConfigError(
                "weights.face and weights.pose are null: nothing is left to generate"
                + ("" if of_motion else f"; {cfg.dataset} has no body motion")
            )
        guided = "pose" in wanted and cfg.sampling.guide_source == "model"
        if guided and not {"guide", "vq"} <= set(wanted):
            raise ConfigError(
                "the body needs key poses: weights.guide and weights.vq must name networks. "
                "Or set weights.pose=null for no body, or sampling.guide_source=gt for the real "
                "key poses of test scenes."
            )
        always: dict[str, Any] = {"required": True, "at_inference": True}
        parts: dict[str, ComponentSpec] = {}
        for name in wanted:
            if name in ("guide", "vq") and not guided:
                continue
            model, purpose = _PARTS[name]
            parts[name] = ComponentSpec(
                getattr(weights, name),
                purpose,
                model=model,
                files=(f"A2P/{cfg.dataset}_{name}.{'pth' if name == 'vq' else 'pt'}",),
                same_settings=("fps", "codes.n") if name == "face" else VQ_KEYS,
                same_as=("guide",) if name == "vq" else (),
                official_settings={} if name == "vq" else _OFFICIAL,
                **always,
            )
        if weights.renderer is not None:
            parts["renderer"] = ComponentSpec(
                weights.renderer,
                "the pictures of the head",
                model="HeadGAN",
                official_settings={},
                **always,
            )
        return parts
