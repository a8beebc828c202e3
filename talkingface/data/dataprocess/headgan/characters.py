"""What is being said, as 27 numbers per video frame: a to z and everything else (official code).

The paper takes the characters of DeepSpeech. Here a CTC network with local weights does it,
or, without any weights, 27 sound classes that are learnt from the training clips.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.npz import read_npz, save_npz
from talkingface.errors import DataError, WeightsError
from talkingface.utils.env import require

N_CLASSES = 27
OTHER = 26  # blank, space, apostrophe, silence
RATE = 16000
CTC_FILE = "wav2vec2_fairseq_base_ls960_asr_ls960.pth"
# Output of torchaudio's WAV2VEC2_ASR_BASE_960H, in order.
_LABELS = "-|ETAONIHSRDLUMWCFGYPBVK'XJQZ"
_HOP = 160  # samples between two windows of the sound classes
_MOST_WINDOWS = 60_000  # that sound classes are learnt from
_MOST_OF_ONE = 3000  # of one sound
_CHUNK_SECONDS = 20.0  # of sound that the CTC network gets at once


class CharEncoder(ABC):
    """Numbers per video frame; they are not negative and each row sums to 1, or to 0."""

    n_classes = N_CLASSES
    id: str

    @abstractmethod
    def __call__(self, wave: np.ndarray, fps: float, frames: int) -> np.ndarray:
        """(N,) mono samples at 16 kHz -> (frames,27) float32."""

    def content(self) -> dict[str, Any]:
        """What was learnt, for a checkpoint."""
        return {}


class NoCharacters(CharEncoder):
    """All zeros: the voice vector keeps its size."""

    id = "zeros"

    def __call__(self, wave: np.ndarray, fps: float, frames: int) -> np.ndarray:
        return np.zeros((frames, N_CLASSES), np.float32)


class SoundClasses(CharEncoder):
    """27 classes of MFCC windows, softly assigned: phone-like, of any language, without weights.

    Args:
        mean, std: (26,) of MFCC and deltas.
        centres: (27,26) in these units.
        width: mean squared distance of a window to its centre.
    """

    def __init__(
        self, mean: np.ndarray, std: np.ndarray, centres: np.ndarray, width: float
    ) -> None:
        self.mean, self.std, self.centres, self.width = mean, std, centres, float(width)
        values = [np.asarray(v, np.float32).tobytes() for v in (mean, std, centres, width)]
        self.id = "kmeans27-" + hashlib.sha256(b"".join(values)).hexdigest()[:8]

    def __call__(self, wave: np.ndarray, fps: float, frames: int) -> np.ndarray:
        values = (_windows(wave) - self.mean) / self.std
        # |x|^2 is the same for all centres; nothing as large as (windows, centres, 26) is made.
        distance = np.square(self.centres).sum(axis=1) - 2 * values @ self.centres.T
        soft = np.exp(-(distance - distance.min(axis=1, keepdims=True)) / self.width)
        soft = soft / soft.sum(axis=1, keepdims=True)
        return _mean_per_frame(soft, RATE / _HOP, fps, frames)

    def content(self) -> dict[str, Any]:
        return {"mean": self.mean, "std": self.std, "centres": self.centres, "width": self.width}

    @classmethod
    def learn(cls, waves: Iterable[np.ndarray], seed: int = 0) -> SoundClasses:
        """k-means over the windows of the training sounds.

        Raises:
            DataError: too little sound.
        """
        from scipy.cluster.vq import kmeans2

        rng = np.random.default_rng(seed)
        parts = [np.zeros((0, 26))]
        for wave in waves:
            rows = _windows(wave)
            if len(rows) > _MOST_OF_ONE:
                rows = rows[np.sort(rng.choice(len(rows), _MOST_OF_ONE, replace=False))]
            parts.append(rows.astype(np.float32))
        values = np.concatenate(parts)
        if len(values) < 3 * N_CLASSES:
            raise DataError(
                f"{len(values) * _HOP / RATE:.1f} s of training sound are too little for "
                f"{N_CLASSES} sound classes; set audio.char_encoder=zeros"
            )
        if len(values) > _MOST_WINDOWS:
            values = values[rng.choice(len(values), _MOST_WINDOWS, replace=False)]
        mean, std = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-6)
        scaled = (values - mean) / std
        centres, label = kmeans2(scaled, N_CLASSES, iter=30, minit="++", seed=rng)
        width = np.square(scaled - centres[label]).sum(axis=1).mean()
        order = np.argsort(-centres[:, 0], kind="stable")  # k-means numbers them at random
        return cls(
            mean.astype(np.float32),
            std.astype(np.float32),
            centres[order].astype(np.float32),
            max(width, 1e-6),
        )

    def save(self, path: Path) -> None:
        save_npz(path, self.content())

    @classmethod
    def read(cls, path: Path) -> SoundClasses:
        return cls(**read_npz(path))


class CTCCharacters(CharEncoder):
    """Letters recognised by wav2vec2 (torchaudio's WAV2VEC2_ASR_BASE_960H, English).

    Args:
        path: local weights; nothing is downloaded.
        hold: the best letter, held until the next one, as the official one-hot feature; else
            probabilities.

    Raises:
        WeightsError: missing or damaged.
    """

    def __init__(self, path: Path, *, hold: bool = False) -> None:
        from talkingface.utils.hashes import sha256_of

        if not path.is_file():
            raise WeightsError(
                f"The character network {path} does not exist. It is torchaudio's {CTC_FILE} "
                "(360 MB; see checkpoints/README.md). audio.char_encoder=kmeans27 needs no file."
            )
        self.path, self.hold = path, hold
        self.id = f"wav2vec2_ctc{'_hold' if hold else ''}-{sha256_of(path)[:8]}"
        self._network: Any = None

    @property
    def network(self) -> Any:
        if self._network is None:
            import torch

            from talkingface.utils.weights import load_strict, read_weights

            torchaudio = require("torchaudio", why="The character network")
            with torch.device("meta"):
                network = torchaudio.models.wav2vec2_base(aux_num_out=len(_LABELS))
            network = network.to_empty(device="cpu")
            state = published_names(read_weights(self.path))
            load_strict(network, state, source=str(self.path), network="ctc")
            self._network = network.eval()
        return self._network

    def probabilities(self, wave: np.ndarray) -> np.ndarray:
        """(n,29) of the labels, about 50 per second; long sounds in pieces."""
        import torch

        samples = np.asarray(wave, np.float32)
        size = int(_CHUNK_SECONDS * RATE)
        rows = []
        for start in range(0, max(len(samples), 1), size):
            piece = samples[start : start + size]
            piece = np.pad(piece, (0, max(0, 400 - len(piece))))
            with torch.inference_mode():
                logits, _ = self.network(torch.from_numpy(piece)[None])
            rows.append(logits[0].softmax(-1).numpy())
        return np.concatenate(rows)

    def __call__(self, wave: np.ndarray, fps: float, frames: int) -> np.ndarray:
        probabilities = self.probabilities(wave)
        found, rate = to_27(probabilities), len(probabilities) / max(len(wave) / RATE, 1e-9)
        if self.hold:
            return held(probabilities, rate, fps, frames)
        time = (np.arange(frames) + 0.5) / fps * rate - 0.5
        at = np.clip(time, 0, len(found) - 1)
        low = at.astype(int)
        part = (at - low)[:, None]
        mixed = found[low] * (1 - part) + found[np.minimum(low + 1, len(found) - 1)] * part
        return mixed.astype(np.float32)


class StoredCharacters(CharEncoder):
    """Ready-made (n,27) arrays, e.g. of DeepSpeech, one ``.npy`` per clip.

    Args:
        path: the clip's file, or the folder of all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = f"deepspeech_file-{path}"

    def __call__(self, wave: np.ndarray, fps: float, frames: int) -> np.ndarray:
        if not np.any(wave):
            return np.eye(N_CLASSES, dtype=np.float32)[np.full(frames, OTHER)]
        try:
            values = np.load(self.path)
        except (OSError, ValueError) as error:
            raise DataError(
                f"The characters of this clip cannot be read: {self.path} ({error}). With "
                "audio.char_encoder=deepspeech_file each clip needs an array (frames, 27)."
            ) from error
        if values.ndim != 2 or values.shape[1] != N_CLASSES or not len(values):
            raise DataError(f"{self.path} has the shape {values.shape}; (frames, 27) is needed.")
        return np.asarray(values[np.minimum(np.arange(frames), len(values) - 1)], np.float32)


def to_27(probabilities: np.ndarray) -> np.ndarray:
    """(n,29) of the CTC labels -> (n,27): a to z, and the rest summed."""
    found = np.zeros((len(probabilities), N_CLASSES))
    for column, label in enumerate(_LABELS):
        letter = label.isalpha()
        found[:, ord(label.lower()) - ord("a") if letter else OTHER] += probabilities[:, column]
    return found


def held(probabilities: np.ndarray, rate: float, fps: float, frames: int) -> np.ndarray:
    """One-hot (frames,27): each character from its first frame until the next one begins.

    The blank (column 0) says nothing; the border of words and the apostrophe are characters, too.

    Args:
        probabilities: (n,29) of the CTC labels.
        rate: rows per second.
    """
    best = probabilities.argmax(axis=1)
    classes = to_27(np.eye(len(_LABELS))).argmax(axis=1)
    state = np.full(len(best), OTHER)
    current = OTHER
    for step, label in enumerate(best):
        if label:
            current = classes[label]
        state[step] = current
    at = np.minimum((np.arange(frames) / fps * rate).astype(int), len(state) - 1)
    return np.eye(N_CLASSES, dtype=np.float32)[state[at]]


def published_names(state: dict[str, Any]) -> dict[str, Any]:
    """The published file's state as torchaudio's network has it.

    The file keeps three outputs of fairseq that are never used (rows 1 to 3, which torchaudio's
    pipeline drops), and older names of a weight norm.
    """
    old = {"weight_g": "parametrizations.weight.original0",
           "weight_v": "parametrizations.weight.original1"}  # fmt: skip
    result = {}
    for key, value in state.items():
        head, _, name = key.rpartition(".")
        if head == "aux" and len(value) == len(_LABELS) + 3:
            value = value[[0, *range(4, len(value))]]
        result[f"{head}.{old[name]}" if name in old else key] = value
    return result


def _windows(wave: np.ndarray) -> np.ndarray:
    """(n,26) MFCCs of 25 ms windows every 10 ms, with their differences."""
    import torch

    torchaudio = require("torchaudio", why="Sound classes")
    samples = np.asarray(wave, np.float32)
    samples = np.pad(samples, (0, max(0, 800 - len(samples))))
    mel = {"n_fft": 512, "win_length": 400, "hop_length": _HOP, "n_mels": 40}
    transform = torchaudio.transforms.MFCC(RATE, n_mfcc=13, melkwargs=mel)
    with torch.inference_mode():
        values = transform(torch.from_numpy(samples))
        deltas = torchaudio.functional.compute_deltas(values)
    return torch.cat([values, deltas]).T.double().numpy()


def _mean_per_frame(rows: np.ndarray, rate: float, fps: float, frames: int) -> np.ndarray:
    """Means of the rows whose middles lie in each video frame."""
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    edges = np.round(np.arange(frames + 1) / fps * rate).astype(int)
    begin = np.minimum(edges[:-1], len(rows) - 1)
    end = np.clip(edges[1:], begin + 1, len(rows))
    return ((sums[end] - sums[begin]) / (end - begin)[:, None]).astype(np.float32)
