"""Configuration keys of A2P, the joined model. No torch here: ``--explain`` stays fast."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from talkingface.config.component_spec import ComponentSpec
from talkingface.config.schema import Section
from talkingface.errors import ConfigError
from talkingface.model.audio_driven_talkingface.a2p.a2p_config import A2PBase
from talkingface.model.sampling_steps import checked_steps


class A2PParts(Section):
    """The trained parts."""

    face: str | None = Field("auto", description="A2PFace: auto, a path, or a run id; null: none.")
    pose: str | None = Field("auto", description="A2PPose, alike.")
    guide: str | None = Field("auto", description="A2PGuide, alike.")
    vq: str | None = Field("auto", description="A2PGuideVQ, alike.")
    renderer: str | None = Field(
        None,
        description="HeadGAN that shows codes of videos: auto, a path, or a run id; null: none.",
    )


class A2PSampling(Section):
    """How the joined model samples; null: as the part was trained to."""

    steps: int | None = Field(None, ge=1, le=1000, description="DDIM steps of both parts.")
    face_guidance: float | None = Field(None, ge=0, description="Guidance of the face.")
    pose_guidance: float | None = Field(None, ge=0, description="Guidance of the pose.")
    top_p: float | None = Field(None, ge=0, le=1, description="Nucleus of the guide.")
    guide_source: Literal["model", "gt"] = Field(
        "model",
        description="Where key poses come from. gt: the real ones of test scenes, which shows what "
        "the pose stage alone can do; it is noted in the results.",
    )
    samples: int = Field(3, ge=1, le=20, description="Motions per sound in the evaluation.")
    results_npy: bool = Field(True, description="As sampler.results_npy of the parts.")

    @field_validator("steps")
    @classmethod
    def _divides(cls, value: int | None) -> int | None:
        return None if value is None else checked_steps(value)


class A2PInfer(Section):
    """Generation of ``--infer``."""

    crf: int = Field(18, ge=0, le=51, description="Quality of the videos; smaller is better.")
    view: Literal["auto", "curves", "lips", "skeleton", "head"] = Field(
        "auto",
        description="What the video shows: curves of the motion; the lips as points; the bones "
        "(needs infer.skeleton); head: the source's face by HeadGAN (needs --source and "
        "weights.renderer). auto: head where a source is given, else curves.",
    )
    channels: Literal["auto", "mono", "dyad"] = Field(
        "auto",
        description="Two channels of a sound are this person and the partner (dyad), or one voice "
        "(mono). auto: one voice where they are nearly equal.",
    )
    skeleton: str | None = Field(
        None, description="The authors' static_assets.pt; nothing of it is shipped."
    )
    demo_normalisation: bool = Field(
        False,
        description="Scale a sound by its maximum, as the authors' demo, instead of to the "
        "loudness of the training data.",
    )


# What the authors' files were trained with; their front ends lie in the files.
_HEARD: dict[str, Any] = {"audio": {"frontend": "vqwav2vec", "weights": "random"}}
_OFFICIAL: dict[str, dict[str, Any]] = {
    "face": {
        **_HEARD,
        "lips": {"frontend": "wav2vec", "n_vertices": 338},
        "model_params": {"legacy_positions": True},
    },
    "pose": {**_HEARD, "model_params": {"legacy_positions": True}},
    "guide": {**_HEARD, "model_params": {"legacy_positions": True, "pad_audio": False}},
}
_MODELS = {"face": "A2PFace", "pose": "A2PPose", "guide": "A2PGuide"}
_WHY = {"face": "the face", "pose": "the body", "guide": "the key poses"}


class A2PConfig(A2PBase):
    """Keys of A2P, the joined model; a trained part knows its own settings."""

    weights: A2PParts = Field(default_factory=A2PParts, description="Parts.")
    sampling: A2PSampling = Field(default_factory=A2PSampling, description="Sampling.")
    infer: A2PInfer = Field(default_factory=A2PInfer, description="Generation.")

    @classmethod
    def components(cls, cfg: Any) -> dict[str, ComponentSpec]:
        weights = cfg.weights
        of_motion = cfg.dataset_entry.meta.get("kind") == "motion"
        wanted = [name for name in _MODELS if getattr(weights, name) is not None]
        if not of_motion:
            wanted = [name for name in wanted if name == "face"]
        if not {"face", "pose"} & set(wanted):
            raise ConfigError(
                "weights.face and weights.pose are null: nothing is left to generate"
                + ("" if of_motion else f"; {cfg.dataset} shows no body")
            )
        guided = "pose" in wanted and cfg.sampling.guide_source == "model"
        if guided and ("guide" not in wanted or weights.vq is None):
            raise ConfigError(
                "the body follows key poses: weights.guide and weights.vq must name networks. "
                "weights.pose=null leaves the body out; sampling.guide_source=gt follows the real "
                "key poses of test scenes."
            )
        if not guided:
            wanted = [name for name in wanted if name != "guide"]
        parts: dict[str, ComponentSpec] = {}
        for name in wanted:
            parts[name] = ComponentSpec(
                getattr(weights, name),
                _WHY[name],
                model=_MODELS[name],
                files=(f"A2P/{cfg.dataset}_{name}.pt",),
                required=True,
                at_inference=True,
                same_settings=("fps", "codes.n") if name == "face" else ("fps", "data.guide_step"),
                official_settings=_OFFICIAL[name],
            )
        if guided:
            parts["vq"] = ComponentSpec(
                weights.vq,
                "the tokens of key poses",
                model="A2PGuideVQ",
                files=(f"A2P/{cfg.dataset}_vq.pth",),
                required=True,
                at_inference=True,
                same_settings=("fps", "data.guide_step"),
                same_as=("guide",),
                official_settings={},
            )
        if weights.renderer is not None:
            parts["renderer"] = ComponentSpec(
                weights.renderer,
                "pictures of a head",
                model="HeadGAN",
                required=True,
                at_inference=True,
                official_settings={},
            )
        return parts
