"""Files of a clip prepared for MODA: ``features.npz``, ``template.npz``, ``audio.wav``.

All points are pixels of a square crop, z toward the viewer. *Canonical* points are without head
pose.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.face.pose import decanonicalize
from talkingface.data.face.topology import MODA_EYES, MODA_MOUTH
from talkingface.data.npz import read_npz, save_npz
from talkingface.errors import DataError

FEATURES, TEMPLATE, SOUND, PICTURES = "features.npz", "template.npz", "audio.wav", "pictures.h5"
VERSION = 1
SAMPLE_RATE = 16000
SIDE = 512  # of the crop
OFFICIAL_SIDE = 768  # of the square in the released preparation
# Smallest standard deviations of targets (official code): px, degrees, and scale.
LEAST = {"points": 1e-3, "head": np.array([1e-3] * 6 + [1e-4])}


@dataclass(frozen=True)
class Features:
    """Motion of a clip.

    Attributes:
        vertices: (T,478,3) canonical face.
        headpose: (T,7) of :func:`~talkingface.data.face.pose.head_pose`.
        torso: (T,18,3) shoulder points, canonical if ``torso_space`` is ``head``.
        torso_valid: (2,) whether the left and the right shoulder in the picture are visible.
        landmarks: (T,478,3) detected points in the crop, gaps filled.
        valid: (T,) frames in which a face was detected.
        fps: frame rate.
        image_size: side of the crop.
        face_center: (3,) centre of the canonical face.
        eye_dist: eye distance of the canonical face, px.
        crop: (4,) x0, y0, x1, y1 of the crop in source pixels.
        start: number of the first frame in the source.
        torso_space: ``head`` or ``image``.
    """

    vertices: np.ndarray
    headpose: np.ndarray
    torso: np.ndarray
    torso_valid: np.ndarray
    landmarks: np.ndarray
    valid: np.ndarray
    fps: float
    image_size: int
    face_center: np.ndarray
    eye_dist: float
    crop: np.ndarray
    start: int = 0
    torso_space: str = "head"

    def __len__(self) -> int:
        return len(self.vertices)

    @property
    def lips(self) -> np.ndarray:
        """(T,120) canonical."""
        return self.vertices[:, list(MODA_MOUTH)].reshape(len(self), -1)

    @property
    def eyes(self) -> np.ndarray:
        """(T,180) canonical: eyes, brows and irises."""
        return self.vertices[:, list(MODA_EYES)].reshape(len(self), -1)

    def save(self, path: Path) -> None:
        """Write ``features.npz``; arrays as float32."""
        content: dict[str, Any] = {"version": VERSION}
        for field in fields(self):
            value = getattr(self, field.name)
            floating = isinstance(value, np.ndarray) and value.dtype.kind == "f"
            content[field.name] = value.astype(np.float32) if floating else value
        save_npz(path, content)

    @classmethod
    def read(cls, path: Path) -> Features:
        """Raises DataError: missing, damaged, or of another version."""
        content = read_npz(path)
        if int(content.pop("version", 0)) != VERSION:
            raise DataError(f"{path} is of another version; run the stage preprocess again.")
        missing = [f.name for f in fields(cls) if f.name not in content]
        if missing:
            raise DataError(f"{path} lacks {', '.join(missing)}; run the stage preprocess again.")
        plain = {"fps": float, "image_size": int, "eye_dist": float, "start": int,
                 "torso_space": str}  # fmt: skip
        for name, kind in plain.items():
            content[name] = kind(content[name])
        return cls(**{field.name: content[field.name] for field in fields(cls)})


_TEMPLATE = ("mesh", "headpose", "torso", "std")  # arrays of a template


@dataclass(frozen=True)
class Template:
    """Means of a subject. Network outputs are offsets from them.

    Attributes:
        mesh: (478,3) canonical, headpose: (7,), torso: (18,3).
        std: (361,) standard deviation of lips, eyes, head and torso.
        frames: number of frames that it was computed from.
    """

    mesh: np.ndarray
    headpose: np.ndarray
    torso: np.ndarray
    std: np.ndarray
    frames: int

    @classmethod
    def of(cls, clip: Features) -> Template:
        """The template of a clip, from its valid frames."""
        valid = clip.valid
        torso = clip.torso.reshape(len(clip), -1)
        values = np.concatenate([clip.lips, clip.eyes, clip.headpose, torso], axis=1)[valid]
        means = (getattr(clip, k)[valid].mean(axis=0) for k in ("vertices", "headpose", "torso"))
        return cls(*means, values.std(axis=0), int(valid.sum()))

    def with_mesh(self, others: list[Template]) -> Template:
        """This template with the mean mesh of several clips."""
        frames = np.array([other.frames for other in others], np.float64)
        mesh = np.average([other.mesh for other in others], axis=0, weights=frames)
        return Template(mesh.astype(np.float32), self.headpose, self.torso, self.std, self.frames)

    def offsets(self, clip: Features) -> dict[str, np.ndarray]:
        """Targets of the mapping network: part -> (T,n) float32."""
        torso = (clip.torso - self.torso).reshape(len(clip), -1)
        parts = {
            "lips": clip.lips - self.mesh[list(MODA_MOUTH)].reshape(-1),
            "eyes": clip.eyes - self.mesh[list(MODA_EYES)].reshape(-1),
            "head": clip.headpose - self.headpose,
            "torso": torso,
        }
        return {key: value.astype(np.float32) for key, value in parts.items()}

    def save(self, path: Path) -> None:
        arrays = {k: np.asarray(getattr(self, k), np.float32) for k in _TEMPLATE}
        save_npz(path, {**arrays, "frames": self.frames})

    @classmethod
    def read(cls, path: Path) -> Template:
        content = read_npz(path)
        try:
            frames = int(content["frames"])
            return cls(*(content[key] for key in _TEMPLATE), frames)
        except KeyError as error:
            raise DataError(f"{path} lacks {error}; run the stage preprocess again.") from None


def posed(clip: Features, vertices: np.ndarray, headpose: np.ndarray) -> np.ndarray:
    """Apply the head pose (T,7) to canonical points (T,V,3): pixels of the crop."""
    return decanonicalize(
        vertices.astype(np.float64), headpose.astype(np.float64), clip.face_center
    )


def posed_torso(clip: Features, torso: np.ndarray, headpose: np.ndarray) -> np.ndarray:
    """Shoulders (T,18,2) in pixels of the crop, NaN on invisible sides."""
    points = posed(clip, torso, headpose) if clip.torso_space == "head" else torso
    points = np.array(points[..., :2], np.float64)
    sides = points.reshape(len(points), 2, 9, 2)
    sides[:, ~np.asarray(clip.torso_valid, bool)] = np.nan
    return points
