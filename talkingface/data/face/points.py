"""Landmarks of a clip in one fixed crop, as a file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from talkingface.data.npz import read_npz, save_npz
from talkingface.errors import DataError

POINTS = "points.npz"
VERSION = 1


@dataclass(frozen=True)
class Points:
    """Landmarks of a face in a square crop.

    Attributes:
        landmarks: (T,478,3) pixels of the crop, gaps filled.
        valid: (T,) whether the face was detected in the frame.
        size: side of the crop in pixels.
        crop: (4,) x0, y0, x1, y1 in source pixels; may extend beyond the picture.
        start: index of the first frame in the source.
        fps: frame rate.
    """

    landmarks: np.ndarray
    valid: np.ndarray
    size: int
    crop: np.ndarray
    start: int
    fps: float

    def __len__(self) -> int:
        return len(self.landmarks)

    def spread(self, count: int) -> np.ndarray:
        """Landmarks of at most ``count`` valid frames, spread evenly over the clip."""
        valid = self.landmarks[self.valid]
        return valid[np.linspace(0, len(valid) - 1, min(len(valid), count)).astype(int)]

    def save(self, path: Path) -> None:
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["landmarks"] = content["landmarks"].astype(np.float32)
        save_npz(path, {"version": VERSION, **content})

    @classmethod
    def read(cls, path: Path) -> Points:
        """Raises DataError: missing, damaged, or of another version."""
        content = read_npz(path)
        if int(content.pop("version", 0)) != VERSION or set(content) != {
            field.name for field in fields(cls)
        }:
            raise DataError(f"{path} is of another version; run the stage preprocess again.")
        plain = {"size": int, "start": int, "fps": float}
        return cls(**{k: plain.get(k, np.asarray)(v) for k, v in content.items()})
