"""What the audio2photoreal models share: units, front ends, sizes, names of official files."""

from __future__ import annotations

import argparse
import logging
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from talkingface.data.dataprocess.a2p.files import FACE_SIZE, POSE_SIZE, SAMPLE_RATE, Stats
from talkingface.data.face.face_model import FaceModel
from talkingface.errors import ConfigError, WeightsError
from talkingface.model.abstract_talkingface import AbstractTalkingFace
from talkingface.model.audio_driven_talkingface.a2p.a2plip_networks import LipRegressor
from talkingface.model.layers.wav2vec1 import UNUSED
from talkingface.model.weights import extract_state_dict
from talkingface.utils.paths import resolve
from talkingface.utils.weights import load_strict, read_weights

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.data.dataset.a2p.a2p_dataset import SceneMotion

log = logging.getLogger(__name__)

# Keys of the audio front end that networks must share.
FRONTEND_KEYS = ("fps", "audio.frontend", "audio.bands", "audio.log_compression")


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
    sizes = cfg.lips.model_dump(exclude={"weights"})
    return LipRegressor(**sizes, rate=SAMPLE_RATE, fps=cfg.fps)


def frontend_arguments(cfg: Config) -> dict[str, Any]:
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

    def fit_statistics(self, data: Any) -> None:
        self.stats = data.stats
        if not data.process.of_motion:
            self.faces = data.process.faces.content()
        load_frontend(self.network, self.cfg)

    def check_resume_compatible(self, data: Any) -> None:
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

    def check_test_data(self, data: Any) -> None:
        if self.faces is not None and (
            data.process.of_motion or FaceModel.of_content(self.faces).id != data.process.faces.id
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

    def result_notes(self) -> dict[str, str]:
        if not self.cfg.data.flip_person:
            return {}
        return {"flip_person": "the real motion is that of the partner, another person"}

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


def load_frontend(network: nn.Module, cfg: Config) -> None:
    """Weights of the frozen front end, from fairseq's file, for a new training."""
    if "audio" not in cfg or cfg.audio.frontend != "vqwav2vec":
        return
    wanted = {"activation": "gelu", "log_compression": cfg.audio.log_compression}
    load_fairseq(
        network.audio_model, cfg.audio.weights, "audio", wanted, cfg.trust_checkpoint,
        optional=("feature_aggregator.",),
    )  # fmt: skip


def load_fairseq(
    network: nn.Module,
    weights: str | None,
    section: str,
    wanted: Mapping[str, Any],
    trust: str | None,
    optional: tuple[str, ...] = (),
) -> None:
    """Weights of a front end out of fairseq's file, whose settings are compared.

    Args:
        section: of the configuration that names the file.
        wanted: settings that the weights do not show.

    Raises:
        WeightsError: another network, or trained with other settings.
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
    for key, value in wanted.items():
        if key in stored and stored[key] != value:
            raise WeightsError(
                f"{path} was trained with {key}={stored[key]}, not {value}: set "
                f"--{section}.{key}={str(stored[key]).lower()} if there is such a key"
            )


def mismatched_audio(clip: SceneMotion, mismatched: SceneMotion) -> np.ndarray:
    """The sound of another clip, repeated or cut; that of a single one moved by half of it."""
    if mismatched is clip:
        return np.roll(clip.sound, len(clip.sound) // 2, axis=0)
    return np.resize(mismatched.sound, clip.sound.shape)


def real_motion(clip: SceneMotion, kind: str) -> np.ndarray:
    """(1,T,C) in the units of the data, with NaN in frames without a valid face."""
    mean, std = clip.stats.units(kind)
    motion = clip.motions[kind] * std + mean.reshape(-1)
    if kind == "face":
        motion[~clip.valid] = np.nan
    return motion[None]


def clip_seed(clip: SceneMotion, seed: int) -> int:
    """A seed of its own for each clip: equal noise everywhere would lower the diversity."""
    return zlib.crc32(f"{seed} {clip.id}".encode())


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of (B,T,C) over unmasked frames (B,T) of each sample, then over the samples; those
    without any count as 0 (the released code gets NaN)."""
    total = (values * mask[..., None]).sum(dim=(1, 2))
    return (total / (mask.sum(dim=1).clamp(min=1) * values.shape[-1])).mean()


def sound_tensor(sound: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(sound, np.float32))[None].to(device)
