"""A2P: the trained parts of audio2photoreal as one model of face and body."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from talkingface.errors import ConfigError
from talkingface.model.abstract_talkingface import AbstractTalkingFace, FrozenNetwork
from talkingface.model.audio_driven_talkingface.a2p_common import (
    clip_seed,
    other_sound,
    real_motion,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from talkingface.data.a2p.files import Stats
    from talkingface.data.dataset.a2p_dataset import MotionClip

# What the authors' files were trained with; their front ends lie in the files.
_HEARD: dict[str, Any] = {"audio": {"frontend": "vqwav2vec", "weights": "random"}}
_OFFICIAL: dict[str, dict[str, Any]] = {
    "face": {
        **_HEARD,
        "lips": {"frontend": "wav2vec", "n_vertices": 338},
        "model_params": {"legacy_positions": True},
    },
    "pose": {**_HEARD, "model_params": {"legacy_positions": True}},
    "guide": {**_HEARD, "model_params": {"legacy_positions": True, "pad_audio": False}},
}
_MODELS = {"face": "A2PFace", "pose": "A2PPose", "guide": "A2PGuide"}
_WHY = {"face": "the face", "pose": "the body", "guide": "the key poses"}


class A2P(AbstractTalkingFace):
    """Nothing of its own to train: a run joins trained parts and tests the whole.

    Faces come from A2PFace; bodies from A2PGuide, whose key poses A2PPose connects. Datasets of
    videos show no body, and have a face only.
    """

    clip_outputs: ClassVar[dict[str, dict[str, str]]] = {
        f"{part} {key}": spec
        for part in ("face", "pose")
        for key, spec in {
            "error": {"direction": "down", "unit": "root mean square, standard deviations"},
            "best_error": {"direction": "down", "unit": "error of the nearest of the samples"},
        }.items()
    }

    def frozen_networks(self) -> dict[str, FrozenNetwork]:
        weights = self.cfg.weights
        of_motion = self.cfg.dataset_entry.meta.get("kind") == "motion"
        wanted = [name for name in _MODELS if getattr(weights, name) is not None]
        if not of_motion:
            wanted = [name for name in wanted if name == "face"]
        if not {"face", "pose"} & set(wanted):
            raise ConfigError(
                "weights.face and weights.pose are null: nothing is left to generate"
                + ("" if of_motion else f"; {self.cfg.dataset} shows no body")
            )
        guided = "pose" in wanted and self.cfg.sampling.guide_source == "model"
        if guided and ("guide" not in wanted or weights.vq is None):
            raise ConfigError(
                "the body follows key poses: weights.guide and weights.vq must name networks. "
                "weights.pose=null leaves the body out; sampling.guide_source=gt follows the real "
                "key poses of test scenes."
            )
        if not guided:
            wanted = [name for name in wanted if name != "guide"]
        parts: dict[str, FrozenNetwork] = {}
        for name in wanted:
            parts[name] = FrozenNetwork(
                None,
                getattr(weights, name),
                files=(f"A2P/{self.cfg.dataset}_{name}.pt",),
                model=_MODELS[name],
                why=_WHY[name],
                required=True,
                generates=True,
                agree=("fps", "codes.n") if name == "face" else ("fps", "data.guide_step"),
                whole=_OFFICIAL[name],
            )
        if guided:
            parts["vq"] = FrozenNetwork(
                None,
                weights.vq,
                files=(f"A2P/{self.cfg.dataset}_vq.pth",),
                model="A2PGuideVQ",
                why="the tokens of key poses",
                required=True,
                generates=True,
                agree=("fps", "data.guide_step"),
                follows=("guide",),
                whole={},
            )
        if weights.renderer is not None:
            parts["renderer"] = FrozenNetwork(
                None,
                weights.renderer,
                model="HeadGAN",
                why="pictures of a head",
                required=True,
                generates=True,
                whole={},
            )
        return parts

    # -- generation --------------------------------------------------------------------------------

    @property
    def has_body(self) -> bool:
        return "pose" in self.frozen

    def key_poses(
        self, sound: np.ndarray, frames: int, samples: int, seed: int, stats: Stats | None = None
    ) -> np.ndarray:
        """(samples,K,C) key poses of a sound, in the units of the data."""
        guide, vq = self.frozen["guide"], self.frozen["vq"]
        sizes = [(part.cfg.vq.codes, part.cfg.vq.depth) for part in (guide, vq)]
        if sizes[0] != sizes[1] or guide.foreign_weights != vq.foreign_weights:
            raise ConfigError(
                "weights.guide and weights.vq do not belong together: a guide speaks the tokens of "
                f"the A2PGuideVQ that it was trained with ({sizes[0]} and {sizes[1]} codes and "
                "stages; official files go with official ones)"
            )
        guide.attach_frozen("vq", vq.network)
        tokens = guide.tokens(
            sound, frames, samples=samples, seed=seed, top_p=self.cfg.sampling.top_p
        )
        return vq.natural(vq.network.decode(tokens).cpu().numpy(), stats)

    def generate(
        self,
        sound: np.ndarray,
        frames: int,
        *,
        samples: int = 1,
        seed: int = 0,
        stats: Stats | None = None,
        real_keys: np.ndarray | None = None,
        progress: Callable[[], None] | None = None,
    ) -> dict[str, np.ndarray]:
        """Motions of a sound of any length, in the units of the data.

        Args:
            sound: (S,2) standardised.
            stats: units of the data, for official weights, which come without.
            real_keys: (K,C) key poses in the units of the data, for ``guide_source: gt``.

        Returns:
            ``face`` (samples,T,C), and with a body ``pose`` and ``pose_keys`` (samples,K,C).
        """
        options, made = self.cfg.sampling, {}
        more = {"samples": samples, "seed": seed, "steps": options.steps, "progress": progress}
        if "face" in self.frozen:
            face = self.frozen["face"]
            codes = face.sample(sound, frames, guidance=options.face_guidance, **more)
            made["face"] = face.natural(codes, stats)
        if self.has_body:
            pose = self.frozen["pose"]
            if real_keys is not None:
                keys = np.repeat(real_keys[None], samples, axis=0)
            else:
                keys = self.key_poses(sound, frames, samples, seed, stats)
            mean, std = pose.known_stats(stats).units("pose")
            poses = pose.sample(
                sound, frames, guide=(keys - mean) / std, guidance=options.pose_guidance, **more
            )
            made["pose"], made["pose_keys"] = pose.natural(poses, stats), keys
        return made

    def lips(self, sound: np.ndarray, frames: int) -> np.ndarray | None:
        """(T,V,3) lip points that the face followed, where its network hears lips."""
        face = self.frozen.get("face")
        if face is None or not hasattr(face.network, "lip_model"):
            return None
        return face.heard_lips(sound)[:frames]

    # -- tests -------------------------------------------------------------------------------------

    def test_facts(self) -> dict[str, str]:
        facts = {}
        if self.cfg.data.flip_person:
            facts["flip_person"] = "the real motion is that of the partner, another person"
        if not self.has_body:
            return facts
        # Its own name for the source of the key poses is part of every result.
        source = self.cfg.sampling.guide_source
        said = {"model": "model: key poses by A2PGuide", "gt": "gt: the real key poses of the test"}
        return {**facts, "guide_source": said[source]}

    def check_test_data(self, data: Any) -> None:
        for name in ("face", "pose"):
            if name in self.frozen:
                self.frozen[name].check_test_data(data)

    def sampled_with(self) -> dict[str, Any]:
        """Steps and guidance of each part, and the guide's nucleus, as they are used."""
        own, made = self.cfg.sampling, {}
        for name in ("face", "pose"):
            if name in self.frozen:
                part, given = self.frozen[name].cfg.sampler, getattr(own, f"{name}_guidance")
                made[name] = {
                    "steps": own.steps or part.steps,
                    "guidance": part.guidance if given is None else given,
                }
        if "guide" in self.frozen:
            usual = self.frozen["guide"].cfg.model_params.top_p
            made["top_p"] = usual if own.top_p is None else own.top_p
        return {**made, "guide_source": own.guide_source}

    def generate_motions(
        self, clip: MotionClip, donor: MotionClip
    ) -> dict[str, dict[str, np.ndarray]]:
        stats, frames = clip.stats, len(clip)
        keys = None
        if self.has_body and self.cfg.sampling.guide_source == "gt":
            step = self.frozen["pose"].cfg.data.guide_step
            keys = real_motion(clip, "pose")[0, ::step]
        more = {
            "samples": self.cfg.sampling.samples, "seed": clip_seed(clip, self.cfg.seed),
            "stats": stats, "real_keys": keys,
        }  # fmt: skip
        own = self.generate(clip.sound, frames, **more)
        wrong = self.generate(other_sound(clip, donor), frames, **more)
        result: dict[str, dict[str, np.ndarray]] = {}
        for part, made in own.items():
            if part.endswith("_keys"):
                result[part] = {self.cfg.model: made}
                continue
            real = real_motion(clip, part)
            result[part] = {
                self.cfg.model: made,
                "shuffled audio": wrong[part],
                "mean motion": np.broadcast_to(stats.units(part)[0], real.shape),
                "real": real,
            }
        return result

    def measure_motions(
        self, clip: MotionClip, motions: Mapping[str, Mapping[str, np.ndarray]]
    ) -> dict[str, dict[str, float]]:
        result: dict[str, dict[str, float]] = {}
        for part, rows in motions.items():
            if part.endswith("_keys"):
                continue
            for row, values in rows.items():
                found = self.frozen[part].compare(values, rows["real"][0], clip)
                named = {f"{part} {key}": found[key] for key in ("error", "best_error")}
                result.setdefault(row, {}).update(named)
        return result
