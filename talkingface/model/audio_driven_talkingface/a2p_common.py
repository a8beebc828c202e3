"""What the audio2photoreal models share: units, frozen hearing, sizes, names of official files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from talkingface.data.a2p.files import FACE_SIZE, POSE_SIZE, SAMPLE_RATE, Stats
from talkingface.errors import WeightsError
from talkingface.model.abstract_talkingface import AbstractTalkingFace
from talkingface.model.audio_driven_talkingface.a2plip_networks import LipRegressor
from talkingface.model.layers.wav2vec1 import UNUSED
from talkingface.model.weights import extract_state_dict, load_strict, read_weights
from talkingface.utils.paths import resolve

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.data.dataset.a2p_dataset import MotionClip

log = logging.getLogger(__name__)

# Keys that networks must share to hear the same.
HEARING = ("fps", "audio.frontend", "audio.bands", "audio.log_compression")
LIP_KEYS = tuple(
    f"lips.{key}"
    for key in (
        "frontend", "n_vertices", "width", "heads", "ff", "encoders", "decoders", "block", "bands",
        "log_compression",
    )
)  # fmt: skip


def channels_of(cfg: Config, kind: str, given: int | None) -> int:
    """Values per frame of a motion: given, or those of the dataset."""
    if given:
        return given
    if kind == "pose":
        return POSE_SIZE
    of_motion = cfg.dataset_entry.meta.get("kind") == "motion"
    return FACE_SIZE if of_motion else cfg.codes.n


def lip_network(cfg: Config) -> LipRegressor:
    """The lip regressor of a configuration."""
    sizes = cfg.lips.model_dump()
    return LipRegressor(**sizes, rate=SAMPLE_RATE, fps=cfg.fps)


def hearing_of(cfg: Config) -> dict[str, Any]:
    """Arguments of :class:`~talkingface.model.layers.dyad_sound.DyadSound`."""
    sound = cfg.audio
    return {
        "frontend": sound.frontend,
        "rate": SAMPLE_RATE,
        "fps": cfg.fps,
        "bands": sound.bands,
        "log_compression": sound.log_compression,
    }


class A2PModel(AbstractTalkingFace):
    """A network whose motion is standardised by statistics of the training data.

    Class attributes:
        kind: of the motion: ``face``, ``pose`` or ``lips``.
    """

    kind: ClassVar[str] = "face"

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self.stats: Stats | None = None
        self.faces: dict[str, Any] | None = None  # the face model behind codes of videos

    @classmethod
    def remap_state_dict(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # Heads of fairseq's models that official files carry along and nothing uses.
        def unused(key: str) -> bool:
            inner = key.replace("lip_model.audio_encoder.wav2vec_model.", "audio_model.")
            inner = inner.replace("audio_encoder.wav2vec_model.", "audio_model.")
            return inner.startswith(tuple(f"audio_model.{name}" for name in UNUSED))

        return {key: value for key, value in state.items() if not unused(key)}

    # -- units -------------------------------------------------------------------------------------

    def learn_from(self, data: Any) -> None:
        self.stats = data.stats
        if not data.process.of_motion:
            self.faces = data.process.faces.model.content()
        load_hearing(self.network, self.cfg)

    def other_parameter(self) -> dict[str, Any]:
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

    def load_other_parameter(self, values: Mapping[str, Any]) -> None:
        if values.get("stats") is not None:
            self.stats = Stats.of_content(values["stats"])
        if values.get("faces") is not None:
            self.faces = {
                key: v if isinstance(v, str) else np.asarray(v)
                for key, v in values["faces"].items()
            }

    def known_stats(self, stats: Stats | None = None) -> Stats:
        """Its own units, else those of the data: official weights come without.

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

    def natural(self, motion: np.ndarray, stats: Stats | None = None) -> np.ndarray:
        """(...,C) standardised -> units of the data."""
        mean, std = self.known_stats(stats).units(self.kind)
        return motion * std + mean.reshape(-1)


def load_hearing(network: nn.Module, cfg: Config) -> None:
    """Weights of the frozen front end, from fairseq's file, for a new training."""
    if "audio" not in cfg or cfg.audio.frontend != "vqwav2vec":
        return
    if cfg.audio.weights in (None, "random"):
        log.warning("audio.weights=%s: the sound is heard by an untrained network", "random")
        return
    path = resolve(cfg.audio.weights)
    content = read_weights(path, trust=cfg.trust_checkpoint)
    state = extract_state_dict(content, (), "")
    state = {k: v for k, v in state.items() if not k.startswith(UNUSED)}
    load_strict(
        network.audio_model, state, source=str(path), network="vq-wav2vec",
        optional=("feature_aggregator.",),
    )  # fmt: skip
    args = content.get("args")
    stored = getattr(args, "log_compression", None)
    if stored is not None and bool(stored) != cfg.audio.log_compression:
        raise WeightsError(
            f"{path} was trained with log_compression={bool(stored)}: set "
            f"--audio.log_compression={str(bool(stored)).lower()}"
        )


def other_sound(clip: MotionClip, donor: MotionClip) -> np.ndarray:
    """The sound of another clip, repeated or cut; that of a single one moved by half of it."""
    if donor is clip:
        return np.roll(clip.sound, len(clip.sound) // 2, axis=0)
    return np.resize(donor.sound, clip.sound.shape)


def marked(motion: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(N,T,C) with NaN in frames that do not count."""
    motion = np.array(motion, np.float32)
    motion[:, ~valid] = np.nan
    return motion


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of (B,T,C) over unmasked frames (B,T) of each sample, then over the samples; those
    without any count as 0 (the released code gets NaN)."""
    total = (values * mask[..., None]).sum(dim=(1, 2))
    return (total / (mask.sum(dim=1).clamp(min=1) * values.shape[-1])).mean()


def sound_tensor(sound: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(sound, np.float32))[None].to(device)
