"""Opening and decoding media files, with error messages that name the cause."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from talkingface.errors import DataError
from talkingface.utils.env import import_av


def exact_fps(fps: float | Fraction) -> Fraction:
    """Return a frame rate as an exact fraction.

    Rounded NTSC rates (23.976, 29.97, 59.94) become n*1000/1001. The rounded values would drift by
    one frame within hours and give a container an awkward time base.

    Raises:
        DataError: ``fps`` is not a positive finite number.
    """
    if isinstance(fps, bool) or not 0 < float(fps) < 1e5:
        raise DataError(f"The frame rate is {fps!r}; give a positive number such as 25.")
    rate = Fraction(fps).limit_denominator(1001)
    if rate.denominator == 1 or isinstance(fps, Fraction):
        return rate
    ntsc = Fraction(round(float(fps) * 1.001) * 1000, 1001)
    return ntsc if abs(float(ntsc) - float(fps)) < 1e-3 else rate


@contextmanager
def open_media(path: str | Path) -> Iterator[Any]:
    """Open a media file for reading as a PyAV container.

    Only local files are read: a playlist in an untrusted file cannot access the network.

    Raises:
        DataError: the file is missing, unreadable, empty, a Git LFS pointer, truncated or not
            media. Runs over many files catch this error and continue.
        EnvironmentProblem: PyAV is not installed.
    """
    path = Path(path)
    av = import_av()
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
    except OSError as error:
        raise cannot_open(path, error) from error
    if not head:
        raise DataError(f"The file is empty (0 bytes): {path}. Copy or download it again.")
    try:
        # "file:" keeps a name with a colon from being read as a protocol. Metadata of old files can
        # have invalid bytes, which must not stop the decoding.
        container = av.open(
            f"file:{path}", metadata_errors="ignore", options={"protocol_whitelist": "file"}
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(_what_is_wrong(path, head)) from error
    with container:
        yield container


def cannot_open(path: Path, error: OSError) -> Exception:
    """Error for a file that cannot be read, with its cause and a remedy."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return DataError(f"The file does not exist: {path}. Check the path.")
    if error.errno == errno.EISDIR or path.is_dir():
        return DataError(f"This is a folder, a media file is needed: {path}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return DataError(f"No permission to read {path}. Fix it with: chmod u+r '{path}'")
    return DataError(f"Cannot read {path}: {error.strerror or error}. Check the disk.")


def _what_is_wrong(path: Path, head: bytes) -> str:
    if head.startswith(b"version https://git-lfs"):
        return (
            f"This is a Git LFS pointer, not the media itself: {path}. "
            "Fetch the content with 'git lfs pull' in its repository."
        )
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return f"This is a web page, not a media file: {path}. Download the file itself."
    if head[4:8] in (b"ftyp", b"mdat", b"wide", b"free"):
        return (
            f"The mp4/mov file has no usable index (moov): {path}. The recording or the copy was "
            "cut off; copy or download it again."
        )
    return (
        f"Not a media file that can be read, or damaged at its start: {path}. "
        "Check that it plays, or convert it to mp4 (H.264 + AAC)."
    )


def video_stream(container: Any) -> Any | None:
    """Return the first video stream that is not the cover art of an audio file, or None."""
    attached_pic = 0x400  # AV_DISPOSITION_ATTACHED_PIC
    streams = container.streams.video
    return next((s for s in streams if not int(s.disposition) & attached_pic), None)


def audio_stream(container: Any) -> Any | None:
    """Return the audio stream marked as default, else the first one, else None."""
    streams = list(container.streams.audio)
    return next((s for s in streams if int(s.disposition) & 1), next(iter(streams), None))


def decode(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the decoded frames of a stream, and None for each packet that cannot be decoded."""
    av = import_av()
    try:
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except av.FFmpegError:  # damaged packet; later ones may be intact
                yield None
    except av.FFmpegError:  # the file ends early
        yield None
