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


def least_squares(judged: list[list[Tensor]], label: float) -> Tensor:
    """LSGAN (Mao et al. 2017) of a multi-scale discriminator: squared distance of the last map of
    each scale to a label, summed over the scales."""
    return sum((maps[-1].float() - label).square().mean() for maps in judged)


def feature_matching(fake: list[list[Tensor]], real: list[list[Tensor]]) -> Tensor:
    """L1 between the maps of all layers, the logits too, averaged over scales and weighted with 4 /
    layers as in pix2pixHD; the real side gets no gradient."""
    total = fake[0][0].new_zeros(())
    for made, wanted in zip(fake, real, strict=True):
        share = 4 / (len(made) - 1) / len(fake)
        for one, two in zip(made, wanted, strict=True):
            total = total + share * F.l1_loss(one, two.detach())
    return total
