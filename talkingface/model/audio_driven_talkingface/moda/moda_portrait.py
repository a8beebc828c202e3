"""MODAPortrait: the trained parts of MODA as one model that generates videos."""

from __future__ import annotations

from talkingface.model.abstract_talkingface import AbstractTalkingFace


class MODAPortrait(AbstractTalkingFace):
    """Nothing of its own to train: a run joins three trained parts and evaluates the whole."""
