"""Statistics of a comparison: intervals of means and paired tests against a baseline row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from talkingface.evaluator.evaluator import RowResult, aggregate, common_clips

RESAMPLES = 9999
LEVEL = 0.95
_SEED = 0  # fixed, so that equal inputs give equal intervals and p values


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % confidence interval of the mean over clips (bias-corrected and accelerated bootstrap).

    nan for fewer than two values; equal values are both limits themselves.
    """
    from scipy.stats import bootstrap

    numbers = np.asarray(values, np.float64)
    if len(numbers) < 2:
        return math.nan, math.nan
    if np.ptp(numbers) <= 1e-12 * np.abs(numbers).max():
        return float(numbers[0]), float(numbers[0])
    interval = bootstrap(
        (numbers,), np.mean, n_resamples=RESAMPLES, confidence_level=LEVEL,
        method="BCa", rng=np.random.default_rng(_SEED),
    ).confidence_interval  # fmt: skip
    return float(interval.low), float(interval.high)


def paired_p(differences: Sequence[float]) -> float:
    """Two-sided p value of a paired sign-flip test for a zero mean difference.

    Up to 13 clips it uses all 2^n sign patterns, above 9999 random ones. With fewer than six clips
    p cannot fall below 0.05. nan without clips, 1 when all differences are zero.
    """
    from scipy.stats import permutation_test

    numbers = np.asarray(differences, np.float64)
    if not len(numbers):
        return math.nan
    if len(numbers) == 1 or not np.any(numbers):
        return 1.0  # of one difference, both signs have equal absolute means
    return float(
        permutation_test(
            (numbers,), np.mean, permutation_type="samples", vectorized=True,
            n_resamples=RESAMPLES, rng=np.random.default_rng(_SEED),
        ).pvalue
    )  # fmt: skip


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction for several tests; nan stays nan and does not count as a test."""
    known = sorted((p, name) for name, p in p_values.items() if math.isfinite(p))
    corrected = {name: math.nan for name in p_values}
    highest = 0.0
    for rank, (p, name) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        corrected[name] = highest
    return corrected


def lower_is_better_score(value: float, direction: str, real: float) -> float:
    """A score that is lower for a better value.

    Args:
        direction: direction of the output; for ``real`` the score is the distance to ``real``.
        real: value of the real video.
    """
    if direction == "up":
        return -value
    if direction == "zero":
        return abs(value)
    return abs(value - real) if direction == "real" else value


def summarize(
    rows: list[RowResult],
    outputs: Mapping[str, Mapping[str, Any]],
    *,
    baseline: str | None,
    real: str | None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Row -> output -> ``mean std n low high difference p best``.

    All statistics of an output are over the same clips. ``low`` and ``high`` are the 95 %
    interval. ``difference`` is the mean of row minus ``baseline``, in the output's unit. ``p``
    (Holm-corrected over the rows) tests the difference of the scores
    (:func:`lower_is_better_score`). ``best`` marks the row with the best mean score, except the
    real video; no row when all are equal.

    Args:
        baseline, real: titles of rows; None without such a row.
    """
    table = aggregate(rows, outputs)
    for key, spec in outputs.items():
        _compare(table, rows, key, spec.get("direction", "none"), baseline, real)
    return table


def _compare(
    table: dict[str, dict[str, dict[str, Any]]],
    rows: list[RowResult],
    key: str,
    direction: str,
    baseline: str | None,
    real: str | None,
) -> None:
    """Fill the cells of one output."""
    clips = common_clips(rows, key)
    # Only rows with values of all common clips; pooled outputs and failed rows have none.
    values = {
        row.name: np.array([row.values[c][key] for c in clips])
        for row in rows
        if clips and table[row.name][key]["n"] == len(clips) and key not in row.pooled
    }
    real_values = values.get(real or "")
    if direction == "real" and real_values is None:
        direction = "none"
    targets = real_values if direction == "real" else np.zeros(len(clips))
    scores = {
        name: np.array(
            [lower_is_better_score(v, direction, t) for v, t in zip(part, targets, strict=True)]
        )
        for name, part in values.items()
        if direction != "none" and name != real
    }
    raw_p = {}
    for row in rows:
        cell = table[row.name][key]
        cell["low"], cell["high"] = bootstrap_interval(values.get(row.name, []))
        cell["difference"], cell["p"], cell["best"] = math.nan, math.nan, False
        if row.name != baseline and row.name in values and baseline in values:
            cell["difference"] = float((values[row.name] - values[baseline]).mean())
            if row.name in scores and baseline in scores:
                raw_p[row.name] = paired_p(scores[row.name] - scores[baseline])
    for name, p in holm(raw_p).items():
        table[name][key]["p"] = p
    ranked = {name: float(part.mean()) for name, part in scores.items()}
    if not values and direction in ("up", "down"):  # pooled values: comparable if of equal clips
        pooled = {row.name: row for row in rows if math.isfinite(row.pooled.get(key, math.nan))}
        if len({frozenset(row.pooled_clips.get(key, ())) for row in pooled.values()}) == 1:
            ranked = {
                name: lower_is_better_score(row.pooled[key], direction, math.nan)
                for name, row in pooled.items()
                if name != real
            }
    if len(set(ranked.values())) > 1:
        best = min(ranked.values())
        for name, value in ranked.items():
            table[name][key]["best"] = value == best


def stars(p: float | None) -> str:
    """``**`` below 0.01, ``*`` below 0.05, else an empty text."""
    if p is None or not math.isfinite(p):
        return ""
    return "**" if p < 0.01 else "*" if p < 0.05 else ""
