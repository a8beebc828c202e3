"""Compiled shading of meshes and hair.

Colours are linear RGB. ``lights`` (4, 6) holds unit directions to the lights and their colours,
``ambient`` (4, 3) the constant and the x, y, z parts of the light from all around.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from talkingface.data.synthetic.raster import OPTIONS

# Columns of the attributes of a point.
OCCLUSION, RED, GREEN, BLUE, GLOSS, ROUGH, STUBBLE, FRECKLES, WRINKLES = range(9)
# Layers of the skin texture; the last two are slopes to the person's left, followed by upwards.
MELANIN, BLOOD, SPECKLE, SPOTS, PORES, FOLDS = 0, 1, 2, 3, 4, 6


@njit(**OPTIONS)
def dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(**OPTIONS)
def row(table, i, v):
    """``dot`` of a row; a view of it would cost time."""
    return table[i, 0] * v[0] + table[i, 1] * v[1] + table[i, 2] * v[2]


@njit(**OPTIONS)
def normalise(v):
    scale = 1 / math.sqrt(dot(v, v) + 1e-12)
    for k in range(3):
        v[k] *= scale


@njit(**OPTIONS)
def shadow_at(shadow, matrix, p, bias, turn):
    """Share (0 to 1) of the key light that arrives at ``p``: 9 samples of the shadow map."""
    x, y, z = (row(matrix, 0, p) + matrix[0, 3], row(matrix, 1, p) + matrix[1, 3],
               row(matrix, 2, p) + matrix[2, 3] + bias)  # fmt: skip
    total = 0.0
    for j in range(-1, 2):
        for i in range(-1, 2):
            u = int(x + 1.7 * (i + ((turn * 7 + j * 3) % 5 - 2) * 0.25))
            v = int(y + 1.7 * (j + ((turn * 3 + i * 7) % 5 - 2) * 0.25))
            if 0 <= u < shadow.shape[1] and 0 <= v < shadow.shape[0]:
                total += min(max(1 - (shadow[v, u] - z) / 0.6, 0.0), 1.0)
            else:
                total += 1
    return total / 9


@njit(**OPTIONS)
def glint(nh, nv, nl, lh, rough, f0):
    """GGX reflection times the cosine of the light."""
    a2 = rough**4
    d = nh * nh * (a2 - 1) + 1
    k = (rough + 1) ** 2 / 8
    visible = 1 / ((nl * (1 - k) + k) * (nv * (1 - k) + k) * 4 + 1e-6)
    return a2 / (math.pi * d * d + 1e-9) * visible * (f0 + (1 - f0) * (1 - lh) ** 5) * nl


@njit(**OPTIONS)
def noise(x, y, seed):
    """Smooth random numbers from 0 to 1."""
    i, j = int(math.floor(x)), int(math.floor(y))
    fx, fy = x - i, y - j
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    total = 0.0
    for k in range(4):
        h = ((i + (k & 1) + seed * 57) * 374761393 + (j + (k >> 1)) * 668265263) & 0x7FFFFFFF
        h = ((h ^ (h >> 13)) * 1274126177) & 0x7FFFFFFF
        total += (h & 0xFFFF) / 65535.0 * (fx if k & 1 else 1 - fx) * (fy if k >> 1 else 1 - fy)
    return total


@njit(**OPTIONS)
def texels(out, texture, u, v):
    """Linear interpolation of the layers of an int8 texture, in -1 to 1; u wraps."""
    height, width, layers = texture.shape
    v = min(max(v, 0.0), height - 1.001)
    i, j = int(math.floor(u)), int(v)
    fx, fy = u - i, (v - j) / 127
    gx, gy = 1 - fx, 1 / 127 - fy
    i, k = i % width, (i + 1) % width
    for n in range(layers):
        top = texture[j, i, n] * gx + texture[j, k, n] * fx
        out[n] = top * gy + (texture[j + 1, i, n] * gx + texture[j + 1, k, n] * fx) * fy


@njit(**OPTIONS)
def coverage(out, ids, material, first, last):
    """Share of each output pixel whose material lies in ``first`` to ``last``."""
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            out[y, x] = 0
            for k in range(4):
                t = ids[2 * y + (k >> 1), 2 * x + (k & 1)]
                if t >= 0 and first <= material[t] <= last:
                    out[y, x] += 0.25


@njit(**OPTIONS)
def paint_skin(rgb, n, rest, value, texture, paint, up, layer):
    """Mottling, stubble and freckles in ``rgb``, and the relief in the normal ``n``."""
    flat = math.sqrt(rest[0] * rest[0] + rest[2] * rest[2])
    y = rest[1] - 1
    u = (math.atan2(rest[0], rest[2]) / (2 * math.pi) + 0.5) * texture.shape[1]
    v = (0.5 - math.atan2(max(y, -5.0), flat) / math.pi - min(y + 5, 0.0) / 31) * texture.shape[0]
    texels(layer, texture, u, v)
    dark, blood = paint[2, 0] * layer[MELANIN], paint[2, 1] * layer[BLOOD]
    rgb[0] *= (1 - 0.03 * blood) * (1 - 0.5 * dark)
    rgb[1] *= (1 - 0.25 * blood) * (1 - 0.8 * dark)
    rgb[2] *= (1 - 0.20 * blood) * (1 - 0.9 * dark)
    hair = min(value[STUBBLE] * max(0.7 + 0.5 * layer[SPECKLE], 0.0), 0.9)
    spots = min(value[FRECKLES] * max(layer[SPOTS], 0.0), 1.0)
    for k in range(3):
        rgb[k] = (rgb[k] + (paint[0, k] - rgb[k]) * hair) * (1 - spots * (1 - paint[1, k]))
    left = paint[2, 2] * layer[PORES] + value[WRINKLES] * layer[FOLDS]
    rise = paint[2, 2] * layer[PORES + 1] + value[WRINKLES] * layer[FOLDS + 1]
    # Along the surface to the person's left, and from there upwards.
    ex, ey, ez = (up[1] * n[2] - up[2] * n[1], up[2] * n[0] - up[0] * n[2],
                  up[0] * n[1] - up[1] * n[0])  # fmt: skip
    scale = 1 / math.sqrt(ex * ex + ey * ey + ez * ez + 1e-9)
    ex, ey, ez = ex * scale, ey * scale, ez * scale
    ax, ay, az = n[1] * ez - n[2] * ey, n[2] * ex - n[0] * ez, n[0] * ey - n[1] * ex
    n[0] -= left * ex + rise * ax
    n[1] -= left * ey + rise * ay
    n[2] -= left * ez + rise * az
    normalise(n)


@njit(**OPTIONS)
def paint_eye(rgb, n, p, view, eye, iris):
    """Sclera with veins, or the iris behind the refracting cornea; rounds the normal ``n``.

    Args:
        p, view: place, and direction to the camera.
        eye: (14,) centre, axes (right, up, forward), radius, radius of the iris.
        iris: rows: sclera, outer and inner colour, (pupil's share, light's x, light's y).
    """
    d = p - eye[:3]
    x, y, z = dot(d, eye[3:6]), dot(d, eye[6:9]), dot(d, eye[9:12])
    vx, vy, vz = dot(view, eye[3:6]), dot(view, eye[6:9]), max(dot(view, eye[9:12]), 0.3)
    radius, ring = eye[12], eye[13]
    normalise(d)
    for k in range(3):
        n[k] = 0.6 * n[k] + 0.4 * d[k]
    normalise(n)
    r, angle = math.sqrt(x * x + y * y) / ring, math.atan2(y, x)
    grain = noise(angle * 5, r * 1.8, 3) * 0.6 + noise(angle * 14, r * 4.2, 5) * 0.4
    vein = 0.15 * max(0.0, 1 - abs(grain - 0.5) * 14) * min(max((r - 1.25) * 0.9, 0.0), 1.0)
    red = min(max((r - 1.35) * 0.9, 0.0), 1.0)
    rgb[0] = iris[0, 0] - 0.13 * vein
    rgb[1] = (iris[0, 1] - vein) * (1 - 0.22 * red)
    rgb[2] = (iris[0, 2] - vein) * (1 - 0.24 * red)
    if z <= 0:
        return
    behind = max(z - math.sqrt(max(radius * radius - ring * ring, 0.0)), 0.0) * 0.7
    u, v = (x - vx / vz * behind) / ring, (y - vy / vz * behind) / ring
    r, angle = math.sqrt(u * u + v * v), math.atan2(v, u)
    share = min(max((1 - r) / 0.10 + 0.5, 0.0), 1.0)
    if share <= 0:
        return
    fibres = noise(angle * 16, r * 2.5, 11) * 0.5 + noise(angle * 38, r * 4, 13) * 0.5
    pupil = iris[3, 0]
    g = min(max((r - pupil) / (1 - pupil), 0.0), 1.0)
    mix = min(max((g - 0.12) * 3, 0.0), 1.0)
    bright = (0.55 + 0.9 * fibres) * (1 - 0.55 * max(0.0, g - 0.62) / 0.38)
    bright *= 1 - 0.45 * (u * iris[3, 1] + v * iris[3, 2])  # opposite of the light
    bright *= 1 - 0.97 * min(max((pupil - r) / 0.06 + 0.5, 0.0), 1.0)
    for k in range(3):
        colour = (iris[2, k] * (1 - mix) + iris[1, k] * mix) * bright
        rgb[k] = rgb[k] * (1 - share) + colour * share


@njit(**OPTIONS)
def light_of_mouth(p, mouth):
    """Light inside the mouth, 0 to 1: the opening is an ellipse that is seen from ``p``."""
    dx = max(abs(p[0] - mouth[0]) - mouth[3] * 0.35, 0.0)
    dy = max(abs(p[1] - mouth[1]) - mouth[4] * 0.35, 0.0)
    dz = max(mouth[2] - p[2], 0.0)
    area = mouth[3] * mouth[4] * 0.785
    seen = area / (area + 1.5 * (dx * dx + dy * dy + dz * dz))
    return seen * (0.25 + 0.75 * min(1.0, area / 1.5))


@njit(**OPTIONS)
def illuminate(diffuse, mirror, n, p, view, m, ao, gloss, rough, surface, lights, ambient, shadow,
               matrix, turn):  # fmt: skip
    """Light that arrives, and light that is reflected to the camera, in RGB."""
    is_skin, inside = m == 0 or m == 2, m == 1 or m == 3 or m == 6 or m == 7
    eye, f0 = m == 4 or m == 5, surface[m, 1]
    facing = max(dot(n, view), 0.02)
    for k in range(3):
        around = ambient[0, k] + ambient[1, k] * n[0] + ambient[2, k] * n[1] + ambient[3, k] * n[2]
        diffuse[k] = max(around, 0.0) * ao
        mirror[k] = 0
        if is_skin and k:  # creases are red
            diffuse[k] *= 0.86 + 0.14 * ao if k == 1 else 0.82 + 0.18 * ao
    for i in range(lights.shape[0]):
        d = row(lights, i, n)
        if d < -0.4:
            continue
        lit = 1.0
        if i == 0:
            bias = 0.35 if inside else 0.25 + 0.5 * (1 - max(d, 0.0))
            lit = shadow_at(shadow, matrix, p, bias, turn)
            if inside:
                lit = lit * 0.5 + 0.5 * ao
        if inside:
            lit *= ao
        elif eye:
            lit *= 0.35 + 0.65 * ao
        red = lit * (1.6 - 0.6 * lit)  # red light passes the edge of a shadow on skin
        for k in range(3):
            reach = surface[m, 3 + k]
            arriving = red if is_skin and k == 0 else lit
            arriving *= max((d + reach) / (1 + reach), 0.0) * (0.55 + 0.45 * ao)
            diffuse[k] += arriving * lights[i, 3 + k]
        if d > 0 and gloss > 0:
            nh, lh, hh = d + dot(n, view), 1 + row(lights, i, view), 2 + 2 * row(lights, i, view)
            scale = 1 / math.sqrt(hh + 1e-9)
            nh, lh = max(nh * scale, 0.0), max(lh * scale, 0.0)
            g = glint(nh, facing, d, lh, rough, f0)
            if is_skin and i == 0:
                g = g * 0.7 + 0.3 * glint(nh, facing, d, lh, min(1.0, rough * 1.7), f0)
            g = min(g, 12.0) * gloss * lit * (0.55 + 0.45 * ao)
            for k in range(3):
                mirror[k] += g * lights[i, 3 + k]
    grazing = f0 + (1 - f0) * (1 - facing) ** 5 * max(1 - rough * 0.9, 0.0)
    most = 0.35 if is_skin else 1.6  # no bright dots in creases
    for k in range(3):
        mirror[k] = min(mirror[k] + grazing * gloss * ao * (0.6 + 0.4 * n[1]) * ambient[0, k], most)


@njit(**OPTIONS)
def shade(
    skin_colour, skin_light, skin, other, back, ids, screen, points, normals, rest, triangles,
    material, attributes, surface, texture, paint, camera, lights, ambient, shadow, matrix,
    up, eyes, iris, eye_shade, mouth,
):  # fmt: skip
    """Shade the pixels of ``ids`` (2h, 2w), one sample for those of an output pixel that are alike.

    Args:
        skin_colour, skin_light, skin: out, (h, w, 3), (h, w, 3), (h, w): albedo and light of skin,
            each times its share of the pixel, and the share; the light is blurred afterwards.
        other: out, (h, w, 3): colour of all else and reflections, times their share.
        back: out, (h, w): share of the background.
        rest: (n, 3), places on the average face, which give the place in the skin texture.
        attributes: (n, 9), see above. surface: (9, 6), roughness, reflection at normal incidence,
            gloss and the light's reach around the edge in R, G, B of each material.
        paint: (3, 3): colours of stubble and freckles; strengths of the two mottlings and relief.
        up: (3,) direction to the top of the head. eyes, iris: see :func:`paint_eye`.
        eye_shade: (h, w). mouth: (5,) middle, width and height of the opening.
    """
    rows, columns = skin.shape
    rgb, p, n, view, place = np.empty(3), np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    value, layer = np.empty(attributes.shape[1]), np.empty(texture.shape[2])
    diffuse, mirror = np.empty(3), np.empty(3)
    for y in range(rows):
        for x in range(columns):
            for k in range(3):
                skin_colour[y, x, k], skin_light[y, x, k], other[y, x, k] = 0, 0, 0
            skin[y, x], back[y, x], done = 0, 0, 0
            for first in range(4):
                if done >> first & 1:
                    continue
                t = ids[2 * y + (first >> 1), 2 * x + (first & 1)]
                if t < 0:
                    back[y, x] += 0.25
                    continue
                m, a, b, c = material[t], triangles[t, 0], triangles[t, 1], triangles[t, 2]
                px, py, weight = 2 * x + (first & 1) + 0.5, 2 * y + (first >> 1) + 0.5, 0.25
                if m != 4 and m != 5:
                    for k in range(first + 1, 4):
                        i = ids[2 * y + (k >> 1), 2 * x + (k & 1)]
                        if i >= 0 and material[i] == m and not done >> k & 1:
                            if abs(screen[triangles[i, 0], 2] - screen[a, 2]) < 2e-4:
                                done |= 1 << k
                                weight += 0.25
                    if weight == 1:
                        px, py = 2 * x + 1.0, 2 * y + 1.0
                # Perspective-correct weights of the corners.
                x1, y1 = screen[b, 0] - screen[c, 0], screen[b, 1] - screen[c, 1]
                x0, y0 = screen[a, 0] - screen[c, 0], screen[a, 1] - screen[c, 1]
                px, py, area = px - screen[c, 0], py - screen[c, 1], x0 * y1 - x1 * y0
                b0 = min(max((px * y1 - py * x1) / area, 0.0), 1.0)
                b1 = min(max((py * x0 - px * y0) / area, 0.0), 1.0)
                b2 = max(1 - b0 - b1, 0.0) * screen[c, 2]
                b0, b1 = b0 * screen[a, 2], b1 * screen[b, 2]
                scale = 1 / (b0 + b1 + b2)
                b0, b1, b2 = b0 * scale, b1 * scale, b2 * scale
                for k in range(3):
                    p[k] = b0 * points[a, k] + b1 * points[b, k] + b2 * points[c, k]
                    n[k] = b0 * normals[a, k] + b1 * normals[b, k] + b2 * normals[c, k]
                    view[k] = camera[k] - p[k]
                for k in range(GLOSS if m else len(value)):
                    value[k] = b0 * attributes[a, k] + b1 * attributes[b, k] + b2 * attributes[c, k]
                normalise(n)
                normalise(view)
                ao, rough, gloss = value[OCCLUSION], surface[m, 0], surface[m, 2]
                for k in range(3):
                    rgb[k] = value[RED + k]
                if m == 0:
                    rough, gloss = value[ROUGH], gloss * value[GLOSS]
                    for k in range(3):
                        place[k] = b0 * rest[a, k] + b1 * rest[b, k] + b2 * rest[c, k]
                    paint_skin(rgb, n, place, value, texture, paint, up, layer)
                elif m == 4 or m == 5:
                    paint_eye(rgb, n, p, view, eyes[m - 4], iris)
                    ao = eye_shade[y, x]
                    gloss = min(1.0, ao * ao * 1.6)
                elif m == 8:
                    weave = 0.94 + 0.12 * noise(
                        (p[0] * 0.8 + p[2] * 0.6) * 9, (p[1] + p[2] * 0.3) * 9, 1
                    )
                    sign = -1.0 if area > 0 else 1.0  # seen from behind
                    away = max(0.1 - sign * dot(n, view), 0.0)  # a visible side faces the camera
                    for k in range(3):
                        rgb[k] *= weave
                        n[k] = sign * n[k] + away * view[k]
                    normalise(n)
                elif m != 2:
                    ao = light_of_mouth(p, mouth)
                    gloss *= ao
                    rgb[1] *= 0.74 + 0.26 * ao
                    rgb[2] *= 0.66 + 0.34 * ao
                illuminate(diffuse, mirror, n, p, view, m, ao, gloss, rough, surface, lights,
                           ambient, shadow, matrix, (x * 3 + y * 5) % 11)  # fmt: skip
                if m == 0 or m == 2:
                    skin[y, x] += weight
                    for k in range(3):
                        skin_colour[y, x, k] += weight * rgb[k]
                        skin_light[y, x, k] += weight * diffuse[k]
                        other[y, x, k] += weight * mirror[k]
                else:
                    for k in range(3):
                        other[y, x, k] += weight * (rgb[k] * diffuse[k] + mirror[k])


@njit(**OPTIONS)
def compose(out, skin_colour, light, skin, other, back, background, hair, through, curve):
    """Add up the layers and write sRGB, uint8 (h, w, 3), with a gentle shoulder.

    ``light`` and ``skin`` are the blurred light and the blurred share of skin (h, w, 3);
    ``curve`` holds the sRGB values of linear 0 to 1.
    """
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            for k in range(3):
                lit = light[y, x, k] / max(skin[y, x, k], 1e-3)
                a = skin_colour[y, x, k] * lit + other[y, x, k] + back[y, x] * background[y, x, k]
                a = max(hair[y, x, k] + through[y, x] * a, 0.0)
                a = min(a * (1 + a * 0.16) / (1 + a * 0.62), 1.0)
                out[y, x, k] = curve[int(a * (len(curve) - 1))]


@njit(**OPTIONS)
def shade_lines(out, points, joined, tint, opened, shine, camera, lights, ambient, shadow, matrix):
    """Kajiya-Kay shading of hair: colour (n, 3) of each point.

    Args:
        joined: (n,), not 0 where a segment joins i and i + 1.
        tint: (n, 3) colour of the hair. opened: (n,) share of light from around that arrives.
        shine: (n,), shift of the highlight along the hair, -1 to 1; below -1 there is none.
    """
    last = points.shape[0] - 1
    t, view, here = np.empty(3), np.empty(3), np.empty(3)
    for i in range(points.shape[0]):
        a = i - 1 if i > 0 and joined[i - 1] else i
        b = i + 1 if i < last and joined[i] else i
        for k in range(3):
            t[k] = points[b, k] - points[a, k]
            here[k] = points[i, k]
            view[k] = camera[k] - here[k]
            out[i, k] = ambient[0, k] * opened[i] * tint[i, k]
        normalise(t)
        normalise(view)
        tv = dot(t, view)
        sv = math.sqrt(max(1 - tv * tv, 0.0))
        for j in range(0, lights.shape[0], 2):  # the key and the light from behind
            tl = row(lights, j, t)
            sl = math.sqrt(max(1 - tl * tl, 0.0))
            lit = 0.35 + 0.65 * opened[i]
            if j == 0:
                u = int(row(matrix, 0, here) + matrix[0, 3])
                v = int(row(matrix, 1, here) + matrix[1, 3])
                if 0 <= u < shadow.shape[1] and 0 <= v < shadow.shape[0]:
                    under = shadow[v, u] - row(matrix, 2, here) - matrix[2, 3] - 0.15
                    if under > 0:
                        lit *= max(1 / (1 + under + 0.5 * under * under), 0.12)
            first, second = 0.0, 0.0
            if shine[i] >= -1:  # the white and the coloured highlight
                co, si = sl * sv - tl * tv, -sl * tv - tl * sv
                h1, h2 = -0.1 + 0.12 * shine[i], 0.22 + 0.2 * shine[i]
                first = max(co * (1 - h1 * h1 * 0.5) - si * h1, 0.0) ** 64 * 0.096 * opened[i]
                second = max(co * (1 - h2 * h2 * 0.5) - si * h2, 0.0) ** 16 * 0.6 * opened[i]
            for k in range(3):
                light = sl * 0.55 * tint[i, k] + first + second * tint[i, k]
                out[i, k] += light * lit * lights[j, 3 + k]
