"""Configuration keys of A2P, the joined model. No torch here: ``--explain`` stays fast."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from talkingface.config.component_spec import ComponentSpec
from talkingface.config.schema import Section
from talkingface.errors import ConfigError
from talkingface.model.audio_driven_talkingface.a2p.a2p_config import VQ_KEYS, A2PBase
from talkingface.model.sampling_steps import checked_steps


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

    steps: int | None = Field(None, ge=1, le=1000, description="DDIM steps of face and pose.")
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

    @field_validator("steps")
    @classmethod
    def _divides(cls, value: int | None) -> int | None:
        return None if value is None else checked_steps(value)


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
_VQWAV2VEC: dict[str, Any] = {"audio": {"frontend": "vqwav2vec", "weights": "random"}}
_OFFICIAL: dict[str, dict[str, Any]] = {
    "face": {
        **_VQWAV2VEC,
        "lips": {"frontend": "wav2vec", "n_vertices": 338},
        "model_params": {"legacy_positions": True},
    },
    "pose": {**_VQWAV2VEC, "model_params": {"legacy_positions": True}},
    "guide": {**_VQWAV2VEC, "model_params": {"legacy_positions": True, "pad_audio": False}},
}
# Part -> model and purpose.
_PARTS = {
    "face": ("A2PFace", "the face"),
    "pose": ("A2PPose", "the body"),
    "guide": ("A2PGuide", "the key poses"),
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
        if guided and ("guide" not in wanted or weights.vq is None):
            raise ConfigError(
                "the body needs key poses: weights.guide and weights.vq must name networks. "
                "Or set weights.pose=null for no body, or sampling.guide_source=gt for the real "
                "key poses of test scenes."
            )
        always: dict[str, Any] = {"required": True, "at_inference": True}
        parts: dict[str, ComponentSpec] = {}
        for name in wanted:
            if name == "guide" and not guided:
                continue
            model, purpose = _PARTS[name]
            parts[name] = ComponentSpec(
                getattr(weights, name),
                purpose,
                model=model,
                files=(f"A2P/{cfg.dataset}_{name}.pt",),
                same_settings=("fps", "codes.n") if name == "face" else VQ_KEYS,
                official_settings=_OFFICIAL[name],
                **always,
            )
        if guided:
            parts["vq"] = ComponentSpec(
                weights.vq,
                "the tokens of key poses",
                model="A2PGuideVQ",
                files=(f"A2P/{cfg.dataset}_vq.pth",),
                same_settings=VQ_KEYS,
                same_as=("guide",),
                official_settings={},
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
