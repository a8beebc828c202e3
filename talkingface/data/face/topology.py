"""Index tables of MediaPipe's 478-point face mesh. Tests compare them with the installed package.

"Left" and "right" refer to the picture unless noted otherwise. MediaPipe's ``LEFT_EYE`` is the
person's left eye and therefore ``EYE_RIGHT`` here.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

import numpy as np

N_POINTS = 478
N_MESH = 468  # the rest are ten iris points

# Lip contours in drawing order, from one mouth corner around to the other and back.
LIPS_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40,
              185)  # fmt: skip
LIPS_INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80,
              191)  # fmt: skip
LIPS = LIPS_OUTER + LIPS_INNER
MOUTH_CORNERS = (61, 291)
INNER_LIP_TOP, INNER_LIP_BOTTOM = 13, 14
# Ring of vertices around the lips, in drawing order: the lip mask of HyperLips' stage 2.
MOUTH_RING = (164, 167, 165, 92, 186, 57, 43, 106, 182, 83, 18, 313, 406, 335, 273, 287, 410, 322,
              391, 393)  # fmt: skip

# Eye contours, from the outer corner along the lower lid to the inner corner and back.
EYE_LEFT = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
EYE_RIGHT = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
EYE_CORNERS_LEFT = (33, 133)
EYE_CORNERS_RIGHT = (362, 263)
# Two lines per brow, outer to inner: lower edge, upper edge.
BROW_LEFT = ((46, 53, 52, 65, 55), (70, 63, 105, 66, 107))
BROW_RIGHT = ((276, 283, 282, 295, 285), (300, 293, 334, 296, 336))
IRIS_LEFT = (469, 470, 471, 472)  # ring; the centre is PUPILS[0]
IRIS_RIGHT = (474, 475, 476, 477)
PUPILS = (468, 473)

FACE_OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400,
             377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67,
             109)  # fmt: skip
FOREHEAD, CHIN, NOSE_TIP = 10, 152, 1

# Points that hardly move when a person speaks: eye corners, nose bridge and nose side.
RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 98, 327)
# The larger rigid set of the lifting solver: also forehead and temples.
STABLE = (6, 168, 197, 195, 5, 4, 33, 133, 362, 263, 9, 8, 151, 10, 67, 297, 109, 338, 103, 332, 54,
          284, 129, 358, 98, 327, 2, 127, 356, 234, 454, 193, 417, 122, 351, 196, 419)  # fmt: skip

# The 73 points of Live Speech Portraits, in their order; the vertices are this toolkit's choice.
LSP73 = (127, 93, 58, 172, 136, 150, 176, 152, 400, 379, 365, 397, 288, 323, 356,  # contour
         300, 334, 296, 285, 295, 283, 70, 105, 66, 55, 65, 53,  # brows
         33, 159, 133, 145, 263, 386, 362, 374,  # eyes
         193, 198, 129, 98, 2, 327, 358, 420, 417, 79, 309,  # nose
         61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91,  # outer lips
         178, 14, 402, 311, 13, 81, 1,  # inner lips, nose tip
         161, 163, 154, 157, 384, 381, 390, 388)  # fmt: skip
# The 68 points of iBUG 300-W and dlib, in their order: jaw, brows, nose, eyes, outer, inner lips.
IBUG68 = (127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356,
          70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 197, 5, 4, 98, 97, 2, 326, 327,
          33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
          61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91,
          78, 81, 13, 311, 308, 402, 14, 178)  # fmt: skip

# Point groups of MODA (official code): the parts in this order, indices ascending within a part.
MODA_MOUTH = tuple(sorted(LIPS))
MODA_EYES = (
    *IRIS_RIGHT, *sorted(EYE_RIGHT), *sorted(BROW_RIGHT[0] + BROW_RIGHT[1]),
    *IRIS_LEFT, *sorted(EYE_LEFT), *sorted(BROW_LEFT[0] + BROW_LEFT[1]),
)  # fmt: skip


def chain(points: tuple[int, ...], *, closed: bool = False) -> list[tuple[int, int]]:
    """Edges between consecutive points."""
    ends = points[1:] + points[:1] if closed else points[1:]
    return list(zip(points, ends, strict=False))


_NOSE = ((168, 6, 197, 195, 5, 4), (4, 45, 220, 115, 48), (4, 275, 440, 344, 278))
_JAW = FACE_OVAL[FACE_OVAL.index(389) : FACE_OVAL.index(162) + 1]
# HyperLips' landmark sketch, 125 edges: lips, eyes, brows, nose, oval without its top.
SKETCH_EDGES = (
    *chain(LIPS_OUTER, closed=True),
    *chain(LIPS_INNER, closed=True),
    *chain(EYE_LEFT, closed=True),
    *chain(EYE_RIGHT, closed=True),
    *(edge for brow in (*BROW_LEFT, *BROW_RIGHT, *_NOSE, _JAW) for edge in chain(brow)),
)


@lru_cache
def triangles(*, close_eyes: bool = True) -> np.ndarray:
    """Triangles of the mesh, (880,3) int64, or (852,3) with the eyes left open.

    A triangle that faces the camera has a positive area in pixels (y down). No triangles cover the
    gap between the lips. Source: MediaPipe's tesselation edges, which determine the triangles
    uniquely.
    """
    table = _table("triangles.csv").astype(np.int64)
    table.flags.writeable = False
    return table if close_eyes else table[:852]


@lru_cache
def mesh_edges() -> list[tuple[int, int]]:
    """Edges of MediaPipe's tesselation, each once: the borders of its triangles (mouth open)."""
    corners = triangles(close_eyes=False)
    pairs = np.sort(np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]]))
    return [tuple(edge) for edge in np.unique(pairs, axis=0).tolist()]


@lru_cache
def pose_template() -> tuple[np.ndarray, np.ndarray]:
    """Vertex indices (72,) and positions (72,3) of the rigid template of head pose (official code).

    Axes: x to the picture's right, y down, z toward the viewer; centred, root-mean-square radius 1.
    """
    table = _table("pose_template.csv")
    points = table[:, 1:]
    points.flags.writeable = False
    return table[:, 0].astype(np.int64), points


def _table(name: str) -> np.ndarray:
    file = resources.files("talkingface.data.face") / "tables" / name
    return np.loadtxt(file.read_text("utf-8").splitlines(), delimiter=",")
