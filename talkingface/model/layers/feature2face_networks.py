"""Feature2Face: U-Nets and multi-scale PatchGAN of LSP (official code and names).

MODA's renderer has the same networks with other inputs.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from talkingface.model.layers.initialise import SLOPE, initialise

CANDIDATES = 4
INPUTS = 1 + 3 * CANDIDATES  # feature map, then the candidate pictures
_RESIDUALS = {"small": None, "normal": 1, "large": 2}


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            _conv(channels, channels),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            _conv(channels, channels),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.block(x) + x)


class _Skip(nn.Module):
    """Base of a U-Net level around the next deeper one: input and output are concatenated."""

    model: nn.Sequential
    outermost: bool

    def forward(self, x: Tensor) -> Tensor:
        y = self.model(x)
        return y if self.outermost else torch.cat([x, y], dim=1)


class _Level(_Skip):
    """One level with ``n`` residual blocks on each side."""

    def __init__(
        self, inputs: int, inner: int, outputs: int, sub: nn.Module | None, outermost: bool, n: int
    ) -> None:
        super().__init__()
        self.outermost = outermost
        layers: list[nn.Module] = [_conv(inputs, inner, 2)]
        if sub is not None and not outermost:
            layers.append(nn.BatchNorm2d(inner))
        layers += [nn.ReLU(inplace=True), *(_Residual(inner) for _ in range(n))]
        if sub is not None:
            layers.append(sub)
        layers += [
            nn.Upsample(scale_factor=2, mode="nearest"),
            _conv(inner if sub is None else 2 * inner, outputs),
        ]
        if not outermost:
            layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            layers += [_Residual(outputs) for _ in range(n)]
        self.model = nn.Sequential(*layers)


class _PlainLevel(_Skip):
    """One level of pix2pix's U-Net: 4x4 convolutions, transposed on the way up."""

    def __init__(
        self, inputs: int, inner: int, outputs: int, sub: nn.Module | None, outermost: bool
    ) -> None:
        super().__init__()
        self.outermost = outermost
        down = nn.Conv2d(inputs, inner, 4, 2, 1, bias=False)
        width = inner if sub is None else 2 * inner
        up = nn.ConvTranspose2d(width, outputs, 4, 2, 1, bias=outermost)
        if outermost:
            layers = [down, sub, nn.ReLU(), up]
        elif sub is None:
            layers = [nn.LeakyReLU(SLOPE), down, nn.ReLU(), up, nn.BatchNorm2d(outputs)]
        else:
            layers = [nn.LeakyReLU(SLOPE), down, nn.BatchNorm2d(inner), sub, nn.ReLU(), up,
                      nn.BatchNorm2d(outputs)]  # fmt: skip
        self.model = nn.Sequential(*layers)


class Unet(nn.Module):
    """U-Net with residual blocks, sizes ``normal`` and ``large``; pix2pix's for size ``small``.

    The official code declares 23 input channels for ``small``, with which it cannot run; this
    network has 13. Official weights were never released and would not fit.

    Args:
        residuals: residual blocks on each side of a level; None: pix2pix's levels.
    """

    def __init__(
        self, inputs: int, n_downsample: int, ngf: int, residuals: int | None = None
    ) -> None:
        super().__init__()
        level = _PlainLevel if residuals is None else partial(_Level, n=residuals)
        widths = [ngf * min(2**depth, 8) for depth in range(n_downsample)]
        model: nn.Module | None = None
        for depth in reversed(range(n_downsample)):
            outer = widths[depth - 1] if depth else inputs
            outputs = outer if depth else 3
            model = level(outer, widths[depth], outputs, model, not depth)
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Feature2FaceNet(nn.Module):
    """Feature map and candidate pictures to the picture; names ``netG.*``.

    Args:
        size: ``normal``, ``large`` or ``small``.
        n_downsample: official 8 at 512 px; at most log2(side) - 1, so that the deepest map has
            more than one pixel.
        inputs: channels of all conditions.
    """

    def __init__(
        self, size: str = "normal", n_downsample: int = 8, ngf: int = 64, inputs: int = INPUTS
    ) -> None:
        super().__init__()
        self.netG = Unet(inputs, n_downsample, ngf, _RESIDUALS[size])
        initialise(self)

    def forward(self, *conditions: Tensor) -> Tensor:
        """Conditions (B,C,S,S), for LSP (B,1,S,S) in 0..1 and (B,12,S,S) in -1..1, to a picture
        (B,3,S,S) RGB in -1..1."""
        return torch.tanh(self.netG(torch.cat(conditions, dim=1)))


class _Scales(nn.Module):
    """PatchGANs on the picture and on repeatedly halved copies; scale 0 has the smallest one."""

    def __init__(self, inputs: int, ndf: int, n_layers: int, num_d: int) -> None:
        super().__init__()
        self.num_d, self.n_layers = num_d, n_layers
        for scale in range(num_d):
            width = min(64, ndf * 2 ** (num_d - 1 - scale))
            before = inputs
            for layer in range(n_layers + 2):
                last = layer == n_layers + 1
                after = 1 if last else min(width * 2**layer, 512)
                stride = 2 if layer < n_layers else 1
                parts: list[nn.Module] = [nn.Conv2d(before, after, 4, stride, 2)]
                if 0 < layer <= n_layers:
                    parts.append(nn.BatchNorm2d(after))
                if not last:
                    parts.append(nn.LeakyReLU(SLOPE))
                self.add_module(f"scale{scale}_layer{layer}", nn.Sequential(*parts))
                before = after
        self.downsample = nn.AvgPool2d(3, 2, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        result = []
        for scale in reversed(range(self.num_d)):
            maps, y = [], x
            for layer in range(self.n_layers + 2):
                y = getattr(self, f"scale{scale}_layer{layer}")(y)
                maps.append(y)
            result.append(maps)
            if scale:
                x = self.downsample(x)
        return result


class Feature2FaceDiscriminator(nn.Module):
    """The discriminator that the official code intends: 16 channels, two scales, feature maps."""

    def __init__(
        self, ndf: int = 64, n_layers: int = 3, num_d: int = 2, inputs: int = INPUTS
    ) -> None:
        super().__init__()
        self.netD = _Scales(inputs + 3, ndf, n_layers, num_d)
        initialise(self)

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """(B,16,S,S) -> per scale, full resolution first, the maps of all layers; logits last."""
        return self.netD(x)
