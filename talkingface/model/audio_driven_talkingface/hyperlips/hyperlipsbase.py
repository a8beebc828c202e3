"""HyperLips stage 1 (arXiv 2310.05720): generate the lower half of a face to match the audio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from talkingface.errors import ConfigError
from talkingface.model.abstract_talkingface import AbstractTalkingFace, Batch, Tensors
from talkingface.model.audio_driven_talkingface.hyperlips.hyperlips_networks import (
    HyperCtrolDiscriminator,
    HyperLipsBaseNet,
    fold_time,
    lower_half,
    unfold_time,
)
from talkingface.model.layers.feature2face_networks import Feature2FaceDiscriminator
from talkingface.model.losses.adversarial import bce_to, feature_matching, least_squares
from talkingface.model.losses.detail import detail_losses
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
        if cfg.data.fine > 1 and not size.warp:
            raise ConfigError(
                f"data.fine={cfg.data.fine} needs model_params.warp > 0: without it every pixel is "
                "generated, in the size of the network. Set data.fine=1."
            )
        generator = size.model_dump(exclude={"disc_channels", "patch_channels"})
        self.generator = HyperLipsBaseNet(**generator)
        if cfg.loss.disc_wt > 0:
            self.discriminator = HyperCtrolDiscriminator(base_channels=size.disc_channels)
        if cfg.loss.patch_wt > 0:
            self.mouth_discriminator = Feature2FaceDiscriminator(
                size.patch_channels, n_layers=2, num_d=1, inputs=0
            )
        if cfg.loss.disc_wt == cfg.loss.patch_wt == 0:
            self.phases = ("generator",)
        self.training_progress = 0.0
        self.sync_open = cfg.loss.syncnet_gate is None

    def forward_train(self, batch: Batch) -> Tensors:
        inputs = (batch["indiv_mels"], batch["input_frames"], batch.get("fine_frames"))
        return {"generated": self.generator(*inputs)}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        generated = shared["generated"]
        if phase == "discriminator":
            return self._discriminator_loss(generated, batch["gt"])
        return self._generator_loss(generated, batch)

    def _discriminator_loss(self, generated: Tensor, real: Tensor) -> dict[str, Tensor]:
        """BCE of real and generated lower halves (official code), on logits for stability; least
        squares of patches of the mouth."""
        losses, total = {}, 0.0
        if self.cfg.loss.disc_wt > 0:
            on_real = self.discriminator(real, logits=True)
            on_fake = self.discriminator(generated.detach(), logits=True)
            losses = {"disc_real": bce_to(on_real, 1.0), "disc_fake": bce_to(on_fake, 0.0)}
            total = losses["disc_real"] + losses["disc_fake"]
        if self.cfg.loss.patch_wt > 0:
            on_real, on_fake = map(self._patches, (real, generated.detach()))
            losses["patch_real"] = least_squares(on_real, 1.0)
            losses["patch_fake"] = least_squares(on_fake, 0.0)
            total = total + losses["patch_real"] + losses["patch_fake"]
        return {"loss": total, **losses}

    def _patches(self, video: Tensor) -> list[list[Tensor]]:
        """Maps of the mouth's discriminator on crops (B,3,T,H,W)."""
        return self.mouth_discriminator(2 * mouth_region(video) - 1)

    @property
    def _adversarial_share(self) -> float:
        """Of the weight of the mouth's discriminator: 0 in the first fifth of the training, rising
        to 1 in the second, since early pictures differ from real ones in everything."""
        return min(max(5 * self.training_progress - 1, 0.0), 1.0)

    def _generator_loss(self, generated: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        weights, real = self.cfg.loss, batch["gt"]
        losses, used = {"l1": (generated - real).abs().mean()}, 0.0
        mouths = [mouth_region(video).flip(1) for video in (generated, real)]  # BGR -> RGB
        details, total = detail_losses(weights, *mouths, self.components.get("features"))
        losses.update(details)
        if weights.mouth_wt > 0:
            losses["mouth"] = l1_loss(*mouths)
            total = total + weights.mouth_wt * losses["mouth"]
        if weights.patch_wt > 0:
            on_fake = self._patches(generated)
            with torch.no_grad():
                on_real = self._patches(real)
            losses["patch"] = least_squares(on_fake, 1.0)
            losses["matching"] = feature_matching(on_fake, on_real, logits=False)
            if self.training:  # validation losses are compared, and this network changes
                strength = weights.patch_wt * self._adversarial_share
                total = total + strength * losses["patch"]
                total = total + weights.matching_wt * losses["matching"]
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
        frames = batch.get("fine_frames", batch["input_frames"])[:4]
        generated = self.forward_train(batch)["generated"][:4].to(frames.dtype)
        row = torch.cat([frames[:, 3:], frames[:, :3], generated, batch["gt"][:4]], dim=-1)
        return {"reference_input_generated_real": row.flip(1).transpose(1, 2)}


def mouth_region(video: Tensor) -> Tensor:
    """(N,3,h,w) of crops (B,3,T,H,W): 55 to 95 % of the height, middle half of the width."""
    height, width = video.shape[-2:]
    rows = slice(round(0.55 * height), round(0.95 * height))
    return fold_time(video[..., rows, width // 4 : width - width // 4])
