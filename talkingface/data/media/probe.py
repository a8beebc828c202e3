"""Properties of a media file: size, frame rate, rotation, tracks and their start times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talkingface.data.media.files import audio_stream, decode, open_media, video_stream
from talkingface.errors import DataError
from talkingface.utils.env import import_av


@dataclass(frozen=True)
class MediaInfo:
    """Properties of a media file. Times are seconds on the clock of the container.

    Attributes:
        path: the file.
        duration: length of the longest track; 0 when unknown.
        has_video: True when there is a video stream other than cover art.
        width, height: size of a decoded frame in pixels, after the rotation.
        fps: mean frame rate; 0 without video.
        frames: number of frames according to the container, 0 when unknown. Damaged files have
            fewer.
        rotation: clockwise rotation in degrees (0, 90, 180, 270) that the reader applies.
        video_start: time of the first frame.
        has_audio: True when there is an audio track.
        audio_rate: samples per second of the track that
            :func:`~talkingface.data.media.audio.load_audio` reads.
    """

    path: Path
    duration: float
    has_video: bool
    width: int
    height: int
    fps: float
    frames: int
    rotation: int
    video_start: float
    has_audio: bool
    audio_rate: int


def turn_of(frame: Any) -> int:
    """Clockwise rotation in degrees, a multiple of 90, that makes a decoded frame upright."""
    return round(-frame.rotation / 90) * 90 % 360  # PyAV and FFmpeg count counterclockwise


def probe(path: str | Path) -> MediaInfo:
    """Read the properties of a media file; one frame is decoded for its rotation and size.

    Raises:
        DataError: the file cannot be opened, or has neither video nor audio.
    """
    path = Path(path)
    av = import_av()
    with open_media(path) as container:
        video, audio = video_stream(container), audio_stream(container)
        if video is None and audio is None:
            raise DataError(f"Neither video nor audio in {path}. Give a video or audio file.")
        for stream in (video, audio):
            if stream is not None and stream.codec_context is None:
                raise DataError(
                    f"No decoder for the {stream.type} track of {path}. "
                    "Convert it to mp4 (H.264 + AAC)."
                )
        duration = (container.duration or 0) / av.time_base
        width = height = frames = turn = 0
        fps = video_start = 0.0
        if video is not None:
            fps = float(video.average_rate or video.guessed_rate or 0)
            frames = video.frames or round(duration * fps)
            width, height = video.width, video.height
            video_start = float((video.start_time or 0) * video.time_base)
            first = next((f for f in decode(container, video) if f is not None), None)
            if first is not None:
                width, height, turn = first.width, first.height, turn_of(first)
                video_start = video_start if first.time is None else first.time
            if turn in (90, 270):
                width, height = height, width
        return MediaInfo(
            path=path,
            duration=duration,
            has_video=video is not None,
            width=width,
            height=height,
            fps=fps,
            frames=frames,
            rotation=turn,
            video_start=video_start,
            has_audio=audio is not None,
            audio_rate=audio.rate if audio is not None else 0,
        )
