"""Networks of HeadGAN (ICCV 2021) under their official names: flow, rendering, discriminators.

Values: PNCC in [0,1] with background exactly 0, RGB in [-1,1], flow in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm

from talkingface.model.layers.spade import SLOPE, AdaINBlock, SPADEBlock
from talkingface.model.layers.warp import warp

_HEAD_GAIN = 0.02  # of Xavier initialisation: flow, mask and picture are small at the start


class HeadGANOutput(NamedTuple):
    """Output of the generator.

    Attributes:
        image: (B,3,H,W) in [-1,1].
        warped: (B,3,H,W) reference picture warped by the flow; the reference itself without flow.
        flow: (B,2,H,W) in pixels, multiplied by the mask, x first.
        mask: (B,1,H,W) in (0,1), weight of the flow.
        features: warped feature maps of the reference, finest first.
    """

    image: Tensor
    warped: Tensor
    flow: Tensor
    mask: Tensor
    features: tuple[Tensor, ...]


def _encoder_block(inputs: int, outputs: int, *, first: bool) -> nn.Sequential:
    kernel, stride, padding = (7, 1, 0) if first else (3, 2, 1)
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
    pair = nn.Sequential(spectral_norm(conv), nn.InstanceNorm2d(outputs, affine=True))
    return nn.Sequential(*([nn.ReflectionPad2d(3)] if first else []), pair, nn.ReLU())


def _encoder(inputs: int, widths: Sequence[int]) -> nn.ModuleList:
    before = [inputs, *widths[:-1]]
    blocks = zip(before, widths, strict=True)
    return nn.ModuleList(_encoder_block(a, b, first=not i) for i, (a, b) in enumerate(blocks))


def _feature_maps(blocks: Iterable[nn.Module], x: Tensor) -> list[Tensor]:
    """Outputs of all blocks, applied one after the other."""
    maps = []
    for block in blocks:
        x = block(x)
        maps.append(x)
    return maps


def _head(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(inputs, outputs, 7))


def _upsampling(pixelshuffle: bool) -> nn.Module:
    return nn.PixelShuffle(2) if pixelshuffle else nn.Upsample(scale_factor=2, mode="nearest")


class FlowNetwork(nn.Module):
    """Dense flow from a reference to a pose (paper: F)."""

    def __init__(
        self, condition: int, widths: Sequence[int], hidden: int, pixelshuffle: bool
    ) -> None:
        super().__init__()
        sizes = condition, widths[-1], widths[-1], hidden
        self.enc = _encoder(6, widths)
        self.dec_res = nn.ModuleList(SPADEBlock(*sizes) for _ in range(2))
        self.dec_main, self.dec_up = nn.ModuleList(), nn.ModuleList()
        for wide, narrow in zip(widths[:0:-1], widths[-2::-1], strict=True):
            outputs = wide if pixelshuffle else narrow
            self.dec_main.append(SPADEBlock(condition, wide, outputs, hidden))
            self.dec_up.append(_upsampling(pixelshuffle))
        self.dec_flow = _head(widths[0], 2)
        self.dec_mask = _head(widths[0], 1)

    def flow(self, deepest: Tensor, pncc: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded reference (B,C,h,w) and PNCC stack (B,K,H,W) -> masked flow and mask, float32."""
        x = deepest
        for block in self.dec_res:
            x = block(x, pncc)
        for block, up in zip(self.dec_main, self.dec_up, strict=True):
            x = up(block(x, pncc))
        with torch.autocast(x.device.type, enabled=False):
            x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            mask = (torch.tanh(self.dec_mask(x)) + 1) / 2
            return self.dec_flow(x) * mask, mask


class RenderingNetwork(nn.Module):
    """Renders a picture from the pose, the warped reference and the voice (paper: R)."""

    def __init__(
        self,
        condition: int,
        widths: Sequence[int],
        hidden: int,
        pixelshuffle: bool,
        audio: int,
        adain_residual: bool,
    ) -> None:
        super().__init__()
        self.cond_enc = _encoder(condition, widths)
        self.cond_dec, self.cond_dec_up = nn.ModuleList(), nn.ModuleList()
        voices = []
        for level in range(len(widths) - 1, -1, -1):
            wide = widths[level]
            narrow = widths[level - 1] if level and not pixelshuffle else wide
            self.cond_dec.append(SPADEBlock(wide, wide, narrow, hidden))
            voices.append(narrow)
            if level:
                self.cond_dec_up.append(_upsampling(pixelshuffle))
        self.cond_dec.append(SPADEBlock(3, widths[0], widths[0], hidden))
        self.cond_dec_audio = None
        if audio:
            self.cond_dec_audio = nn.ModuleList(
                AdaINBlock(channels, audio, residual=adain_residual) for channels in voices
            )
        self.conv_img = _head(widths[0], 3)

    def forward(
        self, pncc: Tensor, features: Sequence[Tensor], warped: Tensor, audio: Tensor | None
    ) -> Tensor:
        x = pncc
        for block in self.cond_enc:
            x = block(x)
        for number, condition in enumerate(reversed(features)):
            x = self.cond_dec[number](x, condition)
            if self.cond_dec_audio is not None:
                x = self.cond_dec_audio[number](x, audio)
            if number < len(self.cond_dec_up):
                x = self.cond_dec_up[number](x)
        x = self.cond_dec[-1](x, warped)
        return torch.tanh(self.conv_img(F.leaky_relu(x, SLOPE)))


class HeadGANGenerator(nn.Module):
    """The generator: 51,750,502 parameters in 232 tensors with the official settings.

    Args:
        ngf: channels of the finest level.
        levels: halvings of the picture, log2(crop_size / down_size).
        hidden: channels inside the SPADEs.
        n_frames: PNCC pictures, the current one last.
        audio: length of a voice vector; 0: no voice.
        use_flow: False: the reference is not warped (ablation).
        pixelshuffle: False: nearest upsampling and learned shortcuts (ablation).
        adain_residual: AdaIN blocks add their input (not in the paper; official weights: False).
    """

    def __init__(
        self,
        *,
        ngf: int = 32,
        levels: int = 2,
        hidden: int = 256,
        n_frames: int = 3,
        audio: int = 300,
        use_flow: bool = True,
        pixelshuffle: bool = True,
        adain_residual: bool = False,
    ) -> None:
        super().__init__()
        # Channels per level, finest first; PixelShuffle divides the channels by four.
        widths = [ngf * (4 if pixelshuffle else 2) ** level for level in range(levels + 1)]
        condition = 3 * n_frames
        self.flow_network: FlowNetwork | None = None
        if use_flow:
            self.flow_network = FlowNetwork(condition, widths, hidden, pixelshuffle)
        else:
            self.frames_encoder = nn.ModuleDict({"cond_enc": _encoder(6, widths)})
        self.rendering_network = RenderingNetwork(
            condition, widths, hidden, pixelshuffle, audio, adain_residual
        )
        initialise(self)

    def encode_reference(self, ref_pncc: Tensor, ref_image: Tensor) -> list[Tensor]:
        """Feature maps of a reference, finest first; the same for all frames of a video."""
        network = self.flow_network
        blocks = network.enc if network is not None else self.frames_encoder["cond_enc"]
        return _feature_maps(blocks, torch.cat([ref_pncc, ref_image], dim=1))

    def forward(
        self,
        pncc: Tensor,
        ref_pncc: Tensor,
        ref_image: Tensor,
        audio: Tensor | None = None,
        encoded: Sequence[Tensor] | None = None,
    ) -> HeadGANOutput:
        """One frame per item.

        Args:
            pncc: (B,3K,H,W), oldest first, the current one last; H and W multiples of
                ``2**levels``.
            ref_pncc, ref_image: (B,3,H,W) PNCC and picture of the reference.
            audio: (B,A); None where ``audio`` is 0.
            encoded: result of :meth:`encode_reference`, if it is known; (1 or B,...) each.
        """
        maps = self.encode_reference(ref_pncc, ref_image) if encoded is None else list(encoded)
        batch = len(pncc)
        if len(maps[0]) != batch:
            maps = [each.expand(batch, -1, -1, -1) for each in maps]
            ref_image = ref_image.expand(batch, -1, -1, -1)
        if self.flow_network is None:
            flow, mask = (pncc.new_zeros((batch, n, *pncc.shape[-2:])) for n in (2, 1))
            features, warped = maps, ref_image
        else:
            flow, mask = self.flow_network.flow(maps[-1], pncc)
            warped, features, level_flow = warp(ref_image, flow), [], flow
            for level, each in enumerate(maps):
                if level:
                    level_flow = F.avg_pool2d(level_flow, 2) / 2
                features.append(warp(each, level_flow))
        image = self.rendering_network(pncc, features, warped, audio)
        return HeadGANOutput(image, warped, flow, mask, tuple(features))


class _PatchDiscriminator(nn.Module):
    def __init__(self, inputs: int, ndf: int, n_layers: int) -> None:
        super().__init__()
        self.depth = n_layers + 1
        self.model0 = nn.Sequential(nn.Conv2d(inputs, ndf, 4, 2, 2), nn.LeakyReLU(SLOPE))
        before = ndf
        for layer in range(1, n_layers):
            after = min(2 * before, 512)
            stride = 1 if layer == n_layers - 1 else 2
            conv = spectral_norm(nn.Conv2d(before, after, 4, stride, 2, bias=False))
            pair = nn.Sequential(conv, nn.InstanceNorm2d(after, affine=True))
            setattr(self, f"model{layer}", nn.Sequential(pair, nn.LeakyReLU(SLOPE)))
            before = after
        setattr(self, f"model{n_layers}", nn.Sequential(nn.Conv2d(before, 1, 4, 1, 2)))

    def forward(self, x: Tensor) -> list[Tensor]:
        return _feature_maps((getattr(self, f"model{layer}") for layer in range(self.depth)), x)


class HeadGANDiscriminator(nn.Module):
    """PatchGANs at ``num_d`` scales; the same network for the picture and for the mouth.

    Args:
        inputs: channels: 6 for a picture with its PNCC, 3 + length of the voice vector for a mouth.
    """

    def __init__(self, inputs: int, ndf: int = 64, n_layers: int = 4, num_d: int = 2) -> None:
        super().__init__()
        self.num_d = num_d
        for scale in range(num_d):
            self.add_module(f"discriminator_{scale}", _PatchDiscriminator(inputs, ndf, n_layers))
        initialise(self)

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """(B,inputs,H,W) -> per scale, full resolution first, the outputs of all blocks; logits
        last."""
        scales = []
        for scale in range(self.num_d):
            if scale:
                x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
            scales.append(getattr(self, f"discriminator_{scale}")(x))
        return scales


def initialise(network: nn.Module) -> None:
    """Xavier initialisation with the official gain 0.02; gain 1 for layers with spectral norm.

    Spectral norm rescales the weights anyway, and very small weights would make its first power
    iterations inexact.
    """
    for module in network.modules():
        if not isinstance(module, (nn.Conv2d, nn.Linear)):
            continue
        spectral = hasattr(module, "weight_orig")
        weight = module.weight_orig if spectral else module.weight
        nn.init.xavier_normal_(weight, 1.0 if spectral else _HEAD_GAIN)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
        if spectral:
            _settle(module)


@torch.no_grad()
def _settle(module: nn.Module, steps: int = 15) -> None:
    """Power iterations, so that the spectral norm of a new network is accurate."""
    matrix = module.weight_orig.flatten(1)
    u, v = module.weight_u, module.weight_v
    for _ in range(steps):
        v.copy_(F.normalize(matrix.t() @ u, dim=0, eps=1e-12))
        u.copy_(F.normalize(matrix @ v, dim=0, eps=1e-12))
