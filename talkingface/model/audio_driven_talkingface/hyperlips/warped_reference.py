"""Output layer that takes pixels from a reference image; not in the official code."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from talkingface.model.layers.warp import warp


class Painted(NamedTuple):
    """Generated frames, and from which parts a :class:`WarpedReference` mixed them.

    Attributes:
        frames: (N,3,H,W).
        moved: (N,3,H,W) the reference, warped; None without this layer, like the others.
        flow: (N,2,H,W) displacement in px, x first.
        share: (N,1,H,W) of ``moved`` in the mixture, 0..1.
    """

    frames: Tensor
    moved: Tensor | None = None
    flow: Tensor | None = None
    share: Tensor | None = None


class WarpedReference(nn.Module):
    """Mixes generated pixels with those of a reference image, moved by a predicted flow.

    Untrained, it returns nearly the reference: sharp images from the first step on.

    Args:
        channels: of the features.
        reach: largest displacement as a fraction of the height.
    """

    def __init__(self, channels: int, reach: float) -> None:
        super().__init__()
        self.reach = reach
        self.flow = nn.Conv2d(channels, 2, 3, padding=1)
        self.share = nn.Conv2d(channels, 1, 3, padding=1)
        for conv, bias in ((self.flow, 0.0), (self.share, 3.0)):
            nn.init.zeros_(conv.weight)
            nn.init.constant_(conv.bias, bias)

    def forward(self, features: Tensor, generated: Tensor, reference: Tensor) -> Painted:
        """Mix the images.

        Args:
            features: (N,channels,H,W).
            generated: (N,3,H,W).
            reference: (N,3,H',W'), of the same or a higher resolution, which is that of the result.
        """
        # Half the resolution: neighbouring pixels move together.
        limit = self.reach * features.shape[2]
        # float32 under autocast too: half precision has no sub-pixels at these sizes.
        flow = (self.flow(F.avg_pool2d(features, 2)).float() / limit).tanh() * limit
        share = self.share(features).float().sigmoid()
        flow, share, generated = (
            F.interpolate(part, reference.shape[-2:], mode="bilinear", align_corners=False)
            for part in (flow * (reference.shape[2] / features.shape[2]), share, generated)
        )
        moved = warp(reference, flow)
        return Painted(share * moved + (1 - share) * generated, moved, flow, share)
