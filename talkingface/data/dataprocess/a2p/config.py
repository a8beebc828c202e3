"""Configuration keys of datasets that hold motion and no video."""

from __future__ import annotations

from pydantic import Field

from talkingface.config.schema import DatasetConfig, Section

_LEAST = 7  # usable scenes: one that trains, two that validate, four that test


class MotionDatasetConfig(DatasetConfig):
    """Keys of datasets of motion."""

    wrap_root_yaw: bool = Field(
        False, description="Take the root's yaw (column 3 of the poses) into 0..2 pi."
    )
    partner: str | None = Field(
        None, description="Dataset of the partner's recordings, for data.flip_person."
    )


class DyadSection(Section):
    """How many conversations are made, and how."""

    scenes: int = Field(96, ge=_LEAST, description="Usable scenes; the last four test.")
    seconds: float = Field(
        10.0, ge=1, le=120, description="Length of a scene; scenes differ by up to a half."
    )
    seed: int = Field(2024, ge=0, description="Decides the content.")


class DyadConfig(MotionDatasetConfig):
    """Keys of SyntheticDyad."""

    dyad: DyadSection = Field(default_factory=DyadSection, description="What is made on first use.")
