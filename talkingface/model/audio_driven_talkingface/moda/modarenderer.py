"""MODARenderer: drawn mesh, pictures of the person and time to an image (DreamtaleCore/MODA)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from talkingface.model.conditional_gan import ConditionalImageGAN
from talkingface.model.layers.feature2face_networks import (
    Feature2FaceDiscriminator,
    Feature2FaceNet,
)
from talkingface.model.statistics import TrainingStatistics

if TYPE_CHECKING:
    from talkingface.config.config import Config


def tpe(frames: Tensor, period: float = 100.0, n_freq: int = 6) -> Tensor:
    """Temporal positional embedding of frame numbers (N,) -> (N, 1 + 2 * n_freq), official code.

    ``[tau, sin tau, cos tau, sin 2 tau, cos 2 tau, sin 4 tau, ...]`` with ``tau = t / period``.
    """
    tau = frames.float()[:, None] / period
    angles = tau * 2.0 ** torch.arange(n_freq, device=frames.device)
    waves = torch.stack([torch.sin(angles), torch.cos(angles)], dim=-1).flatten(1)
    return torch.cat([tau, waves], dim=1)


def fold(frames: Tensor, trained: int | None) -> Tensor:
    """Fold frame numbers into 0 to ``trained`` - 1 by a triangle wave; None: unchanged."""
    if not trained or trained < 2:
        return frames
    span = trained - 1
    phase = frames % (2 * span)
    return torch.minimum(phase, 2 * span - phase)


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
        """Inputs of the generator in the official order; time as planes (B,1+2*n_freq,S,S)."""
        options = self.cfg.model_params.tpe
        if options is None:
            return condition, reference
        trained = options.clip_frames
        if trained == "auto":
            trained = self.statistics.values.get("clip_frames")
        code = tpe(fold(time, trained), options.period, options.n_freq)
        planes = code[:, :, None, None].expand(-1, -1, *condition.shape[-2:])
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
