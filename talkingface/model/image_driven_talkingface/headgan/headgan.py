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
    levels_of,
    variant_of,
)
from talkingface.model.image_driven_talkingface.headgan.headgan_statistics import HeadGANStatistics
from talkingface.model.losses.adversarial import (
    feature_matching,
    hinge_generator,
    hinge_real_fake,
)
from talkingface.model.losses.perceptual import vgg_levels

if TYPE_CHECKING:
    from talkingface.config.config import Config

_FACE = 0.01  # sum of channels above which a PNCC pixel is face (official code)
_L1_WITHOUT_VGG = 10.0


class HeadGAN(AbstractTalkingFace):
    """Batches of ``HeadGANDataset``; with ``loss.gan_wt`` above 0 there are two discriminators."""

    phases = ("discriminator", "generator")
    main_network: ClassVar[str] = "generator"

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        size = cfg.model_params
        self.naf = voice_size(cfg.audio)
        self.generator = HeadGANGenerator(
            ngf=size.ngf,
            levels=levels_of(size.crop_size, size.down_size),
            hidden=size.spade_hidden,
            n_frames=size.n_frames,
            audio=self.naf if size.use_audio else 0,
            use_flow=size.use_flow,
            pixelshuffle=size.pixelshuffle,
            adain_residual=size.adain_residual,
        )
        if cfg.loss.gan_wt > 0:
            disc = size.disc
            shape = (disc.ndf, disc.n_layers, disc.num_d)
            self.discriminator = HeadGANDiscriminator(6, *shape)
            if disc.mouth:
                voice = self.naf if size.use_audio else 0
                self.mouth_discriminator = HeadGANDiscriminator(voice + 3, *shape)
        else:
            self.phases = ("generator",)
        self.statistics: HeadGANStatistics = HeadGANStatistics(cfg)

    def state_hint(self, state: Mapping[str, Tensor]) -> str:
        variant = variant_of(state)
        own = self.cfg.model_params
        wrong = [f"model_params.{k}={str(v).lower()}" for k, v in variant.items()
                 if getattr(own, k) != v]  # fmt: skip
        return f"Its names look like {' and '.join(wrong)}." if wrong else ""

    # -- training ----------------------------------------------------------------------------------

    def voice_of(self, batch: Mapping[str, Any]) -> Tensor | None:
        """(B,A) voice vectors in the network's units; None without voice."""
        if not self.cfg.model_params.use_audio:
            return None
        return self.statistics.scaled(batch["audio"])

    def generated(self, batch: Mapping[str, Any]) -> HeadGANOutput:
        """The generator on a batch."""
        return self.generator(
            batch["pncc"], batch["ref_pncc"], batch["ref_image"], self.voice_of(batch)
        )

    def forward_train(self, batch: Batch) -> Tensors:
        made = self.generated(batch)
        return {"image": made.image, "warped": made.warped, "mask": made.mask, "flow": made.flow}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        made = shared
        if phase == "discriminator":
            return self._discriminator_loss(batch, made["image"].detach())
        weights, real = self.cfg.loss, batch["tgt_image"]
        face = (batch["pncc"][:, -3:].sum(dim=1, keepdim=True) > _FACE).to(real.dtype)
        pairs = {"image": made["image"]}
        if self.cfg.model_params.use_flow:
            pairs["warped"] = made["warped"]
        losses: dict[str, Tensor] = {}
        total = real.new_zeros(())
        for name, picture in pairs.items():
            losses[f"masked_l1_{name}"] = F.l1_loss(picture * face, real * face)
            losses[f"l1_{name}"] = F.l1_loss(picture, real)
            total = total + weights.masked_l1_wt * losses[f"masked_l1_{name}"]
            total = total + self.l1_weight * losses[f"l1_{name}"]
            if "vgg" in self.components and weights.vgg_wt > 0:
                losses[f"vgg_{name}"] = vgg_levels(self.components["vgg"].network, picture, real)
                total = total + weights.vgg_wt * losses[f"vgg_{name}"]
        if "mask_union" in batch and self.cfg.model_params.use_flow:
            losses["mask"] = F.l1_loss(made["mask"], batch["mask_union"])
            total = total + weights.mask_wt * losses["mask"]
        # Not in validation: the discriminator changes, so its values do not compare checkpoints.
        pairs = self._discriminated(batch, made["image"]) if self.training else []
        for name, discriminator, fake, truth in pairs:
            on_fake = discriminator(fake)
            with torch.no_grad():
                on_real = discriminator(truth)
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
        """Name, discriminator, and what it sees of the generated and of the real picture."""
        if self.cfg.loss.gan_wt == 0:
            return []
        real, pncc = batch["tgt_image"], batch["pncc"][:, -3:]
        shown = [torch.cat([pncc, one], dim=1) for one in (picture, real)]
        found = [("", self.discriminator, *shown)]
        if self.cfg.model_params.disc.mouth:
            size = self.cfg.model_params.roi
            voice = self.voice_of(batch)
            seen = []
            for one in (picture, real):
                crop = mouth_crop(one, batch["mouth_center"], size)
                if voice is not None:
                    tiled = voice[:, :, None, None].expand(-1, -1, size, size)
                    crop = torch.cat([tiled.to(crop.dtype), crop], dim=1)
                seen.append(crop)
            found.append(("_mouth", self.mouth_discriminator, *seen))
        return found

    def _discriminator_loss(self, batch: Mapping[str, Any], fake: Tensor) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        total = fake.new_zeros(())
        for name, discriminator, made, truth in self._discriminated(batch, fake):
            on_real, on_fake = hinge_real_fake(discriminator(truth), discriminator(made))
            losses[f"on_real{name}"], losses[f"on_fake{name}"] = on_real, on_fake
            weight = self.cfg.loss.mouth_d_wt if name else 1.0
            total = total + weight * (on_real + on_fake)
        return {"loss": total, **losses}

    def visualize(self, batch: Batch) -> dict[str, Tensor]:
        """Reference, PNCC, warped, generated and real picture side by side (B,3,S,5S)."""
        few = {key: value[:4] for key, value in batch.items() if torch.is_tensor(value)}
        made = self.forward_train(few)
        shown = [few["ref_image"], made["warped"].float(), made["image"].float(), few["tgt_image"]]
        reference, *rest = [(picture + 1) / 2 for picture in shown]
        row = [reference, few["pncc"][:, -3:], *rest]
        return {"reference_pncc_warped_generated_real": torch.cat(row, dim=-1)}


def mouth_crop(picture: Tensor, centre: Tensor, size: int) -> Tensor:
    """Squares round the mouths, inside the picture.

    Args:
        picture: (B,C,H,W).
        centre: (B,2) int64, x and y in pixels.

    Returns:
        (B,C,size,size).
    """
    height, width = picture.shape[-2:]
    left = (centre[:, 0] - size // 2).clamp(0, width - size)
    top = (centre[:, 1] - size // 2).clamp(0, height - size)
    corners = zip(picture, top.tolist(), left.tolist(), strict=True)
    return torch.stack([one[:, y : y + size, x : x + size] for one, y, x in corners])
