"""A2PFace and A2PPose: motion by diffusion (facebookresearch/audio2photoreal)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from talkingface.data.face.face_model import FaceModel
from talkingface.data.face.topology import (
    INNER_LIP_BOTTOM,
    INNER_LIP_TOP,
    LIPS,
    MOUTH_CORNERS,
)
from talkingface.model.abilities import ClipResult, mismatched_sound
from talkingface.model.abstract_talkingface import Batch, Tensors
from talkingface.model.audio_driven_talkingface.a2p.a2p_common import (
    A2PModel,
    channels_of,
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

_GRID = (100, 300, 500, 700, 900)  # steps of the validation, so that it can be compared
_ABOVE, _BELOW = LIPS.index(INNER_LIP_TOP), LIPS.index(INNER_LIP_BOTTOM)
_LEFT, _RIGHT = (LIPS.index(corner) for corner in MOUTH_CORNERS)


class MotionDiffusion(A2PModel):
    """A denoising network: losses, sampling of any length, measures."""

    main_network: ClassVar[str] = "denoiser"
    clip_outputs: ClassVar[dict[str, dict[str, str]]] = {
        "error": {"direction": "down", "unit": "root mean square, standard deviations of the data"},
        "R2": {"direction": "up", "unit": "share of the variance that is explained"},
        "best_error": {"direction": "down", "unit": "error of the nearest of the samples"},
    }

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self.diffusion = Diffusion()
        self.denoiser = self._build()

    def _build(self) -> FiLMTransformer:
        raise NotImplementedError

    def _network(self, **more: Any) -> FiLMTransformer:
        size, cfg = self.cfg.model_params, self.cfg
        return FiLMTransformer(
            channels_of(cfg, self.kind, size.motion_dim),
            size.width,
            size.layers,
            size.heads,
            size.ff,
            size.dropout,
            cfg.data.max_seq_length,
            size.encoders,
            legacy_positions=size.legacy_positions,
            **more,
            **frontend_arguments(cfg),
        )

    # -- training ----------------------------------------------------------------------------------

    def _noise(self, motion: Tensor) -> tuple[Tensor, Tensor]:
        """Steps (B,) and noise like the motion; in validation the same each time."""
        count = len(motion)
        if self.training:
            return torch.randint(STEPS, (count,), device=motion.device), torch.randn_like(motion)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(motion.shape, generator=generator).to(motion)
        t = torch.tensor(_GRID).repeat(math.ceil(count / len(_GRID)))[:count]
        return t.to(motion.device), noise

    def _kept(self, count: int, device: torch.device) -> Tensor:
        """(B,) bool: samples that train with the condition."""
        if not self.training:
            return torch.ones(count, dtype=torch.bool, device=device)
        return torch.rand(count, device=device) >= self.cfg.loss.p_drop

    def forward_train(self, batch: Batch) -> Tensors:
        clean = batch["motion"]
        t, noise = self._noise(clean)
        x = self.diffusion.add_noise(clean, noise, t)
        guide, keep_guide = batch.get("keyframes"), None
        keep = self._kept(len(clean), clean.device)
        if guide is not None:
            keep_guide = self._kept(len(clean), clean.device)
        return {"motion": self.denoiser(x, t, batch["audio"], guide, keep, keep_guide).float()}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        clean, seen, made = batch["motion"], batch["valid"], shared["motion"]
        losses = {"mse": masked_mean((made - clean).square(), seen)}
        total = losses["mse"]
        if self.cfg.loss.lambda_vel:
            # Changes into and out of a missing face are no motion (upstream ignores this).
            both = seen[:, 1:] * seen[:, :-1]
            change = (made.diff(dim=1) - clean.diff(dim=1)).square()
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
        """Motions of a sound of any length.

        Windows of the trained length overlap; they start from one noise, so that they agree, and
        are cross-faded.

        Args:
            sound: (S,2) standardised.
            guide: (samples,K,C) standardised key poses, where the network follows some.
            steps, guidance: None: as configured.
            progress: called after each step of each window.

        Returns:
            (samples, frames, C), standardised.
        """
        options, data = self.cfg.sampler, self.cfg.data
        network = self.denoiser
        step = network.guide_step or 1
        window = min(data.max_seq_length // step * step, math.ceil(frames / step) * step)
        # Windows begin at key poses, so that those keep their places.
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
            made = self._window(
                wave, noise[start:stop].transpose(0, 1).to(device), keys, scale, steps, progress
            )
            return {"motion": made.transpose(0, 1).flatten(1).cpu()}

        made = map_windows(run, count, window, stride)["motion"]
        return made.view(count, samples, -1).transpose(0, 1)[:, :frames].numpy()

    def _window(
        self,
        wave: Tensor,
        noise: Tensor,
        guide: Tensor | None,
        scale: float,
        steps: int | None,
        progress: Callable[[], None] | None,
    ) -> Tensor:
        """(N,T,C) for one window; the sound is encoded once for all samples and steps."""
        network = self.denoiser
        samples, frames = noise.shape[:2]
        features, lips = network.encode_sound(wave), network.lips(wave)
        features = features.expand(samples, -1, -1)
        lips = None if lips is None else lips[:, :frames].expand(samples, -1, -1, -1)
        seen = network.condition(features, frames, lips, guide)
        blind = network.absent(samples, features.shape[1], frames)
        denoise = guided(network.denoise, seen, blind, scale)
        return self.diffusion.sample(denoise, noise, steps or self.cfg.sampler.steps, progress)

    # -- measures ----------------------------------------------------------------------------------

    def _guide_of(self, clip: SceneMotion) -> np.ndarray | None:
        """(K,C) key poses that tests follow, in the units of the data."""
        return None

    def evaluate_clip(self, clip: SceneMotion, mismatched: SceneMotion) -> ClipResult:
        real, mean = real_motion(clip, self.kind), clip.stats.units(self.kind)[0].reshape(-1)
        # As many samples in each row: a Frechet distance falls with the number of frames.
        count, seed = self.cfg.sampler.samples, clip_seed(clip, self.cfg.seed)
        keys = self._guide_of(clip)

        def made(sound: np.ndarray) -> np.ndarray:
            guide = None
            if keys is not None:
                centre, std = self.statistics.or_of(clip.stats).units(self.kind)
                guide = np.repeat(((keys - centre) / std)[None], count, axis=0)
            motion = self.sample(sound, len(clip), samples=count, seed=seed, guide=guide)
            return self.statistics.denormalize(motion, clip.stats)

        rows = {
            self.cfg.model: made(clip.sound),
            "shuffled audio": made(mismatched_sound(clip.sound, mismatched.sound)),
            "mean motion": np.broadcast_to(mean, real.shape),
            "real": real,
        }
        motions = {self.kind: rows}
        if keys is not None:
            motions[f"{self.kind}_keys"] = {self.cfg.model: np.repeat(keys[None], count, axis=0)}
        return ClipResult(
            {row: self.compare(values, real[0], clip) for row, values in rows.items()},
            motions,
            {"key_step": self.denoiser.guide_step or 1},
        )

    def compare(self, made: np.ndarray, real: np.ndarray, clip: SceneMotion) -> dict[str, float]:
        """Measures of (N,T,C) motions, of the first sample where they are of one."""
        mean, std = self.statistics.or_of(clip.stats).units(self.kind)
        good = np.isfinite(real).all(axis=1)
        made, real = ((values - mean) / std for values in (made[:, good], real[good]))
        errors = np.sqrt(np.square(made - real).mean(axis=(1, 2)))
        missed = np.square(made[0] - real).sum()
        return {
            "error": float(errors[0]),
            "R2": float(1 - missed / max(np.square(real).sum(), 1e-9)),
            "best_error": float(errors.min()),
        }


class A2PFace(MotionDiffusion):
    """Face codes from the sound of both persons. Batch of ``A2PFaceDataset``."""

    kind: ClassVar[str] = "face"
    clip_outputs: ClassVar[dict[str, dict[str, str]]] = {
        **MotionDiffusion.clip_outputs,
        "opening_r": {"direction": "up", "unit": "correlation of the lip opening (videos)"},
        "opening_error": {"direction": "down", "unit": "height of the gap, % of the face's size"},
        "width_error": {"direction": "down", "unit": "width of the mouth, % of the face's size"},
        "lip_error": {"direction": "down", "unit": "distance of a lip point, % of the face's size"},
    }

    def _build(self) -> FiLMTransformer:
        lips = lip_network(self.cfg) if self.cfg.lip_cond == "a2plip" else None
        return self._network(lips=lips)

    def initialize(self, data: Any) -> None:
        super().initialize(data)
        if "lips" in self.components:  # from now on a part of the network
            self.denoiser.lip_model.load_state_dict(self.components["lips"].network.state_dict())

    @torch.no_grad()
    def predicted_lips(self, sound: np.ndarray) -> np.ndarray:
        """(T,V,3) lip points of a sound (S,2), in the units of the data where those are known."""
        device = next(self.denoiser.parameters()).device
        points = self.denoiser.lips(sound_tensor(sound, device))[0].cpu().numpy()
        stats = self.statistics.stats
        if stats is None or stats.lips_mean is None or stats.lips_mean.size != points[0].size:
            return points
        return points * stats.lips_std + stats.lips_mean.reshape(points.shape[1:])

    def compare(self, made: np.ndarray, real: np.ndarray, clip: SceneMotion) -> dict[str, float]:
        result = super().compare(made, real, clip)
        if self.statistics.faces is None:
            return result
        model = FaceModel.of_content(self.statistics.faces)
        lips = [model.lips(values[clip.valid]) for values in (made[0], real)]
        gaps = [points[:, _BELOW, 1] - points[:, _ABOVE, 1] for points in lips]
        moves = min(gap.std() for gap in gaps) > 1e-6
        result["opening_error"] = float(100 * np.abs(gaps[0] - gaps[1]).mean())
        spans = [points[:, _RIGHT, 0] - points[:, _LEFT, 0] for points in lips]
        result["width_error"] = float(100 * np.abs(spans[0] - spans[1]).mean())
        apart = np.linalg.norm(lips[0] - lips[1], axis=-1)
        result["lip_error"] = float(100 * apart.mean())
        # The mean motion has no correlation with anything.
        result["opening_r"] = float(np.corrcoef(*gaps)[0, 1]) if moves else 0.0
        return result


class A2PPose(MotionDiffusion):
    """Poses from the sound of both persons and key poses. Batch of ``A2PPoseDataset``.

    Tests of this stage alone follow the real key poses; those of ``A2P`` follow generated ones.
    """

    kind: ClassVar[str] = "pose"

    def _build(self) -> FiLMTransformer:
        return self._network(guide_step=self.cfg.data.guide_step)

    def _guide_of(self, clip: SceneMotion) -> np.ndarray:
        return real_motion(clip, "pose")[0, :: self.cfg.data.guide_step]

    def result_notes(self, results: Sequence[ClipResult]) -> dict[str, str]:
        said = {"guide_source": "gt: the real key poses of the test scenes were followed"}
        return {**super().result_notes(results), **said}
