"""Audio2Headpose: speech and past head poses to the next head pose (official code)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from talkingface.model.abilities import ClipResult, mismatched_sound
from talkingface.model.abstract_talkingface import AbstractTalkingFace, Batch, Tensors
from talkingface.model.audio_driven_talkingface.lsp.lsp_motion_networks import (
    Audio2HeadposeNet,
    PoseGenerator,
    gaussian_nll,
    look_ahead,
)

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.data.dataset.lsp.lsp_motion_dataset import SpeechClip

_FPS = 60


class Audio2Headpose(AbstractTalkingFace):
    """Causal WaveNet over the pose, conditioned on speech; its output is a Gaussian.

    Batch of ``Audio2HeadposeDataset``: ``audio`` (B,H,2*hidden), ``history`` (B,H,12), ``target``
    (B,F,12).
    """

    main_network: ClassVar[str] = "audio2headpose"
    clip_outputs: ClassVar[dict[str, dict[str, str]]] = {
        "NLL": {"direction": "down", "unit": "nats per value, of the real poses"},
        "rot_range": {"direction": "real", "unit": "degrees, mean standard deviation"},
        "rot_speed": {"direction": "real", "unit": "degrees per second"},
        "trans_range": {"direction": "real", "unit": "camera units, mean standard deviation"},
        "trans_speed": {"direction": "real", "unit": "camera units per second"},
    }

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        size = cfg.model_params
        self.audio2headpose = Audio2HeadposeNet(
            cfg.apc.hidden_size,
            size.condition,
            size.layers,
            size.blocks,
            size.channels,
            size.skip_channels,
            cfg.gmm.ncenter,
            residual=size.residual,
            return_frames=cfg.return_seconds * _FPS,
        )

    def forward_train(self, batch: Batch) -> Tensors:
        length = self.cfg.data.seq_len
        return {"params": self.audio2headpose(batch["history"], batch["audio"], length)}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        return {"loss": self._nll(shared["params"].float(), batch["target"])}

    def _nll(self, params: Tensor, target: Tensor) -> Tensor:
        return gaussian_nll(params, target, self.cfg.gmm.ncenter, self.cfg.gmm.sigma_min)

    def poses(self, speech: Tensor, seed: int = 0) -> Tensor:
        """Speech features (N,2*hidden) of a clip -> poses with velocities (N,12)."""
        ahead, sigma = self.cfg.data.frame_future, self.cfg.sigma_scale
        generator = PoseGenerator(self.audio2headpose, sigma=sigma, ahead=ahead, seed=seed)
        return torch.stack(list(generator.generate(look_ahead(speech, ahead))))

    def evaluate_clip(self, clip: SpeechClip, mismatched: SpeechClip) -> ClipResult:
        device = next(self.parameters()).device
        real = clip.motion
        shuffled = replace(clip, speech=mismatched_sound(clip.speech, mismatched.speech))
        generated = self.poses(torch.from_numpy(clip.speech).to(device)).cpu().numpy()
        rows = {
            self.cfg.model: {"NLL": self._clip_nll(clip, device), **_range_and_speed(generated)},
            "shuffled audio": {"NLL": self._clip_nll(shuffled, device)},
            # Uses mean and standard deviation of the test clip, which the model does not get.
            "mean motion": {"NLL": _constant_nll(real), **_range_and_speed(np.zeros_like(real))},
            "real": {"NLL": float("nan"), **_range_and_speed(real)},
        }
        return ClipResult(rows)

    @torch.no_grad()
    def _clip_nll(self, clip: SpeechClip, device: torch.device) -> float:
        """Negative log-likelihood of the real poses, each given the real poses before it."""
        field, length = self.audio2headpose.receptive_field, len(clip) - 1
        window = clip.pose_window(1, length, field, self.cfg.data.frame_future)
        batch = {key: torch.from_numpy(value)[None].to(device) for key, value in window.items()}
        params = self.audio2headpose(batch["history"], batch["audio"], length)
        return float(self._nll(params, batch["target"]))


def _constant_nll(real: np.ndarray) -> float:
    """Negative log-likelihood of poses under one Gaussian with their mean and deviation."""
    spread = np.maximum(real.std(axis=0), 0.03)
    z = (real - real.mean(axis=0)) / spread
    return float((0.5 * np.log(2 * np.pi) + np.log(spread) + 0.5 * z**2).mean())


def _range_and_speed(pose: np.ndarray) -> dict[str, float]:
    result = {}
    for name, part in (("rot", pose[:, :3]), ("trans", pose[:, 3:6])):
        speed = np.linalg.norm(np.diff(part, axis=0), axis=1).mean() * _FPS if len(part) > 1 else 0
        result[f"{name}_range"] = float(part.std(axis=0).mean())
        result[f"{name}_speed"] = float(speed)
    return result
