"""Mean and standard deviation of audio2photoreal's motions, and the face model of face codes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from talkingface.data.dataprocess.a2p.files import Stats
from talkingface.data.face.face_model import FaceModel
from talkingface.errors import ConfigError, WeightsError
from talkingface.model.statistics import TrainingStatistics

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)


class MotionStatistics(TrainingStatistics):
    """Mean and standard deviation of motion and sound over the training scenes.

    Args:
        kind: kind of the model's motion: ``face``, ``pose`` or ``lips``.

    Attributes:
        stats: None for weights without statistics, e.g. official ones.
        faces: content of the face model of a dataset of videos, else None.
    """

    def __init__(self, cfg: Config, kind: str) -> None:
        super().__init__()
        self.cfg, self.kind = cfg, kind
        self.stats: Stats | None = None
        self.faces: dict[str, Any] | None = None

    def fit(self, data: Any) -> None:
        self.stats = data.stats
        if not data.process.of_motion:
            self.faces = data.process.load_face_model().content()

    def state(self) -> dict[str, Any]:
        stats = None if self.stats is None else self.stats.content()
        return {"stats": _tensors(stats), "faces": _tensors(self.faces)}

    def load(self, values: Mapping[str, Any]) -> None:
        if values.get("stats") is not None:
            self.stats = Stats.of_content(values["stats"])
        if values.get("faces") is not None:
            self.faces = {
                key: v if isinstance(v, str) else np.asarray(v)
                for key, v in values["faces"].items()
            }

    def check_resume(self, data: Any) -> None:
        stored = {} if self.stats is None else self.stats.content()
        now = data.stats.content()
        if not all(key in stored and np.array_equal(stored[key], now[key]) for key in now):
            raise ConfigError(
                f"The data of {self.cfg.dataset} has other units (mean and standard deviation) "
                "than when this run began: its training list or its scenes changed. Restore them, "
                "or start a new run."
            )

    def check_test(self, data: Any) -> None:
        if self.faces is not None and (
            data.process.of_motion
            or FaceModel.of_content(self.faces).id != data.process.load_face_model().id
        ):
            raise ConfigError(
                f"{self.cfg.model} was trained on the codes of another face model than "
                f"{data.cfg.dataset} has now, so the results would be meaningless. Test it on the "
                "data of its training with the same lists and codes.* keys, or train it again."
            )
        stored, now = {} if self.stats is None else self.stats.content(), data.stats.content()
        if stored.keys() == now.keys() and any(
            stored[key].shape != now[key].shape or not np.allclose(stored[key], now[key], rtol=1e-3)
            for key in now
        ):
            log.warning("%s was trained in other units than those of the data", self.cfg.model)

    def or_of(self, stats: Stats | None) -> Stats:
        """The statistics of the training, or ``stats`` where the weights hold none.

        Raises:
            WeightsError: neither exists.
        """
        stats = self.stats or stats
        if stats is None:
            raise WeightsError(
                f"These weights of {self.cfg.model} hold no mean and standard deviation of the "
                "motion. Take the .ckpt of a run, or keep data_stats.pth beside the scenes of the "
                "dataset and name the dataset."
            )
        return stats

    def denormalize(self, motion: np.ndarray, stats: Stats | None = None) -> np.ndarray:
        """(...,C) standardised -> units of the data."""
        mean, std = self.or_of(stats).units(self.kind)
        return motion * std + mean.reshape(-1)


def _tensors(content: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The content with arrays as tensors."""
    if content is None:
        return None
    return {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in content.items()}
