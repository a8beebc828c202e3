"""Checks of uploaded files."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from talkingface.data.media.probe import probe
from talkingface.errors import DataError

MEGABYTES = 500  # largest upload


def checked(path: str | None, kind: str) -> Path:
    """The file, if it is what it should be.

    Args:
        kind: ``video``, ``picture`` or ``sound``.

    Raises:
        DataError: no file, too large, or of another kind.
    """
    if not path:
        raise DataError(f"Choose a {kind} first.")
    file = Path(path)
    size = file.stat().st_size / 1e6
    if size > MEGABYTES:
        raise DataError(f"{file.name} has {size:.0f} MB; at most {MEGABYTES} MB are accepted.")
    if kind == "picture":
        try:
            with Image.open(file) as image:
                image.verify()
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise DataError(f"{file.name} is no picture.") from error
        return file
    info = probe(file)
    if not (info.has_audio if kind == "sound" else info.height):
        raise DataError(f"{file.name} has no {kind}.")
    return file
