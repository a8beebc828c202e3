"""Div: differences between several samples of one sound (MODA)."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np

from talkingface.data.face.pose import canonicalize, flip_depth, head_pose
from talkingface.data.face.topology import EYE_LEFT, EYE_RIGHT, LIPS
from talkingface.evaluator.base_metric import Metric
from talkingface.evaluator.clip import ClipPair, missing_faces
from talkingface.evaluator.metrics.landmark_distance import (
    STILL_REASON,
    found,
    shot_numbers,
    without_shot_means,
)

# Degrees (or units of the position) and canonical pixels. Of a still head with camera noise each
# value deviates by less; of speakers the angles by 0.13 and more, the eyes by 0.4, the lips by 2.4.
LEAST_STD = {"Div_H": 0.1, "Div_E": 0.2, "Div_M": 0.2}


def pairwise_distance(samples: np.ndarray) -> float:
    """Mean L2 distance between samples per frame, over all pairs and frames.

    Args:
        samples: (N,T,D) of one sound; independent draws of unit variance give about sqrt(2 D),
            equal samples exactly 0.
    """
    pairs = combinations(samples, 2)
    return float(np.mean([np.linalg.norm(a - b, axis=-1).mean() for a, b in pairs]))


def face_parts(points: np.ndarray) -> dict[str, np.ndarray]:
    """Head pose (T,6), and eyes and lips (T,2K) with the pose removed, in canonical pixels.

    Args:
        points: (T,478,3) pixels, all finite.
    """
    pose = head_pose(points, sigma=0)
    face = canonicalize(flip_depth(points), pose, np.zeros(3))[..., :2]
    eyes, lips = (face[:, list(i)].reshape(len(face), -1) for i in (EYE_LEFT + EYE_RIGHT, LIPS))
    return {"Div_H": pose[:, :6], "Div_E": eyes, "Div_M": lips}


def diversity(
    samples: list[np.ndarray], real: np.ndarray, shot: np.ndarray | None = None
) -> dict[str, float]:
    """Div_H, Div_E and Div_M of faces (T,478,3) without missing frames.

    The unit is the real video's standard deviation over time: one for each pose value, one for all
    points of the eyes and one for those of the lips. It is at least :data:`LEAST_STD`; nan if all
    of a part are smaller.

    Args:
        shot: (T,) number of each frame's shot; the deviation is from the mean of the shot.
    """
    parts, goal = [face_parts(points) for points in samples], face_parts(real)
    results = {}
    for key, values in goal.items():
        std = (values if shot is None else without_shot_means(values, shot)).std(axis=0)
        scale = std if key == "Div_H" else np.sqrt((std**2).mean())
        stack = np.stack([part[key] for part in parts])
        still = np.max(scale) < LEAST_STD[key]
        distance = pairwise_distance(stack / np.maximum(scale, LEAST_STD[key]))
        results[key] = math.nan if still and distance else distance
    return results


def sample_landmarks(clip: ClipPair) -> list[np.ndarray]:
    """Faces (T,478,3) of the generated video and of the further samples of the same sound."""
    others = [replace(clip, generated=path, notes=[]) for path in clip.samples]
    for pair in others:  # the real landmarks are detected only once
        pair.real_landmarks = clip.real_landmarks
    return [pair.generated_landmarks for pair in (clip, *others)]


class Diversity(Metric):
    """Differences between samples of one sound: of the head, the eyes and (undesired) the lips."""

    uses_frames = False
    revision = 2  # the unit is never below tracking noise

    def finish(self, clip: ClipPair) -> dict[str, float]:
        if not clip.samples:
            return self.undefined("needs several samples of one sound")
        if set(clip.samples) == {clip.generated}:
            clip.notes.append("Div: 0 since the model is deterministic")
            return dict.fromkeys(self.outputs, 0.0)
        samples = sample_landmarks(clip)
        count = min(len(points) for points in (*samples, clip.real_landmarks))
        *samples, real = (p[:count].astype(np.float64) for p in (*samples, clip.real_landmarks))
        valid = np.logical_and.reduce([found(points) for points in (*samples, real)])
        share = float(valid.mean()) if count else 0.0
        reason = missing_faces(self.name, clip, share, "in the real video and all samples")
        if not reason and valid.sum() < 2:
            reason = "needs two frames with a face: the unit is the real deviation over time"
        if reason:
            return self.undefined(reason)
        shot = shot_numbers(clip, valid)
        results = diversity([points[valid] for points in samples], real[valid], shot)
        still = [key for key, value in results.items() if math.isnan(value)]
        self.reasons = dict.fromkeys(still, STILL_REASON)
        return results
