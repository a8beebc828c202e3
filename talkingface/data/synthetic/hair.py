"""Hair of the head as strands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from talkingface.data.synthetic.face import Face
from talkingface.data.synthetic.head import SKIN, load_head, point_normals
from talkingface.data.synthetic.lines import Lines, scattered, strands, unit
from talkingface.data.synthetic.skin import hairline, smooth

UP = np.array([0.0, 1.0, 0.0])
CLUMPS = 420


@dataclass(frozen=True)
class Style:
    """How hair is cut and combed.

    Args:
        count, points: number of strands and of points of each.
        length: cm at the heights -6, 0, 6 and 8.5 of the head.
        top, side: direction of combing (forward, away from the part, up) above and at the sides.
        normal: share of growing straight away from the skin.
        part: place of the part in cm to the person's left.
        gravity, curl: how much a strand falls and curls. stiff: how much it keeps its direction.
        lift: cm above the skin, from and to. clump: how much tips join.
        width: of a strand in cm.
        cut: height of the tips in cm; for hair that hangs around the face.
    """

    count: int = 9000
    points: int = 9
    length: Sequence[float] = (1, 1, 2, 3)
    top: Sequence[float] = (0, 0, 0)
    side: Sequence[float] = (0, 0, 0)
    normal: float = 0.55
    part: float = 0.0
    gravity: float = 0.05
    curl: float = 0.0
    stiff: float = 0.7
    lift: tuple[float, float] = (0.2, 1.2)
    clump: float = 0.45
    width: float = 0.12
    cut: float | None = None


STYLES: dict[str, Style] = {
    "buzz": Style(10000, 4, (0.6, 0.7, 0.8, 0.8), (0.6, 0, 0), (0, 0, -0.6),
                  lift=(0.1, 0.35), width=0.065, clump=0.1),
    "short": Style(9000, 8, (0.7, 1.0, 1.7, 3.4), (0.75, 0.35, 0.1), (-0.3, 0, -1), part=3.0),
    "side": Style(8000, 9, (0.8, 1.2, 3.0, 6.5), (-0.25, 1, 0.05), (-0.9, 0, -0.8), part=3.0,
                  lift=(0.3, 1.4), gravity=0.06),
    "back": Style(8000, 9, (0.8, 1.4, 4.0, 7.0), (-1, 0, 0), (-1, 0, -0.45),
                  lift=(0.4, 1.6), gravity=0.03, stiff=0.6),
    "pixie": Style(8000, 9, (1.5, 2.5, 4.2, 5.5), (0.55, 0.7, 0), (0.15, 0, -1), part=3.5,
                   gravity=0.12),
    "bob": Style(4500, 12, (17, 17, 17, 17), (-0.2, 0.9, 0), (-0.45, 0, -0.6), 0.25, part=2.6,
                 gravity=0.42, stiff=0.66, lift=(0.25, 1.5), width=0.15, cut=-5.2),
    "long": Style(5500, 15, (31, 31, 31, 31), (-0.2, 0.9, 0), (-0.45, 0, -0.6), 0.25, part=0.6,
                  gravity=0.42, stiff=0.66, lift=(0.25, 1.5), width=0.14, cut=-21),
    "bun": Style(6500, 12, lift=(0.1, 0.5)),
    "afro": Style(8000, 12, (2, 3, 4, 4.4), (0, 0, 0.25), (0, 0, 0.25), 1.0, curl=1.5,
                  lift=(0.1, 0.1), gravity=0, clump=0.2),
    "curly": Style(6500, 12, (3, 3.5, 4.5, 5.5), (0.2, 0.5, -0.15), (0.1, 0.2, -0.4), 0.6,
                   curl=0.75, gravity=0.10, clump=0.3, width=0.13),
}  # fmt: skip


class Surface:
    """The skin and clothes that hair lies on."""

    def __init__(self, points: np.ndarray, normals: np.ndarray) -> None:
        self.points, self.normals, self.tree = points, normals, cKDTree(points)

    def height(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distance, height above the surface and normal at the nearest place."""
        distance, i = self.tree.query(points)
        normal = self.normals[i]
        return distance, ((points - self.points[i]) * normal).sum(-1), normal


def hair(
    face: Face, kind: str, colour: np.ndarray, rng: np.random.Generator, surface: Surface,
    receding: float = 0.0,
) -> Lines:  # fmt: skip
    """Strands of a style of ``STYLES``.

    Args:
        colour: linear RGB. surface: what hair may not enter. receding: see ``skin.hairline``.
    """
    style = STYLES[kind]
    root, normal, rest = _roots(face, style, rng, receding)
    count, height = len(root), hairline(rest, receding)
    lift = rng.uniform(*style.lift, count)
    if style.cut is None:  # short at the sides
        lift = np.where(rest[:, 1] < 6, np.minimum(lift, 0.5), lift)
    clump = cKDTree(root[rng.choice(count, CLUMPS, replace=False)]).query(root)[1]
    own = rng.normal(0, 1, (CLUMPS, 3))
    outer = np.clip(lift / style.lift[1], 0, 1)
    if kind == "bun":
        knot = _knot(style, rng)
        points = np.concatenate([_gathered(root, style, lift, surface), knot])
        clump = np.append(clump, rng.integers(0, CLUMPS, len(knot)))
        outer = np.append(outer, rng.uniform(0.6, 1, len(knot)))
        height = np.append(height, np.full(len(knot), 9.0))
    else:
        points = _grown(root, normal, rest, style, lift, clump, own, surface, rng)
        points = _clumped(points, clump, style)
    if style.cut is not None:
        points, kept = _around_the_face(points, style, surface, rng)
        clump, outer, height = clump[kept], outer[kept], height[kept]
    s, k, _ = points.shape
    along = np.linspace(0, 1, k)
    fine = smooth(-0.2, 1.6, height)[:, None]  # hairs at the edge are thin
    tint = np.clip(1 + 0.16 * own[clump, 0] + 0.10 * rng.normal(size=s), 0.55, 1.6)
    opened = (0.3 + 0.7 * outer[:, None]) * (0.45 + 0.55 * np.minimum(1, along * 2.2))
    taper = np.interp(along, (0, 0.1, 0.75, 1), (0.8, 1, 1, 0.35))
    return strands(
        points, style.width * taper * (0.45 + 0.55 * fine), colour * tint[:, None, None],
        opened=np.clip(opened, 0.15, 1), shine=rng.uniform(-1, 1, s)[:, None],
        opacity=(0.35 + 0.5 * fine) * np.interp(along, (0, 0.8, 1), (1, 1, 0.5)),
    )  # fmt: skip


def _roots(face: Face, style: Style, rng: np.random.Generator, receding: float):
    """Places of the roots on this face, normals there, and places on the average face."""
    head = load_head()
    triangles = head.triangles[head.material == SKIN]
    middle = head.rest[triangles].mean(1)
    x, y, z = middle.T
    scalp = (hairline(middle, receding) > -0.3) & (y > -6.2)
    scalp &= ~((np.abs(x) > 7.55) & (y < 6) & (y > -3) & (z > -2.5))  # ears
    chosen, share = scattered(face.neutral, triangles[scalp], 1.0, style.count, rng)
    share = share[:, :, None]
    rest = (head.rest[chosen] * share).sum(1)
    keep = hairline(rest, receding) > np.abs(rng.normal(0, 0.35, style.count)) - 0.15
    if style.cut is not None:  # hair in front of the ears would hang in the face
        keep &= ~((rest[:, 1] < 7.8) & (rest[:, 2] > -0.5))
    normals = point_normals(face.neutral, head.triangles)
    root = (face.neutral[chosen] * share).sum(1)
    return root[keep], unit((normals[chosen] * share).sum(1))[keep], rest[keep]


def _grown(root, normal, rest, style: Style, lift, clump, own, surface: Surface, rng):
    count = len(root)
    top = smooth(6, 12, rest[:, 1])[:, None]
    side = np.sign(rest[:, 0] - style.part + rng.normal(0, 0.25, count))

    def direction(comb: Sequence[float]) -> np.ndarray:
        forward, away, up = comb
        return np.stack([away * side, np.full(count, up), np.full(count, forward)], 1)

    comb = top * direction(style.top) + (1 - top) * direction(style.side)
    comb = unit(comb + style.normal * normal * (style.curl > 0))
    length = np.interp(rest[:, 1], (-6, 0, 6, 8.5), style.length) * rng.uniform(0.85, 1.1, count)
    step = (length / (style.points - 1))[:, None]
    wobble = own[clump] * 0.16 + rng.normal(0, 0.07, (count, 3))
    phase = rng.uniform(0, 2 * np.pi, count)
    hanging = style.cut is not None
    points = np.zeros((count, style.points, 3))
    points[:, 0] = here = root
    heading = unit(normal * style.normal + comb * 0.5)
    for k in range(1, style.points):
        f = k / (style.points - 1)
        pull = 0.3 * (1 - 0.6 * f) * (max(0, 1 - 3.2 * f) if hanging else 1)
        heading = (
            heading * style.stiff
            + comb * pull
            - UP * style.gravity * 1.4 * (0.3 + f)
            + wobble * 0.35
        )
        heading = unit(heading)
        moved = heading
        if style.curl:
            turn = (phase + k * 1.35)[:, None]
            across = unit(np.cross(heading, UP + 0.01))
            around = np.cos(turn) * across + np.sin(turn) * np.cross(heading, across)
            moved = unit(heading + style.curl * around)
        here = here + moved * step
        distance, height, n = surface.height(here)
        near = distance < (6.0 if hanging else 3.5)
        wanted = np.minimum(lift, 0.08 + lift * min(1, f * 3))
        here = here + n * np.where(near, np.maximum(wanted - height, 0), 0)[:, None]
        if not style.curl:
            limit = lift + (0.5 if hanging else 1.0)
            closer = np.maximum(height - limit, 0) * (0.75 if hanging else 0.5)
            here = here - n * np.where(near, closer, 0)[:, None]
        heading = unit(0.55 * heading + 0.45 * unit(here - points[:, k - 1]))
        points[:, k] = here
    return points


def _clumped(points, clump, style: Style):
    """Move the tips towards the middle of their clump."""
    total = np.zeros((CLUMPS, *points.shape[1:]))
    np.add.at(total, clump, points)
    total /= np.maximum(np.bincount(clump, minlength=CLUMPS), 1)[:, None, None]
    share = (np.linspace(0, 1, points.shape[1]) ** 1.5 * style.clump)[None, :, None]
    return points * (1 - share) + total[clump] * share


def _around_the_face(points, style: Style, surface: Surface, rng):
    """Move hanging strands beside the face, cut their tips, leave out those that still cross."""

    def free(y):
        return np.interp(y, (-20, -8, -4, 0, 4, 7, 10.5), (5.2, 5.6, 6.3, 6.7, 6.5, 5.2, 0))

    side = np.where(points[:, :1, 0] > style.part, 1, -1)
    x, y, z = np.moveaxis(points, -1, 0)
    limit = free(y) + 0.7 + 0.5 * rng.random((len(points), 1))
    front = np.clip((z - 0.5) / 2, 0, 1) * (y < 10.5)
    out = np.maximum(limit - x * side, 0) * front
    points[..., 0] += out * side
    for _ in range(4):
        points[:, 1:-1] = 0.25 * points[:, :-2] + 0.5 * points[:, 1:-1] + 0.25 * points[:, 2:]
    tips = style.cut + 0.5 * rng.normal(size=len(points))
    below = np.cumsum(points[..., 1] < tips[:, None], 1) > 0
    last = np.maximum(points.shape[1] - below.sum(1), 1) - 1
    kept = np.minimum(np.arange(points.shape[1]), last[:, None])
    points = np.take_along_axis(points, kept[..., None], 1)
    flat = points[:, 1:].reshape(-1, 3)
    distance, height, n = surface.height(flat)
    flat = flat + n * np.where(distance < 3, np.maximum(0.12 - height, 0), 0)[:, None]
    points[:, 1:] = flat.reshape(len(points), -1, 3)
    x, y, z = np.moveaxis(points, -1, 0)
    crosses = ((np.abs(x) < free(y) + 0.4) & (z > 1.2) & (y < 10.3)).any(1)
    return points[~crosses], ~crosses


def _gathered(root, style: Style, lift, surface: Surface):
    """Strands over the scalp to a knot at the crown."""
    knot = np.array([0, 13.8, -6.0])
    points = np.zeros((len(root), style.points, 3))
    points[:, 0] = root
    for k in range(1, style.points):
        f = k / (style.points - 1)
        here = root * (1 - f) + (knot + unit(root - knot) * 1.1) * f
        _, height, n = surface.height(here)
        wanted = lift * np.sqrt(np.sin(np.pi * min(f + 0.15, 1))) * 0.8 + 0.08
        points[:, k] = here + n * np.maximum(wanted - height, 0)[:, None]
    for _ in range(4):
        points[:, 1:-1] = 0.25 * points[:, :-2] + 0.5 * points[:, 1:-1] + 0.25 * points[:, 2:]
    return points


def _knot(style: Style, rng, count: int = 1000):
    start = rng.uniform(0, 2 * np.pi, (count, 1))
    level = rng.uniform(-0.95, 0.95, (count, 1))
    t = np.linspace(0, 1.6, style.points)[None]
    angle = start + t * 1.2
    level = np.clip(level + 0.35 * np.sin(t * 2 + start), -0.98, 0.98)
    around = np.sqrt(1 - level**2)
    ball = np.stack([around * np.cos(angle), level, around * np.sin(angle)], -1)
    return ball * (2.9, 2.3, 2.6) * (1 + 0.04 * rng.normal(size=(count, 1, 1))) + (0, 15.5, -6.3)
