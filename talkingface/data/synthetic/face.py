"""The face of one person at rest: awake lids, closed lips, teeth and eyeballs in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from talkingface.data.synthetic.head import (
    EYE_LEFT,
    EYE_RIGHT,
    GUMS,
    MOUTH,
    SKIN,
    TEETH,
    TONGUE,
    Head,
    expression,
    load_head,
)

LID_OPENING = (0.335, 0.37)  # of the width of the eye


@dataclass(frozen=True, eq=False)
class Face:
    """Points of one person at rest.

    Attributes:
        neutral: float32 (n, 3), cm, lips closed and eyes open.
        eyes: centres (2, 3) of the left and right eyeball, ``eye_radius`` (2,).
    """

    neutral: np.ndarray
    eyes: np.ndarray
    eye_radius: np.ndarray

    @property
    def head(self) -> Head:
        return load_head()

    def place(self, landmark: int) -> np.ndarray:
        return self.neutral[self.head.landmarks[landmark]]


def make_face(shapes: Mapping[str, float]) -> Face:
    """The face of these macro and detail shapes, see :meth:`Head.shaped`."""
    head = load_head()
    points = head.shaped(shapes)
    points = _awake(head, points)
    points = _closed(head, points)
    points = _teeth_in_place(head, points)
    centres, radii = zip(
        *(_sphere(points[head.points(eye)]) for eye in (EYE_LEFT, EYE_RIGHT)), strict=True
    )
    return Face(points.astype(np.float32), np.array(centres), np.array(radii))


def lid_opening(points: np.ndarray) -> np.ndarray:
    """Mean height over width of both eyes, from (..., 68, 3) landmarks."""

    def distance(a: int, b: int) -> np.ndarray:
        return np.linalg.norm(points[..., a, :] - points[..., b, :], axis=-1)

    right = (distance(37, 41) + distance(38, 40)) / 2 / distance(36, 39)
    left = (distance(43, 47) + distance(44, 46)) / 2 / distance(42, 45)
    return (right + left) / 2


def _awake(head: Head, points: np.ndarray) -> np.ndarray:
    """Move the lids to an opening within ``LID_OPENING``."""
    marks = points[head.landmarks]
    wanted = np.clip(lid_opening(marks), *LID_OPENING)
    weights = [expression(eyeBlink=k) for k in np.linspace(0.5, 0, 50, endpoint=False)]
    weights += [expression(eyeWide=k) for k in np.linspace(0, 0.9, 90)]
    offsets = [head.offsets(w) for w in weights]
    best = min(offsets, key=lambda o: abs(lid_opening(marks + o[head.landmarks]) - wanted))
    return points + best


def _closed(head: Head, points: np.ndarray) -> np.ndarray:
    """Close the lips: first with the shape ``mouthClose``, then the lower rim meets the upper."""
    close = head.offsets(expression(mouthClose=1))
    upper, lower = (head.landmarks[[61, 62, 63]], head.landmarks[[67, 66, 65]])
    gap = (points[upper] - points[lower])[:, 1].mean()
    change = (close[upper] - close[lower])[:, 1].mean()
    points = points + np.clip((0.045 - gap) / change, -0.02, 0.12) * close
    rim = points[head.upper_rim]
    rim = rim[rim[:, 0].argsort()]
    low = points[head.lower_rim]
    rise = np.interp(low[:, 0], rim[:, 0], rim[:, 1]) + 0.02 - low[:, 1]
    rest, moved = head.rest, points.copy()
    near = np.isin(np.arange(len(rest)), head.points(SKIN, MOUTH)) & ~head.above
    near &= (np.abs(rest[:, 1] + 3.4) < 1.6) & (rest[:, 2] > 8.5) & (np.abs(rest[:, 0]) < 3.2)
    order = low[:, 0].argsort()
    distance, _ = cKDTree(low).query(points[near])
    moved[near, 1] += np.interp(points[near, 0], low[order, 0], rise[order]) * np.exp(
        -((distance / 0.45) ** 2)
    )
    return moved


def _teeth_in_place(head: Head, points: np.ndarray) -> np.ndarray:
    """Upper incisors end 2.2 mm below the upper lip, the lower ones stay hidden at rest."""
    points, jaw = points.copy(), head.jaw
    front = (head.height >= 0) & (np.abs(head.rest[:, 0]) < 0.6)
    upper = points[front & (jaw < 0.1), 1].min()
    lower = points[front & (jaw > 0.3), 1].max()
    down = np.clip(points[head.landmarks[61:64], 1].mean() - 0.22 - upper, -0.3, 0.3)
    up = np.clip(points[head.landmarks[65:68], 1].mean() - 0.42 - lower, -1.9, 0.15)
    rows = head.points(TEETH, GUMS)
    points[rows, 1] += down * (1 - jaw[rows]) + up * jaw[rows]
    tongue = head.points(TONGUE)
    points[tongue, 1] += (down * (1 - jaw[tongue]) + up * jaw[tongue]) / 2
    return points


def _sphere(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre and radius of an eyeball, from its back half."""
    back = points[points[:, 2] < np.median(points[:, 2])]
    system = np.concatenate([2 * back, np.ones((len(back), 1))], 1)
    x = np.linalg.lstsq(system, (back**2).sum(1), rcond=None)[0]
    return x[:3], float(np.sqrt(x[3] + (x[:3] ** 2).sum()))
