"""Shared by the audio2photoreal models: base class, front ends, tensors, masked losses."""

from __future__ import annotations

import argparse
import logging
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from talkingface.data.dataprocess.a2p.files import FACE_SIZE, POSE_SIZE, SAMPLE_RATE
from talkingface.errors import WeightsError
from talkingface.model.abilities import ClipResult
from talkingface.model.abstract_talkingface import AbstractTalkingFace
from talkingface.model.audio_driven_talkingface.a2p.a2p_statistics import MotionStatistics
from talkingface.model.audio_driven_talkingface.a2p.a2plip_networks import LipRegressor
from talkingface.model.layers.wav2vec1 import UNUSED
from talkingface.model.weights import extract_state_dict
from talkingface.utils.paths import resolve
from talkingface.utils.weights import load_strict, read_weights

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.data.dataset.a2p.a2p_dataset import SceneMotion

log = logging.getLogger(__name__)


def channels_of(cfg: Config, kind: str) -> int:
    """Values per frame: ``model_params.motion_dim``, or those of the dataset's motion."""
    if cfg.model_params.motion_dim:
        return cfg.model_params.motion_dim
    if kind == "pose":
        return POSE_SIZE
    of_motion = cfg.dataset_entry.meta.get("kind") == "motion"
    return FACE_SIZE if of_motion else cfg.codes.n


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
        def unused(key: str) -> bool:
            inner = key.replace("lip_model.audio_encoder.wav2vec_model.", "audio_model.")
            inner = inner.replace("audio_encoder.wav2vec_model.", "audio_model.")
            return inner.startswith(tuple(f"audio_model.{name}" for name in UNUSED))

        return {key: value for key, value in state.items() if not unused(key)}

    def initialize(self, data: Any) -> None:
        """Load the pretrained weights of the audio front end."""
        load_frontend(self.network, self.cfg)

    def result_notes(self, results: Sequence[ClipResult]) -> dict[str, str]:
        return partner_note(self.cfg)


def partner_note(cfg: Config) -> dict[str, str]:
    """The result note of a test on the partner's recordings (``data.flip_person``)."""
    if not cfg.data.flip_person:
        return {}
    return {"flip_person": "the real motion is that of the partner, another person"}


def load_frontend(network: nn.Module, cfg: Config) -> None:
    """Load the weights of the frozen front end from fairseq's file, for a new training."""
    if "audio" not in cfg or cfg.audio.frontend != "vqwav2vec":
        return
    required = {"activation": "gelu", "log_compression": cfg.audio.log_compression}
    load_fairseq(
        network.audio_model, cfg.audio.weights, "audio", required, cfg.trust_checkpoint,
        optional=("feature_aggregator.",),
    )  # fmt: skip


def load_fairseq(
    network: nn.Module,
    weights: str | None,
    section: str,
    required: Mapping[str, Any],
    trust: str | None,
    optional: tuple[str, ...] = (),
) -> None:
    """Load the weights of a front end from fairseq's file and compare its settings.

    Args:
        section: section of the configuration that names the file.
        required: required settings that cannot be derived from the weights.

    Raises:
        WeightsError: the file holds another network, or was trained with other settings.
    """
    if weights in (None, "random"):
        log.warning("%s.weights=random: the front end is an untrained network", section)
        return
    path = resolve(weights)
    content = read_weights(path, trust=trust)
    state = extract_state_dict(content, (), "")
    state = {k: v for k, v in state.items() if not k.startswith(UNUSED)}
    load_strict(network, state, source=str(path), network="front end", optional=optional)
    stored = vars(content.get("args") or argparse.Namespace())
    for key, value in required.items():
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
