"""Times of phones in a recording whose words are known, by pocketsphinx."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from talkingface.errors import DataError
from talkingface.utils.env import require

RATE = 16000
STEP = 0.01  # s, the grid of the aligner
# Seconds of faint noise around the recording, and its deviation out of 32768; some recordings are
# aligned with one of them only.
ATTEMPTS = ((0.3, 4), (0.5, 20), (0.2, 2), (0.4, 60), (0.6, 8))
PAUSE = 0.15  # s; a longer silence inside a phone is cut out of it


@dataclass(frozen=True)
class Phone:
    """A phone of the CMU dictionary without stress, start and end in seconds; silence is SIL."""

    name: str
    start: float
    end: float


def align(audio: np.ndarray, text: str) -> list[Phone]:
    """Phones of a recording (float32, mono, 16 kHz) of English words.

    Raises:
        EnvironmentProblem: pocketsphinx is not installed.
        DataError: words that the dictionary does not have, or sound that does not fit the text.
    """
    sphinx = require("pocketsphinx", why="Aligning recordings with their text", extra="voices")
    plain = text.lower().replace("\u2019", "'")
    words = re.findall(r"[a-z]+(?:'[a-z]+)*", plain)
    left = {c for c in re.sub(r"[a-z]", "", plain) if c.isalnum()}
    if left:
        raise DataError(f"write out in English words what has {', '.join(sorted(left))}: {text!r}")
    config = {"loglevel": "FATAL", "lm": None}
    decoder = sphinx.Decoder(**config)
    unknown = sorted({w for w in words if decoder.lookup_word(w) is None})
    if unknown or not words:
        raise DataError(
            f"the dictionary of pocketsphinx does not have {', '.join(unknown)}" if unknown
            else f"no English words in {text!r}"
        )  # fmt: skip
    loud = float(np.percentile(np.abs(audio), 99.5)) if len(audio) else 0.0
    for gain in (1.0, 0.5 / max(loud, 1e-4)):
        for pad, noise in ATTEMPTS:
            phones = _attempt(decoder, audio * gain, words, pad, noise)
            if phones:
                return _cut_pauses(phones, audio, loud)
            decoder = sphinx.Decoder(**config)  # after an error a decoder gives wrong times
    raise DataError(f"the recording does not fit its text {' '.join(words)!r}")


def _attempt(decoder, audio: np.ndarray, words: list[str], pad: float, noise: float):
    rng = np.random.default_rng(1)
    around = [rng.normal(0, noise, round(pad * RATE)) for _ in range(2)]
    sound = np.concatenate([around[0], np.clip(audio, -1, 1) * 32767, around[1]])
    data = np.round(sound).astype("<i2").tobytes()

    def decode() -> None:
        decoder.start_utt()
        decoder.process_raw(data, full_utt=True)
        decoder.end_utt()

    try:
        decoder.set_align_text(" ".join(words))
        decode()
        decoder.set_alignment()
        decode()
        alignment = decoder.get_alignment()
    except RuntimeError:
        return None
    if alignment is None:
        return None
    length, found = len(audio) / RATE, []
    for phone in alignment.phones():
        start = phone.start * STEP - pad
        start, end = (min(max(t, 0.0), length) for t in (start, start + phone.duration * STEP))
        if end > start:
            found.append(Phone(phone.name.rstrip("012"), round(start, 3), round(end, 3)))
    return found


def _cut_pauses(phones: list[Phone], audio: np.ndarray, loud: float) -> list[Phone]:
    """Turn long silences at the ends of phones into SIL."""
    window = round(STEP * RATE)
    frames = np.abs(audio[: len(audio) // window * window]).reshape(-1, window).mean(1)
    quiet = frames < 0.03 * loud
    found = []
    for phone in phones:
        first, last = round(phone.start / STEP), min(round(phone.end / STEP), len(quiet))
        silent = 0
        while first < last - silent - 3 and quiet[last - silent - 1]:
            silent += 1
        if phone.name != "SIL" and silent * STEP >= PAUSE:
            middle = round(phone.end - silent * STEP, 3)
            found += [Phone(phone.name, phone.start, middle), Phone("SIL", middle, phone.end)]
        else:
            found.append(phone)
    return found
