"""HeadGAN's voice vector: 84 low-level features and the characters of eight frames."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.data.dataprocess.headgan.characters import (
    CTC_FILE,
    N_CLASSES,
    RATE,
    CharEncoder,
    CTCCharacters,
    NoCharacters,
    SoundClasses,
    StoredCharacters,
)
from talkingface.data.dataprocess.headgan.lowlevel import N_LOW, lowlevel_features
from talkingface.data.npz import read_npz, save_npz
from talkingface.errors import DataError
from talkingface.utils.paths import resolve

if TYPE_CHECKING:
    from talkingface.model.image_driven_talkingface.headgan.headgan_config import VoiceSection

_VERSION = 1


def voice_size(options: VoiceSection) -> int:
    """Length of a voice vector (naf; 300 with the defaults)."""
    return N_LOW * options.lowlevel + 2 * options.half_window * N_CLASSES


def encoder_kind(options: VoiceSection, weights_dir: str) -> str:
    """``audio.char_encoder``; for ``auto`` the CTC network if its weights exist, else kmeans27."""
    if options.char_encoder != "auto":
        return options.char_encoder
    return "wav2vec2_ctc" if ctc_path(options, weights_dir).is_file() else "kmeans27"


def ctc_path(options: VoiceSection, weights_dir: str) -> Path:
    given = options.ctc_weights
    return resolve(weights_dir) / CTC_FILE if given == "auto" else resolve(given)


def encoder_of(
    kind: str, options: VoiceSection, weights_dir: str, classes: dict[str, Any]
) -> CharEncoder:
    """The encoder of a kind; ``classes``: fitted values, for ``kmeans27``."""
    if kind == "kmeans27":
        return SoundClasses(**classes)
    if kind == "zeros":
        return NoCharacters()
    if kind in ("wav2vec2_ctc", "wav2vec2_ctc_hold"):
        return CTCCharacters(ctc_path(options, weights_dir), hold=kind.endswith("hold"))
    return StoredCharacters(resolve(options.char_folder))


class Voice:
    """Computes voice features of whole sounds, and voice vectors from these features."""

    def __init__(self, options: VoiceSection, encoder: CharEncoder) -> None:
        self.options, self.encoder = options, encoder

    @property
    def id(self) -> str:
        """Hash of settings and encoder, for file names of cached features."""
        state = json.dumps([_VERSION, self.options.legacy_hop, self.encoder.id])
        return hashlib.sha256(state.encode()).hexdigest()[:10]

    def features(
        self, wave: np.ndarray, fps: float, frames: int, stored: Path | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Low-level features (T,84) and characters (T,27) of a sound (N,), 16 kHz mono.

        Args:
            stored: file of the clip's characters, for ``deepspeech_file``.

        Raises:
            DataError: ``deepspeech_file`` without such a file.
        """
        low = lowlevel_features(wave, RATE, fps, frames, legacy_hop=self.options.legacy_hop)
        encoder = self.encoder
        if isinstance(encoder, StoredCharacters):
            if stored is None and np.any(wave):
                raise DataError(
                    "audio.char_encoder=deepspeech_file has characters only for clips of the "
                    "dataset; train with kmeans27 or wav2vec2_ctc to use other sounds"
                )
            encoder = StoredCharacters(stored or encoder.path)
        return low, encoder(wave, fps, frames)

    def path(self, folder: Path) -> Path:
        return folder / f"voice_{self.id}.npz"

    def stored(self, clip_id: str) -> Path | None:
        """File of a clip's characters, for ``deepspeech_file``."""
        folder = self.options.char_folder
        return resolve(folder) / f"{clip_id}.npy" if folder else None

    def is_current(self, folder: Path, clip_id: str) -> bool:
        """Whether the features of a clip exist and are not older than its character file."""
        own, given = self.path(folder), self.stored(clip_id)
        if not own.is_file():
            return False
        if given is None or not given.is_file():
            return True
        return given.stat().st_mtime_ns <= own.stat().st_mtime_ns

    def save(self, folder: Path, features: tuple[np.ndarray, np.ndarray]) -> None:
        save_npz(self.path(folder), dict(zip(("low", "char"), features, strict=True)))

    def read(self, folder: Path) -> np.ndarray:
        """(T,naf) vectors of a prepared clip.

        Raises:
            DataError: the file is missing, or its sizes are not those of the configuration.
        """
        content = read_npz(self.path(folder))
        return self.vectors(content["low"], content["char"])

    def vectors(self, low: np.ndarray, char: np.ndarray) -> np.ndarray:
        """(T,naf): low-level features of the frame, then its window of characters, oldest first.

        With ``half_window`` L and ``shift`` s the window of frame t is t + s - L to t + s + L - 1;
        the first and the last frame are repeated.
        """
        options = self.options
        if low.shape[1] != N_LOW or char.shape[1] != N_CLASSES:
            raise DataError(
                f"stored voice features have {low.shape[1]} + {char.shape[1]} values per frame, "
                f"the configuration needs {N_LOW} + {N_CLASSES}; run the stage preprocess again"
            )
        half = options.half_window
        around = np.arange(len(char))[:, None] + np.arange(-half, half) + options.shift
        window = char[np.clip(around, 0, len(char) - 1)].reshape(len(char), -1)
        parts = ([low] if options.lowlevel else []) + [window]
        return np.concatenate(parts, axis=1).astype(np.float32)
