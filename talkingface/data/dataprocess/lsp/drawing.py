"""Feature maps: the white lines that Feature2Face turns into a face (official code)."""

from __future__ import annotations

import numpy as np

from talkingface.utils.env import import_cv2

WINDOW = 512  # side of the square window that the files of a person refer to, px

_LINES = (
    tuple(range(15)),  # face contour
    (15, 16, 17, 18, 18, 19, 20, 15),  # brows
    (21, 22, 23, 24, 24, 25, 26, 21),
    tuple(range(35, 44)),  # nose
    (27, 65, 28, 68, 29),  # eyes
    (29, 67, 30, 66, 27),
    (33, 69, 32, 72, 31),
    (31, 71, 34, 70, 33),
    tuple(range(46, 53)),  # outer lips
    (52, 53, 54, 55, 56, 57, 46),
    (46, 63, 62, 61, 52),  # inner lips
    (52, 60, 59, 58, 46),
)


def draw_feature_map(
    landmarks: np.ndarray, shoulders: np.ndarray | None = None, size: int = WINDOW
) -> np.ndarray:
    """Draw lines through the points of face and shoulders.

    Args:
        landmarks: (73,2) pixels of the 512 px window.
        shoulders: (18,2) two lines of nine points; a line with NaN is not drawn. None: neither.
        size: side of the map; points and the line width of 2 px are scaled with it.

    Returns:
        (size,size) uint8, 0 or 255; the network takes it divided by 255.
    """
    cv2 = import_cv2()
    canvas = np.zeros((size, size), np.uint8)
    factor = size / WINDOW
    thickness = max(1, round(2 * factor))
    lines = [landmarks[list(line)] for line in _LINES]
    if shoulders is not None:
        lines += [line for line in (shoulders[:9], shoulders[9:]) if np.isfinite(line).all()]
    for line in lines:
        # OpenCV's 16-bit coordinates of points far outside would wrap around.
        points = np.clip(line * factor, -8 * size, 8 * size).astype(np.int32)
        for first, second in zip(points[:-1], points[1:], strict=True):
            cv2.line(canvas, first.tolist(), second.tolist(), 255, thickness)
    return canvas
