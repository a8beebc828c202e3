"""Cameras: adaptation between people, choice of reference frames, rotation angles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from talkingface.data.face.face_model import Geometry
from talkingface.data.face.points import Points
from talkingface.data.face.portrait import eye_aspect_ratio, facing, presentable, sharpest
from talkingface.data.face.topology import (
    EYE_CORNERS_LEFT,
    EYE_CORNERS_RIGHT,
    INNER_LIP_BOTTOM,
    INNER_LIP_TOP,
)
from talkingface.data.media.pictures import PictureReader

_WINDOW = 15  # frames of the box filter over scale and position, at most


def adapted(
    driver: Geometry, reference: Geometry, *, translation: bool = True, std: bool = False
) -> Geometry:
    """The driver's geometry with its camera adapted to position and size of the reference.

    Args:
        translation: adapt the position too; False: only the size, the driver's position is scaled.
        std: also scale the movement to the reference's standard deviation. A single reference
            picture has no movement, so the head then stands still.

    Returns:
        The driver's expressions and rotations with the new camera; the neutral face stays the
        driver's.
    """
    scale = _box(driver.scale * (reference.scale.mean() / driver.scale.mean()))
    place = driver.shift / driver.scale[:, None]
    if translation:
        own = reference.shift / reference.scale[:, None]
        moved = place - place.mean(axis=0)
        if std:
            moved = moved / np.maximum(place.std(axis=0), 1e-9) * own.std(axis=0)
        place = _box(moved + own.mean(axis=0))
    return replace(driver, scale=scale, shift=scale[:, None] * place)


def _box(values: np.ndarray) -> np.ndarray:
    """Moving average over time; the ends are repeated."""
    from scipy.ndimage import uniform_filter1d

    size = min(_WINDOW, len(values))
    return values if size < 2 else uniform_filter1d(values, size, axis=0, mode="nearest")


def reference_frames(geometry: Geometry, count: int = 8) -> np.ndarray:
    """Frames spread evenly over the poses of a clip.

    Rotation and x of the camera are standardised and projected to their first principal component;
    the frames have equally spaced ranks in this order, including the first and the last.
    """
    values = np.concatenate([geometry.rotation.reshape(-1, 9), geometry.shift[:, :1]], axis=1)
    values = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-9)
    _, _, directions = np.linalg.svd(values, full_matrices=False)
    along = values @ directions[0]
    along = along * np.sign(along[np.abs(along).argmax()] or 1.0)  # the sign of an SVD is arbitrary
    order = np.argsort(along, kind="stable")
    return order[np.linspace(0, len(order) - 1, count).round().astype(int)]


def portrait_frame(points: Points, geometry: Geometry, pictures: PictureReader) -> int:
    """The frame that stands for the person: face to the camera, eyes open, mouth at rest, sharp.

    The official test takes the fifth of eight :func:`reference_frames`, also in a blink.
    """
    marks = points.landmarks[points.valid]
    good = np.flatnonzero(points.valid)[presentable(eye_aspect_ratio(marks), marks)]
    marks = points.landmarks[good]
    gap = np.linalg.norm(marks[:, INNER_LIP_BOTTOM] - marks[:, INNER_LIP_TOP], axis=-1)
    eyes = marks[:, EYE_CORNERS_LEFT[0]] - marks[:, EYE_CORNERS_RIGHT[1]]
    angle = np.degrees(np.arccos(np.clip(geometry.rotation[good, 2, 2], -1, 1)))
    order = facing(angle, gap / np.maximum(np.linalg.norm(eyes, axis=-1), 1e-6))
    return sharpest(pictures, good[order])


def turned(degrees: np.ndarray) -> np.ndarray:
    """Rotations R_y(yaw) R_x(pitch) R_z(-roll) in the axes of the face model.

    Args:
        degrees: (T,3) yaw, pitch, roll. As in :func:`~talkingface.data.face.pose.head_pose`
            positive angles turn the face to the left of the picture and down, and raise the eye
            on the right of the picture.

    Returns:
        (T,3,3).
    """
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("YXZ", degrees * (1, 1, -1), degrees=True).as_matrix()
