"""Convolutions whose kernels are generated, one per sample, from a condition vector."""

from __future__ import annotations

import torch
from torch import nn


class HyperConv(nn.Module):
    """3x3 convolution C -> C whose kernel and bias two linear layers generate (official code).

    The official class stores the generated tensors in the module; here they are local variables.

    Args:
        hyper_dim: length of the condition vector, official 64.

    Shapes:
        x (N, C, H, W), code (N, hyper_dim); output (N, C, H, W).
    """

    def __init__(self, channels: int, hyper_dim: int) -> None:
        super().__init__()
        self.channels = channels
        self.hyperkernel = nn.Linear(hyper_dim, channels * channels * 9)
        self.hyperbias = nn.Linear(hyper_dim, channels)

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        n, c, height, width = x.shape
        kernels = self.hyperkernel(code).view(n * c, c, 3, 3)
        biases = self.hyperbias(code).flatten()
        # One grouped convolution: group n has the kernel of sample n.
        x = x.reshape(1, n * c, height, width)
        out = nn.functional.conv2d(x, kernels, biases, padding=1, groups=n)
        return out.view(n, c, height, width)


class HyperConvPair(nn.Sequential):
    """Hyper-conv, BatchNorm, ReLU, hyper-conv, BatchNorm, sigmoid; one code for both hyper-convs.

    Shapes:
        x (N, C, H, W), code (N, hyper_dim); output (N, C, H, W) in 0..1.
    """

    def __init__(self, channels: int, hyper_dim: int) -> None:
        super().__init__(
            HyperConv(channels, hyper_dim),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            HyperConv(channels, hyper_dim),
            nn.BatchNorm2d(channels),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        # The grouped convolution over (1, N*C, H, W) loses channels_last; restore it once, here.
        channels_last = x.is_contiguous(memory_format=torch.channels_last)
        for layer in self:
            x = layer(x, code) if isinstance(layer, HyperConv) else layer(x)
        return x.contiguous(memory_format=torch.channels_last) if channels_last else x


class HyperNet(nn.Module):
    """Two linear layers that compress a feature map to the condition vector (official code).

    Shapes:
        input (N, in_features); output (N, hyper_dim).
    """

    def __init__(self, in_features: int, hyper_dim: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(in_features, hyper_dim)
        self.lin2 = nn.Linear(hyper_dim, hyper_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.leaky_relu(self.lin1(x), 0.01)
        return nn.functional.leaky_relu(self.lin2(x), 0.01)
