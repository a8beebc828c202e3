"""APC: speech features learned by predicting future rows of the mel spectrogram."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from talkingface.model.abstract_talkingface import AbstractTalkingFace, Batch, Tensors
from talkingface.model.layers.apc_networks import build_apc

if TYPE_CHECKING:
    from talkingface.config.config import Config


class APC(AbstractTalkingFace):
    """Predicts the mel row ``steps_ahead`` rows later (L1, official code).

    Batch of ``APCDataset``: ``mel`` (B,M,80), ``length`` (B).
    """

    main_network: ClassVar[str] = "apc"
    optional_keys: ClassVar[tuple[str, ...]] = ("postnet.",)

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self.apc = build_apc(cfg)

    def forward_train(self, batch: Batch) -> Tensors:
        ahead = self.cfg.data.steps_ahead
        features, predicted = self.apc(batch["mel"][:, :-ahead], predict=True)
        return {"features": features, "predicted": predicted}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        mel, ahead = batch["mel"], self.cfg.data.steps_ahead
        target = mel[:, ahead:]
        rows = torch.arange(target.shape[1], device=mel.device)
        valid = rows < batch["length"][:, None] - ahead
        count = valid.sum().clamp(min=1) * mel.shape[-1]

        def mean(values: Tensor) -> Tensor:
            return (values.abs() * valid[..., None]).sum() / count

        return {
            "loss": mean(shared["predicted"] - target),
            # Error of the trivial prediction, the input row.
            "copy_l1": mean(mel[:, :-ahead] - target).detach(),
        }
