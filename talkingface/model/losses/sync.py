"""Losses of lip synchronisation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def cosine_bce(audio: Tensor, face: Tensor, label: Tensor) -> Tensor:
    """Binary cross-entropy of the cosine similarity (Wav2Lip, HyperLips official code).

    Args:
        audio, face: (B,D) embeddings of unit length with non-negative entries.
        label: (B,) 1 = in sync.

    Returns:
        Mean loss, 0-dim. The cosine is clamped to (0, 1): rounding gives 1 + 1e-7 for equal
        embeddings, for which the logarithm is undefined.
    """
    similarity = F.cosine_similarity(audio.float(), face.float()).clamp(1e-6, 1 - 1e-6)
    return F.binary_cross_entropy(similarity, label.float())


def sync_accuracy(audio: Tensor, face: Tensor, label: Tensor) -> Tensor:
    """Share of pairs that a cosine threshold of 0.5 classifies correctly."""
    similarity = F.cosine_similarity(audio.float(), face.float())
    return ((similarity > 0.5) == (label > 0.5)).float().mean()


def frames_to_channels(frames: Tensor) -> Tensor:
    """(B,C,T,H,W) -> (B,T*C,H,W), frame-major: the input of the sync expert."""
    return torch.cat(list(frames.unbind(2)), dim=1)
