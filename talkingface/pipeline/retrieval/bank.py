"""The stored mouths of a person: frames of a video, or prepared clips of the dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from talkingface.data.face.align import CROP_POINTS, crop_rows
from talkingface.data.face.mouth_shapes import HeadFrame
from talkingface.data.face.series import fill_gaps
from talkingface.data.face.topology import LIPS
from talkingface.data.face.tracking import FaceTrack
from talkingface.data.media.images import read_image
from talkingface.data.media.mel import COLUMNS_PER_SECOND, sound_rows, wav2lip_mel
from talkingface.data.media.reader import read_frames
from talkingface.data.npz import read_npy, read_npz
from talkingface.errors import DataError

MAX_FRAMES = 6000  # the search compares every output frame with every stored one
_PIECE = 25  # consecutive frames that are kept or left out together in a larger bank
_LIP_ROWS = crop_rows(LIPS)
_MARGIN = 0.5  # of the kept pixels around the lips, as a share of their width


@dataclass(frozen=True)
class Patch:
    """A picture that shows a mouth, (H,W,3) uint8 RGB, and its points (K,2) in px of it."""

    image: np.ndarray
    points: np.ndarray


@dataclass(frozen=True)
class _Part:
    """Stored frames of one video: their numbers (n,) in it, points (n,K,3) and sound (n,720)."""

    numbers: np.ndarray
    points: np.ndarray
    rows: np.ndarray
    read: Callable[[np.ndarray], Iterator[tuple[int, Patch]]]


class MouthBank:
    """Frames whose mouths can be shown.

    Args:
        parts: one or several videos of the same person.
        own: the frames are those of the video that is dubbed.
        steady: the frame rate is that of the output, so that sequences can be played.

    Attributes:
        head: head coordinates of the person.
        shapes: (N,41,3), see ``HeadFrame.shapes``.
        rotation: (N,3,3) of the head.
        rows: (N,720) sound, see ``sound_rows``.
        numbers: (N,) frame numbers in their video.
        follows: (N,) whether frame k+1 is the next one of the same video.
    """

    def __init__(self, parts: list[_Part], *, own: bool, steady: bool = True) -> None:
        stride = max(1, -(-sum(len(part.numbers) for part in parts) // MAX_FRAMES))
        if stride > 1:
            parts = _thinned(parts, stride)
        self.own = own
        points = np.concatenate([part.points for part in parts])
        self.head = HeadFrame.of(points)
        self.shapes = self.head.shapes(points)
        self.rotation = self.head.poses(points).rotation
        self.rows = np.concatenate([part.rows for part in parts])
        self.numbers = np.concatenate([part.numbers for part in parts])
        part_of = np.repeat(np.arange(len(parts)), [len(part.numbers) for part in parts])
        follows = (np.diff(self.numbers) == 1) & (np.diff(part_of) == 0) & steady
        self.follows = np.append(follows, False)
        self._parts = parts
        self._starts = np.concatenate([[0], np.cumsum([len(part.numbers) for part in parts])])

    def __len__(self) -> int:
        return len(self.numbers)

    def patches(self, frames: Iterable[int]) -> dict[int, Patch]:
        """The pictures of stored frames, by index."""
        wanted = np.unique(np.asarray(list(frames), int))
        found: dict[int, Patch] = {}
        for part, (start, stop) in zip(self._parts, pairwise(self._starts), strict=True):
            inside = wanted[(wanted >= start) & (wanted < stop)] - start
            if len(inside):
                found.update((int(start + k), patch) for k, patch in part.read(inside))
        return found


def _thinned(parts: list[_Part], stride: int) -> list[_Part]:
    """Every ``stride``-th piece of all parts together; pieces, so that sequences remain."""
    result, pieces = [], 0
    for part in parts:
        piece = np.arange(len(part.numbers)) // _PIECE + pieces
        pieces = int(piece[-1]) + 1 if len(piece) else pieces
        kept = np.flatnonzero(piece % stride == 0)
        if len(kept):
            result.append(_selected(part, kept))
    return result


def _selected(part: _Part, kept: np.ndarray) -> _Part:
    """A part with some of its frames, given by ascending indices."""
    return _Part(
        part.numbers[kept],
        part.points[kept],
        part.rows[kept],
        lambda inside: ((int(np.searchsorted(kept, k)), p) for k, p in part.read(kept[inside])),
    )


def _visible(part: _Part, sizes: np.ndarray) -> _Part:
    """The frames whose lips are inside the picture; sizes (n,2) or (2,) of the pictures in px."""
    lips = part.points[:, _LIP_ROWS, :2]
    ends = np.broadcast_to(sizes, (len(lips), 2))[:, None]
    inside = ((lips >= 0) & (lips <= ends)).all((1, 2))
    return _selected(part, np.flatnonzero(inside))


def bank_of_video(path: Path, track: FaceTrack, wave: np.ndarray, fps: float) -> MouthBank:
    """All frames of a tracked video in which nothing covers the mouth.

    Args:
        wave: its sound, mono 16 kHz.

    Raises:
        DataError: the lips are never inside the picture.
    """
    numbers = np.flatnonzero(track.found & ~track.covered)
    points = track.landmarks[numbers][:, CROP_POINTS].astype(np.float64)
    rows = sound_rows(wav2lip_mel(wave), len(track), fps)[numbers]

    def read(inside: np.ndarray) -> Iterator[tuple[int, Patch]]:
        place = {int(numbers[k]): int(k) for k in inside}
        last = max(place)
        for number, frame in enumerate(read_frames(path, fps=fps)):
            if number in place:
                yield place[number], cut_out(frame, points[place[number], :, :2])
            if number == last:
                return

    part = _visible(_Part(numbers, points, rows, read), track.size)
    if not len(part.numbers):
        raise DataError(f"{path.name}: the lips are outside the picture in all frames")
    return MouthBank([part], own=True)


def bank_of_clips(folders: list[Path], fps: float, output_fps: float) -> MouthBank | None:
    """Frames of clips of one person that ``FaceCropProcess`` has prepared; None without any.

    Args:
        fps: frame rate of the preparation; clips with another one or of an earlier version of the
            preparation are left out.
    """
    parts = []
    for folder in folders:
        try:
            parts.append(_part_of_clip(folder, fps))
        except (DataError, KeyError, ValueError):  # reported when the clip is trained on
            continue
    parts = [part for part in parts if len(part.numbers)]
    steady = abs(fps / output_fps - 1) < 0.1
    return MouthBank(parts, own=False, steady=steady) if parts else None


def _part_of_clip(folder: Path, fps: float) -> _Part:
    data, points = read_npz(folder / "face.npz"), read_npy(folder / "points.npy")
    mel = read_npy(folder / "mel.npy")
    if points.shape[1] != len(CROP_POINTS):
        raise ValueError("prepared by an earlier version")
    expected = mel.shape[1] / COLUMNS_PER_SECOND * fps
    if abs(len(points) - expected) > 3 + 0.02 * expected:
        raise ValueError("prepared with another frame rate")
    rows = sound_rows(mel, len(points), fps)
    numbers, sizes = np.flatnonzero(data["found"]), data["sizes"]
    points = fill_gaps(points)[numbers]

    def read(inside: np.ndarray) -> Iterator[tuple[int, Patch]]:
        for k in inside.tolist():
            number = int(numbers[k])
            image = read_image(folder / f"{number}.jpg")
            scale = np.array(image.shape[1::-1]) / sizes[number]
            yield k, cut_out(image, (points[k, :, :2] + 0.5) * scale - 0.5)

    return _visible(_Part(numbers, points, rows[numbers], read), sizes[numbers])


def cut_out(image: np.ndarray, points: np.ndarray) -> Patch:
    """The surroundings of the lips, so that a long video fits into memory."""
    lips = points[_LIP_ROWS]
    margin = _MARGIN * np.ptp(lips[:, 0])
    size = np.array(image.shape[1::-1])
    x0, y0 = np.clip(np.floor(lips.min(0) - margin), 0, size - 2).astype(int)
    x1, y1 = np.clip(np.ceil(lips.max(0) + margin) + 1, (x0 + 2, y0 + 2), size).astype(int)
    return Patch(image[y0:y1, x0:x1].copy(), points - (x0, y0))
