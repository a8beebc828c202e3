"""From a video to one steady face box per frame: shared by preparation and generation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from talkingface.data.face.boxes import face_boxes
from talkingface.data.face.mesh import video_landmarks
from talkingface.errors import DataError

if TYPE_CHECKING:
    from talkingface.config.schema import FaceSection


@dataclass(frozen=True)
class FaceTrack:
    """The face of a video at a constant frame rate.

    Attributes:
        boxes: (T,4) x0, y0, x1, y1 in pixels; gaps are interpolated.
        found: (T,) bool, True where a face was really detected.
        landmarks: (T,478,3) pixels, NaN where not found.
    """

    boxes: np.ndarray
    found: np.ndarray
    landmarks: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def found_ratio(self) -> float:
        return float(self.found.mean()) if len(self.found) else 0.0


def track_face(path: Path, *, fps: float, options: FaceSection, cache: bool = True) -> FaceTrack:
    """Find and follow the face of a video or still picture.

    Raises:
        DataError: the file cannot be read, or no face is in it.
    """
    landmarks = video_landmarks(
        path,
        fps=fps,
        tracking=True,
        max_side=options.max_side,
        min_detection=options.min_detection,
        cache=cache,
    )
    found = np.isfinite(landmarks).all(axis=(1, 2)) if len(landmarks) else np.zeros(0, bool)
    if not found.any():
        raise DataError(
            f"no face found: {path.name} ({len(landmarks)} frames). The face must be visible, "
            "roughly upright and at least about 60 px high."
        )
    boxes = face_boxes(landmarks, fps=fps, smoothing=options.box_smoothing)
    return FaceTrack(boxes, found, landmarks)
