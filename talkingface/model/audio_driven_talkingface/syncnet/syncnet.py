"""SyncNet as a model of the toolkit: the network behind LSE-D, LSE-C and the AV offset."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from talkingface.model.abstract_talkingface import AbstractTalkingFace, Batch, Tensors
from talkingface.model.audio_driven_talkingface.syncnet.syncnet_networks import (
    EPSILON,
    SyncNet,
    audio_windows,
)

if TYPE_CHECKING:
    from talkingface.config.config import Config


def distances(lips: Tensor, sounds: Tensor) -> Tensor:
    """Euclidean distance of every lip to every sound embedding: (B,N,D), (B,M,D) -> (B,N,M)."""
    return torch.cdist(lips.float() + EPSILON, sounds.float())


class SyncNetModel(AbstractTalkingFace):
    """Learns which 0.2 s of sound belong to five frames.

    All windows of an item are compared with all sounds of it, so that one pass gives many wrong
    pairs, all of the same voice and only shifted in time.
    Batch of ``SyncNetDataset``: ``frames`` (B,3,T,S,S) uint8 BGR, ``mfcc`` (B,13,4T+4).
    """

    main_network: ClassVar[str] = "syncnet"

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        size = cfg.model_params
        self.syncnet = SyncNet(size.width, size.image_size, size.out_features)

    def forward_train(self, batch: Batch) -> Tensors:
        frames = batch["frames"].float()
        lips = self.syncnet.lip_track(frames)
        count = lips.shape[1]
        windows = torch.cat([audio_windows(mfcc, count) for mfcc in batch["mfcc"]])
        sounds = self.syncnet.forward_aud(windows).unflatten(0, (len(frames), count))
        return {"lips": lips, "sounds": sounds}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        lips, sounds = shared["lips"].float(), shared["sounds"].float()
        distance = distances(lips, sounds)
        count = distance.shape[1]
        steps = torch.arange(count, device=distance.device)
        shift = (steps[:, None] - steps[None]).abs()
        wrong = shift >= self.cfg.loss.min_shift
        right = torch.diagonal(distance, dim1=1, dim2=2)
        kind = self.cfg.loss.kind
        if kind == "contrastive":
            too_near = F.relu(self.cfg.loss.margin - distance)[:, wrong]
            loss = ((right**2).mean() + (too_near**2).mean()) / 2
        elif kind == "cosine":
            similarity = F.normalize(lips, dim=2) @ F.normalize(sounds, dim=2).transpose(1, 2)
            share = ((1 + similarity) / 2).clamp(1e-6, 1 - 1e-6)
            near = torch.diagonal(share, dim1=1, dim2=2)
            loss = -(near.log().mean() + (1 - share[:, wrong]).log().mean()) / 2
        else:
            ignored = ~wrong & (shift > 0)
            logits = (-distance).masked_fill(ignored, float("-inf"))
            target = steps.expand(len(logits), -1)
            rows = F.cross_entropy(logits.transpose(1, 2), target)
            columns = F.cross_entropy(logits, target)
            loss = (rows + columns) / 2
        # How often the sound of an item is found: the mean distance over its windows per shift.
        return {
            "loss": loss,
            "accuracy": _found(distance.detach()),
            "right_distance": right.mean().detach(),
            "wrong_distance": distance.detach()[:, wrong].mean(),
        }


def _found(distance: Tensor, reach: int = 5) -> Tensor:
    """Share of items whose mean distance is smallest at shift 0 among shifts of +-5."""
    means = [
        torch.diagonal(distance, offset=shift, dim1=1, dim2=2).mean(1)
        for shift in range(-reach, reach + 1)
        if abs(shift) < distance.shape[1]
    ]
    return (torch.stack(means).argmin(0) == len(means) // 2).float().mean()
