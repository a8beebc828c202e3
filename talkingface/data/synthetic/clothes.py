"""Clothes and head scarves: shells around the skin with a rolled edge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from scipy.ndimage import gaussian_filter1d

from talkingface.data.synthetic.head import SKIN, load_head
from talkingface.data.synthetic.skin import smooth

# Height of the neckline behind, its drop to the front, and the profile of the edge: cm away from
# the skin and up.
ROLL = (
    (0.05, 0.15), (0.22, 0.42), (0.48, 0.40), (0.60, 0.1), (0.66, -0.35), (0.55, -0.62),
    (0.2, -0.7),
)  # fmt: skip
COLLARS = {
    "crew": (-11.4, 0.30, ROLL),
    "vee": (-11.2, 0.30, ROLL),
    "scoop": (-12.2, 0.45, ROLL),
    "turtle": (-8.9, 0.30, (
        (0.05, 3.2), (0.45, 3.1), (0.62, 2.4), (0.6, 1.2), (0.65, 0.2), (0.75, -0.7), (0.4, -1.2),
    )),
    "shirt": (-11.2, 0.30, (
        (0, 0.9), (0.3, 1.35), (0.55, 1.2), (0.95, 0.3), (1.3, -1.0), (1.15, -1.25), (0.4, -0.6),
    )),
}  # fmt: skip
SCARF_EDGE = ((-0.05, -0.12), (0.30, -0.10), (0.52, 0.12), (0.60, 0.5), (0.50, 0.95), (0.2, 1.3))


def garment(points: np.ndarray, normals: np.ndarray, collar: str):
    """Points, triangles and the skin triangles that it hides, of a shirt with this collar."""
    head = load_head()
    base, drop, profile = COLLARS[collar]
    x, y, z = head.rest.T
    level = y - (base - drop * (z - 1))
    if collar == "vee":
        level = level + 3.4 * np.clip(1 - np.abs(x) / 5, 0, 1) * smooth(1, 5, z)
    if collar == "scoop":
        level = level - 0.02 * x**2
    low = (y < -7.5)[head.triangles].all(1)
    shell, triangles = _shell(
        points, normals, level, low, 0.35 + 0.5 * smooth(0, 4, -level), 20, 0.3
    )

    def around(p: np.ndarray) -> np.ndarray:
        return np.arctan2(p[:, 0], p[:, 2] - p[:, 2].mean())

    gap = 0.8 if collar == "shirt" else 0.0
    edge, edge_triangles = _edge(points, normals, level, low, around, profile, UPWARDS, gap)
    hidden = low & (level < -1.6)[head.triangles].all(1)
    return (
        np.concatenate([shell, edge]),
        np.concatenate([triangles, edge_triangles + len(shell)]),
        hidden,
    )


UPWARDS = np.array([0.0, 1.0, 0.0])


def scarf(points: np.ndarray, normals: np.ndarray):
    """Points, triangles and hidden skin triangles of a head scarf."""
    head = load_head()
    x, y, z = head.rest.astype(float).T
    oval = np.hypot(x / 6.55, np.where(y > 1, (y - 1) / 8.2, (y - 1) / 9.6))
    level = np.maximum(oval - 1, (3.2 - z) / 6)
    level = np.where(y < -6.5, np.maximum(level, (-8.2 - y) / 3 + (9 - z) * 0.15), level)
    ear = (np.abs(x) > 6.5) & (y > -3.5) & (y < 5.5) & (z > -4) & (z < 5)
    away = 0.3 + 0.75 * smooth(0, 0.6, level) + 1.1 * smooth(-8.5, -11, y)
    away += 0.45 * smooth(6, 12, y) * smooth(3, -4, z) + 0.9 * smooth(2, -6, z) * smooth(-2, 4, y)
    every = np.ones(len(head.triangles), bool)
    shell, triangles = _shell(points, normals, -level, every, away, 30, 0.55, ear)

    def around(p: np.ndarray) -> np.ndarray:
        return np.arctan2(p[:, 0], p[:, 1] - 1)

    edge, edge_triangles = _edge(points, normals, -level, every, around, SCARF_EDGE)
    skin = head.rest[head.triangles]
    hidden = (np.abs(skin[..., 0]) > 6.4).all(1) & (skin[..., 1] > -3).all(1)
    hidden &= (skin[..., 1] < 7).all(1) & (skin[..., 2] < 4).all(1)
    return (
        np.concatenate([shell, edge]),
        np.concatenate([triangles, edge_triangles + len(shell)]),
        hidden,
    )


def _shell(points, normals, level, allowed, away, rounds: int, least: float, loose=None):
    """Skin with ``level`` below 0, ``away`` cm outside, smoothed; its edge is below the skin."""
    head = load_head()
    chosen = (head.material == SKIN) & allowed & (level[head.triangles] < 0).any(1)
    triangles = head.triangles[chosen]
    used, flat = np.unique(triangles, return_inverse=True)
    triangles = flat.reshape(-1, 3)
    inner, normal = points[used], normals[used]
    fixed = level[used] > -0.05
    free = np.zeros(len(used), bool) if loose is None else loose[used]
    shell = inner + normal * away[used, None]
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    links = sp.coo_matrix((np.ones(len(edges)), edges.T), (len(used),) * 2).tocsr()
    links.data[:] = 1
    links = sp.diags(1 / np.asarray(links.sum(1)).ravel()) @ links
    if free.any():  # as if stretched over what it hides
        inside, border = links[free][:, free], links[free][:, ~free] @ shell[~free]
        shell[free] = sp.linalg.spsolve((sp.eye(free.sum()) - inside).tocsc(), border)
    for step in range(rounds):
        share = np.where(fixed, 0.3, 0.7)[:, None] * ~free[:, None]
        shell = shell + share * (links @ shell - shell)
        if step % 10 == 9:
            height = ((shell - inner) * normal).sum(1)
            shell = shell + normal * np.where(free, 0, np.maximum(least - height, 0))[:, None]
    shell[level[used] > 0] -= normal[level[used] > 0] * 0.75
    return shell, triangles


def _edge(points, normals, level, allowed, around: Callable, profile, up=None, gap: float = 0.0):
    """A tube along the line where ``level`` is 0, which ``around`` orders by angle.

    ``up`` is the direction in which the profile rises, without it away from the face; ``gap`` is
    how much of the profile is missing in front.
    """
    head, count = load_head(), 120
    triangles = head.triangles[(head.material == SKIN) & allowed]
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.unique(np.sort(edges, 1), axis=0)
    a, b = edges[level[edges[:, 0]] * level[edges[:, 1]] < 0].T
    t = (level[a] / (level[a] - level[b]))[:, None]
    place, normal = points[a] * (1 - t) + points[b] * t, normals[a] * (1 - t) + normals[b] * t
    angle = around(head.rest[a] * (1 - t) + head.rest[b] * t)
    order = angle.argsort()
    angle, place, normal = angle[order], place[order], normal[order]
    even = np.linspace(-np.pi, np.pi, count, endpoint=False)
    turns = np.concatenate([angle - 2 * np.pi, angle, angle + 2 * np.pi])

    def resampled(values):
        columns = [np.interp(even, turns, np.tile(values[:, k], 3)) for k in range(3)]
        return gaussian_filter1d(np.stack(columns, 1), 2.0, axis=0, mode="wrap")

    place, normal = resampled(place), resampled(normal)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    tangent = np.roll(place, -1, 0) - np.roll(place, 1, 0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    across = np.cross(tangent, normal)
    wanted = up if up is not None else place - (0, 1, 7)
    across *= np.sign((across * wanted).sum(1, keepdims=True))
    scale = (1 - gap * np.exp(-((even / 0.35) ** 2)))[:, None]
    rings = [
        place + normal * out * (0.75 + 0.25 * scale) + across * rise * scale
        for out, rise in profile
    ]
    i = np.arange(count)
    j = (i + 1) % count
    corners = [(k * count + i, (k + 1) * count + i, (k + 1) * count + j, k * count + j)
               for k in range(len(profile) - 1)]  # fmt: skip
    quads = np.concatenate([np.stack(q, 1) for q in corners])
    tube = np.concatenate(rings)
    a, b, c = (tube[quads[:, k]] for k in range(3))
    if (np.cross(b - a, c - a) * (np.tile(normal, (len(profile) - 1, 1)))).sum() < 0:
        quads = quads[:, ::-1]  # so that the outside is the front
    return tube, np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
