"""Blocks of Wav2Lip and HyperLips, their sync experts and discriminators.

The attribute ``conv_block`` is part of the official checkpoints' key names; keep it.
"""

from __future__ import annotations

import torch
from torch import nn
from torchvision.ops.misc import Conv2dNormActivation

Size = int | tuple[int, int]


class ConvBlock(nn.Module):
    """Convolution with bias, BatchNorm, optional addition of the input, ReLU (official code).

    Args:
        conv: kernel size, stride (1) and padding (0) of the convolution.
        residual: add the input before the ReLU; input and output must have the same shape.

    Shapes:
        input (N, inputs, H, W), any range; output (N, outputs, H', W'), >= 0.
    """

    def __init__(self, inputs: int, outputs: int, *conv: Size, residual: bool = False) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(nn.Conv2d(inputs, outputs, *conv), nn.BatchNorm2d(outputs))
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

    Args:
        conv: kernel size, stride (1) and padding (0) of the convolution.

    Shapes:
        input (N, inputs, H, W); output (N, outputs, H', W').
    """

    def __init__(self, inputs: int, outputs: int, *conv: Size) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(nn.Conv2d(inputs, outputs, *conv))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.leaky_relu_(self.conv_block(x), 0.01)


class LRASPP(nn.Module):
    """Lite reduced atrous spatial pyramid pooling (MobileNetV3 paper, section 6.4), head only.

    Projects a feature map and gates its channels by a global descriptor (official code).

    Shapes:
        input (N, in_channels, H, W); output (N, out_channels, H, W), >= 0.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.aspp1 = Conv2dNormActivation(in_channels, out_channels, 1, inplace=False)
        self.aspp2 = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.aspp1(x) * self.aspp2(x)


class StatelessConvGRU(nn.Module):
    """One step of a convolutional GRU that starts from a zero state (official code, reduced).

    The official model never passes a state. With h = 0 the cell
    h' = (1 - z) * h + z * tanh(hh([x, r * h])) reduces to z * tanh(hh([x, 0])): the reset gate and
    the weights of h have no effect. They exist so that official files load, but are not computed,
    which saves two thirds of the work.

    Unused entries (their gradient is zero): ``ih.0.weight[:c]``, ``ih.0.bias[:c]``,
    ``ih.0.weight[:, c:]`` and ``hh.0.weight[:, c:]`` with c = channels.

    Shapes:
        input (N, channels, H, W); output the same, in -1..1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.ih = nn.Sequential(nn.Conv2d(2 * channels, 2 * channels, 3, padding=1), nn.Sigmoid())
        self.hh = nn.Sequential(nn.Conv2d(2 * channels, channels, 3, padding=1), nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        c = self.channels
        gate, candidate = self.ih[0], self.hh[0]
        weight = torch.cat((gate.weight[c:, :c], candidate.weight[:, :c]))
        bias = torch.cat((gate.bias[c:], candidate.bias))
        z, h = nn.functional.conv2d(x, weight, bias, padding=1).chunk(2, dim=1)
        return torch.sigmoid(z) * torch.tanh(h)


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
