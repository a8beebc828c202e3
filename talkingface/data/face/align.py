"""Turning a picture of a face to the head pose of another frame.

One homography per picture follows small turns of the head; the mouth keeps its shape.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from talkingface.data.face.boxes import integer_box
from talkingface.data.face.pose import flip_depth, procrustes
from talkingface.data.face.series import fill_gaps, smooth_runs
from talkingface.data.face.topology import FACE_OVAL, LIPS, LIPS_OUTER, STABLE
from talkingface.utils.env import import_cv2

if TYPE_CHECKING:
    from talkingface.data.face.tracking import FaceTrack

CROP_POINTS = sorted({*STABLE, *FACE_OVAL, *LIPS})  # mesh points that are stored with the crops


def crop_rows(points: Iterable[int]) -> list[int]:
    """Rows of mesh points in arrays of ``CROP_POINTS``."""
    return [CROP_POINTS.index(point) for point in points]


_STABLE = crop_rows(STABLE)
_LIPS = crop_rows(LIPS)
_INNER, _EYES = crop_rows((13, 14)), crop_rows((33, 263))  # middle of the inner lips; eye corners
_PLANE = crop_rows(sorted({*STABLE, *FACE_OVAL, *LIPS_OUTER}))
_SMOOTHING = 0.04  # standard deviation in s: one frame, so that turns do not lag; not measured


def crop_points(track: FaceTrack, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Points of a face in the coordinates of its crops.

    Returns:
        (T,K,3) float32, the points ``CROP_POINTS`` in px from the upper left corner of each
        frame's box, gaps filled, smoothed except for the lips; (T,2) int32, width and height of
        the boxes.
    """
    points = calm_points(track, fps)
    width, height = track.size
    boxes = np.array([integer_box(box, height, width) for box in track.boxes], np.int32)
    points = fill_gaps(points)
    points[..., :2] -= boxes[:, None, :2]
    return points.astype(np.float32), boxes[:, 2:] - boxes[:, :2]


def calm_points(track: FaceTrack, fps: float) -> np.ndarray:
    """(T,K,3) ``CROP_POINTS`` in px, smoothed except for the lips, whose movement is fast."""
    raw = track.landmarks[:, CROP_POINTS].astype(np.float64)
    points = smooth_runs(raw, _SMOOTHING * fps, track.segments)
    known = np.isfinite(raw[:, _LIPS])
    points[:, _LIPS] = np.where(known, raw[:, _LIPS], points[:, _LIPS])
    return points


def open_frames(points: np.ndarray, share: float) -> np.ndarray:
    """Frames whose mouth is widest open: the given share of them, at least one; sorted.

    Args:
        points: (T,K,2 or 3) ``CROP_POINTS``.
    """
    width = np.linalg.norm(points[:, _EYES[0], :2] - points[:, _EYES[1], :2], axis=-1)
    gap = np.linalg.norm(points[:, _INNER[0], :2] - points[:, _INNER[1], :2], axis=-1)
    order = np.argsort(-gap / np.maximum(width, 1e-6), kind="stable")
    return np.sort(order[: max(1, round(share * len(points)))])


def turn_face(
    image: np.ndarray,
    points: np.ndarray,
    size: np.ndarray,
    to_points: np.ndarray,
    to_size: np.ndarray,
) -> np.ndarray:
    """A crop as if the head had the pose of another frame.

    Args:
        image: (S,S,3) resized crop.
        points, size: of its frame, (K,3) and (2,), see :func:`crop_points`.
        to_points, to_size: of the frame with the wanted pose.

    Returns:
        (S,S,3), or ``image`` where the turn is too large for a homography.
    """
    return turned(image, turn_matrix(len(image), points, size, to_points, to_size))


def turned(image: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """A picture after a homography (bilinear); the picture itself for None."""
    if matrix is None:
        return image
    cv2 = import_cv2()
    return cv2.warpPerspective(
        image, matrix, image.shape[1::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def turn_matrix(
    side: int, points: np.ndarray, size: np.ndarray, to_points: np.ndarray, to_size: np.ndarray
) -> np.ndarray | None:
    """Homography (3,3) of :func:`turn_face` between pixels of crops of ``side`` px.

    Returns:
        None where the turn is too large for a homography.
    """
    source, target = flip_depth(points), flip_depth(to_points)
    scale, rotation, shift = procrustes(source[_STABLE], target[_STABLE])
    source = source[_PLANE]
    moved = scale * source @ rotation.T + shift
    here, there = (p[:, :2] / s * side - 0.5 for p, s in ((source, size), (moved, to_size)))
    matrix = import_cv2().findHomography(here, there)[0]
    if matrix is None:
        return None
    end = side - 1
    corners = np.array([(0, 0, 1), (end, 0, 1), (0, end, 1), (end, end, 1)])
    depth = corners @ matrix[2]  # far from 1 near the horizon; limits: chosen, not measured
    return None if depth.min() < 0.5 or depth.max() > 2 else matrix
