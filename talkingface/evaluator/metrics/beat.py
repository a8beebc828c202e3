"""BeatAlign: distance in time between head-motion beats and onsets of the speech."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from talkingface.data.face.pose import head_pose
from talkingface.data.face.series import smooth_runs
from talkingface.data.media.audio import load_audio
from talkingface.data.quality import RATE, sound_flaw
from talkingface.errors import DataError
from talkingface.evaluator.clip import COMMON_FPS
from talkingface.evaluator.metrics.landmark_distance import (
    Faces,
    LandmarkMetric,
    shot_numbers,
    without_shot_means,
)
from talkingface.utils.env import require

# Standard deviation of the angles; a still head has up to 0.12 by camera noise, heads of speakers
# 0.47 and more around one axis.
STILL_DEGREES = 0.2
HOP = 640  # samples: one frame at 25 frames/s, the unit of all beats


def audio_beats(wave: np.ndarray) -> np.ndarray:
    """Onsets of a 16 kHz sound in frames of 1/25 s."""
    if not np.any(wave):
        return np.zeros(0)
    librosa = require("librosa", why="BeatAlign")
    strength = librosa.onset.onset_strength(y=wave, sr=RATE, hop_length=HOP).astype(np.float64)
    strength -= strength.min()
    beats = onset_peaks(strength / (strength.max() + np.finfo(np.float32).tiny))
    return beats[beats < len(wave) // HOP].astype(np.float64)  # not at the cut end


def onset_peaks(strength: np.ndarray) -> np.ndarray:
    """Frames with a local peak of the onset strength (0..1), by librosa's ``onset_detect`` rule.

    librosa's peak window of 30 ms is shorter than one hop, so every frame of a rise would be an
    onset; this window is one hop on both sides. ``librosa.util.peak_pick`` is not called: it is
    compiled on first use, and two processes that compile it at once leave a cache that crashes all
    later ones.
    """
    around = np.arange(len(strength))[:, None] + np.arange(-2, 3)  # 0.1 s on both sides
    inside = (around >= 0) & (around < len(strength))
    values = np.where(inside, strength[np.clip(around, 0, len(strength) - 1)], np.nan)
    peak = strength >= np.nanmax(values[:, 1:4], axis=1)
    return np.flatnonzero(peak & (strength >= np.nanmean(values, axis=1) + 0.07))


def motion_beats(angles: np.ndarray, cuts: Sequence[int] | np.ndarray = ()) -> np.ndarray:
    """Times at which the head comes to rest, in frames.

    Local minima of the angular speed, smoothed by a Gaussian of one frame, below its median.

    Args:
        angles: (T,3) degrees, NaN in missing frames, which are not interpolated.
        cuts: first frames after scene cuts; the speed across a cut does not count.
    """
    speed = np.linalg.norm(np.diff(angles, axis=0), axis=-1)
    speed[[cut - 1 for cut in cuts if 0 < cut <= len(speed)]] = np.nan
    known = np.isfinite(speed)
    if not known.any():
        return np.zeros(0)
    speed = smooth_runs(speed, 1.0, np.where(known, 0, -1))
    before, centre, after = speed[:-2], speed[1:-1], speed[2:]
    minimum = (centre < before) & (centre <= after) & (centre < np.median(speed[known]))
    return np.flatnonzero(minimum) + 1.5  # a speed lies between two frames


def beat_align(beats: np.ndarray, others: np.ndarray, sigma: float = 3.0) -> float:
    """Mean over ``beats`` of exp(-d^2 / 2 sigma^2), d to the nearest of ``others``, in 0..1."""
    if not len(beats) or not len(others):
        return math.nan
    distance = np.abs(beats[:, None] - others).min(axis=1)
    return float(np.exp(-(distance**2) / (2 * sigma**2)).mean())


class BeatAlign(LandmarkMetric):
    """Alignment of motion beats and onsets. Speech has no metre: compare with the real row."""

    revision = 2  # a cut is no motion
    both = False
    empty = "no motion beat, or no onset in the sound"
    choices = {"over": ("motion", "audio")}

    def values(self, faces: Faces) -> dict[str, float]:
        clip, count = faces.clip, len(faces.generated)
        try:
            wave = load_audio(clip.sound, RATE) if clip.sound else np.zeros(0, np.float32)
        except DataError as error:
            return self.undefined(str(error))
        if flaw := sound_flaw(wave):
            clip.notes.append(f"BeatAlign: {flaw}")
        onsets = audio_beats(wave[: round(count / clip.fps * RATE)])
        angles = head_pose(faces.generated, sigma=0)[:, :3]
        moved = without_shot_means(angles[faces.valid], shot_numbers(clip, faces.valid))
        if moved.std(axis=0).max() < STILL_DEGREES:
            return self.undefined("no motion beat: the head moves less than the pose jitters")
        beats = motion_beats(angles, clip.cuts) * COMMON_FPS / clip.fps
        pair = (beats, onsets) if self.params["over"] == "motion" else (onsets, beats)
        return {"BeatAlign": beat_align(*pair, self.params["sigma"])}
