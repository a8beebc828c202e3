"""Pictures of the face mesh: PNCC colours and a z-buffer, for HeadGAN and previews (numpy only)."""

from __future__ import annotations

import numpy as np

from talkingface.data.face.topology import N_MESH, triangles

_TOLERANCE = 1e-6  # of barycentric coordinates: shared edges belong to both triangles
_DARKEST = 0.01  # black means background: HeadGAN's mask rule is "sum of channels > 0.01"


def pncc_colors(mean: np.ndarray) -> np.ndarray:
    """Projected normalised coordinate code: each vertex has its place in the mean face as colour.

    Args:
        mean: (V,3) mean face, x right, y down, z away from the viewer.

    Returns:
        (V,3) float64 in [0,1]; red from left to right, green from forehead to chin, blue from nose
        to ears. It depends on the vertex only, never on identity, expression or pose.

    Raises:
        ValueError: a vertex would be black, which means background.
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
    """Draw a mesh with depth test and back-face culling (ours).

    The nearest surface wins, of equal depths the triangle that stands first. Pixel centres are at
    +0.5; a pixel on an edge is inside. Colours and depth are interpolated linearly.

    Args:
        vertices: (V,3) pixels; smaller z is nearer, as MediaPipe has it.
        colors: (V,C) colour per vertex.
        faces: (F,3) vertex numbers; None: the 880 triangles of the face mesh with closed eyes.
        flat: one colour per triangle (the mean of its corners) instead of smooth shading.
        cull: leave triangles out that face away.

    Returns:
        (H,W,C) float32, 0 where there is no face.
    """
    faces = triangles() if faces is None else faces
    corners = vertices[faces].astype(np.float64)  # (F,3,3)
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    seen = np.flatnonzero(area > 0 if cull else area != 0)
    picture = np.zeros((height, width, colors.shape[1]), np.float32)
    if not len(seen):
        return picture
    a, b, c, area = a[seen], b[seen], c[seen], area[seen]

    # Barycentric coordinates are linear in x and y: slopes and constant per triangle.
    def plane(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        rows = [p[:, 1] - q[:, 1], q[:, 0] - p[:, 0], p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]]
        return np.stack(rows) / area

    u, v = plane(b, c), plane(c, a)
    w = np.stack([-u[0] - v[0], -u[1] - v[1], 1 - u[2] - v[2]])
    z = sum(p * corner[:, 2] for p, corner in zip((u, v, w), (a, b, c), strict=True))

    # The rows that each triangle touches, and in each row the columns inside all three edges.
    tops = np.minimum(np.minimum(a[:, 1], b[:, 1]), c[:, 1])
    bottoms = np.maximum(np.maximum(a[:, 1], b[:, 1]), c[:, 1])
    first = np.maximum(np.ceil(tops - 0.5 - _TOLERANCE), 0).astype(np.int64)
    last = np.minimum(np.floor(bottoms - 0.5 + _TOLERANCE), height - 1).astype(np.int64)
    lines = np.maximum(last - first + 1, 0)
    line, own = _expanded(first, lines)
    low, high = np.full(len(line), 0.5), np.full(len(line), width - 0.5)
    possible = np.ones(len(line), bool)
    for p in (u, v, w):
        slope, rest = p[0][own], p[1][own] * (line + 0.5) + p[2][own] + _TOLERANCE
        with np.errstate(divide="ignore", invalid="ignore"):
            edge = -rest / slope
        low = np.where(slope > 0, np.maximum(low, edge), low)
        high = np.where(slope < 0, np.minimum(high, edge), high)
        possible &= (slope != 0) | (rest >= 0)
    # A hair more room, since dividing rounds: pixels exactly on an edge are inside.
    begin = np.ceil(low - 0.5 - 1e-9).astype(np.int64)
    count = np.floor(high - 0.5 + 1e-9).astype(np.int64) - begin + 1
    column, which = _expanded(begin, np.where(possible, np.maximum(count, 0), 0))
    triangle, row = own[which], line[which]
    pixel = row * width + column

    winner = np.full(height * width, -1)
    # Backwards, so that the triangle that stands first is written last.
    winner[pixel[::-1]] = np.arange(len(pixel) - 1, -1, -1)
    shared = np.flatnonzero(np.bincount(pixel, minlength=1)[pixel] > 1)
    if len(shared):
        x, y, mine = column[shared] + 0.5, row[shared] + 0.5, triangle[shared]
        # Rounded, so that equal depths of different triangles do not differ in the last bits.
        depth = np.round(z[0][mine] * x + z[1][mine] * y + z[2][mine], 6)
        # From far to near the last writer is the nearest; of equal ones it is the first triangle.
        order = shared[::-1][np.argsort(-depth[::-1], kind="stable")]
        winner[pixel[order]] = order
    covered = np.flatnonzero(winner >= 0)
    chosen = winner[covered]
    mine = triangle[chosen]
    of_corners = colors[faces[seen]]  # (F,3,C)
    if flat:
        values = of_corners.mean(axis=1)[mine]
    else:
        planes = np.einsum("pkf,fpc->kcf", np.stack([u, v, w]), of_corners)
        x, y = column[chosen] + 0.5, row[chosen] + 0.5
        values = np.stack([one[mine] * x + two[mine] * y + three[mine]
                           for one, two, three in zip(*planes, strict=True)], axis=1)  # fmt: skip
    picture.reshape(-1, colors.shape[1])[covered] = values
    return picture


def _expanded(first: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranges one after the other: ``first[i], first[i] + 1, ...`` and the i of each value."""
    owner = np.repeat(np.arange(len(first)), count)
    starts = np.cumsum(count) - count
    return np.arange(len(owner)) + (first - starts)[owner], owner


def render_pncc(
    landmarks: np.ndarray, colors: np.ndarray, height: int, width: int, *, flat: bool = False
) -> np.ndarray:
    """PNCC picture of a face: (H,W,3) uint8.

    Args:
        landmarks: (478,3) or (468,3) MediaPipe points in pixels of the picture.
        colors: (468,3) of :func:`pncc_colors`.
    """
    picture = rasterize(landmarks[:N_MESH], colors, height, width, flat=flat)
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
