"""Sketches of generated faces: found, steadied and drawn alike at training and at inference.

The official code draws them at another size, with other lines and other smoothing at inference
than at training, a likely cause of trembling lips (ours).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from talkingface.data.face.boxes import resize_image
from talkingface.data.face.masks import sketch

INPUT_SIZE = 128  # px of pictures and sketches for stage 2
_DETECTION_SIZE = 256  # px; a face of 128 px is at the edge of what MediaPipe was made for
_LINE = 6  # px; on a canvas of 256 px by us, on one of 128 px by the official generation


def draw_sketch(points: np.ndarray, size: int, *, upstream: bool = False) -> np.ndarray:
    """Line drawing of a face, (size,size) uint8 of 0 and 255.

    Args:
        points: (478,2) as shares of the crop's width and height.
        upstream: lines twice as thick, as the official generation draws them.
    """
    canvas = 128 if upstream else 256
    drawn = sketch(points * canvas, canvas, canvas, thickness=_LINE)
    if size != canvas:
        drawn = resize_image(drawn, size)
    return np.where(drawn > 127, 255, 0).astype(np.uint8)


class SketchMaker:
    """Sketches of consecutive pictures, with a small look-ahead.

    Every picture is looked at by itself; the points are then averaged over neighbours with a
    Gaussian, so that the lines do not tremble. A picture without a face or another shot ends an
    average; one without a face gets the sketch before it, the first ones an empty one. It holds
    MediaPipe's threads and memory until it is closed; use it in a ``with`` block.

    Args:
        fps: frame rate.
        smoothing: standard deviation in seconds; 0 smooths nothing and needs no look-ahead.
        upstream: see :func:`draw_sketch`.

    Attributes:
        missed: number of pictures without a face.
    """

    def __init__(self, fps: float, smoothing: float, *, upstream: bool = False) -> None:
        from talkingface.data.face.mesh import FaceMesher

        self._upstream = upstream
        self._mesher = FaceMesher(tracking=False)
        sigma = smoothing * fps
        self.reach = int(np.ceil(2 * sigma))
        offsets = np.arange(-self.reach, self.reach + 1)
        self._weights = np.exp(-0.5 * (offsets / max(sigma, 1e-9)) ** 2)
        self.missed = 0
        self._last = np.zeros((INPUT_SIZE, INPUT_SIZE), np.uint8)
        self._waiting: list[tuple[Any, np.ndarray, np.ndarray | None, Any]] = []
        self._given = 0  # how many of the waiting ones have their sketch

    def __enter__(self) -> SketchMaker:
        return self

    def __exit__(self, *_: object) -> None:
        self._mesher.close()

    def add(
        self, key: Any, picture: np.ndarray, shot: Any = None
    ) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        """Take a picture (S,S,3) uint8 BGR; gives those whose neighbours are known.

        Args:
            shot: pictures of different shots are not averaged.

        Yields:
            key, picture, sketch (128,128).
        """
        rgb = resize_image(np.ascontiguousarray(picture[..., ::-1]), _DETECTION_SIZE)
        faces = self._mesher(rgb)
        found = faces[0][:, :2] / _DETECTION_SIZE if len(faces) else None
        self._waiting.append((key, picture, found, shot))
        while self._given + self.reach < len(self._waiting):
            yield self._next()

    def finish(self) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        """The last pictures."""
        while self._given < len(self._waiting):
            yield self._next()
        self._waiting.clear()
        self._given = 0

    def _next(self) -> tuple[Any, np.ndarray, np.ndarray]:
        here = self._given
        key, picture, own, shot = self._waiting[here]
        self._given += 1
        if own is None:
            self.missed += 1
        else:
            total, weight = np.zeros_like(own, np.float64), 0.0
            for step in (-1, 1):
                for distance in range(0 if step > 0 else 1, self.reach + 1):
                    place = here + step * distance
                    if not 0 <= place < len(self._waiting):
                        break
                    other, its_shot = self._waiting[place][2:]
                    if other is None or its_shot != shot:
                        break
                    share = self._weights[self.reach + distance]
                    total += share * other
                    weight += share
            self._last = draw_sketch(total / weight, INPUT_SIZE, upstream=self._upstream)
        if self._given > self.reach:  # no later sketch needs older ones
            self._waiting.pop(0)
            self._given -= 1
        return key, picture, self._last
