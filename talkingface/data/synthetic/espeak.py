"""Speech with the times of its phonemes, by espeak-ng from the ``espeakng-loader`` wheel."""

from __future__ import annotations

import ctypes
from itertools import pairwise

import numpy as np

from talkingface.data.synthetic.align import Phone
from talkingface.errors import EnvironmentProblem
from talkingface.utils.env import require

_SYNCHRONOUS, _PHONEME_EVENTS, _DONT_EXIT = 2, 0x1, 0x8000
_EVENT_END, _EVENT_PHONEME, _UTF8 = 0, 7, 1
_PARAM_RATE, _PARAM_PITCH = 1, 3
_CLOSURE = 0.055  # s; espeak-ng times a stop from its burst, the closure precedes it
_STOPS = ("p", "t", "k", "b", "d", "g", "tS", "dZ")


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


class Espeak:
    """The espeak-ng library, loaded afresh for each sentence.

    Its noise generator and the phase of its voice are global state, which carries over from one
    sentence to the next, even across a new initialisation. Only unloading the library resets them.
    Otherwise a clip would depend on the sentences that the process synthesised before.

    Raises:
        EnvironmentProblem: the library is missing or does not load.
    """

    def __init__(self) -> None:
        espeakng_loader = require("espeakng_loader", why="--synthetic.voices=espeak")
        try:
            self._start(espeakng_loader)
        except (OSError, AttributeError) as error:
            raise EnvironmentProblem(
                f"espeak-ng does not load on this machine: {error}. Use other voices: "
                "--synthetic.voices=hibari, or a folder of recordings with their texts."
            ) from error

    def _start(self, espeakng_loader) -> None:
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
        unload = getattr(_ctypes, "dlclose", None) or _ctypes.FreeLibrary  # Windows
        unload(self._lib._handle)

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

    def say(self, text: str, voice: str, pitch: int, rate: int) -> tuple[np.ndarray, list[Phone]]:
        """``text`` as float32 audio at ``self.rate`` Hz; its phones in espeak-ng's mnemonics."""
        self._blocks, self._events = [], []
        if self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise EnvironmentProblem(f"espeak-ng has no voice {voice}")
        self._lib.espeak_SetParameter(_PARAM_RATE, rate, 0)
        self._lib.espeak_SetParameter(_PARAM_PITCH, pitch, 0)
        data = text.encode()
        status = self._lib.espeak_Synth(data, len(data) + 1, 0, 0, 0, _UTF8, None, None)
        self._lib.espeak_Synchronize()
        if status != 0 or not self._blocks:
            raise EnvironmentProblem(
                f"espeak-ng does not speak {text!r}: espeak_Synth gave {status}"
            )
        audio = np.concatenate(self._blocks).astype(np.float32) / 32768
        marks = [*self._events, (len(audio), "_")]
        spans = [(name, a / self.rate, b / self.rate) for (a, name), (b, _) in pairwise(marks)]
        return audio, _with_closures(spans)


def _with_closures(spans: list[tuple[str, float, float]]) -> list[Phone]:
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
        Phone(name, start, end)
        for name, start, end in spans
        if not name.startswith("_") and end > start
    ]
