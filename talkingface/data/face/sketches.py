"""Sketches of generated faces: the same detection, smoothing and drawing in training and inference.

The official code uses another size, line width and smoothing at inference than in training, a
likely cause of trembling lips.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from talkingface.data.face.boxes import resize_image
from talkingface.data.face.masks import sketch
from talkingface.data.face.mesh import FaceMesher

INPUT_SIZE = 128  # side of pictures and sketches for stage 2, in pixels
DETECTION_SIZE = 256  # pixels; 128 px is at the lower limit of MediaPipe's face size
_LINE = 6  # pixels, on a canvas of 256 px; the official generation uses a canvas of 128 px


def draw_sketch(points: np.ndarray, size: int, *, upstream: bool = False) -> np.ndarray:
    """Line drawing of a face, (size,size) uint8 of 0 and 255.

    Args:
        points: (478,2) as shares of the crop's width and height.
        upstream: lines twice as thick, as the official generation draws them.
    """
    canvas = 128 if upstream else 256
    lines = resize_image(sketch(points * canvas, canvas, canvas, thickness=_LINE), size)
    return np.where(lines > 127, 255, 0).astype(np.uint8)


class SketchMaker(AbstractContextManager):
    """Sketches of consecutive pictures, with a small look-ahead.

    Faces are detected in each picture independently. A Gaussian then smooths the points over
    neighbouring pictures, so that the lines do not tremble. Pictures beyond a missing face or a
    shot change are excluded. A picture without a face gets the previous sketch, or an empty one at
    the beginning. Use a ``with`` block, which frees MediaPipe's threads and memory at its end.

    Args:
        fps: frame rate.
        smoothing: standard deviation in seconds; 0: no smoothing and no look-ahead.
        upstream: see :func:`draw_sketch`.

    Attributes:
        missed: number of pictures without a face.
    """

    def __init__(self, fps: float, smoothing: float, *, upstream: bool = False) -> None:
        self._upstream = upstream
        self._mesher = FaceMesher(tracking=False)
        sigma = smoothing * fps
        self.reach = int(np.ceil(2 * sigma))
        offsets = np.arange(-self.reach, self.reach + 1)
        self._weights = np.exp(-0.5 * (offsets / max(sigma, 1e-9)) ** 2)
        self.missed = 0
        self._last = np.zeros((INPUT_SIZE, INPUT_SIZE), np.uint8)
        self._waiting: list[tuple[Any, np.ndarray, np.ndarray | None, Any]] = []
        self._given = 0  # number of waiting pictures whose sketch was yielded

    def __exit__(self, *_: object) -> None:
        self._mesher.close()

    def add(
        self, key: Any, picture: np.ndarray, shot: Any = None
    ) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        """Add a picture (S,S,3) uint8 BGR; yield those whose look-ahead is complete.

        Args:
            shot: label of the shot; pictures of different shots are not averaged.

        Yields:
            key, picture, sketch (128,128).
        """
        rgb = resize_image(np.ascontiguousarray(picture[..., ::-1]), DETECTION_SIZE)
        faces = self._mesher(rgb)
        points = faces[0][:, :2] / DETECTION_SIZE if len(faces) else None
        self._waiting.append((key, picture, points, shot))
        while self._given + self.reach < len(self._waiting):
            yield self._next()

    def finish(self) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        """Yield the remaining pictures."""
        while self._given < len(self._waiting):
            yield self._next()
        self._waiting.clear()
        self._given = 0

    def _next(self) -> tuple[Any, np.ndarray, np.ndarray]:
        current = self._given
        key, picture, points, shot = self._waiting[current]
        self._given += 1
        if points is None:
            self.missed += 1
        else:
            total, weight = np.zeros_like(points, np.float64), 0.0
            for step in (-1, 1):
                for distance in range(0 if step > 0 else 1, self.reach + 1):
                    index = current + step * distance
                    if not 0 <= index < len(self._waiting):
                        break
                    other_points, other_shot = self._waiting[index][2:]
                    if other_points is None or other_shot != shot:
                        break
                    share = self._weights[self.reach + distance]
                    total += share * other_points
                    weight += share
            self._last = draw_sketch(total / weight, INPUT_SIZE, upstream=self._upstream)
        if self._given > self.reach:  # later sketches do not need the oldest picture
            self._waiting.pop(0)
            self._given -= 1
        return key, picture, self._last
