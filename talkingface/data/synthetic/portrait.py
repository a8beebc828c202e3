"""The photograph that is animated, with its face mesh and the triangles that carry the warp.

The photograph is scikit-image's ``astronaut`` (NASA, public domain, part of the wheel); MediaPipe
detects the mesh. Nothing is downloaded. Coordinates are pixels of the output frame: x right, y
down, z away from the camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from talkingface.data.face.mesh import FaceMesher
from talkingface.data.face.topology import triangles as mesh_triangles
from talkingface.errors import EnvironmentProblem
from talkingface.utils.env import import_cv2, require

N_FACE = 468
TOP, CHIN = 10, 152
FACE_SHARE = 0.55  # face height (mesh points 10 to 152) over the frame's height
CENTRE = (0.50, 0.545)  # where the middle of the face lies in the frame

# Lip rings of the mesh from the outer to the inner contour; 11 columns from image left to right.
LIPS_UPPER = np.array(
    [
        [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291],
        [76, 184, 74, 73, 72, 11, 302, 303, 304, 408, 306],
        [62, 183, 42, 41, 38, 12, 268, 271, 272, 407, 292],
        [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308],
    ]
)
LIPS_LOWER = np.array(
    [
        [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291],
        [76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306],
        [62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292],
        [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308],
    ]
)
INNER_LIPS = np.concatenate([LIPS_UPPER[3], LIPS_LOWER[3][-2:0:-1]])  # closed contour
# Each eye: lash line of the upper lid, crease above it, lash line of the lower lid.
EYES = (
    {
        "upper": [33, 246, 161, 160, 159, 158, 157, 173, 133],
        "crease": [130, 247, 30, 29, 27, 28, 56, 190, 243],
        "lower": [33, 7, 163, 144, 145, 153, 154, 155, 133],
    },
    {
        "upper": [362, 398, 384, 385, 386, 387, 388, 466, 263],
        "crease": [463, 414, 286, 258, 257, 259, 260, 467, 359],
        "lower": [362, 382, 381, 380, 374, 373, 390, 249, 263],
    },
)
BROWS = [70, 63, 105, 66, 107, 46, 53, 52, 65, 55, 300, 293, 334, 296, 336, 276, 283, 282, 295, 285]
_RINGS = (1.14, 1.36, 1.62, 2.0)  # rings of control points around the face oval
_RING_RIGID = (1.0, 0.92, 0.75, 0.35)  # how far each ring follows the head
_RING_JAW = (0.45, 0.1, 0.0, 0.0)  # how far each ring follows the jaw


@dataclass(frozen=True)
class Portrait:
    """The photograph at frame scale.

    Attributes:
        texture: uint8 RGB, the photograph at frame scale plus ``margin`` pixels on each side; the
            teeth are inpainted with the colour of the lips.
        smile: the same with the teeth.
        margin: pixels; texture coordinate = frame coordinate + margin.
        size: side of the frame in pixels.
        points: (V, 3) float64 control points: 468 of the face, then rings around it, the border
            and copies of the lash lines that carry the eyeballs.
        uv: (V, 2) where each point samples the texture.
        triangles: (N, 3) in painter's order: surroundings, eyeballs, face from back to front.
        rigid: (V,) 0..1, how far a point follows the head.
        jaw: (V,) 0..1, weight of the jaw's drop.
        face_height: pixels between mesh points 10 and 152.
        photo_map: (2, 3) affine from photo pixels to texture pixels.
    """

    texture: np.ndarray
    smile: np.ndarray
    margin: int
    size: int
    points: np.ndarray
    uv: np.ndarray
    triangles: np.ndarray
    rigid: np.ndarray
    jaw: np.ndarray
    face_height: float
    photo_map: np.ndarray

    def from_photo(self, xy: np.ndarray) -> np.ndarray:
        """Texture pixels (K, 2) of photo pixels (K, 2)."""
        return xy @ self.photo_map[:, :2].T + self.photo_map[:, 2]


@lru_cache(maxsize=1)
def _photo_and_mesh() -> tuple[np.ndarray, np.ndarray]:
    """The photograph and its mesh (468, 3) in photo pixels."""
    cv2 = import_cv2()
    photo = require("skimage.data", why="The Synthetic dataset").astronaut()
    x0, y0, side, up = 80, 0, 300, 1024  # a square around the head, enlarged for a precise mesh
    crop = cv2.resize(
        photo[y0 : y0 + side, x0 : x0 + side], (up, up), interpolation=cv2.INTER_LANCZOS4
    )
    with FaceMesher(tracking=False) as mesher:
        meshes = mesher(crop)
    if not len(meshes):
        raise EnvironmentProblem(
            "MediaPipe detects no face in scikit-image's astronaut portrait: wrong versions are "
            "installed. Install them with: pip install -r requirements.txt"
        )
    mesh = meshes[0, :N_FACE].astype(np.float64) * (side / up)
    mesh[:, :2] += (x0, y0)
    return photo, mesh


def _surroundings(
    oval: np.ndarray, centre: np.ndarray, size: int, height: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Control points around the face, so that hair, neck and background follow without tearing.

    Returns:
        Points (K, 3), how far they follow the head (K,), how far they follow the jaw (K,).
    """
    points, rigid, jaw = [], [], []
    depth = float(oval[:, 2].mean())
    for ring, follow, drop in zip(_RINGS, _RING_RIGID, _RING_JAW, strict=True):
        around = centre + (oval[::2, :2] - centre) * ring
        low = np.clip((around[:, 1] - centre[1]) / (0.75 * height), 0.0, 1.0)  # neck, shoulders
        points.append(np.column_stack([around, np.full(len(around), depth)]))
        rigid.append(follow * (1.0 - 0.75 * low * min(1.0, (ring - 1.0) / 0.4)))
        jaw.append(drop * low)
    xyz, rigid, jaw = np.concatenate(points), np.concatenate(rigid), np.concatenate(jaw)
    inside = ((xyz[:, :2] > -0.05 * size) & (xyz[:, :2] < 1.05 * size)).all(1)
    border = np.linspace(-0.1, 1.1, 7) * size
    edge = [(a, b, depth) for a in border for b in (border[0], border[-1])]
    edge += [(b, a, depth) for a in border[1:-1] for b in (border[0], border[-1])]
    still = np.zeros(len(edge))
    return (
        np.concatenate([xyz[inside], np.array(edge)]),
        np.concatenate([rigid[inside], still]),
        np.concatenate([jaw[inside], still]),
    )


@lru_cache(maxsize=2)
def load_portrait(size: int) -> Portrait:
    """The portrait for frames of ``size`` x ``size`` pixels; cached per process."""
    cv2 = import_cv2()
    spatial = require("scipy.spatial", why="The Synthetic dataset")
    photo, mesh = _photo_and_mesh()
    scale = FACE_SHARE * size / np.linalg.norm(mesh[TOP, :2] - mesh[CHIN, :2])
    offset = np.array(CENTRE) * size - scale * (mesh[TOP, :2] + mesh[CHIN, :2]) / 2
    face = mesh * scale
    face[:, :2] += offset
    margin = round(0.13 * size)
    to_frame = np.array([[scale, 0, offset[0] + margin], [0, scale, offset[1] + margin]])
    texture = cv2.warpAffine(
        photo,
        to_frame,
        (size + 2 * margin,) * 2,
        flags=cv2.INTER_LANCZOS4,
        borderMode=cv2.BORDER_REFLECT,
    )
    soft = cv2.GaussianBlur(texture, (0, 0), 0.9 * scale)
    texture = cv2.addWeighted(texture, 1.5, soft, -0.5, 0)  # sharpen the enlarged photo

    face_tri = mesh_triangles()
    face_tri = face_tri[np.argsort(-face[face_tri][:, :, 2].mean(1), kind="stable")]
    height = float(np.linalg.norm(face[TOP, :2] - face[CHIN, :2]))
    centre = (face[TOP, :2] + face[CHIN, :2]) / 2
    oval_ids = _outline(face_tri)
    around, rigid_out, jaw_out = _surroundings(face[oval_ids], centre, size, height)
    outer_ids = np.concatenate([oval_ids, np.arange(N_FACE, N_FACE + len(around))])
    points = np.concatenate([face, around])
    outer = outer_ids[spatial.Delaunay(points[outer_ids, :2]).simplices]
    outline = face[oval_ids, :2].astype(np.float32)
    middle = points[outer][:, :, :2].mean(1)
    out = [cv2.pointPolygonTest(outline, (float(x), float(y)), False) < 0 for x, y in middle]

    balls, ball_tri = [], []
    for eye in EYES:
        start = len(points) + len(balls)
        n = len(eye["upper"])
        balls += eye["upper"] + eye["lower"]
        for i in range(n - 1):
            a, b = start + i, start + n + i
            ball_tri += [(a, a + 1, b), (b, a + 1, b + 1)]
    points = np.concatenate([points, face[balls]])

    mouth_y = (face[13, 1] + face[14, 1]) / 2
    jaw = np.zeros(len(points))
    down = np.clip((face[:, 1] - mouth_y + 0.04 * height) / (0.22 * height), 0, 1)
    aside = np.clip(1.25 - np.abs(face[:, 0] - face[13, 0]) / (0.42 * height), 0, 1)
    jaw[:N_FACE] = down * down * (3 - 2 * down) * aside
    jaw[N_FACE : N_FACE + len(around)] = jaw_out
    rigid = np.ones(len(points))
    rigid[N_FACE : N_FACE + len(around)] = rigid_out
    uv = points[:, :2] + margin
    skin = _without_teeth(texture, uv, height)
    triangles = np.concatenate([outer[np.array(out)], np.array(ball_tri), face_tri])
    return Portrait(
        skin, texture, margin, size, points, uv, triangles, rigid, jaw, height, to_frame
    )


def _without_teeth(texture: np.ndarray, uv: np.ndarray, height: float) -> np.ndarray:
    """Inpaint the open mouth with the lips' colour, so that no tooth moves with a lip."""
    cv2 = import_cv2()
    hole = np.zeros(texture.shape[:2], np.uint8)
    cv2.fillPoly(hole, [np.round(uv[INNER_LIPS]).astype(np.int32)], 255)
    reach = max(1, round(0.011 * height))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (4 * reach + 1, 2 * reach + 1))
    return cv2.inpaint(texture, cv2.dilate(hole, kernel), 2 * reach, cv2.INPAINT_TELEA)


def _outline(triangles: np.ndarray) -> np.ndarray:
    """Mesh points of the outer contour in order: the edges that belong to one triangle only."""
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [0, 2]]].reshape(-1, 2), axis=1)
    edges, count = np.unique(edges, axis=0, return_counts=True)
    near: dict[int, list[int]] = {}
    for a, b in edges[count == 1].tolist():
        near.setdefault(a, []).append(b)
        near.setdefault(b, []).append(a)
    chain, last = [TOP], -1
    while len(chain) == 1 or chain[-1] != TOP:
        ahead = min(v for v in near[chain[-1]] if v != last)
        last = chain[-1]
        chain.append(ahead)
    return np.array(chain[:-1])
