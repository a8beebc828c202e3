"""Finished outputs: video with the original sound track, GIF, or numbered PNG pictures."""

from __future__ import annotations

import heapq
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from talkingface.data.media.files import audio_stream, decode, open_media
from talkingface.data.media.probe import probe
from talkingface.data.media.writer import (
    AAC_RATES,
    OPUS_RATES,
    VIDEO_SUFFIXES,
    VideoWriter,
    open_target,
    write_image,
)
from talkingface.errors import ConfigError, DataError
from talkingface.utils.env import import_av
from talkingface.utils.paths import atomic, explain_os_errors

log = logging.getLogger(__name__)

OUTPUT_SUFFIXES = (*VIDEO_SUFFIXES, ".gif", ".png")
_MP4 = ("aac", "mp3", "mp3float", "alac")
_COPIED = {"mp4": _MP4, "mov": _MP4, "webm": ("opus", "vorbis")}
_BITS_PER_CHANNEL = 96_000  # per second, of a sound track that must be encoded again
_TOLERANCE = 0.01  # s by which time stamps may deviate from the number of samples
_GIF_RATE = 50  # frames/s; viewers show faster GIFs slowly


class Output(Protocol):
    """What a pipeline writes its frames to; a context manager."""

    frames_written: int

    def write(self, rgb: np.ndarray) -> None:
        """Append one frame, uint8 (H,W,3) RGB."""

    def __enter__(self) -> Output: ...

    def __exit__(self, *error: Any) -> None: ...


def open_output(
    path: Path,
    fps: float,
    *,
    wave: tuple[np.ndarray, int],
    sound: Path | None,
    crf: int,
    about: Mapping[str, str],
) -> Output:
    """The output for a file name: ``.mp4``, ``.mov``, ``.webm``, ``.gif`` or ``frame%05d.png``.

    Args:
        wave: samples and rate, for a video whose sound is not a file.
        sound: the file whose track the video gets.

    Raises:
        ConfigError: see :func:`require_suffix` and :class:`PngOutput`.
    """
    require_suffix(path)
    suffix = path.suffix.lower()
    if suffix == ".gif":
        return GifOutput(path, fps)
    if suffix == ".png":
        return PngOutput(path)
    if sound is None or not probe(sound).has_audio:
        return VideoWriter(path, fps, audio=wave, crf=crf, about=about)
    return VideoWithSound(path, fps, sound, crf=crf, about=about)


def require_suffix(path: Path) -> None:
    """Check the name of an output.

    Raises:
        ConfigError: its suffix is not known, or see :class:`PngOutput`.
    """
    if path.suffix.lower() not in OUTPUT_SUFFIXES:
        known = ", ".join(OUTPUT_SUFFIXES)
        raise ConfigError(f"--output={path}: unknown suffix '{path.suffix}'; choose one of {known}")
    if path.suffix.lower() == ".png":
        PngOutput(path)


class VideoWithSound:
    """A video with the sound track of a file: rate, channels and, if possible, codec are kept."""

    def __init__(
        self, path: Path, fps: float, sound: Path, *, crf: int, about: Mapping[str, str]
    ) -> None:
        self.path, self.sound, self._about = path, sound, about
        with explain_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=f".{path.stem}-", dir=path.parent))
        self._silent = self._folder / f"video{path.suffix.lower()}"
        self._writer = VideoWriter(self._silent, fps, crf=crf)

    @property
    def frames_written(self) -> int:
        return self._writer.frames_written

    def write(self, rgb: np.ndarray) -> None:
        self._writer.write(rgb)

    def __enter__(self) -> VideoWithSound:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            self._writer.__exit__(kind, error, trace)
            if error is None:
                seconds = self.frames_written / float(self._writer.rate)
                join(self._silent, self.sound, self.path, seconds, self._about)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)


def join(video: Path, sound: Path, target: Path, seconds: float, about: Mapping[str, str]) -> None:
    """Write a video with the sound track of another file, cut after so many seconds.

    The pictures are copied. The track is copied if the format of the target can hold its codec,
    else it is encoded again, with the same rate and channels where the encoder has them.

    Raises:
        DataError: the sound cannot be read.
    """
    av = import_av()
    for copied in (True, False):
        try:
            with atomic(target) as temporary:
                _join(video, sound, temporary, seconds, about, copied)
            return
        except (av.FFmpegError, ValueError) as error:
            if not copied:
                raise DataError(f"The sound of {sound} could not be written: {error}") from error
            log.info("%s: its sound track cannot be copied (%s); encoded again", sound.name, error)


def _join(
    video: Path, sound: Path, target: Path, end: float, about: Mapping[str, str], copied: bool
) -> None:
    info = probe(sound)
    with open_media(video) as pictures, open_media(sound) as sounds:
        stream, track = pictures.streams.video[0], audio_stream(sounds)
        start = info.video_start if info.has_video else None
        if start is None:
            start = float((track.start_time or 0) * track.time_base)
        with open_target(target, about) as out:
            kind = out.format.name
            images = out.add_stream_from_template(stream)
            if copied and track.codec_context.name in _COPIED.get(kind, ()):
                blocks = _packets(sounds, track, out.add_stream_from_template(track), start, end)
            else:
                blocks = _encoded(sounds, track, out, kind, start, end)
            frames = _packets(pictures, stream, images, 0.0, np.inf)
            for _, _, packet in heapq.merge(frames, blocks, key=lambda item: item[:2]):
                out.mux(packet)


def _packets(
    source: Any, stream: Any, target: Any, start: float, end: float
) -> Iterator[tuple[float, int, Any]]:
    """(time, stream, packet) of the packets up to ``end``, moved so that ``start`` is time 0."""
    shift = round(start / stream.time_base)
    for packet in source.demux(stream):
        if packet.dts is None or packet.pts is None:
            continue
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        time = float(packet.pts * packet.time_base)
        if time >= end:
            return
        if time + float((packet.duration or 0) * packet.time_base) < -0.1:
            continue  # sound before the first frame
        packet.stream = target
        yield float(packet.dts * packet.time_base), target.index, packet


def _encoded(
    source: Any, track: Any, out: Any, kind: str, start: float, end: float
) -> Iterator[tuple[float, int, Any]]:
    """As :func:`_packets`, with the track encoded as AAC or, in webm, as Opus."""
    av = import_av()
    codec, rates = ("libopus", OPUS_RATES) if kind == "webm" else ("aac", AAC_RATES)
    rate = next((r for r in rates if r >= track.codec_context.sample_rate), rates[-1])
    layout = {1: "mono", 2: "stereo"}.get(track.codec_context.layout.nb_channels, "5.1")
    if layout == "5.1" and kind == "webm":
        layout = "stereo"
    target = out.add_stream(codec, rate=rate, layout=layout)
    channels = target.codec_context.layout.nb_channels
    target.codec_context.bit_rate = min(_BITS_PER_CHANNEL, 5 * rate) * channels
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
    position, stop = 0, round(end * rate)

    def packets(frame: Any) -> Iterator[tuple[float, int, Any]]:
        for packet in target.encode(frame):
            yield float(packet.dts * packet.time_base), target.index, packet

    def block(samples: np.ndarray, first: int) -> Iterator[tuple[float, int, Any]]:
        """Samples from position ``first`` on, without those before 0 and after the end."""
        samples = samples[:, max(0, -first) : max(0, stop - first)]
        if samples.shape[1]:
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(samples), format="fltp", layout=layout
            )
            frame.sample_rate, frame.pts = rate, max(first, 0)
            frame.time_base = Fraction(1, rate)
            yield from packets(frame)

    decoded = (frame for frame in decode(source, track) if frame is not None)
    for frame in chain(decoded, [None]):  # None: the last samples of the resampler
        time = None if frame is None else frame.time
        if frame is not None:
            frame.pts = None
        for part in resampler.resample(frame):
            samples = part.to_ndarray()
            due = position if time is None else round((time - start) * rate)
            gap = due - position
            if gap > _TOLERANCE * rate:  # time stamps are repaired as load_audio does
                yield from block(np.zeros((channels, gap), np.float32), position)
                position = due
            elif gap < -_TOLERANCE * rate:
                samples = samples[:, -gap:]
            time = None
            yield from block(samples, position)
            position += samples.shape[1]
        if position >= stop:
            break
    yield from packets(None)


class GifOutput:
    """An animated GIF without sound, written when it is complete."""

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.frames_written = path, 0
        self._step = int(max(1, -(-fps // _GIF_RATE)))
        self._seconds = self._step / fps
        self._images: list[Any] = []

    def write(self, rgb: np.ndarray) -> None:
        from PIL import Image

        if self.frames_written % self._step == 0:
            self._images.append(Image.fromarray(rgb).quantize(256))
        self.frames_written += 1

    def __enter__(self) -> GifOutput:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None and self._images:
            first, *more = self._images
            # GIFs count hundredths of a second: rounded so that the sum is right.
            ends = np.round(100 * self._seconds * np.arange(len(self._images) + 1)).astype(int)
            with atomic(self.path) as temporary:
                first.save(
                    temporary, format="GIF", save_all=True, append_images=more, loop=0,
                    duration=(10 * np.diff(ends)).tolist(),
                )  # fmt: skip


class PngOutput:
    """Numbered pictures; ``frame%05d.png`` gives frame00000.png, frame00001.png and so on.

    Raises:
        ConfigError: the name has no place for the number, or its first picture exists.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.frames_written = path, 0
        try:
            first = self._name(0)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"--output={path}: pictures need a name with a number, e.g. {path.stem}%05d.png"
            ) from error
        if first.exists():
            raise ConfigError(f"--output={path}: {first} exists; choose another name or folder")

    def _name(self, number: int) -> Path:
        return self.path.with_name(self.path.name % number)

    def write(self, rgb: np.ndarray) -> None:
        write_image(self._name(self.frames_written), rgb, sync=False)
        self.frames_written += 1

    def __enter__(self) -> PngOutput:
        return self

    def __exit__(self, *error: Any) -> None:
        """Every picture is complete already."""
