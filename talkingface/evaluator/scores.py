"""Scores of a row, and the scores of an interrupted evaluation, kept clip by clip."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from talkingface.utils.paths import read_json, write_json


@dataclass
class RowResult:
    """Scores of one row of the table over clips.

    Attributes:
        values: clip -> output name -> value, nan when undefined.
        reasons: (clip, output) -> why it is nan.
        notes: clip -> adjustments and warnings.
        facts: clip -> ``frames``, the number of compared frames; ``size`` of the real and
            ``native`` of the generated picture; empty for motions.
        pooled: output -> one value over all clips, of metrics without a value per clip. ``reasons``
            has the reason of a nan under the clip ``""``.
        pooled_clips: output -> the clips that this value covers.
        remarks: remarks on the whole row.
    """

    name: str
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    pooled: dict[str, float] = field(default_factory=dict)
    pooled_clips: dict[str, list[str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


class ScoreRecord:
    """Scores of one row in a JSON file.

    Args:
        state: function from a clip to its state; stored scores are valid while this is unchanged.
    """

    def __init__(self, path: Path, state: Callable[[str], Any]) -> None:
        self.path, self.state = path, state
        self._kept = read_json(path)

    def restore(self, clip: str, row: RowResult) -> bool:
        """Copy the stored scores of a clip to the row; False when they are missing or outdated."""
        kept = self._kept.get(clip, {})
        if "state" not in kept or kept["state"] != self.state(clip):
            return False
        row.values[clip] = {k: math.nan if v is None else v for k, v in kept["values"].items()}
        row.reasons.update({(clip, k): reason for k, reason in kept["reasons"].items()})
        row.notes[clip] = list(kept["notes"])
        if kept["facts"]:
            row.facts[clip] = kept["facts"]
        return True

    def keep(self, clip: str, row: RowResult) -> None:
        """Store the scores of a clip and write the file."""
        values = row.values[clip].items()
        self._kept[clip] = {
            "state": self.state(clip),
            "values": {k: v if math.isfinite(v) else None for k, v in values},
            "reasons": {k: reason for (c, k), reason in row.reasons.items() if c == clip},
            "notes": row.notes[clip],
            "facts": row.facts.get(clip, {}),
        }
        write_json(self.path, self._kept)
