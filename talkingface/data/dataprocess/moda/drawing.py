"""Condition images of MODA's renderer: the whole mesh as lines, and the shoulders."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import numpy as np

from talkingface.data.face.masks import dilated_mask
from talkingface.data.face.topology import (
    BROW_LEFT,
    BROW_RIGHT,
    EYE_LEFT,
    EYE_RIGHT,
    FACE_OVAL,
    IRIS_LEFT,
    IRIS_RIGHT,
    LIPS_INNER,
    LIPS_OUTER,
    chain,
    mesh_edges,
)
from talkingface.utils.env import import_cv2

WINDOW = 512
# RGB values of MediaPipe's default styles (there in BGR order), copied so that an upgrade cannot
# change the input of a trained renderer. MediaPipe's left eye is at the right of the picture.
_GREY, _WHITE = (128, 128, 128), (224, 224, 224)
_LEFT, _RIGHT = (48, 255, 48), (255, 48, 48)
_TORSO = (225, 225, 225)
_SHIFT = 4  # fractional bits of coordinates: 1/16 px


@lru_cache
def _strokes() -> tuple[tuple[np.ndarray, tuple[int, int, int], int], ...]:
    """(edges (E,2), colour, thickness at 512 px) in drawing order."""
    ring = partial(chain, closed=True)
    right = [edge for line in BROW_LEFT for edge in chain(line)] + ring(EYE_LEFT)
    left = [edge for line in BROW_RIGHT for edge in chain(line)] + ring(EYE_RIGHT)
    groups = (
        (mesh_edges(), _GREY, 1),
        (ring(LIPS_OUTER) + ring(LIPS_INNER) + ring(FACE_OVAL), _WHITE, 2),
        (left, _LEFT, 2),
        (right, _RIGHT, 2),
        (ring(IRIS_RIGHT), _LEFT, 2),
        (ring(IRIS_LEFT), _RIGHT, 2),
    )
    return tuple((np.array(edges), colour, width) for edges, colour, width in groups)


def draw_condition(
    landmarks: np.ndarray, torso: np.ndarray | None, size: int, window: int = WINDOW
) -> np.ndarray:
    """Draw a face and its shoulders.

    Args:
        landmarks: (478,>=2) pixels of the crop of side ``window``.
        torso: (18,2) two lines of nine points; a line with NaN is not drawn. None: neither.
        size: side of the image.

    Returns:
        (size,size,3) uint8 RGB.
    """
    cv2 = import_cv2()
    canvas = np.zeros((size, size, 3), np.uint8)
    factor = size / window

    def pixels(points: np.ndarray) -> np.ndarray:
        # OpenCV's 16-bit coordinates of points far outside would wrap around.
        limited = np.clip(points * factor - 0.5, -4 * size, 4 * size)
        return np.round(limited * (1 << _SHIFT)).astype(np.int32)

    def draw(lines: Any, colour: tuple[int, int, int], width: int) -> None:
        thickness = max(1, round(width * factor))
        cv2.polylines(canvas, lines, False, colour, thickness, cv2.LINE_8, _SHIFT)

    points = pixels(landmarks[:, :2])
    for edges, colour, width in _strokes():
        draw(points[edges], colour, width)
    for line in () if torso is None else (torso[:9], torso[9:]):
        if np.isfinite(line).all():
            draw([pixels(line)], _TORSO, 2)
    return canvas


def mouth_mask(landmarks: np.ndarray, size: int, window: int = WINDOW) -> np.ndarray:
    """(size,size) float32: 1 inside the outer lips, dilated by 45 px at size 512."""
    factor = size / window
    lips = np.clip(landmarks[list(LIPS_OUTER), :2] * factor, -4 * size, 4 * size)
    return dilated_mask(lips, size, 45 * factor)
