"""Configuration keys of SyntheticDyad."""

from __future__ import annotations

from pydantic import Field

from talkingface.config.schema import Section
from talkingface.data.scenes import MotionDatasetConfig

_LEAST = 7  # usable scenes: one for training, two for validation, four for the test


class DyadSection(Section):
    """Number, length and seed of the synthetic conversations."""

    scenes: int = Field(
        96, ge=_LEAST, le=98, description="Usable scenes; the last four are the test."
    )
    seconds: float = Field(
        10.0, ge=2, le=120, description="Minimum length of a scene; the maximum is 1.5 times it."
    )
    seed: int = Field(2024, ge=0, description="Random seed of the content.")


class DyadConfig(MotionDatasetConfig):
    """Keys of SyntheticDyad."""

    dyad: DyadSection = Field(default_factory=DyadSection, description="Generated scenes.")
