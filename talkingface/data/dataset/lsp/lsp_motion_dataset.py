"""Training items of Audio2Feature and Audio2Headpose: windows of speech and motion at 60 Hz."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.data.dataprocess.lsp.files import Person
from talkingface.data.dataprocess.lsp.lsp_motion_process import LSPMotionProcess
from talkingface.data.dataprocess.lsp.motion import MOUTH25, pose_vectors
from talkingface.data.dataset.base import ClipDataset
from talkingface.data.media.apc_mel import MOTION_FPS
from talkingface.data.npz import read_npy

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.data.dataprocess.base import Components


@dataclass(frozen=True)
class SpeechClip:
    """A clip in memory.

    Attributes:
        id: of the clip.
        speech: (N,2*hidden) two rows of features per motion frame.
        motion: (N,D) targets.
    """

    id: str
    speech: np.ndarray
    motion: np.ndarray

    def __len__(self) -> int:
        return len(self.motion)

    def pose_window(self, start: int, length: int, field: int, ahead: int) -> dict[str, np.ndarray]:
        """Inputs and targets of Audio2Headpose for ``length`` poses from frame ``start`` on.

        Args:
            field: receptive field. The history begins ``field`` frames before ``start`` and ends
                one frame before the last target.
            ahead: look-ahead; a pose gets the sound up to so many frames after it.
        """
        rows = np.arange(start - field, start + length - 1)
        history = self.motion[np.maximum(rows, 0)].copy()
        history[rows <= 0, 6:] = 0.0  # the repeated first frame does not move
        sound_rows = np.clip(rows + 1 + ahead, 0, len(self) - 1)
        target = self.motion[start : start + length]
        return {"audio": self.speech[sound_rows], "history": history, "target": target}


class MotionDataset(ClipDataset):
    """Windows of ``data.seq_len`` frames, ``data.stride`` apart.

    It is an error if no clip is long enough for a window; the official code then has a dataset of
    zero or negative length.
    """

    needs_config = ("data.items_per_epoch", "data.seq_len", "data.stride")

    uses_components = True
    first = 0  # first frame of the first item of a clip

    def __init__(self, cfg: Config, split: str, components: Components) -> None:
        self.process = LSPMotionProcess(cfg, components)
        super().__init__(cfg, split)

    def build_index(self) -> list[tuple[int, int]]:
        names, self.unusable = self.process.prepared.usable(self.split)
        self.clips = []
        index: list[tuple[int, int]] = []
        stride = self.cfg.data.stride
        for name in names:
            clip = self._load(name)
            starts = range(self.first, self.first + len(clip) - self.needed() + 1, stride)
            if not starts:
                self.unusable[name] = (
                    f"{len(clip)} motion frames ({len(clip) / MOTION_FPS:.1f} s), "
                    f"but an item needs {self.needed()}; use longer clips or lower data.seq_len"
                )
                continue
            index += [(len(self.clips), start) for start in starts]
            self.clips.append(clip)
        self._starts = index
        limit = self.cfg.data.items_per_epoch
        return index[:limit] if limit and self.split == "train" else index

    def needed(self) -> int:
        """Least number of motion frames of a usable clip."""
        return self.cfg.data.seq_len

    def _load(self, name: str) -> SpeechClip:
        clip = self.process.clip(name)
        speech = read_npy(clip.features_path(self.process.apc))
        motion = self.targets(clip)
        count = min(len(speech) // 2, len(motion))
        speech = speech[: 2 * count].reshape(count, -1)
        return SpeechClip(name, speech, motion[:count].astype(np.float32))

    def targets(self, clip: Any) -> np.ndarray:
        """(N,D) targets of a clip."""
        raise NotImplementedError

    def summary(self) -> dict[str, Any]:
        seconds = sum(len(clip) for clip in self.clips) / MOTION_FPS
        return self.counts(seconds=round(seconds), items=len(self))

    def drawn(self, entry: tuple[int, int], rng: np.random.Generator) -> tuple[SpeechClip, int]:
        """Clip and first frame of an item, random with ``items_per_epoch``."""
        if self.cfg.data.items_per_epoch and self.split == "train":
            entry = self._starts[int(rng.integers(len(self._starts)))]
        return self.clips[entry[0]], entry[1]


class Audio2FeatureDataset(MotionDataset):
    """Speech features, and the displacement of 25 points from the person's mean points."""

    batch_spec = {
        "audio": "B F A float32; speech features, two rows side by side per frame",
        "target": "B F 75 float32; displacement of 25 points, x y z each, in eye distances",
    }

    def targets(self, clip: Any) -> np.ndarray:
        person = Person(clip.folder.parents[1])
        moved = clip.points[:, MOUTH25] - person.mean_points[list(MOUTH25)]
        return moved.reshape(len(moved), -1)

    def load_item(self, entry: tuple[int, int], rng: np.random.Generator) -> dict[str, Any]:
        clip, start = self.drawn(entry, rng)
        window = slice(start, start + self.cfg.data.seq_len)
        return {"audio": clip.speech[window], "target": clip.motion[window]}


class Audio2HeadposeDataset(MotionDataset):
    """Speech features, past poses, and the next pose.

    The history has R - 1 + T frames (R: receptive field); the last T outputs predict ``target``.
    The last sound of a target is ``frame_future`` frames after it, as at generation (the official
    dataset is one frame off).
    """

    needs_config = (
        "data.frame_future",
        "data.short_clips",
        "data.skip_end",
        "data.skip_start",
        "model_params.blocks",
        "model_params.layers",
    )

    batch_spec = {
        "audio": "B H A float32; speech features per history frame",
        "history": "B H 12 float32; pose (degrees, camera units) and its change per frame",
        "target": "B F 12 float32; next poses, F = data.seq_len",
    }

    def __init__(self, cfg: Config, split: str, components: Components) -> None:
        size = cfg.model_params
        self.field = 1 + size.blocks * (2**size.layers - 1)
        self.first = cfg.data.skip_start + (self.field if cfg.data.short_clips == "error" else 0)
        super().__init__(cfg, split, components)

    def needed(self) -> int:
        data = self.cfg.data
        return self.first + data.skip_end + data.seq_len + data.frame_future

    def targets(self, clip: Any) -> np.ndarray:
        return pose_vectors(clip.angles, clip.trans, clip.trans.mean(axis=0))

    def load_item(self, entry: tuple[int, int], rng: np.random.Generator) -> dict[str, Any]:
        clip, start = self.drawn(entry, rng)
        data = self.cfg.data
        return clip.pose_window(start, data.seq_len, self.field, data.frame_future)
