"""Streaming video writer and image writer; a file gets its name only when it is complete."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.media.audio import resampled
from talkingface.data.media.files import exact_fps
from talkingface.data.media.jpeg import with_checksum
from talkingface.errors import DataError, EnvironmentProblem
from talkingface.utils.env import import_av, import_cv2
from talkingface.utils.paths import atomic, write_problem

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".webm")
# Sample rates of MPEG-4 AAC (ISO/IEC 14496-3, table 1.18) that the encoder accepts.
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_HD_HEIGHT = 720  # players assume BT.709 colours from this height on, BT.601 below


class VideoWriter:
    """Write RGB frames and an optional audio track to an mp4 or webm file, frame by frame.

    H.264 (yuv420p, constant quality) and AAC, index at the front; webm: VP9 and Opus. Memory does
    not grow with the number of frames. The file is written under a temporary name and renamed on
    success; after an exception it is removed. Video and audio both start at time 0: the edit list
    of an mp4 removes the encoder delay of AAC. There are no B-frames, so in players that ignore
    edit lists the tracks differ by at most that delay (21 ms at 48 kHz).

    Example:
        >>> with VideoWriter("out.mp4", fps=25, audio=(samples, 16000)) as writer:
        ...     for frame in frames:
        ...         writer.write(frame)

    Args:
        path: target, ``.mp4``, ``.m4v``, ``.mov`` or ``.webm``. Missing folders are created.
        fps: constant frame rate; 23.976, 29.97 and 59.94 mean 24000/1001 and so on.
        audio: float samples (N,), clipped to [-1, 1], and their rate in Hz; they are cut where the
            video ends. Shorter audio is not padded.
        crf: constant rate factor of x264, 0 (lossless) to 51; 18 is visually near-lossless. For
            VP9 it is converted to a similar quality.
        preset: speed preset of x264.
        threads: encoder threads; None lets x264 choose. The output depends on this number.
        about: tags of the file, e.g. ``comment``.

    Raises:
        DataError: wrong suffix, rate, sample values, frame size, or no frame at all.
        EnvironmentProblem: disk full, read-only folder.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        *,
        audio: tuple[np.ndarray, int] | None = None,
        crf: int = 18,
        preset: str = "veryfast",
        threads: int | None = None,
        about: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.frames_written = 0
        if self.path.suffix.lower() not in VIDEO_SUFFIXES:
            raise DataError(f"Cannot write {self.path}: use a name that ends in .mp4")
        self.rate = exact_fps(fps)
        self._av = import_av()
        self.webm = self.path.suffix.lower() == ".webm"
        rates = OPUS_RATES if self.webm else AAC_RATES
        self._samples, self._audio_rate = _prepare_audio(audio, rates) if audio else (None, 0)
        self._options = {"crf": str(crf), "preset": preset}
        if self.webm:
            quality = str(round(10 + crf * 53 / 51))
            self._options = {"crf": quality, "b": "0", "deadline": "realtime", "cpu-used": "5"}
        self._about = dict(about or {})
        self._threads = threads
        self._audio_position = 0
        self._size: tuple[int, int] | None = None
        self._container: Any = None
        self._video: Any = None
        self._audio: Any = None
        self._atomic: Any = atomic(self.path)
        self._temporary: Path = self._atomic.__enter__()

    def write(self, rgb: np.ndarray) -> None:
        """Append one frame, uint8 (H, W, 3), RGB; all frames must have the same size.

        H.264 in yuv420p needs even sizes: the last row or column of an odd size is repeated.
        """
        _check_picture(self.path, rgb)
        if self._atomic is None:
            raise DataError(f"The writer of {self.path} is closed; open a new one.")
        if self._size is None:
            self._size = rgb.shape[:2]
            self._guard(self._open)
        elif rgb.shape[:2] != self._size:
            raise DataError(
                f"Frame {self.frames_written} of {self.path} has size {rgb.shape[1]}x"
                f"{rgb.shape[0]}, the first one {self._size[1]}x{self._size[0]}. Resize it."
            )
        odd = [(0, side % 2) for side in self._size]
        if any(pad for _, pad in odd):
            rgb = np.pad(rgb, [*odd, (0, 0)], mode="edge")
        self._guard(self._encode, np.ascontiguousarray(rgb))

    def _guard(self, action: Any, *args: Any) -> None:
        try:
            action(*args)
        except (self._av.FFmpegError, OSError) as error:
            if error.errno in errno.errorcode and error.errno not in (errno.EINVAL, errno.ERANGE):
                raise write_problem(self.path, error) from error
            raise DataError(
                f"The video encoder refused {self.path} (frames of {self._size[1]}x"
                f"{self._size[0]}, {self._options}): {error.strerror}. Change size or settings."
            ) from error
        except ValueError as error:  # PyAV: unknown codec
            raise EnvironmentProblem(
                f"This build of PyAV cannot write {self.path}: {error}. Install one with x264 and "
                "AAC: pip install --force-reinstall av"
            ) from error

    def _open(self) -> None:
        height, width = (side + side % 2 for side in self._size)
        self._container = open_target(self._temporary, self._about)
        codec = "libvpx-vp9" if self.webm else "libx264"
        self._video = self._container.add_stream(codec, rate=self.rate, options=self._options)
        context = self._video.codec_context
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base = 1 / self.rate
        context.max_b_frames = 0
        if self._threads is not None:
            context.thread_count = self._threads
        # ITU-T H.273 codes: 1 = BT.709, 6 = SMPTE 170M (BT.601); range 1 = limited (video).
        self._matrix = "ITU709" if height >= _HD_HEIGHT else "ITU601"
        code = 1 if height >= _HD_HEIGHT else 6
        context.colorspace = context.color_primaries = context.color_trc = code
        context.color_range = 1
        if self._samples is not None:
            codec = "libopus" if self.webm else "aac"
            self._audio = self._container.add_stream(codec, rate=self._audio_rate, layout="mono")
            # AAC-LC holds at most 6144 bit per 1024 samples and channel, i.e. 6 bit per sample.
            self._audio.codec_context.bit_rate = min(128_000, 5 * self._audio_rate)

    def _encode(self, rgb: np.ndarray) -> None:
        frame = self._av.VideoFrame.from_ndarray(rgb, format="rgb24")
        frame = frame.reformat(
            format="yuv420p", dst_colorspace=self._matrix, dst_color_range="MPEG", threads=1
        )
        frame.pts, frame.time_base = self.frames_written, 1 / self.rate
        self._container.mux(self._video.encode(frame))
        self.frames_written += 1
        if self._audio is not None:
            # Write the audio up to the same time, so that the tracks are interleaved in the file.
            stop = self._audio_end()
            # Blocks of at least 0.1 s, except for the last one: less overhead per call.
            if stop - self._audio_position >= self._audio_rate // 10 or stop == len(self._samples):
                self._write_audio(stop)

    def _audio_end(self) -> int:
        """Number of samples up to the end of the written frames."""
        return min(len(self._samples), round(self.frames_written / self.rate * self._audio_rate))

    def _write_audio(self, stop: int) -> None:
        """Encode the samples before ``stop`` that are not written yet."""
        block = self._samples[self._audio_position : stop]
        if len(block):
            frame = self._av.AudioFrame.from_ndarray(block[None], format="fltp", layout="mono")
            frame.sample_rate = self._audio_rate
            frame.pts, frame.time_base = self._audio_position, Fraction(1, self._audio_rate)
            self._container.mux(self._audio.encode(frame))
            self._audio_position = stop

    def _finish(self) -> None:
        if self._audio is not None:
            self._write_audio(self._audio_end())
            self._container.mux(self._audio.encode(None))
        self._container.mux(self._video.encode(None))
        self._container.close()

    def close(self) -> None:
        """Finish the file and rename it to its name. The ``with`` statement calls this."""
        if self._atomic is None:
            return
        try:
            if not self.frames_written:
                raise DataError(f"No frame was written to {self.path}; nothing to save.")
            self._guard(self._finish)
        except BaseException as error:
            self._discard(error)
            raise
        done, self._atomic = self._atomic, None
        done.__exit__(None, None, None)

    def _discard(self, error: BaseException) -> None:
        """Close the container and remove the temporary file."""
        unfinished, self._atomic = self._atomic, None
        if unfinished is None:
            return
        try:
            if self._container is not None:
                self._container.close()
        except (self._av.FFmpegError, OSError):  # e.g. the disk is full; `error` is reported
            pass
        try:
            unfinished.__exit__(type(error), error, error.__traceback__)
        except BaseException as again:
            # The context manager raises `error` again; the caller raises it anyway.
            if again is not error and again.__cause__ is not error:
                raise

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self.close()
        else:
            self._discard(error)


def open_target(path: Path, about: Mapping[str, str]) -> Any:
    """A PyAV container for writing; the suffix determines the format, ``about`` are its tags."""
    kind, options = {".webm": "webm", ".mov": "mov"}.get(path.suffix.lower(), "mp4"), {}
    if kind != "webm":
        options["movflags"] = "+faststart"
    # "file:" keeps a colon in a folder name from being read as a protocol.
    container = import_av().open(f"file:{path}", "w", format=kind, options=options)
    container.metadata.update(about)
    return container


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float, **options: Any) -> int:
    """Write all frames with a :class:`VideoWriter` and its ``options``; returns their number."""
    with VideoWriter(path, fps, **options) as writer:
        for frame in frames:
            writer.write(frame)
    return writer.frames_written


def _prepare_audio(audio: tuple[np.ndarray, int], rates: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """Check audio samples; return float32 (N,) in [-1, 1] at a sample rate of the encoder."""
    samples, rate = np.asarray(audio[0]), int(audio[1])
    samples = samples.squeeze() if samples.ndim > 1 else samples
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating) or rate <= 0:
        raise DataError(
            f"The audio to write has type {samples.dtype}, shape {samples.shape} and rate {rate}; "
            "float samples of shape (N,) and a rate above 0 are needed."
        )
    if not np.isfinite(samples).all():
        raise DataError("The audio to write contains NaN or infinite values.")
    samples = np.clip(samples, -1, 1).astype(np.float32, copy=False)
    target = next((r for r in rates if r >= rate), rates[-1])
    if target != rate:
        samples = np.clip(resampled(samples, rate, target), -1, 1)
    return samples, target


def _check_picture(path: Path, rgb: np.ndarray) -> None:
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise DataError(
            f"A picture for {path} has type {rgb.dtype} and shape {rgb.shape}; "
            "uint8 RGB of shape (height, width, 3) is needed."
        )


def write_image(path: str | Path, rgb: np.ndarray, *, sync: bool = True) -> None:
    """Write uint8 (H, W, 3), RGB, as a picture; the suffix, e.g. ``.png``, determines the format.

    Any Unicode path works. For ``sync`` see :func:`~talkingface.utils.paths.atomic`.

    Raises:
        DataError: unknown suffix or wrong array.
        EnvironmentProblem: disk full, read-only folder.
    """
    path = Path(path)
    cv2 = import_cv2()
    _check_picture(path, rgb)
    try:
        ok, data = cv2.imencode(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise DataError(f"Unknown picture format '{path.suffix}': {path}. Use .png.") from error
    if not ok:
        raise DataError(f"The picture could not be encoded as '{path.suffix}': {path}. Use .png.")
    content = data.tobytes()
    if path.suffix.lower() in (".jpg", ".jpeg"):
        content = with_checksum(content)
    with atomic(path, sync=sync) as temporary:
        temporary.write_bytes(content)
