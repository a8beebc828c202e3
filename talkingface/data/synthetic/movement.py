"""Head, brows, lids and gaze of a clip; they follow the loudness of the sound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from talkingface.data.synthetic.head import expression

# Weights of the moods, both sides.
MOODS: dict[str, dict[str, float]] = {
    "neutral": {"mouthSmile": 0.1, "cheekSquint": 0.04, "browInnerUp": 0.12},
    "smile": {"mouthSmile": 0.42, "cheekSquint": 0.35, "eyeSquint": 0.2, "mouthDimple": 0.15},
    "worried": {"browInnerUp": 0.65, "browDown": 0.15, "mouthFrown": 0.28, "eyeSquint": 0.1},
    "surprised": {"browInnerUp": 0.5, "browOuterUp": 0.7, "eyeWide": 0.45},
}


@dataclass(frozen=True)
class Movement:
    """Of each frame: ``turn`` (T, 3) pitch, yaw, roll in degrees; ``shift`` (T, 3) cm; ``gaze``
    (T, 2) degrees to the person's left and up; ``blink`` (T,) and ``brow`` (T,), 0 to 1."""

    turn: np.ndarray
    shift: np.ndarray
    gaze: np.ndarray
    blink: np.ndarray
    brow: np.ndarray

    def weights(self, i: int, mood: str) -> np.ndarray:
        """Expression weights (52,) of a frame without the mouth's own movement."""
        brow, look = float(self.brow[i]), expression(**MOODS[mood])
        own = expression(
            eyeBlink=float(self.blink[i]), browInnerUp=0.6 * brow, browOuterUp=0.45 * brow
        )
        return look + own


def movement(
    rng: np.random.Generator, audio: np.ndarray, rate: int, frames: int, fps: float, reach: float
) -> Movement:
    """Random movement.

    Args:
        audio: (n,) mono, at ``rate`` Hz; accents of its loudness move head and brows.
        reach: scales turns and shifts; 1 gives up to about 10 degrees of yaw, 0 none.
    """
    t = (np.arange(frames) + 0.5) / fps

    def wave(slowest: float, fastest: float) -> np.ndarray:
        """Four sines with random frequencies in Hz, within -1 to 1."""
        hertz, phase, size = (
            rng.uniform(slowest, fastest, 4),
            rng.uniform(0, 6.28, 4),
            rng.uniform(0.5, 1, 4),
        )
        return (np.sin(2 * np.pi * hertz * t[:, None] + phase) * size).sum(1) / size.sum()

    loud = np.sqrt(
        np.maximum(gaussian_filter1d(np.square(audio, dtype=np.float64), 0.06 * rate), 0)
    )
    loud = np.interp(t, np.arange(len(audio)) / rate, loud)
    loud = loud / max(loud.max(), 1e-4)
    accent = gaussian_filter1d(np.maximum(loud - gaussian_filter1d(loud, 0.2 * fps), 0), 0.06 * fps)
    accent = accent / max(accent.max(), 0.05)
    pitch = 3.0 * wave(0.1, 0.5) - 2.2 * accent + 1
    turn = np.stack([pitch, 10 * wave(0.08, 0.38), 4 * wave(0.08, 0.35)], 1) * reach
    shift = np.stack(
        [0.35 * wave(0.05, 0.3), 0.2 * wave(0.05, 0.3) - 0.12 * accent, 0.3 * wave(0.05, 0.2)], 1
    )
    blink, at = np.zeros(frames), float(rng.uniform(0.5, 1.6))
    while at < frames / fps:  # closes in 85 ms, opens in 170 ms
        away = t - at
        blink = np.maximum(blink, np.clip(1 - np.abs(away) / np.where(away < 0, 0.085, 0.17), 0, 1))
        at += float(rng.uniform(1.6, 4.2))
    gaze, at = np.zeros((frames, 2)), 0.0
    while at < frames / fps:  # mostly at the camera
        hold = float(rng.uniform(0.35, 1.3))
        spread = (2.2, 1.2) if rng.random() < 0.75 else (7, 3)
        gaze[(t >= at) & (t < at + hold)] = rng.normal(0, spread)
        at += hold
    brow = np.clip(0.35 * accent + 0.25 * np.maximum(wave(0.1, 0.5), 0), 0, 0.6)
    return Movement(
        turn,
        shift * reach,
        gaussian_filter1d(gaze, 0.022 * fps, axis=0),
        blink**2 * (3 - 2 * blink),
        brow,
    )
