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
        facts: clip -> ``frames`` that were compared, ``size`` of the real picture, and ``native``,
            that of the generated one.
        pooled: output -> one value for all clips, of metrics that have none per clip. Why one is
            nan stands in ``reasons`` under the clip ``""``.
        pooled_clips: output -> the clips that are in that value.
        remarks: what is to be known about the row as a whole.
    """

    name: str
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    pooled: dict[str, float] = field(default_factory=dict)
    pooled_clips: dict[str, list[str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


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
            except Exception as error:  # the pair as such cannot be compared
                reason = _reason(error)
                log.debug("frames of %s", clip.name, exc_info=True)
                for metric in watching:
                    self._fail(metric, clip, row, values, reason)
                    alive.remove(metric)
        for metric in alive:

            def finish(m: Metric = metric) -> None:
                values.update(m.finish(clip))
                for key, reason in m.reasons.items():
                    row.reasons[clip.name, key] = reason

            done = self._guarded(metric, clip, row, values, finish)
            if done and metric.pools:
                for key in set(metric.outputs) - set(metric.reasons):
                    row.pooled_clips.setdefault(key, []).append(clip.name)
        with contextlib.suppress(TalkingFaceError):  # a pair that cannot be compared has its reason
            row.facts[clip.name] = {
                "frames": clip.n_frames,
                "size": "x".join(map(str, clip.size)),
                "native": "x".join(map(str, clip.native_size)),
            }
        row.notes[clip.name] = list(clip.notes)

    def finish_row(self, row: RowResult) -> None:
        """Take the values of metrics that pool all clips; call it once behind a row's last clip."""
        for metric in self.metrics:
            if not metric.pools:
                continue
            values, remarks = dict.fromkeys(metric.outputs, math.nan), []
            why = "no clip could be used"
            try:
                found = metric.pool()  # in any case: it begins anew for the next row
                if found is not None and any(row.pooled_clips.get(k) for k in metric.outputs):
                    values |= found[0]
                    remarks = found[1]
                    why = "too few frames"
            except Exception as error:  # any metric, also a plugin's, must not cost the evaluation
                log.debug("metric %s on the row %s", metric.name, row.name, exc_info=True)
                why = _reason(error)
            row.pooled.update(values)
            row.remarks += remarks
            for key in metric.outputs:
                # When every clip was left out, each has its own reason already.
                left_out = any(k == key for _, k in row.reasons) and not row.pooled_clips.get(key)
                if not math.isfinite(values.get(key, math.nan)) and not left_out:
                    row.reasons["", key] = metric.reasons.get(key, why)

    def _guarded(
        self, metric: Metric, clip: ClipPair, row: RowResult, values: dict[str, float], action: Any
    ) -> bool:
        """Run one step of a metric; a failure becomes nan with its reason."""
        try:
            action()
            return True
        except Exception as error:  # any metric, also a plugin's, must not cost the evaluation
            log.debug("metric %s on %s", metric.name, clip.name, exc_info=True)
            self._fail(metric, clip, row, values, _reason(error))
        return False

    @staticmethod
    def _fail(
        metric: Metric, clip: ClipPair, row: RowResult, values: dict[str, float], reason: str
    ) -> None:
        for key in metric.outputs:
            values[key] = math.nan
            row.reasons[clip.name, key] = reason


def _reason(error: Exception) -> str:
    """The message of an error; of an unexpected one also its type."""
    foreseen = isinstance(error, TalkingFaceError)
    return str(error) if foreseen else f"{type(error).__name__}: {error}"


def row_remarks(rows: list[RowResult]) -> list[str]:
    """Remarks of the rows, and values that were pooled over different clips in different rows."""
    lines = [f"{row.name}: {remark}" for row in rows for remark in row.remarks]
    differing: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for row in rows for key in row.pooled):
        used = {row.name: row.pooled_clips.get(key) for row in rows if row.pooled_clips.get(key)}
        if len({frozenset(clips) for clips in used.values()}) > 1:
            counts = ", ".join(f"{name} {len(clips)}" for name, clips in used.items())
            differing.setdefault(counts, []).append(key)
    for counts, keys in differing.items():
        lines.append(
            f"{', '.join(keys)}: the rows hold different clips ({counts}); do not compare them"
        )
    return lines + _size_remarks(rows)


def _size_remarks(rows: list[RowResult]) -> list[str]:
    """Rows whose videos of one clip have different sizes."""
    sizes: dict[str, dict[str, str]] = {}
    for row in rows:
        for clip, facts in row.facts.items():
            sizes.setdefault(clip, {})[row.name] = facts.get("native", facts["size"])
    odd = next((found for found in sizes.values() if len(set(found.values())) > 1), None)
    if odd is None:
        return []
    shown = ", ".join(f"{name} {size}" for name, size in odd.items())
    return [
        f"the videos of the rows have different sizes ({shown}): NIQE, CPBD and FID, which look at "
        "each in its own size, do not compare; the others compare resized pictures"
    ]


def common_clips(rows: Iterable[RowResult], key: str) -> list[str]:
    """Clips for which every row that has any value of an output has one, sorted."""
    finite = [
        {c for c, v in row.values.items() if math.isfinite(v.get(key, math.nan))} for row in rows
    ]
    filled = [clips for clips in finite if clips]
    return sorted(set.intersection(*filled)) if filled else []


def aggregate(
    rows: list[RowResult], outputs: Iterable[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Mean, standard deviation and number of clips per row and output.

    All rows of a table are averaged over the same clips: those for which every row that has any
    value has one. A row without any value does not count against the others. A pooled value stands
    in the place of the mean, over the clips that it holds; :func:`row_remarks` says when these
    differ between rows.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {row.name: {} for row in rows}
    for key in outputs:
        if any(key in row.pooled for row in rows):
            for row in rows:
                table[row.name][key] = {
                    "mean": row.pooled.get(key, math.nan),
                    "std": math.nan,
                    "n": len(row.pooled_clips.get(key, ())),
                }
            continue
        common = common_clips(rows, key)
        for row in rows:
            numbers = np.array(
                [v for c in common if math.isfinite(v := row.values.get(c, {}).get(key, math.nan))]
            )
            table[row.name][key] = {
                "mean": float(numbers.mean()) if len(numbers) else math.nan,
                "std": float(numbers.std(ddof=1)) if len(numbers) > 1 else math.nan,
                "n": len(numbers),
            }
    return table
