"""Properties of a media file: size, frame rate, rotation, tracks and their start times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from talkingface.data.media.display import displayed_size, orientation_of, pixel_aspect
from talkingface.data.media.files import audio_stream, decode, open_media, video_stream
from talkingface.data.media.limits import require_hours, require_pixels
from talkingface.errors import DataError
from talkingface.utils.env import import_av


@dataclass(frozen=True)
class MediaInfo:
    """Properties of a media file. Times are seconds on the clock of the container.

    Attributes:
        path: the file.
        duration: length of the longest track; 0 when unknown.
        has_video: True when there is a video stream other than cover art.
        width, height: size of the shown picture in square pixels, after the rotation.
        fps: mean frame rate; 0 without video.
        video_start: time of the first frame.
        has_audio: True when there is an audio track.
    """

    path: Path
    duration: float
    has_video: bool
    width: int
    height: int
    fps: float
    video_start: float
    has_audio: bool


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
        width = height = 0
        fps = video_start = 0.0
        if video is not None:
            fps = float(video.average_rate or video.guessed_rate or 0)
            width, height = video.width, video.height
            require_pixels(width, height, path)
            video_start = float((video.start_time or 0) * video.time_base)
            first = next((f for f in decode(container, video) if f is not None), None)
            if first is not None:
                width, height = displayed_size(first, pixel_aspect(video))
                video_start = video_start if first.time is None else first.time
                if orientation_of(first)[0]:
                    width, height = height, width
        require_hours(duration, path)
        return MediaInfo(
            path=path,
            duration=duration,
            has_video=video is not None,
            width=width,
            height=height,
            fps=fps,
            video_start=video_start,
            has_audio=audio is not None,
        )
