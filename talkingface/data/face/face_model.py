"""Linear face model learnt from the training clips: topology of MediaPipe, no licence (ours).

Coordinates of the model: x right, y down, z away from the viewer; a frontal face has rotation I;
root-mean-square radius 1. Pixels have the same axes, z in the scale of x.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.face.pose import procrustes
from talkingface.data.face.raster import pncc_colors, rasterize
from talkingface.data.face.topology import (
    CHIN,
    EYE_CORNERS_LEFT,
    EYE_CORNERS_RIGHT,
    FACE_OVAL,
    FOREHEAD,
    LIPS,
    N_MESH,
    triangles,
)
from talkingface.data.npz import read_npz, save_npz
from talkingface.errors import DataError

TOPOLOGY = "mediapipe468"
VERSION = 1
FEW_PEOPLE = 50  # below, an identity basis describes only the people it was made from
_ROUNDS = 6  # of the generalised Procrustes analysis
_FITS = 3  # rounds of pose and coefficients
_RIDGE = 1e-3
_BOUND = 3.0  # standard deviations that a coefficient may reach
_SOFT = 0.1  # weight of what speech moves, in the pose
_MOST_FRAMES = 20_000  # that a model is learnt from


@dataclass(frozen=True)
class Geometry:
    """Face and camera of T frames: vertex i lies at ``s R x_i + t``.

    Attributes:
        scale: (T,) pixels per unit of the model.
        rotation: (T,3,3).
        shift: (T,3) pixels.
        expression: (T,n_exp) coefficients.
        neutral: (V,3) the person without expression.
        rmse: (T,) distance of the fitted from the given points, pixels in the picture.
    """

    scale: np.ndarray
    rotation: np.ndarray
    shift: np.ndarray
    expression: np.ndarray
    neutral: np.ndarray
    rmse: np.ndarray

    def __len__(self) -> int:
        return len(self.scale)

    def part(self, frames: Any) -> Geometry:
        """Some of the frames."""
        own = (self.scale, self.rotation, self.shift, self.expression)
        return Geometry(*(value[frames] for value in own), self.neutral, self.rmse[frames])


@dataclass(frozen=True)
class FaceModel:
    """Mean, identity and expression bases of a mesh.

    Attributes:
        mean: (V,3).
        id_basis, exp_basis: (3V,n) orthonormal columns, vertices one after the other.
        id_std, exp_std: (n,) standard deviations of the coefficients.
        faces: (F,3) triangles whose area is positive when they face the viewer.
        pncc: (V,3) colours in [0,1].
        vertices: (K,) numbers of MediaPipe's points with which it is fitted.
        corresponding: (K,) the model's vertices that these points are.
        topology, sources: what it is and how many people and clips it was learnt from.
    """

    mean: np.ndarray
    id_basis: np.ndarray
    id_std: np.ndarray
    exp_basis: np.ndarray
    exp_std: np.ndarray
    faces: np.ndarray
    pncc: np.ndarray
    vertices: np.ndarray
    corresponding: np.ndarray
    topology: str = TOPOLOGY
    sources: str = ""

    @property
    def n_exp(self) -> int:
        return self.exp_basis.shape[1]

    @property
    def n_id(self) -> int:
        return self.id_basis.shape[1]

    @cached_property
    def id(self) -> str:
        """Hash of everything that pictures depend on."""
        digest = hashlib.sha256(str(VERSION).encode())
        for name in (f.name for f in fields(self) if f.name not in ("topology", "sources")):
            digest.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return digest.hexdigest()[:16]

    # -- files -------------------------------------------------------------------------------------

    def content(self) -> dict[str, Any]:
        """All fields, for a file or a checkpoint."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of_content(cls, content: Mapping[str, Any]) -> FaceModel:
        names = {field.name for field in fields(cls)}
        values = {name: np.asarray(value) for name, value in content.items() if name in names}
        integers = {"faces": np.int32, "vertices": np.int64, "corresponding": np.int64}
        for name, value in values.items():
            if value.dtype.kind in "fiu":  # also of JSON, which knows no sizes
                values[name] = value.astype(integers.get(name, np.float32))
        for name in ("topology", "sources"):
            values[name] = str(values[name])
        return cls(**values)

    def save(self, path: Path, **facts: Any) -> None:
        """Write ``face_model.npz``."""
        save_npz(path, {"version": VERSION, **self.content(), **facts})

    @classmethod
    def read(cls, path: Path) -> FaceModel:
        """Raises DataError: missing, damaged or of another version."""
        content = read_npz(path)
        if int(content.get("version", 0)) != VERSION:
            raise DataError(f"{path} is of another version; run the stage preprocess again.")
        try:
            return cls.of_content(content)
        except (TypeError, KeyError) as error:
            raise DataError(f"{path} is no face model: {error}") from error

    # -- geometry ----------------------------------------------------------------------------------

    def shape(self, neutral: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """(V,3) and (T,n_exp) -> (T,V,3) in the model's space."""
        offsets = expression @ self.exp_basis.T
        return neutral + offsets.reshape(len(expression), *self.mean.shape)

    def lips(self, expression: np.ndarray) -> np.ndarray:
        """(T,n_exp) -> (T,40,3) movement of the lip points from the rest (MediaPipe topology)."""
        basis = self.exp_basis.reshape(-1, 3, self.n_exp)[list(LIPS)]
        return np.einsum("tc,vdc->tvd", expression, basis).astype(np.float32)

    def placed(self, geometry: Geometry) -> np.ndarray:
        """(T,V,3) vertices in pixels."""
        shapes = self.shape(geometry.neutral, geometry.expression)
        turned = shapes @ np.swapaxes(geometry.rotation, 1, 2)
        return geometry.scale[:, None, None] * turned + geometry.shift[:, None]

    def render(
        self, vertices: np.ndarray, size: int, window: float, *, flat: bool = False,
        cull: bool = True
    ) -> np.ndarray:  # fmt: skip
        """PNCC picture (size,size,3) uint8 of (V,3) vertices in pixels of a square ``window``."""
        scaled = vertices * (size / window)
        picture = rasterize(scaled, self.pncc, size, size, faces=self.faces, flat=flat, cull=cull)
        return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)

    @cached_property
    def _weights(self) -> np.ndarray:
        """(K,) weights of the points in the pose: speech must not turn the head."""
        weights = np.ones(len(self.vertices))
        weights[np.isin(self.vertices, _moving())] = _SOFT
        return weights

    @cached_property
    def _sampled(self) -> dict[str, np.ndarray]:
        """Mean and bases at the fitted vertices."""
        rows = (3 * self.corresponding[:, None] + np.arange(3)).reshape(-1)
        return {
            "mean": self.mean[self.corresponding],
            "id": self.id_basis[rows],
            "exp": self.exp_basis[rows],
        }

    def _solved(
        self, points: np.ndarray, base: np.ndarray, basis: np.ndarray, std: np.ndarray
    ) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
        """Pose (s, R, t), coefficients (T,n) and points in the model's space (T,K,3)."""
        inverse = np.linalg.solve(
            basis.T @ basis + _RIDGE * np.diag(1 / np.maximum(std, 1e-9) ** 2), basis.T
        )
        shape = np.broadcast_to(base, points.shape)
        for _ in range(_FITS):
            pose = procrustes(shape, points, self._weights)
            aligned = _pulled_back(points, *pose)
            found = (aligned - base).reshape(len(points), -1) @ inverse.T
            found = np.clip(found, -_BOUND * std, _BOUND * std)
            shape = base + (found @ basis.T).reshape(points.shape)
        pose = procrustes(shape, points, self._weights)
        return pose, found, _pulled_back(points, *pose)

    def neutral_of(self, landmarks: np.ndarray, mode: str = "residual") -> np.ndarray:
        """The person without expression, from all frames of a clip or one picture (ours).

        Args:
            landmarks: (T,>=468,3) MediaPipe points in pixels, finite.
            mode: ``residual``: mean of what expressions leave over, for every vertex; ``pca``: the
                identity basis, as in the paper (always for models of other topologies).

        Returns:
            (V,3).
        """
        points = _points(landmarks, self.vertices)
        own = self._sampled
        basis = np.concatenate([own["id"], own["exp"]], axis=1)
        std = np.concatenate([self.id_std, self.exp_std])
        _, found, aligned = self._solved(points, own["mean"], basis, std)
        if mode == "residual" and self.topology == TOPOLOGY:
            expression = found[:, self.n_id :] @ own["exp"].T
            return (aligned - expression.reshape(points.shape)).mean(axis=0)
        identity = found[:, : self.n_id].mean(axis=0)
        return self.mean + (self.id_basis @ identity).reshape(-1, 3)

    def fit(self, landmarks: np.ndarray, neutral: np.ndarray) -> Geometry:
        """Cameras and expressions of a person whose neutral face is known (ours).

        Args:
            landmarks: (T,>=468,3) MediaPipe points in pixels, finite.
            neutral: (V,3) of :meth:`neutral_of`.
        """
        points = _points(landmarks, self.vertices)
        base = neutral[self.corresponding]
        (scale, rotation, shift), found, _ = self._solved(
            points, base, self._sampled["exp"], self.exp_std
        )
        shape = base + (found @ self._sampled["exp"].T).reshape(points.shape)
        made = scale[:, None, None] * (shape @ np.swapaxes(rotation, 1, 2)) + shift[:, None]
        off = np.square(made[..., :2] - points[..., :2]).sum(axis=-1)
        return Geometry(scale, rotation, shift, found, neutral, np.sqrt(off.mean(axis=1)))


def _points(landmarks: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    points = np.asarray(landmarks, np.float64)[:, vertices]
    if not np.isfinite(points).all():
        raise DataError("a face model can be fitted to known points only")
    return points


def _pulled_back(
    points: np.ndarray, scale: np.ndarray, rotation: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    return (points - shift[:, None]) @ rotation / scale[:, None, None]


def _moving() -> list[int]:
    """Vertices that speech moves: lips and jaw."""
    jaw = FACE_OVAL[FACE_OVAL.index(397) : FACE_OVAL.index(172) + 1]
    return sorted({*LIPS, *jaw})


def learn_face_model(
    clips: Mapping[str, np.ndarray],
    people: Mapping[str, str],
    *,
    n_id: int | None = None,
    n_exp: int = 28,
    frames_per_clip: int = 100,
    close_eyes: bool = True,
    close_mouth: bool = False,
) -> FaceModel:
    """Learn mean, identities and expressions from tracked faces (ours).

    Args:
        clips: clip -> (T,>=468,3) points in pixels, finite.
        people: clip -> whom it shows.
        n_id: identity components; None: one less than people, at most 80.
        n_exp: expression components, as far as the frames allow.
        frames_per_clip: each clip gives at most so many, evenly spread.

    Raises:
        DataError: no frames.
    """
    most = min(frames_per_clip, max(1, _MOST_FRAMES // max(len(clips), 1)))
    chosen = {name: _spread(points[:, :N_MESH], most) for name, points in sorted(clips.items())}
    chosen = {name: points for name, points in chosen.items() if len(points)}
    if not chosen:
        raise DataError("no training clip has a face from which a face model could be learnt")
    points = np.concatenate(list(chosen.values())).astype(np.float64)
    owner = np.concatenate([[people[name]] * len(part) for name, part in chosen.items()])
    weights = np.ones(N_MESH)
    weights[_moving()] = _SOFT
    mean = _unit(points[0])
    for _ in range(_ROUNDS):
        aligned = _pulled_back(
            points, *procrustes(np.broadcast_to(mean, points.shape), points, weights)
        )
        mean = _unit(np.mean([aligned[owner == one].mean(axis=0) for one in set(owner)], axis=0))
    upright = _frontal(mean)
    mean, aligned = mean @ upright.T, aligned @ upright.T
    names = sorted(set(owner))
    own = {one: _neutral_mean(aligned[owner == one]) for one in names}
    id_basis, id_std = _pca(
        np.array([own[one] - mean for one in names]),
        min(80 if n_id is None else n_id, len(names) - 1),
    )
    moved = np.concatenate([aligned[owner == one] - own[one] for one in names])
    exp_basis, exp_std = _pca(moved, min(n_exp, max(1, len(points) - len(names))))
    faces = triangles(close_eyes=close_eyes)
    if close_mouth:
        faces = np.concatenate([faces, _mouth_faces(mean)])
    every = np.arange(N_MESH)
    return FaceModel(
        mean=mean.astype(np.float32),
        id_basis=id_basis.astype(np.float32),
        id_std=id_std.astype(np.float32),
        exp_basis=exp_basis.astype(np.float32),
        exp_std=exp_std.astype(np.float32),
        faces=faces.astype(np.int32),
        pncc=pncc_colors(mean).astype(np.float32),
        vertices=every.astype(np.int64),
        corresponding=every.astype(np.int64),
        sources=f"{len(names)} people, {len(chosen)} clips, {len(points)} frames",
    )


def _spread(points: np.ndarray, most: int) -> np.ndarray:
    if len(points) <= most:
        return points
    return points[np.linspace(0, len(points) - 1, most).astype(int)]


def _unit(mesh: np.ndarray) -> np.ndarray:
    """Centred, root-mean-square radius 1."""
    mesh = mesh - mesh.mean(axis=0)
    return mesh / np.sqrt(np.square(mesh).sum(axis=1).mean())


def _frontal(mean: np.ndarray) -> np.ndarray:
    """(3,3) rotation after which the face looks at the viewer: x along the eyes, y down."""
    x = mean[EYE_CORNERS_RIGHT[1]] - mean[EYE_CORNERS_LEFT[0]]
    y = mean[CHIN] - mean[FOREHEAD]
    x = x / np.linalg.norm(x)
    y = y - (y @ x) * x
    y = y / np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)])


def _neutral_mean(aligned: np.ndarray) -> np.ndarray:
    """Mean of a person; of many frames the median of the half that is nearest to it."""
    mean = aligned.mean(axis=0)
    if len(aligned) <= 50:
        return mean
    energy = np.square(aligned - mean).sum(axis=(1, 2))
    return np.median(aligned[energy <= np.median(energy)], axis=0)


def _pca(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,V,3) deviations -> (3V,n) directions and (n,) standard deviations, largest first."""
    flat = values.reshape(len(values), -1)
    if count <= 0:
        return np.zeros((flat.shape[1], 0)), np.zeros(0)
    if len(flat) < flat.shape[1]:  # few: of the products between the samples
        power, mixes = np.linalg.eigh(flat @ flat.T / len(flat))
        order = np.argsort(-power)[:count]
        basis = flat.T @ mixes[:, order]
        basis = basis / np.maximum(np.linalg.norm(basis, axis=0), 1e-12)
    else:
        power, directions = np.linalg.eigh(flat.T @ flat / len(flat))
        order = np.argsort(-power)[:count]
        basis = directions[:, order]
    # The sign of a direction means nothing; one rule makes equal data give equal files.
    basis = basis * np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(basis.shape[1])])
    return basis, np.sqrt(np.maximum(power[order], 0))


def _mouth_faces(mean: np.ndarray) -> np.ndarray:
    """Triangles that close the mouth, zig-zag between upper and lower inner lip."""
    from talkingface.data.face.topology import LIPS_INNER

    ring = list(LIPS_INNER)
    low, high = 1, len(ring) - 1
    made = [(ring[0], ring[low], ring[high])]
    while high - low > 1:
        if len(made) % 2:
            made.append((ring[low], ring[low + 1], ring[high]))
            low += 1
        else:
            made.append((ring[low], ring[high - 1], ring[high]))
            high -= 1
    faces = np.array(made)
    a, b, c = (mean[faces[:, k], :2] for k in range(3))
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    faces[area < 0] = faces[area < 0][:, ::-1]
    return faces
