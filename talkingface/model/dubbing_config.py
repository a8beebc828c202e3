"""Configuration keys that all dubbing models share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from talkingface.config.schema import Section


class DubbingInfer(Section):
    """Generation."""

    when_short: Literal["pingpong", "loop", "truncate"] = Field(
        "pingpong",
        description="If the audio is longer than the video: play the video back and forth, "
        "repeat it, or stop at its end.",
    )
    frame_rate: Literal["model", "source"] = Field(
        "model",
        description="Frames/s of written videos: fps of the model, or that of the source, between "
        "10 and 60; --infer implies source.",
    )
    silence: Literal["close", "keep"] = Field(
        "close",
        description="In pauses of at least 0.3 s: close the mouth within 0.12 s, or follow the "
        "sound (HyperLips: the official code).",
    )
    blending: Literal["feather", "gradient"] = Field(
        "feather",
        description="Border of replaced lips: soft transition, or gradient-domain blending "
        "(HyperLips: for mask=lips).",
    )
    crf: int = Field(18, ge=0, le=51, description="x264 CRF of written videos; lower is better.")
