"""Run metrics over pairs of videos; failures stay with the metric and clip where they happen."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.errors import TalkingFaceError
from talkingface.evaluator.base_metric import Metric, build_metric
from talkingface.evaluator.clip import ClipPair

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)


@dataclass
class RowResult:
    """Scores of one row of the table (a model or a baseline) over clips.

    Attributes:
        values: clip -> output name -> value, nan when undefined.
        reasons: (clip, output) -> why it is nan.
        notes: clip -> what was adjusted or looked odd.
        facts: clip -> ``frames`` that were compared and ``size`` of the picture.
    """

    name: str
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)


class Evaluator:
    """All metrics of a configuration.

    Args:
        cfg: uses ``metrics`` and ``metric_params``.
        metrics: names instead of the configured ones.
    """

    def __init__(self, cfg: Config, metrics: Iterable[str] | None = None) -> None:
        names = list(metrics if metrics is not None else cfg.metrics)
        self.metrics: list[Metric] = [
            build_metric(cfg.registry, name, cfg.metric_params.get(name), cfg) for name in names
        ]

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        """Output name -> direction, unit and range, in table order."""
        return {key: spec for metric in self.metrics for key, spec in metric.outputs.items()}

    def definitions(self) -> dict[str, str]:
        return {metric.name: metric.definition() for metric in self.metrics}

    def score_clip(self, clip: ClipPair, row: RowResult) -> None:
        """Score one pair into a row. Never raises for a bad video or a failing metric."""
        values: dict[str, float] = {}
        row.values[clip.name] = values
        alive = []
        for metric in self.metrics:
            if self._guarded(metric, clip, row, values, lambda m=metric: m.start(clip)):
                alive.append(metric)
        watching = [metric for metric in alive if metric.uses_frames]
        if watching:
            try:
                for index, generated, real in clip.frames():
                    for metric in list(watching):
                        done = self._guarded(
                            metric,
                            clip,
                            row,
                            values,
                            lambda m=metric, i=index, g=generated, r=real: m.update(clip, i, g, r),
                        )
                        if not done:
                            watching.remove(metric)
                            alive.remove(metric)
            except TalkingFaceError as error:  # the pair as such cannot be compared
                for metric in watching:
                    self._fail(metric, clip, row, values, str(error))
                    alive.remove(metric)
        for metric in alive:

            def finish(m: Metric = metric) -> None:
                values.update(m.finish(clip))
                for key, reason in m.reasons.items():
                    row.reasons[clip.name, key] = reason

            self._guarded(metric, clip, row, values, finish)
        with contextlib.suppress(TalkingFaceError):  # a pair that cannot be compared has its reason
            row.facts[clip.name] = {"frames": clip.n_frames, "size": "x".join(map(str, clip.size))}
        row.notes[clip.name] = list(clip.notes)

    def _guarded(
        self, metric: Metric, clip: ClipPair, row: RowResult, values: dict[str, float], action: Any
    ) -> bool:
        """Run one step of a metric; a failure becomes nan with its reason."""
        try:
            action()
            return True
        except TalkingFaceError as error:
            self._fail(metric, clip, row, values, str(error))
        except Exception as error:  # any metric, also a plugin's, must not cost the evaluation
            log.debug("metric %s on %s", metric.name, clip.name, exc_info=True)
            self._fail(metric, clip, row, values, f"{type(error).__name__}: {error}")
        return False

    @staticmethod
    def _fail(
        metric: Metric, clip: ClipPair, row: RowResult, values: dict[str, float], reason: str
    ) -> None:
        for key in metric.outputs:
            values[key] = math.nan
            row.reasons[clip.name, key] = reason


def aggregate(
    rows: list[RowResult], outputs: Iterable[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Mean, standard deviation and number of clips per row and output.

    All rows of a table are averaged over the same clips: those for which every row that has any
    value has one. A row without any value does not count against the others.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {row.name: {} for row in rows}
    for key in outputs:
        finite = {
            row.name: {c for c, v in row.values.items() if math.isfinite(v.get(key, math.nan))}
            for row in rows
        }
        filled = [clips for clips in finite.values() if clips]
        common = sorted(set.intersection(*filled)) if filled else []
        for row in rows:
            numbers = np.array(
                [row.values[c][key] for c in common if c in finite[row.name]], np.float64
            )
            table[row.name][key] = {
                "mean": float(numbers.mean()) if len(numbers) else math.nan,
                "std": float(numbers.std(ddof=1)) if len(numbers) > 1 else math.nan,
                "n": len(numbers),
            }
    return table
