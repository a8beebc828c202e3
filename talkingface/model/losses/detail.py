"""Losses on fine structure: pixel losses alone give the mean of what is possible, which is soft."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from talkingface.model.losses.perceptual import feature_distance

if TYPE_CHECKING:
    from talkingface.model.component import Component

_BLOCK, _STEP = 16, 8  # px of the blocks whose spectra are compared


def gradient_l1(generated: Tensor, real: Tensor, levels: int = 3) -> Tensor:
    """L1 between the differences of neighbouring pixels, mean over repeatedly halved pictures.

    Args:
        generated, real: (N,C,H,W).
    """
    total = generated.new_zeros(())
    for level in range(levels):
        if level:
            generated, real = (F.avg_pool2d(x, 2) for x in (generated, real))
        error = generated - real
        total = total + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return total / levels


def spectrum_l1(generated: Tensor, real: Tensor) -> Tensor:
    """L1 between the amplitude spectra of overlapping blocks of 16 px (Hann window).

    The phase does not count: structure of the right strength is good at a slightly wrong place too,
    where a pixel loss would prefer none.

    Args:
        generated, real: (N,C,H,W); blocks are smaller in pictures below 16 px.
    """
    side = min(_BLOCK, *real.shape[2:])
    window = torch.hann_window(side, periodic=False, device=real.device)

    def amplitudes(x: Tensor) -> Tensor:
        blocks = x.float().unfold(2, side, _STEP).unfold(3, side, _STEP)
        found = torch.fft.rfft2(blocks * torch.outer(window, window), norm="ortho")
        # The square root is not differentiable at 0.
        return (found.real.square() + found.imag.square() + 1e-8).sqrt()

    return (amplitudes(generated) - amplitudes(real)).abs().mean()


def detail_losses(
    weights: Any, generated: Tensor, real: Tensor, features: Component | None
) -> tuple[dict[str, Tensor], Tensor | float]:
    """The losses of a section ``DetailLoss`` that are not off, and their weighted sum.

    Args:
        generated, real: (N,3,H,W) RGB in 0..1.
        features: a trained FaceFeatures; None: without this loss.
    """
    losses = {}
    if weights.gradient_wt > 0:
        losses["gradient"] = gradient_l1(generated, real)
    if weights.spectrum_wt > 0:
        losses["spectrum"] = spectrum_l1(generated, real)
    if features is not None:
        losses["features"] = feature_distance(features.network, generated, real)
    return losses, sum(getattr(weights, f"{name}_wt") * value for name, value in losses.items())
