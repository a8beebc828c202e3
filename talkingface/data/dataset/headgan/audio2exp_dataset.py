"""Training items of Audio2Exp: windows of voice vectors and expressions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.data.dataprocess.headgan.headgan_process import HeadGANProcess
from talkingface.data.dataset.base import ClipDataset

if TYPE_CHECKING:
    from talkingface.config.config import Config


@dataclass
class ExpressionClip:
    """A clip.

    Attributes:
        voice: (T,A) voice vectors.
        expression: (T,n_exp) coefficients minus the clip's mean.
        neutral: (V,3) mesh of the person with the mean expression.
        valid: (T,) frames with a detected face.
    """

    id: str
    voice: np.ndarray
    expression: np.ndarray
    neutral: np.ndarray
    valid: np.ndarray

    def __len__(self) -> int:
        return len(self.voice)


class Audio2ExpDataset(ClipDataset):
    """Windows of ``data.window`` frames; shorter clips are padded with zeros."""

    needs_config = ("data.stride", "data.window")

    batch_spec = {
        "audio": "B T A float32; voice vectors, raw",
        "expression": "B T E float32; coefficients minus the clip's mean",
        "valid": "B T float32 [0,1]; 1 in frames with a detected face",
    }

    def __init__(self, cfg: Config, split: str) -> None:
        self.process = HeadGANProcess(cfg)
        super().__init__(cfg, split)

    def build_index(self) -> list[tuple[int, int]]:
        names, self.unusable = self.process.prepared.usable(self.split)
        usable = []
        for name in names:
            if self.process.is_official(name):
                self.unusable[name] = "of the official tree: no geometry"
            elif not self.process.wave(name).any():
                self.unusable[name] = "silent"
            else:
                usable.append(name)
        if not usable:
            return []
        self.clips = [self._load(name) for name in usable]
        index = []
        for number, clip in enumerate(self.clips):
            last = max(0, len(clip) - self.cfg.data.window)
            index += [(number, start) for start in (*range(0, last, self.cfg.data.stride), last)]
        return index

    def _load(self, name: str) -> ExpressionClip:
        geometry, points = self.process.geometry(name), self.process.points(name)
        mean = geometry.expression[points.valid].mean(axis=0)
        model = self.process.face_model
        return ExpressionClip(
            id=name,
            voice=self.process.voice.read(self.process.prepared.output_dirs(name)[0]),
            expression=(geometry.expression - mean).astype(np.float32),
            neutral=model.shape(geometry.neutral, mean[None])[0],
            valid=points.valid,
        )

    def summary(self) -> dict[str, Any]:
        return self.counts(frames=sum(len(clip) for clip in self.clips))

    def load_item(self, entry: tuple[int, int], rng: np.random.Generator) -> dict[str, Any]:
        number, start = entry
        clip, length = self.clips[number], self.cfg.data.window
        if self.split == "train":  # another window in each epoch
            start = int(rng.integers(0, max(1, len(clip) - length + 1)))
        part = slice(start, start + length)
        missing = length - len(clip.voice[part])

        def padded(values: np.ndarray) -> np.ndarray:
            return np.pad(values[part], ((0, missing), *[(0, 0)] * (values.ndim - 1)))

        return {
            "audio": padded(clip.voice),
            "expression": padded(clip.expression),
            "valid": padded(clip.valid).astype(np.float32),
        }
