"""Values over time: gaps, smoothing and runs. Nothing here crosses from one segment to another."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def fill_gaps(values: np.ndarray) -> np.ndarray:
    """Linear interpolation over frames that are NaN; ends take the nearest known value.

    Args:
        values: (T, ...) with whole frames NaN.

    Returns:
        Array of the same shape; all NaN stays all NaN.
    """
    flat = values.reshape(len(values), -1).astype(np.float64)
    known = np.isfinite(flat).all(axis=1)
    if known.all() or not known.any():
        return values.astype(np.float64)
    time = np.arange(len(flat))
    filled = np.stack([np.interp(time, time[known], column[known]) for column in flat.T], axis=1)
    return filled.reshape(values.shape)


def smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian over time (axis 0), out of place; the ends are continued, never wrapped."""
    from scipy.ndimage import gaussian_filter1d

    if sigma <= 0 or len(values) < 2:
        return values
    return gaussian_filter1d(values, sigma, axis=0, mode="nearest", truncate=3.0)


def runs(labels: np.ndarray) -> Iterator[tuple[int, int]]:
    """(start, stop) of every stretch of equal values in a (T,) array."""
    edges = np.flatnonzero(np.diff(labels)) + 1
    bounds = [0, *edges.tolist(), len(labels)]
    if len(labels):
        yield from zip(bounds[:-1], bounds[1:], strict=True)


def smooth_runs(values: np.ndarray, sigma: float, segments: np.ndarray | None = None) -> np.ndarray:
    """Fill gaps and smooth inside each segment on its own; frames without a segment become NaN.

    Args:
        values: (T, ...) with NaN in missing frames.
        segments: (T,) labels, negative for frames outside; None: one segment.
    """
    labels = np.zeros(len(values), int) if segments is None else segments
    result = np.full(values.shape, np.nan)
    for start, stop in runs(labels):
        if labels[start] >= 0:
            result[start:stop] = smooth(fill_gaps(values[start:stop]), sigma)
    return result
