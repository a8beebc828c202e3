"""Feature losses of pretrained image networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# ImageNet statistics, which torchvision's weights were trained with (RGB).
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGG19Features(nn.Module):
    """VGG19 up to conv5_4 before its ReLU: torchvision's ``features[:35]``.

    ``state_dict`` names are those of torchvision's VGG19, so its file loads by name; the classifier
    and the layers behind conv5_4 are not built.
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


def feature_l1(network: nn.Module, generated: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference of features; the real side gets no gradient."""
    with torch.no_grad():
        wanted = network(real)
    return (network(generated) - wanted).abs().mean()
