"""A2P: the trained parts of audio2photoreal as one model of face and body."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from talkingface.errors import ConfigError
from talkingface.model.abilities import ClipResult, mismatched_sound
from talkingface.model.abstract_talkingface import AbstractTalkingFace
from talkingface.model.audio_driven_talkingface.a2p.a2p_common import (
    clip_seed,
    real_motion,
)
from talkingface.model.component import Component

if TYPE_CHECKING:
    from talkingface.data.dataprocess.a2p.files import Stats
    from talkingface.data.dataset.a2p.a2p_dataset import SceneMotion


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

    # -- generation --------------------------------------------------------------------------------

    @property
    def has_body(self) -> bool:
        return "pose" in self.components

    def key_poses(
        self, sound: np.ndarray, frames: int, samples: int, seed: int, stats: Stats | None = None
    ) -> np.ndarray:
        """(samples,K,C) key poses of a sound, in the units of the data."""
        guide, vq = self.components["guide"].network, self.components["vq"].network
        sizes = [(part.cfg.vq.codes, part.cfg.vq.depth) for part in (guide, vq)]
        if sizes[0] != sizes[1] or guide.origin.official != vq.origin.official:
            raise ConfigError(
                "weights.guide and weights.vq do not belong together: a guide speaks the tokens of "
                f"the A2PGuideVQ that it was trained with ({sizes[0]} and {sizes[1]} codes and "
                "stages; official files go with official ones)"
            )
        guide.components["vq"] = Component(vq.network)
        tokens = guide.tokens(
            sound, frames, samples=samples, seed=seed, top_p=self.cfg.sampling.top_p
        )
        return vq.statistics.denormalize(vq.network.decode(tokens).cpu().numpy(), stats)

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
        if "face" in self.components:
            face = self.components["face"].network
            codes = face.sample(sound, frames, guidance=options.face_guidance, **more)
            made["face"] = face.statistics.denormalize(codes, stats)
        if self.has_body:
            pose = self.components["pose"].network
            if real_keys is not None:
                keys = np.repeat(real_keys[None], samples, axis=0)
            else:
                keys = self.key_poses(sound, frames, samples, seed, stats)
            mean, std = pose.statistics.or_of(stats).units("pose")
            poses = pose.sample(
                sound, frames, guide=(keys - mean) / std, guidance=options.pose_guidance, **more
            )
            made["pose"], made["pose_keys"] = pose.statistics.denormalize(poses, stats), keys
        return made

    def lips(self, sound: np.ndarray, frames: int) -> np.ndarray | None:
        """(T,V,3) lip points that the face followed, where its network predicts lips."""
        if "face" not in self.components:
            return None
        face = self.components["face"].network
        if not hasattr(face.network, "lip_model"):
            return None
        return face.predicted_lips(sound)[:frames]

    # -- tests -------------------------------------------------------------------------------------

    def result_notes(self, results: Sequence[ClipResult]) -> dict[str, str]:
        facts = {}
        if self.cfg.data.flip_person:
            facts["flip_person"] = "the real motion is that of the partner, another person"
        if not self.has_body:
            return facts
        # Its own name for the source of the key poses is part of every result.
        source = self.cfg.sampling.guide_source
        said = {"model": "model: key poses by A2PGuide", "gt": "gt: the real key poses of the test"}
        return {**facts, "guide_source": said[source]}

    def sampled_with(self) -> dict[str, Any]:
        """Steps and guidance of each part, and the guide's nucleus, as they are used."""
        own, made = self.cfg.sampling, {}
        for name in ("face", "pose"):
            if name in self.components:
                part, given = (
                    self.components[name].network.cfg.sampler,
                    getattr(own, f"{name}_guidance"),
                )
                made[name] = {
                    "steps": own.steps or part.steps,
                    "guidance": part.guidance if given is None else given,
                }
        if "guide" in self.components:
            usual = self.components["guide"].network.cfg.model_params.top_p
            made["top_p"] = usual if own.top_p is None else own.top_p
        return {**made, "guide_source": own.guide_source}

    def evaluate_clip(self, clip: SceneMotion, mismatched: SceneMotion) -> ClipResult:
        stats, frames = clip.stats, len(clip)
        keys, step = None, 1
        if self.has_body:
            step = self.components["pose"].network.cfg.data.guide_step
            if self.cfg.sampling.guide_source == "gt":
                keys = real_motion(clip, "pose")[0, ::step]
        more = {
            "samples": self.cfg.sampling.samples, "seed": clip_seed(clip, self.cfg.seed),
            "stats": stats, "real_keys": keys,
        }  # fmt: skip
        own = self.generate(clip.sound, frames, **more)
        wrong = self.generate(mismatched_sound(clip.sound, mismatched.sound), frames, **more)
        result = ClipResult(details={"key_step": step})
        for part, made in own.items():
            if part.endswith("_keys"):
                result.motions[part] = {self.cfg.model: made}
                continue
            real = real_motion(clip, part)
            result.motions[part] = {
                self.cfg.model: made,
                "shuffled audio": wrong[part],
                "mean motion": np.broadcast_to(stats.units(part)[0], real.shape),
                "real": real,
            }
            for row, values in result.motions[part].items():
                found = self.components[part].network.compare(values, real[0], clip)
                named = {f"{part} {key}": found[key] for key in ("error", "best_error")}
                result.values.setdefault(row, {}).update(named)
        return result
