"""Face model and voice of a training: what HeadGAN and Audio2Exp keep beside their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from talkingface.data.headgan.face_model import FaceModel
from talkingface.data.headgan.voice import Voice, restored
from talkingface.errors import WeightsError

if TYPE_CHECKING:
    from talkingface.config.config import Config


class LearntFace:
    """Face model and voice that a model was trained with: they travel in its checkpoint."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.model: FaceModel | None = None
        self.voice: Voice | None = None
        self.voice_units: tuple[list[float], list[float]] | None = None
        self._id = ""

    def learn_from(self, process: Any, vectors: list[np.ndarray]) -> None:
        """Take them from a preparation.

        Args:
            vectors: voice vectors of the training clips, for their units.
        """
        if process.training_clips:
            self.model, self.voice = process.face_model, process.voice
        if self.cfg.audio.normalize == "zscore" and vectors:
            every = np.concatenate(vectors)
            std = np.maximum(every.std(axis=0), 1e-3)
            self.voice_units = every.mean(axis=0).tolist(), std.tolist()

    def state(self) -> dict[str, Any]:
        """For :meth:`AbstractTalkingFace.other_parameter`."""
        state: dict[str, Any] = {"voice_units": self.voice_units}
        if self.model is not None:
            state["face_model_id"] = self.model.id
            state["face_model"] = _tensors(self.model.content())
        if self.voice is not None:
            state["characters"] = self.voice.encoder.id.split("-")[0]
            state["sound_classes"] = _tensors(self.voice.encoder.content())
        return state

    def load(self, values: Mapping[str, Any]) -> None:
        self.voice_units = values.get("voice_units")
        self._id = values.get("face_model_id", "")
        if values.get("face_model"):
            self.model = FaceModel.of_content(_arrays(values["face_model"]))
        if values.get("sound_classes") is not None and values.get("characters"):
            options, folder = self.cfg.audio, self.cfg.weights_dir
            content = _arrays(values["sound_classes"])
            self.voice = restored(options, folder, values["characters"], content)

    def or_of(self, process: Any) -> tuple[FaceModel, Voice]:
        """Face model and voice; weights that came without take those of the dataset.

        Raises:
            WeightsError: they were trained with another face model, or there is none.
        """
        if self.model is None and not process.cfg.filelist("train").is_file():
            raise WeightsError(
                "These weights hold no face model (official ones never do), and "
                f"{process.cfg.dataset} is not prepared, from which one could be learnt: "
                f"python run_talkingface.py --model={process.cfg.model} --dataset="
                f"{process.cfg.dataset} --stages=preprocess"
            )
        model = self.model or process.face_model
        if self._id and model.id != self._id:
            raise WeightsError(
                f"These weights were trained with the face model {self._id}, which only the .ckpt "
                f"of their run holds; the one of {self.cfg.dataset} is {model.id}."
            )
        return model, self.voice or process.voice

    def scaled(self, vectors: Tensor) -> Tensor:
        """Voice vectors in the units that the network was trained with."""
        if self.voice_units is None:
            return vectors
        mean, std = (vectors.new_tensor(values) for values in self.voice_units)
        return (vectors - mean) / std


def _tensors(content: Mapping[str, Any]) -> dict[str, Any]:
    return {k: torch.from_numpy(np.array(v)) if isinstance(v, np.ndarray) else v
            for k, v in content.items()}  # fmt: skip


def _arrays(content: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors of a checkpoint, or the lists that exported weights keep, as arrays."""
    return {k: v if isinstance(v, (str, float)) else np.asarray(v) for k, v in content.items()}
