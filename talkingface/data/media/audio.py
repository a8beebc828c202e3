"""Sound of any media file as mono samples on the clock of the picture, and a wav writer."""

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

# Seconds by which time stamps may disagree with the count of samples before silence is put in or
# samples are cut: above the rounding of containers (1 ms) and below the sync goal of 20 ms.
_TOLERANCE = 0.01


def load_audio(path: str | Path, rate: int = 16000, *, timeline: bool = True) -> np.ndarray:
    """Read the sound of a media file as mono samples.

    Channels are averaged with equal weights; the rate is changed with soxr (quality HQ, the default
    of librosa, deterministic). Holes in the time stamps become silence, so that sound after a hole
    stays in sync. Decoding and resampling are streaming: memory is that of the result, twice.
    Of several tracks the one marked as default is taken, else the first; which one is logged.

    Args:
        path: wav, flac, mp3, mp4, mov, mpg, mkv...
        rate: wanted samples per second.
        timeline: for files with a picture let sample 0 be the time of the first picture: sound
            that starts later gets silence before it, sound that starts earlier is cut.

    Returns:
        float32 (N,), [-1, 1] for integer and compressed sources; float files keep their values.

    Raises:
        DataError: no track, nothing decodes, no samples, NaN or infinite values.
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
            raise DataError(f"The sound of {path} holds NaN or infinite values. Export it again.")
        if resample is None:
            source = block_rate
            resample = _resampler(source, int(rate))
        total += len(block)
        blocks.append(resample(block, False))
    if resample is None or not total:
        raise DataError(
            f"The audio track of {path} holds no samples that can be decoded. "
            "Check that the file plays, or export it as wav."
        )
    blocks.append(resample(np.zeros(0, np.float32), True))
    samples = np.concatenate(blocks)
    # The resampler may end a sample early or late; the rule of librosa fixes the length.
    length = -(-total * int(rate) // source)
    samples = np.pad(samples[:length], (0, max(0, length - len(samples))))
    if not samples.any():
        logger.warning("the sound of %s is digital silence", path)
    return samples


def resampled(wave: np.ndarray, source: int, target: int) -> np.ndarray:
    """Samples (N,) or (N,channels) at another rate; the quality of :func:`load_audio`."""
    if source == target:
        return wave
    soxr = require("soxr", why="Resampling audio")
    return soxr.resample(wave, source, target, quality="HQ").astype(np.float32)


def load_dyad(path: str | Path, rate: int, channels: str = "auto") -> np.ndarray:
    """(N,2) samples of a conversation: this person, the partner.

    A file with one channel, or one that libsndfile cannot read, has no partner: that channel is
    silence.

    Args:
        channels: ``dyad``: two channels are two persons; ``mono``: they are one; ``auto``: one
            where they are nearly equal.

    Raises:
        DataError: as :func:`load_audio`.
    """
    soundfile = require("soundfile", why="Two-channel sound")
    try:
        wave, source = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError):
        wave, source = np.zeros((0, 1), np.float32), rate
    if wave.shape[1] == 2 and np.isfinite(wave).all():
        some = wave[:: max(1, len(wave) // 1_000_000)]
        alike = min(some.std(axis=0)) > 0 and np.corrcoef(some.T)[0, 1] > 0.9
        if channels == "dyad" or (channels == "auto" and not alike):
            logger.info("%s: channel 1 is this person, channel 2 the partner", path)
            return resampled(wave, source, rate)
        logger.info("%s: both channels hold one voice; the partner is silent", path)
    own = load_audio(path, rate)
    return np.stack([own, np.zeros_like(own)], axis=1)


def _resampler(source: int, target: int) -> Any:
    if source == target:
        return lambda block, last: block
    soxr = require("soxr", why="Resampling audio")
    return soxr.ResampleStream(source, target, 1, dtype="float32", quality="HQ").resample_chunk


def _blocks(info: MediaInfo, origin: float | None) -> Iterator[tuple[np.ndarray, int]]:
    """Yield mono float32 blocks without holes from ``origin`` on (None: the first sample)."""
    position = repaired = 0
    rate = 0
    for time, frame_rate, block in _decode(info):
        if rate == 0:
            rate = frame_rate
        if frame_rate != rate:
            raise DataError(
                f"The sound of {info.path} changes its sample rate from {rate} to {frame_rate} Hz "
                "on the way. Export it as wav."
            )
        if time is not None:
            origin = time - position / rate if origin is None else origin
            offset = round((time - origin) * rate) - position
            # No file has a hole that reaches beyond its own end: such a time stamp is damaged.
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
        logger.warning("%s: %d holes or overlaps in the sound repaired", info.path, repaired)


def _decode(info: MediaInfo) -> Iterator[tuple[float | None, int, np.ndarray]]:
    """Yield (time in s or None, rate, mono samples) for each decoded block of the chosen track."""
    failed = 0
    with open_media(info.path) as container:
        stream = audio_stream(container)
        tracks = len(container.streams.audio)
        if tracks > 1:
            logger.warning(
                "%s has %d audio tracks; using number %d (stream %d), the one a player starts with",
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
        logger.warning("%s: %d packets of sound could not be decoded", info.path, failed)


def _end(container: Any, stream: Any) -> float | None:
    """Time at which the sound of an mp4 ends; what decodes beyond it is padding of the encoder."""
    if "mp4" not in container.format.name or not stream.duration:
        return None
    return float((stream.duration + (stream.start_time or 0)) * stream.time_base)


def _mono(frame: Any) -> np.ndarray:
    """Average the channels of a decoded block; integers are scaled to [-1, 1)."""
    data = frame.to_ndarray()
    if not frame.format.is_planar:
        data = data.reshape(-1, frame.layout.nb_channels).T
    if data.dtype == np.uint8:
        data = (data.astype(np.float32) - 128) / 128
    elif data.dtype.kind == "i":
        data = data / float(2 ** (8 * data.dtype.itemsize - 1))
    return data.mean(axis=0, dtype=np.float64).astype(np.float32)


def save_wav(path: str | Path, samples: np.ndarray, rate: int) -> None:
    """Write mono sound as a 16-bit PCM wav file.

    Args:
        path: target.
        samples: float (N,); values outside [-1, 1] are clipped.
        rate: samples per second.

    Raises:
        DataError: wrong shape, NaN or infinite values.
        EnvironmentProblem: disk full, read-only folder.
    """
    samples = np.asarray(samples)
    if samples.ndim != 1:
        raise DataError(
            f"Sound for {path} has type {samples.dtype} and shape {samples.shape}; "
            "float samples of shape (N,) are needed."
        )
    save_stereo(path, samples[:, None], rate)


def save_stereo(path: str | Path, samples: np.ndarray, rate: int) -> None:
    """As :func:`save_wav`, for (N,channels)."""
    samples = np.asarray(samples)
    if samples.ndim != 2 or not np.issubdtype(samples.dtype, np.floating):
        raise DataError(
            f"Sound for {path} has type {samples.dtype} and shape {samples.shape}; "
            "float samples of shape (N,) are needed."
        )
    if not np.isfinite(samples).all():
        raise DataError(f"Sound for {path} holds NaN or infinite values.")
    # 32768 is the scale of reading; the largest positive value is one step below full scale.
    pcm = np.clip(np.round(samples * 32768.0), -32768, 32767).astype("<i2")
    with atomic(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(int(rate))
        file.writeframes(pcm.tobytes())
