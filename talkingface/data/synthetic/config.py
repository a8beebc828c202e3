"""Configuration keys of the Synthetic dataset."""

from __future__ import annotations

from pydantic import Field

from talkingface.config.schema import DatasetConfig, Section


class SyntheticSection(Section):
    """Number, length and format of the generated clips."""

    clips: int = Field(48, ge=3, description="Number of clips.")
    seconds: float = Field(6.0, ge=1, le=60, description="Length of each clip in seconds.")
    size: int = Field(256, ge=128, le=1024, multiple_of=2, description="Side of a frame in pixels.")
    fps: int = Field(25, ge=5, le=60, description="Frames per second.")
    seed: int = Field(
        2023,
        ge=0,
        description="Seed of the content; separate from the run's seed, so that runs with "
        "different seeds share the data.",
    )
    identities: int = Field(4, ge=1, le=16, description="Number of pseudo-identities.")


class SyntheticConfig(DatasetConfig):
    """Keys of Synthetic."""

    synthetic: SyntheticSection = Field(
        default_factory=SyntheticSection, description="The clips that are generated on first use."
    )
