"""The pictures of a clip in one HDF5 file, as JPEG or PNG, read by index.

The layout is that of Live Speech Portraits: a dataset of bytes, named like the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.media.jpeg import require_intact, with_checksum
from talkingface.errors import DataError
from talkingface.utils.env import import_cv2, require
from talkingface.utils.limits import require_resources
from talkingface.utils.paths import atomic


def encode_jpeg(rgb: np.ndarray, quality: int) -> bytes:
    """Encode (H,W,3) uint8 RGB as JPEG."""
    flag = import_cv2().IMWRITE_JPEG_QUALITY
    return _encode(rgb[..., ::-1], ".jpg", [flag, quality])


def encode_png(picture: np.ndarray) -> bytes:
    """Encode (H,W,3) uint8 RGB or (H,W) uint8 as PNG, which is lossless."""
    flag = import_cv2().IMWRITE_PNG_COMPRESSION
    return _encode(picture[..., ::-1] if picture.ndim == 3 else picture, ".png", [flag, 1])


def _encode(pixels: np.ndarray, suffix: str, options: list[int]) -> bytes:
    done, data = import_cv2().imencode(suffix, pixels, options)
    if not done:
        raise DataError(f"a picture could not be encoded as {suffix}")
    return with_checksum(data.tobytes()) if suffix == ".jpg" else data.tobytes()


def signed(pictures: np.ndarray) -> np.ndarray:
    """(S,S,C) uint8 to (C,S,S) float32 in -1..1."""
    return pictures.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1


def write_pictures(path: Path, pictures: Iterable[bytes], rows: np.ndarray | None = None) -> int:
    """Write encoded pictures to an HDF5 file and return their number.

    The records have variable length: fixed-length strings would lose zeros at the end of a JPEG.

    Args:
        rows: (N,) picture index of each motion frame at 60 Hz; None: picture i is frame i.
    """
    h5py = require("h5py", why="The picture store")
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        kind = h5py.special_dtype(vlen=np.uint8)
        store = file.create_dataset(path.stem, (0,), kind, maxshape=(None,), chunks=(16,))
        count = 0
        for count, data in enumerate(pictures, 1):
            store.resize((count,))
            store[count - 1] = np.frombuffer(data, np.uint8)
        if rows is not None:
            store.attrs["frame_at_60hz"] = rows.astype(np.int32)
    return count


@lru_cache(maxsize=64)  # open files; operating systems allow about 1000 per process
def _opened(process: int, path: Path) -> Any:
    """The HDF5 file, opened once per process: a forked data loader must not share the trainer's
    file handle. h5py closes a file with the last reference to it."""
    h5py = require("h5py", why="The picture store")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        require_resources(error)
        raise DataError(f"{path} cannot be opened as HDF5: {error}") from error


class PictureReader:
    """Source frames of a clip by index."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def _store(self) -> Any:
        file = _opened(os.getpid(), self.path)
        if self.path.stem not in file:
            names = ", ".join(file)
            raise DataError(f"{self.path} has no dataset '{self.path.stem}', only: {names}")
        return file[self.path.stem]

    def __len__(self) -> int:
        return len(self._store)

    def rows(self) -> np.ndarray:
        """(N,) picture index of each motion frame."""
        rows = self._store.attrs.get("frame_at_60hz")
        return np.arange(len(self)) if rows is None else np.asarray(rows)

    def encoded(self) -> list[bytes]:
        """All pictures, still encoded."""
        return [np.asarray(data).tobytes() for data in self._store]

    def __getitem__(self, number: int) -> np.ndarray:
        """(H,W,3) uint8 RGB."""
        cv2 = import_cv2()
        data = np.asarray(self._store[number]).tobytes()
        require_intact(data, f"{self.path}, picture {number}")
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise DataError(f"{self.path}: picture {number} cannot be decoded")
        return image[..., ::-1]
