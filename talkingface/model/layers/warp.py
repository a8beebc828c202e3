"""Backward warping of pictures and feature maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Bilinear sampling: the result at p is the image at p + flow(p), with border padding.

    The same as FlowNet2's CUDA operation ``resample2d``. Positions are computed in float32 under
    autocast too, since half precision cannot represent sub-pixels beyond 1024 px.

    Args:
        image: (N,C,H,W).
        flow: (N,2,H,W) displacement in pixels of this image, x first.

    Returns:
        (N,C,H,W) in the image's type.
    """
    height, width = image.shape[-2:]
    with torch.autocast(image.device.type, enabled=False):
        shift = flow.float() if flow.dtype in (torch.float16, torch.bfloat16) else flow
        x = torch.arange(width, dtype=shift.dtype, device=shift.device)
        y = torch.arange(height, dtype=shift.dtype, device=shift.device)[:, None]
        x = 2 * (x + shift[:, 0]) / max(width - 1, 1) - 1
        y = 2 * (y + shift[:, 1]) / max(height - 1, 1) - 1
        grid = torch.stack([x, y], dim=-1)
        moved = F.grid_sample(
            image.to(grid.dtype), grid, mode="bilinear", padding_mode="border", align_corners=True
        )
    return moved.to(image.dtype)
