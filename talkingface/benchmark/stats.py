"""Statistics of a comparison: intervals of means and paired tests against one row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from talkingface.evaluator.evaluator import RowResult, aggregate, common_clips

RESAMPLES = 9999
LEVEL = 0.95
_SEED = 0  # equal inputs give equal intervals and p values


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean over clips (bias-corrected and accelerated bootstrap).

    Fewer than two values give nan; equal values give that value.
    """
    from scipy.stats import bootstrap

    numbers = np.asarray(values, np.float64)
    if len(numbers) < 2:
        return math.nan, math.nan
    if np.ptp(numbers) <= 1e-12 * np.abs(numbers).max():
        return float(numbers[0]), float(numbers[0])
    found = bootstrap(
        (numbers,), np.mean, n_resamples=RESAMPLES, confidence_level=LEVEL,
        method="BCa", rng=np.random.default_rng(_SEED),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


def paired_p(differences: Sequence[float]) -> float:
    """Two-sided p of the mean of paired differences being zero, by flipping their signs.

    All 2^n sign patterns up to 13 clips, 9999 random ones above. Below six clips p cannot fall
    under 0.05. nan without clips, 1 when all differences are zero.
    """
    from scipy.stats import permutation_test

    numbers = np.asarray(differences, np.float64)
    if not len(numbers):
        return math.nan
    if not np.any(numbers):
        return 1.0
    if len(numbers) == 1:
        return 1.0  # both signs are equally far from zero
    return float(
        permutation_test(
            (numbers,), np.mean, permutation_type="samples", vectorized=True,
            n_resamples=RESAMPLES, rng=np.random.default_rng(_SEED),
        ).pvalue
    )  # fmt: skip


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction for several tests; nan stays nan and counts for nothing."""
    known = sorted((p, name) for name, p in p_values.items() if math.isfinite(p))
    corrected = {name: math.nan for name in p_values}
    highest = 0.0
    for rank, (p, name) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        corrected[name] = highest
    return corrected


def lower_is_better_score(value: float, direction: str, real: float) -> float:
    """A number that is smaller the better a value is.

    Args:
        direction: of the output; for ``real`` it is the distance to the real video's value.
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

    All figures of an output are over the same clips. ``difference`` is the mean of row minus
    ``baseline`` in the output's unit; ``p`` (Holm-corrected over the rows) is about which of the
    two is better: for outputs that should be near zero or near the real video's value, about the
    distance to it. ``best`` marks the best row that is not the real video, by the same measure;
    nothing is marked where all rows are equal.

    Args:
        baseline, real: titles of rows, None when there is no such row.
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
    # A row counts when it has all common clips: a pooled value has none, a failed row neither.
    values = {
        row.name: np.array([row.values[c][key] for c in clips])
        for row in rows
        if clips and table[row.name][key]["n"] == len(clips) and key not in row.pooled
    }
    truth = values.get(real or "")
    if direction == "real" and truth is None:
        direction = "none"
    near = truth if direction == "real" else np.zeros(len(clips))
    bad = {
        name: np.array(
            [lower_is_better_score(v, direction, t) for v, t in zip(part, near, strict=True)]
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
            if row.name in bad and baseline in bad:
                raw_p[row.name] = paired_p(bad[row.name] - bad[baseline])
    for name, p in holm(raw_p).items():
        table[name][key]["p"] = p
    ranked = {name: float(part.mean()) for name, part in bad.items()}
    if not values and direction in ("up", "down"):  # pooled: comparable when of the same clips
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
    """``**`` below 0.01, ``*`` below 0.05, else nothing."""
    if p is None or not math.isfinite(p):
        return ""
    return "**" if p < 0.01 else "*" if p < 0.05 else ""
