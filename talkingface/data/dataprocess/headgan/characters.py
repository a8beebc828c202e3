"""Characters of the speech as 27 numbers per video frame: a to z, and all others (official code).

The paper uses the characters of DeepSpeech. Here they are those of a CTC network with local weights
or, without weights, 27 sound classes that are fitted to the training clips.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.face.series import between
from talkingface.data.npz import read_npy
from talkingface.errors import DataError, WeightsError
from talkingface.utils.env import require

N_CLASSES = 27
OTHER = 26  # blank, space, apostrophe, silence
RATE = 16000
CTC_FILE = "wav2vec2_fairseq_base_ls960_asr_ls960.pth"
# Output of torchaudio's WAV2VEC2_ASR_BASE_960H, in order.
_LABELS = "-|ETAONIHSRDLUMWCFGYPBVK'XJQZ"
_HOP = 160  # samples between two windows of the sound classes
_MOST_WINDOWS = 60_000  # at most, for the k-means of the sound classes
_MOST_OF_ONE = 3000  # windows of one sound, at most
_CHUNK_SECONDS = 20.0  # length of the input of the CTC network


class CharEncoder(ABC):
    """Encoder of characters: 27 numbers >= 0 per video frame, whose sum is 1 or 0."""

    id: str

    @abstractmethod
    def __call__(self, wave: np.ndarray, fps: float, frames: int) -> np.ndarray:
        """(N,) mono samples at 16 kHz -> (frames,27) float32."""

    def content(self) -> dict[str, Any]:
        """Fitted values, for a checkpoint."""
        return {}


class NoCharacters(CharEncoder):
    """All zeros, so that the voice vector keeps its size."""

    id = "zeros"

    def __call__(self, wave: np.ndarray, fps: float, frames: int) -> np.ndarray:
        return np.zeros((frames, N_CLASSES), np.float32)


class SoundClasses(CharEncoder):
    """Soft assignment of MFCC windows to 27 k-means classes: similar to phones, any language.

    Args:
        mean, std: (26,) mean and standard deviation of MFCC and deltas.
        centres: (27,26) standardised.
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
        # Without |x|^2, which is equal for all centres; an array (windows, centres, 26) is avoided.
        distance = np.square(self.centres).sum(axis=1) - 2 * values @ self.centres.T
        soft = np.exp(-(distance - distance.min(axis=1, keepdims=True)) / self.width)
        soft = soft / soft.sum(axis=1, keepdims=True)
        return _mean_per_frame(soft, RATE / _HOP, fps, frames)

    def content(self) -> dict[str, Any]:
        return {"mean": self.mean, "std": self.std, "centres": self.centres, "width": self.width}

    @classmethod
    def learn(cls, waves: Iterable[np.ndarray], seed: int = 0) -> SoundClasses:
        """Fit the classes to the training sounds with k-means.

        Raises:
            DataError: the sounds are too short.
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
        order = np.argsort(-centres[:, 0], kind="stable")  # their order is random
        arrays = (values.astype(np.float32) for values in (mean, std, centres[order]))
        return cls(*arrays, max(width, 1e-6))


class CTCCharacters(CharEncoder):
    """Letters recognised by wav2vec2 (torchaudio's WAV2VEC2_ASR_BASE_960H, English).

    Args:
        path: local file of the weights; it is not downloaded.
        hold: one-hot vector of the most probable letter, held until the next letter, as in the
            official code; otherwise probabilities.

    Raises:
        WeightsError: the file is missing or damaged.
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

    @cached_property
    def network(self) -> Any:
        """The CTC network, loaded on first use."""
        import torch

        from talkingface.utils.weights import load_strict, read_weights

        torchaudio = require("torchaudio", why="The character network")
        with torch.device("meta"):
            network = torchaudio.models.wav2vec2_base(aux_num_out=len(_LABELS))
        network = network.to_empty(device="cpu")
        state = published_names(read_weights(self.path))
        load_strict(network, state, source=str(self.path), network="ctc")
        return network.eval()

    def probabilities(self, wave: np.ndarray) -> np.ndarray:
        """(n,29) probabilities of the labels, about 50 rows per second; long sounds in chunks."""
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
        rate = len(probabilities) / max(len(wave) / RATE, 1e-9)
        if self.hold:
            return held(probabilities, rate, fps, frames)
        rows = to_27(probabilities)
        time = (np.arange(frames) + 0.5) / fps * rate - 0.5
        return between(rows, np.clip(time, 0, len(rows) - 1)).astype(np.float32)


class StoredCharacters(CharEncoder):
    """Arrays (n,27) of files, e.g. from DeepSpeech, one ``.npy`` per clip.

    Args:
        path: file of the clip, or folder of all files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = f"deepspeech_file-{path}"

    def __call__(self, wave: np.ndarray, fps: float, frames: int) -> np.ndarray:
        if not np.any(wave):
            return np.eye(N_CLASSES, dtype=np.float32)[np.full(frames, OTHER)]
        try:
            values = read_npy(self.path, remedy="Make it again.")
        except DataError as error:
            raise DataError(
                f"The characters of this clip cannot be read: {self.path} ({error}). With "
                "audio.char_encoder=deepspeech_file each clip needs an array (frames, 27)."
            ) from error
        if values.ndim != 2 or values.shape[1] != N_CLASSES or not len(values):
            raise DataError(f"{self.path} has the shape {values.shape}; (frames, 27) is needed.")
        return np.asarray(values[np.minimum(np.arange(frames), len(values) - 1)], np.float32)


def to_27(probabilities: np.ndarray) -> np.ndarray:
    """(n,29) probabilities of the CTC labels -> (n,27): a to z, and the sum of the others."""
    result = np.zeros((len(probabilities), N_CLASSES))
    for column, label in enumerate(_LABELS):
        index = ord(label.lower()) - ord("a") if label.isalpha() else OTHER
        result[:, index] += probabilities[:, column]
    return result


def held(probabilities: np.ndarray, rate: float, fps: float, frames: int) -> np.ndarray:
    """One-hot (frames,27): each character is held until the next one begins.

    The blank (column 0) is not a character; the word boundary and the apostrophe are.

    Args:
        probabilities: (n,29) probabilities of the CTC labels.
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
    """Convert the published state_dict to that of torchaudio's network.

    The file has three unused outputs of fairseq (rows 1 to 3, which torchaudio's pipeline drops)
    and older names of a weight norm.
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
    """(n,26) MFCCs of 25 ms windows every 10 ms, and their deltas."""
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
    """(frames,C) mean over the rows whose centres lie in each video frame."""
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    edges = np.round(np.arange(frames + 1) / fps * rate).astype(int)
    begin = np.minimum(edges[:-1], len(rows) - 1)
    end = np.clip(edges[1:], begin + 1, len(rows))
    return ((sums[end] - sums[begin]) / (end - begin)[:, None]).astype(np.float32)
