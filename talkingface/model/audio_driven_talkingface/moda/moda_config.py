"""Configuration keys of MODA. Imports no torch: ``--explain`` stays fast."""

from __future__ import annotations

import importlib.util
import json
from typing import Any, Literal

from pydantic import Field, model_validator

from talkingface.config.component_spec import ComponentSpec
from talkingface.config.schema import ModelConfig, PersonName, Section
from talkingface.model.apc_config import APCNetwork, APCWeights, apc_component
from talkingface.model.conditional_gan_config import (
    ImageGANConfig,
    ImageGANInfer,
    ImageGANLoss,
    ImageGANNetwork,
)
from talkingface.utils.paths import resolve

# Required values in the config.json of wav2vec2.
_BASE = {"hidden_size": 768, "feat_extract_norm": "group", "do_stable_layer_norm": False,
         "num_attention_heads": 12, "intermediate_size": 3072}  # fmt: skip


class MODAPrep(Section):
    """Preparation (official code). Stages with equal values share one preparation."""

    crop_scale: float = Field(
        2.2, ge=1.2, le=5, description="Side of the square crop over that of all faces together."
    )
    max_missing: float = Field(
        0.1, ge=0, le=0.5, description="Largest share of frames without a face in a usable clip."
    )
    canonical: Literal["procrustes", "official"] = Field(
        "procrustes",
        description="Anchor and scale of the canonical face: procrustes: fit to a template, less "
        "jitter; official: three vertices and the eyes.",
    )
    pose_smooth_sigma: float = Field(1.0, ge=0, description="Smoothing of the pose in frames.")
    torso_space: Literal["head", "image"] = Field(
        "head",
        description="Coordinates of the shoulders: head (official), or image, in which a still "
        "shoulder has constant values.",
    )
    torso_every: int = Field(2, ge=1, description="Segment each n-th frame; interpolate the rest.")
    jpeg_quality: int = Field(95, ge=50, le=100, description="JPEG quality of the pictures.")


class MODABase(ModelConfig):
    """Keys of all stages."""

    fps: float = Field(25.0, gt=0, le=60, description="Frame rate; of official weights: 30.")
    person: PersonName = Field(default_factory=PersonName, description="Person.")
    prep: MODAPrep = Field(default_factory=MODAPrep, description="Preparation.")


class SoundSection(Section):
    """Audio input of the mapping network."""

    kind: Literal["mel", "wav2vec2", "apc"] = Field(
        "mel", description="mel; wav2vec2, as in the paper, needs weights; apc needs a trained APC."
    )
    weights: str | None = Field(
        None,
        description="wav2vec2: local folder with config.json and the weights, or random for an "
        "untrained network. Nothing is downloaded.",
    )
    layers: int | None = Field(None, ge=1, le=24, description="Layers of wav2vec2; null: all.")
    freeze: bool = Field(True, description="Do not train wav2vec2; store its features on disk.")
    context: int | None = Field(
        None,
        ge=0,
        le=25,
        description="Frames of sound that are added to a frame on each side; null: 5 for mel and "
        "apc, which have no or only past context, 0 for wav2vec2 (official: 0).",
    )

    @property
    def around(self) -> int:
        """``context`` with its default."""
        if self.context is not None:
            return self.context
        return 0 if self.kind == "wav2vec2" else 5

    @model_validator(mode="after")
    def _has_weights(self) -> SoundSection:
        if self.kind == "wav2vec2" and not self.weights:
            raise ValueError(
                "kind=wav2vec2 needs audio_encoder.weights: a local folder of wav2vec2-base-960h "
                "(config.json and model.safetensors), or random for an untrained one"
            )
        return self


class MappingNetwork(Section):
    """The mapping network; the defaults correct faults of the released code."""

    body: Literal["dual", "lstm", "short", "long", "none"] = Field(
        "dual",
        description="dual: both attentions. Ablations of the paper: lstm: an LSTM, short: SpecAttn "
        "only, long: ProbAttn only, none: neither.",
    )
    period: int = Field(30, ge=1, description="Period of the positional code in frames.")
    max_seq_len: int = Field(600, ge=1, description="Rows of the official positional tables.")
    subject_norm: Literal["layer", "batch"] = Field(
        "layer",
        description="Normalisation in the subject encoder. Official weights need batch, with which "
        "the code is constant if all clips show one person.",
    )
    std_mode: Literal["global", "subject", "none"] = Field(
        "global",
        description="Unit of the outputs: standard deviation of each part over the training data "
        "(global) or of each value of the subject, or none (official weights: image sides).",
    )
    legacy_pe: bool = Field(False, description="Official weights: positional code of batch index.")
    legacy_mask: bool = Field(False, description="Official weights: ProbAttn decoder not causal.")


class MappingData(Section):
    """Training items."""

    window: int = Field(300, ge=2, description="Frames per item; shorter clips are padded.")
    stride: int = Field(150, ge=1, description="Frames between the starts of two items.")
    template: Literal["clip", "subject"] = Field(
        "clip",
        description="Mean mesh of the clip (official) or of all training clips of the person. The "
        "means of head and shoulders are always those of the clip, since they refer to its crop.",
    )
    spec_augment: bool = Field(False, description="SpecAugment: mask random bands and frames.")
    rand_stretch: bool = Field(False, description="Stretch random items in time, factor 0.75-1.25.")


class MappingLoss(Section):
    """Objective (official code)."""

    type: Literal["l1", "l2"] = Field("l1", description="Paper: l1; released code: l2.")
    w_lip: float = Field(5.0, ge=0, description="Lips.")
    w_eye: float = Field(1.0, ge=0, description="Eyes, brows, irises.")
    w_head: float = Field(1.0, ge=0, description="Head pose.")
    w_torso: float = Field(1.0, ge=0, description="Visible shoulders.")
    velocity: float = Field(0.0, ge=0, description="Change per frame, times 5, 1, 1, 0.5 by part.")
    w_kl: float = Field(1e-3, ge=0, description="KL divergence of the latents.")
    kl_warmup: float = Field(0.2, ge=0, le=1, description="Share of the run in which w_kl grows.")


class MODAConfig(MODABase):
    """Keys of MODA, the mapping network."""

    audio_encoder: SoundSection = Field(default_factory=SoundSection, description="Sound.")
    apc: APCNetwork = Field(default_factory=APCNetwork, description="Size of an official APC.")
    model_params: MappingNetwork = Field(default_factory=MappingNetwork, description="Network.")
    data: MappingData = Field(default_factory=MappingData, description="Training items.")
    loss: MappingLoss = Field(default_factory=MappingLoss, description="Objective.")
    weights: APCWeights = Field(default_factory=APCWeights, description="Components.")

    @classmethod
    def components(cls, cfg: Any) -> dict[str, ComponentSpec]:
        return {"apc": apc_component(cfg)} if cfg.audio_encoder.kind == "apc" else {}

    @classmethod
    def missing(cls, cfg: Any) -> list[str]:
        sound = cfg.audio_encoder
        if sound.kind != "wav2vec2":
            return []
        problems = []
        if importlib.util.find_spec("transformers") is None:
            problems.append("audio_encoder.kind=wav2vec2: run pip install transformers")
        folder = resolve(sound.weights)
        files = ("config.json", "model.safetensors", "pytorch_model.bin")
        has = [(folder / name).is_file() for name in files]
        if sound.weights != "random" and not (has[0] and any(has[1:])):
            problems.append(
                f"audio_encoder.weights={sound.weights}: {folder} does not contain config.json and "
                "model.safetensors or pytorch_model.bin. Copy facebook/wav2vec2-base-960h there "
                "(nothing is downloaded automatically), or use --audio_encoder.kind=mel"
            )
        elif sound.weights != "random":
            try:
                shape = json.loads((folder / files[0]).read_text("utf-8"))
            except (OSError, ValueError) as error:
                return [*problems, f"{folder / files[0]} cannot be read: {error}"]
            wrong = {k: shape[k] for k, v in _BASE.items() if shape.get(k, v) != v}
            if wrong:
                problems.append(
                    f"audio_encoder.weights={sound.weights} is no wav2vec2-base ({wrong}); other "
                    "sizes are not supported"
                )
        return problems

    @model_validator(mode="after")
    def _compatible(self) -> MODAConfig:
        sound = self.audio_encoder
        if self.data.rand_stretch and (sound.kind != "mel" or not sound.freeze):
            raise ValueError("data.rand_stretch needs audio_encoder.kind=mel")
        if not sound.freeze and sound.kind != "wav2vec2":
            raise ValueError("audio_encoder.freeze=false is for wav2vec2 only")
        if not sound.freeze and sound.around:
            raise ValueError("audio_encoder.freeze=false needs audio_encoder.context=0")
        return self


class FaCoNetwork(Section):
    """The facial composer."""

    std_mode: Literal["global", "none"] = Field("global", description="As in MODA; official: none.")


class FaCoData(Section):
    """Training items."""

    frames: int = Field(32, ge=2, description="Random frames of a clip per item.")
    items_per_clip: int = Field(4, ge=1, description="Items per clip and epoch.")
    template: Literal["clip", "subject"] = Field("clip", description="As in MODA.")
    noise: float = Field(0.02, ge=0, description="Noise on the inputs, in standard deviations.")


class FaCoLoss(Section):
    """Objective (official code)."""

    gan: bool = Field(True, description="LSGAN; false: L1 only, better for few clips.")
    l1_wt: float = Field(10.0, gt=0, description="L1 of the mesh.")
    d_real_weight: float = Field(1.0, gt=0, description="Loss of real meshes (released code: 2).")


class MODAFaCoConfig(MODABase):
    """Keys of MODAFaCo."""

    model_params: FaCoNetwork = Field(default_factory=FaCoNetwork, description="Network.")
    data: FaCoData = Field(default_factory=FaCoData, description="Training items.")
    loss: FaCoLoss = Field(default_factory=FaCoLoss, description="Objective.")


class TPESection(Section):
    """Temporal positional embedding."""

    period: float = Field(100.0, gt=0, description="Frames per unit of time.")
    n_freq: int = Field(6, ge=1, description="Number of frequencies.")
    clip_frames: int | Literal["auto"] | None = Field(
        "auto",
        description="Frame numbers go back and forth in this range; auto: longest training clip; "
        "null: they increase without limit, as in the released code.",
    )


class RendererNetwork(ImageGANNetwork):
    """Sizes of generator and discriminator; the defaults are the official ones."""

    n_ref: int = Field(1, ge=1, le=4, description="Reference pictures of the person.")
    tpe: TPESection | None = Field(
        default_factory=TPESection, description="Embedding of time; null: none (ablation)."
    )

    @property
    def conditions(self) -> int:
        """Number of input channels: condition image, references, time."""
        time = 0 if self.tpe is None else 1 + 2 * self.tpe.n_freq
        return 3 + 3 * self.n_ref + time


class RendererLoss(ImageGANLoss):
    """Weights of the losses, those of Live Speech Portraits, from which the renderer is taken."""

    mouth_wt: float = Field(0.0, ge=0, description="Extra L1 of the mouth region; not official.")


class MODARendererConfig(ImageGANConfig, MODABase):
    """Keys of MODARenderer."""

    model_params: RendererNetwork = Field(default_factory=RendererNetwork, description="Networks.")
    loss: RendererLoss = Field(default_factory=RendererLoss, description="Loss weights.")


class SmoothSection(Section):
    """Smoothing of the generated motion: standard deviations in frames at 25 frames per second."""

    lip: float = Field(0.0, ge=0, description="Lips.")
    eye: float = Field(0.5, ge=0, description="Eyes, brows, irises.")
    rot: float = Field(2.0, ge=0, description="Rotation of the head.")
    trans: float = Field(2.0, ge=0, description="Translation and size of the head.")
    torso: float = Field(3.0, ge=0, description="Shoulders.")
    others: float = Field(1.0, ge=0, description="The rest of the face.")


class MotionGeneration(Section):
    """Generation of the motion."""

    # Positions after those of the training windows are not trained.
    window: int | None = Field(None, ge=2, description="Frames at once; null: data.window of MODA.")
    stride: int | None = Field(None, ge=1, description="Frames between window starts; null: half.")
    temperature: float = Field(1.0, ge=0, description="Factor on the latent noise; 0: none.")
    faco: bool = Field(True, description="Use MODAFaCo; false: paste lips and eyes into the mean.")
    exact_parts: bool = Field(
        True,
        description="Lips and eyes of MODA, the rest of MODAFaCo; false: all of MODAFaCo, as in "
        "the paper, which reduces the motion of lips and eyes.",
    )
    head: Literal["generated", "source"] = Field(
        "generated", description="Motion of head and shoulders: generated, or of the source clip."
    )
    smooth: SmoothSection = Field(default_factory=SmoothSection, description="Smoothing.")

    @model_validator(mode="after")
    def _overlap(self) -> MotionGeneration:
        if self.stride and self.window and self.stride > self.window:
            raise ValueError(f"stride={self.stride} must not exceed window={self.window}")
        return self


class MODAInfer(ImageGANInfer):
    """Generation."""

    motion: MotionGeneration = Field(default_factory=MotionGeneration, description="Motion.")


class PortraitParts(Section):
    """The trained parts of the chain."""

    moda: str = Field("auto", description="MODA: auto, a path, or a run id.")
    faco: str = Field("auto", description="MODAFaCo: auto, a path, or a run id.")
    renderer: str = Field("auto", description="MODARenderer: auto, a path, or a run id.")


# Settings of the released weights.
_OFFICIAL_MAPPING: dict[str, Any] = {
    "fps": 30,
    "prep": {"canonical": "official"},
    "audio_encoder": {"kind": "wav2vec2", "weights": "random"},
    "model_params": {
        "subject_norm": "batch",
        "std_mode": "none",
        "legacy_pe": True,
        "legacy_mask": True,
    },
}


class MODAPortraitConfig(MODABase):
    """Keys of MODAPortrait, the whole chain; checkpoints of the parts store their settings."""

    audio_encoder: SoundSection = Field(
        default_factory=SoundSection,
        description="For a MODA that is trained first; a checkpoint stores its own.",
    )
    apc: APCNetwork = Field(default_factory=APCNetwork, description="Size of an official APC.")
    weights: PortraitParts = Field(default_factory=PortraitParts, description="Parts.")
    infer: MODAInfer = Field(default_factory=MODAInfer, description="Generation.")

    @classmethod
    def components(cls, cfg: Any) -> dict[str, ComponentSpec]:
        def part(
            name: str, model: str, file: str, purpose: str, same: tuple[str, ...], **official: Any
        ) -> ComponentSpec:
            return ComponentSpec(
                getattr(cfg.weights, name),
                purpose,
                model=model,
                files=(f"MODA/{file}", file),
                required=True,
                at_inference=True,
                same_settings=same,
                official_settings=official,
            )

        space = ("prep.canonical", "prep.torso_space")
        return {
            "moda": part(
                "moda", "MODA", "MODA.pkl", "the motion", ("fps", *space), **_OFFICIAL_MAPPING
            ),
            "faco": part(
                "faco", "MODAFaCo", "FaCo.pkl", "the face around lips and eyes", space[:1],
                prep={"canonical": "official"}, model_params={"std_mode": "none"},
            ),
            "renderer": part(
                "renderer", "MODARenderer", "Render.pkl", "the pictures", ("fps", *space),
                fps=30, prep={"canonical": "official"},
            ),
        }  # fmt: skip
