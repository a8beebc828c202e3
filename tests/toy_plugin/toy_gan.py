"""A small GAN with all that a resumed run must restore: BatchNorm, dropout, two optimizers."""

from __future__ import annotations

import atexit
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from talkingface.data.dataset.base import TalkingFaceDataset
from talkingface.model.abstract_talkingface import AbstractTalkingFace

SIZE = 8


@atexit.register
def _tell_an_open_process_group():
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        print("the process group is still open")


class ToyGan(AbstractTalkingFace):
    phases = ("discriminator", "generator")

    def __init__(self, cfg):
        super().__init__(cfg)
        normal = [nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3)] if cfg.toy.norm else [nn.Tanh()]
        self.generator = nn.Sequential(nn.Linear(SIZE, 16), *normal, nn.Linear(16, SIZE))
        if cfg.toy.adversarial:
            self.discriminator = nn.Sequential(nn.Linear(SIZE, 8), nn.Tanh(), nn.Linear(8, 1))
        else:
            self.phases = ("generator",)
        self.validations = 0

    def forward_train(self, batch):
        return {"made": self.generator(batch["x"])}

    def calculate_loss(self, batch, phase, shared):
        made = shared["made"]
        if phase == "discriminator":
            real, fake = self.discriminator(batch["y"]), self.discriminator(made.detach())
            return {"loss": F.softplus(-real).mean() + F.softplus(fake).mean()}
        if (
            not self.training
        ):  # as models do that sample: it must not change the course of the training
            made = made + 0.01 * torch.randn_like(made)
        losses = {"l2": F.mse_loss(made, batch["y"])}
        total = losses["l2"]
        if self.cfg.toy.adversarial:
            losses["adversarial"] = F.softplus(-self.discriminator(made)).mean()
            total = total + 0.1 * losses["adversarial"]
        return {"loss": total, **losses}

    def after_validation(self, losses):
        self.validations += 1
        if self.cfg.toy.weights_folder:
            rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
            state = {k: v.clone() for k, v in self.generator.state_dict().items()}
            torch.save(state, Path(self.cfg.toy.weights_folder) / f"rank{rank}.pt")

    def other_parameter(self):
        return {"validations": self.validations}

    def load_other_parameter(self, values):
        self.validations = int(values["validations"])


class ToyDataset(TalkingFaceDataset):
    """Noisy pairs ``x -> sin(2 x)``; the noise depends on (seed, epoch, index)."""

    batch_spec = {"x": "B 8 float32", "y": "B 8 float32"}

    def build_index(self):
        return list(range(self.cfg.toy.items if self.split == "train" else 6))

    def load_item(self, entry, rng):
        toy = self.cfg.toy
        # A setting would count as another run to be resumed; the speed changes nothing learned.
        time.sleep(float(os.environ.get("TOY_DELAY", 0)))
        x = np.random.default_rng([entry, len(self.split)]).normal(size=SIZE)
        x = (x + 0.1 * rng.normal(size=SIZE)).astype(np.float32)
        y = np.sin(2 * x)
        if self.split == "train" and entry in toy.nan_items:
            x[0] = np.nan
        if self.split == "train" and entry in toy.inf_items:
            y[:] = 1e30  # finite, but its square is not
        return {"x": x, "y": y, "clip_id": f"item{entry}"}
