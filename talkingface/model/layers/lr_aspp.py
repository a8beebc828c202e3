"""Lite reduced atrous spatial pyramid pooling (MobileNetV3 paper, section 6.4), head only."""

from __future__ import annotations

import torch
from torch import nn


class LRASPP(nn.Module):
    """Project a feature map and gate its channels by a global descriptor (official code).

    Shapes:
        input (N, in_channels, H, W); output (N, out_channels, H, W), >= 0.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.aspp1 = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )
        self.aspp2 = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.aspp1(x) * self.aspp2(x)
