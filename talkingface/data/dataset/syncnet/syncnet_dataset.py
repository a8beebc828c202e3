"""Training items of SyncNet: consecutive face crops with their MFCC."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.data.dataprocess.syncnet.syncnet_process import SyncNetProcess
from talkingface.data.dataset.base import TalkingFaceDataset
from talkingface.data.face.series import starts_within_runs
from talkingface.data.media.images import read_image
from talkingface.data.media.mfcc import AUDIO_STEPS, WINDOW, warped_mfcc
from talkingface.data.npz import read_npy
from talkingface.utils.env import import_cv2

if TYPE_CHECKING:
    from talkingface.config.config import Config

# Standard deviation of the mean MFCC of a recording over recordings: voice, level and microphone.
_SPREAD = np.array([2.0, 3, 3, 7, 6, 7, 6, 5, 7, 6, 4, 5, 3])


@dataclass(frozen=True)
class _Clip:
    id: str
    folder: Path
    mfcc: np.ndarray
    starts: np.ndarray


class SyncNetDataset(TalkingFaceDataset):
    """Every clip gives ``data.windows_per_clip`` items per epoch, each with a random start."""

    needs_config = ("data.augment", "data.vary", "data.frames", "data.windows_per_clip")

    batch_spec = {
        "frames": "B 3 T S S uint8, BGR",
        "mfcc": "B 13 4T+4 float32; frame v begins at column 4v",
    }

    def __init__(self, cfg: Config, split: str) -> None:
        self.length = cfg.data.frames
        self.columns = 4 * (self.length - WINDOW) + AUDIO_STEPS  # MFCC columns of an item
        super().__init__(cfg, split)

    def build_index(self) -> list[_Clip]:
        process = SyncNetProcess(self.cfg)
        names, self.unusable = process.prepared.usable(self.split)
        clips = []
        for name in names:
            folder = process.folder / name
            mfcc, segments = read_npy(folder / "mfcc.npy"), read_npy(folder / "segments.npy")
            last = min(len(segments), (mfcc.shape[1] - self.columns) // 4 + self.length)
            starts = starts_within_runs(segments[: max(last, 0)], self.length)
            if len(starts):
                clips.append(_Clip(name, folder, mfcc, starts))
            else:
                self.unusable[name] = f"no {self.length} consecutive frames with face and audio"
        return [clip for clip in clips for _ in range(self.cfg.data.windows_per_clip)]

    def summary(self) -> dict[str, Any]:
        clips = {clip.id for clip in self.index}
        return {"clips": len(clips), "unusable": len(self.unusable), "items": len(self)}

    def load_item(self, entry: _Clip, rng: np.random.Generator) -> dict[str, Any]:
        start = int(rng.choice(entry.starts))
        numbers = range(start, start + self.length)
        frames = np.stack([read_image(entry.folder / f"{n}.jpg")[..., ::-1] for n in numbers])
        mfcc = entry.mfcc[:, 4 * start : 4 * start + self.columns]
        training = self.split == "train"
        if training and self.cfg.data.augment:
            frames = _augmented(frames, rng)
        if training and self.cfg.data.vary:
            if (strength := rng.uniform(-1, 1)) > 0:  # half of the items stay, or it learns late
                frames = _another_camera(frames, strength, rng)
                mfcc = _another_voice(mfcc, strength, rng)
        return {
            "frames": np.ascontiguousarray(frames.transpose(3, 0, 1, 2)),
            "mfcc": mfcc,
            "clip_id": entry.id,
        }


def _augmented(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(T,S,S,3) with random mirroring, shift (5 %), scale (10 %) and brightness (20 %)."""
    cv2 = import_cv2()
    side = frames.shape[1]
    scale, gain = rng.uniform(0.9, 1.1), rng.uniform(0.8, 1.2)
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    centre, shift = (side - 1) / 2, rng.uniform(-0.05, 0.05, 2) * side
    factors = np.array([mirror * scale, scale])
    matrix = np.column_stack([np.diag(factors), centre - factors * centre + shift])
    table = np.clip(np.arange(256) * gain, 0, 255).astype(np.uint8)
    options = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REPLICATE}
    moved = [cv2.warpAffine(frame, matrix, (side, side), **options) for frame in frames]
    return table[np.stack(moved)]


def _another_camera(frames: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """(T,S,S,3) with random rotation (10 degrees), colours, contrast, sharpness and noise."""
    cv2 = import_cv2()
    side = frames.shape[1]
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2,) * 2, strength * rng.uniform(-10, 10), 1.0)
    options = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REPLICATE}
    small = round(side * (1 - strength * rng.uniform(0, 0.65)))
    levels = np.arange(256) / 255.0
    gains, gamma = 1 + strength * rng.uniform(-0.2, 0.25, 3), 1 + strength * rng.uniform(-0.3, 0.4)
    table = np.stack([np.clip(255 * levels**gamma * gain, 0, 255) for gain in gains], -1)
    grey, noise = rng.random() < 0.3, strength * rng.uniform(0, 6)
    changed = []
    for frame in frames:
        frame = cv2.warpAffine(frame, matrix, (side, side), **options)
        frame = cv2.resize(frame, (small, small), interpolation=cv2.INTER_AREA)
        frame = cv2.resize(frame, (side, side), interpolation=cv2.INTER_LINEAR)
        frame = np.take_along_axis(table, frame.reshape(-1, 3), 0).reshape(frame.shape)
        frame = frame.mean(-1, keepdims=True).repeat(3, -1) if grey else frame
        frame = frame + noise * rng.standard_normal(frame.shape, np.float32)
        changed.append(np.clip(frame, 0, 255).astype(np.uint8))
    return np.stack(changed)


def _another_voice(mfcc: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """(13,C) with random vocal tract length (15 %), loudness, microphone and noise."""
    mfcc = warped_mfcc(mfcc, 1 + strength * rng.uniform(-0.15, 0.18))
    microphone = strength * rng.normal(0, 1, (len(mfcc), 1)) * _SPREAD[:, None]
    noise = strength * rng.uniform(0, 0.3) * rng.normal(0, 1, mfcc.shape) * _SPREAD[:, None]
    return (mfcc + microphone + noise).astype(np.float32)
