"""Diffusion of sequences: training noise, guided DDIM sampling; schedules by diffusers.

The network predicts the clean sequence x_0. With these settings the DDIM scheduler of diffusers
equals the sampler of audio2photoreal up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from talkingface.model.sampling_steps import STEPS, checked_steps
from talkingface.utils.env import require


class Diffusion:
    """Cosine schedule (Nichol and Dhariwal 2021) over 1000 steps."""

    @cached_property
    def _diffusers(self) -> Any:
        return require("diffusers", why="Diffusion models")  # slow to import: only when needed

    def scheduler(self) -> Any:
        """A new DDIM scheduler for one sampling, which changes its state."""
        return self._diffusers.DDIMScheduler(
            num_train_timesteps=STEPS,
            beta_schedule="squaredcos_cap_v2",
            prediction_type="sample",
            clip_sample=False,
            set_alpha_to_one=True,  # otherwise the result of the last step is noisy
            steps_offset=0,
            timestep_spacing="leading",
        )

    @cached_property
    def alphas(self) -> Tensor:
        """(1000,) cumulative alpha: share of the signal in the variance at each step."""
        return self.scheduler().alphas_cumprod

    def add_noise(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """sqrt(a) clean + sqrt(1 - a) noise; t (B,) in 0..999."""
        a = self.alphas.to(clean.device)[t].to(clean.dtype).view(-1, *[1] * (clean.dim() - 1))
        return a.sqrt() * clean + (1 - a).sqrt() * noise

    @torch.no_grad()
    def sample(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        noise: Tensor,
        steps: int,
        progress: Callable[[], None] | None = None,
    ) -> Tensor:
        """Deterministic DDIM (eta 0) without clipping; returns the last prediction of x_0.

        Args:
            denoise: (x_t, t (B,)) -> x_0, with guidance if any.
            noise: (B,...) x at the start of the sampling.
            steps: a divisor of 1000.
            progress: called after each step.
        """
        checked_steps(steps)
        scheduler = self.scheduler()
        scheduler.set_timesteps(steps)
        x = clean = noise
        for t in scheduler.timesteps:
            clean = denoise(x, t.to(noise.device).expand(len(noise)))
            x = scheduler.step(clean, t, x, eta=0.0).prev_sample
            if progress is not None:
                progress()
        return clean


def guided(
    network: Callable[[Tensor, Tensor, Any], Tensor], with_it: Any, without: Any, scale: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """Classifier-free guidance (Ho and Salimans 2022) of x_0, both passes in one batch.

    Args:
        network: (x, t, condition) -> x_0.
        with_it, without: the condition and the empty one; both have the method ``beside``.
        scale: of the guidance; 1 is no guidance and needs a single pass.
    """
    if scale == 1:
        return lambda x, t: network(x, t, with_it)
    both = with_it.beside(without)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        conditional, unconditional = network(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        return unconditional + scale * (conditional - unconditional)

    return denoise
