"""MODARenderer: drawn mesh, pictures of the person and time to an image (DreamtaleCore/MODA)."""

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
from talkingface.model.statistics import TrainingStatistics

if TYPE_CHECKING:
    from talkingface.config.config import Config


class ClipLength(TrainingStatistics):
    """Frames of the longest training clip, the range of trained frame numbers."""

    names = ("clip_frames",)

    def measure(self, data: Any) -> dict[str, Any]:
        return {"clip_frames": data.longest}


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
        self.statistics: ClipLength = ClipLength()

    def stacked(self, condition: Tensor, reference: Tensor, time: Tensor) -> tuple[Tensor, ...]:
        """Inputs of the generator in the official order."""
        options = self.cfg.model_params.tpe
        if options is None:
            return condition, reference
        trained = self.statistics.values.get("clip_frames")
        planes = time_planes(time, condition.shape[-1], options, trained)
        return condition, reference, planes.to(condition.dtype)

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
