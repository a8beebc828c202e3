"""Feature losses of pretrained image networks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

# ImageNet statistics (RGB) of the training of torchvision's weights.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGG19Features(nn.Module):
    """VGG19 up to conv5_4 before its ReLU: torchvision's ``features[:35]``.

    ``state_dict`` names are those of torchvision's VGG19, so its file loads by name.
    """

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import vgg19

        self.features = vgg19(weights=None).features[:35]
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        """(N,3,H,W) RGB in 0..1 -> feature maps (N,512,H/16,W/16)."""
        return self.features((rgb - self.mean) / self.std)


def feature_l1(network: nn.Module, generated: Tensor, real: Tensor, *, raw: bool = False) -> Tensor:
    """Mean absolute difference of features; the real side gets no gradient.

    Args:
        raw: do not normalise the pictures, as in HyperLips' official code.
    """
    features = network.features if raw else network
    with torch.no_grad():
        target = features(real)
    return (features(generated) - target).abs().mean()


class FaceCoder(nn.Module):
    """Small convolutional autoencoder of faces, whose encoder gives features for losses.

    Args:
        channels: of the four levels, each of half the resolution of the one before.
    """

    def __init__(self, channels: tuple[int, int, int, int] = (16, 32, 64, 96)) -> None:
        super().__init__()

        def block(before: int, after: int, *first: nn.Module) -> nn.Sequential:
            layers = (nn.LeakyReLU(0.1), nn.Conv2d(after, after, 3, padding=1), nn.LeakyReLU(0.1))
            return nn.Sequential(*first, nn.Conv2d(before, after, 3, padding=1), *layers)

        before = (3, *channels)
        self.encoder = nn.ModuleList(
            block(a, b, *([nn.AvgPool2d(2)] if k else []))
            for k, (a, b) in enumerate(pairwise(before))
        )
        up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.decoder = nn.Sequential(
            *(block(a, b, up) for a, b in pairwise(channels[::-1])),
            nn.Conv2d(channels[0], 3, 3, padding=1),
        )

    def levels(self, rgb: Tensor) -> list[Tensor]:
        """Features of (N,3,H,W) in 0..1 at four resolutions, the full one first."""
        maps, x = [], 2 * rgb - 1
        for block in self.encoder:
            x = block(x)
            maps.append(x)
        return maps

    def forward(self, rgb: Tensor) -> Tensor:
        """(N,3,H,W) in 0..1 -> the same, restored; H and W multiples of 8."""
        return torch.sigmoid(self.decoder(self.levels(rgb)[-1]))


def feature_distance(network: FaceCoder, generated: Tensor, real: Tensor) -> Tensor:
    """Squared differences of features of unit length, as in LPIPS (Zhang et al. 2018) with equal
    weights; mean over pixels and levels. The real side gets no gradient.

    Args:
        generated, real: (N,3,H,W) RGB in 0..1.
    """
    with torch.no_grad():
        targets = network.levels(real)
    total = generated.new_zeros(())
    for x, y in zip(network.levels(generated), targets, strict=True):
        one, two = (f / (f.square().sum(1, keepdim=True) + 1e-8).sqrt() for f in (x, y))
        total = total + (one - two).square().sum(1).mean()
    return total / len(targets)


# Network -> ReLU layers of torchvision's ``features`` that LPIPS compares.
LPIPS_TAPS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}


class LPIPSNetwork(nn.Module):
    """LPIPS of version 0.1 (Zhang et al. 2018) on torchvision's AlexNet or VGG16.

    ``state_dict`` names are those of torchvision's network and of the official linear heads.

    Args:
        net: ``alex`` (evaluation) or ``vgg`` (losses).
    """

    def __init__(self, net: str = "vgg") -> None:
        super().__init__()
        from torchvision import models

        self.taps = LPIPS_TAPS[net]
        with torch.device("meta"):  # the large classifier is never allocated
            whole = models.alexnet(weights=None) if net == "alex" else models.vgg16(weights=None)
        self.features = whole.features[: self.taps[-1] + 1].to_empty(device="cpu")
        for number, tap in enumerate(self.taps):
            channels = self.features[tap - 1].out_channels  # of the convolution before
            head = nn.Module()
            head.model = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))
            self.add_module(f"lin{number}", head)
        for name, values in (("shift", (-0.030, -0.088, -0.188)), ("scale", (0.458, 0.448, 0.450))):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(N,3,H,W) RGB in -1..1, twice -> (N,) distances."""
        x = (torch.cat([first, second]) - self.shift) / self.scale
        total = x.new_zeros(len(first))
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                unit = x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)
                one, two = unit.chunk(2)
                head = getattr(self, f"lin{self.taps.index(index)}").model
                total = total + head((one - two).square()).mean(dim=(1, 2, 3))
        return total


# Layers relu1_1, 2_1, 3_1, 4_1 and 5_1 of VGG19.
_STYLE_TAPS = (1, 6, 11, 20, 29)
_STYLE_SCALE = 3e7


def _style_maps(
    network: VGG19Features, generated: Tensor, real: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Feature maps of two pictures after the five ReLUs; the real side gets no gradient."""
    x, y = generated, real
    for number, layer in enumerate(network.features[: _STYLE_TAPS[-1] + 1]):
        x = layer(x)
        with torch.no_grad():
            y = layer(y)
        if number in _STYLE_TAPS:
            yield x, y


def vgg_levels(network: VGG19Features, generated: Tensor, real: Tensor) -> Tensor:
    """L1 of five layers, weighted 1/32 to 1, as in pix2pixHD and HeadGAN; pictures in -1..1, which
    are not normalised."""
    maps = _style_maps(network, generated, real)
    weights = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
    return sum(w * (x - y).abs().mean() for w, (x, y) in zip(weights, maps, strict=True))


def vgg_content_and_style(
    network: VGG19Features, generated: Tensor, real: Tensor
) -> tuple[Tensor, Tensor]:
    """VGG and style loss of Live Speech Portraits (official code): L1 of five layers, and squared
    differences of their Gram matrices times 3e7; pictures in -1..1, which are not normalised."""
    content = style = generated.new_zeros(())
    for x, y in _style_maps(network, generated, real):
        content = content + (x - y).abs().mean()
        style = style + _STYLE_SCALE * (_gram(x) - _gram(y)).square().mean()
    return content, style


def _gram(maps: Tensor) -> Tensor:
    """Gram matrix (B*C,B*C) of all maps of the batch, divided by their number of values."""
    flat = maps.float().flatten(0, 1).flatten(1)
    return flat @ flat.T / maps.numel()
