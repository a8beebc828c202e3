"""Speed, jitter and jerk of the face points."""

from __future__ import annotations

import math

import numpy as np

from talkingface.data.face.topology import LIPS
from talkingface.evaluator.clip import missing_faces
from talkingface.evaluator.metrics.landmark_distance import (
    FACE,
    STILL_REASON,
    Faces,
    LandmarkMetric,
    eye_distance,
    found,
    split_shots,
)

# Of the eye distance. The jitter of a still face with camera noise is 0.0023 (lips 0.0012, head
# 0.0031) or less, that of talking faces 0.006 or more.
STILL = 4e-3
NOSE_BRIDGE = (168, 6, 197, 195, 5, 4, 1)  # moves with the head only


def mean_difference(points: np.ndarray, order: int) -> float:
    """Mean length over points and frames of the n-th difference in time, in px/frame^n.

    Args:
        points: (T,K,2), NaN in missing frames; differences that need them do not count.
        order: 1 speed, 2 jitter (acceleration), 3 jerk.
    """
    lengths = np.linalg.norm(np.diff(points, n=order, axis=0), axis=-1).mean(axis=-1)
    lengths = lengths[np.isfinite(lengths)]
    return float(lengths.mean()) if len(lengths) else math.nan


def motion_statistics(points: np.ndarray) -> dict[str, float]:
    """Speed, jitter and jerk of a face (T,478,>=2); jitter of the head, and of the centred lips."""
    face, head, lips = (points[:, list(ids), :2] for ids in (FACE, NOSE_BRIDGE, LIPS))
    return {
        "speed": mean_difference(face, 1),
        "jitter": mean_difference(face, 2),
        "jerk": mean_difference(face, 3),
        "head_jitter": mean_difference(head, 2),
        "lip_jitter": mean_difference(lips - lips.mean(axis=1, keepdims=True), 2),
    }


class Jitter(LandmarkMetric):
    """Motion of the generated face in px, in % of its eye distance and as a ratio to the real one.

    The best value is that of the real video, neither 0 nor a large one.
    """

    revision = 2  # no ratio to a still face
    both = False

    def values(self, faces: Faces) -> dict[str, float]:
        videos = (split_shots(points, faces.clip) for points in (faces.generated, faces.real))
        generated, real = (motion_statistics(points) for points in videos)
        unit = eye_distance(faces.generated[faces.valid])
        share = found(faces.real).mean()
        reason = missing_faces(f"{self.name}_ratio", faces.clip, share, "in the real video")
        results = {}
        for key in self.outputs:
            name, _, form = key.rpartition("_")
            if form == "norm":
                results[key] = 100 * generated[name] / unit
            elif form != "ratio":
                results[key] = generated[key]
            elif reason:
                results[key], self.reasons[key] = math.nan, reason
            elif real[name] < STILL * eye_distance(faces.real[found(faces.real)]):
                # The ratio is defined only if both faces are still.
                results[key] = 1.0 if generated[name] == real[name] else math.nan
                self.reasons[key] = STILL_REASON
            else:
                results[key] = generated[name] / real[name]
        return results
