"""Audio of any media file as mono samples aligned with the video, and a wav writer."""

from __future__ import annotations

import logging
import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.media.files import audio_stream, decode, open_media
from talkingface.data.media.limits import require_hours, require_rate
from talkingface.data.media.probe import MediaInfo, probe
from talkingface.errors import DataError
from talkingface.utils.env import require
from talkingface.utils.paths import atomic

logger = logging.getLogger(__name__)

# Seconds by which time stamps may deviate from the sample count before silence is inserted or
# samples are cut: above the rounding of containers (1 ms), below the sync tolerance of 20 ms.
_TOLERANCE = 0.01
_MAX_HOLE = 60.0  # seconds of missing samples that are filled in files without a duration
_INT16_AT_LEAST = 64.0  # a peak that no mix in floats reaches, but 16-bit numbers do


def load_audio(path: str | Path, rate: int = 16000) -> np.ndarray:
    """Read the audio of a media file as mono samples.

    Channels are averaged with equal weights, unless they cancel each other; then the loudest one is
    read, with a warning. Floats that hold 16-bit numbers are scaled, with a warning. soxr resamples
    (quality HQ, the default of librosa, deterministic). In files with video, sample 0 is at the
    time of the first frame: audio that starts later is preceded by silence, audio that starts
    earlier is cut. Gaps in the time stamps become silence, so that later samples stay in sync.
    Decoding and resampling are streamed; peak memory is twice the result. Of several tracks the one
    marked as default is read, else the first; the log names it.

    Args:
        path: wav, flac, mp3, mp4, mov, mpg, mkv...
        rate: output samples per second.

    Returns:
        float32 (N,), [-1, 1] for integer and compressed sources; float files keep their values.

    Raises:
        DataError: no audio track, no decodable samples, NaN or infinite values.
    """
    info = probe(path)
    if not info.has_audio:
        raise DataError(f"There is no audio track in {path}. Give the speech as a separate file.")
    track = _Track(info)
    samples = _load(track, int(rate))
    if track.channels_cancel:
        logger.warning(
            "%s: the channels cancel each other; only channel %d is used", path, track.loudest + 1
        )
        track.only = track.loudest
        samples = _load(track, int(rate))
    if _INT16_AT_LEAST <= track.peak <= 32768:
        logger.warning("%s holds 16-bit numbers as floats; they are divided by 32768", path)
        samples /= 32768
    elif track.peak > 32768:
        raise DataError(f"The audio of {path} has values up to {track.peak:.3g}. Export it again.")
    if not samples.any():
        logger.warning("the audio of %s is digital silence", path)
    return samples


def _load(track: _Track, rate: int) -> np.ndarray:
    info = track.info
    path = info.path
    total, resample, blocks, source = 0, None, [], 0
    for block, block_rate in _blocks(track, info.video_start if info.has_video else None):
        if not np.isfinite(block).all():
            raise DataError(
                f"The audio of {path} contains NaN or infinite values. Export it again."
            )
        if resample is None:
            source = block_rate
            require_rate(source, path)
            resample = _resampler(source, rate)
        total += len(block)
        require_hours(total / source, path)
        blocks.append(resample(block, False))
    if resample is None or not total:
        raise DataError(
            f"The audio track of {path} contains no samples that can be decoded. "
            "Check that the file plays, or export it as wav."
        )
    blocks.append(resample(np.zeros(0, np.float32), True))
    samples = np.concatenate(blocks)
    # The resampler may return one sample more or less; the length follows the rule of librosa.
    length = -(-total * rate // source)
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


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


@dataclass
class _Track:
    """What is known of the chosen audio track, as it is decoded.

    Attributes:
        only: the channel that is read; None: the mean of all.
        peak: largest absolute value; above 1 only in files with float samples.
        energy: sum of squares of each channel.
        mean_energy: the same of their mean.
    """

    info: MediaInfo
    only: int | None = None
    peak: float = 0.0
    energy: np.ndarray = field(default_factory=lambda: np.zeros(1))
    mean_energy: float = 0.0

    @property
    def loudest(self) -> int:
        return int(np.argmax(self.energy))

    @property
    def channels_cancel(self) -> bool:
        """Whether the mean of the channels is more than 20 dB below the loudest one."""
        loudest = float(self.energy.max())
        return len(self.energy) > 1 and loudest > 0 and self.mean_energy < 0.01 * loudest

    def mono(self, channels: np.ndarray) -> np.ndarray:
        """(C,N) to (N,) float32."""
        if not channels.size:
            return np.zeros(0, np.float32)
        self.peak = max(self.peak, float(np.abs(channels).max()))
        mean = channels.mean(axis=0, dtype=np.float64)
        if self.only is not None:
            return channels[min(self.only, len(channels) - 1)].astype(np.float32)
        energy = np.square(channels, dtype=np.float64).sum(axis=1)
        size = max(len(energy), len(self.energy))
        self.energy = sum(np.pad(e, (0, size - len(e))) for e in (self.energy, energy))
        self.mean_energy += float(np.square(mean).sum())
        return mean.astype(np.float32)


def _blocks(track: _Track, origin: float | None) -> Iterator[tuple[np.ndarray, int]]:
    """Yield mono float32 blocks without gaps from ``origin`` on (None: the first sample)."""
    info = track.info
    position = repaired = 0
    rate = 0
    for time, frame_rate, block in _decode(track):
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
            limit = (info.duration + 1.0) * rate - position if info.duration else _MAX_HOLE * rate
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


def _decode(track: _Track) -> Iterator[tuple[float | None, int, np.ndarray]]:
    """Yield (time in s or None, rate, mono samples) for each decoded block of the chosen track."""
    failed = 0
    info = track.info
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
            block = track.mono(_channels(frame))
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


def _channels(frame: Any) -> np.ndarray:
    """(C,N) samples of a decoded block; integers are scaled to [-1, 1)."""
    data = frame.to_ndarray()
    if not frame.format.is_planar:
        data = data.reshape(-1, frame.layout.nb_channels).T
    if data.dtype == np.uint8:
        data = (data.astype(np.float32) - 128) / 128
    elif data.dtype.kind == "i":
        data = data / float(2 ** (8 * data.dtype.itemsize - 1))
    return data


def save_wav(path: str | Path, samples: np.ndarray, rate: int) -> None:
    """Write float (N,) or (N,1..2), clipped to [-1, 1], as a 16-bit PCM wav file.

    Raises:
        DataError: wrong shape, NaN or infinite values.
        EnvironmentProblem: disk full, read-only folder.
    """
    samples = np.asarray(samples)
    channels = samples.shape[1] if samples.ndim == 2 else 1
    if samples.ndim not in (1, 2) or channels > 2 or not np.issubdtype(samples.dtype, np.floating):
        raise DataError(
            f"Audio for {path} has type {samples.dtype} and shape {samples.shape}; "
            "float samples of shape (N,) or (N,channels) are needed."
        )
    if not np.isfinite(samples).all():
        raise DataError(f"Audio for {path} contains NaN or infinite values.")
    # 32768 is the scale of reading; the largest positive value is one step below full scale.
    pcm = np.clip(np.round(samples * 32768.0), -32768, 32767).astype("<i2")
    with atomic(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(int(rate))
        file.writeframes(pcm.tobytes())
