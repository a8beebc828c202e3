"""Masks and line drawings of a face from its mesh."""

from __future__ import annotations

import numpy as np

from talkingface.data.face.topology import MOUTH_RING, SKETCH_EDGES
from talkingface.utils.env import import_cv2

_CHIN_ROOM = 0.08  # share of the face height; the oval grows by it, since the mouth may open wider


def polygon_mask(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Filled polygon of points (K,>=2), rounded down to pixels: (H,W) uint8 of 0 and 255."""
    mask = np.zeros((height, width), np.uint8)
    corners = np.floor(points[:, :2]).astype(np.int32)
    import_cv2().fillPoly(mask, [corners], 255)
    return mask


def mouth_mask(landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Mask inside the ring of vertices around the lips (official HyperLips code), (H,W) 0/255."""
    return polygon_mask(landmarks[list(MOUTH_RING)], height, width)


def dilated_mask(points: np.ndarray, size: int, reach: float) -> np.ndarray:
    """(size,size) float32: 1 inside a polygon (K,2) of pixels, dilated by a square of ``reach``."""
    cv2 = import_cv2()
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 1)
    side = max(1, round(reach)) | 1
    return cv2.dilate(mask, np.ones((side, side), np.uint8)).astype(np.float32)


def lower_face_weights(oval: np.ndarray, height: int, width: int, border: float) -> np.ndarray:
    """Blending weights of a generated crop over the original: (H,W) float32 in 0..1.

    The weights cover the part of the face oval below the middle of the crop. The oval is extended
    at the chin, because the generated mouth may open wider. The transition is ``border`` wide. The
    weights are 0 along the crop's edges, so that no seam is visible.

    Args:
        oval: (36,2) outline of the original face in pixels of the crop (``FACE_OVAL``).
        border: width of the transition as a share of the crop's size.
    """
    cv2 = import_cv2()
    oval = oval.astype(np.float64)
    centre = oval.mean(axis=0)
    below = oval[:, 1] > centre[1]
    oval[below, 1] += _CHIN_ROOM * (oval[:, 1].max() - oval[:, 1].min())
    mask = polygon_mask(np.rint(oval), height, width)
    sigma = max(border * max(height, width) / 2, 0.5)
    soft = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), sigma)
    return soft * lower_half_weights(height, width, border)


def lower_half_weights(height: int, width: int, border: float) -> np.ndarray:
    """Blending weights of the lower half of a crop with soft edges: (H,W) float32 in 0..1."""

    def ramp(distance: np.ndarray, size: float) -> np.ndarray:
        return np.clip(distance / max(size, 1e-6), 0, 1)

    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    soft_y, soft_x = border * height, border * width
    vertical = ramp(rows - height / 2, soft_y) * ramp(height - rows, soft_y)
    horizontal = ramp(columns, soft_x) * ramp(width - columns, soft_x)
    return np.outer(vertical, horizontal).astype(np.float32)


def sketch(landmarks: np.ndarray, height: int, width: int, *, thickness: int = 6) -> np.ndarray:
    """Line drawing of lips, eyes, brows, nose and jaw: (H,W) uint8 of 0 and 255.

    The result equals MediaPipe's ``draw_landmarks`` without dots, the function that HyperLips uses.
    End points are rounded down to pixels. A line with an end point outside the picture is skipped.

    Args:
        landmarks: (478,>=2) pixels of the picture.
        thickness: line width in pixels; the official data uses 6 on the face crop.
    """
    cv2 = import_cv2()
    picture = np.zeros((height, width), np.uint8)
    points = landmarks[:, :2]
    inside = ((points >= 0) & (points <= (width, height))).all(axis=1)
    pixels = np.minimum(np.floor(points), (width - 1, height - 1)).astype(int)
    for a, b in SKETCH_EDGES:
        if inside[a] and inside[b]:
            cv2.line(picture, pixels[a].tolist(), pixels[b].tolist(), 255, thickness)
    return picture
