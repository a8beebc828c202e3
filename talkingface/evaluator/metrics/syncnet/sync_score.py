"""Scores of a SyncNet: embeddings of lips and sound, and their distances at all time shifts.

Source: joonson/syncnet_python, ``SyncNetInstance.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from talkingface.data.face.boxes import resize_image, syncnet_crop
from talkingface.data.media.mfcc import AUDIO_STEPS, WINDOW, syncnet_mfcc
from talkingface.errors import WeightsError
from talkingface.model.audio_driven_talkingface.syncnet.syncnet_networks import (
    EPSILON,
    SyncNet,
    audio_windows,
    lip_stream_2d,
    sound_stream,
)

FPS = 25.0
_CHUNK = 32  # windows in memory at a time
_BATCH = 4  # windows per forward pass; few fit a CPU's cache


@dataclass(frozen=True)
class SyncScore:
    """Result of :func:`score`.

    Attributes:
        distance: LSE-D, smallest mean distance over all shifts.
        confidence: LSE-C, median minus smallest.
        offset: AV offset in frames; positive: the sound is early.
        curve: (2 * vshift + 1,) mean distance per shift; index ``vshift - o`` is the offset o.
    """

    distance: float
    confidence: float
    offset: int
    curve: np.ndarray


@torch.no_grad()
def lip_features(network: SyncNet, crops: Iterable[np.ndarray]) -> np.ndarray:
    """Embeddings of all windows of five consecutive crops.

    Args:
        crops: face crops (S,S,3) uint8 RGB at 25 frames/s.

    Returns:
        (T-4, D) float32; (0, D) for fewer than five crops.
    """
    stream = lip_stream_2d(network)
    parts = [_embed(stream, torch.from_numpy(chunk)) for chunk in _chunks(crops)]
    width = network.netfclip[-1].out_features
    return np.concatenate([np.zeros((0, width), np.float32), *parts])


def _embed(stream: torch.nn.Module, frames: torch.Tensor) -> np.ndarray:
    """(3,n,S,S) to the embeddings of its windows (n-4,D)."""
    windows = frames.unfold(1, WINDOW, 1).permute(1, 0, 4, 2, 3).flatten(1, 2)  # views only
    parts = [
        stream(part.contiguous(memory_format=torch.channels_last)) for part in windows.split(_BATCH)
    ]
    return torch.cat(parts).numpy()


def _chunks(crops: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """(3,n,S,S) float32 BGR; consecutive chunks share four frames, so that no window is lost."""
    buffer: list[np.ndarray] = []
    for crop in crops:
        buffer.append(crop[..., ::-1])
        if len(buffer) == _CHUNK + WINDOW - 1:
            yield _tensor(buffer)
            buffer = buffer[1 - WINDOW :]
    if len(buffer) >= WINDOW:
        yield _tensor(buffer)


def _tensor(frames: list[np.ndarray]) -> np.ndarray:
    return np.ascontiguousarray(np.stack(frames).transpose(3, 0, 1, 2), np.float32)


@torch.no_grad()
def sound_features(network: SyncNet, wave: np.ndarray) -> np.ndarray:
    """Sound embeddings (M, D) float32, one window per frame at 25 frames/s.

    Args:
        wave: (N,) float, 16 kHz.
    """
    mfcc = torch.from_numpy(syncnet_mfcc(wave))
    count = max(0, (mfcc.shape[1] - AUDIO_STEPS) // 4 + 1)
    width = network.netfcaud[-1].out_features
    if not count:
        return np.zeros((0, width), np.float32)
    stream, windows = sound_stream(network), audio_windows(mfcc, count)
    return np.concatenate([stream(part).numpy() for part in windows.split(64)])


def score(lips: np.ndarray, sounds: np.ndarray, vshift: int = 15, pad: str = "zero") -> SyncScore:
    """Compare two sequences of embeddings at all shifts up to ``vshift``.

    Args:
        lips, sounds: (N,D) each.
        pad: ``zero`` pads the sound with zero embeddings at both ends, as the official code does;
            ``valid`` averages over real pairs only.
    """
    lips, sounds = lips.astype(np.float64), sounds.astype(np.float64)
    count = len(lips)
    padded = np.pad(sounds, ((vshift, vshift), (0, 0)))
    inside = np.pad(np.ones(count, bool), vshift)
    curve = np.empty(2 * vshift + 1)
    for shift in range(2 * vshift + 1):
        distance = np.linalg.norm(lips - padded[shift : shift + count] + EPSILON, axis=1)
        if pad == "valid":
            distance = distance[inside[shift : shift + count]]
        curve[shift] = distance.mean() if len(distance) else np.inf
    best = int(curve.argmin())
    finite = curve[np.isfinite(curve)]
    return SyncScore(
        float(curve[best]), float(np.median(finite) - curve[best]), vshift - best, curve
    )


def crops(
    frames: Iterable[np.ndarray], boxes: np.ndarray | None, size: int
) -> Iterator[np.ndarray]:
    """SyncNet's crops of consecutive frames; without boxes, whole frames resized to a square."""
    for index, frame in enumerate(frames):
        if boxes is None:
            yield resize_image(frame, size)
        elif index < len(boxes):
            yield syncnet_crop(frame, boxes[index], size)


def load_syncnet(path: Path, trust: str | None = None) -> SyncNet:
    """Load a SyncNet from a checkpoint of the toolkit or an official file, in eval mode.

    Raises:
        WeightsError: missing, damaged, or of another network.
    """
    from talkingface.components.models import build_model, config_of_checkpoint, load_model_weights
    from talkingface.config.config import load_config
    from talkingface.model.audio_driven_talkingface.syncnet.syncnet import SyncNetModel

    settings = config_of_checkpoint(path, trust)
    if settings is None:
        settings = {"model": "SyncNet", "dataset": "Synthetic"}
    elif settings["model"] != "SyncNet":
        raise WeightsError(f"{path} belongs to {settings['model']}, not to SyncNet")
    model = build_model(load_config(overrides={**settings, "resume": False}))
    assert isinstance(model, SyncNetModel)
    load_model_weights(model, path, trust)
    return model.network.eval().requires_grad_(False)
