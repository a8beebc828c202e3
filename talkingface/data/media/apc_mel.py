"""Log-mel front end of Live Speech Portraits: 80 bands at 120 Hz, two rows per motion frame."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from talkingface.errors import DataError

# Values in use in the official code.
SAMPLE_RATE = 16000
MOTION_FPS = 60
ROWS_PER_FRAME = 2
N_MELS = 80
SLICE = 266  # samples of a row: int(16000 / 60)

_N_FFT, _HOP = 512, 133
_PAD = (_N_FFT - _HOP) // 2
_WINDOW_OFFSET = (_N_FFT - SLICE) // 2  # torch.stft centres the shorter window
_FLOOR = 1e-5
_BLOCK = 4096  # rows per transform; bounds the memory for long sound


def frame_count(samples: int) -> int:
    """Motion frames (60 Hz) of a sound of so many samples; the fraction of a frame is cut."""
    return samples * MOTION_FPS // SAMPLE_RATE


def row_start(row: int | np.ndarray) -> np.ndarray:
    """First sample of a row: 0, 133, 266, 400, 533 ..., exactly."""
    return np.asarray(row, np.int64) * SAMPLE_RATE // (MOTION_FPS * ROWS_PER_FRAME)


def apc_mel(wave: np.ndarray) -> np.ndarray:
    """Compute the log-mel spectrogram that the APC network takes.

    Each row is made of its own 266 samples: mirrored by 189 on both sides, 512 of them weighted
    with a Hann window of 266, magnitude of the spectrum, 80 Slaney bands from 90 to 7600 Hz, and
    the logarithm mapped so that 1e-5 is 0 and 1 is 1. The last 66 samples of a row thus have no
    influence; kept, since the official weights were trained so.

    Args:
        wave: float (N,), 16 kHz mono, about [-1, 1].

    Returns:
        float32 (2T, 80), T = :func:`frame_count`; digital silence is 0, values may exceed 1 a
        little.

    Raises:
        DataError: wrong shape, NaN or infinite values.
    """
    wave = np.asarray(wave)
    if wave.ndim != 1:
        raise DataError(f"The APC front end needs sound of shape (N,); got {wave.shape}.")
    if not np.isfinite(wave).all():
        raise DataError("The APC front end got sound with NaN or infinite values.")
    rows = ROWS_PER_FRAME * frame_count(len(wave))
    return mel_rows(wave, 0, rows)


def mel_rows(wave: np.ndarray, first: int, count: int, origin: int = 0) -> np.ndarray:
    """Rows ``first`` to ``first + count`` of :func:`apc_mel`, e.g. of a sound that goes on.

    Args:
        wave: samples from ``origin`` on; what lies behind its end counts as silence.
        origin: number of the sample ``wave[0]`` in the whole sound.
    """
    result = np.empty((count, N_MELS), np.float32)
    padded = np.concatenate([wave.astype(np.float32), np.zeros(SLICE, np.float32)])
    # Mirrored at its ends like numpy's "reflect": index -k is k, index SLICE-1+k is SLICE-1-k.
    position = np.arange(_N_FFT) - _PAD
    position = np.abs(position)
    position = np.where(position >= SLICE, 2 * (SLICE - 1) - position, position)
    inside = slice(_WINDOW_OFFSET, _WINDOW_OFFSET + SLICE)
    window = np.hanning(SLICE + 1)[:-1].astype(np.float32)  # periodic
    bank = _filter_bank()
    floor = math.log(_FLOOR)  # a Python number keeps float32 arrays as they are
    for start in range(0, count, _BLOCK):
        numbers = np.arange(first + start, first + min(count, start + _BLOCK))
        places = row_start(numbers)[:, None] - origin + position[inside]
        weighted = np.zeros((len(numbers), _N_FFT), np.float32)
        weighted[:, inside] = padded[np.minimum(places, len(padded) - 1)] * window
        magnitude = np.abs(np.fft.rfft(weighted, axis=1)).astype(np.float32)
        level = np.log(np.maximum(magnitude @ bank, _FLOOR))
        result[start : start + len(numbers)] = (level - floor) / -floor
    return result


@lru_cache(maxsize=1)
def _filter_bank() -> np.ndarray:
    """(257, 80)."""
    import librosa

    bank = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=_N_FFT, n_mels=N_MELS, fmin=90.0, fmax=7600.0)
    bank = np.ascontiguousarray(bank.T.astype(np.float32))
    bank.setflags(write=False)
    return bank
