"""Models without networks of their own, e.g. live_speech_portraits and MODAPortrait."""

from __future__ import annotations

from talkingface.model.abstract_talkingface import AbstractTalkingFace


class JoinedModel(AbstractTalkingFace):
    """Trains nothing: a run joins trained parts and evaluates the whole chain."""
