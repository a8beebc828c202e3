"""Putting a mouth into a frame: the face is bent to the wanted shape, the lips are replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from talkingface.data.face.align import crop_rows
from talkingface.data.face.blend import match_light, mix, seamless, soft_polygon
from talkingface.data.face.topology import FACE_OVAL, LIPS_OUTER, STABLE
from talkingface.data.face.warp import warped

Blending = Literal["feather", "gradient"]
Box = tuple[int, int, int, int]

# How far the points of the jaw follow the chin; all numbers here: chosen by eye, not measured.
_JAW = (152, 148, 377, 176, 400, 149, 378, 150, 379)  # from the chin outwards
_JAW_SHARE = np.array([1, 1, 1, 0.9, 0.9, 0.75, 0.75, 0.55, 0.55])[:, None]
JAW_ROWS = crop_rows(_JAW)
_OUTER_ROWS = crop_rows(LIPS_OUTER)
_OVAL_ROWS = crop_rows(FACE_OVAL)
_FIXED_ROWS = crop_rows(sorted({*STABLE, *FACE_OVAL} - {*_JAW}))
_EYE_ROWS = crop_rows((33, 263))
(_TIP_ROW,) = crop_rows((4,))  # tip of the nose
_OUTER = len(LIPS_OUTER)

# Shares of the distance of the outer eye corners.
_REACH, _BORDER = 0.03, 0.10  # of the replaced area around the lips, and of its soft border
_RING = (0.02, 0.12)  # skin around the lips whose colours are compared
_EDGE = 0.08  # soft edge of the bent area
_AROUND = 1.35  # size of the ring of fixed points around the face, relative to the face


def lowered_jaw(points: np.ndarray, drop: np.ndarray) -> np.ndarray:
    """(9,2) px, the points ``JAW_ROWS`` when the chin has moved by ``drop`` (2,) px."""
    return points[JAW_ROWS] + _JAW_SHARE * drop


def place_mouth(
    frame: np.ndarray,
    points: np.ndarray,
    lips: np.ndarray,
    drop: np.ndarray,
    pixels: Callable[[Box], np.ndarray],
    blending: Blending = "feather",
) -> np.ndarray:
    """A frame whose mouth has another shape and other pixels.

    Lips and chin of the frame are moved to the wanted shape by a spline; the skin is that of the
    frame. Then the lips and what is between them are replaced, with the light of the frame.

    Args:
        frame: (H,W,3) uint8 RGB.
        points: (K,2) ``CROP_POINTS`` in px of the frame.
        lips: (40,2) wanted positions of ``LIPS`` in px of the frame.
        drop: (2,) wanted movement of the chin in px.
        pixels: called with a box, returns what the new mouth shows there, (h,w,3) uint8 RGB.

    Returns:
        (H,W,3) uint8 RGB; pixels outside the face are those of ``frame``.
    """
    unit = float(np.linalg.norm(np.diff(points[_EYE_ROWS], axis=0)))
    jaw = lowered_jaw(points, drop)
    centre = points[_OVAL_ROWS].mean(0)
    around = centre + (points[_OVAL_ROWS] - centre) * _AROUND
    height, width = frame.shape[:2]
    x0, y0 = points.min(0) - 0.25 * unit
    x1, y1 = points.max(0) + 0.40 * unit
    box = _inside((x0, points[_TIP_ROW, 1] - 0.2 * unit, x1, y1), (0, 0, width, height))
    fixed = np.concatenate([points[_FIXED_ROWS], around])
    face = warped(
        frame,
        np.concatenate([lips[:_OUTER], jaw, fixed]),
        np.concatenate([points[_OUTER_ROWS], points[JAW_ROWS], fixed]),
        box,
    )
    low, high = lips.min(0) - 0.25 * unit, lips.max(0) + 0.25 * unit
    mouth = _inside((*low, *high), box)
    inner = pixels(mouth)
    x0, y0, x1, y1 = box
    left, top, right, bottom = mouth
    skin = face[top - y0 : bottom - y0, left - x0 : right - x0]
    outline = lips[:_OUTER]
    near, far = (soft_polygon(outline, mouth, share * unit, 1.0) > 0.5 for share in _RING)
    inner = match_light(inner, skin, far & ~near)
    weights = soft_polygon(outline, mouth, _REACH * unit, _BORDER * unit)
    if blending == "gradient":
        joined = seamless(skin, inner, weights)
    else:
        joined = mix(skin, inner, weights)
    face[top - y0 : bottom - y0, left - x0 : right - x0] = joined
    result = frame.copy()
    edges = _soft_edges(face.shape[:2], _EDGE * unit)
    result[y0:y1, x0:x1] = mix(frame[y0:y1, x0:x1], face, edges)
    return result


def _inside(box: tuple[float, ...], limits: Box) -> Box:
    """A box in whole pixels within another one, at least two pixels wide and high."""
    left, right = _span(box[0], box[2], limits[0], limits[2])
    top, bottom = _span(box[1], box[3], limits[1], limits[3])
    return left, top, right, bottom


def _span(start: float, stop: float, low: int, high: int) -> tuple[int, int]:
    first = int(np.clip(start, low, high - 2))
    return first, int(np.clip(np.ceil(stop), first + 2, high))


def _soft_edges(size: tuple[int, int], width: float) -> np.ndarray:
    """(h,w) weights that fall to 0 at the edges."""
    ramps = []
    for length in size:
        distance = np.minimum(np.arange(length), np.arange(length)[::-1])
        ramps.append(np.clip(distance / max(width, 1.0), 0, 1))
    return np.outer(*ramps).astype(np.float32)
