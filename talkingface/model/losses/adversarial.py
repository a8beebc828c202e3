"""Adversarial losses on logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def bce_to(logits: Tensor, label: float) -> Tensor:
    """Mean binary cross-entropy of logits and one label."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def relativistic(higher: Tensor, lower: Tensor) -> Tensor:
    """Relativistic average GAN loss (Jolicoeur-Martineau 2018), small if ``higher`` > ``lower``.

    Arguments of the discriminator's loss: (real, generated); of the generator's: (generated, real).

    Args:
        higher, lower: (N,1) logits.
    """
    up = bce_to(higher - lower.mean(), 1.0)
    return (up + bce_to(lower - higher.mean(), 0.0)) / 2


def least_squares(outputs: list[list[Tensor]], label: float) -> Tensor:
    """LSGAN loss (Mao et al. 2017) of a multi-scale discriminator: mean squared distance of each
    scale's last map to a label, summed over scales."""
    return sum((maps[-1].float() - label).square().mean() for maps in outputs)


def hinge_real_fake(real: list[list[Tensor]], fake: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
    """Hinge losses (Lim and Ye 2017) of a multi-scale discriminator on real and on generated
    pictures, each a mean over the scales (HeadGAN official code)."""
    on_real = sum(torch.relu(1 - maps[-1].float()).mean() for maps in real) / len(real)
    on_fake = sum(torch.relu(1 + maps[-1].float()).mean() for maps in fake) / len(fake)
    return on_real, on_fake


def hinge_generator(fake: list[list[Tensor]]) -> Tensor:
    """Hinge loss of the generator: negative mean of the logits of its pictures."""
    return -sum(maps[-1].float().mean() for maps in fake) / len(fake)


def feature_matching(
    fake: list[list[Tensor]], real: list[list[Tensor]], *, logits: bool = True
) -> Tensor:
    """L1 between the feature maps of all layers, mean over scales; no gradient for the real side.

    Args:
        logits: include the last map, with weight 4 / (maps - 1), as in LSP; False: exclude it, with
            weight 4 / maps, as in pix2pixHD and HeadGAN.
    """
    total = fake[0][0].new_zeros(())
    for fake_maps, real_maps in zip(fake, real, strict=True):
        weight = 4 / (len(fake_maps) - logits) / len(fake)
        pairs = list(zip(fake_maps, real_maps, strict=True))
        for one, two in pairs if logits else pairs[:-1]:
            total = total + weight * F.l1_loss(one, two.detach())
    return total
