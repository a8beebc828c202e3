"""Optimizers, learning-rate schedules and the averaged copy of the weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from talkingface.config.config import Config

_LEARNERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
}
_MEASURED = 0.05  # share of a time budget after which the speed is taken as known


def build_optimizer(cfg: Config, name: str, network: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of one network; ``optim.groups.<name>`` overrides the settings of the run."""
    group = cfg.optim.groups.get(name)

    def pick(key: str, default: Any) -> Any:
        value = getattr(group, key) if group is not None else None
        return default if value is None else value

    learner = pick("learner", cfg.learner)
    options: dict[str, Any] = {
        "lr": pick("learning_rate", cfg.learning_rate),
        "weight_decay": pick("weight_decay", cfg.weight_decay),
    }
    if learner in ("adam", "adamw"):
        options["betas"] = tuple(pick("betas", cfg.optim.betas))
    parameters = [p for p in network.parameters() if p.requires_grad]
    return _LEARNERS[learner](parameters, **options)


class Pace:
    """Number of steps for a given time.

    Args:
        minutes: the time; None: not limited.
        started: ``time.monotonic`` at the start of the training, less the time of earlier starts.
        step: first step of this start.
    """

    def __init__(self, minutes: float | None, started: float, step: int) -> None:
        self.budget = 60 * minutes if minutes else None
        self._origin, self._since, self._first = started, time.monotonic(), step

    def total_steps(self, step: int) -> int | None:
        """Steps of the whole training; None before enough of the time has passed to know."""
        now = time.monotonic()
        if self.budget is None or now - self._since < _MEASURED * self.budget:
            return None
        speed = (step - self._first) / (now - self._since)
        return step + max(1, round(speed * (self._origin + self.budget - now)))


class Schedule:
    """Learning-rate factor as a function of the step.

    Only ``plateau`` has a state, the number of validations without improvement.

    Args:
        cfg: ``optim.scheduler`` and its settings.
        total_steps: steps of the whole run, for ``cosine`` and ``linear``.
        steps_per_epoch: for ``step``.
    """

    def __init__(self, cfg: Config, total_steps: int, steps_per_epoch: int) -> None:
        self.options = cfg.optim
        self.total_steps = max(total_steps, 1)
        self.epochs = cfg.epochs
        self.steps_per_epoch = max(steps_per_epoch, 1)
        self.plateau_factor = 1.0
        self.bad_validations = 0

    def factor(self, step: int, epoch: int = 0) -> float:
        """Factor of the initial learning rate at a step (0-based) of an epoch (0-based)."""
        options = self.options
        if options.warmup_steps and step < options.warmup_steps:
            return (step + 1) / options.warmup_steps
        span = max(self.total_steps - options.warmup_steps, 1)
        share = min(max(step - options.warmup_steps, 0) / span, 1.0)
        if options.scheduler == "cosine":
            return 0.5 * (1 + math.cos(math.pi * share))
        if options.scheduler == "linear":  # pix2pix: constant in the first half, then down to zero
            return min(1.0, 2 * (1 - share))
        if options.scheduler == "epochs":
            falling = self.epochs - options.constant_epochs
            late = max(0, epoch + 1 - options.constant_epochs)
            return max(0.0, 1 - late / max(falling + (not options.zero_last), 1))
        if options.scheduler == "milestones":
            return options.gamma ** sum(step >= at for at in options.milestones)
        if options.scheduler == "step":
            return options.gamma ** (step // self.steps_per_epoch // options.step_size)
        return self.plateau_factor

    def apply(
        self, optimizers: dict[str, Any], base: dict[str, list[float]], step: int, epoch: int = 0
    ) -> None:
        """Set the learning rates of a step; ``base`` has the initial ones."""
        factor = self.factor(step, epoch)
        for name, optimizer in optimizers.items():
            for group, rate in zip(optimizer.param_groups, base[name], strict=True):
                group["lr"] = rate * factor

    def after_validation(self, improved: bool) -> None:
        if self.options.scheduler != "plateau":
            return
        self.bad_validations = 0 if improved else self.bad_validations + 1
        if self.bad_validations > self.options.patience:
            self.plateau_factor *= self.options.gamma
            self.bad_validations = 0

    def state_dict(self) -> dict[str, float]:
        return {"plateau_factor": self.plateau_factor, "bad_validations": self.bad_validations}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.plateau_factor = float(state["plateau_factor"])
        self.bad_validations = int(state["bad_validations"])


class AveragedWeights:
    """Exponential moving average of a network's weights (EMA).

    The decay is at most ``(1 + n) / (10 + n)`` at update n, so that the first weights have little
    influence. Buffers such as BatchNorm statistics are averaged too; counters are copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.values = {k: v.detach().clone() for k, v in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for key, value in network.state_dict().items():
            mean = self.values[key]
            if mean.is_floating_point():
                mean.lerp_(value.to(mean.dtype), 1 - decay)
            else:
                mean.copy_(value)

    @torch.no_grad()
    def swap(self, network: nn.Module) -> None:
        """Exchange the network's weights with the average; call again to undo."""
        for key, value in network.state_dict().items():
            current = value.clone()
            value.copy_(self.values[key])
            self.values[key].copy_(current)

    def state_dict(self) -> dict[str, Tensor]:
        return self.values

    def load_state_dict(self, state: dict[str, Tensor], updates: int) -> None:
        for key, value in self.values.items():
            value.copy_(state[key])
        self.updates = updates
