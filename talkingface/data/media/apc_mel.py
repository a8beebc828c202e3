"""Log-mel front end of Live Speech Portraits: 80 bands at 120 Hz, two rows per motion frame; and
the speech features that an APC network computes from it."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.errors import DataError
from talkingface.utils.hashes import sha256_of

if TYPE_CHECKING:
    from torch import nn

# Values of the official code.
SAMPLE_RATE = 16000
MOTION_FPS = 60
ROWS_PER_FRAME = 2
N_MELS = 80
SLICE = 266  # samples of a row: int(16000 / 60)

_N_FFT, _HOP = 512, 133
_PAD = (_N_FFT - _HOP) // 2
_WINDOW_OFFSET = (_N_FFT - SLICE) // 2  # torch.stft centres the shorter window
_FLOOR = 1e-5
_BLOCK = 4096  # rows per transform; limits the memory for long audio
_VERSION = 1  # of the front end, in the identifiers of features
_CHUNK = 60 * ROWS_PER_FRAME * MOTION_FPS  # rows per forward pass of the network, 60 s


def frame_count(samples: int) -> int:
    """Number of motion frames (60 Hz) in this many samples, rounded down."""
    return samples * MOTION_FPS // SAMPLE_RATE


def row_start(row: int | np.ndarray) -> np.ndarray:
    """First sample of a row, without rounding drift: 0, 133, 266, 400, 533 ..."""
    return np.asarray(row, np.int64) * SAMPLE_RATE // (MOTION_FPS * ROWS_PER_FRAME)


def apc_mel(wave: np.ndarray) -> np.ndarray:
    """Compute the log-mel spectrogram that is the input of the APC network.

    Each row is computed from 266 samples: reflection padding by 189 on both sides, a Hann window of
    266 in the centre of the first 512 samples, magnitude spectrum, 80 Slaney bands from 90 to
    7600 Hz, and the logarithm mapped so that 1e-5 is 0 and 1 is 1. The last 66 samples of a row
    thus have no influence. This is kept, because the official weights were trained with it.

    Args:
        wave: float (N,), 16 kHz mono, about [-1, 1].

    Returns:
        float32 (2T, 80), T = :func:`frame_count`; digital silence is 0, values can be slightly
        above 1.

    Raises:
        DataError: wrong shape, NaN or infinite values.
    """
    wave = checked_wave(wave)
    return mel_rows(wave, 0, ROWS_PER_FRAME * frame_count(len(wave)))


def checked_wave(wave: Any) -> np.ndarray:
    """Samples (N,) as float32; DataError: wrong shape, NaN or infinite values."""
    wave = np.asarray(wave, np.float32)
    if wave.ndim != 1:
        raise DataError(f"The APC front end needs audio of shape (N,); got {wave.shape}.")
    if not np.isfinite(wave).all():
        raise DataError("The audio for the APC front end contains NaN or infinite values.")
    return wave


def mel_rows(wave: np.ndarray, first: int, count: int, origin: int = 0) -> np.ndarray:
    """Rows ``first`` to ``first + count`` of :func:`apc_mel`, e.g. for streamed audio.

    Args:
        wave: samples from ``origin`` on; missing samples at its end count as silence.
        origin: index of the sample ``wave[0]`` in the whole recording.
    """
    result = np.empty((count, N_MELS), np.float32)
    padded = np.concatenate([wave.astype(np.float32), np.zeros(SLICE, np.float32)])
    # Reflection padding at the start of a row: index -k is k. The window does not reach its end.
    position = np.abs(np.arange(SLICE) - (_PAD - _WINDOW_OFFSET))
    inside = slice(_WINDOW_OFFSET, _WINDOW_OFFSET + SLICE)
    window = np.hanning(SLICE + 1)[:-1].astype(np.float32)  # periodic
    bank = _filter_bank()
    floor = math.log(_FLOOR)  # a Python number keeps float32 arrays as they are
    for start in range(0, count, _BLOCK):
        numbers = np.arange(first + start, first + min(count, start + _BLOCK))
        samples = row_start(numbers)[:, None] - origin + position
        weighted = np.zeros((len(numbers), _N_FFT), np.float32)
        weighted[:, inside] = padded[np.minimum(samples, len(padded) - 1)] * window
        magnitude = np.abs(np.fft.rfft(weighted, axis=1)).astype(np.float32)
        level = np.log(np.maximum(magnitude @ bank, _FLOOR))
        result[start : start + len(numbers)] = (level - floor) / -floor
    return result


@lru_cache(maxsize=1)
def _filter_bank() -> np.ndarray:
    """(257, 80) mel filters."""
    import librosa

    bank = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=_N_FFT, n_mels=N_MELS, fmin=90.0, fmax=7600.0)
    bank = np.ascontiguousarray(bank.T.astype(np.float32))
    bank.setflags(write=False)
    return bank


def apc_id(path: Path) -> str:
    """Identifier of an APC checkpoint by content: features of another checkpoint are not reused."""
    return f"{sha256_of(path)[:12]}v{_VERSION}"


def encode(network: nn.Module, wave: np.ndarray) -> np.ndarray:
    """16 kHz mono samples -> features (2T, hidden) float32."""
    import torch

    mel = torch.from_numpy(apc_mel(wave))
    device = next(network.parameters()).device
    state, parts = None, []
    with torch.inference_mode():
        for rows in mel.split(_CHUNK):
            features, state = network.stream(rows[None].to(device), state)
            parts.append(features[0].cpu())
    width = network.rnns[0].hidden_size
    return torch.cat(parts).numpy() if parts else np.zeros((0, width), np.float32)
