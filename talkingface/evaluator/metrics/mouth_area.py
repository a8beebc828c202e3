"""Overlap of the mouth areas, MA (name from MODA)."""

from __future__ import annotations

import math

import numpy as np

from talkingface.data.face.topology import LIPS, LIPS_OUTER
from talkingface.evaluator.metrics.landmark_distance import (
    ALIGNMENTS,
    Faces,
    LandmarkMetric,
    aligned_parts,
)

SLICES = 8  # lines between the heights of two corners; error of the intersections about 1e-4
_LEAST_AREA = 1e-9  # px2; smaller areas are rounding errors


def polygon_areas(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Areas of two polygons and of their intersection, without a pixel grid.

    Both are cut by horizontal lines. Between the heights of two corners the widths change linearly,
    so the areas are exact, and the intersection almost. Polygons that cross themselves, as thin
    closed lips do, follow the even-odd rule.

    Args:
        first, second: (K,2) corners in drawing order, not the convex hull.
    """
    levels = np.sort(np.concatenate([first[:, 1], second[:, 1]]))
    heights = np.diff(levels)[:, None] / SLICES
    cuts = (levels[:-1, None] + heights * (np.arange(SLICES) + 0.5)).ravel()
    # Edges that a line misses get a crossing at the right end, where it has no effect.
    right = max(first[:, 0].max(), second[:, 0].max())
    x = np.concatenate([_crossings(p, cuts, right) for p in (first, second)], axis=1)
    order = np.argsort(x, axis=1)
    strips = np.diff(np.take_along_axis(x, order, axis=1), axis=1) * heights.repeat(SLICES, axis=0)
    of_first = order < len(first)
    inside = [np.cumsum(crossed, axis=1)[:, :-1] % 2 for crossed in (of_first, ~of_first)]
    one, two, common = (float((strips * m).sum()) for m in (*inside, inside[0] * inside[1]))
    return one, two, common


def _crossings(polygon: np.ndarray, cuts: np.ndarray, missed: float) -> np.ndarray:
    """(S,K) x coordinates of the crossings of edges and lines; ``missed`` without a crossing."""
    start, end = polygon, np.roll(polygon, -1, axis=0)
    above = start[:, 1] <= cuts[:, None]
    crossed = above != (end[:, 1] <= cuts[:, None])
    rise = np.where(crossed, end[:, 1] - start[:, 1], 1.0)
    share = (cuts[:, None] - start[:, 1]) / rise
    return np.where(crossed, start[:, 0] + share * (end[:, 0] - start[:, 0]), missed)


def overlap(generated: np.ndarray, real: np.ndarray) -> tuple[float, float]:
    """Intersection over union of two polygons (1 when both are empty), and the real one's area."""
    one, two, common = polygon_areas(generated, real)
    union = one + two - common
    return (min(common / union, 1.0) if union > _LEAST_AREA else 1.0), two


class MA(LandmarkMetric):
    """Mean overlap of the areas within the outer and within the inner lip contour."""

    detector = "facelandmarker40"
    empty = "the real mouth never opens"
    choices = {"align": ALIGNMENTS}

    def values(self, faces: Faces) -> dict[str, float]:
        # One alignment for both contours keeps the inner one in place within the outer one.
        parts = aligned_parts(faces, LIPS, self.params["align"])
        pairs = list(zip(*(part[faces.valid] for part in parts), strict=True))
        n = len(LIPS_OUTER)
        outer = [overlap(q[:n], p[:n])[0] for q, p in pairs]
        inner = [overlap(q[n:], p[n:]) for q, p in pairs]
        # The inner contour of a closed mouth has almost no area; its overlap is random.
        opened = [value for value, area in inner if area >= self.params["min_area"]]
        return {"MA": np.mean(outer), "MA_inner": np.mean(opened) if opened else math.nan}
