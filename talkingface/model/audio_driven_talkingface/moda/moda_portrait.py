"""MODAPortrait: the trained parts of MODA as one generator of videos."""

from __future__ import annotations

from talkingface.model.abstract_talkingface import AbstractTalkingFace


class MODAPortrait(AbstractTalkingFace):
    """Trains nothing: a run joins three trained parts and evaluates the whole chain."""
