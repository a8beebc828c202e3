"""HyperLips stage 1 (arXiv 2310.05720): generate the lower half of a face to match the audio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from talkingface.model.abstract_talkingface import AbstractTalkingFace, Batch, Tensors
from talkingface.model.audio_driven_talkingface.hyperlips.hyperlips_networks import (
    HyperCtrolDiscriminator,
    HyperLipsBaseNet,
    fold_time,
    lower_half,
    unfold_time,
)
from talkingface.model.losses.adversarial import bce_to
from talkingface.model.losses.perceptual import feature_l1
from talkingface.model.losses.sync import cosine_bce, frames_to_channels

if TYPE_CHECKING:
    from talkingface.config.config import Config


class HyperLipsBase(AbstractTalkingFace):
    """Generator, discriminator and losses of stage 1.

    Batch of ``HyperLipsBaseDataset``: ``input_frames`` (B,6,T,H,W), ``indiv_mels`` (B,T,1,80,16),
    ``mels`` (B,1,80,16), ``gt`` (B,3,T,H,W); BGR in 0..1.
    """

    phases = ("discriminator", "generator")

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        size = cfg.model_params
        self.generator = HyperLipsBaseNet(**size.model_dump(exclude={"disc_channels"}))
        if cfg.loss.disc_wt > 0:
            self.discriminator = HyperCtrolDiscriminator(base_channels=size.disc_channels)
        else:
            self.phases = ("generator",)
        self.sync_open = cfg.loss.syncnet_gate is None

    def forward_train(self, batch: Batch) -> Tensors:
        return {"generated": self.generator(batch["indiv_mels"], batch["input_frames"])}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        generated = shared["generated"]
        if phase == "discriminator":
            return self._discriminator_loss(generated, batch["gt"])
        return self._generator_loss(generated, batch)

    def _discriminator_loss(self, generated: Tensor, real: Tensor) -> dict[str, Tensor]:
        """BCE of real and generated lower halves (official code), on logits for stability."""
        on_real = self.discriminator(real, logits=True)
        on_fake = self.discriminator(generated.detach(), logits=True)
        real_loss, fake_loss = bce_to(on_real, 1.0), bce_to(on_fake, 0.0)
        return {"loss": real_loss + fake_loss, "disc_real": real_loss, "disc_fake": fake_loss}

    def _generator_loss(self, generated: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        weights, real = self.cfg.loss, batch["gt"]
        losses = {"l1": (generated - real).abs().mean()}
        total = weights.mouth_wt * self._mouth_l1(generated, real) if weights.mouth_wt else 0.0
        used = 0.0
        if weights.disc_wt > 0:
            losses["adversarial"] = bce_to(self.discriminator(generated, logits=True), 1.0)
            total = total + weights.disc_wt * losses["adversarial"]
            used += weights.disc_wt
        if "sync_expert" in self.components:
            losses["sync"] = self._sync_loss(generated, batch["mels"])
            if self.sync_open:
                total = total + weights.syncnet_wt * losses["sync"]
                used += weights.syncnet_wt
        if "vgg" in self.components:
            pair = [fold_time(video).flip(1) for video in (generated, real)]  # BGR -> RGB
            losses["perceptual"] = feature_l1(self.components["vgg"].network, *pair)
            total = total + weights.perceptual_wt * losses["perceptual"]
        l1_weight = max(1.0 - used, 0.0) if weights.l1_wt is None else weights.l1_wt
        return {"loss": total + l1_weight * losses["l1"], **losses}

    def _mouth_l1(self, generated: Tensor, real: Tensor) -> Tensor:
        """L1 of the mouth region: 55 to 95 % of the height, middle half of the width."""
        height, width = real.shape[-2:]
        rows = slice(round(0.55 * height), round(0.95 * height))
        columns = slice(width // 4, width - width // 4)
        return (generated[..., rows, columns] - real[..., rows, columns]).abs().mean()

    def _sync_loss(self, generated: Tensor, mels: Tensor) -> Tensor:
        batch = generated.shape[0]
        halves = unfold_time(lower_half(fold_time(generated)), batch)
        audio, face = self.components["sync_expert"].network(mels, frames_to_channels(halves))
        return cosine_bce(audio, face, torch.ones(batch, device=mels.device))

    def after_validation(self, losses: Mapping[str, float]) -> None:
        gate = self.cfg.loss.syncnet_gate
        if gate is not None and losses.get("sync", float("inf")) < gate:
            self.sync_open = True

    def other_parameter(self) -> dict[str, Any]:
        return {"sync_open": self.sync_open}

    def load_other_parameter(self, values: Mapping[str, Any]) -> None:
        self.sync_open = bool(values["sync_open"])

    def visualize(self, batch: Batch) -> dict[str, Tensor]:
        """Videos (B,T,3,H,4W), RGB: reference, masked input, generated, real side by side."""
        frames = batch["input_frames"][:4]
        generated = self.forward_train(batch)["generated"][:4].to(frames.dtype)
        row = torch.cat([frames[:, 3:], frames[:, :3], generated, batch["gt"][:4]], dim=-1)
        return {"reference_input_generated_real": row.flip(1).transpose(1, 2)}
