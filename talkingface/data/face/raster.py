"""Rasterisation of the face mesh with a z-buffer, and its PNCC colours, in numpy."""

from __future__ import annotations

import numpy as np

from talkingface.data.face.topology import triangles

_TOLERANCE = 1e-6  # of barycentric coordinates: a pixel on a shared edge is in both triangles
_DARKEST = 0.01  # darker is background: HeadGAN's mask is "sum of channels > 0.01"


def pncc_colors(mean: np.ndarray) -> np.ndarray:
    """Projected normalised coordinate code: a vertex's colour is its position in the mean face.

    Args:
        mean: (V,3) mean face, x right, y down, z away from the viewer.

    Returns:
        (V,3) float64 in [0,1]; red from left to right, green from forehead to chin, blue from nose
        to ears. Identity, expression and pose do not change it.

    Raises:
        ValueError: a vertex would be black, the colour of the background.
    """
    low, high = mean.min(axis=0), mean.max(axis=0)
    colors = (mean - low) / (high - low)
    if colors.sum(axis=1).min() <= _DARKEST:
        raise ValueError("A vertex of the mean face is at its minimum in x, y and z: its colour "
                         "would be the background's black.")  # fmt: skip
    return colors


def rasterize(
    vertices: np.ndarray,
    colors: np.ndarray,
    height: int,
    width: int,
    *,
    faces: np.ndarray | None = None,
    flat: bool = False,
    cull: bool = True,
) -> np.ndarray:
    """Draw a mesh with depth test and back-face culling.

    A pixel shows the nearest triangle; at equal depth the first one of ``faces``. Pixel centres are
    at +0.5; a pixel on an edge is inside. Colours and depth are interpolated linearly.

    Args:
        vertices: (V,3) pixels; smaller z is nearer, as in MediaPipe.
        colors: (V,C) colour per vertex.
        faces: (F,3) vertex indices; None: the 880 triangles of the face mesh with closed eyes.
        flat: one colour per triangle (the mean of its corners) instead of smooth shading.
        cull: skip triangles that face away from the viewer.

    Returns:
        (H,W,C) float32, 0 outside the mesh.
    """
    faces = triangles() if faces is None else faces
    corners = vertices[faces].astype(np.float64)  # (F,3,3)
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    kept = np.flatnonzero(area > 0 if cull else area != 0)
    picture = np.zeros((height, width, colors.shape[1]), np.float32)
    if not len(kept):
        return picture
    a, b, c, area = a[kept], b[kept], c[kept], area[kept]

    # Barycentric coordinates are linear in x and y: two slopes and a constant per triangle.
    def plane(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        rows = [p[:, 1] - q[:, 1], q[:, 0] - p[:, 0], p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]]
        return np.stack(rows) / area

    u, v = plane(b, c), plane(c, a)
    w = np.stack([-u[0] - v[0], -u[1] - v[1], 1 - u[2] - v[2]])
    z = sum(p * corner[:, 2] for p, corner in zip((u, v, w), (a, b, c), strict=True))

    # The rows that each triangle covers, and in each row the columns inside all three edges.
    y = corners[kept, :, 1]
    first = np.maximum(np.ceil(y.min(axis=1) - 0.5 - _TOLERANCE), 0).astype(np.int64)
    last = np.minimum(np.floor(y.max(axis=1) - 0.5 + _TOLERANCE), height - 1).astype(np.int64)
    line, owner = _expanded(first, np.maximum(last - first + 1, 0))
    low, high = np.full(len(line), 0.5), np.full(len(line), width - 0.5)
    possible = np.ones(len(line), bool)
    for p in (u, v, w):
        slope, rest = p[0][owner], p[1][owner] * (line + 0.5) + p[2][owner] + _TOLERANCE
        with np.errstate(divide="ignore", invalid="ignore"):
            edge = -rest / slope
        low = np.where(slope > 0, np.maximum(low, edge), low)
        high = np.where(slope < 0, np.minimum(high, edge), high)
        possible &= (slope != 0) | (rest >= 0)
    # The margin of 1e-9 covers the rounding of the division: a pixel exactly on an edge is inside.
    begin = np.ceil(low - 0.5 - 1e-9).astype(np.int64)
    count = np.floor(high - 0.5 + 1e-9).astype(np.int64) - begin + 1
    column, which = _expanded(begin, np.where(possible, np.maximum(count, 0), 0))
    triangle, row = owner[which], line[which]
    pixel = row * width + column

    winner = np.full(height * width, -1)
    # In reverse order, so that the first triangle is written last.
    winner[pixel[::-1]] = np.arange(len(pixel) - 1, -1, -1)
    shared = np.flatnonzero(np.bincount(pixel, minlength=1)[pixel] > 1)
    if len(shared):
        x, y, t = column[shared] + 0.5, row[shared] + 0.5, triangle[shared]
        # Rounded, so that equal depths of different triangles do not differ in the last bits.
        depth = np.round(z[0][t] * x + z[1][t] * y + z[2][t], 6)
        # Written from far to near, so that the nearest remains; at equal depth the first triangle.
        order = shared[::-1][np.argsort(-depth[::-1], kind="stable")]
        winner[pixel[order]] = order
    covered = np.flatnonzero(winner >= 0)
    chosen = winner[covered]
    corner_colors = colors[faces[kept]]  # (F,3,C)
    if flat:
        values = corner_colors.mean(axis=1)[triangle[chosen]]
    else:
        planes = np.einsum("pkf,fpc->kcf", np.stack([u, v, w]), corner_colors)
        slope_x, slope_y, rest = planes[:, :, triangle[chosen]]  # (C,pixels) each
        values = (slope_x * (column[chosen] + 0.5) + slope_y * (row[chosen] + 0.5) + rest).T
    picture.reshape(-1, colors.shape[1])[covered] = values
    return picture


def _expanded(first: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Concatenated ranges ``first[i], first[i] + 1, ...`` of length ``count[i]``, and each i."""
    owner = np.repeat(np.arange(len(first)), count)
    starts = np.cumsum(count) - count
    return np.arange(len(owner)) + (first - starts)[owner], owner
