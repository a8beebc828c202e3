"""The networks that a run trains: their optimizers, wrappers and averaged weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from talkingface.model.abstract_talkingface import AbstractTalkingFace, networks_of_phase
from talkingface.trainer.optim import AveragedWeights, build_optimizer
from talkingface.trainer.runtime import Runtime

if TYPE_CHECKING:
    from talkingface.config.config import Config


class TrainedNetworks:
    """Wraps the networks of a model for the devices and creates an optimizer for each.

    Networks that no phase trains are only moved to the device.

    Args:
        model: on the CPU; its networks are replaced by wrapped ones until :meth:`unwrap`.

    Attributes:
        optimizers: by network.
        base_rates: by network; initial learning rate of each parameter group.
        average: of the main network's weights; None with ``optim.ema_decay`` 0.
    """

    def __init__(self, cfg: Config, model: AbstractTalkingFace, runtime: Runtime) -> None:
        self.model, self.runtime = model, runtime
        self.precision = cfg.precision
        self.optimizers: dict[str, Any] = {}
        self.base_rates: dict[str, list[float]] = {}
        trained = {name for phase in model.phases for name in networks_of_phase(model, phase)}
        for name, network in model.networks().items():
            if name not in trained:
                network.to(runtime.device)
                continue
            if cfg.channels_last:
                network.to(memory_format=torch.channels_last)
            optimizer = build_optimizer(cfg, name, network)
            self.base_rates[name] = [group["lr"] for group in optimizer.param_groups]
            wrapped, optimizer = runtime.setup(network, optimizer)
            setattr(model, name, wrapped)
            self.optimizers[name] = optimizer
        self.average = None
        if cfg.optim.ema_decay > 0:
            self.average = AveragedWeights(self.bare(model.main_network), cfg.optim.ema_decay)

    def bare(self, name: str) -> nn.Module:
        """A network without its wrapper."""
        return self.runtime.unwrap(getattr(self.model, name))

    def unwrap(self) -> None:
        """Replace the wrappers in the model by the bare networks."""
        for name in self.optimizers:
            setattr(self.model, name, self.bare(name))

    @contextlib.contextmanager
    def unwrapped(self) -> Iterator[None]:
        """The model without wrappers, e.g. for a pipeline that calls more than ``forward``."""
        wrapped = {name: getattr(self.model, name) for name in self.optimizers}
        self.unwrap()
        try:
            yield
        finally:
            for name, network in wrapped.items():
                setattr(self.model, name, network)

    @contextlib.contextmanager
    def only_requires_grad(self, names: list[str]) -> Iterator[None]:
        """Compute gradients for these networks only."""
        others = [self.bare(name) for name in self.optimizers if name not in names]
        for network in others:
            network.requires_grad_(False)
        try:
            yield
        finally:
            for network in others:
                network.requires_grad_(True)

    def step(self, names: list[str], limit: float | None) -> bool:
        """Clip gradients and step the optimizers; False, without a step, if one is not finite."""
        for name in names:
            network = getattr(self.model, name)
            norm = self.runtime.clip(network, self.optimizers[name], limit or math.inf)
            # With fp16 the gradient scaler skips steps that overflow.
            if self.precision != "16-mixed" and not bool(torch.isfinite(norm)):
                return False
        self.runtime.step([self.optimizers[name] for name in names])
        for name in names:
            self.optimizers[name].zero_grad(set_to_none=True)
        return True

    def zero_grad(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def update_average(self) -> None:
        if self.average is not None:
            self.average.update(self.bare(self.model.main_network))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The model with its averaged weights, if it has them."""
        if self.average is None:
            yield
            return
        network = self.bare(self.model.main_network)
        self.average.swap(network)
        try:
            yield
        finally:
            self.average.swap(network)
