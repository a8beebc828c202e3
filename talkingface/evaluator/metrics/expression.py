"""Distance of facial expressions, with pose, position and size removed."""

from __future__ import annotations

import math

import numpy as np

from talkingface.data.face.pose import procrustes
from talkingface.data.face.topology import N_MESH, STABLE
from talkingface.evaluator.metrics.landmark_distance import Faces, LandmarkMetric, eye_distance

# Of the eye distance: a still face with camera noise has 0.0023 or less, speakers 0.019 or more.
_STILL = 5e-3


class ExpressionError(LandmarkMetric):
    """Root-mean-square distance of the aligned meshes over that of the real face to its own mean.

    The constant mean expression of the real video has the value 1. A re-encoded real video is above
    0 by tracking noise. ``centre`` subtracts each video's mean first, for videos of two people.
    """

    revision = 2  # undefined for a still face
    empty = "the real face does not move, or fewer than two frames show both faces"

    def values(self, faces: Faces) -> dict[str, float]:
        generated, real = (p[faces.valid, :N_MESH] for p in (faces.generated, faces.real))
        if len(real) < 2:
            return {"expression_error": math.nan}
        stable = list(STABLE)
        base = real[0]
        for _ in range(2):  # align to the first face, then to the mean
            face, target = (_aligned(points, base, stable) for points in (generated, real))
            base = target.mean(axis=0)
        spread = math.sqrt(np.square(target - base).sum(axis=-1).mean())
        if self.params["centre"]:
            face, target = face - face.mean(axis=0), target - base
        error = math.sqrt(np.square(face - target).sum(axis=-1).mean())
        still = spread < _STILL * eye_distance(real)
        return {"expression_error": math.nan if still else error / spread}


def _aligned(points: np.ndarray, base: np.ndarray, stable: list[int]) -> np.ndarray:
    """(T,V,3) aligned with (V,3) by a similarity transform of the stable points."""
    target = np.broadcast_to(base[stable], (len(points), len(stable), 3))
    scale, rotation, shift = procrustes(points[:, stable], target)
    return scale[:, None, None] * (points @ np.swapaxes(rotation, 1, 2)) + shift[:, None]
