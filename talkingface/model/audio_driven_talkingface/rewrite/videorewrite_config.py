"""Configuration keys of VideoRewrite."""

from __future__ import annotations

from pydantic import Field

from talkingface.config.schema import ModelConfig, Section
from talkingface.model.dubbing_config import DubbingInfer


class LipNetwork(Section):
    """Size of the network."""

    hidden: int = Field(256, ge=8, description="Units of its two hidden layers.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Share of hidden units set to zero.")


class RewriteData(Section):
    """Training items."""

    frames: int = Field(25, ge=2, description="Consecutive frames per item.")
    windows_per_clip: int = Field(8, ge=1, description="Items per clip and epoch.")
    noise: float = Field(
        0.5, ge=0, description="Standard deviation of noise on the spectrogram, in its units."
    )
    max_crop: int = Field(512, ge=64, description="Longest side of stored face crops, in px.")


class RewriteInfer(DubbingInfer):
    """Generation."""

    amplitude: float = Field(
        1.4,
        gt=0,
        le=3,
        description="Factor of the movement of the mouth around its mean shape. Predicted "
        "movements are smaller than real ones.",
    )


class VideoRewriteConfig(ModelConfig):
    """Keys of VideoRewrite."""

    fps: float = Field(25.0, gt=0, le=120, description="Frame rate of training data, in frames/s.")
    model_params: LipNetwork = Field(default_factory=LipNetwork, description="Network.")
    data: RewriteData = Field(default_factory=RewriteData, description="Training items.")
    infer: RewriteInfer = Field(default_factory=RewriteInfer, description="Generation.")
