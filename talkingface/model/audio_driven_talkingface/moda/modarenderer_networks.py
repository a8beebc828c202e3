"""Temporal positional embedding of MODA's renderer (official code)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def tpe(frames: Tensor, period: float = 100.0, n_freq: int = 6) -> Tensor:
    """Temporal positional embedding of frame numbers (N,) -> (N, 1 + 2 * n_freq).

    ``[tau, sin tau, cos tau, sin 2 tau, cos 2 tau, sin 4 tau, ...]`` with ``tau = t / period``.
    """
    tau = frames.float()[:, None] / period
    angles = tau * 2.0 ** torch.arange(n_freq, device=frames.device)
    waves = torch.stack([torch.sin(angles), torch.cos(angles)], dim=-1).flatten(1)
    return torch.cat([tau, waves], dim=1)


def fold(frames: Tensor, trained: int | None) -> Tensor:
    """Fold frame numbers into 0 to ``trained`` - 1 by a triangle wave; None: unchanged."""
    if not trained or trained < 2:
        return frames
    span = trained - 1
    phase = frames % (2 * span)
    return torch.minimum(phase, 2 * span - phase)


def time_planes(frames: Tensor, side: int, options: Any, trained: int | None) -> Tensor:
    """Embeddings of frame numbers (B,) as planes (B, 1 + 2 * n_freq, side, side).

    Args:
        options: section ``model_params.tpe``.
        trained: frames of the longest training clip, for ``clip_frames: auto``.
    """
    span = trained if options.clip_frames == "auto" else options.clip_frames
    embedding = tpe(fold(frames, span), options.period, options.n_freq)
    return embedding[:, :, None, None].expand(-1, -1, side, side)
