"""Mouth opening, width and rounding of every frame from phonemes with times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talkingface.data.synthetic.speech import Phoneme

_RATE = 1000  # Hz at which the curves are computed
# s, standard deviation of the Gaussian smoothing that models coarticulation. It is symmetric, so
# the mouth does not lag behind the sound. Width and rounding change more slowly than the opening.
_SMOOTH_OPENING, _SMOOTH_SHAPE = 0.032, 0.055
_RAMP = 0.045  # s that the lips take to close before a closure and to open after it

# espeak-ng mnemonics: opening 0..1, width -1..1, rounding 0..1. The longest matching prefix counts.
_TARGETS = {
    "a": (0.95, 0.25, 0.0),
    "aI": (0.85, 0.35, 0.0),
    "aU": (0.9, -0.1, 0.35),
    "A": (1.0, 0.0, 0.0),
    "0": (0.9, -0.2, 0.25),
    "V": (0.75, 0.1, 0.0),
    "O": (0.7, -0.5, 0.65),
    "OI": (0.6, -0.3, 0.5),
    "o": (0.55, -0.5, 0.75),
    "oU": (0.5, -0.5, 0.8),
    "U": (0.32, -0.4, 0.75),
    "u": (0.24, -0.5, 1.0),
    "E": (0.65, 0.45, 0.0),
    "e": (0.55, 0.5, 0.0),
    "eI": (0.5, 0.6, 0.0),
    "3": (0.4, -0.2, 0.25),
    "@": (0.42, 0.0, 0.0),
    "@L": (0.35, 0.1, 0.0),
    "@U": (0.5, -0.4, 0.7),
    "I": (0.35, 0.55, 0.0),
    "i": (0.28, 0.85, 0.0),
    "p b m": (0.0, 0.0, 0.0),
    "f v": (0.06, 0.15, 0.0),
    "w": (0.14, -0.6, 1.0),
    "t d": (0.2, 0.2, 0.0),
    "n T D": (0.22, 0.2, 0.0),
    "l": (0.34, 0.2, 0.0),
    "s z": (0.15, 0.4, 0.0),
    "S Z": (0.2, -0.3, 0.55),
    "tS dZ": (0.18, -0.3, 0.5),
    "k g N": (0.3, 0.0, 0.0),
    "h": (0.4, 0.0, 0.0),
    "r": (0.26, -0.2, 0.4),
    "j": (0.22, 0.5, 0.0),
}
_TARGETS = {name: shape for names, shape in _TARGETS.items() for name in names.split()}
_CLOSED = ("p", "b", "m")
_DEFAULT_TARGET = (0.3, 0.0, 0.0)


@dataclass(frozen=True)
class MouthTrack:
    """Mouth of every frame (T,): opening 0..1, width -1..1, rounding 0..1."""

    opening: np.ndarray
    width: np.ndarray
    rounding: np.ndarray


def target(symbol: str) -> tuple[float, float, float]:
    """Target opening, width and rounding of a phoneme; unstressed vowels open less."""
    plain = symbol.lstrip("',%=|")
    for length in range(len(plain), 0, -1):
        if plain[:length] in _TARGETS:
            opening, width, rounding = _TARGETS[plain[:length]]
            vowel = plain[0] in "aAeEiIoOuUV0@3"
            return (opening * (0.85 if vowel and plain == symbol else 1.0), width, rounding)
    return _DEFAULT_TARGET


def closed_span(phoneme: Phoneme) -> tuple[float, float] | None:
    """Seconds in which the lips touch, or None for every phoneme but p, b and m."""
    plain = phoneme.symbol.lstrip("',%=|")
    if not plain.startswith(_CLOSED):
        return None
    end = phoneme.end - 0.012 if plain[0] == "m" else min(phoneme.end, phoneme.start + 0.065)
    middle = (phoneme.start + end) / 2
    half = max(end - phoneme.start, 0.05) / 2  # so that it contains a frame at 25 fps
    return middle - half, middle + half


def frame_times(frames: int, fps: int) -> np.ndarray:
    """Time (frames,) of each frame in seconds: the middle of its display interval."""
    return (np.arange(frames) + 0.5) / fps


def mouth_track(phonemes: list[Phoneme], seconds: float, fps: int) -> MouthTrack:
    """Mouth movement for a clip of ``round(seconds * fps)`` frames."""
    from scipy.ndimage import gaussian_filter1d

    pad = 0.5
    axis = np.arange(-pad, seconds + pad, 1 / _RATE)
    track = np.zeros((3, len(axis)))
    shaped = np.zeros(len(axis), bool)
    for phoneme in phonemes:
        span = slice(*np.searchsorted(axis, (phoneme.start, phoneme.end)))
        track[:, span] = np.array(target(phoneme.symbol))[:, None]
        shaped[span] = True
    # A closure has no width and rounding of its own: both are interpolated across it.
    for phoneme in phonemes:
        if closed_span(phoneme):
            shaped[slice(*np.searchsorted(axis, (phoneme.start, phoneme.end)))] = False
    weight = gaussian_filter1d(shaped.astype(float), _SMOOTH_SHAPE * _RATE)
    opening = gaussian_filter1d(track[0], _SMOOTH_OPENING * _RATE)
    width, rounding = (
        gaussian_filter1d(row * shaped, _SMOOTH_SHAPE * _RATE) / np.maximum(weight, 0.25)
        for row in track[1:]
    )
    for phoneme in phonemes:
        span = closed_span(phoneme)
        if span:
            away = np.maximum(np.maximum(span[0] - axis, axis - span[1]), 0) / _RAMP
            opening *= np.where(away < 1, 0.5 - 0.5 * np.cos(np.pi * np.minimum(away, 1)), 1.0)
    times = frame_times(round(seconds * fps), fps)
    opening, width, rounding = (np.interp(times, axis, row) for row in (opening, width, rounding))
    return MouthTrack(np.clip(opening, 0, 1), np.clip(width, -1, 1), np.clip(rounding, 0, 1))
