"""MobileNetV3-Large as a four-level feature encoder."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torchvision.models.mobilenetv3 import InvertedResidual, InvertedResidualConfig
from torchvision.ops.misc import Conv2dNormActivation

# MobileNetV3 paper, table 1, with the dilated last stage (output stride 16):
# input, kernel, expansion, output, squeeze-excite, activation, stride, dilation.
# Row 12 keeps its nominal stride 2, which torchvision turns into dilation.
_LARGE = (
    (16, 3, 16, 16, False, "RE", 1, 1),
    (16, 3, 64, 24, False, "RE", 2, 1),
    (24, 3, 72, 24, False, "RE", 1, 1),
    (24, 5, 72, 40, True, "RE", 2, 1),
    (40, 5, 120, 40, True, "RE", 1, 1),
    (40, 5, 120, 40, True, "RE", 1, 1),
    (40, 3, 240, 80, False, "HS", 2, 1),
    (80, 3, 200, 80, False, "HS", 1, 1),
    (80, 3, 184, 80, False, "HS", 1, 1),
    (80, 3, 184, 80, False, "HS", 1, 1),
    (80, 3, 480, 112, True, "HS", 1, 1),
    (112, 3, 672, 112, True, "HS", 1, 1),
    (112, 5, 672, 160, True, "HS", 2, 2),
    (160, 5, 960, 160, True, "HS", 1, 2),
    (160, 5, 960, 160, True, "HS", 1, 2),
)
_TAPS = (1, 3, 6, 16)  # official code: feature blocks whose outputs are returned


class MobileNetV3Encoder(nn.Module):
    """MobileNetV3-Large, dilated, without classifier; returns four levels (official code).

    Keys equal torchvision's ``features.*``. BatchNorm is eps 1e-3 / momentum 0.01 except in the
    stem, which has PyTorch's defaults: the official code replaces the stem after construction.

    Args:
        in_channels: 6 for the face pair, 1 for the mel spectrogram.
        width: channel multiplier, 1.0 is the official network.

    Attributes:
        tap_channels: channels of the four levels, (16, 24, 40, 960) at width 1.

    Shapes:
        input (N, in_channels, H, W); outputs (N, tap_channels[k], ceil(H / 2**(k+1)),
        ceil(W / 2**(k+1))) for k = 0..3.
    """

    def __init__(self, in_channels: int, *, width: float = 1.0) -> None:
        super().__init__()
        norm_layer = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
        rows = [InvertedResidualConfig(*row, width_mult=width) for row in _LARGE]
        stem_channels, last_channels = rows[0].input_channels, rows[-1].out_channels
        head_channels = 6 * last_channels
        conv = partial(Conv2dNormActivation, activation_layer=nn.Hardswish)
        blocks: list[nn.Module] = [
            conv(in_channels, stem_channels, stride=2, norm_layer=nn.BatchNorm2d),
            *(InvertedResidual(row, norm_layer) for row in rows),
            conv(last_channels, head_channels, kernel_size=1, norm_layer=norm_layer),
        ]
        self.features = nn.Sequential(*blocks)
        self.tap_channels = tuple(rows[i - 1].out_channels for i in _TAPS[:3]) + (head_channels,)
        for block in blocks[1:]:  # the replaced stem keeps PyTorch's initialisation
            for module in block.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out")
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        taps = []
        for index, block in enumerate(self.features):
            x = block(x)
            if index in _TAPS:
                taps.append(x)
        return taps
