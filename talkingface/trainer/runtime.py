"""Devices, processes and precision. The only file that imports Lightning Fabric."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from talkingface.errors import EnvironmentProblem

if TYPE_CHECKING:
    from talkingface.config.config import Config


def choose_device(name: str) -> torch.device:
    """The device of the key ``device``.

    Raises:
        EnvironmentProblem: the device is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise EnvironmentProblem(
            f"device={name}: PyTorch finds no CUDA device. Use --device=cpu, or check the driver "
            "('nvidia-smi') and that torch is a CUDA build (torch.version.cuda = "
            f"{torch.version.cuda})."
        )
    if name == "mps" and not torch.backends.mps.is_available():
        raise EnvironmentProblem("device=mps: PyTorch finds no Apple GPU. Use --device=cpu.")
    return torch.device(name)


def launched_rank() -> int:
    """Rank of this process if a launcher (torchrun or Fabric) started it, else 0."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))


def _own_methods(network: nn.Module) -> set[str]:
    """Public methods of the network's class that ``nn.Module`` has not."""
    classes = type(network).__mro__[: type(network).__mro__.index(nn.Module)]
    methods = {k for c in classes for k, v in vars(c).items() if inspect.isfunction(v)}
    return {name for name in methods if not name.startswith("_") and not hasattr(nn.Module, name)}


class Runtime:
    """Thin layer over Fabric, which another backend could replace.

    Args:
        cfg: uses ``device``, ``devices`` and ``precision``.
    """

    def __init__(self, cfg: Config) -> None:
        self.device = choose_device(cfg.device)
        if cfg.precision == "16-mixed" and self.device.type == "cpu":
            raise EnvironmentProblem(
                "precision=16-mixed needs a GPU; on a CPU use bf16-mixed or 32-true."
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from lightning_fabric import Fabric
            from lightning_fabric.strategies import DDPStrategy

        # If torchrun started the processes, its numbers override the configuration.
        count = int(os.environ.get("LOCAL_WORLD_SIZE", 0)) or cfg.devices
        world = int(os.environ.get("WORLD_SIZE", 0)) or count
        if self.device.type == "cuda":
            available = torch.cuda.device_count()
            if count > available:
                raise EnvironmentProblem(
                    f"devices={count}, but PyTorch finds {available} CUDA device(s)."
                )
        devices: Any = count
        if self.device.index is not None:  # cuda:1 and the devices after it
            devices = [self.device.index + number for number in range(count)]
            if self.device.type == "cuda" and devices[-1] >= torch.cuda.device_count():
                raise EnvironmentProblem(
                    f"device={cfg.device} and devices={count} need the CUDA devices {devices}, but "
                    f"PyTorch finds {torch.cuda.device_count()}."
                )
        # Other ranks wait at the first barrier while rank 0 prepares data, which may take hours.
        strategy: Any = "auto"
        if world > 1:  # some networks have layers that a loss does not use
            strategy = DDPStrategy(timeout=timedelta(days=2), find_unused_parameters=True)
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.fabric = Fabric(
                accelerator=self.device.type,
                devices=devices,
                num_nodes=max(world // count, 1),
                strategy=strategy,
                precision=cfg.precision,
            )
            self.fabric.launch()
        self.device = self.fabric.device
        self.rank, self.world_size = self.fabric.global_rank, self.fabric.world_size
        self.is_zero = self.rank == 0

    def setup(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        """Wrap one network and its optimizer.

        On one device also other methods than ``forward`` then run with ``precision``. With several
        processes Fabric refuses methods that call layers, since gradients would not be exchanged.
        """
        wrapped, optimizer = self.fabric.setup(network, optimizer)
        if self.world_size == 1:
            for name in _own_methods(network):
                method = getattr(network, name)
                # Not setattr, which Fabric passes on to the bare network.
                wrapped.__dict__[name] = self._with_precision(method)
        return wrapped, optimizer

    def _with_precision(self, method: Callable) -> Callable:
        @functools.wraps(method)
        def run(*args: Any, **kwargs: Any) -> Any:
            with self.fabric.autocast():
                return self.fabric._precision.convert_output(method(*args, **kwargs))

        return run

    @staticmethod
    def unwrap(network: nn.Module) -> nn.Module:
        """The bare network inside Fabric's wrapper."""
        from lightning_fabric.wrappers import is_wrapped

        return network.module if is_wrapped(network) else network

    def to_device(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Move the tensors of a batch."""
        return {
            key: value.to(self.device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in batch.items()
        }

    def backward(self, loss: Tensor) -> None:
        self.fabric.backward(loss)

    @contextlib.contextmanager
    def no_sync(self, networks: list[nn.Module], enabled: bool) -> Iterator[None]:
        """Skip the exchange of gradients between processes while batches are accumulated."""
        with contextlib.ExitStack() as stack:
            for network in networks:
                stack.enter_context(self.fabric.no_backward_sync(network, enabled=enabled))
            yield

    def clip(self, network: nn.Module, optimizer: Any, max_norm: float) -> Tensor:
        """Clip the gradient norm; returns the norm before clipping."""
        return self.fabric.clip_gradients(
            network, optimizer, max_norm=max_norm, error_if_nonfinite=False
        )

    def step(self, optimizers: list[Any]) -> None:
        """Step the optimizers of one backward pass.

        With fp16 the gradients of all were scaled alike: the scale changes after the last step.
        Fabric changes it after each, so that the next optimizer would divide a second time.
        """
        scaler = getattr(self.fabric._precision, "scaler", None)
        if scaler is None or len(optimizers) == 1:
            for optimizer in optimizers:
                optimizer.step()
            return
        for optimizer in optimizers:
            scaler.step(getattr(optimizer, "optimizer", optimizer))
        scaler.update()

    def sum(self, value: Tensor) -> Tensor:
        """Sum over all processes."""
        return self.fabric.all_reduce(value, reduce_op="sum") if self.world_size > 1 else value

    def any(self, flag: bool) -> bool:
        """Logical or over all processes."""
        if self.world_size == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=self.device)) > 0)

    def broadcast(self, value: Any) -> Any:
        return self.fabric.broadcast(value) if self.world_size > 1 else value

    def barrier(self) -> None:
        self.fabric.barrier()

    @staticmethod
    def close() -> None:
        """Destroy the process group, which ends gloo's threads; Fabric does this for NCCL only.

        A process that exits while such a thread runs may abort ("terminate called without an
        active exception"), so that a finished run would count as failed.
        """
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    def sync_buffers(self, network: nn.Module) -> None:
        """Copy the buffers of rank 0 to all ranks, since BatchNorm statistics differ by rank."""
        if self.world_size > 1:
            for buffer in self.unwrap(network).buffers():
                torch.distributed.broadcast(buffer, src=0)

    def scaler_state(self) -> dict[str, Any]:
        """State of the fp16 gradient scaler; empty for other formats."""
        return dict(self.fabric._precision.state_dict())

    def load_scaler_state(self, state: dict[str, Any]) -> None:
        if state:
            self.fabric._precision.load_state_dict(state)
