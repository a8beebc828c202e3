"""MFCC front end of SyncNet, identical to python_speech_features 0.6 with its defaults."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

RATE = 16000
N_MFCC = 13
COLUMNS_PER_SECOND = 100
AUDIO_STEPS = 20  # columns of one SyncNet window, 0.2 s
WINDOW = 5  # video frames of one SyncNet window
_WINDOW, _HOP, _N_FFT, _N_MELS = 400, 160, 512, 26
_PRE_EMPHASIS, _LIFTER = 0.97, 22
_EPSILON = np.finfo(float).eps


def syncnet_mfcc(wave: np.ndarray) -> np.ndarray:
    """Mel-frequency cepstral coefficients; the first one is replaced by the log frame energy.

    Rectangular windows of 25 ms every 10 ms, pre-emphasis 0.97, 512-point power spectrum, 26
    triangular bands from 0 to 8000 Hz (2595 log10(1 + f/700), edges at whole bins), natural log,
    orthonormal DCT-II, lifter 22. The energy depends on the amplitude: samples are scaled to the
    range of int16, as in the official code.

    Args:
        wave: float (N,), 16 kHz mono in [-1, 1].

    Returns:
        float32 (13, n) with n = 1 + ceil((N - 400) / 160), at least 1; the last frame is padded
        with zeros.
    """
    from scipy.fft import dct

    pcm = np.clip(np.rint(np.asarray(wave, np.float64) * 32768), -32768, 32767)
    if not len(pcm):
        return np.zeros((N_MFCC, 0), np.float32)
    emphasised = np.append(pcm[0], pcm[1:] - _PRE_EMPHASIS * pcm[:-1])
    count = 1 + max(0, -(-(len(pcm) - _WINDOW) // _HOP))
    padded = np.zeros((count - 1) * _HOP + _WINDOW)
    padded[: len(pcm)] = emphasised
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    power = np.abs(np.fft.rfft(frames, _N_FFT)) ** 2 / _N_FFT
    energy = power.sum(axis=1)
    bands = power @ _filterbank().T
    energy, bands = (np.where(values == 0, _EPSILON, values) for values in (energy, bands))
    cepstrum = dct(np.log(bands), type=2, axis=1, norm="ortho")[:, :N_MFCC]
    cepstrum *= 1 + _LIFTER / 2 * np.sin(np.pi * np.arange(N_MFCC) / _LIFTER)
    cepstrum[:, 0] = np.log(energy)
    return cepstrum.T.astype(np.float32)


def warped_mfcc(mfcc: np.ndarray, factor: float) -> np.ndarray:
    """MFCC of a voice whose vocal tract is shorter: all formants are ``factor`` times as high.

    The spectral envelope that the coefficients describe is stretched along the frequency axis
    (vocal tract length perturbation, Jaitly and Hinton 2013). The energy stays.

    Args:
        mfcc: (13, n) of :func:`syncnet_mfcc`.
    """
    from scipy.fft import dct, idct

    lifter = 1 + _LIFTER / 2 * np.sin(np.pi * np.arange(N_MFCC) / _LIFTER)
    shape = mfcc / lifter[:, None]
    shape[0] = 0
    bands = idct(shape, axis=0, n=_N_MELS, norm="ortho")
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    mels = (np.arange(_N_MELS) + 1) * top / (_N_MELS + 1)
    source = 2595 * np.log10(1 + (10 ** (mels / 2595) - 1) / factor)  # where each band comes from
    place = np.clip(source * (_N_MELS + 1) / top - 1, 0, _N_MELS - 1)
    low = np.minimum(place.astype(int), _N_MELS - 2)
    share = (place - low)[:, None]
    moved = dct((1 - share) * bands[low] + share * bands[low + 1], axis=0, norm="ortho")
    moved = moved[:N_MFCC] * lifter[:, None]
    moved[0] = mfcc[0]
    return moved.astype(np.float32)


@lru_cache
def _filterbank() -> np.ndarray:
    """(26, 257) triangular filters."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, _N_MELS + 2) / 2595) - 1)
    edges = np.floor((_N_FFT + 1) * hertz / RATE).astype(int)
    bank = np.zeros((_N_MELS, _N_FFT // 2 + 1))
    for band in range(_N_MELS):
        low, middle, high = edges[band : band + 3]
        bank[band, low:middle] = (np.arange(low, middle) - low) / max(middle - low, 1)
        bank[band, middle:high] = (high - np.arange(middle, high)) / max(high - middle, 1)
    return bank
