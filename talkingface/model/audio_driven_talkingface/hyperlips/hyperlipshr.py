"""HyperLips stage 2 (arXiv 2310.05720): sharpen the images of stage 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from talkingface.model.abstract_talkingface import AbstractTalkingFace, Batch, Tensors
from talkingface.model.audio_driven_talkingface.hyperlips.hyperlips_networks import fold_time
from talkingface.model.audio_driven_talkingface.hyperlips.hyperlipshr_networks import (
    SCALES,
    HRDecoder,
    HRDecoderDiscQual,
)
from talkingface.model.losses.adversarial import relativistic
from talkingface.model.losses.detail import detail_losses
from talkingface.model.losses.perceptual import feature_l1

if TYPE_CHECKING:
    from talkingface.config.config import Config

_MIN_LIP_SIDE = 16  # px; the VGG of LPIPS halves an image four times


class HyperLipsHR(AbstractTalkingFace):
    """High-resolution decoder, its discriminator and their losses.

    The preparation generates the images of stage 1; in training the base itself is not used. Batch
    of ``HyperLipsHRDataset``: ``hyper_img`` and ``hyper_sketch`` (B,3,T,128,128), ``gt_img``
    (B,3,T,S,S), ``coords`` (B,T,4); BGR in 0..1. With ``data.patch`` they are smaller squares.
    """

    phases = ("discriminator", "generator")

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        size = cfg.model_params
        self.generator = HRDecoder(SCALES[size.image_size], channels=size.channels, norm=size.norm)
        if cfg.loss.disc_wt > 0:
            self.discriminator = HRDecoderDiscQual(base_channels=size.disc_channels)
        else:
            self.phases = ("generator",)

    def state_hint(self, state: Mapping[str, Tensor]) -> str:
        blocks = {int(key.split(".")[1]) + 1 for key in state if key.startswith("up_conv.")}
        size = {2: 128, 3: 256, 6: 512}.get(max(blocks, default=0))
        own = self.cfg.model_params.image_size
        if size in (None, own):
            return ""
        return f"Its output is {size} px, not {own}: set model_params.image_size={size}."

    def forward_train(self, batch: Batch) -> Tensors:
        stacked = torch.cat([batch["hyper_img"], batch["hyper_sketch"]], dim=1)
        return {"generated": self.generator(stacked)}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        generated, real = shared["generated"], batch["gt_img"]
        if phase == "discriminator":
            return {"loss": relativistic(self._scores(real), self._scores(generated.detach()))}
        return self._generator_loss(generated, real, batch["coords"])

    def _scores(self, images: Tensor) -> Tensor:
        """Logits of the discriminator; probabilities with ``loss.legacy_sigmoid``."""
        return self.discriminator(images, logits=not self.cfg.loss.legacy_sigmoid)

    def _generator_loss(self, generated: Tensor, real: Tensor, coords: Tensor) -> dict[str, Tensor]:
        weights = self.cfg.loss
        losses = {"l1": (generated - real).abs().mean()}
        total = weights.l1_wt * losses["l1"]
        if weights.disc_wt > 0:
            with torch.no_grad():
                on_real = self._scores(real)
            losses["adversarial"] = relativistic(self._scores(generated), on_real)
            total = total + weights.disc_wt * losses["adversarial"]
        if weights.lip_l1_wt > 0 or "lpips" in self.components:
            lips = list(self._lips(generated, real, coords))
            if weights.lip_l1_wt > 0:
                losses["lip_l1"] = torch.stack([(a - b).abs().mean() for a, b in lips]).mean()
                total = total + weights.lip_l1_wt * losses["lip_l1"]
            if "lpips" in self.components:
                lpips = self.components["lpips"].network
                values = [lpips(self._lpips_input(a), self._lpips_input(b)) for a, b in lips]
                losses["lip_lpips"] = torch.cat(values).mean()
                total = total + weights.lip_lpips_wt * losses["lip_lpips"]
        pictures = [fold_time(video).flip(1) for video in (generated, real)]  # BGR -> RGB
        details, weighted = detail_losses(weights, *pictures, self.components.get("features"))
        losses.update(details)
        total = total + weighted
        if "vgg" in self.components:
            pair = [fold_time(video) for video in (generated, real)]
            if not weights.legacy_normalisation:
                pair = [frames.flip(1) for frames in pair]  # BGR -> RGB
            losses["perceptual"] = feature_l1(
                self.components["vgg"].network, *pair, raw=weights.legacy_normalisation
            )
            total = total + weights.perceptual_wt * losses["perceptual"]
        return {"loss": total, **losses}

    def _lips(self, generated: Tensor, real: Tensor, coords: Tensor):
        """Pairs (1,3,h,w) of the rectangles around the lips, extended to the minimum of LPIPS."""
        side = generated.shape[-1]
        for item, windows in enumerate(coords.tolist()):
            for frame, (top, bottom, left, right) in enumerate(windows):
                top, left = (max(0, min(v, side - _MIN_LIP_SIDE)) for v in (top, left))
                bottom = max(bottom, top + _MIN_LIP_SIDE)
                right = max(right, left + _MIN_LIP_SIDE)
                yield tuple(
                    video[item : item + 1, :, frame, top:bottom, left:right]
                    for video in (generated, real)
                )

    def _lpips_input(self, images: Tensor) -> Tensor:
        """BGR in 0..1 -> RGB in -1..1, except with ``loss.legacy_normalisation``."""
        return images if self.cfg.loss.legacy_normalisation else images.flip(1) * 2 - 1

    def visualize(self, batch: Batch) -> dict[str, Tensor]:
        """Videos (B,T,3,S,4S), RGB: enlarged base, sketch, generated, real side by side."""
        generated = self.forward_train(batch)["generated"][:4].float()
        size = generated.shape[-2:]
        small = [
            F.interpolate(batch[key][:4].flatten(1, 2), size=size, mode="bicubic")
            .unflatten(1, (3, -1))
            .clamp(0, 1)
            for key in ("hyper_img", "hyper_sketch")
        ]
        row = torch.cat([*small, generated, batch["gt_img"][:4]], dim=-1)
        return {"base_sketch_generated_real": row.flip(1).transpose(1, 2)}
