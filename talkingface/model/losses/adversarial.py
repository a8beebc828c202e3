"""Adversarial losses on logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def bce_to(logits: Tensor, label: float) -> Tensor:
    """Mean binary cross-entropy of logits against one label."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def relativistic(higher: Tensor, lower: Tensor) -> Tensor:
    """Relativistic average GAN loss (Jolicoeur-Martineau 2018) of the side that wants ``higher``.

    The discriminator passes (real, generated), the generator (generated, real).

    Args:
        higher, lower: (N,1) logits.
    """
    up = bce_to(higher - lower.mean(), 1.0)
    return (up + bce_to(lower - higher.mean(), 0.0)) / 2
