"""Files of arrays: written atomically, and read with an error that names the remedy."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.errors import DataError
from talkingface.utils.paths import atomic


def save_npz(path: Path, content: dict[str, Any]) -> None:
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **content)


def read_npz(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path} is missing; run the stage preprocess.")
    try:
        with np.load(path) as content:
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged: {error}. Run the stage preprocess again.") from error
