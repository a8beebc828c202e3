"""Training items of Audio2Exp: windows of voice vectors with the expressions of the face."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.data.dataprocess.headgan.headgan_process import HeadGANMotionProcess
from talkingface.data.dataset.base import TalkingFaceDataset

if TYPE_CHECKING:
    from talkingface.config.config import Config


@dataclass
class ExpressionClip:
    """Voice (T,A) and expression (T,n_exp) of a clip; the clip's mean expression is taken out.

    Attributes:
        neutral: (V,3) of the person, with the mean expression.
        valid: (T,) frames in which the face was found.
    """

    id: str
    voice: np.ndarray
    expression: np.ndarray
    neutral: np.ndarray
    valid: np.ndarray

    def __len__(self) -> int:
        return len(self.voice)


class Audio2ExpDataset(TalkingFaceDataset):
    """Windows of ``data.window`` frames; shorter clips are filled up with zeros."""

    needs_config = ("data.stride", "data.window")

    batch_spec = {
        "audio": "B T A float32; voice vectors, raw",
        "expression": "B T E float32; coefficients without the clip's mean",
        "valid": "B T float32 [0,1]; 1 in frames in which the face was found",
    }

    def __init__(self, cfg: Config, split: str) -> None:
        self.process = HeadGANMotionProcess(cfg)
        super().__init__(cfg, split)

    def build_index(self) -> list[tuple[int, int]]:
        names, self.unusable = self.process.prepared.usable(self.split)
        official = {n: "of the official tree: no geometry" for n in names
                    if self.process.is_official(n)}  # fmt: skip
        self.unusable |= official
        names = [name for name in names if name not in official]
        silent = {n: "silent" for n in names
                  if not self.process.wave(n).any()}  # fmt: skip
        self.unusable |= silent
        names = [name for name in names if name not in silent]
        if not names:
            return []
        self.clips = [self._load(name) for name in names]
        index = []
        for number, clip in enumerate(self.clips):
            last = max(0, len(clip) - self.cfg.data.window)
            index += [(number, start) for start in (*range(0, last, self.cfg.data.stride), last)]
        return index

    def _load(self, name: str) -> ExpressionClip:
        geometry, points = self.process.geometry(name), self.process.points(name)
        mean = geometry.expression[points.valid].mean(axis=0)
        model = self.process.load_face_model()
        return ExpressionClip(
            id=name,
            voice=self.process.load_voice().read(self.process.prepared.output_dirs(name)[0]),
            expression=(geometry.expression - mean).astype(np.float32),
            neutral=model.shape(geometry.neutral, mean[None])[0],
            valid=points.valid,
        )

    def summary(self) -> dict[str, Any]:
        frames = sum(len(clip) for clip in self.clips)
        return {"clips": len(self.clips), "unusable": len(self.unusable), "frames": frames}

    def whole_clips(self) -> Iterator[ExpressionClip]:
        """The clips of the split, for measures over whole clips."""
        yield from self.clips

    def load_item(self, entry: tuple[int, int], rng: np.random.Generator) -> dict[str, Any]:
        number, start = entry
        clip, length = self.clips[number], self.cfg.data.window
        if self.split == "train":  # not always the same windows
            start = int(rng.integers(0, max(1, len(clip) - length + 1)))
        part = slice(start, start + length)
        missing = length - len(clip.voice[part])

        def filled(values: np.ndarray) -> np.ndarray:
            return np.pad(values[part], ((0, missing), *[(0, 0)] * (values.ndim - 1)))

        return {
            "audio": filled(clip.voice),
            "expression": filled(clip.expression),
            "valid": filled(clip.valid).astype(np.float32),
        }
