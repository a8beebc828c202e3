"""Speech with phoneme times: espeak-ng from the ``espeakng-loader`` wheel, or a fallback."""

from __future__ import annotations

import contextlib
import ctypes
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from talkingface.data.synthetic import vowels
from talkingface.data.synthetic.sentences import sentence

logger = logging.getLogger(__name__)

RATE = 16000  # Hz of the finished audio
ESPEAK, FALLBACK = "espeak-ng", "vowel fallback"
_SYNCHRONOUS, _PHONEME_EVENTS, _DONT_EXIT = 2, 0x1, 0x8000
_EVENT_END, _EVENT_PHONEME, _UTF8 = 0, 7, 1
_PARAM_RATE, _PARAM_PITCH = 1, 3
_CLOSURE = 0.055  # s; espeak-ng times a stop from its burst, the closure precedes it
_STOPS = ("p", "t", "k", "b", "d", "g", "tS", "dZ")


@dataclass(frozen=True)
class Phoneme:
    """One phoneme: espeak-ng mnemonic with its stress marks, start and end in seconds."""

    symbol: str
    start: float
    end: float


@dataclass(frozen=True)
class Speech:
    """A spoken clip: text, float32 mono audio at ``RATE``, phonemes in order, engine name."""

    text: str
    audio: np.ndarray
    phonemes: list[Phoneme]
    engine: str


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class _Espeak:
    """The espeak-ng library, loaded afresh for each clip.

    Its noise generator and the phase of its voice are global state, which carries over from one
    sentence to the next, even across a new initialisation. Only unloading the library resets them.
    Otherwise a clip would depend on the sentences that the process synthesised before.
    """

    def __init__(self) -> None:
        import espeakng_loader

        self._lib = ctypes.CDLL(espeakng_loader.get_library_path())
        self._blocks: list[np.ndarray] = []
        self._events: list[tuple[int, str]] = []
        self._callback = _Callback(self._receive)  # the library needs it to stay alive
        data = str(espeakng_loader.get_data_path()).encode()
        self.rate = self._lib.espeak_Initialize(_SYNCHRONOUS, 0, data, _PHONEME_EVENTS | _DONT_EXIT)
        if self.rate <= 0:
            raise OSError(f"espeak_Initialize returned {self.rate}")
        self._lib.espeak_SetSynthCallback(self._callback)
        self._lib.espeak_ng_SetRandSeed(ctypes.c_long(1))

    def close(self) -> None:
        """Unload the library."""
        import _ctypes

        self._lib.espeak_Terminate()
        if hasattr(_ctypes, "dlclose"):
            _ctypes.dlclose(self._lib._handle)

    def _receive(self, samples, count, events) -> int:  # type: ignore[no-untyped-def]
        if samples and count > 0:
            self._blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        number = 0
        while events[number].type != _EVENT_END:
            event = events[number]
            if event.type == _EVENT_PHONEME:
                name = bytes(event.id.string).split(b"\0")[0].decode("utf-8", "replace")
                self._events.append((event.sample, name))
            number += 1
        return 0

    def say(self, text: str, voice: str, pitch: int, rate: int) -> tuple[np.ndarray, list[Phoneme]]:
        """Synthesise ``text``: float32 audio at ``self.rate`` Hz and its phonemes."""
        self._blocks, self._events = [], []
        if self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise OSError(f"espeak-ng has no voice {voice}")
        self._lib.espeak_SetParameter(_PARAM_RATE, rate, 0)
        self._lib.espeak_SetParameter(_PARAM_PITCH, pitch, 0)
        data = text.encode()
        status = self._lib.espeak_Synth(data, len(data) + 1, 0, 0, 0, _UTF8, None, None)
        self._lib.espeak_Synchronize()
        if status != 0 or not self._blocks:
            raise OSError(f"espeak_Synth returned {status}")
        audio = np.concatenate(self._blocks).astype(np.float32) / 32768
        marks = [*self._events, (len(audio), "_")]
        spans = [(name, a / self.rate, b / self.rate) for (a, name), (b, _) in pairwise(marks)]
        return audio, _with_closures(spans)


def _with_closures(spans: list[tuple[str, float, float]]) -> list[Phoneme]:
    """Move the start of each stop from its burst to its closure; drop pauses.

    The span of a long voiced stop (before a pause or a consonant) already includes its closure.
    """
    spans = [list(span) for span in spans]
    for before, span in zip([None, *spans], spans, strict=False):
        name = span[0].strip("',%=")
        if name in _STOPS and not (name in ("b", "d", "g") and span[2] - span[1] > 0.05):
            floor = 0.0 if before is None else (before[1] + before[2]) / 2
            span[1] = max(span[1] - _CLOSURE, floor)
            if before is not None:
                before[2] = min(before[2], span[1])
    return [
        Phoneme(name, start, end)
        for name, start, end in spans
        if not name.startswith("_") and end > start
    ]


@contextlib.contextmanager
def _open_espeak() -> Iterator[_Espeak | None]:
    """espeak-ng, or None with a warning where it cannot be loaded."""
    try:
        library = _Espeak()
    except (ImportError, OSError, AttributeError) as error:
        logger.warning(
            "espeak-ng cannot be loaded (%s); the Synthetic dataset uses a simple vowel "
            "synthesiser instead. For real words: pip install espeakng-loader",
            error,
        )
        yield None
        return
    with contextlib.closing(library):
        yield library


def speak(
    draw: np.random.Generator,
    seconds: float,
    voice: str,
    pitch: int,
    rate: int,
    engine: str | None = None,
) -> Speech:
    """Fill a clip with sentences and pauses.

    Args:
        draw: chooses sentences and pauses.
        seconds: exact length of the clip.
        voice: espeak-ng voice name.
        pitch: 0..100.
        rate: words per minute.
        engine: ``FALLBACK``, or None for espeak-ng where it can be loaded.
    """
    from scipy.signal import resample_poly

    audio = np.zeros(round(seconds * RATE), np.float32)
    phonemes: list[Phoneme] = []
    texts: list[str] = []
    now, misses = float(draw.uniform(0.08, 0.25)), 0
    with contextlib.nullcontext() if engine == FALLBACK else _open_espeak() as library:
        while misses < 12 and seconds - now > 0.4:
            text = sentence(draw, short=misses > 2)
            if library is None:
                wave, spans = vowels.say(text, RATE, pitch, rate)
                spoken = [Phoneme(*span) for span in spans]
            else:
                wave, spoken = library.say(text, voice, pitch, rate)
                wave = resample_poly(wave, RATE // 50, library.rate // 50).astype(np.float32)
            end = spoken[-1].end if spoken else 0.0
            if now + end > seconds - 0.05 and (texts or misses < 11):
                misses += 1  # longer than the remaining time: try another sentence
                continue
            first = round(now * RATE)
            audio[first : first + len(wave)] += wave[: len(audio) - first]
            start = first / RATE
            phonemes += [
                Phoneme(p.symbol, p.start + start, min(p.end + start, seconds))
                for p in spoken
                if p.start + start < seconds
            ]
            texts.append(text)
            now += end + float(draw.uniform(0.12, 0.35))
    fade = min(len(audio), round(0.03 * RATE))
    audio[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    audio *= 0.7 / max(float(np.abs(audio).max()), 1e-3)
    return Speech(" ".join(texts), audio, phonemes, FALLBACK if library is None else ESPEAK)
