"""Units of audio2photoreal's motions, and the face model behind the codes of videos."""

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
        kind: of the model's motion: ``face``, ``pose`` or ``lips``.

    Attributes:
        stats: None where weights came without.
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
        made: dict[str, Any] = {"stats": None, "faces": None}
        if self.stats is not None:
            content = self.stats.content()
            made["stats"] = {key: torch.from_numpy(value) for key, value in content.items()}
        if self.faces is not None:
            made["faces"] = {
                key: torch.from_numpy(v) if isinstance(v, np.ndarray) else v
                for key, v in self.faces.items()
            }
        return made

    def load(self, values: Mapping[str, Any]) -> None:
        if values.get("stats") is not None:
            self.stats = Stats.of_content(values["stats"])
        if values.get("faces") is not None:
            self.faces = {
                key: v if isinstance(v, str) else np.asarray(v)
                for key, v in values["faces"].items()
            }

    def check_resume(self, data: Any) -> None:
        stored, now = self.stats, data.stats
        equal = stored is not None and all(
            key in stored.content() and np.array_equal(stored.content()[key], value)
            for key, value in now.content().items()
        )
        if not equal:
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
                f"{self.cfg.model} was trained on the face codes of another face model than that "
                f"of {data.cfg.dataset} as it is now: its numbers would mean nothing. Test it on "
                "the data of its training with the same lists and codes.* keys, or train it again."
            )
        if self.stats is not None and self.stats.content().keys() == data.stats.content().keys():
            pairs = zip(self.stats.content().values(), data.stats.content().values(), strict=True)
            if any(a.shape != b.shape or not np.allclose(a, b, rtol=1e-3) for a, b in pairs):
                log.warning("%s was trained in other units than those of the data", self.cfg.model)

    def or_of(self, stats: Stats | None) -> Stats:
        """The units of the training, else those of the data: official weights come without.

        Raises:
            WeightsError: there are none.
        """
        found = self.stats or stats
        if found is None:
            raise WeightsError(
                f"These weights of {self.cfg.model} come without the units of their values. Take "
                "the .ckpt of a run, or keep data_stats.pth beside the scenes of the dataset and "
                "name the dataset."
            )
        return found

    def denormalize(self, motion: np.ndarray, stats: Stats | None = None) -> np.ndarray:
        """(...,C) standardised -> units of the data."""
        mean, std = self.or_of(stats).units(self.kind)
        return motion * std + mean.reshape(-1)
