"""The evaluation engine: metrics over rows and clips.

A row (a model, a baseline, the real recordings) has one sample per clip: a generated and a real
video (:class:`~talkingface.evaluator.clip.ClipPair`) or a generated and a real motion
(:class:`~talkingface.evaluator.motion_sample.MotionSample`). Each metric takes one of the two
kinds. A metric that fails on a clip affects neither other metrics nor other clips.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.errors import EnvironmentProblem, ResourceProblem, TalkingFaceError
from talkingface.evaluator.base_metric import Metric, build_metric
from talkingface.evaluator.scores import RowResult, ScoreRecord
from talkingface.utils.limits import require_resources
from talkingface.utils.logs import progress

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)


@dataclass
class Row:
    """The samples of one row, which are to be scored.

    Attributes:
        samples: clip -> function that returns its sample. If it raises a TalkingFaceError, the
            message is the reason why the clip has no value.
        record: scores of an interrupted evaluation, which are used again; None scores all clips.
    """

    title: str
    samples: Mapping[str, Callable[[], Any]]
    record: ScoreRecord | None = None


class Evaluator:
    """The metrics of a configuration that take one kind of sample.

    Args:
        cfg: uses ``metrics`` and ``metric_params``.
        metrics: names of metrics; default: the configured ones.
        takes: ``video`` or ``motion``.
        first: further metrics, whose outputs come before the others.

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
            EnvironmentProblem: a full disk, too little memory or too many open files.
        """
        results = []
        total = sum(len(row.samples) for row in rows)
        show = self.cfg.show_progress
        with progress(total=total, unit="clip", desc=desc, show=show, leave=False) as bar:
            for row in rows:
                result = RowResult(row.title)
                results.append(result)
                # Pooled values cannot be restored clip by clip.
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
        """Create and score one sample; False when its creation failed."""
        try:
            self.score_clip(sample(), row)
        except EnvironmentProblem:
            raise
        except TalkingFaceError as error:
            row.values[clip] = dict.fromkeys(self.outputs, math.nan)
            row.reasons.update({(clip, key): str(error) for key in self.outputs})
            row.notes[clip] = []
            return False
        return True

    def score_clip(self, clip: Any, row: RowResult) -> None:
        """Add the scores of one sample to a row; errors of videos and metrics become reasons."""
        row.values[clip.name] = {}
        running = [m for m in self.metrics if self._guarded(m, clip, row, m.start, clip)]
        frame_metrics = [metric for metric in running if metric.uses_frames]
        if frame_metrics:
            try:
                for frames in clip.frames():
                    for metric in list(frame_metrics):
                        if not self._guarded(metric, clip, row, metric.update, clip, *frames):
                            frame_metrics.remove(metric)
                            running.remove(metric)
            except ResourceProblem:
                raise
            except Exception as error:  # of decoding or pairing the frames
                log.debug("frames of %s", clip.name, exc_info=True)
                for metric in frame_metrics:
                    _fail(metric, clip.name, row, error)
                    running.remove(metric)
        for metric in running:
            if self._guarded(metric, clip, row, self._finish, metric, clip, row) and metric.pools:
                for key in set(metric.outputs) - set(metric.reasons):
                    row.pooled_clips.setdefault(key, []).append(clip.name)
        with contextlib.suppress(TalkingFaceError):  # is already the reason of each output
            if facts := clip.facts():
                row.facts[clip.name] = facts
        row.notes[clip.name] = list(clip.notes)

    def finish_row(self, row: RowResult) -> None:
        """Add the values of metrics that pool all clips; call it once after the last clip."""
        for metric in self.metrics:
            if not metric.pools:
                continue
            values, why = dict.fromkeys(metric.outputs, math.nan), "no clip could be used"
            try:
                pooled = metric.pool()  # always called: it also resets the metric for the next row
                if pooled is not None and any(row.pooled_clips.get(k) for k in metric.outputs):
                    values |= pooled[0]
                    row.remarks += pooled[1]
                    why = "too few frames"
            except Exception as error:  # also of plugins; the evaluation goes on
                log.debug("metric %s on the row %s", metric.name, row.name, exc_info=True)
                why = _reason(error)
            row.pooled.update(values)
            for key in metric.outputs:
                # When every clip was left out, each clip has a reason already.
                left_out = any(k == key for _, k in row.reasons) and not row.pooled_clips.get(key)
                if not math.isfinite(values.get(key, math.nan)) and not left_out:
                    row.reasons["", key] = metric.reasons.get(key, why)

    @staticmethod
    def _finish(metric: Metric, clip: Any, row: RowResult) -> None:
        row.values[clip.name].update(metric.finish(clip))
        row.reasons.update({(clip.name, key): why for key, why in metric.reasons.items()})

    @staticmethod
    def _guarded(metric: Metric, clip: Any, row: RowResult, step: Callable, *args: Any) -> bool:
        """Run one step of a metric; False if it failed: its outputs are then nan with a reason."""
        try:
            step(*args)
            return True
        except ResourceProblem:
            raise
        except Exception as error:  # also of plugins; the evaluation goes on
            require_resources(error)
            log.debug("metric %s on %s", metric.name, clip.name, exc_info=True)
            _fail(metric, clip.name, row, error)
        return False


def _fail(metric: Metric, clip: str, row: RowResult, error: Exception) -> None:
    for key in metric.outputs:
        row.values[clip][key] = math.nan
        row.reasons[clip, key] = _reason(error)


def _reason(error: Exception) -> str:
    """The message of an error; of an unexpected one also its type."""
    return str(error) if isinstance(error, TalkingFaceError) else f"{type(error).__name__}: {error}"


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
            f"{', '.join(keys)}: the rows cover different clips ({counts}); do not compare them"
        )
    return lines + _size_remarks(rows)


def _size_remarks(rows: Sequence[RowResult]) -> list[str]:
    """Rows whose videos of one clip have different sizes."""
    sizes: dict[str, dict[str, str]] = {}
    for row in rows:
        for clip, facts in row.facts.items():
            sizes.setdefault(clip, {})[row.name] = facts.get("native", facts["size"])
    differing = next((size for size in sizes.values() if len(set(size.values())) > 1), None)
    if differing is None:
        return []
    text = ", ".join(f"{name} {size}" for name, size in differing.items())
    return [
        f"the videos of the rows have different sizes ({text}): NIQE, CPBD and FID use the "
        "original size and are not comparable; the other metrics compare resized pictures"
    ]


def common_clips(rows: Sequence[RowResult], key: str) -> list[str]:
    """Clips with a value of an output in every row, sorted; rows without any value are ignored."""
    finite = [
        {c for c, v in row.values.items() if math.isfinite(v.get(key, math.nan))} for row in rows
    ]
    filled = [clips for clips in finite if clips]
    return sorted(set.intersection(*filled)) if filled else []


def aggregate(
    rows: Sequence[RowResult], outputs: Iterable[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Mean, standard deviation and number of clips per row and output.

    All rows are averaged over the same clips (:func:`common_clips`). A pooled value takes the place
    of the mean and has its own clips; :func:`row_remarks` reports when these differ between rows.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {row.name: {} for row in rows}
    for key in outputs:
        if any(key in row.pooled for row in rows):
            for row in rows:
                mean, count = row.pooled.get(key, math.nan), len(row.pooled_clips.get(key, ()))
                table[row.name][key] = {"mean": mean, "std": math.nan, "n": count}
            continue
        common = common_clips(rows, key)
        for row in rows:
            scores = [row.values.get(clip, {}).get(key, math.nan) for clip in common]
            numbers = np.array([score for score in scores if math.isfinite(score)])
            mean = float(numbers.mean()) if len(numbers) else math.nan
            std = float(numbers.std(ddof=1)) if len(numbers) > 1 else math.nan
            table[row.name][key] = {"mean": mean, "std": std, "n": len(numbers)}
    return table
