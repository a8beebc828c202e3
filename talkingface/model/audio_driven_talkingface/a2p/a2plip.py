"""A2PLip: voice of this person to lip points; the authors published no training of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from talkingface.errors import ConfigError
from talkingface.model.abilities import ClipResult, mismatched_sound
from talkingface.model.abstract_talkingface import Batch, Tensors
from talkingface.model.audio_driven_talkingface.a2p.a2p_common import (
    A2PModel,
    lip_network,
    load_fairseq,
    masked_mean,
    sound_tensor,
)

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.data.dataset.a2p.a2p_dataset import SceneMotion


class A2PLip(A2PModel):
    """Lip points in standard deviations. Trained on batches of ``A2PLipDataset``."""

    kind: ClassVar[str] = "lips"
    main_network: ClassVar[str] = "regressor"
    clip_outputs: ClassVar[dict[str, dict[str, str]]] = {
        "lip_R2": {"direction": "up", "unit": "share of the lips' variance that is explained"},
        "lip_error": {"direction": "down", "unit": "mean distance of a point, standard deviations"},
        "opening_r": {"direction": "up", "unit": "correlation of the height of the lips"},
    }

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self.regressor = lip_network(cfg)

    def initialize(self, data: Any) -> None:
        super().initialize(data)
        options, count = self.cfg.lips, data.stats.units("lips")[0].size // 3
        if count != options.n_vertices:
            raise ConfigError(
                f"lips.n_vertices={options.n_vertices}, but the lips of {self.cfg.dataset} have "
                f"{count} points: set --lips.n_vertices={count}"
            )
        if options.frontend == "wav2vec":
            required = {"activation": "relu", "residual_scale": 0.5, "agg_zero_pad": False}
            network = self.regressor.audio_encoder.wav2vec_model
            load_fairseq(network, self.cfg, "lips", **required)

    def forward_train(self, batch: Batch) -> Tensors:
        return {"lips": self.regressor(batch["audio"][..., 0])}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        target, valid = batch["motion"], batch["valid"]
        lips = shared["lips"].flatten(2).float()[:, : target.shape[1]]
        losses = {"l2": masked_mean((lips - target).square(), valid)}
        both = valid[:, 1:] * valid[:, :-1]
        losses["velocity"] = masked_mean((lips.diff(dim=1) - target.diff(dim=1)).square(), both)
        return {"loss": losses["l2"] + self.cfg.loss.velocity * losses["velocity"], **losses}

    @torch.no_grad()
    def evaluate_clip(self, clip: SceneMotion, mismatched: SceneMotion) -> ClipResult:
        device = next(self.parameters()).device
        real = clip.motions["lips"]

        def predict(sound: np.ndarray) -> np.ndarray:
            lips = self.regressor(sound_tensor(sound, device)[..., 0])[0]
            return lips.flatten(1).cpu().numpy()

        rows = {
            self.cfg.model: predict(clip.sound),
            "shuffled audio": predict(mismatched_sound(clip.sound, mismatched.sound)),
            "mean motion": np.zeros_like(real),
            "real": real,
        }
        return ClipResult({k: compare_lips(lips, real, clip.valid) for k, lips in rows.items()})


def compare_lips(lips: np.ndarray, real: np.ndarray, valid: np.ndarray) -> dict[str, float]:
    """Errors of lip points (T,3V) against the real ones, over the frames with a face."""
    lips, real = lips[valid].astype(np.float64), real[valid].astype(np.float64)
    heights = [points.reshape(len(points), -1, 3)[..., 1] for points in (lips, real)]
    heights = [h.max(axis=1) - h.min(axis=1) for h in heights]
    moves = min(height.std() for height in heights) > 1e-4
    distance = np.linalg.norm((lips - real).reshape(len(lips), -1, 3), axis=-1)
    return {
        "lip_R2": float(1 - np.square(lips - real).sum() / max(np.square(real).sum(), 1e-9)),
        "lip_error": float(distance.mean()),
        # A motion without variance, such as the mean motion, has no correlation.
        "opening_r": float(np.corrcoef(*heights)[0, 1]) if moves else 0.0,
    }
