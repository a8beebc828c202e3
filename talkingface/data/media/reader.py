"""Streaming reader of video frames at the stored or at a constant frame rate."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.media.display import ToRGB, deinterlaced, pixel_aspect
from talkingface.data.media.files import decode, exact_fps, open_media, video_stream
from talkingface.data.media.limits import require_hours
from talkingface.data.media.probe import MediaInfo, probe
from talkingface.errors import DataError
from talkingface.utils.env import import_av

logger = logging.getLogger(__name__)

_MAX_THREADS = 8  # every decoder thread holds some frames; more threads are hardly faster
_SEEK_FROM = 3.0  # seconds; for earlier starts decoding from the beginning is as fast
_SEEK_MARGIN = 1.0  # seconds before the start, for frames that need an earlier key frame
_JUMP = 10.0  # seconds; a larger step beyond the end of the file is a damaged time stamp
_EPSILON = 1e-3  # of an output frame; ties and rounded time stamps are resolved the same way


def read_frames(
    path: str | Path,
    fps: float | None = None,
    *,
    start: float = 0.0,
    end: float | None = None,
) -> Iterator[np.ndarray]:
    """Yield the frames of a video one after the other, upright, without keeping them in memory.

    With ``fps``, output frame k is the source frame whose time stamp is nearest to k / fps seconds
    after the first frame. A frame is never used more than half an output frame before its time, so
    a long still stays as long in the output. Frames are repeated or dropped as needed, so variable
    frame rates and gaps keep their timing. The number of frames is round(duration * fps), at least
    1. Without ``fps`` every source frame is yielded once. Damaged packets are skipped and a
    truncated file ends early; both are logged as a warning. All frames have the size of the first.

    Args:
        path: video file.
        fps: constant output rate in frames per second, or None for the frames as stored.
        start: skip frames before this time, in seconds after the first frame.
        end: stop at this time (exclusive), in seconds after the first frame.

    Yields:
        uint8 (H, W, 3), RGB; each is a new array that the caller may modify.

    Raises:
        DataError: at the call if the file cannot be opened or has no video; at the first frame
            if no frame can be decoded.
    """
    info = _probe_video(path)
    if start < 0 or (end is not None and end <= start):
        raise DataError(f"Bad time range for {path}: start {start}, end {end} (seconds).")
    if fps is None:
        return _native(info, start, end)
    rate = float(exact_fps(fps))
    first = round(start * rate)
    stop = None if end is None else max(first + 1, round(end * rate))
    picture = _converter(info)
    return (picture(frame) for frame in _select(_timed(info, start), rate, first, stop))


def count_frames(path: str | Path, fps: float | None = None) -> int:
    """Count the frames that :func:`read_frames` yields; they are decoded, but not converted."""
    frames = _timed(_probe_video(path), 0.0)
    if fps is not None:
        frames = _select(frames, float(exact_fps(fps)), 0, None)
    return sum(1 for _ in frames)


def _converter(info: MediaInfo) -> ToRGB:
    with open_media(info.path) as container:
        return ToRGB(info.path, pixel_aspect(video_stream(container)))


def _probe_video(path: str | Path) -> MediaInfo:
    info = probe(path)
    if not info.has_video:
        raise DataError(f"There is no video track in {path}. Give a video file.")
    return info


def _native(info: MediaInfo, start: float, end: float | None) -> Iterator[np.ndarray]:
    slack = _EPSILON / (info.fps or 25)
    picture = _converter(info)
    for time, _, frame in _timed(info, start):
        if end is not None and time >= end - slack:
            break
        if time >= start - slack:
            yield picture(frame)


def _select(
    frames: Iterator[tuple[float, float, Any]], fps: float, first: int, stop: int | None
) -> Iterator[Any]:
    """Choose the source frame for each output index in [first, stop)."""
    index = first
    previous: tuple[float, float, Any] | None = None
    # A chosen frame is yielded when the source has reached the middle of its output interval, so
    # that the count is round(duration * fps) for every source. One or two frames are held back.
    waiting: deque[tuple[int, Any]] = deque()
    for time, duration, frame in frames:
        if previous is not None:
            # From the midpoint on the new frame is nearer. After a long still (variable rates) the
            # midpoint is too early: lips would open before their sound.
            change = max((previous[0] + time) / 2, time - 0.5 / fps)
            while (index + _EPSILON) / fps <= change and (stop is None or index < stop):
                waiting.append((index, previous[2]))
                index += 1
        while waiting and (waiting[0][0] + 0.5 - _EPSILON) / fps <= time + duration:
            yield waiting.popleft()[1]
        if stop is not None and index >= stop and not waiting:
            return
        previous = (time, duration, frame)
    if previous is None:
        return
    count = max(1, int((previous[0] + previous[1]) * fps + 0.5 + _EPSILON))
    count = count if stop is None else min(count, stop)
    for number, frame in waiting:
        if number < count:
            yield frame
    for _ in range(index, count):
        yield previous[2]


def _timed(info: MediaInfo, start: float) -> Iterator[tuple[float, float, Any]]:
    """Yield (seconds since the first frame, duration in seconds, frame) in order of time.

    The first frame yielded can be a later one, but not one after ``start``.
    """
    if start >= _SEEK_FROM:
        frames = _decode(info, start - _SEEK_MARGIN)
        item = next(frames, None)
        if item is not None and item[0] <= start:
            yield item
            yield from frames
            return
    yield from _decode(info, None)


def _decode(info: MediaInfo, target: float | None) -> Iterator[tuple[float, float, Any]]:
    """As :func:`_timed`, from the beginning or from the key frame before ``target`` seconds."""
    av = import_av()
    nominal = 1 / info.fps if info.fps > 0 else 1 / 25
    count = damaged = 0
    last, length = None, 0.0
    shift = -info.video_start
    with open_media(info.path) as container:
        stream = video_stream(container)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = min(_MAX_THREADS, os.cpu_count() or 1)
        header_end = 0.0  # only mp4 headers have an exact duration
        if "mp4" in container.format.name:
            header_end = float((stream.duration or 0) * stream.time_base)
        if target is not None:
            offset = int((info.video_start + target) / stream.time_base)
            try:
                container.seek(offset, stream=stream, backward=True)
            except av.FFmpegError:
                return  # no index: the caller decodes from the beginning
        packets = _Counted(decode(container, stream))
        for frame in deinterlaced(packets, stream):
            damaged += bool(frame.is_corrupt)
            time, shift = _clock(frame.time, shift, last, nominal, info.duration)
            # A last frame that is longer than the file is an error of the writing program.
            length = float((frame.duration or 0) * frame.time_base) or nominal
            length = min(length, max(nominal, info.duration + 1.0 - time))
            yield time, length, frame
            last = time
            require_hours(time, info.path)
            count += 1
        failed = packets.failed
    if target is None and not count:
        raise DataError(
            f"The video track of {info.path} cannot be decoded: it gave no frame. "
            "The file is damaged; copy or download it again."
        )
    missing = max(0.0, header_end - (last or 0.0) - length)
    if failed or damaged or missing > 0.2:
        logger.warning(
            "%s is damaged or cut off: %d frames decoded, %d of them damaged; %d packets could "
            "not be decoded; it ends %.2f s before the end in its header",
            info.path,
            count,
            damaged,
            failed,
            missing,
        )


class _Counted:
    """Decoded frames; packets that cannot be decoded (None) are counted and left out."""

    def __init__(self, frames: Iterator[Any]) -> None:
        self._frames, self.failed = frames, 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while (frame := next(self._frames)) is None:
            self.failed += 1
        return frame


def _clock(
    stamp: float | None, shift: float, last: float | None, nominal: float, duration: float
) -> tuple[float, float]:
    """Convert a time stamp to seconds since the first frame; repair missing and damaged ones.

    Returns:
        The time and the new value of ``shift``.
    """
    if last is None:
        return (0.0 if stamp is None else stamp + shift), shift
    if stamp is None:
        return last + nominal, shift
    time = stamp + shift
    jumped = time > last + _JUMP and time > duration + _JUMP
    if time < last - 1.0 or jumped:  # the clock was reset, e.g. in concatenated recordings
        return last + nominal, last + nominal - stamp
    return max(time, last), shift
