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


def least_squares(outputs: list[list[Tensor]], label: float) -> Tensor:
    """LSGAN (Mao et al. 2017) of a multi-scale discriminator: squared distance of the last map of
    each scale to a label, summed over the scales."""
    return sum((maps[-1].float() - label).square().mean() for maps in outputs)


def hinge_real_fake(real: list[list[Tensor]], fake: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
    """Hinge losses of a multi-scale discriminator on real and on generated pictures, each a mean
    over the scales (Lim and Ye 2017; HeadGAN official code)."""
    on_real = sum(torch.relu(1 - maps[-1].float()).mean() for maps in real) / len(real)
    on_fake = sum(torch.relu(1 + maps[-1].float()).mean() for maps in fake) / len(fake)
    return on_real, on_fake


def hinge_generator(fake: list[list[Tensor]]) -> Tensor:
    """What the generator wants of the logits of its pictures: to be high."""
    return -sum(maps[-1].float().mean() for maps in fake) / len(fake)


def feature_matching(
    fake: list[list[Tensor]], real: list[list[Tensor]], *, logits: bool = True
) -> Tensor:
    """L1 between the maps of the layers, averaged over scales; the real side gets no gradient.

    Args:
        logits: with the last map, weights 4 / (layers - 1), as Live Speech Portraits; False:
            without it, weights 4 / layers, as pix2pixHD and HeadGAN.
    """
    total = fake[0][0].new_zeros(())
    for made, wanted in zip(fake, real, strict=True):
        share = 4 / (len(made) - logits) / len(fake)
        pairs = list(zip(made, wanted, strict=True))
        for one, two in pairs if logits else pairs[:-1]:
            total = total + share * F.l1_loss(one, two.detach())
    return total
