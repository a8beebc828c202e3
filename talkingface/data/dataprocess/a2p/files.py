"""Files of a scene in the layout of audio2photoreal, and statistics of the training data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.clips import Clip
from talkingface.data.npz import read_npy, read_npz, save_npz
from talkingface.data.scenes import FACE, LIPS, MISSING, POSE, SAMPLE_RATE, SOUND
from talkingface.errors import DataError
from talkingface.utils.env import require
from talkingface.utils.limits import require_resources

STATS = "data_stats.pth"
LEAST_STD = 1e-4


@dataclass(frozen=True)
class SceneFiles:
    """Paths of the files of a scene.

    Attributes:
        pose: (T,104) poses, None for videos.
        face: (T,C) face codes.
        missing: (n,) numbers of the frames with an invalid face code.
        sound: wav with two channels: this person, the partner.
        lips: (T,V,3) lip points, None without them.
    """

    id: str
    pose: Path | None
    face: Path
    missing: Path
    sound: Path
    lips: Path | None = None

    @classmethod
    def of_folder(cls, folder: Path, name: str) -> SceneFiles:
        """A scene of the released layout."""
        lips = folder / f"{name}{LIPS}"
        paths = (folder / f"{name}{end}" for end in (POSE, FACE, MISSING, SOUND))
        return cls(name, *paths, lips if lips.is_file() else None)


def find_scenes(folder: Path) -> list[Clip]:
    """Scenes of a folder by their body poses, sorted; a clip's id is the scene's name."""
    scenes = []
    for path in sorted(folder.glob(f"*{POSE}")):
        name = path.name.removesuffix(POSE)
        sound = folder / f"{name}{SOUND}"  # a missing file is reported when the scene is checked
        scenes.append(Clip(name, path, sound if sound.is_file() else path, folder.name, name))
    return scenes


def load_array(path: Path, width: tuple[int, ...] | None = None) -> np.ndarray:
    """Read a numeric array (T,...) as a memory map.

    Args:
        width: required shape without the first axis; None: any.

    Raises:
        DataError: the file is missing or damaged, has another shape, or holds no numbers.
    """
    values = read_npy(path, mmap=True, remedy="Copy it again.")
    if width is not None and values.shape[1:] != width:
        needed = ", ".join(map(str, width))
        raise DataError(f"{path.name} has the shape {values.shape}; (T, {needed}) is needed")
    if values.dtype.kind not in "fiu":
        raise DataError(f"{path.name} holds {values.dtype}, no numbers")
    return values


def missing_frames(path: Path, count: int) -> np.ndarray:
    """(T,) bool, True in frames without a valid face code.

    Raises:
        DataError: the file holds numbers that are not integers, or frames outside the scene.
    """
    listed = np.asarray(load_array(path)).reshape(-1)
    numbers = listed.astype(np.int64)  # an empty list may have been saved as floats
    if not np.array_equal(numbers, listed):
        raise DataError(f"{path.name} holds numbers that are not integers")
    if len(numbers) and not (numbers.min() >= 0 and numbers.max() < count):
        raise DataError(f"{path.name} names frame {numbers.max()} of {count}")
    result = np.zeros(count, bool)
    result[numbers] = True
    return result


def sound_facts(path: Path) -> tuple[int, int, int]:
    """Sample rate, channels and samples of a wav file.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    soundfile = require("soundfile", why="Two-channel sound")
    if not path.is_file():
        raise DataError(f"{path.name} is missing in {path.parent}")
    try:
        info = soundfile.info(str(path))
    except soundfile.LibsndfileError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return info.samplerate, info.channels, info.frames


def read_sound(path: Path, start: int, count: int) -> np.ndarray:
    """Read ``count`` samples from sample ``start`` on: (count,2) float32."""
    soundfile = require("soundfile", why="Two-channel sound")
    try:
        with soundfile.SoundFile(str(path)) as file:
            file.seek(start)
            return file.read(count, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def check_sound(path: Path, frames: int, fps: float) -> None:
    """Raise DataError unless a wav file has 48 kHz, two channels and the length of the motion."""
    rate, channels, samples = sound_facts(path)
    expected = round(frames * SAMPLE_RATE / fps)
    if rate != SAMPLE_RATE:
        raise DataError(f"{path.name} has {rate} samples per second; {SAMPLE_RATE} are needed")
    if channels != 2:
        raise DataError(
            f"{path.name} has {channels} channel(s); 2 are needed, this person and the partner"
        )
    if samples != expected:
        raise DataError(
            f"{path.name} has {samples} samples, but {frames} frames need {expected} "
            f"({SAMPLE_RATE / fps:g} per frame)"
        )


@dataclass(frozen=True)
class Stats:
    """Mean and standard deviation of motion and sound over the training scenes.

    ``audio_std_flat`` is one number for both channels, ``lips_std`` one for all points.
    """

    code_mean: np.ndarray
    code_std: np.ndarray
    audio_mean: np.ndarray
    audio_std_flat: np.ndarray
    pose_mean: np.ndarray | None = None
    pose_std: np.ndarray | None = None
    lips_mean: np.ndarray | None = None
    lips_std: np.ndarray | None = None

    def content(self) -> dict[str, np.ndarray]:
        """The values that exist, by official name."""
        return {key: value for key, value in vars(self).items() if value is not None}

    @classmethod
    def of_content(cls, content: Mapping[str, Any], source: object = "the statistics") -> Stats:
        """From values by official name; unknown keys, which released files have, are ignored.

        Raises:
            DataError: a required key is missing.
        """
        names = [field.name for field in fields(cls)]
        values = {n: np.asarray(content[n], np.float32) for n in names if n in content}
        for name in values.keys() - {"lips_mean"}:
            values[name] = values[name].reshape(-1)
        lacking = {"code_mean", "code_std", "audio_mean", "audio_std_flat"} - values.keys()
        if lacking:
            raise DataError(f"{source}: it lacks {', '.join(sorted(lacking))}")
        return cls(**values)

    def save(self, path: Path) -> None:
        save_npz(path, self.content())

    @classmethod
    def read(cls, path: Path) -> Stats:
        """Read an ``.npz`` of :meth:`save`, or the released ``data_stats.pth``.

        Raises:
            DataError: the file is missing, damaged or incomplete.
        """
        if path.suffix != ".npz":
            return cls._read_released(path)
        return cls.of_content(read_npz(path), path)

    @classmethod
    def _read_released(cls, path: Path) -> Stats:
        import pickle

        import torch
        from numpy._core.multiarray import _reconstruct, scalar

        # The file is a pickled dictionary of numpy arrays; only their types are allowed.
        known = [_reconstruct, scalar, np.ndarray, np.dtype]
        known += [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?")]
        # Files written with numpy 1 name these functions by their old module.
        known += [(f, f"numpy.core.multiarray.{f.__name__}") for f in (_reconstruct, scalar)]
        try:
            with torch.serialization.safe_globals(known):
                content = torch.load(path, map_location="cpu", weights_only=True)
            return cls.of_content(content, path)
        except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
            require_resources(error)
            raise DataError(f"{path} cannot be read: {error}") from error

    def sound(self, samples: np.ndarray) -> np.ndarray:
        """(S,2) samples -> standardised samples."""
        return ((samples - self.audio_mean) / self.audio_std_flat).astype(np.float32)

    def natural_sound(self, sound: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`sound`."""
        return (sound * self.audio_std_flat + self.audio_mean).astype(np.float32)

    def units(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of ``face``, ``pose`` or ``lips``.

        Raises:
            DataError: the data has no motion of this kind.
        """
        name = "code" if kind == "face" else kind
        mean, std = getattr(self, f"{name}_mean"), getattr(self, f"{name}_std")
        if mean is None or std is None:
            raise DataError(f"there are no statistics of the {kind}: the data has none")
        return mean, np.maximum(std, LEAST_STD)


class Moments:
    """Mean and standard deviation per column of rows that are added in parts."""

    def __init__(self) -> None:
        self.count = 0
        self.sum: Any = 0.0
        self.squares: Any = 0.0

    def add(self, rows: np.ndarray) -> None:
        rows = np.asarray(rows, np.float64)
        self.count += len(rows)
        self.sum = self.sum + rows.sum(axis=0)
        self.squares = self.squares + np.square(rows).sum(axis=0)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation per column, the latter at least 1e-4."""
        mean = self.sum / max(self.count, 1)
        variance = np.maximum(self.squares / max(self.count, 1) - mean**2, 0)
        return mean.astype(np.float32), np.maximum(np.sqrt(variance), LEAST_STD).astype(np.float32)


def wrapped(pose: np.ndarray) -> np.ndarray:
    """Poses with the root's yaw (column 3) wrapped to 0..2 pi; the released loader does this for
    two of the four persons, before the statistics."""
    pose = np.array(pose, np.float32)
    pose[:, 3] = np.mod(pose[:, 3], 2 * np.pi)
    return pose


def learn_stats(scenes: Iterable[SceneFiles], wrap: bool = False) -> Stats:
    """Compute the statistics of training scenes; frames without a valid face do not count.

    Args:
        wrap: see :func:`wrapped`.
    """
    face, pose, sound, lips = Moments(), Moments(), Moments(), Moments()
    for scene in scenes:
        codes = load_array(scene.face)
        valid = ~missing_frames(scene.missing, len(codes))
        face.add(codes[valid])
        if scene.pose is not None:
            own = np.asarray(load_array(scene.pose))
            pose.add(wrapped(own) if wrap else own)
        if scene.lips is not None:
            lips.add(load_array(scene.lips)[valid])
        _, _, samples = sound_facts(scene.sound)
        for start in range(0, samples, 60 * SAMPLE_RATE):
            sound.add(read_sound(scene.sound, start, 60 * SAMPLE_RATE))
    audio_mean, audio_std = sound.result()
    flat = np.sqrt(np.mean(audio_std**2, keepdims=True), dtype=np.float32)
    stats = [*face.result(), audio_mean, flat, *(pose.result() if pose.count else (None, None))]
    if lips.count:
        mean, std = lips.result()
        stats += [mean, np.sqrt(np.mean(std**2)).reshape(1).astype(np.float32)]
    return Stats(*stats)
