"""Masks and line drawings of a face from its mesh."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from talkingface.data.face.topology import FACE_OVAL, MOUTH_RING, SKETCH_EDGES
from talkingface.utils.env import import_cv2


def polygon_mask(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Filled polygon, (H,W) uint8 of 0 and 255; corners are rounded down to pixels.

    Args:
        points: (K,>=2) x and y in pixels.
    """
    mask = np.zeros((height, width), np.uint8)
    corners = np.floor(points[:, :2]).astype(np.int32)
    import_cv2().fillPoly(mask, [corners], 255)
    return mask


def mouth_mask(landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Mask of the mouth: the ring one step outside the lips (HyperLips spec 8.4), (H,W) 0/255."""
    return polygon_mask(landmarks[list(MOUTH_RING)], height, width)


def face_mask(landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Mask of the face oval, (H,W) 0/255."""
    return polygon_mask(landmarks[list(FACE_OVAL)], height, width)


def sketch(
    landmarks: np.ndarray,
    height: int,
    width: int,
    *,
    thickness: int = 6,
    edges: Iterable[tuple[int, int]] = SKETCH_EDGES,
) -> np.ndarray:
    """Line drawing of lips, eyes, brows, nose and jaw: (H,W) uint8 of 0 and 255.

    Equal to MediaPipe's ``draw_landmarks`` without dots, which HyperLips draws with: ends are
    rounded down to pixels, and a line with an end outside the picture is left out.

    Args:
        landmarks: (478,>=2) pixels of the picture.
        thickness: of the lines, in pixels; the official data uses 6 on the face crop.
    """
    cv2 = import_cv2()
    picture = np.zeros((height, width), np.uint8)
    points = landmarks[:, :2]
    inside = ((points >= 0) & (points <= (width, height))).all(axis=1)
    pixels = np.minimum(np.floor(points), (width - 1, height - 1)).astype(int)
    for a, b in edges:
        if inside[a] and inside[b]:
            cv2.line(picture, pixels[a].tolist(), pixels[b].tolist(), 255, thickness)
    return picture
