"""Where somebody speaks: voice activity of a sound, and the weights of a mouth at rest."""

from __future__ import annotations

import importlib.util

import numpy as np

_RATE = 16000
_HOP = 160  # samples: 10 ms
_LOUD, _QUIET = 95, 10  # percentiles of the level that stand for loud speech and for the noise
_BELOW = 30.0  # dB under loud speech where a sound always counts as silence
_SHARE = 0.3  # of the way from the noise to loud speech; on seven recordings, with a minimum of
# 0.3 s for pauses, 58 to 96 % (median 94 %) of the steps agree with silero-vad
_LEAST = 15.0  # dB under loud speech: a held vowel is no pause
_SMOOTHING = 5  # steps
_FLOOR = -55.0  # dB of full scale that is always silence
_SHORTEST = 0.3  # s of a pause
_CLOSING, _OPENING = 0.10, 0.08  # s after the beginning and before the end of a pause


def pauses(wave: np.ndarray) -> list[tuple[float, float]]:
    """Start and end in seconds of the pauses of at least 0.3 s in mono 16 kHz samples.

    By silero-vad where it is installed, otherwise by the level.
    """
    seconds = len(wave) / _RATE
    find = _by_network if importlib.util.find_spec("silero_vad") else _by_level
    edges = [0.0, *(time for span in find(wave) for time in span), seconds]
    gaps = zip(edges[::2], edges[1::2], strict=True)
    return [(start, stop) for start, stop in gaps if stop - start >= _SHORTEST]


def _by_level(wave: np.ndarray) -> list[tuple[float, float]]:
    """Start and end of speech, from the energy in steps of 10 ms."""
    from scipy.ndimage import uniform_filter1d

    steps = len(wave) // _HOP
    if not steps:
        return []
    power = np.square(wave[: steps * _HOP].astype(np.float64)).reshape(steps, _HOP).mean(1)
    level = 10 * np.log10(uniform_filter1d(power, _SMOOTHING) + 1e-12)
    speech, noise = np.percentile(level, (_LOUD, _QUIET))
    limit = min(noise + _SHARE * (speech - noise), speech - _LEAST)
    loud = level > max(speech - _BELOW, limit, _FLOOR)
    change = np.diff(np.concatenate([[0], loud.astype(int), [0]]))
    spans = zip(np.flatnonzero(change == 1), np.flatnonzero(change == -1), strict=True)
    return [(start * _HOP / _RATE, stop * _HOP / _RATE) for start, stop in spans]


def _by_network(wave: np.ndarray) -> list[tuple[float, float]]:
    """Start and end of speech by silero-vad, whose network is in its package."""
    import torch

    threads = torch.get_num_threads()
    try:  # importing the package sets the number of threads to one
        from silero_vad import get_speech_timestamps, load_silero_vad

        samples = torch.from_numpy(np.ascontiguousarray(wave, np.float32))
        spans = get_speech_timestamps(samples, load_silero_vad())
    finally:
        torch.set_num_threads(threads)
    return [(span["start"] / _RATE, span["end"] / _RATE) for span in spans]


def rest_weights(wave: np.ndarray, frames: int, fps: float) -> np.ndarray:
    """(frames,) in 0..1: 1 in pauses; the mouth closes within 0.12 s and opens 0.08 s before."""
    weights = np.zeros(frames)
    time = np.arange(frames) / fps
    ends = len(wave) / _RATE - 0.5 / fps
    for start, stop in pauses(wave):
        falling = (time - start) / _CLOSING if start > 0 else np.ones(frames)
        rising = (stop - time) / _OPENING if stop < ends else np.ones(frames)
        weights = np.maximum(weights, np.clip(np.minimum(falling, rising), 0, 1))
    weights[time >= ends] = 1.0
    return weights
