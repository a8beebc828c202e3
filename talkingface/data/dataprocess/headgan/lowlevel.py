"""The 84 low-level features of HeadGAN's voice vector (official code, from pyAudioAnalysis).

21 base features of windows of half a video frame, with a hop of 1/16 frame, and their differences;
the mean and the standard deviation of both over eight video frames, starting with the row's frame.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

N_LOW = 84
WINDOW_FRAMES = 8  # video frames of a row
_STEPS = 16  # short windows per video frame
_MFCC, _LINEAR, _LOG = 13, 13, 27
_LOWEST, _SPACING, _RATIO = 133.33, 200.0 / 3, 1.0711703
_EPSILON = 1e-8
_BLOCKS = 10  # blocks of the entropies
_ROLLOFF = 0.90
_CHUNK = 4096  # short windows per batch


def lowlevel_features(
    wave: np.ndarray, rate: int, fps: float, frames: int | None = None, *, legacy_hop: bool = False
) -> np.ndarray:
    """Low-level features of a whole sound.

    Args:
        wave: (N,) mono in [-1,1]; mean and peak are normalised over the whole sound, as in the
            official code.
        rate: samples per second; the values depend on it.
        fps: video frames per second.
        frames: number of rows: the last row is repeated, or rows are cut; None: one row per frame
            that begins in the sound.
        legacy_hop: a row every 16 steps of whole samples, as in the official code, which drifts if
            16 * fps does not divide the rate; otherwise row t begins at t / fps seconds.

    Returns:
        (T,84) float32, finite also for silence. Row t covers frames t to t + 7.
    """
    signal = np.asarray(wave, np.float64)
    peak = np.abs(signal).max(initial=0.0) + 1e-10  # before the mean is subtracted (official code)
    signal = (signal - signal.mean()) / peak if len(signal) else signal
    window = round(rate / (2 * fps))
    step = round(rate / (_STEPS * fps))
    short = _short_term(signal, rate, window, step)
    if legacy_hop:
        starts = np.arange(0, len(short), _STEPS)
    else:
        # The first window that begins with the frame or later.
        count = max(1, int(len(signal) * fps / rate + 1e-6))
        begin = np.round(np.arange(count) * rate / fps)
        starts = np.ceil(begin / step - 1e-9).astype(int)
    starts = starts[starts < len(short)]
    length = round(round(WINDOW_FRAMES * rate / fps) / step)
    parts = [short[start : start + length] for start in starts]  # shorter ones at the end
    rows = np.array([np.concatenate([part.mean(axis=0), part.std(axis=0)]) for part in parts])
    if frames is not None:
        rows = rows[np.minimum(np.arange(frames), len(rows) - 1)]
    return rows.astype(np.float32)


def _short_term(signal: np.ndarray, rate: int, window: int, step: int) -> np.ndarray:
    """(n,42) base features and their differences."""
    if len(signal) < window:
        signal = np.pad(signal, (0, window - len(signal)))
    windows = np.lib.stride_tricks.sliding_window_view(signal, window)[::step]
    bins = window // 2
    base, before = [], None
    for first in range(0, len(windows), _CHUNK):
        part = windows[first : first + _CHUNK]
        spectrum = np.abs(np.fft.fft(part, axis=1))[:, :bins] / bins
        previous = np.concatenate([spectrum[:1] if before is None else before, spectrum[:-1]])
        base.append(_base(part, spectrum, previous, rate))
        before = spectrum[-1:]
    values = np.concatenate(base)
    deltas = np.diff(values, axis=0, prepend=values[:1])
    return np.concatenate([values, deltas], axis=1)


def _base(part: np.ndarray, spectrum: np.ndarray, previous: np.ndarray, rate: int) -> np.ndarray:
    """Base features (n,21) of windows (n,W), from their magnitude spectra (n,K) and those of the
    previous windows."""
    from scipy.fft import dct

    size, bins = part.shape[1], spectrum.shape[1]
    crossings = np.abs(np.diff(np.sign(part), axis=1)).sum(axis=1) / 2 / (size - 1)
    energy = np.square(part).sum(axis=1) / size
    axis = np.arange(1, bins + 1) * (rate / (2.0 * bins))
    peak = spectrum.max(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(peak > 0, spectrum / peak, 0.0)  # 0 for digital silence
    total = share.sum(axis=1) + _EPSILON
    centroid = (axis * share).sum(axis=1) / total
    spread = np.sqrt((np.square(axis - centroid[:, None]) * share).sum(axis=1) / total)
    flux = np.square(_unit_sum(spectrum) - _unit_sum(previous)).sum(axis=1)
    power = np.square(spectrum)
    reached = np.cumsum(power, axis=1) + _EPSILON > _ROLLOFF * power.sum(axis=1, keepdims=True)
    rolloff = np.where(reached.any(axis=1), reached.argmax(axis=1) / bins, 0.0)
    bands = np.log10(spectrum @ _filterbank(rate, bins).T + _EPSILON)
    cepstrum = dct(bands, type=2, axis=1, norm="ortho")[:, :_MFCC]
    columns = [
        crossings, energy, _entropy(part), centroid / (rate / 2), spread / (rate / 2),
        _entropy(spectrum), flux, rolloff,
    ]  # fmt: skip
    return np.concatenate([np.stack(columns, axis=1), cepstrum], axis=1)


def _unit_sum(spectrum: np.ndarray) -> np.ndarray:
    return spectrum / (spectrum.sum(axis=1, keepdims=True) + _EPSILON)


def _entropy(values: np.ndarray) -> np.ndarray:
    """Entropy in bits of the shares of ten blocks in the total energy."""
    whole = np.square(values).sum(axis=1, keepdims=True)
    length = values.shape[1] // _BLOCKS
    blocks = values[:, : length * _BLOCKS].reshape(len(values), _BLOCKS, length)
    shares = np.square(blocks).sum(axis=2) / (whole + _EPSILON)
    return -(shares * np.log2(shares + _EPSILON)).sum(axis=1)


@lru_cache
def _filterbank(rate: int, bins: int) -> np.ndarray:
    """(40,bins) triangular filters on the frequency axis of the official code, which is too coarse
    by a factor of 2; another axis would give other features."""
    edges = np.zeros(_LINEAR + _LOG + 2)
    edges[:_LINEAR] = _LOWEST + np.arange(_LINEAR) * _SPACING
    edges[_LINEAR:] = edges[_LINEAR - 1] * _RATIO ** np.arange(1, _LOG + 3)
    heights = 2.0 / (edges[2:] - edges[:-2])
    axis = np.arange(bins) / bins * rate
    bank = np.zeros((_LINEAR + _LOG, bins))
    for band, height in enumerate(heights):
        low, middle, high = edges[band : band + 3]
        first, second = (int(np.floor(f * bins / rate)) + 1 for f in (low, middle))
        rising = np.arange(first, min(second, bins))
        falling = np.arange(second, min(int(np.floor(high * bins / rate)) + 1, bins))
        bank[band, rising] = height / (middle - low) * (axis[rising] - low)
        bank[band, falling] = height / (high - middle) * (high - axis[falling])
    return bank
