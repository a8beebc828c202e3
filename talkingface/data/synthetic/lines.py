"""Lines on the skin: brows, lashes and beards; and what all lines of a person have in common."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree

from talkingface.data.synthetic.head import SKIN, load_head, point_normals
from talkingface.data.synthetic.skin import BROW, beard_area, lip_area


@dataclass(eq=False)
class Lines:
    """Strands that the renderer draws; those in the head's space come first.

    Attributes:
        hair: float32 (h, 3), points in the head's space.
        bind, lift, lean: the other points are ``bind @ mesh``, ``lift`` cm along the normal, and
            ``lean`` (b, 3) cm further in the head's space.
        joined: int32 (h + b,), not 0 where a strand goes on to the next point.
        tint: (h + b, 3), linear RGB. opened: share of light from around. shine: see
            ``shading.shade_lines``. width: cm. opacity, bias: see ``raster.blend_lines``.
    """

    hair: np.ndarray
    bind: sp.csr_matrix
    lift: np.ndarray
    lean: np.ndarray
    joined: np.ndarray
    tint: np.ndarray
    opened: np.ndarray
    shine: np.ndarray
    width: np.ndarray
    opacity: np.ndarray
    bias: np.ndarray

    def __len__(self) -> int:
        return len(self.joined)


def strands(
    where: np.ndarray | sp.csr_matrix, width, tint, opened=1.0, shine=-2.0, opacity=1.0, bias=0.0,
    lift=0.0, lean=0.0,
) -> Lines:  # fmt: skip
    """Strands of equal length at ``where``: points (s, k, 3) in the head's space, or a matrix
    (s * k, n) of points of the mesh with ``lift`` and ``lean``. ``width`` is (s, k)."""
    shape, bound = np.shape(width), sp.issparse(where)

    def each(value, size: tuple[int, ...] = ()) -> np.ndarray:
        return np.broadcast_to(value, shape + size).reshape(-1, *size).astype(np.float32)

    joined = np.repeat(1 + 2 * np.arange(shape[0], dtype=np.int32), shape[1]).reshape(shape)
    joined[:, -1] = 0
    none = np.zeros((0, 3), np.float32)
    return Lines(
        hair=none if bound else where.reshape(-1, 3).astype(np.float32),
        bind=where.tocsr().astype(np.float32) if bound else sp.csr_matrix((0, 0)),
        lift=each(lift) if bound else none[:, 0], lean=each(lean, (3,)) if bound else none,
        joined=joined.ravel(), tint=each(tint, (3,)), opened=each(opened), shine=each(shine),
        width=each(width), opacity=each(opacity), bias=each(bias),
    )  # fmt: skip


def together(parts: list[Lines], points: int) -> Lines:
    """All strands of a person whose mesh has ``points``; hair comes first."""
    parts = sorted(parts, key=lambda part: part.bind.shape[0] > 0)
    rows = [part.bind for part in parts if part.bind.shape[0]]
    for matrix in rows:
        matrix.resize(matrix.shape[0], points)
    values = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Lines)
        if field.name != "bind"
    }
    return Lines(bind=sp.vstack(rows).tocsr(), **values)


def unit(a: np.ndarray) -> np.ndarray:
    return a / (np.linalg.norm(a, axis=-1, keepdims=True) + 1e-9)


def scattered(points: np.ndarray, triangles: np.ndarray, weight, count: int, rng):
    """Random places on a mesh: triangles (count, 3) and shares of their corners (count, 3).

    The chance of a triangle is its area times its ``weight``.
    """
    a, b, c = (points[triangles[:, k]] for k in range(3))
    chance = np.linalg.norm(np.cross(b - a, c - a), axis=1) * weight
    chosen = triangles[rng.choice(len(triangles), count, p=chance / chance.sum())]
    u = rng.random((count, 2))
    u = np.where(u.sum(1, keepdims=True) > 1, 1 - u, u)
    return chosen, np.concatenate([1 - u.sum(1, keepdims=True), u], 1)


def rows_of(triangles: np.ndarray, shares: np.ndarray) -> sp.csr_matrix:
    """One row for each place on a triangle."""
    rows = np.repeat(np.arange(len(triangles)), 3)
    shape = (len(triangles), len(load_head().rest))
    return sp.csr_matrix((shares.ravel(), (rows, triangles.ravel())), shape)


def on_skin(places: np.ndarray) -> sp.csr_matrix:
    """Rows that keep places of the average face, (x, y) seen from the front, on every face."""
    head = load_head()
    triangles = head.triangles[head.material == SKIN]
    triangles = triangles[head.rest[triangles].mean(1)[:, 2] > 5]
    a, b, c = (head.rest[triangles[:, k], :2].astype(float) for k in range(3))
    nearest = cKDTree((a + b + c) / 3).query(places)[1]
    a, b, c = a[nearest], b[nearest], c[nearest]
    u, v, w = b - a, c - a, places - a
    area = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    second = (w[:, 0] * v[:, 1] - w[:, 1] * v[:, 0]) / area
    third = (u[:, 0] * w[:, 1] - u[:, 1] * w[:, 0]) / area
    return rows_of(triangles[nearest], np.stack([1 - second - third, second, third], 1))


def brows(colour: np.ndarray, rng: np.random.Generator, density: float, thick: float) -> Lines:
    count, drawn = int(420 * density), []
    for _ in range(2):
        t = np.clip(rng.beta(1.0, 1.15, count), 0, 1)
        place, ahead, behind = (
            np.stack([np.interp(4 * t + d, range(5), BROW[:, k]) for k in (0, 1)], 1)
            for d in (0, 0.1, -0.1)
        )
        tangent = unit(ahead - behind)
        normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1)
        half = np.interp(t, (0, 0.12, 0.5, 0.8, 1), (0.15, 0.27, 0.26, 0.17, 0.05)) * thick
        across = rng.uniform(-0.9, 0.9, count)
        # Upright at the inner end, along the brow outside, from both edges towards the middle.
        angle = np.interp(t, (0, 0.15, 0.45, 1), (1.25, 0.85, 0.35, 0.05))
        angle += rng.normal(0, 0.12, count) - (across + 0.5) * 0.25 * np.minimum(1, t * 2.5)
        length = np.interp(t, (0, 0.2, 0.7, 1), (0.38, 0.54, 0.54, 0.33))
        length = (length * rng.uniform(0.7, 1.15, count))[:, None]
        heading = tangent * np.cos(angle)[:, None] + normal * np.sin(angle)[:, None]
        start = place + normal * (across * half)[:, None] - heading * length * 0.3
        f = np.linspace(0, 1, 4)[:, None]
        bent = heading[:, None] * f + 0.22 * tangent[:, None] * f**2
        drawn.append(start[:, None] + bent * length[:, None])
    places = np.concatenate([drawn[0], drawn[1] * (-1, 1)])
    return strands(
        on_skin(places.reshape(-1, 2)),
        np.tile((0.026, 0.034, 0.030, 0.010), (2 * count, 1)) * thick,
        colour * rng.uniform(0.6, 1.25, (2 * count, 1, 1)), opened=0.8, opacity=0.8, bias=3e-5,
        lift=(0.01, 0.05, 0.07, 0.05),
    )  # fmt: skip


def lashes(colour: np.ndarray, rng: np.random.Generator, thick: float) -> list[Lines]:
    head, parts = load_head(), []
    for table in head.lashes:
        upper = head.rest[table][..., 1].mean() > 3.2
        count = 78 if upper else 48
        column, share = np.divmod(rng.uniform(0.5, 17.5, count), 1)
        column = column.astype(int)
        length = rng.uniform(0.75, 1.05, count) * (0.62 if upper else 0.5)
        # From the root towards the points of the two nearest columns.
        points = np.stack([table[column], table[column + 1]], -1)  # (count, 6, 2)
        corners = np.concatenate([points, np.broadcast_to(points[:, :1], points.shape)], -1)
        sides = np.stack([1 - share, share], -1)
        shares = np.concatenate([sides * length[:, None], sides * (1 - length[:, None])], -1)
        shares = np.broadcast_to(shares[:, None], corners.shape)
        rows = np.repeat(np.arange(count * 6), 4)
        shape = (count * 6, len(head.rest))
        bound = sp.csr_matrix((shares.ravel(), (rows, corners.ravel())), shape)
        width = np.linspace(0.05, 0.012, 6) if upper else np.linspace(0.024, 0.008, 6)
        parts.append(strands(bound, np.tile(width * thick, (count, 1)), colour, 0.7, bias=5e-5))
    return parts


def beard(colour: np.ndarray, rng: np.random.Generator, count: int, length: float) -> Lines:
    """``length`` of the hairs in cm."""
    head = load_head()
    triangles = head.triangles[head.material == SKIN]
    share = beard_area(head.rest[triangles].mean(1)) * (1 - lip_area()[triangles].max(1))
    chosen, corner = scattered(head.rest, triangles, np.where(share > 0.25, share, 0), count, rng)
    normal = point_normals(head.rest, head.triangles)[chosen].mean(1)
    heading = unit(normal * 0.35 - (0, 1, 0) + rng.normal(0, 0.30, (count, 3)))
    out = (heading * normal).sum(1, keepdims=True)
    heading = unit(heading - normal * np.minimum(out - 0.25, 0))
    size = (length * rng.uniform(0.5, 1.25, count))[:, None]
    along = np.array((0, 0.34, 0.7, 1))
    return strands(
        rows_of(np.repeat(chosen, 4, 0), np.repeat(corner, 4, 0)),
        np.tile((0.035, 0.035, 0.03, 0.01), (count, 1)),
        colour * rng.uniform(0.6, 1.3, (count, 1, 1)), opened=rng.uniform(0.5, 1, (count, 1)),
        opacity=0.75, bias=2e-5, lift=np.array((0, 0.10, 0.08, 0)) * size,
        lean=heading[:, None] * (along * size)[..., None],
    )  # fmt: skip
