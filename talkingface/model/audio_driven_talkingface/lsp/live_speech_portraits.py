"""live_speech_portraits: the trained parts of Live Speech Portraits as one model that generates."""

from __future__ import annotations

from talkingface.model.abstract_talkingface import AbstractTalkingFace


class LiveSpeechPortraits(AbstractTalkingFace):
    """Nothing of its own to train: a run joins four trained parts and evaluates the whole."""
