"""A2PLip: own voice to lip points; the training is ours."""

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
    """Lip points in units of their standard deviation. Batch of ``A2PLipDataset``."""

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
        options, found = self.cfg.lips, data.stats.units("lips")[0].size // 3
        if found != options.n_vertices:
            raise ConfigError(
                f"lips.n_vertices={options.n_vertices}, but the lips of {self.cfg.dataset} have "
                f"{found} points: set --lips.n_vertices={found}"
            )
        if options.frontend == "wav2vec":
            wanted = {
                "activation": "relu", "log_compression": options.log_compression,
                "residual_scale": 0.5, "agg_zero_pad": False,
            }  # fmt: skip
            load_fairseq(
                self.regressor.audio_encoder.wav2vec_model, options.weights, "lips", wanted,
                self.cfg.trust_checkpoint,
            )  # fmt: skip

    def forward_train(self, batch: Batch) -> Tensors:
        return {"lips": self.regressor(batch["audio"][..., 0])}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        made = shared["lips"].flatten(2).float()
        wanted, seen = batch["motion"], batch["valid"]
        made = made[:, : wanted.shape[1]]
        losses = {"l2": masked_mean((made - wanted).square(), seen)}
        both = seen[:, 1:] * seen[:, :-1]
        losses["velocity"] = masked_mean((made.diff(dim=1) - wanted.diff(dim=1)).square(), both)
        return {"loss": losses["l2"] + self.cfg.loss.velocity * losses["velocity"], **losses}

    @torch.no_grad()
    def evaluate_clip(self, clip: SceneMotion, mismatched: SceneMotion) -> ClipResult:
        device = next(self.parameters()).device
        real = clip.motions["lips"]

        def spoken(sound: np.ndarray) -> np.ndarray:
            made = self.regressor(sound_tensor(sound, device)[..., 0])[0]
            return made.flatten(1).cpu().numpy()

        rows = {
            self.cfg.model: spoken(clip.sound),
            "shuffled audio": spoken(mismatched_sound(clip.sound, mismatched.sound)),
            "mean motion": np.zeros_like(real),
            "real": real,
        }
        return ClipResult({k: compare_lips(made, real, clip.valid) for k, made in rows.items()})


def compare_lips(made: np.ndarray, real: np.ndarray, valid: np.ndarray) -> dict[str, float]:
    """Measures of lip points (T,3V) against real ones, over frames with a face."""
    made, real = made[valid].astype(np.float64), real[valid].astype(np.float64)
    heights = [points.reshape(len(points), -1, 3)[..., 1] for points in (made, real)]
    heights = [h.max(axis=1) - h.min(axis=1) for h in heights]
    moves = min(height.std() for height in heights) > 1e-4
    distance = np.linalg.norm((made - real).reshape(len(made), -1, 3), axis=-1)
    return {
        "lip_R2": float(1 - np.square(made - real).sum() / max(np.square(real).sum(), 1e-9)),
        "lip_error": float(distance.mean()),
        # The mean motion has no correlation with anything.
        "opening_r": float(np.corrcoef(*heights)[0, 1]) if moves else 0.0,
    }
