"""Distances and diversities of motion arrays, after audio2photoreal (its spec, section 13).

A motion is (T,C): T frames of C de-normalised values, NaN rows for missing or padded frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from talkingface.evaluator.base_metric import Metric
from talkingface.evaluator.clip import ClipPair
from talkingface.evaluator.frechet import frechet_distance


def pooled(motions: Sequence[np.ndarray], order: int = 0) -> np.ndarray:
    """All valid rows (N,C) of the order-th differences, which bridge neither gaps nor motions."""
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
        released: draw as the released script does: each side of the pairs on its own and without
            replacement, so that it needs ``pairs`` frames (else nan), and a frame may meet itself,
            which lowers the mean. By default partners differ.
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
    """Compares sets of motions, not videos: who evaluates models of motion calls :meth:`score`.

    ``released`` draws pairs as audio2photoreal's script does. Its other defects (fixed sizes, a
    wrong key, a matrix root that SciPy drops) are not repeated.
    """

    uses_frames = False

    def finish(self, clip: ClipPair) -> dict[str, float]:
        return self.undefined("compares motions of models that generate motion, not videos")

    def score(
        self, generated: Sequence[np.ndarray], real: Sequence[np.ndarray]
    ) -> dict[str, float]:
        """Values of a whole set; ``real`` in the place of ``generated`` gives the reference row.

        Args:
            generated: per clip (T,C), or (N,T,C) for N samples of one sound; lengths may differ.
            real: per clip (T,C).
        """
        repeats = [g if g.ndim == 3 else g[None] for g in generated]
        motions = [sample for clip in repeats for sample in clip]
        if not motions or not len(real):
            return self.undefined("no motion")
        results = {
            "FD_g": motion_frechet(motions, real),
            "FD_k": motion_frechet(motions, real, order=1),
            "div_pair": pair_diversity(motions, **self.params),
            "div_time": time_variance(motions),
            "div_time_vel": time_variance(motions, order=1),
            "div_sample": sample_variance(repeats),
        }
        self.reasons = {k: "too few valid frames" for k, v in results.items() if math.isnan(v)}
        if "div_sample" in self.reasons:
            self.reasons["div_sample"] = "needs several samples of one sound"
        return results
