"""Training of an autoencoder whose features are used in losses, where no VGG weights are at hand.

Parts of each face are erased and must be restored, so that the features describe what belongs
together in a face, not only colours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from talkingface.model.abstract_talkingface import AbstractTalkingFace, Batch, Tensors
from talkingface.model.audio_driven_talkingface.hyperlips.hyperlips_networks import fold_time
from talkingface.model.losses.detail import gradient_l1
from talkingface.model.losses.perceptual import FaceCoder

if TYPE_CHECKING:
    from talkingface.config.config import Config

_BLOCKS = 8  # per side of a picture
_ERASED = 0.3  # share of the blocks; not measured


class FaceFeatures(AbstractTalkingFace):
    """Restores faces of which parts are erased.

    Batch of ``HyperLipsBaseDataset``, of which only ``gt`` (B,3,T,H,W) is used, BGR in 0..1.
    """

    main_network: ClassVar[str] = "coder"
    batch_keys: ClassVar[tuple[str, ...]] = ("gt",)

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self.coder = FaceCoder(cfg.model_params.channels)

    def forward_train(self, batch: Batch) -> Tensors:
        faces = fold_time(batch["gt"]).flip(1)
        return {"faces": faces, "restored": self.coder(faces * self._kept(faces))}

    def _kept(self, faces: Tensor) -> Tensor:
        """(N,1,H,W): 0 where a block is erased, the same blocks in every validation."""
        shape = (len(faces), 1, _BLOCKS, _BLOCKS)
        if self.training:
            kept = torch.rand(shape, device=faces.device) >= _ERASED
        else:
            kept = (torch.arange(_BLOCKS**2, device=faces.device) % 3 > 0).view(1, *shape[1:])
        return F.interpolate(kept.float().expand(shape), faces.shape[-2:])

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        pair = shared["restored"], shared["faces"]
        losses = {"l1": F.l1_loss(*pair), "gradient": gradient_l1(*pair)}
        return {"loss": losses["l1"] + losses["gradient"], **losses}

    def visualize(self, batch: Batch) -> dict[str, Tensor]:
        """Faces and restored faces side by side, (B,1,3,H,2W) RGB."""
        shared = self.forward_train(batch)
        pair = torch.cat([shared["faces"], shared["restored"].to(shared["faces"].dtype)], dim=-1)
        return {"real_restored": pair[:4, None]}
