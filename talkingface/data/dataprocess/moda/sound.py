"""Sound features per video frame: log-mel rows, APC, or wav2vec2 (DreamtaleCore/MODA)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.dataprocess.moda.files import SAMPLE_RATE
from talkingface.data.face.series import between
from talkingface.data.media.apc_mel import apc_mel, encode

ROWS = 4  # rows of mel or APC per video frame
_ROW_RATE = 120.0
_VERSION = 1
_CHUNK, _MARGIN = 500, 50  # video frames per pass of wav2vec2, and overlap on each side


def normalised(wave: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance over the whole sound, the input of wav2vec2; silence stays 0."""
    wave = np.asarray(wave, np.float32)
    return (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)


def samples_of(start: int, stop: int, fps: float) -> slice:
    """Samples of the frames ``start`` to ``stop``; 16000 / fps need not be an integer."""
    return slice(round(start * SAMPLE_RATE / fps), round(stop * SAMPLE_RATE / fps))


def frames_of(samples: int, fps: float) -> int:
    """Number of video frames of a sound, at least one."""
    return max(1, round(samples * fps / SAMPLE_RATE))


def at_frames(rows: np.ndarray, count: int, fps: float) -> np.ndarray:
    """Rows at 120 Hz (M,D) to four per video frame, concatenated (count, 4*D).

    At 30 fps frame t has rows 4t to 4t+3, as in the released code; otherwise rows are interpolated
    linearly.
    """
    if not len(rows):
        return np.zeros((count, ROWS * rows.shape[1]), np.float32)
    time = (np.arange(ROWS * count) + 0.5) / (ROWS * fps) * _ROW_RATE - 0.5
    values = between(rows, np.clip(time, 0, len(rows) - 1), np.float32)
    return values.reshape(count, -1).astype(np.float32)


def with_context(features: np.ndarray, start: int, stop: int, frames: int) -> np.ndarray:
    """Rows ``start`` to ``stop``, each with its neighbours: (stop - start, (2*frames+1)*D)."""
    if not frames:
        return np.asarray(features[start:stop], np.float32)
    around = np.arange(start, stop)[:, None] + np.arange(-frames, frames + 1)
    rows = features[np.clip(around, 0, len(features) - 1)]
    return np.asarray(rows, np.float32).reshape(stop - start, -1)


class SoundFeatures:
    """Computes the features of whole sounds.

    Args:
        kind: ``mel``, ``apc`` or ``wav2vec2``.
        network: returns the APC, or for wav2vec2 a function of a sound (1,N) and a number of
            frames; called on first use.
        id: identifies the weights of the network in the names of cached files.
    """

    def __init__(self, kind: str, network: Callable[[], Any] | None = None, id: str = "") -> None:
        self.kind, self._network = kind, network
        self.id = "-".join(part for part in (kind, id, f"v{_VERSION}") if part)

    def __call__(self, wave: np.ndarray, count: int, fps: float) -> np.ndarray:
        """Features (count, D) float32 of a sound (N,), 16 kHz mono."""
        if self.kind == "mel":
            return at_frames(apc_mel(wave), count, fps)
        if self.kind == "apc":
            return at_frames(encode(self._network(), wave), count, fps)
        return self._wav2vec2(normalised(wave), count, fps)

    def _wav2vec2(self, wave: np.ndarray, count: int, fps: float) -> np.ndarray:
        """In overlapping chunks, so that memory does not grow with the length."""
        import torch

        network: Any = self._network()
        parts = []
        for start in range(0, count, _CHUNK):
            stop = min(count, start + _CHUNK)
            first, last = max(0, start - _MARGIN), min(count, stop + _MARGIN)
            piece = wave[samples_of(first, last, fps)]
            piece = np.pad(piece, (0, max(0, 400 - len(piece))))  # 400: kernel of the convolutions
            with torch.inference_mode():
                encoded = network(torch.from_numpy(piece)[None], last - first)
            parts.append(encoded[0, start - first : stop - first].float().cpu().numpy())
        return np.concatenate(parts)

    def path(self, folder: Path) -> Path:
        """File of the features in the folder of a clip."""
        return folder / f"sound_{self.id}.npy"
