"""Time series: interpolation, smoothing inside segments, and runs of equal values."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def fill_gaps(values: np.ndarray) -> np.ndarray:
    """Interpolate missing frames (with a NaN) of (T, ...) linearly, as float64.

    At the ends the nearest known frame is repeated. All stay as they are when no frame is known.
    """
    flat = values.reshape(len(values), -1).astype(np.float64)
    known = np.isfinite(flat).all(axis=1)
    if known.all() or not known.any():
        return values.astype(np.float64)
    time = np.arange(len(flat))
    filled = np.stack([np.interp(time, time[known], column[known]) for column in flat.T], axis=1)
    return filled.reshape(values.shape)


def smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian smoothing along axis 0, ``sigma`` in frames; the end values are used as padding."""
    from scipy.ndimage import gaussian_filter1d

    if sigma <= 0 or len(values) < 2:
        return values
    return gaussian_filter1d(values, sigma, axis=0, mode="nearest", truncate=3.0)


def between(values: np.ndarray, time: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """Values (N, ...), linearly interpolated at fractional rows ``time`` (n,).

    Args:
        dtype: of the weights.
    """
    low = np.minimum(time.astype(int), max(0, len(values) - 2))
    high = np.minimum(low + 1, len(values) - 1)
    part = (time - low).astype(dtype).reshape(-1, *[1] * (values.ndim - 1))
    return values[low] * (1 - part) + values[high] * part


def there_and_back(length: int, count: int) -> np.ndarray:
    """(count,) rows of a sequence that runs forwards and backwards without a jump."""
    if length < 2:
        return np.zeros(count, int)
    phase = np.arange(count) % (2 * (length - 1))
    return np.minimum(phase, 2 * (length - 1) - phase)


def runs(labels: np.ndarray) -> Iterator[tuple[int, int]]:
    """(start, stop) of every stretch of equal values in a (T,) array."""
    edges = np.flatnonzero(np.diff(labels)) + 1
    bounds = [0, *edges.tolist(), len(labels)]
    if len(labels):
        yield from zip(bounds[:-1], bounds[1:], strict=True)


def starts_within_runs(labels: np.ndarray, length: int) -> np.ndarray:
    """First frames of the windows of ``length`` frames with one label, which is not negative."""
    found = [np.arange(a, b - length + 1) for a, b in runs(labels) if labels[a] >= 0]
    return np.concatenate([np.zeros(0, int), *found])


def smooth_runs(values: np.ndarray, sigma: float, segments: np.ndarray | None = None) -> np.ndarray:
    """Fill gaps and smooth each segment separately; frames outside all segments become NaN.

    Args:
        values: (T, ...) with NaN in missing frames.
        sigma: standard deviation in frames.
        segments: (T,) labels, negative for frames outside all segments; None: one segment.
    """
    labels = np.zeros(len(values), int) if segments is None else segments
    result = np.full(values.shape, np.nan)
    for start, stop in runs(labels):
        if labels[start] >= 0:
            result[start:stop] = smooth(fill_gaps(values[start:stop]), sigma)
    return result
