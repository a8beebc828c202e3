"""A2PFace and A2PPose: motion by diffusion (facebookresearch/audio2photoreal)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from talkingface.data.face.topology import INNER_LIP_BOTTOM, INNER_LIP_TOP, LIPS, MOUTH_CORNERS
from talkingface.data.scenes import FACE_SIZE, POSE_SIZE
from talkingface.model.abilities import ClipResult, mismatched_sound
from talkingface.model.abstract_talkingface import Batch, Tensors
from talkingface.model.audio_driven_talkingface.a2p.a2p_common import (
    A2PModel,
    clip_seed,
    frontend_arguments,
    lip_network,
    masked_mean,
    real_motion,
    sound_tensor,
)
from talkingface.model.audio_driven_talkingface.a2p.a2p_networks import FiLMTransformer
from talkingface.model.diffusion import STEPS, Diffusion, guided
from talkingface.model.layers.windows import map_windows

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.data.dataset.a2p.a2p_dataset import SceneMotion

_GRID = (100, 300, 500, 700, 900)  # fixed diffusion steps, so that validation losses compare
_ABOVE, _BELOW = LIPS.index(INNER_LIP_TOP), LIPS.index(INNER_LIP_BOTTOM)
_LEFT, _RIGHT = (LIPS.index(corner) for corner in MOUTH_CORNERS)


class MotionDiffusion(A2PModel):
    """Base of A2PFace and A2PPose: losses, sampling of any length, evaluation.

    Args:
        more: arguments of the denoiser that only one of the two models has.
    """

    main_network: ClassVar[str] = "denoiser"
    clip_outputs: ClassVar[dict[str, dict[str, str]]] = {
        "error": {"direction": "down", "unit": "root mean square, standard deviations of the data"},
        "R2": {"direction": "up", "unit": "share of the variance that is explained"},
        "best_error": {"direction": "down", "unit": "error of the nearest of the samples"},
    }

    def __init__(self, cfg: Config, **more: Any) -> None:
        super().__init__(cfg)
        self.diffusion = Diffusion()
        of_motion = cfg.dataset_entry.meta.get("kind") == "motion"
        # Values per frame of the dataset's motion.
        sizes = {"pose": POSE_SIZE, "face": FACE_SIZE if of_motion else cfg.codes.n}
        self.denoiser = FiLMTransformer(
            cfg.model_params.motion_dim or sizes[self.kind],
            max_frames=cfg.data.max_seq_length,
            **cfg.model_params.model_dump(exclude={"motion_dim"}),
            **frontend_arguments(cfg),
            **more,
        )

    # -- training ----------------------------------------------------------------------------------

    def _noise(self, motion: Tensor) -> tuple[Tensor, Tensor]:
        """Diffusion steps (B,) and noise of the motion's shape; the same in each validation."""
        count = len(motion)
        if self.training:
            return torch.randint(STEPS, (count,), device=motion.device), torch.randn_like(motion)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(motion.shape, generator=generator).to(motion)
        t = torch.tensor(_GRID).repeat(math.ceil(count / len(_GRID)))[:count]
        return t.to(motion.device), noise

    def _keep(self, count: int, device: torch.device) -> Tensor:
        """(B,) bool: samples whose condition is not dropped."""
        if not self.training:
            return torch.ones(count, dtype=torch.bool, device=device)
        return torch.rand(count, device=device) >= self.cfg.loss.p_drop

    def forward_train(self, batch: Batch) -> Tensors:
        clean = batch["motion"]
        t, noise = self._noise(clean)
        x = self.diffusion.add_noise(clean, noise, t)
        guide = batch.get("keyframes")
        keep = self._keep(len(clean), clean.device)
        keep_guide = None if guide is None else self._keep(len(clean), clean.device)
        return {"motion": self.denoiser(x, t, batch["audio"], guide, keep, keep_guide).float()}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        clean, valid, motion = batch["motion"], batch["valid"], shared["motion"]
        losses = {"mse": masked_mean((motion - clean).square(), valid)}
        total = losses["mse"]
        if self.cfg.loss.lambda_vel:
            # Differences to a frame without a face do not count (the released code counts them).
            both = valid[:, 1:] * valid[:, :-1]
            change = (motion.diff(dim=1) - clean.diff(dim=1)).square()
            losses["velocity"] = masked_mean(change, both)
            total = total + self.cfg.loss.lambda_vel * losses["velocity"]
        return {"loss": total, **losses}

    # -- generation --------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        sound: np.ndarray,
        frames: int,
        *,
        samples: int = 1,
        seed: int = 0,
        guide: np.ndarray | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        progress: Callable[[], None] | None = None,
    ) -> np.ndarray:
        """Motions for a sound of any length.

        Long sounds are sampled in overlapping windows of the trained length. All windows take
        their part of the same noise and are cross-faded.

        Args:
            sound: (S,2) standardised.
            guide: (samples,K,C) standardised key poses, for a network with key poses.
            steps, guidance: None: the values of ``sampler``.
            progress: called after each diffusion step of each window.

        Returns:
            (samples, frames, C), standardised.
        """
        options, data = self.cfg.sampler, self.cfg.data
        network = self.denoiser
        step = network.guide_step or 1
        window = min(data.max_seq_length // step * step, math.ceil(frames / step) * step)
        # Windows begin at key poses, so that the key poses of a window are a slice of all.
        overlap = min(options.overlap, window // 2)
        stride = max(step, (window - overlap) // step * step)
        count = max(window, math.ceil(frames / step) * step)
        device = next(network.parameters()).device
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(count, samples, network.channels, generator=generator)
        frame = round(network.rate / network.fps)
        padded = np.zeros((count * frame, 2), np.float32)
        padded[: len(sound)] = sound[: len(padded)]
        scale = options.guidance if guidance is None else guidance

        def run(start: int, stop: int) -> dict[str, Tensor]:
            wave = sound_tensor(padded[start * frame : stop * frame], device)
            keys = None
            if guide is not None:
                first = start // step
                keys = torch.zeros(samples, (stop - start) // step, network.channels)
                given = torch.from_numpy(guide[:, first : first + keys.shape[1]]).float()
                keys[:, : given.shape[1]] = given
                keys = keys.to(device)
            # The sound is encoded once for all samples and steps.
            features, lips = network.encode_sound(wave), network.lips(wave)
            features = features.expand(samples, -1, -1)
            lips = None if lips is None else lips[:, : stop - start].expand(samples, -1, -1, -1)
            condition = network.condition(features, stop - start, lips, keys)
            absent = network.absent(samples, features.shape[1], stop - start)
            denoise = guided(network.denoise, condition, absent, scale)
            drawn = noise[start:stop].transpose(0, 1).to(device)
            motion = self.diffusion.sample(denoise, drawn, steps or options.steps, progress)
            return {"motion": motion.transpose(0, 1).flatten(1).cpu()}

        motion = map_windows(run, count, window, stride)["motion"]
        return motion.view(count, samples, -1).transpose(0, 1)[:, :frames].numpy()

    # -- evaluation --------------------------------------------------------------------------------

    def evaluate_clip(self, clip: SceneMotion, mismatched: SceneMotion) -> ClipResult:
        real, mean = real_motion(clip, self.kind), clip.stats.units(self.kind)[0].reshape(-1)
        # The same number of samples in each row: the Frechet distance depends on it.
        count, seed = self.cfg.sampler.samples, clip_seed(clip, self.cfg.seed)
        step = self.denoiser.guide_step  # a test follows the real key poses, if there are any
        keys = real[0, ::step] if step else None

        def generate(sound: np.ndarray) -> np.ndarray:
            guide = None
            if keys is not None:
                centre, std = self.statistics.or_of(clip.stats).units(self.kind)
                guide = np.repeat(((keys - centre) / std)[None], count, axis=0)
            motion = self.sample(sound, len(clip), samples=count, seed=seed, guide=guide)
            return self.statistics.denormalize(motion, clip.stats)

        rows = {
            self.cfg.model: generate(clip.sound),
            "shuffled audio": generate(mismatched_sound(clip.sound, mismatched.sound)),
            "mean motion": np.broadcast_to(mean, real.shape),
            "real": real,
        }
        motions = {self.kind: rows}
        if keys is not None:
            motions[f"{self.kind}_keys"] = {self.cfg.model: np.repeat(keys[None], count, axis=0)}
        return ClipResult(
            {row: self.compare(values, real[0], clip) for row, values in rows.items()},
            motions,
            {"key_step": step or 1},
        )

    def compare(self, motions: np.ndarray, real: np.ndarray, clip: SceneMotion) -> dict[str, float]:
        """Errors of (N,T,C) samples; ``error`` and ``R2`` are those of the first sample."""
        mean, std = self.statistics.or_of(clip.stats).units(self.kind)
        good = np.isfinite(real).all(axis=1)
        motions, real = ((values - mean) / std for values in (motions[:, good], real[good]))
        errors = np.sqrt(np.square(motions - real).mean(axis=(1, 2)))
        unexplained = np.square(motions[0] - real).sum()
        return {
            "error": float(errors[0]),
            "R2": float(1 - unexplained / max(np.square(real).sum(), 1e-9)),
            "best_error": float(errors.min()),
        }


class A2PFace(MotionDiffusion):
    """Face codes from the sound of both persons. Trained on batches of ``A2PFaceDataset``."""

    kind: ClassVar[str] = "face"
    clip_outputs: ClassVar[dict[str, dict[str, str]]] = {
        **MotionDiffusion.clip_outputs,
        "opening_r": {"direction": "up", "unit": "correlation of the lip opening (videos)"},
        "opening_error": {"direction": "down", "unit": "height of the gap, % of the face's size"},
        "width_error": {"direction": "down", "unit": "width of the mouth, % of the face's size"},
        "lip_error": {"direction": "down", "unit": "distance of a lip point, % of the face's size"},
    }

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg, lips=lip_network(cfg) if cfg.lip_cond == "a2plip" else None)

    def initialize(self, data: Any) -> None:
        super().initialize(data)
        if "lips" in self.components:  # the copy is saved with the denoiser
            self.denoiser.lip_model.load_state_dict(self.components["lips"].network.state_dict())

    @torch.no_grad()
    def predicted_lips(self, sound: np.ndarray) -> np.ndarray:
        """(T,V,3) lip points of a sound (S,2), in the units of the data if these are known."""
        device = next(self.denoiser.parameters()).device
        points = self.denoiser.lips(sound_tensor(sound, device))[0].cpu().numpy()
        stats = self.statistics.stats
        if stats is None or stats.lips_mean is None or stats.lips_mean.size != points[0].size:
            return points
        return points * stats.lips_std + stats.lips_mean.reshape(points.shape[1:])

    def compare(self, motions: np.ndarray, real: np.ndarray, clip: SceneMotion) -> dict[str, float]:
        result = super().compare(motions, real, clip)
        model = self.statistics.faces
        if model is None:
            return result
        lips = [model.lips(values[clip.valid]) for values in (motions[0], real)]
        gaps = [points[:, _BELOW, 1] - points[:, _ABOVE, 1] for points in lips]
        moves = min(gap.std() for gap in gaps) > 1e-6
        result["opening_error"] = float(100 * np.abs(gaps[0] - gaps[1]).mean())
        widths = [points[:, _RIGHT, 0] - points[:, _LEFT, 0] for points in lips]
        result["width_error"] = float(100 * np.abs(widths[0] - widths[1]).mean())
        distance = np.linalg.norm(lips[0] - lips[1], axis=-1)
        result["lip_error"] = float(100 * distance.mean())
        # A motion without variance, such as the mean motion, has no correlation.
        result["opening_r"] = float(np.corrcoef(*gaps)[0, 1]) if moves else 0.0
        return result


class A2PPose(MotionDiffusion):
    """Poses from the sound of both persons and key poses. Trained on ``A2PPoseDataset``.

    Tests of this model use the real key poses; tests of ``A2P`` use generated ones.
    """

    kind: ClassVar[str] = "pose"

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg, guide_step=cfg.data.guide_step)

    def result_notes(self, results: Sequence[ClipResult]) -> dict[str, str]:
        note = {"guide_source": "gt: the real key poses of the test scenes were followed"}
        return {**super().result_notes(results), **note}
