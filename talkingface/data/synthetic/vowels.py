"""A small formant synthesiser for machines where espeak-ng cannot load.

It does not pronounce English: it synthesises each letter as a vowel or a coarse consonant, so that
mouth motion and sound match. Symbols are the espeak-ng mnemonics of ``articulation.py``.
"""

from __future__ import annotations

import numpy as np

# Formant frequencies F1, F2, F3 in Hz.
_VOWELS = {
    "a": (850, 1500, 2600),
    "e": (550, 1900, 2550),
    "i": (310, 2400, 3050),
    "o": (500, 900, 2500),
    "u": (330, 850, 2350),
    "y": (310, 2400, 3050),
}
# Letters whose mnemonic is not the letter itself.
_SYMBOL = dict(e="E", i="i:", o="O:", u="u:", y="i:", c="k", q="k", x="s", j="dZ")
_HUM = {"m": 250, "n": 280, "l": 380, "r": 420, "w": 330}  # voiced consonants: F1 in Hz
_NOISE = {"s": 0.12, "f": 0.05, "h": 0.04, "v": 0.04, "z": 0.08, "x": 0.1, "j": 0.06}
_WIDTHS = (80.0, 110.0, 160.0)  # Hz


def say(
    text: str, sample_rate: int, pitch: int, words_per_minute: int
) -> tuple[np.ndarray, list[tuple[str, float, float]]]:
    """Sound for ``text``; the same text always gives the same sound.

    Args:
        text: letters; everything else is a word gap.
        sample_rate: Hz.
        pitch: 0..100, 50 is 190 Hz.
        words_per_minute: speed.

    Returns:
        float32 audio (N,) in -1..1, and spans ``(symbol, start s, end s)``.
    """
    from scipy.signal import lfilter

    base = 190.0 * 2 ** ((pitch - 50) / 50)
    pace = 165 / words_per_minute
    noise = np.random.default_rng(len(text))
    letters = "".join(c if c.isalpha() else " " for c in text.lower()).replace("  ", " ").strip()
    pieces: list[np.ndarray] = []
    spans: list[tuple[str, float, float]] = []
    now, phase, done = 0, 0.0, len(letters) or 1
    for place, letter in enumerate(letters):
        if place and letter == letters[place - 1]:
            continue
        vowel = letter in _VOWELS
        length = 0.03 if letter == " " else pace * (0.12 if vowel else 0.075)
        n = round(length * sample_rate)
        f0 = base * (1.12 - 0.25 * place / done)
        turn = phase + np.arange(1, n + 1) * f0 / sample_rate
        buzz = np.diff(np.floor(turn), prepend=np.floor(phase)) - f0 / sample_rate
        phase = float(turn[-1])
        if vowel:
            sound = buzz
            for centre, width in zip(_VOWELS[letter], _WIDTHS, strict=True):
                sound = _resonate(lfilter, sound, centre, width, sample_rate)
        elif letter in _HUM:
            sound = 0.35 * _resonate(lfilter, buzz, _HUM[letter], 60.0, sample_rate)
        elif letter in _NOISE:
            sound = _NOISE[letter] * np.diff(noise.standard_normal(n + 1))
        else:  # a stop: silence, then a short burst
            sound = np.zeros(n)
            burst = min(n, round(0.012 * sample_rate))
            if letter != " ":
                sound[-burst:] = 0.06 * noise.standard_normal(burst)
        if vowel or letter in _HUM:
            sound = sound / max(np.abs(sound).max(), 1e-6) * (0.5 if vowel else 0.18)
        edge = min(n // 4, round(0.012 * sample_rate))
        ramp = np.ones(n)
        ramp[:edge], ramp[n - edge :] = np.linspace(0, 1, edge), np.linspace(1, 0, edge)
        pieces.append(sound * ramp)
        if letter != " ":
            spans.append((_SYMBOL.get(letter, letter), now / sample_rate, (now + n) / sample_rate))
        now += n
    audio = np.concatenate(pieces) if pieces else np.zeros(1)
    return audio.astype(np.float32), spans


def _resonate(lfilter, sound: np.ndarray, centre: float, width: float, rate: int) -> np.ndarray:
    """Two-pole resonator at ``centre`` Hz with bandwidth ``width`` Hz and gain 1 at 0 Hz."""
    radius = np.exp(-np.pi * width / rate)
    b = -2 * radius * np.cos(2 * np.pi * centre / rate)
    c = radius * radius
    return lfilter([1 + b + c], [1.0, b, c], sound)
