"""Convolution blocks of Wav2Lip and HyperLips, their sync experts and discriminators.

The attribute ``conv_block`` is part of the official checkpoints' key names; keep it.
"""

from __future__ import annotations

import torch
from torch import nn

Size = int | tuple[int, int]


class ConvBlock(nn.Module):
    """Convolution with bias, BatchNorm, optional addition of the input, ReLU (official code).

    Args:
        residual: add the input before the ReLU; input and output must have the same shape.

    Shapes:
        input (N, in_channels, H, W), any range; output (N, out_channels, H', W'), >= 0.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        *,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding),
            nn.BatchNorm2d(out_channels),
        )
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv_block(x)
        if self.residual:
            out += x  # in place: no backward pass needs the output of the BatchNorm
        return out.relu_()


class TransposedConvBlock(nn.Module):
    """Transposed 3x3 convolution that doubles height and width, BatchNorm, ReLU (official code).

    Shapes:
        input (N, in_channels, H, W); output (N, out_channels, 2H, 2W), >= 0.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ConvTranspose2d(in_channels, out_channels, 3, 2, padding=1, output_padding=1),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv_block(x).relu_()


class NonormConvBlock(nn.Module):
    """Convolution with bias and LeakyReLU(0.01), without normalisation (official code).

    Used in discriminators, where batch statistics would make the samples depend on each other.

    Shapes:
        input (N, in_channels, H, W); output (N, out_channels, H', W').
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
    ) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.leaky_relu_(self.conv_block(x), 0.01)


def scale_channels(channels: int, factor: float) -> int:
    """Channels of a scaled-down network: multiples of 8, at least 8; unchanged for factor 1."""
    return channels if factor == 1.0 else max(8, 8 * round(channels * factor / 8))


def set_batch_norm_momentum(net: nn.Module, momentum: float) -> None:
    """Give every BatchNorm of ``net`` the same momentum.

    With 0.01, as in the official encoders, the running statistics need hundreds of steps to
    converge; short trainings need 0.1.
    """
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = momentum
