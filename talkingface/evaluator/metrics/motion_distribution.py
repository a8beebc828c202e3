"""Distances and diversities of motion arrays, after audio2photoreal.

A motion is (T,C): T frames of C de-normalised values, NaN rows for missing or padded frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from talkingface.evaluator.base_metric import Metric
from talkingface.evaluator.frechet import frechet_distance
from talkingface.evaluator.motion_sample import MotionSample


def pooled(motions: Sequence[np.ndarray], order: int = 0) -> np.ndarray:
    """Valid rows (N,C) of the order-th differences of each motion; none spans a missing frame."""
    rows = np.concatenate([np.diff(m.astype(np.float64), n=order, axis=0) for m in motions])
    return rows[np.isfinite(rows).all(axis=1)]


def motion_frechet(
    generated: Sequence[np.ndarray], real: Sequence[np.ndarray], order: int = 0
) -> float:
    """Frechet distance of Gaussians over frames: order 0 is FD_g, 1 (velocities) is FD_k.

    With fewer frames than values per frame the covariance is singular and the distance biased.
    """
    moments: list[np.ndarray] = []
    for rows in (pooled(generated, order), pooled(real, order)):
        if len(rows) < 2:
            return math.nan
        moments += [rows.mean(axis=0), np.atleast_2d(np.cov(rows, rowvar=False))]
    return float(frechet_distance(*moments))


def pair_diversity(
    motions: Sequence[np.ndarray], pairs: int = 10_000, seed: int = 0, released: bool = False
) -> float:
    """Mean Euclidean distance of random pairs of frames, at most one per frame.

    Args:
        released: draw as the released script does: both sides of the pairs independently and
            without replacement. This needs ``pairs`` frames (else nan), and a frame may be paired
            with itself, which lowers the mean. By default the two frames of a pair differ.
    """
    rows = pooled(motions)
    rng = np.random.default_rng(seed)
    count = len(rows)
    if count < (pairs if released else 2):
        return math.nan
    first = rng.permutation(count)[:pairs]
    if released:
        second = rng.permutation(count)[:pairs]
    else:
        second = (first + rng.integers(1, count, len(first))) % count
    return float(np.linalg.norm(rows[first] - rows[second], axis=1).mean())


def time_variance(motions: Sequence[np.ndarray], order: int = 0) -> float:
    """Mean over motions and values of the variance over time (the script's ``var_k``)."""
    parts = [pooled([motion], order) for motion in motions]
    variances = [rows.var(axis=0).mean() for rows in parts if len(rows)]
    return float(np.mean(variances)) if variances else math.nan


def sample_variance(repeats: Sequence[np.ndarray]) -> float:
    """Mean over clips, frames and values of the variance between samples (N,T,C) of one sound."""
    clips = [pooled([r.astype(np.float64).var(axis=0)]) for r in repeats if len(r) > 1]
    means = [rows.mean() for rows in clips if len(rows)]
    return float(np.mean(means)) if means else math.nan


class MotionDistribution(Metric):
    """Compares the set of generated motions of a row with that of the real ones.

    Outputs of models with several parts (face and pose) begin with the part's name. ``released``
    draws pairs as audio2photoreal's script does. Other errors of that script (fixed sizes, a wrong
    key, a deprecated option of ``scipy.linalg.sqrtm``) are not reproduced.
    """

    takes = "motion"
    uses_frames = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.heads = {"": ""}  # part -> beginning of its outputs' names
        self._sets: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {}

    def of_parts(self, parts: Sequence[str]) -> None:
        """Set the parts of the motions; with several parts each has its own outputs."""
        outputs = self.entry.meta["outputs"].items()
        self.heads = {part: f"{part} " if len(parts) > 1 else "" for part in parts}
        self.outputs = {f"{h}{k}": dict(spec) for h in self.heads.values() for k, spec in outputs}

    def finish(self, clip: MotionSample) -> dict[str, float]:
        for part, (generated, real) in clip.motions.items():
            sets = self._sets.setdefault(part, ([], []))
            sets[0].append(generated)
            sets[1].append(real)
        return dict.fromkeys(self.outputs, math.nan)

    def pool(self) -> tuple[dict[str, float], list[str]]:
        sets, self._sets = self._sets, {}
        values = {}
        for part, pair in sets.items():
            statistics = set_statistics(*pair, **self.params)
            values.update({f"{self.heads[part]}{key}": value for key, value in statistics.items()})
        self.reasons = {
            key: "needs several samples of one sound"
            if key.endswith("div_sample")
            else "too few valid frames"
            for key, value in values.items()
            if math.isnan(value)
        }
        return values, []


def set_statistics(
    generated: Sequence[np.ndarray], real: Sequence[np.ndarray], **params: Any
) -> dict[str, float]:
    """Values of a whole set; ``real`` passed as ``generated`` gives the reference row.

    Args:
        generated: per clip (T,C), or (N,T,C) for N samples of one sound; lengths may differ.
        real: per clip (T,C).
        params: of :func:`pair_diversity`.
    """
    repeats = [g if g.ndim == 3 else g[None] for g in generated]
    motions = [sample for clip in repeats for sample in clip]
    return {
        "FD_g": motion_frechet(motions, real),
        "FD_k": motion_frechet(motions, real, order=1),
        "div_pair": pair_diversity(motions, **params),
        "div_time": time_variance(motions),
        "div_time_vel": time_variance(motions, order=1),
        "div_sample": sample_variance(repeats),
    }
