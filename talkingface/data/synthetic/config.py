"""Configuration keys of the Synthetic dataset."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from talkingface.config.schema import DatasetConfig, Section

_FORMER = (
    "'synthetic.clips' and 'synthetic.identities' belong to the former Synthetic set, an animated "
    "photograph. Rendered people have replaced it (keys: synthetic.persons, "
    "synthetic.clips_per_person); results on both cannot be compared."
)


class SyntheticSection(Section):
    """Number, length and content of the rendered clips."""

    retired: ClassVar[dict[str, str]] = {"identities": _FORMER, "clips": _FORMER}

    persons: int = Field(
        24, ge=2, le=1000, description="Number of persons; every sixth one is kept for tests."
    )
    first_person: int = Field(
        0, ge=0, description="Number of the first person; other numbers are other people."
    )
    clips_per_person: int = Field(
        4, ge=2, le=1000, description="Clips of each person; the second one is for val or test."
    )
    seconds: float = Field(6.0, ge=1, le=60, description="Length of each clip in seconds.")
    size: int = Field(256, ge=128, le=1024, multiple_of=2, description="Side of a frame in pixels.")
    fps: int = Field(25, ge=5, le=60, description="Frames per second.")
    seed: int = Field(
        2023,
        ge=0,
        description="Seed of sentences, movement and light; separate from the run's seed, so that "
        "runs with different seeds share the data.",
    )
    voices: str = Field(
        "espeak",
        description="espeak, hibari (extra: pip install '.[voices]'), or a folder of recordings "
        "with their texts.",
    )
    pose: float = Field(
        1.0, ge=0, le=3, description="Scale of head movement; 1 gives up to 10 degrees of yaw."
    )
    light: Literal["varied", "fixed"] = Field(
        "varied", description="Light and background: another one in each clip, or one per person."
    )
    expression: Literal["varied", "neutral", "smile", "worried", "surprised"] = Field(
        "varied", description="Mood of the face; varied draws one for each clip."
    )
    masks: bool = Field(
        True, description="Also write the true labels of all pixels (skin, lips, mouth, hair...)."
    )


class SyntheticConfig(DatasetConfig):
    """Keys of Synthetic."""

    synthetic: SyntheticSection = Field(
        default_factory=SyntheticSection, description="The clips that are rendered on first use."
    )
