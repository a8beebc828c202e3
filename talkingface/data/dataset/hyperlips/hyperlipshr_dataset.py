"""Training items of HyperLips stage 2: output of the base, its sketches, and real crops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.data.dataprocess.hyperlips.hyperlipshr_process import HyperLipsHRProcess
from talkingface.data.dataset.base import TalkingFaceDataset
from talkingface.data.face.boxes import resize_image
from talkingface.data.face.series import starts_within_runs
from talkingface.data.face.sketches import INPUT_SIZE
from talkingface.data.media.images import read_image
from talkingface.data.npz import read_npy

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.data.dataprocess.base import Components


@dataclass(frozen=True)
class _Clip:
    id: str
    starts: np.ndarray


class HyperLipsHRDataset(TalkingFaceDataset):
    """Windows of consecutive frames; every clip gives ``data.windows_per_clip`` items per epoch."""

    needs_config = ("data.frames", "data.patch", "data.windows_per_clip", "model_params.image_size")

    batch_spec = {
        "hyper_img": "B 3 T P P float32 [0,1]; output of the base, BGR; P 128 or data.patch",
        "hyper_sketch": "B 3 T P P float32 [0,1]; line drawing of hyper_img, three equal channels",
        "gt_img": "B 3 T S S float32 [0,1]; real crop, BGR; S = P image_size / 128",
        "coords": "B T 4 int64; top, bottom, left, right of the lips in gt_img",
    }

    uses_components = True

    def __init__(self, cfg: Config, split: str, components: Components) -> None:
        self.length = cfg.data.frames
        self.patch = cfg.data.patch if split == "train" else None
        self.process = HyperLipsHRProcess(cfg, components)
        super().__init__(cfg, split)

    def build_index(self) -> list[_Clip]:
        names, self.unusable = self.process.prepared.usable(self.split)
        clips = []
        for name in names:
            segments = read_npy(self.process.folder / "GT_IMG" / name / "segments.npy")
            starts = starts_within_runs(segments, self.length)
            if len(starts):
                clips.append(_Clip(name, starts))
            else:
                self.unusable[name] = f"no {self.length} consecutive frames with a face"
        return [clip for clip in clips for _ in range(self.cfg.data.windows_per_clip)]

    def summary(self) -> dict[str, Any]:
        clips = {clip.id for clip in self.index}
        return {"clips": len(clips), "unusable": len(self.unusable), "items": len(self)}

    def load_item(self, entry: _Clip, rng: np.random.Generator) -> dict[str, Any]:
        start = int(rng.choice(entry.starts))
        numbers = range(start, start + self.length)
        size = self.cfg.model_params.image_size
        masks = [self._read("GT_MASK", entry.id, n, size)[..., 0] for n in numbers]
        item = {
            "hyper_img": self._stacked("HYPER_IMG", entry.id, numbers, INPUT_SIZE),
            "hyper_sketch": self._stacked("HYPER_SKETCH", entry.id, numbers, INPUT_SIZE),
            "gt_img": self._stacked("GT_IMG", entry.id, numbers, size),
            "coords": np.array([_rectangle(mask) for mask in masks], np.int64),
            "clip_id": entry.id,
        }
        return item if self.patch is None else self._cut(item, rng)

    def _cut(self, item: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Crop all images to a random square that contains the centre of the first frame's lips."""
        factor = self.cfg.model_params.image_size // INPUT_SIZE
        top, bottom, left, right = item["coords"][0] // factor
        corner = []
        for centre in ((top + bottom) // 2, (left + right) // 2):
            low, high = max(0, centre - self.patch + 1), min(INPUT_SIZE - self.patch, centre)
            corner.append(int(rng.integers(min(low, high), high + 1)))
        for key, scale in (("hyper_img", 1), ("hyper_sketch", 1), ("gt_img", factor)):
            y, x = (slice(scale * start, scale * (start + self.patch)) for start in corner)
            item[key] = np.ascontiguousarray(item[key][..., y, x])
        shifted = item["coords"] - factor * np.repeat(corner, 2)
        item["coords"] = np.clip(shifted, 0, factor * self.patch)
        return item

    def _stacked(self, part: str, clip: str, numbers: range, size: int) -> np.ndarray:
        frames = np.stack([self._read(part, clip, n, size) for n in numbers])
        return frames.transpose(3, 0, 1, 2).astype(np.float32) / 255

    def _read(self, part: str, clip: str, number: int, size: int) -> np.ndarray:
        """(S,S,3) uint8 BGR."""
        suffix = ".jpg" if part == "GT_IMG" else ".png"
        image = read_image(self.process.folder / part / clip / f"{number}{suffix}")[..., ::-1]
        return image if len(image) == size else resize_image(image, size)


def _rectangle(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Top, bottom, left, right (ends exclusive) of a mask; the whole image for an empty mask."""
    rows, columns = (np.flatnonzero((mask > 127).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return 0, len(mask), 0, len(mask)
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
