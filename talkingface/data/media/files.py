"""Opening and decoding media files, with error messages that name the cause."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from talkingface.errors import DataError
from talkingface.utils.env import import_av
from talkingface.utils.limits import FILE_CODES, require_resources

VIDEO_SUFFIXES = (
    *(".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".ts"),
    *(".mts", ".m2ts", ".3gp", ".3g2", ".ogv", ".vob", ".mxf", ".asf", ".f4v", ".dv"),
)
AUDIO_SUFFIXES = (
    *(".wav", ".mp3", ".flac", ".m4a", ".ogg", ".opus", ".aac", ".aiff", ".aif", ".aifc", ".caf"),
    *(".wma", ".mka", ".w64", ".oga", ".au", ".amr", ".ac3"),
)


def walk(folder: Path) -> list[Path]:
    """All files below a folder, sorted, also through symbolic links; hidden ones are left out.

    A folder that is reached twice, e.g. by a link to its parent, is read once.
    """
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        identity = os.stat(place)
        key = (identity.st_dev, identity.st_ino)
        folders[:] = [name for name in folders if not name.startswith(".")]
        if key in seen:
            folders.clear()
            continue
        seen.add(key)
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


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


# Demuxers of FFmpeg: containers, raw streams and pictures, but no playlists or devices.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,live_flv,asf,ogg,mxf,nut,"
    "ivf,dv,h264,hevc,av1,obu,m4v,rm,wtv,vob,gif,apng,yuv4mpegpipe,wav,w64,mp3,flac,aac,loas,ac3,"
    "eac3,aiff,au,caf,amr,amrnb,amrwb,ape,tta,tak,wv,voc,dts,truehd,image2,png_pipe,jpeg_pipe,"
    "bmp_pipe,webp_pipe,tiff_pipe"
)


@contextmanager
def open_media(path: str | Path) -> Iterator[Any]:
    """Open a media file for reading as a PyAV container.

    Only local files are read, and no playlists, which could name other files.

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
    if is_still(head):  # FFmpeg would decode a single tile
        raise DataError(f"{path} cannot be read as video or audio: {what_it_is(head)}.")
    try:
        # "file:" keeps a name with a colon from being read as a protocol. Metadata of old files can
        # have invalid bytes, which must not stop the decoding.
        options = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
        container = av.open(f"file:{path}", metadata_errors="ignore", options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        if getattr(error, "errno", None) in FILE_CODES:
            require_resources(error)  # FFmpeg gives EIO and ENOMEM for damaged files, too
        raise DataError(_what_is_wrong(path, head)) from error
    with container:
        yield container


def cannot_open(path: Path, error: OSError) -> Exception:
    """Error for a file that cannot be read, with its cause and a remedy."""
    require_resources(error)
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
    if _is_page(head):
        return f"This is a web page, not a media file: {path}. Download the file itself."
    if (kind := what_it_is(head)) != _UNKNOWN:
        return f"{path} cannot be read as video or audio: {kind}."
    if head[4:8] in (b"ftyp", b"mdat", b"wide", b"free"):
        return (
            f"The mp4/mov file has no usable index (moov): {path}. The recording or the copy was "
            "cut off; copy or download it again."
        )
    return (
        f"Not a media file that can be read, or damaged at its start: {path}. "
        "Check that it plays, or convert it to mp4 (H.264 + AAC)."
    )


_UNKNOWN = "its content is of no known format, or damaged at the start"


_STILLS = (b"heic", b"heix", b"mif1", b"heim", b"heis", b"avif")


def is_still(head: bytes) -> bool:
    """Whether the first bytes are those of a HEIC or AVIF picture."""
    return head[4:8] == b"ftyp" and head[8:12] in _STILLS


def what_it_is(head: bytes) -> str:
    """What a file that cannot be read contains, from its first bytes, and how to use it."""
    if not head:
        return "it is empty; copy or download it again"
    if is_still(head):
        kind = "AVIF" if head[8:12] == b"avif" else "HEIC"
        return f"it is a {kind} picture; convert it to JPEG or PNG (e.g. export it from the phone)"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; run 'git lfs pull' in its repository"
    if _is_page(head):
        return "it is a web page; download the file itself"
    if head.startswith((b"ffconcat", b"#EXTM3U")):
        return "it is a playlist, which is not opened; give the media files themselves"
    if head.startswith(b"%PDF"):
        return "it is a PDF document"
    for signs, name in _PICTURES:
        if head.startswith(signs):
            return f"it is a damaged {name} picture, or one that is cut off; copy it again"
    if head.startswith((b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!")):
        return "it is an archive; unpack it"
    return _UNKNOWN


_PICTURES = ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG", "PNG"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"))


def _is_page(head: bytes) -> bool:
    return head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html"))


def video_stream(container: Any) -> Any | None:
    """Return the video stream marked as default, else the first one, else None.

    The cover art of an audio file does not count.
    """
    attached_pic = 0x400  # AV_DISPOSITION_ATTACHED_PIC
    streams = [s for s in container.streams.video if not int(s.disposition) & attached_pic]
    return next((s for s in streams if int(s.disposition) & 1), next(iter(streams), None))


def audio_stream(container: Any) -> Any | None:
    """Return the audio stream marked as default, else the first one, else None."""
    streams = list(container.streams.audio)
    return next((s for s in streams if int(s.disposition) & 1), next(iter(streams), None))


def decode(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the decoded frames of a stream, and None for each packet that cannot be decoded."""
    av = import_av()
    decoder = _decoder_with_alpha(stream)
    try:
        for packet in container.demux(stream):
            try:
                yield from packet.decode() if decoder is None else decoder.decode(packet)
            except av.FFmpegError:  # damaged packet; later ones may be intact
                yield None
    except av.FFmpegError:  # the file ends early
        yield None


def _decoder_with_alpha(stream: Any) -> Any | None:
    """The decoder of VP8 and VP9 streams with transparency, which FFmpeg's own decoder ignores."""
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name)
    if name is None or stream.metadata.get("alpha_mode") != "1":
        return None
    av = import_av()
    try:
        decoder = av.CodecContext.create(name, "r")
    except (av.FFmpegError, ValueError):  # built without it
        return None
    decoder.extradata = stream.codec_context.extradata
    return decoder
