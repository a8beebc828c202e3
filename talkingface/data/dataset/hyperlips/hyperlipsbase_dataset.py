"""Training items of HyperLips stage 1 and of the sync expert (semchan/HyperLips)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.data.dataprocess.face_crops import FaceCropProcess
from talkingface.data.dataset.base import TalkingFaceDataset
from talkingface.data.face.align import open_frames, turn_face
from talkingface.data.face.boxes import resize_image
from talkingface.data.face.series import starts_within_runs
from talkingface.data.media.jpeg import require_intact
from talkingface.data.media.mel import WINDOW, window_start
from talkingface.data.npz import read_npy, read_npz
from talkingface.errors import DataError
from talkingface.utils.env import import_cv2
from talkingface.utils.limits import require_resources

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)

# Share of a clip's frames, those with the widest open mouth, for reference=open; not measured.
_OPEN = 0.2


@dataclass(frozen=True)
class PreparedClip:
    """One prepared clip.

    Attributes:
        mel: (80, columns) float32.
        sizes: (T,2) width and height of the face boxes in px.
        starts: first frames of the windows for which all face crops and mels exist.
        references: the ``starts`` from which reference windows are drawn.
    """

    id: str
    folder: Path
    mel: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    references: np.ndarray


def valid_starts(
    segments: np.ndarray, columns: int, *, fps: float, length: int, offset: int
) -> np.ndarray:
    """First frames of windows within one segment for which all face crops and mels exist.

    Args:
        segments: (T,) label of each frame, -1 for frames without a face crop.
        columns: columns of the mel spectrogram.
        length: frames per window.
        offset: the mel window of frame i is that of frame i + offset.
    """
    starts = starts_within_runs(segments, length)
    last = [window_start(max(s, s + length - 1 + offset), fps) + WINDOW for s in starts.tolist()]
    return starts[(starts + offset >= 0) & (np.array(last) <= columns)]


class HyperLipsBaseDataset(TalkingFaceDataset):
    """Windows of consecutive frames with their mels and a reference window of the same clip.

    Images are BGR in 0..1, as the official weights expect. With ``data.fine`` > 1 an item also has
    ``fine_frames``, ``input_frames`` enlarged by this factor, and ``gt`` has their size. Every
    clip gives ``data.windows_per_clip`` items per epoch, with windows drawn from (seed, epoch,
    index).
    """

    needs_config = (
        "audio",
        "data.allow_overlap",
        "data.mel_frame_offset",
        "data.syncnet_T",
        "data.windows_per_clip",
        "fps",
        "model_params.image_size",
    )

    batch_spec = {
        "input_frames": "B 6 T H W float32 [0,1]; 0-2 target, lower half zero, 3-5 reference",
        "indiv_mels": "B T 1 80 16 float32 [-4,4]",
        "mels": "B 1 80 16 float32 [-4,4]; of the whole window, for the sync expert",
        "gt": "B 3 T H W float32 [0,1]; with data.fine larger by this factor",
    }

    def __init__(self, cfg: Config, split: str) -> None:
        self.length = cfg.data.syncnet_T
        self.offset = cfg.data.mel_frame_offset
        self.clips: list[PreparedClip] = []
        super().__init__(cfg, split)

    def build_index(self) -> list[int]:
        """One entry, the index of a clip, per item of an epoch."""
        process = FaceCropProcess(self.cfg)
        names, self.unusable = process.prepared.usable(self.split)
        for name in names:
            self._add_clip(name, process.folder / name)
        if self.unusable:
            log.info(
                "%s: %d listed clips are not usable, e.g. %s",
                self.split,
                len(self.unusable),
                "; ".join(f"{k}: {v}" for k, v in list(self.unusable.items())[:2]),
            )
        repeats = self.cfg.data.windows_per_clip
        return [number for number in range(len(self.clips)) for _ in range(repeats)]

    def _add_clip(self, name: str, folder: Path) -> None:
        try:
            mel, data = read_npy(folder / "mel.npy"), read_npz(folder / "face.npz")
            segments, sizes = np.where(data["found"], data["segments"], -1), data["sizes"]
        except (DataError, KeyError, ValueError) as error:
            self.unusable[name] = f"damaged: {error}"
            return
        starts = valid_starts(
            segments, mel.shape[1], fps=self.cfg.fps, length=self.length, offset=self.offset
        )
        if not self.cfg.data.allow_overlap and len(starts):
            # Windows for which there is a reference window without overlap.
            distance = np.maximum(starts - starts[0], starts[-1] - starts)
            starts = starts[distance >= self.length]
        if len(starts) < 2:
            self.unusable[name] = "fewer than two windows with face and audio"
            return
        references = starts
        if getattr(self.cfg.data, "reference", "any") == "open":
            references = self._open(folder, starts)
            far = np.abs(starts[:, None] - references).max(axis=1) >= self._distance
            starts = starts[far]
        self.clips.append(PreparedClip(name, folder, mel, sizes, starts, references))

    def _open(self, folder: Path, starts: np.ndarray) -> np.ndarray:
        """Those of the windows whose mouth is widest open, at least two without overlap."""
        points = read_npy(folder / "points.npy", mmap=True)[starts]
        chosen = starts[open_frames(points, _OPEN)]
        if chosen[-1] - chosen[0] < 2 * self.length:  # all at one moment of the clip
            chosen = np.unique([starts[0], *chosen, starts[-1]])
        return chosen

    def summary(self) -> dict[str, Any]:
        windows = sum(len(clip.starts) for clip in self.clips)
        return {
            "clips": len(self.clips),
            "unusable": len(self.unusable),
            "windows": windows,
            "seconds": round(windows / self.cfg.fps, 1),
            "items": len(self),
        }

    # -- items ------------------------------------------------------------------------------------

    def load_item(self, entry: int, rng: np.random.Generator) -> dict[str, Any]:
        clip = self.clips[entry]
        start = int(rng.choice(clip.starts))
        first = self.draw_reference(clip, start, rng)
        names, sizes = ["input_frames"], [self.cfg.model_params.image_size]
        if (factor := getattr(self.cfg.data, "fine", 1)) > 1:
            names, sizes = [*names, "fine_frames"], [*sizes, factor * sizes[0]]
        targets, references = (self.read_window(clip, k, *sizes) for k in (start, first))
        if getattr(self.cfg.data, "align_reference", False):
            references = [self._aligned(clip, video, first, start) for video in references]
        if self.split == "train" and getattr(self.cfg.data, "augment", False):
            change = _random_change(rng)
            targets, references = ([change(v) for v in part] for part in (targets, references))
        inputs = []
        for target, reference in zip(targets, references, strict=True):
            masked = target.copy()
            masked[:, :, masked.shape[2] // 2 :] = 0
            inputs.append(np.concatenate([masked, reference]))
        return {
            **dict(zip(names, inputs, strict=True)),
            "indiv_mels": self.frame_mels(clip, start),
            "mels": self.mel_at(clip, start)[None],
            "gt": targets[-1],
            "clip_id": clip.id,
        }

    def draw_reference(self, clip: PreparedClip, start: int, rng: np.random.Generator) -> int:
        """First frame of the reference window; without overlap, so that nothing can be copied."""
        far = np.abs(clip.references - start) >= self._distance
        return int(rng.choice(clip.references[far]))

    @property
    def _distance(self) -> int:
        """Smallest distance of target and reference window, in frames."""
        return 1 if self.cfg.data.allow_overlap else self.length

    def _aligned(self, clip: PreparedClip, video: np.ndarray, first: int, start: int) -> np.ndarray:
        """(3,T,S,S): each frame of a window with the head pose of the window at ``start``."""
        points = read_npy(clip.folder / "points.npy", mmap=True)
        frames = [
            turn_face(frame, *(v[k + j] for k in (first, start) for v in (points, clip.sizes)))
            for j, frame in enumerate(np.ascontiguousarray(video.transpose(1, 2, 3, 0)))
        ]
        return np.stack(frames).transpose(3, 0, 1, 2)

    def read_window(self, clip: PreparedClip, start: int, *sizes: int) -> list[np.ndarray]:
        """(3, T, S, S) float32 BGR in 0..1 for each of the sizes S."""
        crops = [self.read_crop(clip, start + j) for j in range(self.length)]
        videos = [np.stack([resize_image(crop, size) for crop in crops]) for size in sizes]
        return [video.transpose(3, 0, 1, 2).astype(np.float32) / 255.0 for video in videos]

    def read_crop(self, clip: PreparedClip, number: int) -> np.ndarray:
        """One stored crop, BGR uint8.

        Raises:
            DataError: the file is missing or damaged.
        """
        cv2 = import_cv2()
        path = clip.folder / f"{number}.jpg"
        try:
            data = np.fromfile(path, np.uint8)
            require_intact(data.data, path)
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        except (OSError, cv2.error) as error:
            require_resources(error)
            image = None
        if image is None:
            raise DataError(
                f"{path} is missing or damaged. Delete the folder {clip.folder} and run the stage "
                "preprocess again."
            )
        return image

    def mel_at(self, clip: PreparedClip, frame: int) -> np.ndarray:
        """(80, 16) mel window of a frame."""
        column = window_start(frame, self.cfg.fps)
        return clip.mel[:, column : column + WINDOW]

    def frame_mels(self, clip: PreparedClip, start: int) -> np.ndarray:
        """(T, 1, 80, 16): the mel window of each frame, shifted by ``data.mel_frame_offset``."""
        windows = [self.mel_at(clip, start + j + self.offset) for j in range(self.length)]
        return np.stack(windows)[:, None]


def _random_change(rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """A change of light and side, the same for all pictures (3,T,S,S) of an item."""
    mirrored = rng.random() < 0.5
    gain, gamma = rng.uniform(0.85, 1.15, (3, 1, 1, 1)), rng.uniform(0.8, 1.25)

    def change(video: np.ndarray) -> np.ndarray:
        video = video[..., ::-1] if mirrored else video
        return np.clip(video**gamma * gain, 0, 1).astype(np.float32)

    return change


class SyncExpertDataset(HyperLipsBaseDataset):
    """Positive and negative pairs of five frames and a mel window (official code).

    Half of the items are positive pairs. In a negative pair, the frames come from the same clip,
    shifted by at least ``data.min_shift`` frames.
    """

    needs_config = ("data.min_shift",)

    batch_spec = {
        "faces": "B 15 64 128 float32 [0,1]; five BGR lower halves, frame-major",
        "mels": "B 1 80 16 float32 [-4,4]",
        "label": "B float32, 1 = in sync",
    }

    def load_item(self, entry: int, rng: np.random.Generator) -> dict[str, Any]:
        clip = self.clips[entry]
        start = int(rng.choice(clip.starts))
        label = float(rng.random() < 0.5)
        face_start = start
        if not label:
            shifted = clip.starts[np.abs(clip.starts - start) >= self.cfg.data.min_shift]
            if len(shifted):
                face_start = int(rng.choice(shifted))
            else:
                label = 1.0  # the clip is too short for a negative pair
        (window,) = self.read_window(clip, face_start, self.cfg.model_params.image_size)
        if self.split == "train" and rng.random() < 0.5:
            window = window[..., ::-1]  # mirrors all frames; the official code always does
        halves = window.transpose(1, 0, 2, 3)[:, :, window.shape[2] // 2 :]
        size = (128, 64)
        faces = [resize_image(np.ascontiguousarray(f.transpose(1, 2, 0)), size) for f in halves]
        return {
            "faces": np.concatenate([face.transpose(2, 0, 1) for face in faces]),
            "mels": self.mel_at(clip, start)[None],
            "label": np.float32(label),
            "clip_id": clip.id,
        }
