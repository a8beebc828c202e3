"""Audio2Exp: voice to expressions of HeadGAN's face model (not in the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from talkingface.data.dataprocess.headgan.voice import voice_size
from talkingface.data.face.topology import (
    EYE_CORNERS_LEFT,
    EYE_CORNERS_RIGHT,
    INNER_LIP_BOTTOM,
    INNER_LIP_TOP,
    LIPS,
)
from talkingface.errors import DataError, WeightsError
from talkingface.model.abilities import ClipResult, mismatched_sound
from talkingface.model.abstract_talkingface import AbstractTalkingFace, Batch, Tensors
from talkingface.model.image_driven_talkingface.headgan.headgan_statistics import HeadGANStatistics

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.data.dataset.headgan.audio2exp_dataset import ExpressionClip
    from talkingface.data.face.face_model import FaceModel

_RIDGE = 300.0  # penalty of the ridge regression, for standardised inputs
_AROUND = 4  # frames on each side in its input, every second one


class ExpressionRegressor(nn.Module):
    """GRU over voice vectors, (B,T,A) standardised -> (B,T,E) in units of the first coefficient."""

    def __init__(
        self, inputs: int, outputs: int, hidden: int, layers: int, dropout: float, both: bool
    ) -> None:
        super().__init__()
        options = {"dropout": dropout if layers > 1 else 0.0, "bidirectional": both}
        self.gru = nn.GRU(inputs, hidden, layers, batch_first=True, **options)
        self.head = nn.Linear(hidden * (1 + both), outputs)
        nn.init.zeros_(self.head.bias)

    def forward(self, voice: Tensor) -> Tensor:
        return self.head(self.gru(voice)[0])


class Audio2ExpStatistics(HeadGANStatistics):
    """Adds mean and standard deviation of the data and a ridge regression, the baseline.

    Attributes:
        units: mean and standard deviation of the voice vectors, and the unit of expressions: the
            standard deviation of the first coefficient.
        ridge: (A * frames + 1, E) weights of the ridge regression.
    """

    def __init__(self, cfg: Config, n_exp: int) -> None:
        super().__init__(cfg)
        self.n_exp = n_exp
        self.units: tuple[list[float], list[float], float] | None = None
        self.ridge: Tensor | None = None

    def fit(self, data: Any) -> None:
        super().fit(data)
        if self.model.n_exp != self.n_exp:
            raise DataError(
                f"the face model has {self.model.n_exp} expressions, but geometry.n_exp is "
                f"{self.n_exp}: set --geometry.n_exp={self.model.n_exp}"
            )
        voice = np.concatenate([clip.voice for clip in data.clips])
        std = np.maximum(voice.std(axis=0), 1e-3)
        self.units = (voice.mean(axis=0).tolist(), std.tolist(), float(self.model.exp_std[0]))
        self.ridge = self._fit_ridge(data.clips)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "units": self.units, "ridge": self.ridge}

    def load(self, values: Mapping[str, Any]) -> None:
        super().load(values)
        self.units = values.get("units")
        ridge = values.get("ridge")
        self.ridge = None if ridge is None else torch.as_tensor(ridge, dtype=torch.float32)

    def known_units(self) -> tuple[np.ndarray, np.ndarray, float]:
        """:attr:`units` as arrays; raises WeightsError if the weights hold none."""
        if self.units is None:
            raise WeightsError(
                "These weights of Audio2Exp hold no mean and standard deviation of the data. Take "
                "the .ckpt of the run, or keep weights.json and config.yaml beside the weights."
            )
        mean, std, scale = self.units
        return np.array(mean, np.float32), np.array(std, np.float32), float(scale)

    def _fit_ridge(self, clips: list[ExpressionClip]) -> Tensor:
        """Fit the ridge regression from the voice vectors of a few frames to the expression."""
        rows = [self.with_neighbours(clip.voice)[clip.valid] for clip in clips]
        targets = [clip.expression[clip.valid] for clip in clips]
        x = torch.from_numpy(np.concatenate(rows)).double()
        y = torch.from_numpy(np.concatenate(targets)).double()
        penalty = _RIDGE * torch.eye(x.shape[1], dtype=torch.float64)
        penalty[-1, -1] = 0.0
        return torch.linalg.solve(x.T @ x + penalty, x.T @ y).float()

    def with_neighbours(self, voice: np.ndarray) -> np.ndarray:
        """(T,A) -> (T,A * frames + 1) standardised vectors of neighbouring frames, and a 1."""
        mean, std, _ = self.known_units()
        values = (voice - mean) / std
        around = np.arange(len(values))[:, None] + np.arange(-_AROUND, _AROUND + 1, 2)
        rows = values[np.clip(around, 0, len(values) - 1)].reshape(len(values), -1)
        return np.concatenate([rows, np.ones((len(rows), 1), rows.dtype)], axis=1)


class Audio2Exp(AbstractTalkingFace):
    """Predicts the deviation from a person's mean expression, so that it works for any person.

    Trained on batches of ``Audio2ExpDataset``; the baseline is a ridge regression of the same data.
    """

    main_network: ClassVar[str] = "regressor"
    clip_outputs: ClassVar[dict[str, dict[str, str]]] = {
        "lip_R2": {"direction": "up", "unit": "share of the lips' variance that is explained"},
        "opening_error": {"direction": "down", "unit": "% of the eye distance"},
        "opening_r": {"direction": "up", "unit": "correlation of the lip opening"},
        "opening_range": {"direction": "real", "unit": "standard deviation, % of the eye distance"},
        "expression_L1": {"direction": "down", "unit": "mean over coefficients, of the first's sd"},
    }

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        size = cfg.model_params
        self.n_exp = cfg.geometry.n_exp
        options = size.hidden, size.layers, size.dropout, size.bidirectional
        self.regressor = ExpressionRegressor(voice_size(cfg.audio), self.n_exp, *options)
        self.statistics: Audio2ExpStatistics = Audio2ExpStatistics(cfg, self.n_exp)
        self._tables: dict[tuple[str, str], Tensor] = {}  # by device and type

    # -- training ----------------------------------------------------------------------------------

    def forward_train(self, batch: Batch) -> Tensors:
        mean, std, _ = self.statistics.known_units()
        voice = batch["audio"]
        scaled = (voice - voice.new_tensor(mean)) / voice.new_tensor(std)
        return {"expression": self.regressor(scaled.clamp(-5, 5))}

    def _lips(self, like: Tensor) -> Tensor:
        """(E,120) movement of the lips per coefficient, as a fraction of the eye distance."""
        key = (str(like.device), str(like.dtype))
        if key not in self._tables:
            model = self.statistics.model
            basis = model.exp_basis.reshape(len(model.mean), 3, -1)[list(LIPS)]
            table = basis.reshape(-1, basis.shape[-1]).T / _eye_distance(model.mean)
            self._tables[key] = like.new_tensor(table)
        return self._tables[key]

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        output = shared["expression"].float()
        scale = self.statistics.known_units()[2]
        target = batch["expression"][..., : self.n_exp] / scale
        valid = batch["valid"][..., None].to(output.dtype)
        weights = self.cfg.loss
        error = (output - target) * valid
        count = valid.sum().clamp(min=1)
        losses = {"l1": error.abs().sum() / (count * output.shape[-1])}
        both = valid[:, 1:] * valid[:, :-1]
        steps = (output.diff(dim=1) - target.diff(dim=1)) * both
        losses["velocity"] = steps.abs().sum() / (both.sum().clamp(min=1) * output.shape[-1])
        lips = scale * error @ self._lips(error)
        # In percent of the eye distance, so that its size is similar to the other terms.
        losses["mouth"] = 100 * lips.abs().sum() / (count * lips.shape[-1])
        total = losses["l1"] + weights.velocity_wt * losses["velocity"]
        return {"loss": total + weights.mouth_wt * losses["mouth"] / 10, **losses}

    # -- generation --------------------------------------------------------------------------------

    @torch.no_grad()
    def expressions(self, voice: np.ndarray, kind: str | None = None) -> np.ndarray:
        """Raw voice vectors (T,A) -> (T,E) deviations from the mean expression.

        Args:
            kind: ``gru`` or ``ridge``; None: ``model_params.kind``.
        """
        if (kind or self.cfg.model_params.kind) == "ridge":
            return self.statistics.with_neighbours(voice) @ self.statistics.ridge.numpy()
        device = next(self.parameters()).device
        audio = torch.from_numpy(np.ascontiguousarray(voice, np.float32))[None].to(device)
        output = self.forward_train({"audio": audio})["expression"][0]
        return output.float().cpu().numpy() * self.statistics.known_units()[2]

    def speak(self, wave: np.ndarray, fps: float, count: int, face: FaceModel) -> np.ndarray:
        """Sound (N,), 16 kHz mono -> (count,E) deviations from a person's mean expression.

        Raises:
            WeightsError: the model was trained with another face model than ``face``, or with
                another frame rate.
        """
        own, voice = self.statistics.model, self.statistics.voice
        if own is None or voice is None or own.id != face.id:
            raise WeightsError(
                "Audio2Exp and HeadGAN were trained with different face models. Train both on the "
                "same training list and geometry settings: --recipe=headgan does."
            )
        if self.cfg.fps != fps:
            raise WeightsError(f"Audio2Exp was trained at {self.cfg.fps:g} frames/s, not {fps:g}.")
        wave = wave[: round(count * 16000 / fps)]
        if not np.any(wave):
            return np.zeros((count, self.n_exp))
        return self.expressions(voice.vectors(*voice.features(wave, fps, count)))

    def evaluate_clip(self, clip: ExpressionClip, mismatched: ExpressionClip) -> ClipResult:
        wrong = mismatched_sound(clip.voice, mismatched.voice)
        rows = {
            self.cfg.model: self.expressions(clip.voice),
            "ridge regression": self.expressions(clip.voice, "ridge"),
            "shuffled audio": self.expressions(wrong),
            "mean motion": np.zeros_like(clip.expression),
            "real": clip.expression,
        }
        return ClipResult({name: self._compare(values, clip) for name, values in rows.items()})

    def _compare(self, expression: np.ndarray, clip: ExpressionClip) -> dict[str, float]:
        model, scale = self.statistics.model, self.statistics.known_units()[2]
        shapes = [model.shape(clip.neutral, e[clip.valid]) for e in (expression, clip.expression)]
        unit = 100 / _eye_distance(clip.neutral)
        lips = [unit * shape[:, list(LIPS)] for shape in shapes]
        gaps = [shape[:, INNER_LIP_TOP] - shape[:, INNER_LIP_BOTTOM] for shape in shapes]
        gaps = [unit * np.linalg.norm(gap, axis=-1) for gap in gaps]
        spread = np.square(lips[1] - lips[1].mean(axis=0)).sum()
        moves = min(gap.std() for gap in gaps) > 1e-6
        error = np.abs(expression - clip.expression)[clip.valid].mean()
        return {
            "lip_R2": float(1 - np.square(lips[0] - lips[1]).sum() / max(spread, 1e-12)),
            "opening_error": float(np.abs(gaps[0] - gaps[1]).mean()),
            # A motion without variance, such as the mean motion, has no correlation.
            "opening_r": float(np.corrcoef(*gaps)[0, 1]) if moves else 0.0,
            "opening_range": float(gaps[0].std()),
            "expression_L1": float(error / scale),
        }


def _eye_distance(mesh: np.ndarray) -> float:
    """Distance between the centres of the two eyes of a mesh (V,3)."""
    corners = EYE_CORNERS_LEFT, EYE_CORNERS_RIGHT
    left, right = (mesh[list(pair)].mean(axis=0) for pair in corners)
    return float(np.linalg.norm(left - right))
