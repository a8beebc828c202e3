"""The head that all rendered people share: mesh, materials, shapes and landmarks.

The data is MakeHuman's base mesh (CC0), see ``tools/make_head.py``, which made ``head.npz``.
Lengths are in cm: x to the person's left, y up, z forward; the middle of the eyes is at
(0, 3.6, 8.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import scipy.sparse as sp

SKIN, MOUTH, SOCKET, TONGUE, EYE_LEFT, EYE_RIGHT, TEETH, GUMS, CLOTH = range(9)
# The 52 expressions in the order of ``Head.expressions``; left and right are the person's own.
EXPRESSIONS = tuple(
    "browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff "
    "cheekSquintLeft cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight "
    "eyeLookInLeft eyeLookInRight eyeLookOutLeft eyeLookOutRight eyeLookUpLeft eyeLookUpRight "
    "eyeSquintLeft eyeSquintRight eyeWideLeft eyeWideRight jawForward jawLeft jawOpen jawRight "
    "mouthClose mouthDimpleLeft mouthDimpleRight mouthFrownLeft mouthFrownRight mouthFunnel "
    "mouthLeft mouthLowerDownLeft mouthLowerDownRight mouthPressLeft mouthPressRight mouthPucker "
    "mouthRight mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft "
    "mouthSmileRight mouthStretchLeft mouthStretchRight mouthUpperUpLeft mouthUpperUpRight "
    "noseSneerLeft noseSneerRight tongueOut".split()
)


@dataclass(eq=False)
class Head:
    """Mesh after one step of subdivision, and what moves it.

    Attributes:
        rest: average face, float32 (n, 3).
        triangles: int32 (t, 3), counter-clockwise from outside; ``material`` uint8 (t,).
        refine, own: the mesh is ``refine @ points + own`` of the coarse points that the shapes are
            stored for; sparse (n, c) and float32 (n, 3).
        coarse: float32 (c, 3).
        expressions: float32 (52, n, 3), offsets of the mesh in the order of ``EXPRESSIONS``.
        lashes: int (4, 19, 6), points of the mesh.
        landmarks: int (68,), points of the mesh.
        upper_rim, lower_rim: points of the edge between skin and mouth.
        above: bool (n,), skin and mouth points nearer to the upper rim.
        height: float32 (n,) of points on teeth, 0 at the gum to 1 at the edge; elsewhere -1.
        jaw: float32 (n,), how much of the jaw's movement a point of tongue and teeth follows.
    """

    rest: np.ndarray
    triangles: np.ndarray
    material: np.ndarray
    refine: sp.csr_matrix
    own: np.ndarray
    coarse: np.ndarray
    expressions: np.ndarray
    lashes: np.ndarray
    height: np.ndarray
    landmarks: np.ndarray
    upper_rim: np.ndarray
    lower_rim: np.ndarray
    above: np.ndarray
    jaw: np.ndarray

    def points(self, *materials: int) -> np.ndarray:
        """Indices of the points of these materials' triangles."""
        return np.unique(self.triangles[np.isin(self.material, materials)])

    def shaped(self, weights: Mapping[str, float]) -> np.ndarray:
        """The mesh with macro and detail shapes, float32 (n, 3), its eyes at their usual place.

        Raises:
            KeyError: a shape that the file does not have.
        """
        coarse = self.coarse.astype(np.float64)
        for name, weight in weights.items():
            coarse += weight * _shape(name)
        points = self.refine @ coarse + self.own
        eyes = [points[self.points(eye)].mean(0) for eye in (EYE_LEFT, EYE_RIGHT)]
        return (points - np.mean(eyes, 0) + (0, 3.6, 8.4)).astype(np.float32)

    def offsets(self, weights: np.ndarray) -> np.ndarray:
        """Offsets of expression ``weights`` (52,), float32 (n, 3)."""
        used = np.flatnonzero(weights)
        return np.tensordot(weights[used].astype(np.float32), self.expressions[used], 1)


def expression(**weights: float) -> np.ndarray:
    """Weights (52,) by name; ``mouthSmile`` stands for both ``mouthSmileLeft`` and ``...Right``."""
    vector = np.zeros(len(EXPRESSIONS), np.float32)
    for name, weight in weights.items():
        sides = (name,) if name in EXPRESSIONS else (f"{name}Left", f"{name}Right")
        for side in sides:
            vector[EXPRESSIONS.index(side)] += weight
    return vector


@lru_cache(1)
def _file() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).with_name("head.npz")) as file:
        return {name: file[name] for name in file.files}


@lru_cache(1)
def shape_names() -> tuple[str, ...]:
    """Shapes: expressions, ``macro/...``, and details as ``region/name``."""
    return tuple(str(name) for name in _file()["shapes"])


@lru_cache(400)
def _shape(name: str) -> np.ndarray:
    file = _file()
    try:
        i = shape_names().index(name)
    except ValueError:
        raise KeyError(f"head.npz has no shape {name!r}") from None
    base = file["vertices"] / 1000.0
    offsets = base @ file["affine"][i][:3] + file["affine"][i][3]
    part = slice(*file["offset"][i : i + 2])
    offsets[file["index"][part]] += file["values"][part] * float(file["step"][i])
    return offsets


@lru_cache(1)
def load_head() -> Head:
    """The head from ``head.npz``; takes about a second, once per process."""
    file = _file()
    count = len(file["row_lengths"])
    starts = np.concatenate([[0], np.cumsum(file["row_lengths"], dtype=np.int64)])
    share = file["row_shares"] / np.repeat(
        np.add.reduceat(file["row_shares"].astype(np.float64), starts[:-1]), file["row_lengths"]
    )
    columns = file["row_columns"].astype(np.int32)
    coarse = (file["vertices"] / 1000.0).astype(np.float32)
    refine = sp.csr_matrix((share.astype(np.float32), columns, starts), (count, len(coarse)))
    own = np.zeros((count, 3), np.float32)
    own[file["own_rows"]] = file["own"] / 1000.0
    height = np.full(count, -1, np.float32)
    height[file["own_rows"]] = file["height"] / 100.0
    head = Head(
        rest=np.zeros((count, 3), np.float32),
        triangles=np.cumsum(file["triangles"], dtype=np.int32).reshape(3, -1).T.copy(),
        material=file["material"], refine=refine, own=own, coarse=coarse,
        expressions=np.stack([refine @ _shape(n).astype(np.float32) for n in EXPRESSIONS]),
        lashes=file["lashes"].astype(int), landmarks=file["landmarks"].astype(int),
        upper_rim=file["upper_rim"].astype(int), lower_rim=file["lower_rim"].astype(int),
        above=file["above"].astype(bool), height=height, jaw=file["jaw"] / np.float32(255),
    )  # fmt: skip
    head.expressions[:, head.points(EYE_LEFT, EYE_RIGHT)] = 0  # the renderer turns the eyes
    head.rest[:] = head.shaped(macro_weights())
    return head


def macro_weights(
    sex: float = 0.5,
    age: float = 0.5,
    ancestry: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3),
    muscle: float = 0.5,
    weight: float = 0.5,
) -> dict[str, float]:
    """Shapes of MakeHuman's body model.

    Args:
        sex: 0 female to 1 male.
        age: 0.5 (about 25 years) to 1 (about 90).
        ancestry: shares of African, Asian and European faces; their sum is 1.
        muscle, weight: 0 to 1.
    """
    sexes = {"female": 1 - sex, "male": sex}
    ages = {"young": 2 - 2 * age, "old": 2 * age - 1}
    races = dict(zip(("african", "asian", "caucasian"), ancestry, strict=True))

    def parts(x: float, name: str) -> dict[str, float]:
        low, high = max(0.0, 1 - 2 * x), max(0.0, 2 * x - 1)
        return {f"min{name}": low, f"average{name}": 1 - low - high, f"max{name}": high}

    found = {}
    for (s, a), (g, b) in product(sexes.items(), ages.items()):
        found |= {f"macro/{race}-{s}-{g}": a * b * share for race, share in races.items()}
        for (m, c), (w, d) in product(
            parts(muscle, "muscle").items(), parts(weight, "weight").items()
        ):
            found[f"macro/universal-{s}-{g}-{m}-{w}"] = a * b * c * d
    return {name: share for name, share in found.items() if share}


def point_normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Unit normals (n, 3) of a mesh, weighted by area."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    normal = np.zeros_like(points)
    for k in range(3):
        np.add.at(normal, triangles[:, k], face)
    return normal / (np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12)
