"""Quality of clips as training data: measures per clip, and limits that flag a clip.

The measures are written to the clip's marker and to ``report.csv``. The limits are the keys of
``quality`` in the YAML. A clip outside a limit is listed in the report; it is left out only when
``quality.drop`` names the limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.data.face.pose import head_pose
from talkingface.data.face.series import fill_gaps, runs, smooth
from talkingface.data.face.topology import CHIN, FOREHEAD, NOSE_TIP
from talkingface.data.face.tracking import FaceTrack

if TYPE_CHECKING:
    from talkingface.config.schema import QualitySection

RATE = 16000
MAX_LAG = 0.6  # s, largest lag of the search in both directions
# Standard deviation of the mouth opening over the face height. Below it the mouth does not move:
# 0.0008 in a frozen video, 0.016 and more in speech (5th percentile of 52 real clips).
_LEAST_MOTION = 0.003
_STILL = 0.15  # grey levels between frames; camera noise alone changes a face by more
_HIDDEN = 0.45  # share of the clip's median mouth texture; a flat box over the mouth has none
# Hz. Middle of the range of F1, where opening the mouth raises the energy most.
_VOWEL_BAND = (500.0, 1200.0)
_HOP = RATE // 100  # samples, 10 ms
# 35 recordings of speech have at least -34 dB and 7.5 kHz, telephone speech has 3.9 kHz.
# Also the defaults of ``quality`` in config/schema.py.
LEAST_LOUDNESS, LEAST_BANDWIDTH = -50.0, 5000.0


def mouth_opening(landmarks: np.ndarray) -> np.ndarray:
    """Distance between the outer edges of the lips over the median face height: (T,)."""
    return _length(landmarks, 0, 17) / np.nanmedian(_length(landmarks, FOREHEAD, CHIN))


def _length(landmarks: np.ndarray, a: int, b: int) -> np.ndarray:
    return np.linalg.norm(landmarks[:, a, :2] - landmarks[:, b, :2], axis=1)


def speech_frames(wave: np.ndarray) -> np.ndarray:
    """Which 10 ms frames contain speech or another loud sound, (n,) bool.

    Such a frame is 9 dB louder than the background and at most 35 dB below the loud frames, so a
    steady noise does not count.

    Args:
        wave: (N,) float, 16 kHz.
    """
    n = len(wave) // _HOP
    if not n:
        return np.zeros(0, bool)
    energy = (wave[: n * _HOP].reshape(n, _HOP).astype(np.float64) ** 2).mean(axis=1)
    level = 10 * np.log10(smooth(energy, 2.0) + 1e-10)
    quiet, loud = np.percentile(level, [5, 97])
    return level > max(quiet + 9.0, loud - 35.0, -65.0)


def loudness(wave: np.ndarray) -> float:
    """Mean power of (N,) samples in dB of full scale, -100 for silence."""
    return 10 * math.log10(float(np.mean(wave.astype(np.float64) ** 2)) + 1e-10)


def bandwidth(wave: np.ndarray) -> float:
    """Highest frequency in Hz with a power of -60 dB of the strongest; nan for silence.

    Args:
        wave: (N,) float, 16 kHz.
    """
    from scipy.signal import welch

    if not np.any(wave):
        return math.nan
    frequency, power = welch(wave.astype(np.float64), RATE, nperseg=min(1024, len(wave)))
    return float(frequency[np.flatnonzero(power > 1e-6 * power.max())[-1]])


def sound_flaw(wave: np.ndarray) -> str | None:
    """What makes measurements on a sound (N,) of 16 kHz doubtful; None: nothing."""
    if not len(wave):
        return None
    if (level := loudness(wave)) < LEAST_LOUDNESS:
        return f"the sound is almost silent ({level:.0f} dB)"
    if (limit := bandwidth(wave)) < LEAST_BANDWIDTH:
        return f"the sound has no frequencies above {limit / 1000:.1f} kHz (telephone?)"
    return None


def av_offset(landmarks: np.ndarray, wave: np.ndarray, fps: float) -> tuple[float, float]:
    """Estimate the offset between sound and video from mouth motion and the energy of vowels.

    Lip height plus jaw height is correlated with the fourth root of the energy between 500 and
    1200 Hz, both without slow changes, at lags up to 0.6 s. The method has no trained parameters
    and is not from a paper. On 320 clips of GRID (3 s) the error is at most 60 ms for 85 %. For
    the 60 % of clips with a confidence of at least 0.15 it is at most 60 ms for 96 % and at most
    120 ms for 97 %.

    Args:
        landmarks: (T,478,>=2) pixels, NaN where no face was found.
        wave: (N,) float, 16 kHz, beginning with the first frame.

    Returns:
        Offset in ms with SyncNet's sign (positive: the sound is early), and the confidence: the
        best correlation minus the next best peak, times the root of the length in units of 3 s; an
        estimate of 0.15 or more is usually correct. (nan, 0) for too little data, for a mouth that
        does not move, and for a best lag at the end of the search range.
    """
    count = min(len(landmarks), int(len(wave) / RATE * fps))
    limit = round(MAX_LAG * fps)
    known = np.isfinite(landmarks[:count]).all(axis=(1, 2))
    if count < 3 * limit // 2 or known.sum() < limit or not np.any(wave):
        return math.nan, 0.0
    marks = landmarks[:count]
    if np.nanstd(mouth_opening(marks)) < _LEAST_MOTION:
        return math.nan, 0.0
    detail = 0.24 * fps  # frames; slower motion belongs to the head
    lips, jaw = (
        _standard(_detrend(fill_gaps(x), detail))
        for x in (_length(marks, 0, 17), _length(marks, NOSE_TIP, CHIN))
    )
    mouth = np.where(known, _standard(_detrend(lips + jaw, detail)), np.nan)
    sound = _detrend(_vowel_energy(wave, count, fps), detail)
    lags = np.arange(-limit, limit + 1)
    curve = np.array([_correlation(mouth, sound, lag) for lag in lags])
    best = int(curve.argmax())
    if curve[best] <= 0 or best in (0, len(curve) - 1):
        return math.nan, 0.0
    others = np.delete(curve, range(max(best - 3, 0), min(best + 4, len(curve))))
    confidence = (curve[best] - others.max()) * math.sqrt(known.sum() / fps / 3)
    a, b, c = curve[best - 1 : best + 2]
    bend = a - 2 * b + c  # of the parabola through the peak and its neighbours
    peak = lags[best] + (0.5 * (a - c) / bend if bend < 0 else 0.0)
    return -1000 * peak / fps, float(max(confidence, 0.0))


def _detrend(values: np.ndarray, sigma: float) -> np.ndarray:
    return values - smooth(values, sigma)


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / (values.std() + 1e-9)


def _vowel_energy(wave: np.ndarray, count: int, fps: float) -> np.ndarray:
    """Fourth root of the energy of the vowel band at the middle of each frame."""
    from scipy.signal import butter, sosfiltfilt

    band = butter(4, _VOWEL_BAND, btype="bandpass", fs=RATE, output="sos")
    speech_band = sosfiltfilt(band, wave.astype(np.float64))
    n = len(speech_band) // _HOP
    energy = (speech_band[: n * _HOP].reshape(n, _HOP) ** 2).mean(axis=1)
    times = (np.arange(count) + 0.5) / fps * RATE / _HOP - 0.5
    return np.interp(times, np.arange(n), smooth(energy**0.25, 1.5))


def _correlation(mouth: np.ndarray, sound: np.ndarray, lag: int) -> float:
    """Correlation of mouth(t) with sound(t + lag) over the frames that have both."""
    low, high = max(0, -lag), min(len(mouth), len(mouth) - lag)
    x, y = mouth[low:high], sound[low + lag : high + lag]
    have = np.isfinite(x)
    x, y = x[have], y[have]
    if len(x) < 10 or x.std() < 1e-6 or y.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def measure(track: FaceTrack, wave: np.ndarray, fps: float) -> dict[str, float | int | None]:
    """All measures of a clip; None where a measure is undefined.

    Args:
        wave: (N,) float, 16 kHz, beginning with the first frame.
    """
    marks, found = track.landmarks, track.found
    speech = speech_frames(wave)
    offset, confidence = av_offset(marks, wave, fps)
    pose = head_pose(marks, segments=track.segments)[found]
    angles = np.percentile(pose[:, :3], [2, 98], axis=0)
    still = track.face_change < _STILL
    texture = track.mouth_texture[found]
    opening = mouth_opening(marks)
    values = {
        "face_ratio": track.found_ratio,
        "longest_gap_s": track.longest_gap / fps,
        "cuts": len(track.cuts),
        "persons": track.persons,
        "face_height": np.nanmedian(_length(marks, FOREHEAD, CHIN)),
        "sharpness": np.nanmedian(track.sharpness),
        "yaw_min": angles[0, 0],
        "yaw_max": angles[1, 0],
        "pitch_min": angles[0, 1],
        "pitch_max": angles[1, 1],
        "roll_min": angles[0, 2],
        "roll_max": angles[1, 2],
        "mouth_motion": 100 * np.nanstd(opening),
        "mouth_hidden": (texture < _HIDDEN * np.nanmedian(texture)).mean(),
        "repeated": still[1:].mean() if len(still) > 1 else 0.0,
        "longest_still_s": max((b - a for a, b in runs(still) if still[a]), default=0) / fps,
        "speech_ratio": speech.mean() if len(speech) else 0.0,
        "loudness_db": loudness(wave),
        "bandwidth_hz": bandwidth(wave),
        "clipped": (np.abs(wave) > 0.999).mean() if len(wave) else 0.0,
        "sound_minus_picture_s": len(wave) / RATE - len(track) / fps,
        "av_offset_ms": offset,
        "av_confidence": confidence,
    }
    return {key: _plain(value) for key, value in values.items()}


def _plain(value: Any) -> float | int | None:
    """A JSON number with at most four decimals, so that machines agree; None for nan and inf."""
    if isinstance(value, int):
        return value
    return round(float(value), 4) if math.isfinite(value) else None


def violations(measures: Mapping[str, Any], limits: QualitySection) -> dict[str, str]:
    """Limits that a clip breaks, with the measured value. A limit of null is not checked.

    Returns:
        Key of ``quality`` -> text such as ``sound 220 ms early``.
    """
    broken: dict[str, str] = {}

    def check(key: str, values: list[Any], text: str) -> None:
        """``max_``: no magnitude above; ``min_``: no value below. The text has the worst value."""
        limit = getattr(limits, key)
        values = [v for v in values if v is not None]
        if limit is None or not values:
            return
        worst = max(values, key=abs) if key.startswith("max_") else min(values)
        if (abs(worst) > limit) if key.startswith("max_") else (worst < limit):
            broken[key] = text.format(worst)

    get = measures.get
    offset = get("av_offset_ms")
    if (get("av_confidence") or 0.0) >= limits.min_av_confidence and offset is not None:
        side = "early" if offset > 0 else "late"
        check("max_av_offset_ms", [abs(offset)], f"sound {{:.0f}} ms {side}")
    check("min_face_height", [get("face_height")], "face only {:.0f} px high")
    check("min_sharpness", [get("sharpness")], "blurred (sharpness {:.0f})")
    check("max_yaw", [get("yaw_min"), get("yaw_max")], "head turned by {:.0f} degrees")
    check("max_pitch", [get("pitch_min"), get("pitch_max")], "head nods by {:.0f} degrees")
    check("min_mouth_motion", [get("mouth_motion")], "the mouth hardly moves ({:.2f} %)")
    check("max_mouth_hidden", [get("mouth_hidden")], "mouth covered in {:.0%} of the frames")
    check("max_repeated", [get("repeated")], "{:.0%} repeated pictures")
    check("max_still_seconds", [get("longest_still_s")], "frozen picture for {:.1f} s")
    check("max_gap_seconds", [get("longest_gap_s")], "no face for {:.1f} s")
    check("max_cuts", [get("cuts")], "{} scene cut(s)")
    check("max_persons", [get("persons")], "{} persons in view")
    check("min_speech_ratio", [get("speech_ratio")], "only {:.0%} of the time is speech")
    check("min_loudness_db", [get("loudness_db")], "almost silent ({:.0f} dB)")
    check("min_bandwidth_hz", [get("bandwidth_hz")], "no frequencies above {:.0f} Hz")
    check("max_clipped", [get("clipped")], "sound overdriven in {:.1%} of the samples")
    check(
        "max_length_difference", [get("sound_minus_picture_s")],
        "sound and picture differ in length by {:+.2f} s",
    )  # fmt: skip
    return broken
