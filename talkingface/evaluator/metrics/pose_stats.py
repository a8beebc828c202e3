"""Deviation of the head pose over time, and its angle error against the real video."""

from __future__ import annotations

import math

import numpy as np

from talkingface.data.face.pose import EYE_DISTANCE, head_pose
from talkingface.evaluator.clip import missing_faces
from talkingface.evaluator.metrics.landmark_distance import (
    Faces,
    LandmarkMetric,
    found,
    shot_numbers,
    without_shot_means,
)


def angle_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Absolute difference of angles in degrees, at most 180."""
    return np.abs((first - second + 180) % 360 - 180)


class Pose(LandmarkMetric):
    """Standard deviation over time of head angles and position; mean angle error (HeadGAN's ARD).

    ``Div_pose`` is the mean deviation of the three angles (SadTalker's diversity of head motion,
    here with another pose estimator). All deviations of a still head are 0. They are from the mean
    of each shot of the real video.
    """

    revision = 2  # per shot
    both = False
    empty = "fewer than two frames with a face"

    def values(self, faces: Faces) -> dict[str, float]:
        # Not smoothed, since smoothing would hide jitter.
        pose, goal = (head_pose(points, sigma=0) for points in (faces.generated, faces.real))
        valid, both = pose[faces.valid], faces.valid & found(faces.real)
        moved = without_shot_means(valid, shot_numbers(faces.clip, faces.valid))
        std = moved[:, :5].std(axis=0) if len(valid) > 1 else np.full(5, math.nan)
        # The unit is the frontal eye distance, which does not depend on the head's rotation.
        shift = 100 * np.hypot(*std[3:]) * np.median(valid[:, 6]) / EYE_DISTANCE
        results = dict(zip(self.outputs, [*std[:3], shift, std[:3].mean(), math.nan], strict=True))
        if reason := missing_faces("ARD", faces.clip, both.mean(), "in both videos"):
            self.reasons["ARD"] = reason
        else:
            results["ARD"] = angle_distance(pose[both, :3], goal[both, :3]).mean()
        return results
