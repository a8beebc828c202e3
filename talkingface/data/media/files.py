"""Opening media files, writing files atomically, and error messages shared by the media layer."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from talkingface.errors import DataError, EnvironmentProblem
from talkingface.utils.env import require

_TEMPORARY = re.compile(r"\.tmp-\d+-[0-9a-f]{8}\.\w+$")
_NAME_BYTES = 200  # file systems allow 255 bytes per name; the rest is for the temporary suffix


def exact_fps(fps: float | Fraction) -> Fraction:
    """Return a frame rate as an exact fraction.

    Rounded NTSC rates (23.976, 29.97, 59.94) become n*1000/1001: taken literally they would drift
    by a frame in some hours and give a container a clumsy time base.

    Args:
        fps: frames per second, above 0.

    Raises:
        DataError: when ``fps`` is not a positive finite number.
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

    Only local files are read: playlists inside an untrusted file cannot reach the network.

    Raises:
        DataError: when the file is missing, empty, a Git LFS pointer, cut off or not media.
        EnvironmentProblem: when it may not be read or PyAV is missing.
    """
    path = Path(path)
    av = require("av", why="Reading video and audio")
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
    except OSError as error:
        raise _cannot_open(path, error) from error
    if not head:
        raise DataError(f"The file is empty (0 bytes): {path}. Copy or download it again.")
    try:
        # "file:" keeps names with colons from being taken for a protocol; odd bytes in titles
        # and comments of old files must not stop the decoding.
        container = av.open(
            f"file:{path}", metadata_errors="ignore", options={"protocol_whitelist": "file"}
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(_what_is_wrong(path, head)) from error
    with container:
        yield container


def _cannot_open(path: Path, error: OSError) -> Exception:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return DataError(f"The file does not exist: {path}. Check the path.")
    if error.errno == errno.EISDIR or path.is_dir():
        return DataError(f"This is a folder, a media file is needed: {path}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return EnvironmentProblem(f"No permission to read {path}. Fix it with: chmod u+r '{path}'")
    return EnvironmentProblem(f"Cannot read {path}: {error.strerror or error}. Check the disk.")


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
            "cut off before its end; copy or download it again."
        )
    return (
        f"Not a media file that can be read, or its start is damaged: {path}. "
        "Check that it plays, or convert it to mp4 (H.264 + AAC)."
    )


def video_stream(container: Any) -> Any | None:
    """Return the first real video stream, or None; cover art of a sound file does not count."""
    for stream in container.streams.video:
        if not int(stream.disposition) & 0x400:  # AV_DISPOSITION_ATTACHED_PIC
            return stream
    return None


def audio_stream(container: Any) -> Any | None:
    """Return the audio stream marked as default, else the first one, else None."""
    streams = list(container.streams.audio)
    return next((s for s in streams if int(s.disposition) & 1), streams[0] if streams else None)


def decode(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the decoded frames of a stream, and None for what cannot be read or decoded."""
    av = require("av", why="Reading video and audio")
    try:
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except av.FFmpegError:  # damaged packet: the next one may do
                yield None
    except av.FFmpegError:  # the file ends early
        yield None


def is_temporary(path: str | Path) -> bool:
    """Tell whether a name belongs to an unfinished file of :func:`atomic` (e.g. after a kill)."""
    return _TEMPORARY.search(Path(path).name) is not None


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Write a file under a temporary name in the same folder and rename it when all went well.

    The folder is created. A reader thus sees the old file or the whole new one, never a part.

    Yields:
        Path of the temporary file, already created; it keeps the suffix of ``path``.

    Raises:
        EnvironmentProblem: disk full, read-only folder, name too long.
    """
    path = Path(path)
    stem = path.name.encode("utf-8", "surrogateescape")[:_NAME_BYTES].decode("utf-8", "ignore")
    temporary = path.with_name(
        f"{stem}.tmp-{os.getpid()}-{secrets.token_hex(4)}{path.suffix or '.bin'}"
    )
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())  # network disks report "full" only here
        os.replace(temporary, path)
    except OSError as error:
        raise write_problem(path, error) from error
    finally:
        try:
            temporary.unlink(missing_ok=True)
        except OSError:  # the folder itself is gone or was made read-only: nothing can be removed
            pass


def write_problem(path: Path, error: OSError) -> EnvironmentProblem:
    """Turn a system error met while writing ``path`` into a message with the way out."""
    code = error.errno
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        try:
            free = f"{shutil.disk_usage(path.parent).free / 1e9:.2f} GB free"
        except OSError:
            free = "free space unknown"
        why = "file size limit reached" if code == errno.EFBIG else "disk or quota full"
        return EnvironmentProblem(
            f"Could not write {path}: {why} ({free}). Free some space or choose another folder."
        )
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return EnvironmentProblem(
            f"Could not write {path}: the folder {path.parent} is read-only for you. "
            "Choose another output folder or change its permissions."
        )
    if code == errno.EISDIR:
        return EnvironmentProblem(f"Could not write {path}: a folder of that name exists.")
    text = error.strerror or str(error)
    return EnvironmentProblem(f"Could not write {path}: {text}. Check the path and the disk.")
