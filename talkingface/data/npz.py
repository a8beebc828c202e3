"""Files of arrays: written atomically, and read with an error that names the remedy."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.media.limits import limit
from talkingface.errors import DataError
from talkingface.utils.limits import require_resources
from talkingface.utils.paths import atomic

REMEDY = "Run the stage preprocess again."


def save_npz(path: Path, content: dict[str, Any]) -> None:
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **content)


def _require_size(path: Path) -> None:
    """Refuse a small file whose arrays would fill the memory, or are longer than their entry."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        for entry in (entry for entry in entries if entry.filename.endswith(".npy")):
            with archive.open(entry) as file:
                _require_length(file, entry.file_size)
    size = sum(entry.file_size for entry in entries)
    allowed = limit("max_array_gb") * 1e9
    if size > allowed or (size > 2.5e8 and size > 200 * path.stat().st_size):
        raise DataError(
            f"The arrays of {path} take {size / 1e9:.1f} GB in {path.stat().st_size / 1e6:.1f} MB, "
            "far more than data that was measured would. It is not opened."
        )


def _require_length(file: Any, size: int) -> None:
    """Compare the size of an array file with its header; numpy reserves the memory before it does.

    Raises:
        ValueError: they differ.
    """
    version = np.lib.format.read_magic(file)
    first = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    if not kind.hasobject and file.tell() + math.prod(shape) * kind.itemsize != size:
        raise ValueError(f"an array of the shape {shape} does not fit its size")


def read_npz(path: Path, *, remedy: str = REMEDY) -> dict[str, Any]:
    """The arrays of a file.

    Args:
        remedy: end of the error's message.

    Raises:
        DataError: missing or damaged.
    """
    with _explained(path, remedy):
        _require_size(path)
        with np.load(path) as content:
            return {name: content[name] for name in content.files}


def read_npy(path: Path, *, mmap: bool = False, remedy: str = REMEDY) -> np.ndarray:
    """The array of a ``.npy`` file; with ``mmap`` it stays on the disk.

    Raises:
        DataError: missing or damaged.
    """
    with _explained(path, remedy):
        with open(path, "rb") as file:
            _require_length(file, path.stat().st_size)
        return np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)


@contextmanager
def _explained(path: Path, remedy: str) -> Iterator[None]:
    if not path.is_file():
        raise DataError(f"{path} is missing. {remedy}")
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # damaged files raise many kinds of errors
        require_resources(error)
        raise DataError(f"{path} is damaged: {error}. {remedy}") from error
