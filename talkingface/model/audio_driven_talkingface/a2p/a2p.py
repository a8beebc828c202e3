"""A2P: the trained models of audio2photoreal joined to one model of face and body."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from talkingface.errors import ConfigError
from talkingface.model.abilities import ClipResult, mismatched_sound
from talkingface.model.abstract_talkingface import AbstractTalkingFace
from talkingface.model.audio_driven_talkingface.a2p.a2p_common import (
    clip_seed,
    partner_note,
    real_motion,
)

if TYPE_CHECKING:
    from talkingface.data.dataprocess.a2p.files import Stats
    from talkingface.data.dataset.a2p.a2p_dataset import SceneMotion


class A2P(AbstractTalkingFace):
    """Has no parameters of its own: a run joins trained models and tests them together.

    A2PFace generates the face. A2PGuide generates key poses and A2PPose the body motion between
    them. Datasets of videos have a face only.
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

    def key_poses(
        self, sound: np.ndarray, frames: int, samples: int, seed: int, stats: Stats | None = None
    ) -> np.ndarray:
        """(samples,K,C) key poses of a sound, in the units of the data.

        Raises:
            ConfigError: guide and codec do not belong together.
        """
        guide, vq = self.components["guide"].network, self.components["vq"].network
        sizes = [(part.cfg.vq.codes, part.cfg.vq.depth) for part in (guide, vq)]
        if sizes[0] != sizes[1] or guide.origin.official != vq.origin.official:
            raise ConfigError(
                "weights.guide and weights.vq do not belong together: a guide predicts tokens of "
                f"the A2PGuideVQ that it was trained with ({sizes[0]} and {sizes[1]} codes and "
                "stages; official files go with official ones)"
            )
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
        """Motions for a sound of any length, in the units of the data.

        Args:
            sound: (S,2) standardised.
            stats: units of the data; needed for official weights, which hold none.
            real_keys: (K,C) key poses in the units of the data, for ``guide_source: gt``.

        Returns:
            ``face`` (samples,T,C), and with a body ``pose`` (samples,T,C) and ``pose_keys``
            (samples,K,C).
        """
        options, motions = self.cfg.sampling, {}
        more = {"samples": samples, "seed": seed, "steps": options.steps, "progress": progress}
        if "face" in self.components:
            face = self.components["face"].network
            codes = face.sample(sound, frames, guidance=options.face_guidance, **more)
            motions["face"] = face.statistics.denormalize(codes, stats)
        if "pose" in self.components:
            pose = self.components["pose"].network
            if real_keys is not None:
                keys = np.repeat(real_keys[None], samples, axis=0)
            else:
                keys = self.key_poses(sound, frames, samples, seed, stats)
            mean, std = pose.statistics.or_of(stats).units("pose")
            poses = pose.sample(
                sound, frames, guide=(keys - mean) / std, guidance=options.pose_guidance, **more
            )
            motions["pose"], motions["pose_keys"] = pose.statistics.denormalize(poses, stats), keys
        return motions

    # -- tests -------------------------------------------------------------------------------------

    def result_notes(self, results: Sequence[ClipResult]) -> dict[str, str]:
        notes = partner_note(self.cfg)
        if "pose" in self.components:
            sources = {
                "model": "model: key poses by A2PGuide",
                "gt": "gt: the real key poses of the test",
            }
            notes["guide_source"] = sources[self.cfg.sampling.guide_source]
        return notes

    def sampled_with(self) -> dict[str, Any]:
        """Steps and guidance of face and pose, and ``top_p`` of the guide, as they are used."""
        own, used = self.cfg.sampling, {}
        for name, given in (("face", own.face_guidance), ("pose", own.pose_guidance)):
            if name in self.components:
                trained = self.components[name].network.cfg.sampler
                guidance = trained.guidance if given is None else given
                used[name] = {"steps": own.steps or trained.steps, "guidance": guidance}
        if "guide" in self.components:
            trained = self.components["guide"].network.cfg.model_params
            used["top_p"] = trained.top_p if own.top_p is None else own.top_p
        return {**used, "guide_source": own.guide_source}

    def evaluate_clip(self, clip: SceneMotion, mismatched: SceneMotion) -> ClipResult:
        keys, step = None, self.cfg.data.guide_step
        if "pose" in self.components and self.cfg.sampling.guide_source == "gt":
            keys = real_motion(clip, "pose")[0, ::step]
        more = {
            "samples": self.cfg.sampling.samples, "seed": clip_seed(clip, self.cfg.seed),
            "stats": clip.stats, "real_keys": keys,
        }  # fmt: skip
        own = self.generate(clip.sound, len(clip), **more)
        wrong = self.generate(mismatched_sound(clip.sound, mismatched.sound), len(clip), **more)
        result = ClipResult(details={"key_step": step})
        for part, motions in own.items():
            if part.endswith("_keys"):
                result.motions[part] = {self.cfg.model: motions}
                continue
            real = real_motion(clip, part)
            result.motions[part] = {
                self.cfg.model: motions,
                "shuffled audio": wrong[part],
                "mean motion": np.broadcast_to(clip.stats.units(part)[0], real.shape),
                "real": real,
            }
            for row, values in result.motions[part].items():
                errors = self.components[part].network.compare(values, real[0], clip)
                named = {f"{part} {key}": errors[key] for key in ("error", "best_error")}
                result.values.setdefault(row, {}).update(named)
        return result
