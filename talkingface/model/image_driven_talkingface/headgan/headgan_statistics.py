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

from talkingface.data.dataprocess.headgan.voice import Voice, restored
from talkingface.data.face.face_model import FaceModel
from talkingface.errors import StageError, WeightsError
from talkingface.model.statistics import TrainingStatistics
from talkingface.utils.paths import program

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)

_FARTHEST = 5.0  # standard deviations; beyond lies what training never held, such as pure zeros


class HeadGANStatistics(TrainingStatistics):
    """Face model and voice features of the training, which travel in the checkpoint.

    Attributes:
        model: None where weights came without, or were trained on the official tree.
        mean, std: of the training clips' voice vectors.
        official: trained on the official tree, whose drawings and voice cannot be made here.
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
            self.model = process.load_face_model()
            encoder = process.load_voice().encoder
            self._characters, self._classes = encoder.id, encoder.content()
        every = np.concatenate([clip.voice for clip in data.clips]).astype(np.float64)
        self.mean = every.mean(axis=0).tolist()
        self.std = np.maximum(every.std(axis=0), 1e-3).tolist()

    def check_resume(self, data: Any) -> None:
        process = data.process
        own = self.model.id if self.model else "", self._characters
        if self.official or not process.training_clips:
            return
        now = process.load_face_model().id, process.load_voice().encoder.id
        if own != now:
            raise StageError(
                f"This run was trained with the face model {own[0]} and the characters {own[1]}, "
                f"but the training clips now give {now[0]} and {now[1]}: clips were added, lost or "
                "prepared anew. Restore them, or start a new run (without --resume)."
            )

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "voice_mean": self.mean,
            "voice_std": self.std,
            "official_tree": self.official,
            "characters": self._characters,
            "sound_classes": _tensors(self._classes),
        }
        if self.model is not None:
            state["face_model"] = _tensors(self.model.content())
        return state

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
        """The voice of the training; None where weights came without.

        Raises:
            WeightsError: its character network is not there, or is another file.
        """
        kind = self._characters.split("-")[0]
        if not kind:
            return None
        voice = restored(self.cfg.audio, self.cfg.weights_dir, kind, self._classes)
        if kind.startswith("wav2vec2") and voice.encoder.id != self._characters:
            raise WeightsError(
                f"These weights were trained with the characters of {self._characters}, but the "
                f"file at hand gives {voice.encoder.id}."
            )
        return voice

    def or_of(self, process: Any) -> tuple[FaceModel, Voice]:
        """Face model and voice; weights that came without take those of the dataset.

        Raises:
            WeightsError: there are none that would suit.
        """
        if self.official:
            raise WeightsError(
                "These weights were trained on the official tree, whose drawings (LSFM) and voice "
                "(DeepSpeech) cannot be made here, so they generate no videos. Train on clips."
            )
        if self.model is not None:
            return self.model, self.voice or process.load_voice()
        if not process.cfg.filelist("train").is_file():
            raise WeightsError(
                "These weights hold no face model (official ones never do), and "
                f"{process.cfg.dataset} is not prepared, from which one could be learnt: "
                f"{program()} --model={process.cfg.model} --dataset="
                f"{process.cfg.dataset} --stages=preprocess"
            )
        log.warning(
            "these weights hold no face model; faces are drawn with that of %s and the voice is "
            "%s, neither of which they were trained with: expect poor pictures",
            process.cfg.dataset,
            process.load_voice().encoder.id,
        )
        return process.load_face_model(), process.load_voice()

    # -- vectors -----------------------------------------------------------------------------------

    def scaled(self, vectors: Tensor) -> Tensor:
        """Voice vectors in the units that the network was trained with."""
        if self.cfg.audio.normalize == "none" or self.mean is None:
            return vectors
        mean, std = (vectors.new_tensor(values) for values in (self.mean, self.std))
        return ((vectors - mean) / std).clamp(-_FARTHEST, _FARTHEST)

    def voice_vectors(
        self, voice: Voice, wave: np.ndarray, fps: float, count: int, stored: Path | None = None
    ) -> np.ndarray:
        """(count,A) vectors of a sound (N,), 16 kHz mono, in the network's units.

        Pure silence gives the mean of the training: digital silence lies far from
        everything that was trained on.
        """
        wave = wave[: round(count * 16000 / fps)]  # training sounds end with their pictures
        if not np.any(wave) and self.mean is not None:
            vectors = np.tile(np.array(self.mean, np.float32), (count, 1))
        else:
            vectors = voice.vectors(*voice.features(wave, fps, count, stored))
        return self.scaled(torch.from_numpy(vectors)).numpy()


def _tensors(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        k: torch.from_numpy(np.array(v)) if isinstance(v, np.ndarray) else v
        for k, v in content.items()
    }


def _arrays(content: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors of a checkpoint, or the lists that exported weights keep, as arrays."""
    return {k: v if isinstance(v, (str, float)) else np.asarray(v) for k, v in content.items()}
