"""Landmark distances of the lips: LMD and its velocity LMD_v (metrics spec, section 3)."""

from __future__ import annotations

import math

import numpy as np

from talkingface.data.face.topology import EYE_CORNERS_LEFT, EYE_CORNERS_RIGHT, LIPS, MOUTH_CORNERS
from talkingface.errors import ConfigError
from talkingface.evaluator.base_metric import Metric
from talkingface.evaluator.clip import MIN_VALID_RATIO, WARN_VALID_RATIO, ClipPair

# Eye corners and nose bridge: what a similarity fit may use without fitting the lip error away.
RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 5)


def align_points(
    generated: np.ndarray,
    real: np.ndarray,
    how: str,
    rigid: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Remove what should not count before lips are compared.

    Args:
        generated, real: (T,K,2) lip points.
        how: ``none``; ``centroid`` (each set minus its mean: Chen et al.); ``procrustes``
            (similarity fit of the generated face to the real one on ``rigid`` points).
        rigid: (T,R,2) points of both, for ``procrustes``.
    """
    if how == "none":
        return generated, real
    if how == "centroid":
        return (
            generated - generated.mean(axis=1, keepdims=True),
            real - real.mean(axis=1, keepdims=True),
        )
    if how != "procrustes" or rigid is None:
        raise ConfigError(f"align={how}: choose none, centroid or procrustes")
    # As complex numbers a similarity is z -> a z + b; the least-squares a is closed form.
    source, target = (p[..., 0] + 1j * p[..., 1] for p in rigid)
    source_mean, target_mean = source.mean(1, keepdims=True), target.mean(1, keepdims=True)
    centred = source - source_mean
    factor = (np.conj(centred) * (target - target_mean)).sum(1) / (np.abs(centred) ** 2).sum(1)
    lips = generated[..., 0] + 1j * generated[..., 1]
    moved = factor[:, None] * (lips - source_mean) + target_mean
    return np.stack([moved.real, moved.imag], axis=-1), real


def landmark_distance(generated: np.ndarray, real: np.ndarray, reduce: str = "mean") -> np.ndarray:
    """Distance per frame: mean (or sum, as in ATVGnet's script) over points, (T,)."""
    distance = np.linalg.norm(generated - real, axis=-1)
    return distance.sum(axis=-1) if reduce == "sum" else distance.mean(axis=-1)


def velocity_distance(generated: np.ndarray, real: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Distance of frame-to-frame motion; differences never bridge a missing frame."""
    both = valid[1:] & valid[:-1]
    return landmark_distance(np.diff(generated, axis=0)[both], np.diff(real, axis=0)[both])


class LMD(Metric):
    """Mean distance of the 40 lip points, in pixels and in % of the eye distance."""

    uses_frames = False

    def definition(self) -> str:
        return super().definition().replace("[", "[mediapipe40,static,")

    def finish(self, clip: ClipPair) -> dict[str, float]:
        generated, real = clip.generated_landmarks, clip.real_landmarks
        count = min(len(generated), len(real))
        generated = generated[:count, :, :2].astype(np.float64)
        real = real[:count, :, :2].astype(np.float64)
        valid = np.isfinite(generated).all(axis=(1, 2)) & np.isfinite(real).all(axis=(1, 2))
        ratio = float(valid.mean()) if count else 0.0
        if ratio < MIN_VALID_RATIO:
            return self.undefined(
                f"a face was found in both videos in only {ratio:.0%} of the frames"
            )
        if ratio < WARN_VALID_RATIO:
            clip.notes.append(f"{self.name}: faces in {ratio:.0%} of the frames")
        lips, rigid = list(LIPS), list(RIGID)
        moved, fixed = align_points(
            generated[:, lips],
            real[:, lips],
            self.params["align"],
            (generated[:, rigid], real[:, rigid]),
        )
        values = self.distances(moved, fixed, valid)
        if not len(values):
            return self.undefined("no two consecutive frames with a face")
        pixels = float(values.mean())
        unit = self._unit(real[valid])
        return {self.name: pixels, f"{self.name}_norm": 100 * pixels / unit}

    def distances(self, generated: np.ndarray, real: np.ndarray, valid: np.ndarray) -> np.ndarray:
        return landmark_distance(generated[valid], real[valid], self.params["reduce"])

    def _unit(self, real: np.ndarray) -> float:
        """Mean eye distance (``iod``) or mouth width of the real face, in pixels."""
        if self.params["norm"] == "mouth_width":
            left, right = (real[:, i] for i in MOUTH_CORNERS)
        elif self.params["norm"] == "iod":
            left = real[:, list(EYE_CORNERS_LEFT)].mean(axis=1)
            right = real[:, list(EYE_CORNERS_RIGHT)].mean(axis=1)
        else:
            raise ConfigError(f"metric_params.{self.name}.norm: choose iod or mouth_width")
        return float(np.linalg.norm(left - right, axis=-1).mean()) or math.nan


class LMDVelocity(LMD):
    """Mean distance of the lips' frame-to-frame motion."""

    def distances(self, generated: np.ndarray, real: np.ndarray, valid: np.ndarray) -> np.ndarray:
        return velocity_distance(generated, real, valid)
