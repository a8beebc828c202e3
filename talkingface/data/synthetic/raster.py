"""Compiled loops of the renderer: projection, depth buffers and blended lines.

Images are (height, width) with y down; depths are inverse distances from the camera, so that a
larger value is nearer. Meshes are float32 points and int32 triangles.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
from numba import njit

HIDDEN = -9.0  # fastmath allows no test for nan


def _can_cache() -> bool:
    """Whether numba finds a folder for compiled functions; without one it refuses to start."""
    places = [Path(__file__).parent, os.path.expanduser("~")]
    return "NUMBA_CACHE_DIR" in os.environ or any(os.access(p, os.W_OK) for p in places)


OPTIONS = {"cache": _can_cache(), "fastmath": True, "nogil": True, "boundscheck": False}


@njit(**OPTIONS)
def vertex_normals(out, points, triangles):
    """Unit normals ``out`` (n, 3), weighted by area."""
    out[:] = 0
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        p, q, r = points[a], points[b], points[c]
        ux, uy, uz = q[0] - p[0], q[1] - p[1], q[2] - p[2]
        wx, wy, wz = r[0] - p[0], r[1] - p[1], r[2] - p[2]
        x, y, z = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
        for i in (a, b, c):
            out[i, 0] += x
            out[i, 1] += y
            out[i, 2] += z
    for i in range(out.shape[0]):
        scale = 1 / (math.sqrt(out[i, 0] ** 2 + out[i, 1] ** 2 + out[i, 2] ** 2) + 1e-12)
        for k in range(3):
            out[i, k] *= scale


@njit(**OPTIONS)
def turn(out, points, low, high, rotation, shift, pivot):
    """Turn the points (n, 3) of the head about ``pivot`` and move them by ``shift`` cm.

    Below the height ``low`` nothing moves, above ``high`` all of it does; between, a part.
    """
    for i in range(points.shape[0]):
        y, z = points[i, 1], points[i, 2]
        s = (y - low) / (high - low) + max(0.0, z - 4) * 0.12  # the chin belongs to the head
        s = min(max(s, 0.0), 1.0)
        s = s * s * (3 - 2 * s)
        px, py, pz = points[i, 0] - pivot[0], y - pivot[1], z - pivot[2]
        for k in range(3):
            row = rotation[k]
            moved = row[0] * px + row[1] * py + row[2] * pz + shift[k] + pivot[k]
            out[i, k] = points[i, k] + s * (moved - points[i, k])


@njit(**OPTIONS)
def project(out, points, camera, width, height):
    """Pixel x, y and inverse depth; ``camera`` holds x, y, z and the focal length in pixels."""
    for i in range(points.shape[0]):
        q = 1.0 / (camera[2] - points[i, 2])
        out[i, 0] = width * 0.5 + camera[3] * (points[i, 0] - camera[0]) * q
        out[i, 1] = height * 0.5 - camera[3] * (points[i, 1] - camera[1]) * q
        out[i, 2] = q


@njit(**OPTIONS)
def draw_mesh(depth, ids, screen, triangles, two_sided, bias):
    """Keep depth and number of the nearest triangle of each pixel.

    Args:
        ids: int32 (h, w), or (0, 0) to keep depths only.
        screen: (n, 3) pixel x, y and depth, larger is nearer.
        bias: (t,) added to a triangle's depth; ``HIDDEN`` leaves it out.
    """
    height, width = depth.shape
    keep_ids = ids.shape[0] > 0
    for t in range(triangles.shape[0]):
        shift = bias[t]
        if shift < -1:
            continue
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x0, y0, x1, y1, x2, y2 = (
            screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1]
        )  # fmt: skip
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0 or (area > 0 and not two_sided[t]):  # y is down: negative is counter-clockwise
            continue
        left = max(0, int(math.ceil(min(x0, min(x1, x2)) - 0.5)))
        right = min(width - 1, int(math.floor(max(x0, max(x1, x2)) - 0.5)))
        top = max(0, int(math.ceil(min(y0, min(y1, y2)) - 0.5)))
        bottom = min(height - 1, int(math.floor(max(y0, max(y1, y2)) - 0.5)))
        if left > right or top > bottom:
            continue
        inverse = 1.0 / area
        z0, z1, z2 = screen[a, 2] + shift, screen[b, 2] + shift, screen[c, 2] + shift
        d0x, d1x = (y1 - y2) * inverse, (y2 - y0) * inverse
        for y in range(top, bottom + 1):
            b0 = ((left + 0.5 - x2) * (y1 - y2) + (y + 0.5 - y2) * (x2 - x1)) * inverse
            b1 = ((left + 0.5 - x2) * (y2 - y0) + (y + 0.5 - y2) * (x0 - x2)) * inverse
            for x in range(left, right + 1):
                b2 = 1.0 - b0 - b1
                if b0 >= -1e-5 and b1 >= -1e-5 and b2 >= -1e-5:
                    z = b0 * z0 + b1 * z1 + b2 * z2
                    if z > depth[y, x]:
                        depth[y, x] = z
                        if keep_ids:
                            ids[y, x] = t
                b0 += d0x
                b1 += d1x


@njit(**OPTIONS)
def draw_shadow_lines(depth, screen, joined, step):
    """Depths of every ``step``-th line, one pixel wide, for shadow maps."""
    height, width = depth.shape
    for i in range(0, screen.shape[0] - 1):
        if not joined[i] or (joined[i] // 2) % step:
            continue
        dx, dy = screen[i + 1, 0] - screen[i, 0], screen[i + 1, 1] - screen[i, 1]
        count = int(max(abs(dx), abs(dy))) + 1
        for j in range(count):
            f = j / count
            x, y = int(screen[i, 0] + dx * f), int(screen[i, 1] + dy * f)
            if 0 <= x < width and 0 <= y < height:
                z = screen[i, 2] + (screen[i + 1, 2] - screen[i, 2]) * f
                if z > depth[y, x]:
                    depth[y, x] = z


@njit(**OPTIONS)
def depth_order(order, screen, joined, bins):
    """Segments from near to far, sorted into ``bins`` depths; returns their number."""
    low, high = 1e9, -1e9
    for i in range(screen.shape[0]):
        if joined[i]:
            low, high = min(low, screen[i, 2]), max(high, screen[i, 2])
    count = np.zeros(bins + 1, np.int64)
    scale = (bins - 1) / max(high - low, 1e-9)
    for i in range(screen.shape[0]):
        if joined[i]:
            count[int((high - screen[i, 2]) * scale) + 1] += 1
    for k in range(bins):
        count[k + 1] += count[k]
    total = count[bins]
    for i in range(screen.shape[0]):
        if joined[i]:
            k = int((high - screen[i, 2]) * scale)
            order[count[k]] = i
            count[k] += 1
    return total


@njit(**OPTIONS)
def reduce_depth(near, far, depth):
    """Largest and smallest of each 2 x 2 depths."""
    for y in range(near.shape[0]):
        for x in range(near.shape[1]):
            a, b = depth[2 * y, 2 * x], depth[2 * y, 2 * x + 1]
            c, d = depth[2 * y + 1, 2 * x], depth[2 * y + 1, 2 * x + 1]
            near[y, x], far[y, x] = max(max(a, b), max(c, d)), min(min(a, b), min(c, d))


@njit(**OPTIONS)
def blend_lines(colour, through, near, far, screen, rgb, width, opacity, bias, order, total):
    """Blend lines from near to far.

    Args:
        colour: float32 (h, w, 3), the sum of the light of the lines.
        through: float32 (h, w), the share of what is behind; starts with 1.
        near, far: float32 (h, w), the mesh's largest and smallest depth of each pixel.
        screen: (n, 3) in pixels of ``colour``; a segment joins i and i + 1.
        rgb, width, opacity, bias: of the points; ``bias`` is added to the depth.
        order: the segments, ``total`` of them.
    """
    rows, columns = through.shape
    for s in range(total):
        i = order[s]
        a, b = screen[i], screen[i + 1]
        x0, y0, x1, y1 = a[0] - 0.5, a[1] - 0.5, b[0] - 0.5, b[1] - 0.5
        if max(x0, x1) < 0 or max(y0, y1) < 0:
            continue
        if min(x0, x1) > columns - 1 or min(y0, y1) > rows - 1:
            continue
        dx, dy = x1 - x0, y1 - y0
        flat = abs(dx) >= abs(dy)
        longest = max(abs(dx), abs(dy))
        count = max(int(longest + 0.5), 1)
        share = longest / count if longest < 1 else 1.0
        slope = math.sqrt(dx * dx + dy * dy) / (longest + 1e-9)  # a steep line is wider across
        for j in range(count):
            f = (j + 0.5) / count
            x, y = x0 + dx * f, y0 + dy * f
            wide = (width[i] + (width[i + 1] - width[i]) * f) * slope
            z = screen[i, 2] + (screen[i + 1, 2] - screen[i, 2]) * f + bias[i]
            centre = y if flat else x
            first = int(math.floor(centre - (wide + 1) * 0.5)) + 1
            last = int(math.ceil(centre + (wide + 1) * 0.5)) - 1
            for q in range(first, last + 1):
                column, row = (int(x + 0.5), q) if flat else (q, int(y + 0.5))
                if column < 0 or row < 0 or column >= columns or row >= rows:
                    continue
                left = through[row, column]
                if z < near[row, column]:  # the mesh covers about half of the pixel
                    left -= 0.5
                if left < 0.02:
                    continue
                cover = min(max((wide + 1) * 0.5 - abs(q - centre), 0.0), min(wide, 1.0))
                cover *= opacity[i] * share
                if cover < 0.004 or z < far[row, column]:
                    continue
                for k in range(3):
                    shade = rgb[i, k] + (rgb[i + 1, k] - rgb[i, k]) * f
                    colour[row, column, k] += left * cover * shade
                through[row, column] -= left * cover
