"""Movement of the mouth from phones: a dominance model with forced closures.

At each moment the targets of all phones are averaged with weights that fall off with the distance
in time (Cohen and Massaro 1993). The opening of the lips is set in cm for each face; the shapes
around it follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from talkingface.data.synthetic.align import Phone
from talkingface.data.synthetic.face import Face
from talkingface.data.synthetic.head import EXPRESSIONS, expression

CURVE_RATE = 500  # Hz at which the curves are computed
LEAD = 0.015  # s that the mouth is ahead of the sound
PLATEAU = 0.96  # share of a phone in which its weight is full
POWER = 1.23  # of the fall-off
REACH = {"opening": 0.028, "shape": 0.06, "tongue": 0.025}  # s of the fall-off
HOLD, FLANK = 0.055, 0.050  # s that lips stay closed at least, and that they take to close

# Weights of expressions, both sides; the tongue in cm: tip up, tip forward, back up.
VISEMES: dict[str, dict[str, float]] = {
    "rest": {"jawOpen": 0.1, "mouthStretch": 0.1},
    "AA": {"jawOpen": 0.36, "mouthLowerDown": 0.15, "mouthUpperUp": 0.3,
           "mouthStretch": 0.013, "mouthPucker": 0.08},
    "AE": {"jawOpen": 0.24, "mouthLowerDown": 0.41, "mouthUpperUp": 0.35,
           "mouthStretch": 0.055, "mouthSmile": 0.016},
    "AH": {"jawOpen": 0.17, "mouthLowerDown": 0.31, "mouthUpperUp": 0.18, "mouthPucker": 0.08},
    "EH": {"jawOpen": 0.17, "mouthLowerDown": 0.41, "mouthUpperUp": 0.31,
           "mouthStretch": 0.055, "mouthSmile": 0.016, "tip": 0.27},
    "IH": {"jawOpen": 0.11, "mouthLowerDown": 0.41, "mouthUpperUp": 0.31,
           "mouthStretch": 0.06, "mouthSmile": 0.02, "tip": 0.45},
    "IY": {"jawOpen": 0.075, "mouthLowerDown": 0.6, "mouthUpperUp": 0.5,
           "mouthStretch": 0.087, "mouthSmile": 0.048, "tip": 0.4},
    "AO": {"jawOpen": 0.3, "mouthPucker": 0.12, "mouthFunnel": 0.1},
    "UW": {"jawOpen": 0.1, "mouthPucker": 0.52, "mouthFunnel": 0.12},
    "W": {"jawOpen": 0.05, "mouthPucker": 0.58, "mouthFunnel": 0.1},
    "R": {"jawOpen": 0.12, "mouthPucker": 0.2, "mouthFunnel": 0.072, "tip": 0.3},
    "P": {"jawOpen": 0.1, "mouthPress": 0.1, "mouthRollLower": 0.2,
          "mouthRollUpper": 0.12, "mouthShrugLower": 0.2, "mouthPucker": 0.08},
    "F": {"jawOpen": 0.05, "mouthRollLower": 0.7, "mouthShrugLower": 0.1,
          "mouthUpperUp": 0.4, "mouthStretch": 0.025},
    "TH": {"jawOpen": 0.16, "mouthLowerDown": 0.45, "mouthUpperUp": 0.35,
           "mouthStretch": 0.02, "tip": 1.25, "forward": 2},
    "L": {"jawOpen": 0.24, "mouthLowerDown": 0.35, "mouthUpperUp": 0.45,
          "mouthStretch": 0.025, "tip": 1.5, "forward": 0.7},
    "T": {"jawOpen": 0.075, "mouthLowerDown": 0.41, "mouthUpperUp": 0.26, "mouthStretch": 0.03,
          "tip": 1.44, "forward": 0.2, "mouthPucker": 0.08},
    "S": {"jawOpen": 0.035, "mouthLowerDown": 0.58, "mouthUpperUp": 0.44,
          "mouthStretch": 0.06, "mouthSmile": 0.02, "tip": 0.72},
    "SH": {"jawOpen": 0.09, "mouthFunnel": 0.14, "mouthPucker": 0.18,
           "mouthLowerDown": 0.25, "mouthUpperUp": 0.3, "tip": 0.35},
    "K": {"jawOpen": 0.11, "mouthLowerDown": 0.31, "mouthUpperUp": 0.18, "back": 0.5},
}  # fmt: skip
# Phones of the CMU dictionary: shape, opening from 0 to 1, weight of opening and of shape. Openings
# and weights, and the times above, are rounded from a search on 30 clips of one GRID speaker.
PHONES: dict[str, tuple[str, float, float, float]] = {
    "SIL": ("rest", 0.03, 0.2, 0.3), "AA": ("AA", 1.05, 1, 1), "AO": ("AO", 0.68, 1.2, 1),
    "AE": ("AE", 0.85, 0.6, 1), "EH": ("EH", 1.05, 1.2, 1), "AH": ("AH", 0.45, 0.8, 0.5),
    "IH": ("IH", 0.8, 0.8, 0.8), "IY": ("IY", 0.75, 0.45, 1), "UH": ("UW", 0.36, 1, 0.8),
    "UW": ("UW", 0.32, 1, 1.2), "ER": ("R", 0.5, 1, 0.8), "P": ("P", 0, 1, 0.3),
    "B": ("P", 0, 1, 0.3),
    "M": ("P", 0, 1, 0.3), "F": ("F", 0.25, 0.7, 1), "V": ("F", 0.25, 0.7, 1),
    "TH": ("TH", 0.22, 1.3, 0.5), "DH": ("TH", 0.22, 1, 0.3), "T": ("T", 0.5, 0.15, 0.2),
    "D": ("T", 0.5, 0.15, 0.2), "N": ("T", 0.5, 0.15, 0.2), "L": ("L", 0.62, 1.1, 0.3),
    "S": ("S", 0.6, 0.9, 0.5), "Z": ("S", 0.6, 0.9, 0.5), "CH": ("SH", 0.7, 0.4, 1),
    "JH": ("SH", 0.7, 0.4, 1), "SH": ("SH", 0.7, 0.5, 1), "ZH": ("SH", 0.7, 0.5, 1),
    "K": ("K", 0.62, 0.4, 0.15), "G": ("K", 0.62, 0.4, 0.15), "NG": ("K", 0.55, 0.4, 0.15),
    "HH": ("AH", 0.6, 0.15, 0.1), "R": ("R", 0.05, 1.2, 0.8), "W": ("W", 0.03, 1.3, 1.4),
    "Y": ("IY", 0.55, 0.7, 0.6),
}  # fmt: skip
DIPHTHONGS = {n: tuple(v.split()) for n, v in dict(
    AY="AA IH", AW="AA UW", OY="AO IH", EY="EH IY", OW="AO UW",
).items()}  # fmt: skip
CLOSED, BITTEN = ("P", "B", "M"), ("F", "V")
SHAPES = tuple(sorted({name for shape in VISEMES.values() for name in shape}))
TONGUE = ("tip", "forward", "back")
VERTICAL = ("jawOpen", "mouthLowerDown", "mouthUpperUp")


@dataclass(frozen=True)
class MouthTrack:
    """Mouth of each frame: ``opening`` (T,) from 0 closed to about 1, ``shape`` (T, len(SHAPES)),
    and ``closed`` (T,), how much the lips are pressed together, 0 to 1."""

    opening: np.ndarray
    shape: np.ndarray
    closed: np.ndarray


def mouth_track(phones: Sequence[Phone], frames: int, fps: float) -> MouthTrack:
    """Frames show the time ``(i + 0.5) / fps``; unknown phones count as silence."""
    times = np.arange(-0.3, frames / fps + 0.3, 1 / CURVE_RATE)
    parts = _with_silence(_simple(phones), times[0], times[-1])
    total = {group: np.full(len(times), 1e-9) for group in REACH}
    opening, shape = np.zeros(len(times)), np.zeros((len(times), len(SHAPES)))
    tongue = np.isin(SHAPES, TONGUE)
    for phone in parts:
        name, height, strength, form = PHONES.get(phone.name, PHONES["SIL"])
        middle, half = (phone.start + phone.end) / 2 - LEAD, (phone.end - phone.start) / 2
        away = np.maximum(np.abs(times - middle) - half * PLATEAU, 0)
        target = np.array([VISEMES[name].get(s, 0.0) for s in SHAPES])
        for group, weight in (("opening", strength), ("shape", form), ("tongue", 1.0)):
            near = weight * np.exp(-((away / REACH[group]) ** POWER))
            total[group] += near
            if group == "opening":
                opening += near * height
            else:
                columns = tongue if group == "tongue" else ~tongue
                shape[:, columns] += near[:, None] * target[columns]
    opening /= total["opening"]
    shape[:, tongue] /= total["tongue"][:, None]
    shape[:, ~tongue] /= total["shape"][:, None]
    closed, bitten = (_held(times, parts, names) for names in (CLOSED, BITTEN))
    lips = np.array([VISEMES["F"].get(s, 0.0) for s in SHAPES])
    moved = ~tongue & ~np.isin(SHAPES, ("jawOpen", "mouthStretch"))
    shape[:, moved] += bitten[:, None] * (lips[moved] - shape[:, moved])
    opening = (opening + bitten * (0.15 - opening)) * (1 - closed)
    lips = np.array([VISEMES["P"].get(s, 0.0) for s in SHAPES])
    moved = np.isin(SHAPES, ("mouthPress", "mouthRollLower", "mouthRollUpper", "mouthShrugLower"))
    shape[:, moved] += closed[:, None] * (lips[moved] - shape[:, moved])
    at = (np.arange(frames) + 0.5) / fps
    rows = [np.interp(at, times, row) for row in (opening, closed, *shape.T)]
    return MouthTrack(rows[0], np.stack(rows[2:], 1), rows[1])


def _simple(phones: Sequence[Phone]) -> list[Phone]:
    """Diphthongs as two vowels."""
    found = []
    for phone in phones:
        pair = DIPHTHONGS.get(phone.name)
        middle = phone.start + 0.55 * (phone.end - phone.start)
        found += [phone] if pair is None else [
            Phone(pair[0], phone.start, middle), Phone(pair[1], middle, phone.end)
        ]  # fmt: skip
    return found


def _with_silence(phones: list[Phone], start: float, end: float) -> list[Phone]:
    found, now = [], start
    for phone in phones:
        if phone.start > now + 0.01:
            found.append(Phone("SIL", now, phone.start))
        found.append(phone)
        now = phone.end
    return [*found, Phone("SIL", now, end)] if end > now else found


def _held(times: np.ndarray, phones: list[Phone], names: Sequence[str]) -> np.ndarray:
    """1 during these phones, with smooth flanks."""
    held = np.zeros(len(times))
    for phone in phones:
        if phone.name in names:
            half = max(phone.end - phone.start - 0.01, HOLD) / 2
            away = np.abs(times - (phone.start + phone.end) / 2 + LEAD / 2) - half
            share = np.clip(away / FLANK, 0, 1)
            held = np.maximum(held, 0.5 + 0.5 * np.cos(np.pi * share))
    return held


class MouthRig:
    """Expression weights of one face for the frames of a :class:`MouthTrack`.

    Args:
        amplitude: opening in cm at ``opening`` 1.
    """

    def __init__(self, face: Face, amplitude: float) -> None:
        head = face.head
        upper, lower = head.landmarks[[61, 62, 63]], head.landmarks[[67, 66, 65]]
        change = head.expressions[:, upper] - head.expressions[:, lower]
        self.gap = change[:, :, 1].mean(1)  # cm of opening for each expression
        self.amplitude = amplitude
        self.close = EXPRESSIONS.index("mouthClose")
        self.maps = np.stack(
            [expression(**{s: 1.0}) if s not in TONGUE else expression() for s in SHAPES]
        )

    def frame(
        self, track: MouthTrack, i: int, other: np.ndarray | float = 0.0
    ) -> tuple[np.ndarray, tuple[float, float, float]]:
        """Weights (52,) and the tongue's tip, forward and back in cm.

        Args:
            other: weights (52,) of mood, lids and brows; the opening of the lips counts them in.
        """
        shape, wanted = track.shape[i], self.amplitude * track.opening[i]
        vertical = np.isin(SHAPES, VERTICAL)
        steady = shape[~vertical] @ self.maps[~vertical] + other
        moving = shape[vertical] @ self.maps[vertical]
        scale = np.clip((wanted - steady @ self.gap) / max(moving @ self.gap, 1e-3), 0, 3)
        weights = steady + scale * moving
        jaw = EXPRESSIONS.index("jawOpen")
        held = 0.45 * shape[SHAPES.index("jawOpen")] * track.closed[i]
        weights[jaw] = max(weights[jaw], held)  # the jaw stays open behind closed lips
        over = weights @ self.gap - wanted
        if over > 0:
            weights[self.close] += over / -self.gap[self.close]
        tip, forward, back = (shape[SHAPES.index(t)] for t in TONGUE)
        return weights.astype(np.float32), (float(tip), float(forward), float(back))
