"""Landmark distances of lips and face: LMD, FLMD and their velocities.

Also the base class of all landmark metrics: frames without a face, scene cuts, alignment.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from talkingface.data.face.topology import (
    EYE_CORNERS_LEFT,
    EYE_CORNERS_RIGHT,
    FACE_OVAL,
    LIPS,
    MOUTH_CORNERS,
    SKETCH_EDGES,
)
from talkingface.evaluator.base_metric import Metric
from talkingface.evaluator.clip import ClipPair, missing_faces

# Eye corners and nose bridge: points for the similarity fit, which the lips do not move.
RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 5)
# Oval, brows, eyes, nose and lips; the rest of the mesh is interpolated skin.
FACE = tuple(sorted({*FACE_OVAL, *(point for edge in SKETCH_EDGES for point in edge)}))
STILL_REASON = "the real face does not move more than landmarks jitter"
ALIGNMENTS = ("none", "centroid", "procrustes")


def found(points: np.ndarray) -> np.ndarray:
    """(T,) bool: frames of (T,K,D) points that are not NaN."""
    return np.isfinite(points).all(axis=(1, 2))


def split_shots(values: np.ndarray, clip: ClipPair) -> np.ndarray:
    """(T,...) with a missing frame (NaN, False) before each scene cut; no difference spans it."""
    cuts = clip.cuts[clip.cuts < len(values)]
    return np.insert(values, cuts, False if values.dtype == bool else np.nan, axis=0)


def shot_numbers(clip: ClipPair, valid: np.ndarray) -> np.ndarray:
    """Number of the shot of each valid frame; ``valid`` is (T,) bool."""
    return np.searchsorted(clip.cuts, np.flatnonzero(valid), side="right")


def without_shot_means(values: np.ndarray, shot: np.ndarray) -> np.ndarray:
    """(N,D) minus the mean of the rows of the same shot; unchanged with one shot."""
    if len(np.unique(shot)) < 2:
        return values
    means = {number: values[shot == number].mean(axis=0) for number in np.unique(shot)}
    return values - np.array([means[number] for number in shot])


def eye_distance(points: np.ndarray) -> float:
    """Mean distance between the two eye centres of (T,478,>=2) points, in pixels."""
    left, right = (points[:, list(c), :2].mean(1) for c in (EYE_CORNERS_LEFT, EYE_CORNERS_RIGHT))
    return float(np.linalg.norm(left - right, axis=-1).mean()) or math.nan


@dataclass
class Faces:
    """Face points of the two videos, (T,478,3) float64 in pixels of the real one, NaN without face.

    Attributes:
        valid: (T,) bool, frames that count.
    """

    clip: ClipPair
    generated: np.ndarray
    real: np.ndarray
    valid: np.ndarray


class LandmarkMetric(Metric):
    """Base of metrics of face points; handles frames in which no face was found.

    Attributes:
        detector: name of the points in the definition.
        both: a frame counts if both videos show a face; False: if the generated one does.
        empty: default reason of nan values.
    """

    uses_frames = False
    detector = "facelandmarker478"
    both = True
    empty = "too few consecutive frames with a face"

    def definition(self) -> str:
        name, _, settings = super().definition().partition("[")
        return f"{name}[{self.detector},static" + (f",{settings}" if settings else "]")

    def finish(self, clip: ClipPair) -> dict[str, float]:
        points = clip.generated_landmarks, clip.real_landmarks
        count = min(map(len, points))
        generated, real = (p[:count].astype(np.float64) for p in points)
        valid = found(generated) & found(real) if self.both else found(generated)
        where = "in both videos" if self.both else "in the generated video"
        reason = missing_faces(self.name, clip, valid.mean() if count else 0.0, where)
        if reason:
            return self.undefined(reason)
        results = {k: float(v) for k, v in self.values(Faces(clip, generated, real, valid)).items()}
        undefined = [key for key, value in results.items() if not math.isfinite(value)]
        self.reasons = {key: self.reasons.get(key, self.empty) for key in undefined}
        return results

    @abstractmethod
    def values(self, faces: Faces) -> dict[str, float]:
        """Values by output name; the reason of a nan is in ``reasons``, by default ``empty``."""


def fit_similarity(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares similarity of points (...,R,2) as complex numbers: z -> factor z + shift."""
    source, target = (p[..., 0] + 1j * p[..., 1] for p in (source, target))
    source_mean, target_mean = source.mean(-1, keepdims=True), target.mean(-1, keepdims=True)
    centred = source - source_mean
    factor = (np.conj(centred) * (target - target_mean)).sum(-1) / (np.abs(centred) ** 2).sum(-1)
    return factor, target_mean[..., 0] - factor * source_mean[..., 0]


def aligned_parts(
    faces: Faces, indices: tuple[int, ...], how: str
) -> tuple[np.ndarray, np.ndarray]:
    """The points ``indices`` of the generated and the real face, aligned, each (T,K,2).

    Args:
        how: one of :data:`ALIGNMENTS`; ``centroid``: each set minus its mean (Chen et al.);
            ``procrustes``: similarity fit of the generated face to the real one on ``RIGID``.
    """

    def part(ids: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        return faces.generated[:, list(ids), :2], faces.real[:, list(ids), :2]

    generated, real = part(indices)
    if how == "centroid":
        return tuple(p - p.mean(axis=1, keepdims=True) for p in (generated, real))
    if how == "procrustes":
        factor, shift = fit_similarity(*part(RIGID))
        points = generated[..., 0] + 1j * generated[..., 1]
        moved = factor[:, None] * points + shift[:, None]
        generated = np.stack([moved.real, moved.imag], axis=-1)
    return generated, real


def landmark_distance(generated: np.ndarray, real: np.ndarray, reduce: str = "mean") -> np.ndarray:
    """Distance per frame: mean (or sum, as in ATVGnet's script) over points, (T,)."""
    distance = np.linalg.norm(generated - real, axis=-1)
    return distance.sum(axis=-1) if reduce == "sum" else distance.mean(axis=-1)


def velocity_distance(
    generated: np.ndarray, real: np.ndarray, valid: np.ndarray, reduce: str = "mean"
) -> np.ndarray:
    """Distance of the frame-to-frame differences; none spans a missing frame."""
    both = valid[1:] & valid[:-1]
    return landmark_distance(np.diff(generated, axis=0)[both], np.diff(real, axis=0)[both], reduce)


class LMD(LandmarkMetric):
    """Mean distance of the 40 lip points, in pixels and in % of the eye distance (``norm``)."""

    indices = LIPS
    choices = {"align": ALIGNMENTS, "reduce": ("mean", "sum"), "norm": ("iod", "mouth_width")}

    @property
    def detector(self) -> str:
        return f"facelandmarker{len(self.indices)}"

    def values(self, faces: Faces) -> dict[str, float]:
        parts = aligned_parts(faces, self.indices, self.params["align"])
        distances = self.distances(*parts, faces)
        pixels = float(distances.mean()) if len(distances) else math.nan
        return {self.name: pixels, f"{self.name}_norm": 100 * pixels / self._unit(faces)}

    def distances(self, generated: np.ndarray, real: np.ndarray, faces: Faces) -> np.ndarray:
        valid = faces.valid
        return landmark_distance(generated[valid], real[valid], self.params["reduce"])

    def _unit(self, faces: Faces) -> float:
        """Mean eye distance (``iod``) or mouth width of the real face, in pixels."""
        real = faces.real[faces.valid]
        if self.params["norm"] == "iod":
            return eye_distance(real)
        left, right = (real[:, i, :2] for i in MOUTH_CORNERS)
        return float(np.linalg.norm(left - right, axis=-1).mean()) or math.nan


class LMDVelocity(LMD):
    """Mean distance of the lips' frame-to-frame motion."""

    def distances(self, generated: np.ndarray, real: np.ndarray, faces: Faces) -> np.ndarray:
        parts = (split_shots(part, faces.clip) for part in (generated, real, faces.valid))
        return velocity_distance(*parts, self.params["reduce"])


class FLMD(LMD):
    """LMD of the whole face."""

    indices = FACE


class FLMDVelocity(LMDVelocity):
    """LMD_v of the whole face."""

    indices = FACE
