"""Smooth warping of pictures by control points (thin-plate splines)."""

from __future__ import annotations

import numpy as np

from talkingface.utils.env import import_cv2

_STEP = 8  # px between the positions at which a spline is evaluated


def spline_map(
    target: np.ndarray, source: np.ndarray, box: tuple[int, int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels of a box come from when control points move (Bookstein 1989).

    Args:
        target: (K,2) control points in the result, px.
        source: (K,2) the same points in the source picture.
        box: x0, y0, x1, y1 of the result.

    Returns:
        x and y (h,w) float32 in the source picture, for ``cv2.remap``.
    """
    from scipy.interpolate import RBFInterpolator

    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    spline = RBFInterpolator(target, source - target, smoothing=1e-3)
    columns = np.linspace(x0, x1 - 1, max(2, width // _STEP))
    rows = np.linspace(y0, y1 - 1, max(2, height // _STEP))
    places = np.stack(np.meshgrid(columns, rows), axis=-1)
    moves = spline(places.reshape(-1, 2)).reshape(places.shape).astype(np.float32)
    # The outer positions are pixels: resizing, which takes them as half a cell inside, would shift.
    x = np.linspace(0, len(columns) - 1, width, dtype=np.float32)
    y = np.linspace(0, len(rows) - 1, height, dtype=np.float32)
    cv2 = import_cv2()
    fine = cv2.remap(moves, *np.meshgrid(x, y), cv2.INTER_LINEAR)
    pixels = np.meshgrid(np.arange(x0, x1, dtype=np.float32), np.arange(y0, y1, dtype=np.float32))
    return pixels[0] + fine[..., 0], pixels[1] + fine[..., 1]


def warped(
    image: np.ndarray, target: np.ndarray, source: np.ndarray, box: tuple[int, int, int, int]
) -> np.ndarray:
    """The pixels of a box (h,w,3) of a picture (H,W,3) whose control points were moved."""
    cv2 = import_cv2()
    maps = spline_map(target, source, box)
    return cv2.remap(image, *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
