"""A generated and a real motion of the same clip, and the values that the model computed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from talkingface.evaluator.base_metric import Metric

REAL = "real"  # row of the recorded motion


@dataclass
class MotionSample:
    """Input of the metrics of motion.

    Attributes:
        name: clip id.
        values: output -> value, computed by the model.
        motions: part (``face``, ``pose``) -> generated (N,T,C), N samples of one sound, and real
            (T,C) motion in the units of the data; NaN rows for frames that do not count.
    """

    name: str
    values: Mapping[str, float]
    motions: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, row: str, result: Any) -> MotionSample:
        """The sample of one row of a :class:`~talkingface.model.abilities.ClipResult`."""
        motions = {}
        for part, rows in result.motions.items():
            if REAL in rows and row in rows:
                real = rows[REAL][0]
                missing = np.isnan(real).any(axis=1)[:, None]
                motions[part] = (np.where(missing, np.nan, rows[row]), real)
        return cls(name, result.values.get(row, {}), motions)

    def facts(self) -> dict[str, Any]:
        return {}


class MeasuredValues(Metric):
    """Passes on the values that the model computed.

    Args:
        outputs: name of each value -> direction and unit.
    """

    takes = "motion"
    uses_frames = False

    def __init__(self, outputs: Mapping[str, dict[str, Any]]) -> None:
        self.entry, self.params, self.name = None, {}, "measured"
        self.outputs = {key: dict(spec) for key, spec in outputs.items()}
        self.reasons: dict[str, str] = {}

    def finish(self, clip: MotionSample) -> dict[str, float]:
        values = {key: clip.values.get(key, math.nan) for key in self.outputs}
        undefined = (key for key, value in values.items() if not math.isfinite(value))
        self.reasons = dict.fromkeys(undefined, "not defined for this row")
        return values
