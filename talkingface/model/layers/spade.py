"""Conditional normalisation layers: SPADE with a picture, AdaIN with a vector as condition."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm

SLOPE = 0.2  # of the LeakyReLUs


class SPADE(nn.Module):
    """Spatially-adaptive normalisation (Park et al. 2019; names of HeadGAN's official code).

    Args:
        condition: channels of the condition.
        channels: channels of the normalised input.
        hidden: channels of the hidden layer (official: 256).

    Shapes:
        input (N,channels,H,W) and condition (N,condition,h,w), resized to (H,W) by nearest
        neighbour; output like the input.
    """

    def __init__(self, condition: int, channels: int, hidden: int = 256) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.mlp_shared = nn.Sequential(nn.Conv2d(condition, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_both: nn.Conv2d | None = None

    def fuse_for_inference(self) -> None:
        """Compute gamma and beta, which have the same input, with one convolution."""
        pair = (self.mlp_gamma, self.mlp_beta)
        both = nn.Conv2d(pair[0].in_channels, 2 * pair[0].out_channels, 3, padding=1)
        both.weight = nn.Parameter(torch.cat([conv.weight for conv in pair]))
        both.bias = nn.Parameter(torch.cat([conv.bias for conv in pair]))
        self.mlp_both = both
        del self.mlp_gamma, self.mlp_beta

    def modulation(self, condition: Tensor, size: torch.Size | tuple[int, int]) -> list[Tensor]:
        """gamma and beta for feature maps of a size (H,W)."""
        if condition.shape[-2:] != tuple(size):
            condition = F.interpolate(condition, size=tuple(size), mode="nearest")
        hidden = self.mlp_shared(condition)
        if self.mlp_both is not None:
            return list(self.mlp_both(hidden).chunk(2, dim=1))
        return [self.mlp_gamma(hidden), self.mlp_beta(hidden)]

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gamma, beta = self.modulation(condition, x.shape[-2:])
        return torch.addcmul(beta, self.norm(x), 1 + gamma)


class SPADEBlock(nn.Module):
    """Residual block of two convolutions, each preceded by a SPADE; with spectral normalisation.

    Shapes:
        input (N,inputs,H,W) and condition (N,condition,h,w); output (N,outputs,H,W).
    """

    def __init__(self, condition: int, inputs: int, outputs: int, hidden: int = 256) -> None:
        super().__init__()
        middle = min(inputs, outputs)
        self.conv_0 = spectral_norm(nn.Conv2d(inputs, middle, 3, padding=1))
        self.conv_1 = spectral_norm(nn.Conv2d(middle, outputs, 3, padding=1))
        self.norm_0 = SPADE(condition, inputs, hidden)
        self.norm_1 = SPADE(condition, middle, hidden)
        self.learned_shortcut = inputs != outputs
        if self.learned_shortcut:
            self.conv_s = spectral_norm(nn.Conv2d(inputs, outputs, 1, bias=False))
            self.norm_s = SPADE(condition, inputs, hidden)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shortcut = x
        if self.learned_shortcut:
            shortcut = self.conv_s(F.leaky_relu(self.norm_s(x, condition), SLOPE))
        out = self.conv_0(F.leaky_relu(self.norm_0(x, condition), SLOPE))
        return shortcut + self.conv_1(F.leaky_relu(self.norm_1(out, condition), SLOPE))


class AdaIN(nn.Module):
    """Adaptive instance normalisation (Huang and Belongie 2017; names as in StarGAN v2).

    Shapes:
        input (N,channels,H,W) and style (N,style); output like the input.
    """

    def __init__(self, style: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.fc = nn.Linear(style, 2 * channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        gamma, beta = self.fc(style)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(beta, self.norm(x), 1 + gamma)


class AdaINBlock(nn.Module):
    """Two convolutions, each preceded by an AdaIN.

    Args:
        residual: add the input; the official block, although it is called residual, does not.

    Shapes:
        input (N,channels,H,W) and style (N,style); output like the input.
    """

    def __init__(self, channels: int, style: int, *, residual: bool = False) -> None:
        super().__init__()
        self.conv1 = spectral_norm(nn.Conv2d(channels, channels, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(channels, channels, 3, padding=1))
        self.norm1 = AdaIN(style, channels)
        self.norm2 = AdaIN(style, channels)
        self.residual = residual

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        out = self.conv1(F.leaky_relu(self.norm1(x, style), SLOPE))
        out = self.conv2(F.leaky_relu(self.norm2(out, style), SLOPE))
        return x + out if self.residual else out
