"""Files of arrays: written atomically, and read with an error that names the remedy."""

from __future__ import annotations

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


def save_npz(path: Path, content: dict[str, Any]) -> None:
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **content)


def _require_size(path: Path) -> None:
    """Refuse a small file whose arrays would fill the memory."""
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    allowed = limit("max_array_gb") * 1e9
    if size > allowed or (size > 2.5e8 and size > 200 * path.stat().st_size):
        raise DataError(
            f"The arrays of {path} take {size / 1e9:.1f} GB in {path.stat().st_size / 1e6:.1f} MB, "
            "far more than data that was measured would. It is not opened."
        )


def read_npz(path: Path) -> dict[str, Any]:
    """The arrays of a file.

    Raises:
        DataError: missing or damaged.
    """
    with _explained(path):
        _require_size(path)
        with np.load(path) as content:
            return {name: content[name] for name in content.files}


def read_npy(path: Path, *, mmap: bool = False) -> np.ndarray:
    """The array of a ``.npy`` file; with ``mmap`` it stays on the disk.

    Raises:
        DataError: missing or damaged.
    """
    with _explained(path):
        # Unlike reading, mapping compares the size of the file with that of its array.
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        return values if mmap else np.array(values)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    if not path.is_file():
        raise DataError(f"{path} is missing; run the stage preprocess.")
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # damaged files raise many kinds of errors
        require_resources(error)
        raise DataError(f"{path} is damaged: {error}. Run the stage preprocess again.") from error
