"""MODAFaCo: lips and eyes of a subject to the mesh of the face (DreamtaleCore/MODA)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from talkingface.data.dataprocess.moda.files import OFFICIAL_SIDE
from talkingface.data.face.topology import MODA_EYES, MODA_MOUTH
from talkingface.model.abilities import ClipResult
from talkingface.model.abstract_talkingface import AbstractTalkingFace, Batch, Tensors
from talkingface.model.audio_driven_talkingface.moda.moda_networks import FaCoDiscriminator, FaCoNet
from talkingface.model.audio_driven_talkingface.moda.moda_statistics import NormStats

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.data.dataset.moda.moda_dataset import MeshClip


def pasted(lips: Tensor, eyes: Tensor) -> Tensor:
    """Offsets (...,1434) of a mesh with these lips (...,120) and eyes (...,180), else 0."""
    mesh = lips.new_zeros(*lips.shape[:-1], 478, 3)
    mesh[..., list(MODA_MOUTH), :] = lips.unflatten(-1, (-1, 3))
    mesh[..., list(MODA_EYES), :] = eyes.unflatten(-1, (-1, 3))
    return mesh.flatten(-2)


def passed_through(mesh: Tensor, lips: Tensor, eyes: Tensor) -> Tensor:
    """Mean distance in px of a mesh's lips and eyes from the input lips and eyes."""
    points = mesh.unflatten(-1, (478, 3))
    lip_error = points[..., list(MODA_MOUTH), :] - lips.unflatten(-1, (-1, 3))
    eye_error = points[..., list(MODA_EYES), :] - eyes.unflatten(-1, (-1, 3))
    return torch.cat([lip_error, eye_error], dim=-2).norm(dim=-1).mean()


class MODAFaCo(AbstractTalkingFace):
    """Facial composer, trained with L1 and LSGAN on standardised values of ``MODAFaCoDataset``."""

    phases = ("discriminator", "generator")
    main_network: ClassVar[str] = "generator"
    clip_outputs: ClassVar[dict[str, dict[str, str]]] = {
        "mesh_error": {"direction": "down", "unit": "px of the canonical face, mean distance"},
        "others_error": {"direction": "down", "unit": "px, points that were not given"},
        "faco_passthrough_px": {"direction": "down", "unit": "px, points that were given"},
    }

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self.generator = FaCoNet()
        if cfg.loss.gan:
            self.discriminator = FaCoDiscriminator()
        else:
            self.phases = ("generator",)
        self.statistics: NormStats = NormStats()

    def state_hint(self, state: Mapping[str, Tensor]) -> str:
        if any(key.startswith("driven_encoder.") for key in state):
            return (
                "It is of an older revision, which has one encoder for lips and eyes "
                "(driven_encoder) and cannot be loaded."
            )
        return ""

    @property
    def units(self) -> dict[str, float]:
        """Pixels per unit of lips, eyes and mesh."""
        if self.cfg.model_params.std_mode == "none":
            return dict.fromkeys(("lips", "eyes", "mesh"), float(OFFICIAL_SIDE))
        return self.statistics.of(self.cfg.model)

    def _standardised(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return {key: batch[key] / self.units[key] for key in ("lips", "eyes", "mesh")}

    def forward_train(self, batch: Batch) -> Tensors:
        values = self._standardised(batch)
        lips, eyes = values["lips"], values["eyes"]
        if self.training and self.cfg.data.noise:
            lips = lips + self.cfg.data.noise * torch.randn_like(lips)
            eyes = eyes + self.cfg.data.noise * torch.randn_like(eyes)
        return {"mesh": self.generator(lips, eyes, batch["subject"])}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        generated, subject = shared["mesh"], batch["subject"]
        values, options = self._standardised(batch), self.cfg.loss
        inputs = (values["lips"], values["eyes"])
        if phase == "discriminator":
            on_real = (self.discriminator(*inputs, values["mesh"], subject) - 1).square().mean()
            on_fake = self.discriminator(*inputs, generated.detach(), subject).square().mean()
            total = 0.5 * (options.d_real_weight * on_real + on_fake)
            return {"loss": total, "on_real": on_real, "on_fake": on_fake}
        losses = {"l1": (generated - values["mesh"]).abs().mean()}
        total = options.l1_wt * losses["l1"]
        if options.gan:
            losses["gan"] = (self.discriminator(*inputs, generated, subject) - 1).square().mean()
            total = total + losses["gan"]
        pixels = generated.detach() * self.units["mesh"]
        losses["passthrough_px"] = passed_through(pixels, batch["lips"], batch["eyes"])
        return {"loss": total, **losses}

    def compose(self, lips: Tensor, eyes: Tensor, subject: Tensor) -> Tensor:
        """Offsets (B,T,120) and (B,T,180) px to the mesh's offsets (B,T,1434) px."""
        units = self.units
        mesh = self.generator(lips / units["lips"], eyes / units["eyes"], subject)
        return mesh * units["mesh"]

    @torch.no_grad()
    def evaluate_clip(self, clip: MeshClip, mismatched: MeshClip) -> ClipResult:
        device = next(self.parameters()).device
        lips, eyes, mesh = (
            torch.from_numpy(values)[None].to(device)
            for values in (clip.lips, clip.eyes, clip.mesh)
        )
        subject = torch.from_numpy(clip.subject)[None].to(device)
        rows = {
            self.cfg.model: self.compose(lips, eyes, subject),
            "lips and eyes pasted": pasted(lips, eyes),
            "mean motion": torch.zeros_like(mesh),
            "real": mesh,
        }
        others = np.setdiff1d(np.arange(478), [*MODA_MOUTH, *MODA_EYES])
        result = {}
        for name, offsets in rows.items():
            distance = (offsets - mesh).unflatten(-1, (478, 3)).norm(dim=-1)
            result[name] = {
                "mesh_error": float(distance.mean()),
                "others_error": float(distance[..., others].mean()),
                "faco_passthrough_px": float(passed_through(offsets, lips, eyes)),
            }
        return ClipResult(result)
