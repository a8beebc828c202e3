"""CPBD, the share of edges that look sharp (Narvekar and Karam 2011)."""

from __future__ import annotations

import numpy as np

from talkingface.errors import DataError
from talkingface.evaluator.clip import ClipPair
from talkingface.evaluator.metrics.no_reference import NoReferenceMetric
from talkingface.utils.env import import_cv2

BLOCK = 64  # px
EDGE_SHARE = 0.002  # blocks with a smaller share of pixels on Canny edges are left out
CANNY_THRESHOLDS = 20, 40  # on OpenCV's Sobel sums: 2.5 and 5 grey levels per pixel
JUST_NOTICEABLE = 5, 3  # px; just noticeable blur: edge width at low and at high contrast
LOW_CONTRAST = 50  # grey levels within a block


def vertical_edges(grey: np.ndarray) -> np.ndarray:
    """(H,W) bool: thinned vertical edges of a uint8 picture; none on its border.

    As in the Python port of the authors' code: the squared Sobel response is above twice the root
    of its mean and a local maximum of its row or column; the gradient is within 22.5 degrees of the
    row.
    """
    cv2 = import_cv2()
    strength = cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=1 / 8)
    strength *= strength
    strength[strength <= 2 * np.sqrt(strength.mean(dtype=np.float64))] = 0
    inner = strength[1:-1, 1:-1]
    edges = (inner > strength[1:-1, :-2]) & (inner > strength[1:-1, 2:])
    edges |= (inner > strength[:-2, 1:-1]) & (inner > strength[2:, 1:-1])
    values = grey.astype(np.int16)
    across = np.abs(values[1:-1, 2:] - values[1:-1, :-2])
    along = np.abs(values[2:, 1:-1] - values[:-2, 1:-1])
    edges &= along < np.tan(np.pi / 8) * across
    return np.pad(edges, 1)


def edge_widths(grey: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Pixels from the local minimum to the local maximum of the row around each edge pixel.

    On each side the width includes the neighbour, and further pixels while the row keeps rising (or
    falling) in the direction of the edge.

    Args:
        grey: (H,W) uint8.
        edges: (H,W) bool, none in the first and last column or where left and right are equal.

    Returns:
        Widths in pixels, 2 or more, in the order of ``np.nonzero(edges)``.
    """
    values = grey.astype(np.int16)
    rows, columns = np.nonzero(edges)
    direction = np.sign(values[rows, columns + 1] - values[rows, columns - 1])
    # Directions of the steps between pixels, with zeros around each row so that no run leaves it.
    steps = np.pad(np.sign(np.diff(values, axis=1)), ((0, 0), (2, 2))).ravel()
    starts = np.flatnonzero(np.diff(steps, prepend=2))
    ends = np.append(starts[1:], len(steps))
    inward = rows * (grey.shape[1] + 3) + columns + 1  # the step into the pixel
    before, after = inward - 1, inward + 2  # the steps beyond both neighbours
    run = np.searchsorted(starts, (before, after), side="right") - 1
    left = np.where(steps[before] == direction, before + 1 - starts[run[0]], 0)
    right = np.where(steps[after] == direction, ends[run[1]] - after, 0)
    return 2 + left + right


def cpbd(grey: np.ndarray) -> float:
    """CPBD of a (H,W) uint8 picture, 0 (blurred) to 1 (sharp).

    Raises:
        DataError: smaller than a block, or no block has vertical edges.
    """
    rows, columns = (side // BLOCK for side in grey.shape)
    if not rows or not columns:
        raise DataError(f"CPBD needs {BLOCK} px; the picture is {grey.shape[1]}x{grey.shape[0]}")

    def blocks(values: np.ndarray) -> np.ndarray:
        part = values[: rows * BLOCK, : columns * BLOCK]
        return part.reshape(rows, BLOCK, columns, BLOCK)

    canny = blocks(import_cv2().Canny(grey, *CANNY_THRESHOLDS) > 0)
    counted = canny.mean(axis=(1, 3)) > EDGE_SHARE
    tiles = blocks(grey)
    contrast = tiles.max(axis=(1, 3)).astype(int) - tiles.min(axis=(1, 3))
    limits = np.where(contrast <= LOW_CONTRAST, *JUST_NOTICEABLE)
    edges = vertical_edges(grey)
    edges[: rows * BLOCK, : columns * BLOCK] &= counted.repeat(BLOCK, 0).repeat(BLOCK, 1)
    edges[rows * BLOCK :] = edges[:, columns * BLOCK :] = False
    y, x = (place // BLOCK for place in np.nonzero(edges))
    if not len(y):
        raise DataError("CPBD: the picture has no vertical edges")
    # The probability that an edge of width w looks blurred is 1 - exp(-(w / w_jnb)^3.6). The edge
    # counts as sharp up to 63 %, the probability at w_jnb, that is if w <= w_jnb.
    return float((edge_widths(grey, edges) <= limits[y, x]).mean())


class CPBD(NoReferenceMetric):
    """Sharpness, for comparisons only: implementations differ by about 0.02."""

    def measure(self, clip: ClipPair, picture: np.ndarray) -> float:
        cv2 = import_cv2()
        return cpbd(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
