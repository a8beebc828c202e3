"""Joining two pictures of a face without a visible border."""

from __future__ import annotations

import numpy as np

from talkingface.utils.env import import_cv2

_DARK = 8.0  # grey levels added before a quotient, so that dark noise has no weight
_MAX_GAIN = 2.0


def match_light(image: np.ndarray, target: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """Give a picture the light that another one has in a ring of pixels.

    Light multiplies colours. The logarithm of the quotient of both pictures in the ring, per
    channel a plane over the picture, follows its strength, its colour and the side it comes from.

    Args:
        image, target: (h,w,3) uint8 RGB.
        ring: (h,w) bool, the compared pixels, e.g. skin around a mouth.

    Returns:
        (h,w,3) uint8 RGB; ``image`` itself if the ring has less than 16 pixels.
    """
    if ring.sum() < 16:
        return image
    height, width = ring.shape
    y, x = np.indices(ring.shape, np.float32)
    plane = np.stack([np.ones_like(x), x / width - 0.5, y / height - 0.5], axis=-1)
    quotient = np.log((target[ring] + _DARK) / (image[ring] + _DARK))
    # Slopes need more evidence than the mean: a beard on one side is no light.
    system = plane[ring].T @ plane[ring] + np.diag([0, 0.02, 0.02]) * ring.sum()
    factors = np.linalg.solve(system, plane[ring].T @ quotient)
    limit = np.log(_MAX_GAIN)
    gain = np.exp(np.clip(plane @ factors.astype(np.float32), -limit, limit))
    return np.rint(np.clip((image + _DARK) * gain - _DARK, 0, 255)).astype(np.uint8)


def soft_polygon(
    points: np.ndarray, box: tuple[int, int, int, int], reach: float, border: float
) -> np.ndarray:
    """Weights (h,w) float32: 1 in a polygon (K,2) grown by ``reach`` px, falling over ``border``.

    Args:
        box: x0, y0, x1, y1 of the result, in the pixels of the points.
    """
    cv2 = import_cv2()
    x0, y0, x1, y1 = box
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    cv2.fillPoly(mask, [np.rint(points - (x0, y0)).astype(np.int32)], 1)
    outside = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 3)
    ramp = np.clip(1 - (outside - reach) / max(border, 1e-6), 0, 1).astype(np.float32)
    return ramp * ramp * (3 - 2 * ramp)


def mix(image: np.ndarray, over: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``over`` on ``image`` (h,w,3) uint8 with weights (h,w) in 0..1."""
    base = image.astype(np.float32)
    mixed = base + weights[..., None] * (over.astype(np.float32) - base)
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def seamless(image: np.ndarray, over: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``over`` on ``image`` so that the gradients are those of ``over`` (Perez et al. 2003).

    Args:
        weights: (h,w); the area is where they are above a half, the edge of the picture excluded.
    """
    cv2 = import_cv2()
    area = (weights > 0.5).astype(np.uint8) * 255
    area[[0, -1]] = area[:, [0, -1]] = 0
    x, y, width, height = cv2.boundingRect(area)
    if not width:
        return image
    middle = (x + width // 2, y + height // 2)  # cv2 puts the centre of the area here
    return cv2.seamlessClone(over, image, area, middle, cv2.NORMAL_CLONE)
