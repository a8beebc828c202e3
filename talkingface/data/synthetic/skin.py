"""Colour and relief of skin: one texture for all persons, and attributes of each person's points.

Both use places on the average face, in cm (see ``head.py``), so that they fit every face.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from talkingface.data.synthetic.head import GUMS, MOUTH, SKIN, SOCKET, TEETH, TONGUE, load_head
from talkingface.data.synthetic.shading import (
    BLOOD,
    FOLDS,
    FRECKLES,
    GLOSS,
    MELANIN,
    OCCLUSION,
    PORES,
    RED,
    ROUGH,
    SPECKLE,
    SPOTS,
    STUBBLE,
    WRINKLES,
)

TEXTURE = (1024, 1536)  # rows from zenith to nadir, columns around the head; about 30 per cm
# sRGB of light to dark skin.
TONES = (
    (240, 203, 184), (231, 188, 162), (216, 170, 138), (192, 142, 108), (158, 108, 78),
    (118, 76, 54), (84, 53, 38),
)  # fmt: skip
# Half of the brow from its inner to its outer end, in cm.
BROW = np.array([(1.75, 5.45), (2.8, 5.80), (3.95, 5.95), (4.95, 5.70), (5.65, 5.10)])
# Lines of an old face as (x, y), for the left half.
FOLD_LINES = (
    [(0, 7.0), (2, 7.1), (4, 6.8)], [(0, 7.9), (2.2, 8.0), (4.2, 7.6)],
    [(0, 8.7), (2, 8.8), (3.8, 8.5)],
    [(4.9, 3.8), (5.5, 4.2), (6.1, 4.5)], [(5.0, 3.4), (5.7, 3.5), (6.3, 3.5)],
    [(4.9, 3.0), (5.5, 2.7), (6.0, 2.3)],
    [(1.8, 0.5), (2.6, -0.6), (3.2, -2.0), (3.4, -3.3)], [(1.9, 2.2), (3.0, 1.95), (4.2, 2.2)],
    [(2.9, -3.9), (3.0, -4.7), (2.7, -5.6)], [(0.35, 5.2), (0.45, 5.8), (0.4, 6.3)],
)  # fmt: skip


def linear(colour) -> np.ndarray:
    """Linear RGB, 0 to 1, of sRGB from 0 to 255."""
    c = np.asarray(colour, np.float64) / 255
    return np.where(c < 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def skin_colour(tone: float) -> np.ndarray:
    """Linear RGB of a tone from 0 (light) to 1 (dark)."""
    return np.array(
        [
            np.interp(tone * (len(TONES) - 1), range(len(TONES)), channel)
            for channel in linear(TONES).T
        ]
    )


def smooth(low, high, x):
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def spot(points, centre, radius):
    """A bell of height 1 around ``centre`` and its mirror image."""
    mirrored = np.concatenate([np.abs(points[..., :1]), points[..., 1:]], -1)
    return np.exp(-0.5 * (((mirrored - centre) / radius) ** 2).sum(-1))


def texture_place(points) -> np.ndarray:
    """Column and row (..., 2) in the texture of places on the average face."""
    x, y, z = np.moveaxis(np.asarray(points, float), -1, 0)
    column = (np.arctan2(x, z) / (2 * np.pi) + 0.5) * TEXTURE[1]
    row = (0.5 - np.arctan2(np.maximum(y - 1, -5), np.hypot(x, z)) / np.pi) * TEXTURE[0]
    row = row + np.maximum(-4 - y, 0) * TEXTURE[0] / 31  # a cylinder below the mouth
    return np.stack([column, row], -1)


@lru_cache(1)
def skin_texture() -> np.ndarray:
    """Layers of the skin as int8 (1024, 1536, 8), the same for all persons."""
    rng = np.random.default_rng(20)

    def noise(*scales: tuple[float, float]) -> np.ndarray:
        total = np.zeros(TEXTURE, np.float32)
        for size, share in scales:
            step = max(int(size / 2.5), 1)
            grid = rng.standard_normal((TEXTURE[0] // step + 1, TEXTURE[1] // step + 1))
            grid = gaussian_filter(grid.astype(np.float32), size / step, mode="wrap")
            grid = cv2.resize(grid, TEXTURE[::-1], interpolation=cv2.INTER_CUBIC)
            total += share * grid / grid.std()
        return total

    layers = np.zeros((*TEXTURE, 8), np.float32)
    layers[..., MELANIN] = noise((70, 0.14), (17, 0.09), (3, 0.07)) * 2
    layers[..., BLOOD] = noise((42, 0.25), (9, 0.22), (2.5, 0.15))
    layers[..., SPECKLE] = noise((0.9, 0.4))
    layers[..., SPOTS] = _freckles(rng)
    # Texels per cm at 10 cm from the middle of the head.
    across, up = TEXTURE[1] / (20 * np.pi), TEXTURE[0] / (10 * np.pi)
    for first, relief in ((PORES, noise((1.2, 0.12), (2.6, 0.25), (7, 0.1))), (FOLDS, -_folds())):
        down, left = np.gradient(relief)
        layers[..., first], layers[..., first + 1] = left * across / 8, -down * up / 8
    return np.round(np.clip(layers, -1, 1) * 127).astype(np.int8)


def _freckles(rng: np.random.Generator) -> np.ndarray:
    image = np.zeros(TEXTURE, np.float32)
    for _ in range(2600):
        centre = rng.uniform((0, TEXTURE[0] * 0.2), (TEXTURE[1], TEXTURE[0] * 0.75))
        radius, dark = rng.uniform(0.6, 2.2), rng.uniform(0.25, 1)
        place = tuple(int(v) for v in np.round(centre * 16))
        cv2.circle(image, place, int(radius * 16), dark, -1, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(image, (0, 0), 0.9)


def _folds() -> np.ndarray:
    """Depth of wrinkles, 0 to 1."""
    front = _front()
    tree = cKDTree(front[:, :2])
    image = np.zeros(TEXTURE, np.float32)
    for line in FOLD_LINES:
        ends = np.array(line, float)
        s = np.linspace(0, len(line) - 1, 12)
        xy = np.stack([np.interp(s, range(len(line)), ends[:, k]) for k in (0, 1)], 1)
        for side in (1, -1):
            place = xy * (side, 1)
            depth = front[tree.query(place)[1], 2]
            pixels = texture_place(np.concatenate([place, depth[:, None]], 1))
            one = np.zeros(TEXTURE, np.float32)
            cv2.polylines(
                one, [np.round(pixels * 16).astype(np.int32)], False, 1.0, 3, cv2.LINE_AA, 4
            )
            image = np.maximum(image, one)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 2.2) * 1.6, 0, 1)


@lru_cache(1)
def _front() -> np.ndarray:
    """Skin points of the average face that are seen from the front."""
    head = load_head()
    points = head.rest[head.points(SKIN)]
    return points[points[:, 2] > 3.5]


def hairline(points, receding: float = 0.0) -> np.ndarray:
    """Height in cm above the edge of the hair, from places on the average face.

    ``receding`` (0 to 1) moves the edge at the forehead up.
    """
    angle = np.degrees(np.abs(np.arctan2(points[..., 0], points[..., 2] + 0.5)))
    angles = (0, 12, 25, 35, 45, 55, 63, 70, 78, 86, 100, 112, 125, 140, 180)
    heights = (10.2, 10.1, 9.6, 8.6, 7.2, 6.2, 3.8, 1.5, 1.2, 4.2, 5.4, 4.0, -2.0, -5.0, -6.0)
    edge = np.interp(angle, angles, heights)
    edge = edge + receding * np.interp(angle, (0, 20, 35, 50, 90), (0.5, 1.2, 1.8, 1.0, 0))
    return points[..., 1] - edge


def beard_area(points) -> np.ndarray:
    """Where a beard grows, 0 to 1; the lips are left out by the caller."""
    x, y, z = np.abs(points[..., 0]), points[..., 1], points[..., 2]
    edge = np.interp(x, (0, 2.2, 3.6, 5.5, 6.6, 7.4), (-1.0, -1.5, -3.6, -2.6, 0.2, 2.0))
    area = smooth(0, 0.9, edge - y) * smooth(-10.6, -8.6, y) * smooth(-1.5, 0.5, z)
    area = area * (1 - 0.75 * spot(points, (1.5, -4.7, 10.6), (0.7, 0.5, 2)))
    return area * smooth(7.9, 7.0, x)


@lru_cache(1)
def lip_area() -> np.ndarray:
    """How much of each point of the head is lip, float (n,)."""
    head = load_head()
    corners = head.rest[head.landmarks[48:60], :2]
    dense = np.stack(
        [
            np.interp(
                np.linspace(0, 12, 97)[:-1], range(13), np.append(corners[:, k], corners[0, k])
            )
            for k in (0, 1)
        ],
        1,
    )
    contour = (dense * 1000).astype(np.float32)
    area = np.zeros(len(head.rest))
    for i in np.flatnonzero((head.rest[:, 2] > 9) & (np.abs(head.rest[:, 1] + 3.5) < 3)):
        place = tuple(float(v) * 1000 for v in head.rest[i, :2])
        area[i] = cv2.pointPolygonTest(contour, place, True) / 1000
    return smooth(-0.08, 0.08, area) * (area != 0)


def attributes(
    tone: float,
    *,
    age: float,
    blush: float,
    lips: np.ndarray,
    lip_share: float,
    lip_gloss: float,
    hair: np.ndarray,
    scalp: float,
    receding: float,
    stubble: float,
    freckles: float,
    shadow: float,
    occlusion: np.ndarray,
) -> np.ndarray:
    """Attributes of the head's points, float32 (n, 9), see ``shading.py``.

    Args:
        tone: 0 light to 1 dark skin. age: 0 young to 1 old.
        blush: redness of cheeks, nose and ears. lips: linear RGB. hair: linear RGB.
        scalp: darkness under the hair.
        stubble, freckles, shadow: 0 to 1; ``shadow`` is make-up on the lids.
        occlusion: share of light from around, (n,).
    """
    head = load_head()
    rest, base = head.rest.astype(float), skin_colour(tone)
    table = np.zeros((len(rest), 9))
    table[:, OCCLUSION] = occlusion
    light = 1 - 0.6 * tone
    red = 0.85 * spot(rest, (4.6, -0.6, 8.3), (1.9, 1.7, 2.6))
    red += 0.75 * spot(rest, (0, 0.5, 12.9), (1.3, 1.1, 1.4))
    red += 0.4 * spot(rest, (0, -6.8, 10.5), (1.6, 1.1, 2.5))
    red += 0.8 * smooth(7.5, 8.6, np.abs(rest[:, 0])) * (np.abs(rest[:, 1] - 2) < 5)
    red += 0.35 * spot(rest, (1.2, -0.2, 11.5), (0.7, 0.7, 1.0))
    red += 0.28 * spot(rest, (3.1, 2.4, 9.4), (1.4, 0.5, 2))
    red = red[:, None] * blush * (0.9 * light + 0.1)
    dark = 0.30 * spot(rest, (2.9, 2.55, 9.3), (1.2, 0.42, 2)) * (0.6 + age)
    dark += 0.16 * spot(rest, (3.1, 4.45, 9.5), (1.4, 0.5, 2)) + 0.08 * smooth(9, 13, rest[:, 1])
    colour = base * (1 - red * (0.03, 0.25, 0.20)) * np.exp(-dark[:, None] * (0.5, 0.8, 0.9))
    colour *= 1 - 0.07 * spot(rest, (0, 8, 10), (4, 2, 4))[:, None] * (0, 0.3, 1.0)
    lid = spot(rest, (3.1, 4.35, 9.2), (1.5, 0.42, 2))[:, None] * 0.45 * shadow
    colour *= 1 - lid * (0.38, 0.58, 0.52)
    inner = np.concatenate([BROW, BROW * (-1, 1)])
    distance = np.full(len(rest), 9.0)
    for line in (inner[:5], inner[5:]):
        s = np.linspace(0, 4, 40)
        xy = np.stack([np.interp(s, range(5), line[:, k]) for k in (0, 1)], 1)
        distance = np.minimum(distance, cKDTree(xy).query(rest[:, :2])[0])
    under = 0.36 * np.exp(-((distance / 0.33) ** 2)) * (rest[:, 2] > 6)
    above = scalp * smooth(-0.9, 0.3, hairline(rest, receding))
    for share in (under, above):
        colour += (hair * 0.8 - colour) * share[:, None]
    lip = lip_area()
    colour += (lips - colour) * (lip * lip_share)[:, None]
    table[:, RED:GLOSS] = colour
    gloss = 0.75 + 0.45 * spot(rest, (0, 1, 12.3), (1.2, 3.0, 2))
    gloss += 0.25 * spot(rest, (0, 8, 10.5), (4, 2, 3)) + 0.2 * spot(
        rest, (0, -6.6, 10.8), (1.2, 1, 2)
    )
    gloss -= 0.15 * spot(rest, (4.6, -0.6, 8), (1.6, 1.6, 3))
    table[:, GLOSS] = (gloss * (1 - lip) + 1.15 * lip) * (1 - 0.75 * above)
    rough = 0.5 - 0.06 * spot(rest, (0, 1, 12.3), (1.2, 3.0, 2)) + 0.25 * above
    table[:, ROUGH] = rough * (1 - lip) + lip_gloss * lip
    table[:, STUBBLE] = stubble * 0.62 * beard_area(rest) * (1 - lip)
    table[:, FRECKLES] = (
        freckles
        * np.clip(
            spot(rest, (3.0, 0.8, 9.5), (2.6, 1.7, 4))
            + 0.5 * spot(rest, (0, 1.5, 12), (2.4, 1.5, 2))
            + 0.2,
            0,
            1,
        )
        * (1 - lip)
    )
    table[:, WRINKLES] = 0.6 * max(age - 0.25, 0) * (1 - lip)
    _paint_inside(table, tone, lips)
    return table.astype(np.float32)


def _paint_inside(table: np.ndarray, tone: float, lips: np.ndarray) -> None:
    """Colours of mouth, sockets, tongue, gums and teeth."""
    head = load_head()
    rest, colours = head.rest, slice(RED, RED + 3)
    skin = cKDTree(rest[head.points(SKIN)])
    rng = np.random.default_rng(7)
    only = np.setdiff1d(head.points(MOUTH), head.points(SKIN))
    share = smooth(0.05, 0.75, skin.query(rest[only])[0])[:, None]
    table[only, colours] = lips * (1 - share) + linear((150, 62, 60)) * share
    only = np.setdiff1d(head.points(SOCKET), head.points(SKIN))
    table[only, colours] = skin_colour(tone) * (0.95, 0.62, 0.58)
    for material, colour, spread in ((TONGUE, (196, 98, 98), 0.06), (GUMS, (196, 106, 104), 0.04)):
        points = head.points(material)
        table[points, colours] = linear(colour) * (
            1 + spread * rng.standard_normal((len(points), 1))
        )
    teeth = head.points(TEETH)
    neck = smooth(0.3, 1, 1 - head.height[teeth])[:, None]
    table[teeth, colours] = linear((240, 231, 214)) * (1 - neck * (0.06, 0.12, 0.22))
    inside = head.points(MOUTH, SOCKET, TONGUE, GUMS, TEETH)
    table[np.setdiff1d(inside, head.points(SKIN)), OCCLUSION] = 1
