"""Audio of any media file as mono samples aligned with the video, and a wav writer."""

from __future__ import annotations

import logging
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.media.files import audio_stream, decode, open_media
from talkingface.data.media.probe import MediaInfo, probe
from talkingface.errors import DataError
from talkingface.utils.env import require
from talkingface.utils.paths import atomic

logger = logging.getLogger(__name__)

# Seconds by which time stamps may deviate from the sample count before silence is inserted or
# samples are cut: above the rounding of containers (1 ms), below the sync tolerance of 20 ms.
_TOLERANCE = 0.01


def load_audio(path: str | Path, rate: int = 16000, *, timeline: bool = True) -> np.ndarray:
    """Read the audio of a media file as mono samples.

    Channels are averaged with equal weights. soxr resamples (quality HQ, the default of librosa,
    deterministic). Gaps in the time stamps become silence, so that later samples stay in sync.
    Decoding and resampling are streamed; peak memory is twice the result. Of several tracks the one
    marked as default is read, else the first; the log names it.

    Args:
        path: wav, flac, mp3, mp4, mov, mpg, mkv...
        rate: output samples per second.
        timeline: in files with video, sample 0 is at the time of the first frame: audio that starts
            later is preceded by silence, audio that starts earlier is cut.

    Returns:
        float32 (N,), [-1, 1] for integer and compressed sources; float files keep their values.

    Raises:
        DataError: no audio track, no decodable samples, NaN or infinite values.
    """
    info = probe(path)
    if not info.has_audio:
        raise DataError(f"There is no audio track in {path}. Give the speech as a separate file.")
    if int(rate) != rate or rate <= 0:
        raise DataError(f"The sample rate is {rate!r}; give a positive whole number such as 16000.")
    origin = info.video_start if timeline and info.has_video else None
    total, resample, blocks, source = 0, None, [], 0
    for block, block_rate in _blocks(info, origin):
        if not np.isfinite(block).all():
            raise DataError(
                f"The audio of {path} contains NaN or infinite values. Export it again."
            )
        if resample is None:
            source = block_rate
            resample = _resampler(source, int(rate))
        total += len(block)
        blocks.append(resample(block, False))
    if resample is None or not total:
        raise DataError(
            f"The audio track of {path} contains no samples that can be decoded. "
            "Check that the file plays, or export it as wav."
        )
    blocks.append(resample(np.zeros(0, np.float32), True))
    samples = np.concatenate(blocks)
    # The resampler may return one sample more or less; the length follows the rule of librosa.
    length = -(-total * int(rate) // source)
    samples = np.pad(samples[:length], (0, max(0, length - len(samples))))
    if not samples.any():
        logger.warning("the audio of %s is digital silence", path)
    return samples


def resampled(wave: np.ndarray, source: int, target: int) -> np.ndarray:
    """Resample (N,) or (N,channels) from rate ``source`` to ``target``, as :func:`load_audio`."""
    if source == target:
        return wave
    soxr = require("soxr", why="Resampling audio")
    return soxr.resample(wave, source, target, quality="HQ").astype(np.float32)


def load_dyad(path: str | Path, rate: int, channels: str = "auto") -> np.ndarray:
    """(N,2) samples of a conversation: this person and the partner.

    The partner's channel is silence if the file has one channel or libsndfile cannot read it.

    Args:
        channels: ``dyad``: two channels are two persons; ``mono``: they are one person; ``auto``:
            they are one person if their correlation is above 0.9.

    Raises:
        DataError: as :func:`load_audio`.
    """
    soundfile = require("soundfile", why="Two-channel sound")
    try:
        wave, source = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError):
        wave, source = np.zeros((0, 1), np.float32), rate
    if wave.shape[1] == 2 and np.isfinite(wave).all():
        subset = wave[:: max(1, len(wave) // 1_000_000)]
        alike = min(subset.std(axis=0)) > 0 and np.corrcoef(subset.T)[0, 1] > 0.9
        if channels == "dyad" or (channels == "auto" and not alike):
            logger.info("%s: channel 1 is this person, channel 2 the partner", path)
            return resampled(wave, source, rate)
        logger.info("%s: both channels contain one voice; the partner is silent", path)
    mono = load_audio(path, rate)
    return np.stack([mono, np.zeros_like(mono)], axis=1)


def _resampler(source: int, target: int) -> Any:
    if source == target:
        return lambda block, last: block
    soxr = require("soxr", why="Resampling audio")
    return soxr.ResampleStream(source, target, 1, dtype="float32", quality="HQ").resample_chunk


def _blocks(info: MediaInfo, origin: float | None) -> Iterator[tuple[np.ndarray, int]]:
    """Yield mono float32 blocks without gaps from ``origin`` on (None: the first sample)."""
    position = repaired = 0
    rate = 0
    for time, frame_rate, block in _decode(info):
        if rate == 0:
            rate = frame_rate
        if frame_rate != rate:
            raise DataError(
                f"The sample rate of {info.path} changes from {rate} to {frame_rate} Hz within the "
                "audio track. Export the audio as wav."
            )
        if time is not None:
            origin = time - position / rate if origin is None else origin
            offset = round((time - origin) * rate) - position
            # A time stamp beyond the end of the file is damaged.
            limit = max(1.0, info.duration + 1.0) * rate - position
            if offset > limit:
                offset = 0
            if position == 0 or abs(offset) > _TOLERANCE * rate:
                repaired += position > 0
                if offset > 0:
                    yield np.zeros(offset, np.float32), rate
                    position += offset
                elif offset < 0:
                    block = block[-offset:]
        position += len(block)
        if len(block):
            yield block, rate
    if repaired:
        logger.warning("%s: %d gaps or overlaps in the audio repaired", info.path, repaired)


def _decode(info: MediaInfo) -> Iterator[tuple[float | None, int, np.ndarray]]:
    """Yield (time in s or None, rate, mono samples) for each decoded block of the chosen track."""
    failed = 0
    with open_media(info.path) as container:
        stream = audio_stream(container)
        tracks = len(container.streams.audio)
        if tracks > 1:
            logger.warning(
                "%s has %d audio tracks; using number %d (stream %d), the default of players",
                info.path,
                tracks,
                list(container.streams.audio).index(stream) + 1,
                stream.index,
            )
        end = _end(container, stream)
        for frame in decode(container, stream):
            if frame is None:
                failed += 1
                continue
            block = _mono(frame)
            if end is not None and frame.time is not None:
                excess = round((frame.time - end) * frame.sample_rate) + len(block)
                block = block[: max(0, len(block) - max(0, excess))]
            yield frame.time, frame.sample_rate, block
    if failed:
        logger.warning("%s: %d audio packets could not be decoded", info.path, failed)


def _end(container: Any, stream: Any) -> float | None:
    """End time of the audio of an mp4 in seconds; later samples are padding of the encoder."""
    if "mp4" not in container.format.name or not stream.duration:
        return None
    return float((stream.duration + (stream.start_time or 0)) * stream.time_base)


def _mono(frame: Any) -> np.ndarray:
    """Mean of the channels of a decoded block; integers are scaled to [-1, 1)."""
    data = frame.to_ndarray()
    if not frame.format.is_planar:
        data = data.reshape(-1, frame.layout.nb_channels).T
    if data.dtype == np.uint8:
        data = (data.astype(np.float32) - 128) / 128
    elif data.dtype.kind == "i":
        data = data / float(2 ** (8 * data.dtype.itemsize - 1))
    return data.mean(axis=0, dtype=np.float64).astype(np.float32)


def save_wav(path: str | Path, samples: np.ndarray, rate: int) -> None:
    """Write float (N,), clipped to [-1, 1], as a mono 16-bit PCM wav file.

    Raises:
        DataError: wrong shape, NaN or infinite values.
        EnvironmentProblem: disk full, read-only folder.
    """
    _write_wav(path, np.asarray(samples), rate, 1)


def save_stereo(path: str | Path, samples: np.ndarray, rate: int) -> None:
    """As :func:`save_wav`, for (N,channels)."""
    _write_wav(path, np.asarray(samples), rate, 2)


def _write_wav(path: str | Path, samples: np.ndarray, rate: int, ndim: int) -> None:
    if samples.ndim != ndim or not np.issubdtype(samples.dtype, np.floating):
        raise DataError(
            f"Audio for {path} has type {samples.dtype} and shape {samples.shape}; "
            f"float samples of shape {'(N,)' if ndim == 1 else '(N,channels)'} are needed."
        )
    if not np.isfinite(samples).all():
        raise DataError(f"Audio for {path} contains NaN or infinite values.")
    # 32768 is the scale of reading; the largest positive value is one step below full scale.
    pcm = np.clip(np.round(samples * 32768.0), -32768, 32767).astype("<i2")
    with atomic(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(1 if ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(int(rate))
        file.writeframes(pcm.tobytes())
