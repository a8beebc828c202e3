"""Networks of HyperLips stage 2 (arXiv 2310.05720): high-resolution decoder and its judge.

Images are BGR in 0..1 (official code). The ``state_dict`` keys and shapes equal those of the
official files.
"""

from __future__ import annotations

import torch
from torch import nn

from talkingface.model.audio_driven_talkingface.hyperlips_networks import fold_time, unfold_time
from talkingface.model.layers.conv_block import ConvBlock, NonormConvBlock, TransposedConvBlock

INPUT_SIZE = 128  # of picture and sketch, at training and at inference
SCALES = {128: 1, 256: 2, 512: 4}  # output size -> factor of the decoder


class HRDecoder(nn.Module):
    """Sharpens the 128 px picture of stage 1, guided by a line drawing of the face.

    Args:
        rescaling: 1, 2 or 4 for outputs of 128, 256 or 512 px; official files fit one only.
        channels: width, official 64.

    Shapes:
        input (N, 6, 128, 128) or (B, 6, T, 128, 128): picture BGR and sketch (three equal
        channels), 0..1; output (N, 3, 128 r, 128 r) or (B, 3, T, 128 r, 128 r), 0..1.
    """

    def __init__(self, rescaling: int = 1, *, channels: int = 64) -> None:
        super().__init__()
        if rescaling not in SCALES.values():
            raise ValueError(f"rescaling must be 1, 2 or 4, got {rescaling}")
        self.rescaling = rescaling

        def same() -> nn.Module:
            return ConvBlock(channels, channels, 3, padding=1, residual=True)

        def double() -> nn.Module:
            return TransposedConvBlock(channels, channels)

        self.conv_base = nn.Sequential(ConvBlock(6, channels, 3, padding=1), same())
        up = {
            1: lambda: [same(), same()],
            2: lambda: [double(), same(), same()],
            4: lambda: [double(), same(), same(), double(), same(), same()],
        }[rescaling]()
        self.up_conv = nn.Sequential(*up)
        self.output_block = nn.Sequential(
            ConvBlock(channels, channels // 2, 3, padding=1),
            nn.Conv2d(channels // 2, 3, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 5:
            return unfold_time(self(fold_time(x)), x.shape[0])
        return self.output_block(self.up_conv(self.conv_base(x)))


class HRDecoderDiscQual(nn.Module):
    """Judge of whole pictures of any size (official ``HRDecoder_disc_qual``).

    Args:
        base_channels: channels of the first block, official 32; the others scale along.

    Shapes:
        input (N, 3, H, W) or (B, 3, T, H, W) in 0..1; output (N, 1) or (T*B, 1):
        probability of being real, or logits.
    """

    def __init__(self, *, base_channels: int = 32) -> None:
        super().__init__()
        c = [base_channels * factor for factor in (1, 2, 4)]
        conv = NonormConvBlock
        self.face_encoder_blocks = nn.ModuleList(
            nn.Sequential(*block)
            for block in (
                (conv(3, c[0], 7, padding=3),),
                (conv(c[0], c[1], 5, 2, 2), conv(c[1], c[1], 5, 1, 2)),
                (conv(c[1], c[2], 5, 2, 2), conv(c[2], c[2], 5, 1, 2)),
                (conv(c[2], c[2], 5, 2, 2), conv(c[2], c[2], 5, 1, 2)),
                (conv(c[2], c[2], 3, 2, 1), conv(c[2], c[2], 3, 1, 1)),
            )
        )
        self.binary_pred = nn.Sequential(nn.Conv2d(c[2], 1, 1), nn.Sigmoid())

    def forward(self, faces: torch.Tensor, *, logits: bool = False) -> torch.Tensor:
        x = fold_time(faces) if faces.dim() == 5 else faces
        for block in self.face_encoder_blocks:
            x = block(x)
        x = self.binary_pred[0](x.mean((2, 3), keepdim=True)).flatten(1)
        return x if logits else self.binary_pred[1](x)
