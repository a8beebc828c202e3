"""Diffusion of any sequence: training noise, guided DDIM sampling; schedules by diffusers.

The network predicts the clean sequence x_0. diffusers' DDIM with these settings equals the sampler
of audio2photoreal to rounding (its spec, section 5).
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
        """A fresh DDIM scheduler; it keeps state while it samples."""
        return self._diffusers.DDIMScheduler(
            num_train_timesteps=STEPS,
            beta_schedule="squaredcos_cap_v2",
            prediction_type="sample",
            clip_sample=False,
            set_alpha_to_one=True,  # diffusers' presets differ: the last step would not be clean
            steps_offset=0,
            timestep_spacing="leading",
        )

    @cached_property
    def alphas(self) -> Tensor:
        """(1000,) share of the signal's variance that is left after each step."""
        return self.scheduler().alphas_cumprod

    def add_noise(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """sqrt(a) clean + sqrt(1 - a) noise; t (B,) in 0..999."""
        left = self.alphas.to(clean.device)[t].to(clean.dtype)
        left = left.view(-1, *[1] * (clean.dim() - 1))
        return left.sqrt() * clean + (1 - left).sqrt() * noise

    @torch.no_grad()
    def sample(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        noise: Tensor,
        steps: int,
        progress: Callable[[], None] | None = None,
    ) -> Tensor:
        """DDIM without fresh noise (eta 0), nothing clipped; the last prediction of x_0.

        Args:
            denoise: (x_t, t (B,)) -> x_0; guidance is its business.
            noise: (B,...) x at the last step.
            steps: a divisor of 1000.
            progress: called after each step.
        """
        checked_steps(steps)
        scheduler = self.scheduler()
        scheduler.set_timesteps(steps)
        x = made = noise
        for t in scheduler.timesteps:
            made = denoise(x, t.to(noise.device).expand(len(noise)))
            x = scheduler.step(made, t, x, eta=0.0).prev_sample
            if progress is not None:
                progress()
        return made


def guided(
    network: Callable[[Tensor, Tensor, Any], Tensor], with_it: Any, without: Any, scale: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """Classifier-free guidance (Ho and Salimans 2022) on x_0, both passes in one batch.

    Args:
        network: (x, t, condition) -> x_0.
        with_it, without: conditions that have ``beside``.
        scale: 1 leaves the condition as it is, in a single pass.
    """
    if scale == 1:
        return lambda x, t: network(x, t, with_it)
    both = with_it.beside(without)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        seen, blind = network(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        return blind + scale * (seen - blind)

    return denoise
