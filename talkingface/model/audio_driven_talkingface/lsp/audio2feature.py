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
    """LSTM whose answer comes ``data.frame_future`` frames late, after the sound that follows.

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
        return {"points": self.audio2feature(batch["audio"])}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        points = shared["points"].float()
        late = self.cfg.data.frame_future
        target = batch["target"]
        answered = points[:, late:]
        wanted = target[:, : target.shape[1] - late]
        loss = self.cfg.loss.l2_wt * (answered - wanted).square().mean()
        with torch.no_grad():
            gap = [v[..., _TOP] - v[..., _BOTTOM] for v in (answered, wanted)]
        return {"loss": loss, "opening_l1": (gap[0] - gap[1]).abs().mean().detach()}

    @torch.no_grad()
    def points(self, speech: Tensor) -> Tensor:
        """Whole speech (N,2*hidden) -> displacements (N,75) of the same frames."""
        late = self.cfg.data.frame_future
        return self.audio2feature(look_ahead(speech, late)[None])[0, late:]

    def evaluate_clip(self, clip: SpeechClip, mismatched: SpeechClip) -> ClipResult:
        device = next(self.parameters()).device

        def spoken(speech: np.ndarray) -> np.ndarray:
            return self.points(torch.from_numpy(speech).to(device)).cpu().numpy()

        rows = {
            self.cfg.model: spoken(clip.speech),
            "shuffled audio": spoken(mismatched_sound(clip.speech, mismatched.speech)),
            "mean motion": np.zeros_like(clip.motion),
            "real": clip.motion,
        }
        return ClipResult({name: _compare(made, clip.motion) for name, made in rows.items()})


def _opening(motion: np.ndarray) -> np.ndarray:
    """Change of the gap between the inner lips, % of the eye distance."""
    return 100 * (motion[:, _TOP] - motion[:, _BOTTOM])


def _compare(made: np.ndarray, real: np.ndarray) -> dict[str, float]:
    distance = np.square(made - real).reshape(len(real), -1, 3).sum(-1)
    one, two = _opening(made), _opening(real)
    both = one.std() > 1e-6 and two.std() > 1e-6
    return {
        "L2": float(100 * np.sqrt(distance.mean())),
        "opening_error": float(np.abs(one - two).mean()),
        # The mean motion has no correlation with anything.
        "opening_r": float(np.corrcoef(one, two)[0, 1]) if both else 0.0,
        "opening_range": float(one.std()),
    }
