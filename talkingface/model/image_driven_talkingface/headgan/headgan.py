"""HeadGAN: one-shot head reenactment by a dense flow and a rendering network (ICCV 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from talkingface.data.dataprocess.headgan.voice import voice_size
from talkingface.model.abstract_talkingface import AbstractTalkingFace, Batch, Tensors
from talkingface.model.image_driven_talkingface.headgan.headgan_networks import (
    HeadGANDiscriminator,
    HeadGANGenerator,
    HeadGANOutput,
)
from talkingface.model.image_driven_talkingface.headgan.headgan_statistics import HeadGANStatistics
from talkingface.model.losses.adversarial import (
    feature_matching,
    hinge_generator,
    hinge_real_fake,
)
from talkingface.model.losses.detail import detail_losses
from talkingface.model.losses.perceptual import vgg_levels

if TYPE_CHECKING:
    from talkingface.config.config import Config

_FACE = 0.01  # sum of channels above which a PNCC pixel is face (official code)
_L1_WITHOUT_VGG = 10.0


class HeadGAN(AbstractTalkingFace):
    """Trained on batches of ``HeadGANDataset``; ``loss.gan_wt`` > 0: with two discriminators."""

    phases = ("discriminator", "generator")
    main_network: ClassVar[str] = "generator"

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        size = cfg.model_params
        voice = voice_size(cfg.audio) if size.use_audio else 0
        self.generator = HeadGANGenerator(
            ngf=size.ngf,
            levels=(size.crop_size // size.down_size).bit_length() - 1,
            hidden=size.spade_hidden,
            n_frames=size.n_frames,
            audio=voice,
            use_flow=size.use_flow,
            pixelshuffle=size.pixelshuffle,
            adain_residual=size.adain_residual,
        )
        if cfg.loss.gan_wt > 0:
            disc = size.disc
            shape = (disc.ndf, disc.n_layers, disc.num_d)
            self.discriminator = HeadGANDiscriminator(6, *shape)
            if disc.mouth:
                self.mouth_discriminator = HeadGANDiscriminator(voice + 3, *shape)
        else:
            self.phases = ("generator",)
        self.statistics: HeadGANStatistics = HeadGANStatistics(cfg)

    def state_hint(self, state: Mapping[str, Tensor]) -> str:
        stored = {
            "use_audio": any(".cond_dec_audio." in key for key in state),
            "use_flow": any(key.startswith("flow_network.") for key in state),
            "pixelshuffle": not any(".norm_s." in key for key in state),
        }
        wrong = [
            f"model_params.{key}={str(value).lower()}"
            for key, value in stored.items()
            if getattr(self.cfg.model_params, key) != value
        ]
        return f"The names of its weights fit {' and '.join(wrong)}." if wrong else ""

    # -- training ----------------------------------------------------------------------------------

    def voice_of(self, batch: Mapping[str, Any]) -> Tensor | None:
        """(B,A) voice vectors in the network's units; None without voice."""
        if not self.cfg.model_params.use_audio:
            return None
        return self.statistics.scaled(batch["audio"])

    def forward_train(self, batch: Batch) -> Tensors:
        inputs = batch["pncc"], batch["ref_pncc"], batch["ref_image"], self.voice_of(batch)
        out: HeadGANOutput = self.generator(*inputs)
        return {"image": out.image, "warped": out.warped, "mask": out.mask, "flow": out.flow}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        if phase == "discriminator":
            return self._discriminator_loss(batch, shared["image"].detach())
        weights, real = self.cfg.loss, batch["tgt_image"]
        face = (batch["pncc"][:, -3:].sum(dim=1, keepdim=True) > _FACE).to(real.dtype)
        names = ("image", "warped") if self.cfg.model_params.use_flow else ("image",)
        losses: dict[str, Tensor] = {}
        total = real.new_zeros(())
        for name in names:
            picture = shared[name]
            losses[f"masked_l1_{name}"] = F.l1_loss(picture * face, real * face)
            losses[f"l1_{name}"] = F.l1_loss(picture, real)
            total = total + weights.masked_l1_wt * losses[f"masked_l1_{name}"]
            total = total + self.l1_weight * losses[f"l1_{name}"]
            if "vgg" in self.components and weights.vgg_wt > 0:
                losses[f"vgg_{name}"] = vgg_levels(self.components["vgg"].network, picture, real)
                total = total + weights.vgg_wt * losses[f"vgg_{name}"]
        pictures = [(x + 1) / 2 for x in (shared["image"], real)]
        details, weighted = detail_losses(weights, *pictures, self.components.get("features"))
        losses.update(details)
        total = total + weighted
        if "mask_union" in batch and self.cfg.model_params.use_flow:
            losses["mask"] = F.l1_loss(shared["mask"], batch["mask_union"])
            total = total + weights.mask_wt * losses["mask"]
        # Not in validation: with a changing discriminator checkpoints cannot be compared.
        pairs = self._discriminated(batch, shared["image"]) if self.training else []
        for name, discriminator, fake_input, real_input in pairs:
            on_fake = discriminator(fake_input)
            with torch.no_grad():
                on_real = discriminator(real_input)
            losses[f"gan{name}"] = hinge_generator(on_fake)
            losses[f"feature_matching{name}"] = feature_matching(on_fake, on_real, logits=False)
            total = total + weights.gan_wt * losses[f"gan{name}"]
            total = total + weights.feature_matching_wt * losses[f"feature_matching{name}"]
        return {"loss": total, **losses}

    @property
    def l1_weight(self) -> float:
        """Weight of the L1 of whole pictures."""
        chosen = self.cfg.loss.l1_wt
        if chosen != "auto":
            return float(chosen)
        return 0.0 if "vgg" in self.components else _L1_WITHOUT_VGG

    def _discriminated(
        self, batch: Mapping[str, Any], picture: Tensor
    ) -> list[tuple[str, torch.nn.Module, Tensor, Tensor]]:
        """Suffix of the loss names, discriminator, and its inputs from the generated and the real
        picture."""
        if self.cfg.loss.gan_wt == 0:
            return []
        both, pncc = (picture, batch["tgt_image"]), batch["pncc"][:, -3:]
        inputs = [torch.cat([pncc, one], dim=1) for one in both]
        result = [("", self.discriminator, *inputs)]
        if self.cfg.model_params.disc.mouth:
            size = self.cfg.model_params.roi
            voice = self.voice_of(batch)
            inputs = [mouth_crop(one, batch["mouth_center"], size) for one in both]
            if voice is not None:
                tiled = voice[:, :, None, None].expand(-1, -1, size, size)
                inputs = [torch.cat([tiled.to(crop.dtype), crop], dim=1) for crop in inputs]
            result.append(("_mouth", self.mouth_discriminator, *inputs))
        return result

    def _discriminator_loss(self, batch: Mapping[str, Any], fake: Tensor) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        total = fake.new_zeros(())
        for name, discriminator, generated, real in self._discriminated(batch, fake):
            on_real, on_fake = hinge_real_fake(discriminator(real), discriminator(generated))
            losses[f"on_real{name}"], losses[f"on_fake{name}"] = on_real, on_fake
            weight = self.cfg.loss.mouth_d_wt if name else 1.0
            total = total + weight * (on_real + on_fake)
        return {"loss": total, **losses}

    def visualize(self, batch: Batch) -> dict[str, Tensor]:
        """Reference, PNCC, warped, generated and real picture side by side (B,3,S,5S)."""
        few = {key: value[:4] for key, value in batch.items() if torch.is_tensor(value)}
        out = self.forward_train(few)
        pictures = few["ref_image"], out["warped"].float(), out["image"].float(), few["tgt_image"]
        reference, *rest = [(picture + 1) / 2 for picture in pictures]
        row = [reference, few["pncc"][:, -3:], *rest]
        return {"reference_pncc_warped_generated_real": torch.cat(row, dim=-1)}


def mouth_crop(picture: Tensor, centre: Tensor, size: int) -> Tensor:
    """Squares (B,C,size,size) around the mouths, moved to lie inside the picture.

    Args:
        picture: (B,C,H,W).
        centre: (B,2) int64, x and y in pixels.
    """
    height, width = picture.shape[-2:]
    left = (centre[:, 0] - size // 2).clamp(0, width - size)
    top = (centre[:, 1] - size // 2).clamp(0, height - size)
    corners = zip(picture, top.tolist(), left.tolist(), strict=True)
    return torch.stack([one[:, y : y + size, x : x + size] for one, y, x in corners])
