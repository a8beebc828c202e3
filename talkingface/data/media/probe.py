"""What a media file holds: size, frame rate, rotation, tracks and their start times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talkingface.data.media.files import audio_stream, decode, open_media, video_stream
from talkingface.errors import DataError
from talkingface.utils.env import import_av


@dataclass(frozen=True)
class MediaInfo:
    """Facts about one media file. Times in seconds on the clock of the container.

    Attributes:
        path: the file.
        duration: length of the longest track; 0 when unknown.
        has_video: True when there is a moving picture (cover art does not count).
        width, height: size of a decoded frame in pixels, after the rotation.
        fps: mean frame rate; 0 without video.
        frames: number of frames that the container promises, 0 when unknown. Damaged files
            decode to fewer.
        rotation: clockwise turn in degrees (0, 90, 180, 270) that the reader applies.
        video_codec: e.g. ``"h264"``.
        video_start: time of the first picture.
        has_audio: True when there is a sound track; the facts below are those of the track that
            :func:`~talkingface.data.media.audio.load_audio` takes.
        audio_rate: samples per second.
        audio_channels: number of channels.
        audio_codec: e.g. ``"aac"``.
        audio_start: time of the first sample.
    """

    path: Path
    duration: float
    has_video: bool
    width: int
    height: int
    fps: float
    frames: int
    rotation: int
    video_codec: str | None
    video_start: float
    has_audio: bool
    audio_rate: int
    audio_channels: int
    audio_codec: str | None
    audio_start: float


def turn_of(frame: Any) -> int:
    """Clockwise turn in degrees, a multiple of 90, that shows a decoded frame upright."""
    return round(-frame.rotation / 90) * 90 % 360  # PyAV and FFmpeg count counterclockwise


def probe(path: str | Path) -> MediaInfo:
    """Read the facts about a media file; decodes one frame, since rotation and size need it.

    Raises:
        DataError: the file cannot be opened, or holds neither picture nor sound.
    """
    path = Path(path)
    av = import_av()
    with open_media(path) as container:
        video, audio = video_stream(container), audio_stream(container)
        if video is None and audio is None:
            raise DataError(f"Neither picture nor sound in {path}. Give a video or audio file.")
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
            width, height, video_start = video.width, video.height, _start(video)
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
            video_codec=video.codec_context.codec.name if video is not None else None,
            video_start=video_start,
            has_audio=audio is not None,
            audio_rate=audio.rate if audio is not None else 0,
            audio_channels=audio.channels if audio is not None else 0,
            audio_codec=audio.codec_context.codec.name if audio is not None else None,
            audio_start=_start(audio) if audio is not None else 0.0,
        )


def _start(stream: Any) -> float:
    return float((stream.start_time or 0) * stream.time_base)
