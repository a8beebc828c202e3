"""The state of a training that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from talkingface.model.component import component_sources
from talkingface.model.weights import extra_state
from talkingface.utils.seeding import set_rng_state
from talkingface.utils.system import versions

if TYPE_CHECKING:
    from talkingface.trainer.trainer import Trainer


@dataclass
class FitResult:
    """Outcome of a training."""

    best_score: float | None
    best_step: int
    steps: int
    epochs: int
    seconds: float
    reason: str


@dataclass
class Progress:
    """Counters of a run, which are saved in checkpoints."""

    epoch: int = 0
    batch_in_epoch: int = 0
    global_step: int = 0
    nan_batches: int = 0
    bad_validations: int = 0
    seconds: float = 0.0
    validation_due: bool = False  # a signal stopped the run between epoch and validation
    best: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, float] = field(default_factory=dict)  # of the key minutes: minutes, steps


def training_state(trainer: Trainer, rng: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that a resumed run needs, as tensors and plain values."""
    p, networks = trainer.progress, trainer.networks
    average = networks.average
    return {
        "model_name": trainer.cfg.model,
        "dataset_name": trainer.cfg.dataset,
        "config": trainer.cfg.to_yaml(),
        "config_hash": trainer.cfg.hash,
        "epoch": p.epoch,
        "global_step": p.global_step,
        "best_valid_score": p.best.get("value"),
        # Without the time, so that equal trainings give equal files.
        "progress": {**vars(p), "best": dict(p.best), "plan": dict(p.plan), "seconds": 0.0},
        "state_dict": {
            f"{name}.{key}": value
            for name in trainer.model.networks()
            for key, value in networks.bare(name).state_dict().items()
        },
        "ema_state_dict": {trainer.model.main_network: average.state_dict()} if average else None,
        "ema_updates": average.updates if average else 0,
        "optimizers": {name: opt.state_dict() for name, opt in networks.optimizers.items()},
        "schedule": trainer.schedule.state_dict(),
        "scaler": trainer.runtime.scaler_state(),
        "other_parameter": extra_state(trainer.model),
        "frozen_weights": component_sources(trainer.model.components),
        "rng": rng,
        "versions": versions(),
    }


def load_training_state(trainer: Trainer, state: Mapping[str, Any]) -> None:
    """Restore what :func:`training_state` returned, except for the networks."""
    for name, optimizer in trainer.networks.optimizers.items():
        if name in state["optimizers"]:
            optimizer.load_state_dict(state["optimizers"][name])
    if trainer.networks.average is not None and state.get("ema_state_dict"):
        trainer.networks.average.load_state_dict(
            state["ema_state_dict"][trainer.model.main_network], state["ema_updates"]
        )
    trainer.schedule.load_state_dict(state["schedule"])
    trainer.runtime.load_scaler_state(state["scaler"])
    trainer.progress = Progress(**state["progress"])
    set_rng_state(state["rng"][trainer.runtime.rank % len(state["rng"])])
