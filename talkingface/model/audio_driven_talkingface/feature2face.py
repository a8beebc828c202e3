"""Feature2Face: feature maps and four pictures of the person to the picture (LSP spec 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from talkingface.model.audio_driven_talkingface.feature2face_networks import (
    Feature2FaceDiscriminator,
    Feature2FaceNet,
)
from talkingface.model.painter import Painter

if TYPE_CHECKING:
    from talkingface.config.config import Config


class Feature2Face(Painter):
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
