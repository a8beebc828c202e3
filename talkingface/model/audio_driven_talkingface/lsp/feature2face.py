"""Feature2Face: a feature map and four pictures of a person to an image (official code)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from talkingface.model.conditional_gan import ConditionalImageGAN
from talkingface.model.layers.feature2face_networks import (
    Feature2FaceDiscriminator,
    Feature2FaceNet,
)

if TYPE_CHECKING:
    from talkingface.config.config import Config


class Feature2Face(ConditionalImageGAN):
    """Batch of ``Feature2FaceDataset``: ``feature_map`` (B,1,S,S), ``cand_image`` (B,12,S,S)."""

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        size = cfg.model_params
        self.generator = Feature2FaceNet(size.size, size.levels, size.ngf)
        if cfg.loss.gan_wt > 0:
            self.discriminator = Feature2FaceDiscriminator(size.ndf, size.n_layers_d, size.num_d)

    def conditions(self, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        return batch["feature_map"], batch["cand_image"]

    def lines(self, batch: Mapping[str, Any]) -> Tensor:
        return batch["feature_map"].expand(-1, 3, -1, -1)
