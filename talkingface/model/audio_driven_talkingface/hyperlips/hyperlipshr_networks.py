"""Networks of HyperLips stage 2 (arXiv 2310.05720): high-resolution decoder and its discriminator.

Images are BGR in 0..1 (official code). The ``state_dict`` keys and shapes equal those of the
official files.
"""

from __future__ import annotations

import torch
from torch import nn

from talkingface.model.audio_driven_talkingface.hyperlips.hyperlips_networks import (
    fold_time,
    unfold_time,
)
from talkingface.model.layers.conv_block import ConvBlock, NonormConvBlock, TransposedConvBlock

SCALES = {128: 1, 256: 2, 512: 4}  # output size -> factor of the decoder


class HRDecoder(nn.Module):
    """Sharpens the 128 px image of stage 1 with the help of a line drawing of the face.

    Args:
        rescaling: 1, 2 or 4 for outputs of 128, 256 or 512 px; an official file is for one value.
        channels: channels of the layers, official 64.
        norm: ``batch`` (official), or ``none`` (not in the official code): the BatchNorm layers
            stay in the state_dict but do not normalise, since statistics of a small batch add
            noise to every image (EDSR, arXiv 1707.02921, removes BatchNorm for super-resolution),
            and the network is initialised to upsample its input.

    Shapes:
        input (N, 6, 128, 128) or (B, 6, T, 128, 128): BGR image and sketch (three equal
        channels), 0..1; output (N, 3, 128 r, 128 r) or (B, 3, T, 128 r, 128 r), 0..1.
    """

    def __init__(self, rescaling: int = 1, *, channels: int = 64, norm: str = "batch") -> None:
        super().__init__()
        self.norm = norm
        if rescaling not in SCALES.values():
            raise ValueError(f"rescaling must be 1, 2 or 4, got {rescaling}")
        self.rescaling = rescaling

        def same() -> nn.Module:
            return ConvBlock(channels, channels, 3, 1, 1, residual=True)

        def double() -> nn.Module:
            return TransposedConvBlock(channels, channels)

        self.conv_base = nn.Sequential(ConvBlock(6, channels, 3, 1, 1), same())
        up = {
            1: lambda: [same(), same()],
            2: lambda: [double(), same(), same()],
            4: lambda: [double(), same(), same(), double(), same(), same()],
        }[rescaling]()
        self.up_conv = nn.Sequential(*up)
        self.output_block = nn.Sequential(
            ConvBlock(channels, channels // 2, 3, 1, 1),
            nn.Conv2d(channels // 2, 3, 1),
            nn.Sigmoid(),
        )
        if norm == "none":
            self._init_as_upsampling()

    def train(self, mode: bool = True) -> HRDecoder:
        super().train(mode)
        if self.norm == "none":
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    @torch.no_grad()
    def _init_as_upsampling(self) -> None:
        """Initial weights with which the network upsamples its image, roughly bilinearly.

        Otherwise thousands of steps would be needed to learn to copy the image. One channel per
        colour contains the image, and residual branches start at zero. The other channels are
        initialised randomly as usual.
        """
        last, final = self.output_block[0], self.output_block[1]
        for block in (*self.conv_base, *self.up_conv, last):
            convolution, norm = block.conv_block
            if getattr(block, "residual", False):
                norm.weight.zero_()
                continue
            weight, line = convolution.weight, (0.0, 1.0, 0.0)
            if isinstance(convolution, nn.ConvTranspose2d):
                weight, line = weight.transpose(0, 1), (0.5, 1.0, 0.5)
            elif block is last:  # reverses the shift of the image by the upsampling layers
                line = {1: line, 2: (0.5, 0.5, 0.0), 4: (1.0, 0.0, 0.0)}[self.rescaling]
            kernel = torch.outer(torch.tensor(line), torch.tensor(line))
            weight[:3], convolution.bias[:3] = 0, 0
            for colour in range(3):
                weight[colour, colour] = kernel
        # Piecewise linear inverse of the sigmoid: 4 (x - 0.5), steeper where x is near 0 or 1.
        final.weight *= 0.1
        final.weight[:, :3], final.bias[:] = 0, -2
        for colour in range(3):
            final.weight[colour, colour] = 4
        if last.conv_block[0].out_channels >= 9:
            weight, bias = last.conv_block[0].weight, last.conv_block[0].bias
            weight[3:6], bias[3:6] = weight[:3], -0.8
            weight[6:9], bias[6:9] = -weight[:3], 0.2
            steeper = torch.cat([torch.eye(3), -torch.eye(3)], dim=1) * 8
            final.weight[:, 3:9] = steeper[..., None, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 5:
            return unfold_time(self(fold_time(x)), x.shape[0])
        return self.output_block(self.up_conv(self.conv_base(x)))


class HRDecoderDiscQual(nn.Module):
    """Discriminator of whole images of any size (official ``HRDecoder_disc_qual``).

    Args:
        base_channels: channels of the first block, official 32; those of the others are multiples.

    Shapes:
        input (N, 3, H, W) or (B, 3, T, H, W) in 0..1; output (N, 1) or (T*B, 1):
        probability that the image is real, or its logit.
    """

    def __init__(self, *, base_channels: int = 32) -> None:
        super().__init__()
        c = [base_channels * factor for factor in (1, 2, 4)]
        conv = NonormConvBlock
        self.face_encoder_blocks = nn.ModuleList(
            nn.Sequential(*block)
            for block in (
                (conv(3, c[0], 7, 1, 3),),
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
