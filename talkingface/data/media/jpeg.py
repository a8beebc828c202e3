"""Checksums inside JPEG files: a comment that every reader ignores, before the picture."""

from __future__ import annotations

import zlib
from pathlib import Path

from talkingface.errors import DataError

_START = b"\xff\xd8"
_COMMENT = b"\xff\xfe\x00\x0acrc:"  # marker, length 10 with these two bytes, text; then 4 bytes


def with_checksum(jpeg: bytes) -> bytes:
    """The file with a CRC-32 of all bytes after the comment."""
    rest = jpeg[len(_START) :]
    return _START + _COMMENT + zlib.crc32(rest).to_bytes(4, "big") + rest


def require_intact(data: bytes | memoryview, path: str | Path) -> None:
    """Compare the checksum of a JPEG file, if it has one.

    Raises:
        DataError: the content has changed since it was written.
    """
    head = len(_START) + len(_COMMENT)
    if bytes(data[:head]) == _START + _COMMENT:
        if zlib.crc32(memoryview(data)[head + 4 :]) != int.from_bytes(data[head : head + 4], "big"):
            raise DataError(f"{path} is damaged: its content does not fit its checksum")
