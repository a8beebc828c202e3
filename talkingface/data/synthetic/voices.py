"""What rendered people say: text-to-speech or recordings, with the times of the phones."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import logging
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from talkingface.data.media.audio import load_audio, resampled
from talkingface.data.synthetic.align import RATE, Phone, align
from talkingface.data.synthetic.espeak import Espeak
from talkingface.data.synthetic.person import Person
from talkingface.data.synthetic.sentences import sentence
from talkingface.errors import DataError
from talkingface.utils.env import require
from talkingface.utils.paths import resolve

log = logging.getLogger(__name__)

ESPEAK, HIBARI = "espeak", "hibari"
AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".m4a")
# How much pitch and formants of a recording are shifted at most, and to make a man of a woman.
SHIFT, TO_MAN, TO_WOMAN = (0.94, 1.06), (0.78, 0.85), (1.17, 1.26)
WOMAN_HERTZ = 160.0  # median pitch above which a voice counts as a woman's
# espeak-ng's mnemonics; the longest matching prefix counts.
ARPABET = {
    "a": "AE", "aI": "AY", "aU": "AW", "A": "AA", "0": "AA", "V": "AH", "O": "AO", "OI": "OY",
    "o": "AO", "oU": "OW", "U": "UH", "u": "UW", "E": "EH", "e": "EH", "eI": "EY", "3": "ER",
    "@": "AH", "@L": "L", "@U": "OW", "I": "IH", "i": "IY", "p": "P", "b": "B", "m": "M", "f": "F",
    "v": "V", "w": "W", "t": "T", "d": "D", "n": "N", "l": "L", "s": "S", "z": "Z", "S": "SH",
    "Z": "ZH", "tS": "CH", "dZ": "JH", "T": "TH", "D": "DH", "k": "K", "g": "G", "N": "NG",
    "h": "HH", "r": "R", "j": "Y", ";": "Y",
}  # fmt: skip


@dataclass(frozen=True)
class Speech:
    """A spoken clip.

    Attributes:
        audio: float32, mono, 16 kHz, at most 0.7. phones: in order, seconds within the clip.
        text: what is said. voice: engine or recordings, by what pitch and formants are multiplied,
            and whether the last words are cut off by the end of the clip.
    """

    audio: np.ndarray
    phones: list[Phone]
    text: str
    voice: dict[str, object]


@dataclass(frozen=True)
class Recording:
    """A file of a folder of voices. ``sex`` is None where the folder does not say it."""

    path: Path
    text: str
    speaker: str
    sex: str | None


def speak(
    voices: str, person: Person, seconds: float, rng: np.random.Generator, part: str = "train"
) -> Speech:
    """Fill a clip with speech and pauses.

    Args:
        voices: ``espeak``, ``hibari``, or a folder of recordings with their texts.
        seconds: length of the clip, at least 1.
        part: ``train``, or ``test`` for sentences that no training clip has.

    Raises:
        DataError: neither an engine nor a folder, or one without usable recordings.
        EnvironmentProblem: a package is missing.
    """
    if voices == ESPEAK:
        return _filled(_espeak(person), seconds, rng, {"engine": "espeak-ng"}, part)
    if voices == HIBARI:
        factor = _factor(person, "woman")
        say = _shifted(_hibari(1 / factor if factor < 0.9 else 1.0), factor)
        return _filled(say, seconds, rng, {"engine": "hibari-tts", "shift": factor}, part)
    return _from_folder(_folder(voices), person, seconds, rng, part)


def check_voices(voices: str) -> None:
    """Raise what :func:`speak` would, before a long rendering begins."""
    if voices == ESPEAK:
        Espeak().close()
    else:
        _hibari_engine() if voices == HIBARI else recordings(_folder(voices))
        require("pocketsphinx", why=f"--synthetic.voices={voices}", extra="voices")


def identity(voices: str) -> str:
    """On which voices a clip depends: an engine, or a hash of the recordings and their texts."""
    if voices in (ESPEAK, HIBARI):
        return voices
    folder = _folder(voices)
    rows = [
        (one.path.relative_to(folder).as_posix(), one.path.stat().st_size, one.text)
        for one in recordings(folder)
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def _folder(voices: str) -> Path:
    if not voices.strip() or not resolve(voices).is_dir():
        raise DataError(
            f"synthetic.voices is {voices!r}: neither {ESPEAK}, nor {HIBARI}, nor a folder"
        )
    return resolve(voices)


def for_test(text: str) -> bool:
    """Whether a sentence is kept for tests: one in ten, by its words."""
    return zlib.crc32(_plain(text)) % 10 == 9


def _plain(text: str) -> bytes:
    return " ".join(re.findall(r"\w+", text.lower())).encode()


Say = Callable[[str], tuple[np.ndarray, list[Phone]]]


def _filled(
    say: Say, seconds: float, rng: np.random.Generator, voice: dict[str, object], part: str
) -> Speech:
    """Sentences until the clip is full; the last ones are short."""
    audio, phones, texts = np.zeros(round(seconds * RATE), np.float32), [], []
    now, misses, cut = float(rng.uniform(0.08, 0.25)), 0, False
    while misses < 12 and seconds - now > 0.4:
        text = sentence(rng, short=misses > 2)
        if for_test(text) != (part == "test"):
            continue
        try:
            wave, spoken = say(text)
        except DataError as error:
            log.warning("a sentence is left out: %s", error)
            misses += 1
            continue
        end = spoken[-1].end if spoken else len(wave) / RATE
        if now + end > seconds - 0.05:
            misses += 1  # longer than the rest of the clip: try another sentence
            if texts or misses < 12:
                continue
            cut = True
        phones += _place(audio, wave, spoken, now)
        texts.append(text)
        now += end + float(rng.uniform(0.12, 0.35))
    if not phones:
        raise DataError(f"{voice['engine']} spoke no sentence; see the warnings above")
    return Speech(_finished(audio), phones, " ".join(texts), {**voice, "cut": cut})


def _place(audio: np.ndarray, wave: np.ndarray, phones: list[Phone], at: float) -> list[Phone]:
    """Add a wave to the clip; returns its phones there."""
    first, length = round(at * RATE), len(audio) / RATE
    audio[first : first + len(wave)] += wave[: len(audio) - first]
    moved = [(p.name, p.start + first / RATE, min(p.end + first / RATE, length)) for p in phones]
    return [Phone(*p) for p in moved if p[1] < p[2]]


def _finished(audio: np.ndarray) -> np.ndarray:
    fade = min(len(audio), round(0.03 * RATE))
    audio[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return audio * np.float32(0.7 / max(float(np.abs(audio).max()), 1e-3))


def _espeak(person: Person) -> Say:
    name = "en-us+f3" if person.sex == "woman" else "en-us+m3"
    pitch, rate = round(25 + 50 * person.voice[0]), person.voice[1]

    def say(text: str) -> tuple[np.ndarray, list[Phone]]:
        with contextlib.closing(Espeak()) as library:
            wave, spoken = library.say(text, name, pitch, rate)
            wave = resampled(wave, library.rate, RATE)
        return wave, [Phone(_arpabet(p.name), p.start, p.end) for p in spoken]

    return say


def _arpabet(symbol: str) -> str:
    plain = symbol.lstrip("',%=|")
    return next(
        (ARPABET[plain[:n]] for n in range(len(plain), 0, -1) if plain[:n] in ARPABET), "AH"
    )


@lru_cache(1)
def _hibari_engine():
    why = "--synthetic.voices=hibari (or use --synthetic.voices=espeak); it"
    return require("hibari", why=why, extra="voices").Hibari()


def _hibari(speed: float) -> Say:
    def say(text: str) -> tuple[np.ndarray, list[Phone]]:
        wave = resampled(_hibari_engine()(text, speed=speed, seed=0), 24000, RATE)
        return wave, align(wave, text)

    return say


def _factor(person: Person, sex: str) -> float:
    """By what pitch and formants of a voice are multiplied for this person."""
    low, high = SHIFT if sex == person.sex else TO_MAN if person.sex == "man" else TO_WOMAN
    return round(low + (high - low) * person.voice[0], 3)


def _shifted(say: Say, factor: float) -> Say:
    """Speech at another speed, which multiplies pitch and formants by ``factor``."""

    def slower(text: str) -> tuple[np.ndarray, list[Phone]]:
        wave, phones = say(text)
        return _at_speed(wave, phones, factor)

    return slower


def _at_speed(wave, phones: list[Phone], factor: float) -> tuple[np.ndarray, list[Phone]]:
    wave = resampled(wave, round(RATE * factor), RATE)
    return wave, [Phone(p.name, p.start / factor, p.end / factor) for p in phones]


# -- recordings ------------------------------------------------------------------------------------


@lru_cache(4)
def recordings(folder: Path) -> tuple[Recording, ...]:
    """Recordings with texts: LJ Speech, LibriSpeech, or files ``name.wav`` and ``name.txt``.

    The speaker of a plain file is the folder at the top that it lies in.

    Raises:
        DataError: there are none.
    """
    found = [*_lj_speech(folder), *_librispeech(folder)]
    for path in sorted(folder.rglob("*.txt")):
        sound = next((s for e in AUDIO if (s := path.with_suffix(e)).is_file()), None)
        if sound:
            place = path.relative_to(folder).parts
            text = path.read_text("utf-8", errors="replace")
            found.append(Recording(sound, text, place[0] if len(place) > 1 else folder.name, None))
    if not found:
        raise DataError(
            f"{folder} holds no recordings with texts. It may be a copy of LJ Speech or "
            "LibriSpeech, or hold files such as a.wav and a.txt."
        )
    return tuple(found)


@lru_cache(4)
def kept_for_tests(folder: Path) -> frozenset[bytes]:
    """The texts of a folder that are kept for tests: at least one of each speaker."""
    said = [{_plain(one.text) for one in own} for own in _by_speaker(folder).values()]
    kept = {text for texts in said for text in texts if zlib.crc32(text) % 10 == 9}
    for texts in said:
        if not texts & kept:
            kept.add(min(texts, key=zlib.crc32))
    return frozenset(kept)


def _lj_speech(folder: Path) -> Iterator[Recording]:
    for table in sorted(folder.rglob("metadata.csv")):
        with open(table, encoding="utf-8-sig", errors="replace", newline="") as file:
            for row in csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE):
                path = table.parent / "wavs" / f"{row[0]}.wav" if row else table
                if len(row) >= 2 and path.is_file():
                    yield Recording(path, row[-1], table.parent.name, None)


def _librispeech(folder: Path) -> Iterator[Recording]:
    sexes = {}
    tables = [*sorted(folder.rglob("SPEAKERS.TXT")), *(p / "SPEAKERS.TXT" for p in folder.parents)]
    for table in (t for t in tables if t.is_file()):
        for line in table.read_text("utf-8", errors="replace").splitlines():
            parts = [part.strip() for part in line.split("|")]
            if len(parts) > 1 and not line.startswith(";"):
                sexes[parts[0]] = {"F": "woman", "M": "man"}.get(parts[1])
    for table in sorted(folder.rglob("*.trans.txt")):
        for line in table.read_text("utf-8", errors="replace").splitlines():
            name, _, text = line.partition(" ")
            path = table.parent / f"{name}.flac"
            if path.is_file():
                speaker = name.split("-")[0]
                yield Recording(path, text, speaker, sexes.get(speaker))


@lru_cache(None)
def _sex_of(path: Path) -> str | None:
    """By the median pitch of a recording; None for one that cannot be read."""
    try:
        return "woman" if median_pitch(load_audio(path, RATE)) > WOMAN_HERTZ else "man"
    except DataError:
        return None


def median_pitch(audio: np.ndarray) -> float:
    """Hz, from the autocorrelation of the loud parts of a voice (float32, mono, 16 kHz)."""
    # librosa's functions for this crash now and then when two processes compile them at once.
    size, low, high = 1024, RATE // 350, RATE // 65
    frames = audio[: len(audio) // size * size].reshape(-1, size)
    energy = (frames**2).sum(1)
    loud = frames[energy > 0.1 * energy.max(initial=1e-9)]
    spectrum = np.abs(np.fft.rfft(loud * np.hanning(size), 2 * size)) ** 2
    window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(size), 2 * size)) ** 2)
    similar = np.fft.irfft(spectrum)[:, low:high] / window[low:high]
    similar *= np.linspace(1, 0.8, high - low)  # not two periods for one
    return float(np.median(RATE / (low + similar.argmax(1)))) if len(loud) else 0.0


@lru_cache(512)
def _aligned(path: Path, text: str) -> tuple[np.ndarray, list[Phone]] | None:
    """Sound and phones of a recording; None, with a line in the log, if it cannot be used."""
    try:
        wave = load_audio(path, RATE)
        return wave, align(wave, text)
    except DataError as error:
        log.warning("%s is left out: %s", path, error)
        return None


def _from_folder(
    folder: Path, person: Person, seconds: float, rng: np.random.Generator, part: str
) -> Speech:
    """One speaker for each person, of the person's sex if there is one."""
    kept = kept_for_tests(folder)
    for speaker, sex, own in _speakers(folder, person):
        files = [one for one in own if (_plain(one.text) in kept) == (part == "test")]
        factor = _factor(person, sex or person.sex)
        audio, phones, texts, used = np.zeros(round(seconds * RATE), np.float32), [], [], []
        now, cut = float(rng.uniform(0.08, 0.25)), False
        for k in rng.permutation(len(files)):
            if texts and seconds - now < 1.0:
                break
            found = _aligned(files[k].path, files[k].text)
            if found is None:
                continue
            wave, spoken = _at_speed(*found, factor)
            phones += _place(audio, wave, spoken, now)
            texts.append(files[k].text.strip())
            used.append(files[k].path.name)
            now += len(wave) / RATE
            cut = now > seconds
            now += float(rng.uniform(0.12, 0.35))
        if phones:
            said = {"speaker": speaker, "files": used, "shift": factor, "cut": cut}
            return Speech(
                _finished(audio), phones, " ".join(texts), {"engine": "recordings", **said}
            )
        log.warning("%s: %s has no usable recording for %s clips", folder, speaker, part)
    raise DataError(
        f"{folder}: no speaker has usable recordings for {part} clips; one text in ten, and at "
        "least one of each speaker, is kept for tests. See the warnings above."
    )


def _speakers(folder: Path, person: Person) -> Iterator[tuple[str, str | None, list[Recording]]]:
    """Speakers with sex and recordings: first those of the person's sex with texts for both parts,
    then others with texts for both parts. Persons of one sex begin at different speakers."""
    kept, good, others = kept_for_tests(folder), [], []
    for name, own in _by_speaker(folder).items():
        sex = own[0].sex or _sex_of(own[0].path)
        whole = len({_plain(one.text) in kept for one in own}) == 2
        place = good if whole and sex == person.sex else others
        place.append((not whole, name, sex, own))
    rank = sum(Person.draw(seed).sex == person.sex for seed in range(person.seed))
    turn = rank % len(good) if good else 0
    for _, *found in (*good[turn:], *good[:turn], *sorted(others, key=lambda one: one[:2])):
        yield tuple(found)


@lru_cache(4)
def _by_speaker(folder: Path) -> dict[str, list[Recording]]:
    found: dict[str, list[Recording]] = {}
    for one in sorted(recordings(folder), key=lambda one: one.speaker):
        found.setdefault(one.speaker, []).append(one)
    return found
