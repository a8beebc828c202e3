"""Face model and voice features of the training split, for HeadGAN and Audio2Exp."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from talkingface.data.dataprocess.headgan.voice import Voice, encoder_of
from talkingface.data.face.face_model import FaceModel
from talkingface.errors import StageError, WeightsError
from talkingface.model.statistics import TrainingStatistics, tensors
from talkingface.utils.paths import program

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)

_FARTHEST = 5.0  # standard deviations; vectors of zeros would be far outside the training data


class HeadGANStatistics(TrainingStatistics):
    """Face model and voice of the training, which are stored in the checkpoint.

    Attributes:
        model: None for weights without a face model, or trained on the official tree.
        mean, std: of the voice vectors of the training clips.
        official: trained on the official tree, whose PNCC and voice the toolkit cannot compute.
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg = cfg
        self.model: FaceModel | None = None
        self.mean: list[float] | None = None
        self.std: list[float] | None = None
        self.official = False
        self._characters = ""
        self._classes: dict[str, Any] = {}

    def fit(self, data: Any) -> None:
        process = data.process
        self.official = not process.training_clips
        if not self.official:
            self.model = process.face_model
            encoder = process.voice.encoder
            self._characters, self._classes = encoder.id, encoder.content()
        voice = np.concatenate([clip.voice for clip in data.clips]).astype(np.float64)
        self.mean = voice.mean(axis=0).tolist()
        self.std = np.maximum(voice.std(axis=0), 1e-3).tolist()

    def check_resume(self, data: Any) -> None:
        process = data.process
        if self.official or not process.training_clips:
            return
        own = self.model.id if self.model else "", self._characters
        now = process.face_model.id, process.voice.encoder.id
        if own != now:
            raise StageError(
                f"This run was trained with the face model {own[0]} and the characters {own[1]}, "
                f"but the training clips now give {now[0]} and {now[1]}: clips were added, removed "
                "or prepared again. Restore them, or start a new run (without --resume)."
            )

    def state(self) -> dict[str, Any]:
        model = {} if self.model is None else {"face_model": tensors(self.model.content())}
        return {
            "voice_mean": self.mean,
            "voice_std": self.std,
            "official_tree": self.official,
            "characters": self._characters,
            "sound_classes": tensors(self._classes),
            **model,
        }

    def load(self, values: Mapping[str, Any]) -> None:
        self.mean, self.std = values.get("voice_mean"), values.get("voice_std")
        self.official = bool(values.get("official_tree"))
        self._characters = values.get("characters") or ""
        self._classes = _arrays(values.get("sound_classes") or {})
        self.__dict__.pop("voice", None)
        if values.get("face_model"):
            self.model = FaceModel.of_content(_arrays(values["face_model"]))

    @cached_property
    def voice(self) -> Voice | None:
        """The voice of the training; None for weights without one.

        Raises:
            WeightsError: the file of its character network is missing or another one.
        """
        kind = self._characters.split("-")[0]
        if not kind:
            return None
        options = self.cfg.audio
        voice = Voice(options, encoder_of(kind, options, self.cfg.weights_dir, self._classes))
        if kind.startswith("wav2vec2") and voice.encoder.id != self._characters:
            raise WeightsError(
                f"These weights were trained with the characters of {self._characters}, but the "
                f"present file gives {voice.encoder.id}."
            )
        return voice

    def or_of(self, process: Any) -> tuple[FaceModel, Voice]:
        """Face model and voice; those of the dataset for weights without them.

        Raises:
            WeightsError: neither the weights nor the dataset have suitable ones.
        """
        if self.official:
            raise WeightsError(
                "These weights were trained on the official tree, whose PNCC (LSFM) and voice "
                "(DeepSpeech) the toolkit cannot compute for videos. Train on clips."
            )
        if self.model is not None:
            return self.model, self.voice or process.voice
        cfg = process.cfg
        if not cfg.filelist("train").is_file():
            raise WeightsError(
                "These weights hold no face model (official ones never do), and none can be learnt "
                f"from {cfg.dataset}, which is not prepared: {program()} --model={cfg.model} "
                f"--dataset={cfg.dataset} --stages=preprocess"
            )
        model, voice = process.face_model, process.voice
        log.warning(
            "these weights hold no face model; those of %s and the voice %s are used, with which "
            "they were not trained: expect poor pictures", cfg.dataset, voice.encoder.id,
        )  # fmt: skip
        return model, voice

    # -- vectors -----------------------------------------------------------------------------------

    def scaled(self, vectors: Tensor) -> Tensor:
        """Voice vectors as the network was trained with: raw, or standardised and clamped."""
        if self.cfg.audio.normalize == "none" or self.mean is None:
            return vectors
        mean, std = (vectors.new_tensor(values) for values in (self.mean, self.std))
        return ((vectors - mean) / std).clamp(-_FARTHEST, _FARTHEST)

    def voice_vectors(
        self, voice: Voice, wave: np.ndarray, fps: float, count: int, stored: Path | None = None
    ) -> np.ndarray:
        """(count,A) voice vectors of a sound (N,), 16 kHz mono, scaled for the network.

        Digital silence gives the mean vector of the training, because its features are far
        outside the training data.
        """
        wave = wave[: round(count * 16000 / fps)]  # training sounds end with their pictures
        if not np.any(wave) and self.mean is not None:
            vectors = np.tile(np.array(self.mean, np.float32), (count, 1))
        else:
            vectors = voice.vectors(*voice.features(wave, fps, count, stored))
        return self.scaled(torch.from_numpy(vectors)).numpy()


def _arrays(content: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors of a checkpoint, or the lists that exported weights keep, as arrays."""
    return {k: v if isinstance(v, (str, float)) else np.asarray(v) for k, v in content.items()}
