"""Configuration keys of VideoRewrite."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from talkingface.config.schema import ModelConfig, Section


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


class RewriteInfer(Section):
    """Generation."""

    when_short: Literal["pingpong", "loop", "truncate"] = Field(
        "pingpong",
        description="If the audio is longer than the video: play the video back and forth, "
        "repeat it, or stop at its end.",
    )
    amplitude: float = Field(
        1.4,
        gt=0,
        le=3,
        description="Factor of the movement of the mouth around its mean shape. Predicted "
        "movements are smaller than real ones.",
    )
    silence: Literal["close", "keep"] = Field(
        "close", description="Close the mouth in pauses of at least 0.3 s, or follow the sound."
    )
    blending: Literal["feather", "gradient"] = Field(
        "feather", description="Border of the lips: soft transition, or gradient-domain blending."
    )
    crf: int = Field(18, ge=0, le=51, description="x264 CRF of written videos; lower is better.")


class VideoRewriteConfig(ModelConfig):
    """Keys of VideoRewrite."""

    fps: float = Field(25.0, gt=0, le=120, description="Frame rate of training data, in frames/s.")
    model_params: LipNetwork = Field(default_factory=LipNetwork, description="Network.")
    data: RewriteData = Field(default_factory=RewriteData, description="Training items.")
    infer: RewriteInfer = Field(default_factory=RewriteInfer, description="Generation.")
