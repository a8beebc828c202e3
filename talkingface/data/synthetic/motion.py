"""Slow head motion, blinks and brows of a clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_REACH = (3.2, 5.0, 2.6)  # degrees: largest pitch, yaw and roll
_BLINK = 0.26  # s, duration of a blink


@dataclass(frozen=True)
class HeadTrack:
    """Head of every frame: pose (T, 3) degrees pitch, yaw, roll; sway (T, 2) over the face
    height; blink (T,) and brow (T,) 0..1."""

    pose: np.ndarray
    sway: np.ndarray
    blink: np.ndarray
    brow: np.ndarray


def head_track(draw: np.random.Generator, times: np.ndarray) -> HeadTrack:
    """Random motion for frames at ``times`` (T,) in seconds."""

    def wave(slowest: float, fastest: float) -> np.ndarray:
        """Sum of three sines with random frequencies in Hz between two limits, within -1..1."""
        rates, phases = draw.uniform(slowest, fastest, 3), draw.uniform(0, 2 * np.pi, 3)
        sizes = draw.uniform(0.5, 1.0, 3)
        curves = np.sin(2 * np.pi * rates * times[:, None] + phases) * sizes
        return curves.sum(1) / sizes.sum()

    pose = np.stack([reach * wave(0.08, 0.45) for reach in _REACH], 1)
    sway = np.stack([0.02 * wave(0.05, 0.3), 0.012 * wave(0.05, 0.3)], 1)
    brow = np.maximum(wave(0.1, 0.6), 0.0) ** 2
    blink = np.zeros(len(times))
    at = float(draw.uniform(0.4, 1.8))
    while len(times) and at < times[-1]:
        away = np.abs(times - at) / (_BLINK / 2)
        blink = np.maximum(blink, np.where(away < 1, np.cos(np.pi / 2 * np.minimum(away, 1)), 0))
        at += float(draw.uniform(1.6, 4.5))
    return HeadTrack(pose, sway, np.clip(blink * 1.15, 0, 1), brow)
