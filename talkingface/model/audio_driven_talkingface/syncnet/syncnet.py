"""Training of SyncNet, the network of the metrics LSE-D, LSE-C and AV offset."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from talkingface.data.media.mfcc import WINDOW
from talkingface.model.abstract_talkingface import AbstractTalkingFace, Batch, Tensors
from talkingface.model.audio_driven_talkingface.syncnet.syncnet_networks import (
    EPSILON,
    SyncNet,
    audio_windows,
)

if TYPE_CHECKING:
    from talkingface.config.config import Config


def distances(lips: Tensor, sounds: Tensor) -> Tensor:
    """Euclidean distances of all lip and sound embeddings: (B,N,D), (B,M,D) -> (B,N,M)."""
    return torch.cdist(lips.float() + EPSILON, sounds.float())


class SyncNetModel(AbstractTalkingFace):
    """Learns the distance between five frames and 0.2 s of audio.

    Every window of an item is compared with the audio of all its windows. A batch therefore gives
    many negative pairs, which have the same voice and differ only by a shift in time.
    Batch of ``SyncNetDataset``: ``frames`` (B,3,T,S,S) uint8 BGR, ``mfcc`` (B,13,4T+4).
    """

    main_network: ClassVar[str] = "syncnet"

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        size = cfg.model_params
        self.syncnet = SyncNet(size.width, size.image_size, size.out_features)

    def forward_train(self, batch: Batch) -> Tensors:
        frames = batch["frames"].float()
        count = frames.shape[2] - WINDOW + 1
        windows = torch.cat([audio_windows(mfcc, count) for mfcc in batch["mfcc"]])
        sounds, lips = self.syncnet(windows, frames)
        return {"lips": lips, "sounds": sounds.unflatten(0, (len(frames), count))}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        lips, sounds = shared["lips"].float(), shared["sounds"].float()
        distance = distances(lips, sounds)
        steps = torch.arange(distance.shape[1], device=distance.device)
        shift = (steps[:, None] - steps[None]).abs()
        negative = shift >= self.cfg.loss.min_shift
        positive = torch.diagonal(distance, dim1=1, dim2=2)
        kind = self.cfg.loss.kind
        if kind == "contrastive":
            violation = F.relu(self.cfg.loss.margin - distance)[:, negative]
            loss = ((positive**2).mean() + (violation**2).mean()) / 2
        elif kind == "cosine":
            similarity = F.normalize(lips, dim=2) @ F.normalize(sounds, dim=2).transpose(1, 2)
            in_sync = ((1 + similarity) / 2).clamp(1e-6, 1 - 1e-6)
            on_positive = torch.diagonal(in_sync, dim1=1, dim2=2)
            loss = -(on_positive.log().mean() + (1 - in_sync[:, negative]).log().mean()) / 2
        else:
            ignored = ~negative & (shift > 0)
            logits = (-distance).masked_fill(ignored, float("-inf"))
            target = steps.expand(len(logits), -1)
            lips_to_sound = F.cross_entropy(logits.transpose(1, 2), target)
            sound_to_lips = F.cross_entropy(logits, target)
            loss = (lips_to_sound + sound_to_lips) / 2
        return {
            "loss": loss,
            "accuracy": _offset_accuracy(distance.detach()),
            "right_distance": positive.mean().detach(),
            "wrong_distance": distance.detach()[:, negative].mean(),
        }


def _offset_accuracy(distance: Tensor) -> Tensor:
    """Fraction of items whose mean distance is smallest at shift 0, of shifts from -5 to 5."""
    means = [
        torch.diagonal(distance, offset=shift, dim1=1, dim2=2).mean(1)
        for shift in range(-5, 6)
        if abs(shift) < distance.shape[1]
    ]
    return (torch.stack(means).argmin(0) == len(means) // 2).float().mean()
