"""Linear face model learnt from the training clips, in MediaPipe's topology.

It replaces a 3D morphable model that needs a licence. Model coordinates: x right, y down, z away
from the viewer; a frontal face has the rotation I; root-mean-square radius 1. Pixel coordinates
have the same axes, z in the scale of x.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.face.pose import orthonormal_axes, procrustes, remove_pose
from talkingface.data.face.raster import pncc_colors, rasterize
from talkingface.data.face.topology import (
    CHIN,
    EYE_CORNERS_LEFT,
    EYE_CORNERS_RIGHT,
    FACE_OVAL,
    FOREHEAD,
    LIPS,
    LIPS_INNER,
    N_MESH,
    triangles,
)
from talkingface.data.npz import read_npz, save_npz
from talkingface.errors import DataError

TOPOLOGY = "mediapipe468"
VERSION = 1
FEW_PEOPLE = 50  # an identity basis of fewer people does not generalise to others
_ROUNDS = 6  # iterations of the generalised Procrustes analysis
_FITS = 3  # alternations between pose and coefficients
_RIDGE = 1e-3
_BOUND = 3.0  # coefficients are clipped to this many standard deviations
_SOFT = 0.1  # weight in the pose fit of vertices that speech moves
_MOST_FRAMES = 20_000  # maximum number of training frames


@dataclass(frozen=True)
class Geometry:
    """Face and camera of T frames: vertex i lies at ``s R x_i + t``.

    Attributes:
        scale: (T,) pixels per unit of the model.
        rotation: (T,3,3).
        shift: (T,3) pixels.
        expression: (T,n_exp) coefficients.
        neutral: (V,3) the person's shape without expression.
    """

    scale: np.ndarray
    rotation: np.ndarray
    shift: np.ndarray
    expression: np.ndarray
    neutral: np.ndarray

    def __len__(self) -> int:
        return len(self.scale)

    def part(self, frames: Any) -> Geometry:
        """The frames of an index, slice or mask."""
        values = (self.scale, self.rotation, self.shift, self.expression)
        return Geometry(*(value[frames] for value in values), self.neutral)


@dataclass(frozen=True)
class FaceModel:
    """Mean, identity and expression bases of a mesh.

    Attributes:
        mean: (V,3).
        id_basis, exp_basis: (3V,n) orthonormal columns, vertices one after the other.
        id_std, exp_std: (n,) standard deviations of the coefficients.
        faces: (F,3) triangles whose area is positive when they face the viewer.
        pncc: (V,3) colours in [0,1].
        vertices: (K,) indices of the MediaPipe points that the model is fitted to.
        corresponding: (K,) indices of the model's vertices that correspond to them.
        topology: name of the mesh.
        sources: numbers of people, clips and frames that the model was learnt from.
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
        """Hash of the fields that rendered pictures depend on."""
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
            if value.dtype.kind in "fiu":  # numbers from JSON have no bit width
                values[name] = value.astype(integers.get(name, np.float32))
        for name in ("topology", "sources"):
            values[name] = str(values[name])
        return cls(**values)

    def save(self, path: Path, **extra: Any) -> None:
        """Write ``face_model.npz``."""
        save_npz(path, {"version": VERSION, **self.content(), **extra})

    @classmethod
    def read(cls, path: Path) -> FaceModel:
        """Raises DataError: missing, damaged or of another version."""
        content = read_npz(path)
        if int(content.get("version", 0)) != VERSION:
            raise DataError(f"{path} is of another version; run the stage preprocess again.")
        try:
            return cls.of_content(content)
        except (TypeError, KeyError) as error:
            raise DataError(f"{path} is not a face model: {error}") from error

    # -- geometry ----------------------------------------------------------------------------------

    def shape(self, neutral: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """(V,3) and (T,n_exp) -> (T,V,3) in model coordinates."""
        offsets = expression @ self.exp_basis.T
        return neutral + offsets.reshape(len(expression), *self.mean.shape)

    def lips(self, expression: np.ndarray) -> np.ndarray:
        """(T,n_exp) -> (T,40,3) offsets of the lip points from neutral (MediaPipe topology)."""
        basis = self.exp_basis.reshape(-1, 3, self.n_exp)[list(LIPS)]
        return np.einsum("tc,vdc->tvd", expression, basis).astype(np.float32)

    def placed(self, geometry: Geometry) -> np.ndarray:
        """(T,V,3) vertices in pixels."""
        shapes = self.shape(geometry.neutral, geometry.expression)
        rotated = shapes @ np.swapaxes(geometry.rotation, 1, 2)
        return geometry.scale[:, None, None] * rotated + geometry.shift[:, None]

    def render(
        self, vertices: np.ndarray, size: int, window: float, *, flat: bool = False,
        cull: bool = True
    ) -> np.ndarray:  # fmt: skip
        """PNCC picture (size,size,3) uint8 of (V,3) vertices in pixels of a square ``window``."""
        scaled = vertices * (size / window)
        picture = rasterize(scaled, self.pncc, size, size, faces=self.faces, flat=flat, cull=cull)
        return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)

    @cached_property
    def _sampled(self) -> dict[str, np.ndarray]:
        """Mean and bases at the fitted vertices."""
        rows = (3 * self.corresponding[:, None] + np.arange(3)).reshape(-1)
        return {
            "mean": self.mean[self.corresponding],
            "id": self.id_basis[rows],
            "exp": self.exp_basis[rows],
        }

    def _solve(
        self, points: np.ndarray, base: np.ndarray, basis: np.ndarray, std: np.ndarray
    ) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
        """Pose (s, R, t), coefficients (T,n) and points in model coordinates (T,K,3)."""
        weights = _pose_weights(self.vertices)
        inverse = np.linalg.solve(
            basis.T @ basis + _RIDGE * np.diag(1 / np.maximum(std, 1e-9) ** 2), basis.T
        )
        shape = np.broadcast_to(base, points.shape)
        for _ in range(_FITS):
            pose = procrustes(shape, points, weights)
            aligned = remove_pose(points, *pose)
            coefficients = (aligned - base).reshape(len(points), -1) @ inverse.T
            coefficients = np.clip(coefficients, -_BOUND * std, _BOUND * std)
            shape = base + (coefficients @ basis.T).reshape(points.shape)
        pose = procrustes(shape, points, weights)
        return pose, coefficients, remove_pose(points, *pose)

    def neutral_of(self, landmarks: np.ndarray, mode: str = "residual") -> np.ndarray:
        """(V,3) shape of a person without expression, from all frames of a clip or one picture.

        Args:
            landmarks: (T,>=468,3) MediaPipe points in pixels, finite.
            mode: ``residual``: mean over frames of the aligned points minus their expression, with
                one value per vertex; ``pca``: the identity basis, as in the HeadGAN paper (always
                used for other topologies).
        """
        points = _points(landmarks, self.vertices)
        sampled = self._sampled
        basis = np.concatenate([sampled["id"], sampled["exp"]], axis=1)
        std = np.concatenate([self.id_std, self.exp_std])
        _, coefficients, aligned = self._solve(points, sampled["mean"], basis, std)
        if mode == "residual" and self.topology == TOPOLOGY:
            expression = coefficients[:, self.n_id :] @ sampled["exp"].T
            return (aligned - expression.reshape(points.shape)).mean(axis=0)
        identity = coefficients[:, : self.n_id].mean(axis=0)
        return self.mean + (self.id_basis @ identity).reshape(-1, 3)

    def fit(self, landmarks: np.ndarray, neutral: np.ndarray) -> Geometry:
        """Fit camera and expression to each frame of a person whose neutral face is known.

        Args:
            landmarks: (T,>=468,3) MediaPipe points in pixels, finite.
            neutral: (V,3) of :meth:`neutral_of`.
        """
        points = _points(landmarks, self.vertices)
        base, basis = neutral[self.corresponding], self._sampled["exp"]
        (scale, rotation, shift), expression, _ = self._solve(points, base, basis, self.exp_std)
        return Geometry(scale, rotation, shift, expression, neutral)


def _points(landmarks: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    points = np.asarray(landmarks, np.float64)[:, vertices]
    if not np.isfinite(points).all():
        raise DataError("a face model can be fitted only to points that are all finite")
    return points


def _pose_weights(vertices: np.ndarray) -> np.ndarray:
    """(K,) weights in the pose fit: small for lips and jaw, which speech moves."""
    jaw = FACE_OVAL[FACE_OVAL.index(397) : FACE_OVAL.index(172) + 1]
    return np.where(np.isin(vertices, (*LIPS, *jaw)), _SOFT, 1.0)


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
    """Learn the mean and the identity and expression bases from tracked faces.

    Args:
        clips: clip -> (T,>=468,3) points in pixels, finite.
        people: clip -> name of the person in it.
        n_id: number of identity components; None: number of people minus 1, at most 80.
        n_exp: number of expression components; fewer if there are too few frames.
        frames_per_clip: maximum number of frames used per clip, evenly spaced.
        close_eyes, close_mouth: add triangles that close these openings.

    Raises:
        DataError: no frames.
    """
    most = min(frames_per_clip, max(1, _MOST_FRAMES // max(len(clips), 1)))
    chosen = {name: _spread(points[:, :N_MESH], most) for name, points in sorted(clips.items())}
    chosen = {name: points for name, points in chosen.items() if len(points)}
    if not chosen:
        raise DataError("no training clip has tracked faces to learn a face model from")
    points = np.concatenate(list(chosen.values())).astype(np.float64)
    person = np.concatenate([[people[name]] * len(part) for name, part in chosen.items()])
    indices = np.arange(N_MESH, dtype=np.int64)
    weights = _pose_weights(indices)
    mean = _unit(points[0])
    for _ in range(_ROUNDS):
        pose = procrustes(np.broadcast_to(mean, points.shape), points, weights)
        aligned = remove_pose(points, *pose)
        mean = _unit(np.mean([aligned[person == p].mean(axis=0) for p in set(person)], axis=0))
    # The rows rotate the mean to a frontal face: x along the eyes, y down.
    x = mean[EYE_CORNERS_RIGHT[1]] - mean[EYE_CORNERS_LEFT[0]]
    upright = orthonormal_axes(x, mean[CHIN] - mean[FOREHEAD])
    mean, aligned = mean @ upright.T, aligned @ upright.T
    names = sorted(set(person))
    neutral = {p: _neutral_mean(aligned[person == p]) for p in names}
    id_basis, id_std = _pca(
        np.array([neutral[p] - mean for p in names]),
        min(80 if n_id is None else n_id, len(names) - 1),
    )
    expressions = np.concatenate([aligned[person == p] - neutral[p] for p in names])
    exp_basis, exp_std = _pca(expressions, min(n_exp, max(1, len(points) - len(names))))
    faces = triangles(close_eyes=close_eyes)
    if close_mouth:
        faces = np.concatenate([faces, _mouth_faces(mean)])
    return FaceModel(
        mean=mean.astype(np.float32),
        id_basis=id_basis.astype(np.float32),
        id_std=id_std.astype(np.float32),
        exp_basis=exp_basis.astype(np.float32),
        exp_std=exp_std.astype(np.float32),
        faces=faces.astype(np.int32),
        pncc=pncc_colors(mean).astype(np.float32),
        vertices=indices,
        corresponding=indices,
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


def _neutral_mean(aligned: np.ndarray) -> np.ndarray:
    """Mean of a person's frames; of more than 50, the median of the half nearest to the mean."""
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
    if len(flat) < flat.shape[1]:  # fewer samples than coordinates: use the Gram matrix
        power, mixes = np.linalg.eigh(flat @ flat.T / len(flat))
        order = np.argsort(-power)[:count]
        basis = flat.T @ mixes[:, order]
        basis = basis / np.maximum(np.linalg.norm(basis, axis=0), 1e-12)
    else:
        power, directions = np.linalg.eigh(flat.T @ flat / len(flat))
        order = np.argsort(-power)[:count]
        basis = directions[:, order]
    # The sign of a direction is arbitrary; a fixed rule makes equal data give equal files.
    basis = basis * np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(basis.shape[1])])
    return basis, np.sqrt(np.maximum(power[order], 0))


def _mouth_faces(mean: np.ndarray) -> np.ndarray:
    """Triangles that close the mouth, in a zigzag between the upper and lower inner lip."""
    ring = LIPS_INNER
    low, high = 1, len(ring) - 1
    corners = [(ring[0], ring[low], ring[high])]
    while high - low > 1:
        if len(corners) % 2:
            corners.append((ring[low], ring[low + 1], ring[high]))
            low += 1
        else:
            corners.append((ring[low], ring[high - 1], ring[high]))
            high -= 1
    faces = np.array(corners)
    a, b, c = (mean[faces[:, k], :2] for k in range(3))
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    faces[area < 0] = faces[area < 0][:, ::-1]
    return faces
