"""Shapes of mouth and chin without the head pose, and their principal components.

Points are ``CROP_POINTS`` of the face mesh, in px. Head coordinates are fixed to the skull; their
unit is the distance of the outer eye corners, with the axes of
:mod:`talkingface.data.face.pose`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talkingface.data.face.align import crop_rows
from talkingface.data.face.pose import flip_depth, orthonormal_axes, procrustes, remove_pose
from talkingface.data.face.topology import CHIN, LIPS, LIPS_INNER, STABLE

SHAPE_SIZE = len(LIPS) + 1  # the lips and the chin
_STABLE, _SHAPE = crop_rows(STABLE), crop_rows((*LIPS, CHIN))
_FOREHEAD, _NOSE_BASE = STABLE.index(10), STABLE.index(2)
_EYE_CORNERS = [STABLE.index(33), STABLE.index(263)]
_UPPER, _LOWER = LIPS.index(13), LIPS.index(14)  # middle of the inner lips
# The inner ring: the lower lip from corner to corner, then the upper one back.
_LOWER_LIP = [LIPS.index(point) for point in LIPS_INNER[1:10]]
_UPPER_LIP = [LIPS.index(point) for point in LIPS_INNER[:10:-1]]
_ROUNDS = 3
_COMPONENTS = 12


@dataclass(frozen=True)
class Poses:
    """Similarity transforms from head coordinates to px: scale (T,), rotation (T,3,3), shift (T,3).

    The depth of px points is that of the head coordinates, toward the viewer.
    """

    scale: np.ndarray
    rotation: np.ndarray
    shift: np.ndarray

    def place(self, frame: int, points: np.ndarray) -> np.ndarray:
        """(K,2) px in a frame of points (K,3) in head coordinates."""
        turned = points @ self.rotation[frame].T
        return (self.scale[frame] * turned + self.shift[frame])[:, :2]


@dataclass(frozen=True)
class HeadFrame:
    """Head coordinates of one person: x along the eye corners, y from forehead to nose.

    Attributes:
        stable: (S,3) rest positions of the points ``STABLE``.
    """

    stable: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray) -> HeadFrame:
        """From the points (T,K,3) of one or several videos of a person."""
        points = flip_depth(points)[:, _STABLE]
        template = points[0]
        for _ in range(_ROUNDS):
            template = np.median(remove_pose(points, *procrustes(template, points)), axis=0)
        template = template - template.mean(0)
        left, right = template[_EYE_CORNERS]
        down = template[_NOSE_BASE] - template[_FOREHEAD]
        axes = orthonormal_axes(right - left, down)
        return cls(template @ axes.T / np.linalg.norm(right - left))

    def poses(self, points: np.ndarray) -> Poses:
        """Of points (T,K,3)."""
        return Poses(*procrustes(self.stable, flip_depth(points)[:, _STABLE]))

    def shapes(self, points: np.ndarray) -> np.ndarray:
        """(T,41,3) lips (``LIPS``) and chin in head coordinates."""
        poses = self.poses(points)
        moved = flip_depth(points)[:, _SHAPE]
        return remove_pose(moved, poses.scale, poses.rotation, poses.shift)


def opening(shapes: np.ndarray) -> np.ndarray:
    """(T,) distance of the inner lips in the middle, of shapes (T,41,3)."""
    return np.linalg.norm(shapes[:, _LOWER] - shapes[:, _UPPER], axis=-1)


def without_crossing(shapes: np.ndarray) -> np.ndarray:
    """Shapes (T,41,3) whose inner lips touch where the upper one was below the lower one."""
    shapes = shapes.copy()
    gap = shapes[:, _LOWER_LIP, 1] - shapes[:, _UPPER_LIP, 1]
    excess = np.minimum(gap, 0) / 2
    shapes[:, _LOWER_LIP, 1] -= excess
    shapes[:, _UPPER_LIP, 1] += excess
    return shapes


@dataclass(frozen=True)
class ShapeSpace:
    """Principal components of shapes.

    Attributes:
        mean: (41,3).
        axes: (D,123) orthonormal rows.
        spread: (D,) standard deviations along the axes.
    """

    mean: np.ndarray
    axes: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, shapes: np.ndarray) -> ShapeSpace:
        """From shapes (T,41,3)."""
        mean = shapes.mean(0)
        _, values, axes = np.linalg.svd((shapes - mean).reshape(len(shapes), -1), False)
        return cls(mean, axes[:_COMPONENTS], values[:_COMPONENTS] / np.sqrt(len(shapes)))

    def encode(self, shapes: np.ndarray) -> np.ndarray:
        """(T,D)."""
        return (shapes - self.mean).reshape(len(shapes), -1) @ self.axes.T

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """(T,41,3)."""
        return (codes @ self.axes).reshape(-1, *self.mean.shape) + self.mean
