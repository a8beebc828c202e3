"""Base of metrics that need the generated picture only (NIQE, CPBD)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter

import numpy as np

from talkingface.errors import DataError
from talkingface.evaluator.base_metric import Metric
from talkingface.evaluator.clip import MIN_VALID_RATIO, WARN_VALID_RATIO, ClipPair

BLACK = 20  # grey levels; black bars stay below it also after compression


class NoReferenceMetric(Metric):
    """Mean over one of ``stride`` generated frames, in its original size, or a region of it."""

    revision = 2  # other places of the frames
    choices = {"region": ("full", "face", "mouth")}

    def start(self, clip: ClipPair) -> None:
        super().start(clip)
        self._values: list[float] = []
        self._problems: Counter[str] = Counter()
        self._size: tuple[int, int] | None = None
        self._lit: list[np.ndarray] = []  # rows and columns that were ever brighter than black

    def update(self, clip: ClipPair, index: int, generated: np.ndarray, real: np.ndarray) -> None:
        if not self.sampled(index):
            return
        picture = generated if clip.native is None else clip.native
        self._size = (picture.shape[1], picture.shape[0])
        bright = picture.max(axis=2) > BLACK
        lit = [bright.any(axis=1), bright.any(axis=0)]  # rows, columns
        self._lit = [a | b for a, b in zip(self._lit, lit, strict=True)] if self._lit else lit
        try:
            self._values.append(self.measure(clip, self._cut(clip, index, picture, real)))
        except DataError as error:  # undefined for this frame
            self._values.append(math.nan)
            self._problems[str(error)] += 1

    def _cut(self, clip: ClipPair, index: int, picture: np.ndarray, real: np.ndarray) -> np.ndarray:
        if self.params["region"] == "full":
            return picture
        box = clip.region(self.params["region"], index)
        if box is None:
            raise DataError("no face in the real frame")
        scale = np.array(picture.shape[1::-1] * 2) / np.array(real.shape[1::-1] * 2)
        x0, y0, x1, y1 = np.rint(box * scale).astype(int)
        return picture[y0:y1, x0:x1]

    @abstractmethod
    def measure(self, clip: ClipPair, picture: np.ndarray) -> float:
        """Value of one (H,W,3) uint8 picture.

        Raises:
            DataError: it has none; the message is the reason.
        """

    def finish(self, clip: ClipPair) -> dict[str, float]:
        finite = [value for value in self._values if math.isfinite(value)]
        ratio = len(finite) / max(len(self._values), 1)
        why = self._problems.most_common(1)[0][0] if self._problems else "no frame"
        if ratio < MIN_VALID_RATIO:
            return self.undefined(f"{why} (in {1 - ratio:.0%} of the frames)")
        if ratio < WARN_VALID_RATIO:
            clip.notes.append(f"{self.name}: {ratio:.0%} of the frames have a value ({why})")
        if clip.native is not None and self._size != clip.size:
            native, real = ("x".join(map(str, size)) for size in (self._size, clip.size))
            clip.notes.append(
                f"{self.name}: measured at {native}, the real video is {real}; values of other "
                "sizes are not comparable"
            )
        if (bars := self._bars()) and self.params["region"] == "full":
            clip.notes.append(
                f"{self.name}: black bars ({bars}) are measured as part of the picture; crop the "
                f"video or set metric_params.{self.name}.region=face"
            )
        return {key: float(np.mean(finite)) for key in self.outputs}

    def _bars(self) -> str:
        """Sizes of the borders that are black in all measured frames, if 2 % or more of a side."""
        found = []
        for lit, names in zip(self._lit, (("top", "bottom"), ("left", "right")), strict=True):
            if lit.any():
                widths = int(lit.argmax()), int(lit[::-1].argmax())
                pairs = zip(names, widths, strict=True)
                found += [f"{name} {w} px" for name, w in pairs if w >= max(0.02 * len(lit), 3)]
        return ", ".join(found)
