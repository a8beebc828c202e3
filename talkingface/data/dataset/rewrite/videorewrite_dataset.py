"""Training items of VideoRewrite: speech and mouth shapes of consecutive frames."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.data.clips import split_clips
from talkingface.data.dataprocess.face_crops import FaceCropProcess
from talkingface.data.dataset.base import TalkingFaceDataset
from talkingface.data.face.mouth_shapes import HeadFrame
from talkingface.data.face.series import fill_gaps, starts_within_runs
from talkingface.data.media.mel import sound_rows
from talkingface.data.npz import read_npy, read_npz
from talkingface.errors import DataError

if TYPE_CHECKING:
    from talkingface.config.config import Config


@dataclass(frozen=True)
class _Clip:
    id: str
    sound: np.ndarray  # (T,720) float32
    shapes: np.ndarray  # (T,41,3) float32, without the mean shape of the person
    starts: np.ndarray


class VideoRewriteDataset(TalkingFaceDataset):
    """Every clip gives ``data.windows_per_clip`` items per epoch, each with a random start."""

    needs_config = ("data.frames", "data.noise", "data.windows_per_clip", "fps")

    batch_spec = {
        "sound": "B T 720 float32; mel columns around each frame",
        "shape": "B T 41 3 float32; lips and chin minus the person's mean, 1 = eye corner distance",
    }

    def __init__(self, cfg: Config, split: str) -> None:
        self.length = cfg.data.frames
        super().__init__(cfg, split)

    def build_index(self) -> list[_Clip]:
        process = FaceCropProcess(self.cfg)
        names, self.unusable = process.prepared.usable(self.split)
        speakers = {clip.id: clip.speaker for clip in split_clips(self.cfg, self.split)}
        read, means = {}, defaultdict(list)
        for name in names:
            try:
                read[name] = self._read(process.folder / name)
            except (DataError, KeyError, ValueError) as error:
                self.unusable[name] = f"damaged: {error}"
                continue
            means[speakers[name]].append(read[name][1].mean(0))
        clips = []
        for name, (sound, shapes, segments) in read.items():
            starts = starts_within_runs(segments, self.length)
            if not len(starts):
                self.unusable[name] = f"no {self.length} consecutive frames with a face"
                continue
            shapes = shapes - np.mean(means[speakers[name]], axis=0)
            clips.append(_Clip(name, sound, shapes.astype(np.float32), starts))
        return [clip for clip in clips for _ in range(self.cfg.data.windows_per_clip)]

    def _read(self, folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sound, shapes and segments of a prepared clip; segments are -1 without a face."""
        data, points = read_npz(folder / "face.npz"), fill_gaps(read_npy(folder / "points.npy"))
        sound = sound_rows(read_npy(folder / "mel.npy"), len(points), self.cfg.fps)
        shapes = HeadFrame.of(points[data["found"]]).shapes(points)
        return sound.astype(np.float32), shapes, np.where(data["found"], data["segments"], -1)

    def summary(self) -> dict[str, Any]:
        clips = {clip.id for clip in self.index}
        return {"clips": len(clips), "unusable": len(self.unusable), "items": len(self)}

    def load_item(self, entry: _Clip, rng: np.random.Generator) -> dict[str, Any]:
        start = int(rng.choice(entry.starts))
        part = slice(start, start + self.length)
        sound = entry.sound[part]
        if self.split == "train" and self.cfg.data.noise > 0:
            sound = sound + rng.normal(0, self.cfg.data.noise, sound.shape).astype(np.float32)
        return {"sound": sound, "shape": entry.shapes[part], "clip_id": entry.id}
