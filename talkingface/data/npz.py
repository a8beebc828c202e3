"""Files of arrays: written atomically, and read with an error that names the remedy."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.media.limits import limit
from talkingface.errors import DataError
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
    if not path.is_file():
        raise DataError(f"{path} is missing; run the stage preprocess.")
    try:
        _require_size(path)
        with np.load(path) as content:
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged: {error}. Run the stage preprocess again.") from error
