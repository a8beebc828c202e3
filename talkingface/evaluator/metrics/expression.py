"""Distance of expressions: what is left of two faces when pose, place and size are taken out."""

from __future__ import annotations

import math

import numpy as np

from talkingface.data.face.pose import procrustes
from talkingface.data.face.topology import N_MESH, STABLE
from talkingface.evaluator.metrics.landmark_distance import (
    Faces,
    LandmarkMetric,
    eye_distance,
)

_STILL = 1e-4  # of the eye distance: a face that moves less does not move at all


class ExpressionError(LandmarkMetric):
    """Root-mean-square distance of the aligned meshes over that of the real face to its own mean.

    A face that never moves its expression and stays at the real one's mean has 1; the tracker's
    noise keeps even equal videos that were encoded anew above 0. ``centre`` compares changes
    around each video's own mean: for two people.
    """

    empty = "the real face does not move, or fewer than two frames show both faces"

    def values(self, faces: Faces) -> dict[str, float]:
        generated, real = (p[faces.valid, :N_MESH] for p in (faces.generated, faces.real))
        if len(real) < 2:
            return {"expression_error": math.nan}
        stable = list(STABLE)
        base = real[0]
        for _ in range(2):  # to the first face, then to the mean
            own, wanted = (_aligned(points, base, stable) for points in (generated, real))
            base = wanted.mean(axis=0)
        moves = math.sqrt(np.square(wanted - base).sum(axis=-1).mean())
        if self.params["centre"]:
            own, wanted = own - own.mean(axis=0), wanted - base
        error = math.sqrt(np.square(own - wanted).sum(axis=-1).mean())
        still = moves < _STILL * eye_distance(real)
        return {"expression_error": math.nan if still else error / moves}


def _aligned(points: np.ndarray, base: np.ndarray, stable: list[int]) -> np.ndarray:
    """(T,V,3) moved, turned and scaled onto the stable points of (V,3)."""
    target = np.broadcast_to(base[stable], (len(points), len(stable), 3))
    scale, rotation, shift = procrustes(points[:, stable], target)
    return scale[:, None, None] * (points @ np.swapaxes(rotation, 1, 2)) + shift[:, None]
