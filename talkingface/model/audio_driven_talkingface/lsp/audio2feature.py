"""Audio2Feature: speech to the movement of lips and chin (YuanxunLu/LiveSpeechPortraits)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from talkingface.data.dataprocess.lsp.motion import INNER_BOTTOM, INNER_TOP, MOUTH25
from talkingface.model.abilities import ClipResult, mismatched_sound
from talkingface.model.abstract_talkingface import AbstractTalkingFace, Batch, Tensors
from talkingface.model.audio_driven_talkingface.lsp.lsp_motion_networks import (
    Audio2FeatureNet,
    look_ahead,
)

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.data.dataset.lsp.lsp_motion_dataset import SpeechClip

_TOP = 3 * MOUTH25.index(INNER_TOP) + 1
_BOTTOM = 3 * MOUTH25.index(INNER_BOTTOM) + 1


class Audio2Feature(AbstractTalkingFace):
    """LSTM whose output lags its input by ``data.frame_future`` frames, the look-ahead in sound.

    Batch of ``Audio2FeatureDataset``: ``audio`` (B,F,2*hidden), ``target`` (B,F,75).
    """

    main_network: ClassVar[str] = "audio2feature"
    clip_outputs: ClassVar[dict[str, dict[str, str]]] = {
        "L2": {"direction": "down", "unit": "% of the eye distance, rms per point"},
        "opening_error": {"direction": "down", "unit": "% of the eye distance"},
        "opening_r": {"direction": "up", "unit": "correlation of the lip opening"},
        "opening_range": {"direction": "real", "unit": "standard deviation, % of the eye distance"},
    }

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        size = cfg.model_params
        self.audio2feature = Audio2FeatureNet(cfg.apc.hidden_size, size.hidden, size.layers)

    def forward_train(self, batch: Batch) -> Tensors:
        audio, noise = batch["audio"], self.cfg.data.noise
        if self.training and noise:
            audio = audio + noise * audio.std() * torch.randn_like(audio)
        return {"points": self.audio2feature(audio)}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        points = shared["points"].float()
        delay = self.cfg.data.frame_future
        target = batch["target"]
        predicted = points[:, delay:]
        target = target[:, : target.shape[1] - delay]
        loss = self.cfg.loss.l2_wt * (predicted - target).square().mean()
        with torch.no_grad():
            gap = [v[..., _TOP] - v[..., _BOTTOM] for v in (predicted, target)]
        return {"loss": loss, "opening_l1": (gap[0] - gap[1]).abs().mean().detach()}

    @torch.no_grad()
    def points(self, speech: Tensor) -> Tensor:
        """Speech features (N,2*hidden) of a clip -> displacements (N,75) of the same frames."""
        delay = self.cfg.data.frame_future
        return self.audio2feature(look_ahead(speech, delay)[None])[0, delay:]

    def evaluate_clip(self, clip: SpeechClip, mismatched: SpeechClip) -> ClipResult:
        device = next(self.parameters()).device

        def predict(speech: np.ndarray) -> np.ndarray:
            return self.points(torch.from_numpy(speech).to(device)).cpu().numpy()

        rows = {
            self.cfg.model: predict(clip.speech),
            "shuffled audio": predict(mismatched_sound(clip.speech, mismatched.speech)),
            "mean motion": np.zeros_like(clip.motion),
            "real": clip.motion,
        }
        return ClipResult({name: _compare(motion, clip.motion) for name, motion in rows.items()})


def _opening(motion: np.ndarray) -> np.ndarray:
    """Change of the gap between the inner lips, % of the eye distance."""
    return 100 * (motion[:, _TOP] - motion[:, _BOTTOM])


def _compare(motion: np.ndarray, real: np.ndarray) -> dict[str, float]:
    distance = np.square(motion - real).reshape(len(real), -1, 3).sum(-1)
    one, two = _opening(motion), _opening(real)
    defined = one.std() > 1e-6 and two.std() > 1e-6
    return {
        "L2": float(100 * np.sqrt(distance.mean())),
        "opening_error": float(np.abs(one - two).mean()),
        # Undefined for constant values, e.g. the mean motion; reported as 0.
        "opening_r": float(np.corrcoef(one, two)[0, 1]) if defined else 0.0,
        "opening_range": float(one.std()),
    }
