"""Training of a conditional image GAN, which the renderers of LSP and MODA share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from talkingface.model.abstract_talkingface import AbstractTalkingFace, Batch, Tensors
from talkingface.model.losses.adversarial import feature_matching, least_squares
from talkingface.model.losses.detail import detail_losses
from talkingface.model.losses.perceptual import vgg_content_and_style

if TYPE_CHECKING:
    from talkingface.config.config import Config


class ConditionalImageGAN(AbstractTalkingFace):
    """Generator and multi-scale discriminator; the conditions are inputs of both.

    Subclasses build ``generator`` and, with ``loss.gan_wt`` above 0, ``discriminator``, and define
    :meth:`conditions`. Batches have ``tgt_image`` (B,3,S,S) RGB in -1..1.
    """

    phases = ("discriminator", "generator")
    main_network: ClassVar[str] = "generator"

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        if cfg.loss.gan_wt == 0:
            self.phases = ("generator",)

    def conditions(self, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Inputs of the generator, (B,C,S,S) each."""
        raise NotImplementedError

    def lines(self, batch: Mapping[str, Any]) -> Tensor:
        """The drawn condition as a picture (B,3,S,S) in 0..1, for the logger."""
        raise NotImplementedError

    def further_losses(
        self, batch: Mapping[str, Any], generated: Tensor
    ) -> dict[str, tuple[float, Tensor]]:
        """Further losses by name, each with its weight."""
        return {}

    def state_hint(self, state: Mapping[str, Tensor]) -> str:
        # 'large' has its second residual block at the index of the next level in 'normal'.
        large = any(key.startswith("netG.model.model.3.block.") for key in state)
        depth = max((key.split(".").count("model") for key in state), default=0) - 1
        hints = [f"model_params.size={'large' if large else 'normal'}"]
        if depth > 0 and depth != self.cfg.model_params.levels:
            hints.append(f"model_params.n_downsample={depth}")
        return f"The names of its weights fit {' and '.join(hints)}."

    def forward_train(self, batch: Batch) -> Tensors:
        return {"generated": self.generator(*self.conditions(batch))}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        generated = shared["generated"]
        if phase == "discriminator":
            return self._discriminator_loss(batch, generated.detach())
        weights, real = self.cfg.loss, batch["tgt_image"]
        losses = {"l1": F.l1_loss(generated, real)}
        total = weights.l1_wt * losses["l1"]
        for name, (weight, value) in self.further_losses(batch, generated).items():
            losses[name] = value
            total = total + weight * value
        pictures = [(x + 1) / 2 for x in (generated, real)]
        details, weighted = detail_losses(weights, *pictures, self.components.get("features"))
        losses.update(details)
        total = total + weighted
        if weights.gan_wt > 0:
            on_fake = self._discriminate(batch, generated)
            with torch.no_grad():
                on_real = self._discriminate(batch, real)
            losses["gan"] = least_squares(on_fake, 1.0)
            losses["feature_matching"] = feature_matching(on_fake, on_real)
            total = total + weights.gan_wt * losses["gan"]
            total = total + weights.feature_matching_wt * losses["feature_matching"]
        if "vgg" in self.components:
            content, style = vgg_content_and_style(self.components["vgg"].network, generated, real)
            losses.update(vgg=content, style=style)
            total = total + weights.vgg_wt * content + weights.style_wt * style
        return {"loss": total, **losses}

    def _discriminate(self, batch: Mapping[str, Any], picture: Tensor) -> list[list[Tensor]]:
        return self.discriminator(torch.cat([*self.conditions(batch), picture], dim=1))

    def _discriminator_loss(self, batch: Mapping[str, Any], fake: Tensor) -> dict[str, Tensor]:
        """0.5 * (2 * real + fake), the official weighting."""
        on_real = least_squares(self._discriminate(batch, batch["tgt_image"]), 1.0)
        on_fake = least_squares(self._discriminate(batch, fake), 0.0)
        return {"loss": on_real + 0.5 * on_fake, "on_real": on_real, "on_fake": on_fake}

    def visualize(self, batch: Batch) -> dict[str, Tensor]:
        """Lines, generated and real picture side by side (B,3,S,3S)."""
        few = {key: value[:4] for key, value in batch.items() if torch.is_tensor(value)}
        generated = self.forward_train(few)["generated"].float()
        pictures = [self.lines(few), (generated + 1) / 2, (few["tgt_image"] + 1) / 2]
        return {"lines_generated_real": torch.cat(pictures, dim=-1)}
