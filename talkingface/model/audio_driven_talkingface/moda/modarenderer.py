"""MODARenderer: drawn mesh, pictures of the person and time to the picture (DreamtaleCore/MODA)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional as F

from talkingface.model.audio_driven_talkingface.moda.modarenderer_networks import time_planes
from talkingface.model.conditional_gan import ConditionalImageGAN
from talkingface.model.layers.feature2face_networks import (
    Feature2FaceDiscriminator,
    Feature2FaceNet,
)

if TYPE_CHECKING:
    from talkingface.config.config import Config


class MODARenderer(ConditionalImageGAN):
    """Batch of ``MODARendererDataset``: ``condition`` (B,3,S,S), ``reference`` (B,3n,S,S), ``time``
    (B,)."""

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        size = cfg.model_params
        self.generator = Feature2FaceNet(size.size, size.levels, size.ngf, size.conditions)
        if cfg.loss.gan_wt > 0:
            self.discriminator = Feature2FaceDiscriminator(
                size.ndf, size.n_layers_d, size.num_d, size.conditions
            )
        self.clip_frames: int | None = None

    def fit_statistics(self, data: Any) -> None:
        self.clip_frames = data.longest

    def other_parameter(self) -> dict[str, Any]:
        return {"clip_frames": self.clip_frames}

    def load_other_parameter(self, values: Mapping[str, Any]) -> None:
        self.clip_frames = values.get("clip_frames")

    def stacked(self, condition: Tensor, reference: Tensor, time: Tensor) -> tuple[Tensor, ...]:
        """Inputs of the generator in the official order."""
        options = self.cfg.model_params.tpe
        if options is None:
            return condition, reference
        return (
            condition,
            reference,
            time_planes(time, condition.shape[-1], options, self.clip_frames).to(condition.dtype),
        )

    def conditions(self, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        return self.stacked(batch["condition"], batch["reference"], batch["time"])

    def lines(self, batch: Mapping[str, Any]) -> Tensor:
        return (batch["condition"] + 1) / 2

    def further_losses(
        self, batch: Mapping[str, Any], generated: Tensor
    ) -> dict[str, tuple[float, Tensor]]:
        weight = self.cfg.loss.mouth_wt
        if weight == 0:
            return {}
        mask = batch["weight_mask"]
        error = F.l1_loss(generated, batch["tgt_image"], reduction="none") * mask
        return {"mouth": (weight, error.sum() / (3 * mask.sum()).clamp(min=1))}
