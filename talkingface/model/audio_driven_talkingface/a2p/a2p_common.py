"""Shared by the audio2photoreal models: statistics, base class, front ends, masked losses."""

from __future__ import annotations

import argparse
import logging
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from talkingface.data.dataprocess.a2p.files import Stats
from talkingface.data.face.face_model import FaceModel
from talkingface.data.scenes import SAMPLE_RATE
from talkingface.errors import ConfigError, WeightsError
from talkingface.model.abilities import ClipResult
from talkingface.model.abstract_talkingface import AbstractTalkingFace
from talkingface.model.audio_driven_talkingface.a2p.a2plip_networks import LipRegressor
from talkingface.model.layers.wav2vec1 import UNUSED
from talkingface.model.statistics import TrainingStatistics, tensors
from talkingface.model.weights import extract_state_dict
from talkingface.utils.paths import resolve
from talkingface.utils.weights import load_strict, read_weights

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.data.dataset.a2p.a2p_dataset import SceneMotion

log = logging.getLogger(__name__)


class MotionStatistics(TrainingStatistics):
    """Mean and standard deviation of motion and sound over the training scenes.

    Args:
        kind: kind of the model's motion: ``face``, ``pose`` or ``lips``.

    Attributes:
        stats: None for weights without statistics, e.g. official ones.
        faces: face model of a dataset of videos, else None.
    """

    def __init__(self, cfg: Config, kind: str) -> None:
        super().__init__()
        self.cfg, self.kind = cfg, kind
        self.stats: Stats | None = None
        self.faces: FaceModel | None = None

    def fit(self, data: Any) -> None:
        self.stats = data.stats
        if not data.process.of_motion:
            self.faces = data.process.load_face_model()

    def state(self) -> dict[str, Any]:
        state = {"stats": self.stats, "faces": self.faces}
        return {k: None if v is None else tensors(v.content()) for k, v in state.items()}

    def load(self, values: Mapping[str, Any]) -> None:
        if values.get("stats") is not None:
            self.stats = Stats.of_content(values["stats"])
        if values.get("faces") is not None:
            self.faces = FaceModel.of_content(values["faces"])

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
            data.process.of_motion or self.faces.id != data.process.load_face_model().id
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


def lip_network(cfg: Config) -> LipRegressor:
    """The lip regressor of a configuration."""
    sizes = cfg.lips.model_dump(exclude={"weights"})
    return LipRegressor(**sizes, rate=SAMPLE_RATE, fps=cfg.fps)


def frontend_arguments(cfg: Config) -> dict[str, Any]:
    """Arguments of :class:`~talkingface.model.layers.dyad_sound.DyadSound`."""
    return {**cfg.audio.model_dump(exclude={"weights"}), "rate": SAMPLE_RATE, "fps": cfg.fps}


class A2PModel(AbstractTalkingFace):
    """Base of the models whose motion is standardised with the mean and standard deviation of the
    training data.

    Class attributes:
        kind: kind of motion: ``face``, ``pose`` or ``lips``.
    """

    kind: ClassVar[str] = "face"

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self.statistics: MotionStatistics = MotionStatistics(cfg, self.kind)

    @classmethod
    def remap_state_dict(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # Official files contain prediction heads of fairseq's models, which no network here has.
        lips = "audio_encoder.wav2vec_model."
        places = ("audio_model.", lips, f"lip_model.{lips}")
        unused = tuple(place + name for place in places for name in UNUSED)
        return {key: value for key, value in state.items() if not key.startswith(unused)}

    def initialize(self, data: Any) -> None:
        """Load the pretrained weights of the frozen audio front end, for a new training."""
        if "audio" in self.cfg and self.cfg.audio.frontend == "vqwav2vec":
            optional = ("feature_aggregator.",)
            load_fairseq(self.network.audio_model, self.cfg, "audio", optional, activation="gelu")

    def result_notes(self, results: Sequence[ClipResult]) -> dict[str, str]:
        return partner_note(self.cfg)


def partner_note(cfg: Config) -> dict[str, str]:
    """The result note of a test on the partner's recordings (``data.flip_person``)."""
    if not cfg.data.flip_person:
        return {}
    return {"flip_person": "the real motion is that of the partner, another person"}


def load_fairseq(
    network: nn.Module, cfg: Config, section: str, optional: tuple[str, ...] = (), **required: Any
) -> None:
    """Load the weights of a front end from fairseq's file and compare its settings.

    Args:
        section: section of the configuration that names the file.
        optional: prefixes of names that the file may lack or have in excess.
        required: settings, beside the compression, that cannot be derived from the weights.

    Raises:
        WeightsError: the file holds another network, or was trained with other settings.
    """
    options = cfg[section]
    if options.weights in (None, "random"):
        log.warning("%s.weights=random: the front end is an untrained network", section)
        return
    path = resolve(options.weights)
    content = read_weights(path, trust=cfg.trust_checkpoint)
    state = extract_state_dict(content, (), "")
    state = {k: v for k, v in state.items() if not k.startswith(UNUSED)}
    load_strict(network, state, source=str(path), network="front end", optional=optional)
    stored = vars(content.get("args") or argparse.Namespace())
    for key, value in {**required, "log_compression": options.log_compression}.items():
        if key in stored and stored[key] != value:
            raise WeightsError(
                f"{path} was trained with {key}={stored[key]}, not {value}: set "
                f"--{section}.{key}={str(stored[key]).lower()} if there is such a key"
            )


def real_motion(clip: SceneMotion, kind: str) -> np.ndarray:
    """(1,T,C) in the units of the data, with NaN in frames without a valid face."""
    mean, std = clip.stats.units(kind)
    motion = clip.motions[kind] * std + mean.reshape(-1)
    if kind == "face":
        motion[~clip.valid] = np.nan
    return motion[None]


def clip_seed(clip: SceneMotion, seed: int) -> int:
    """A different seed for each clip: the same noise for all clips would lower the diversity."""
    return zlib.crc32(f"{seed} {clip.id}".encode())


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of (B,T,C) over the frames with mask (B,T) 1 of each sample, then over the samples.

    Samples without such a frame count as 0 (the released code gets NaN).
    """
    total = (values * mask[..., None]).sum(dim=(1, 2))
    return (total / (mask.sum(dim=1).clamp(min=1) * values.shape[-1])).mean()


def sound_tensor(sound: np.ndarray, device: torch.device) -> Tensor:
    """(S,2) samples -> (1,S,2) float32."""
    return torch.from_numpy(np.ascontiguousarray(sound, np.float32))[None].to(device)
