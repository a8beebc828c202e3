"""Div: differences between several samples of one sound (MODA)."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np

from talkingface.data.face.pose import canonicalize, flip_depth, head_pose
from talkingface.data.face.topology import EYE_LEFT, EYE_RIGHT, LIPS
from talkingface.evaluator.base_metric import Metric
from talkingface.evaluator.clip import ClipPair, missing_faces
from talkingface.evaluator.metrics.landmark_distance import found

LEAST_STD = 1e-3  # degrees or pixels; smallest divisor, for parts that never move


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


def diversity(samples: list[np.ndarray], real: np.ndarray) -> dict[str, float]:
    """Div_H, Div_E and Div_M of faces (T,478,3) without missing frames.

    The unit is the real video's standard deviation over time: one for each pose value, one for all
    points of the eyes and one for those of the lips.
    """
    parts, goal = [face_parts(points) for points in samples], face_parts(real)
    results = {}
    for key, values in goal.items():
        std = values.std(axis=0)
        scale = std if key == "Div_H" else np.sqrt((std**2).mean())
        stack = np.stack([part[key] for part in parts])
        results[key] = pairwise_distance(stack / np.maximum(scale, LEAST_STD))
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
        return diversity([points[valid] for points in samples], real[valid])
