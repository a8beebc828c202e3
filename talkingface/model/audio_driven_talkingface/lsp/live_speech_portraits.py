"""live_speech_portraits: the trained parts of Live Speech Portraits as one generator of videos."""

from __future__ import annotations

from talkingface.model.abstract_talkingface import AbstractTalkingFace


class LiveSpeechPortraits(AbstractTalkingFace):
    """Trains nothing: a run joins four trained parts and evaluates the whole chain."""
