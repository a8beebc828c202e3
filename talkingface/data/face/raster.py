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
) -> np.ndarray:
    """Draw a mesh with depth test and back-face culling (HeadGAN spec 9.6).

    The nearest surface wins, of equal depths the triangle that stands first. Pixel centres are at
    +0.5; a pixel on an edge is inside. Colours and depth are interpolated linearly.

    Args:
        vertices: (V,3) pixels; smaller z is nearer, as MediaPipe has it.
        colors: (V,C) colour per vertex.
        faces: (F,3) vertex numbers; None: the 880 triangles of the face mesh with closed eyes.
        flat: one colour per triangle (the mean of its corners) instead of smooth shading.

    Returns:
        (H,W,C) float32, 0 where there is no face.
    """
    faces = triangles() if faces is None else faces
    corners = vertices[faces].astype(np.float64)  # (F,3,3)
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    size = np.array([width, height])
    low = np.maximum(np.ceil(corners[..., :2].min(axis=1) - 0.5 - _TOLERANCE), 0).astype(np.int64)
    high = np.minimum(np.floor(corners[..., :2].max(axis=1) - 0.5 + _TOLERANCE), size - 1)
    extent = np.maximum(high.astype(np.int64) - low + 1, 0)
    count = np.where(area > 0, extent.prod(axis=1), 0)
    picture = np.zeros((height, width, colors.shape[1]), np.float32)
    # Every pixel of every triangle's box is a candidate.
    triangle = np.repeat(np.arange(len(faces)), count)
    if not len(triangle):
        return picture
    offset = np.arange(len(triangle)) - np.repeat(np.cumsum(count) - count, count)
    wide = extent[triangle, 0]
    column = low[triangle, 0] + offset % wide
    row = low[triangle, 1] + offset // wide
    x, y = column + 0.5, row + 0.5

    # Barycentric coordinates are linear in x and y: one row of coefficients per triangle.
    def plane(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        slope = np.stack([p[:, 1] - q[:, 1], q[:, 0] - p[:, 0]], axis=1)
        constant = p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.concatenate([slope, constant[:, None]], axis=1) / area[:, None]

    planes = [plane(b, c), plane(c, a)]
    u, v = (p[triangle, 0] * x + p[triangle, 1] * y + p[triangle, 2] for p in planes)
    w = 1.0 - u - v
    inside = np.flatnonzero((u >= -_TOLERANCE) & (v >= -_TOLERANCE) & (w >= -_TOLERANCE))
    triangle, weights = triangle[inside], np.stack([u[inside], v[inside], w[inside]], axis=1)
    pixel = row[inside] * width + column[inside]
    # Rounded, so that equal depths of different triangles do not differ in the last bits.
    depth = np.round((weights * corners[triangle, :, 2]).sum(axis=1), 6)
    # Sorted from far to near, the last writer of a pixel is the nearest; reversing first lets the
    # stable sort put the first of equal triangles last.
    order = np.argsort(-depth[::-1], kind="stable")
    winner = np.full(height * width, -1)
    backwards = np.arange(len(pixel))[::-1][order]
    winner[pixel[backwards]] = backwards
    covered = np.flatnonzero(winner >= 0)
    chosen = winner[covered]
    corner_colors = colors[faces[triangle[chosen]]]  # (P,3,C)
    if flat:
        values = corner_colors.mean(axis=1)
    else:
        values = np.einsum("pk,pkc->pc", weights[chosen], corner_colors)
    picture.reshape(-1, colors.shape[1])[covered] = values
    return picture


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
