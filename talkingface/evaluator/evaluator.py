"""The evaluation engine: metrics over rows and clips.

A row (a model, a baseline, the real recordings) gives a sample per clip: a video beside the real
one (:class:`~talkingface.evaluator.clip.ClipPair`) or a motion beside the real one
(:class:`~talkingface.evaluator.motion_sample.MotionSample`). Every metric takes one of the two
kinds and has the same protocol. A failure stays with the metric and clip where it happens.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.errors import EnvironmentProblem, TalkingFaceError
from talkingface.evaluator.base_metric import Metric, build_metric
from talkingface.evaluator.scores import ScoreRecord
from talkingface.utils.logs import progress

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)


@dataclass
class RowResult:
    """Scores of one row of the table over clips.

    Attributes:
        values: clip -> output name -> value, nan when undefined.
        reasons: (clip, output) -> why it is nan.
        notes: clip -> what was adjusted or looked odd.
        facts: clip -> ``frames`` that were compared, ``size`` of the real picture, and ``native``,
            that of the generated one; empty for motions.
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


@dataclass
class Row:
    """What is to be scored under one title.

    Attributes:
        samples: clip -> function that returns its sample. A TalkingFaceError of it is recorded as
            the reason why the clip has no value.
        record: scores of an interrupted evaluation that are used again; None scores anew.
    """

    title: str
    samples: Mapping[str, Callable[[], Any]]
    record: ScoreRecord | None = None


class Evaluator:
    """The metrics of a configuration that take one kind of sample.

    Args:
        cfg: uses ``metrics`` and ``metric_params``.
        metrics: names instead of the configured ones.
        takes: ``video`` or ``motion``.
        first: metrics that are not configured and come before the others.

    Attributes:
        not_applicable: name of each metric of the other kind -> why it is left out.
    """

    def __init__(
        self,
        cfg: Config,
        metrics: Iterable[str] | None = None,
        *,
        takes: str = "video",
        first: Sequence[Metric] = (),
    ) -> None:
        self.cfg = cfg
        self.metrics: list[Metric] = list(first)
        self.not_applicable: dict[str, str] = {}
        for name in metrics if metrics is not None else cfg.metrics:
            metric = build_metric(cfg.registry, name, cfg.metric_params.get(name), cfg)
            if metric.takes == takes:
                self.metrics.append(metric)
            else:
                self.not_applicable[metric.name] = f"it compares {metric.takes}s, not {takes}s"

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        """Output name -> direction, unit and range, in table order."""
        return {key: spec for metric in self.metrics for key, spec in metric.outputs.items()}

    def definitions(self) -> dict[str, str]:
        return {metric.name: metric.definition() for metric in self.metrics if metric.entry}

    def run(self, rows: Sequence[Row], *, desc: str = "evaluation") -> list[RowResult]:
        """Score all rows, one after the other.

        Raises:
            EnvironmentProblem: a full disk or a missing package, which all clips share.
        """
        results = []
        total = sum(len(row.samples) for row in rows)
        show = self.cfg.show_progress
        with progress(total=total, unit="clip", desc=desc, show=show, leave=False) as bar:
            for row in rows:
                result = RowResult(row.title)
                results.append(result)
                # What is pooled over clips cannot be taken over clip by clip.
                pools = any(metric.pools for metric in self.metrics)
                record = None if pools else row.record
                for number, (clip, sample) in enumerate(row.samples.items(), 1):
                    if record is None or not record.restore(clip, result):
                        if self._score(clip, sample, result) and record is not None:
                            record.keep(clip, result)
                    bar.update()
                    if bar.disable and number % 25 == 0:
                        log.info("%s, %s: %d of %d", desc, row.title, number, len(row.samples))
                self.finish_row(result)
        return results

    def _score(self, clip: str, sample: Callable[[], Any], row: RowResult) -> bool:
        """Make and score one sample; False when it could not be made."""
        try:
            made = sample()
        except EnvironmentProblem:
            raise
        except TalkingFaceError as error:
            row.values[clip] = dict.fromkeys(self.outputs, math.nan)
            row.reasons.update({(clip, key): str(error) for key in self.outputs})
            row.notes[clip] = []
            return False
        self.score_clip(made, row)
        return True

    def score_clip(self, clip: Any, row: RowResult) -> None:
        """Score one sample into a row. Never raises for a bad video or a failing metric."""
        values: dict[str, float] = {}
        row.values[clip.name] = values
        alive = [m for m in self.metrics if self._guarded(m, clip, row, lambda m=m: m.start(clip))]
        watching = [metric for metric in alive if metric.uses_frames]
        if watching:
            try:
                for index, generated, real in clip.frames():
                    for metric in list(watching):

                        def update(
                            m: Metric = metric, at: tuple = (index, generated, real)
                        ) -> None:
                            m.update(clip, *at)

                        if not self._guarded(metric, clip, row, update):
                            watching.remove(metric)
                            alive.remove(metric)
            except Exception as error:  # the pair as such cannot be compared
                reason = _reason(error)
                log.debug("frames of %s", clip.name, exc_info=True)
                for metric in watching:
                    _fail(metric, clip.name, row, reason)
                    alive.remove(metric)
        for metric in alive:

            def finish(m: Metric = metric) -> None:
                values.update(m.finish(clip))
                row.reasons.update({(clip.name, key): why for key, why in m.reasons.items()})

            if self._guarded(metric, clip, row, finish) and metric.pools:
                for key in set(metric.outputs) - set(metric.reasons):
                    row.pooled_clips.setdefault(key, []).append(clip.name)
        with contextlib.suppress(TalkingFaceError):  # a pair that cannot be compared has its reason
            if facts := clip.facts():
                row.facts[clip.name] = facts
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

    @staticmethod
    def _guarded(metric: Metric, clip: Any, row: RowResult, action: Callable[[], None]) -> bool:
        """Run one step of a metric; a failure becomes nan with its reason."""
        try:
            action()
            return True
        except Exception as error:  # any metric, also a plugin's, must not cost the evaluation
            log.debug("metric %s on %s", metric.name, clip.name, exc_info=True)
            _fail(metric, clip.name, row, _reason(error))
        return False


def _fail(metric: Metric, clip: str, row: RowResult, reason: str) -> None:
    for key in metric.outputs:
        row.values[clip][key] = math.nan
        row.reasons[clip, key] = reason


def _reason(error: Exception) -> str:
    """The message of an error; of an unexpected one also its type."""
    foreseen = isinstance(error, TalkingFaceError)
    return str(error) if foreseen else f"{type(error).__name__}: {error}"


def row_remarks(rows: Sequence[RowResult]) -> list[str]:
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


def _size_remarks(rows: Sequence[RowResult]) -> list[str]:
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


def common_clips(rows: Sequence[RowResult], key: str) -> list[str]:
    """Clips for which every row that has any value of an output has one, sorted."""
    finite = [
        {c for c, v in row.values.items() if math.isfinite(v.get(key, math.nan))} for row in rows
    ]
    filled = [clips for clips in finite if clips]
    return sorted(set.intersection(*filled)) if filled else []


def aggregate(
    rows: Sequence[RowResult], outputs: Iterable[str]
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
