"""How much the head moves, and how far its pose is from the real one (ours)."""

from __future__ import annotations

import math

import numpy as np

from talkingface.data.face.pose import EYE_DISTANCE, head_pose
from talkingface.evaluator.clip import missing_faces
from talkingface.evaluator.metrics.landmark_distance import (
    Faces,
    LandmarkMetric,
    found,
)


def angle_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Absolute difference of angles in degrees, at most 180."""
    return np.abs((first - second + 180) % 360 - 180)


class Pose(LandmarkMetric):
    """Deviation over time of the head's angles and place; mean angle error (HeadGAN's ARD).

    ``Div_pose`` is the mean of the three angles' deviations (SadTalker's diversity of head motion,
    by our pose estimator). A still head has 0 everywhere.
    """

    both = False
    empty = "fewer than two frames with a face"

    def values(self, faces: Faces) -> dict[str, float]:
        # Unsmoothed: smoothing would hide the trembling of a generated head.
        pose, goal = (head_pose(points, sigma=0) for points in (faces.generated, faces.real))
        own, both = pose[faces.valid], faces.valid & found(faces.real)
        std = own[:, :5].std(axis=0) if len(own) > 1 else np.full(5, math.nan)
        # Place in the picture in frontal eye distances, which turning the head does not change.
        shift = 100 * np.hypot(*std[3:]) * np.median(own[:, 6]) / EYE_DISTANCE
        results = dict(zip(self.outputs, [*std[:3], shift, std[:3].mean(), math.nan], strict=True))
        few = missing_faces("ARD", faces.clip, both.mean(), "in both videos")
        if few:
            self.reasons["ARD"] = few
        else:
            results["ARD"] = angle_distance(pose[both, :3], goal[both, :3]).mean()
        return results
