"""The training loop: one for all models, GANs included.

A GAN is not another trainer but a model with two phases; see :meth:`Trainer.train_step`.
Everything that a resumed run needs is in the checkpoint, down to the position inside the epoch, so
``N`` steps equal ``k`` steps, a stop, and ``N - k`` more.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from talkingface.errors import ConfigError, Interrupted, StageError, WeightsError
from talkingface.model.abilities import (
    FollowsProgress,
    FollowsValidation,
    Visualizes,
    WatchesPlateau,
)
from talkingface.model.abstract_talkingface import AbstractTalkingFace, networks_of_phase
from talkingface.model.weights import (
    load_checkpoint,
    load_extra_state,
    restore_networks,
)
from talkingface.trainer.checkpoint import save_checkpoint
from talkingface.trainer.loggers import RunLogger
from talkingface.trainer.meter import LossMeter, PlateauWatch
from talkingface.trainer.networks import TrainedNetworks
from talkingface.trainer.optim import Schedule
from talkingface.trainer.runtime import Runtime
from talkingface.trainer.signals import StopRequest
from talkingface.trainer.state import FitResult, Progress, load_training_state, training_state
from talkingface.trainer.validation import Scorer, mean_losses
from talkingface.utils.logs import progress
from talkingface.utils.seeding import get_rng_state, preserve_rng

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)


def epoch_batches(loader: DataLoader, epochs: int) -> list[int]:
    """Batches of each epoch, at least one; some datasets begin with short epochs."""
    before, start = loader.sampler.epoch, loader.sampler.start
    found = []
    for epoch in range(epochs):
        loader.sampler.set_position(epoch, 0)
        found.append(max(len(loader), 1))
    loader.sampler.set_position(before, start)
    return found


class Trainer:
    """Trains a model.

    Args:
        cfg: the run's configuration.
        model: on the CPU, not wrapped.
        runtime: devices and processes.
        checkpoint_dir: where ``last.ckpt`` and ``best.ckpt`` go; None keeps nothing.
        logger: TensorBoard and ``metrics.jsonl``.
        scorer: needed when ``valid_metric`` names a metric of the evaluator.
    """

    def __init__(
        self,
        cfg: Config,
        model: AbstractTalkingFace,
        runtime: Runtime,
        checkpoint_dir: Path | None = None,
        logger: RunLogger | None = None,
        scorer: Scorer | None = None,
    ) -> None:
        self.cfg, self.model, self.runtime = cfg, model, runtime
        self.checkpoint_dir = checkpoint_dir if cfg.saved else None
        self.logger = logger or RunLogger(None, None)
        self.scorer = scorer
        self.progress = Progress()
        self.phases = model.phases
        self._check_options()
        self._resume_state: dict[str, Any] | None = None
        self.stop = StopRequest()
        self.meter = LossMeter()
        self.plateau = PlateauWatch(model.plateau if isinstance(model, WatchesPlateau) else None)
        self._last_save = time.monotonic()

    # -- setup ------------------------------------------------------------------------------------

    def _check_options(self) -> None:
        # A network that this configuration leaves out (a GAN's discriminator) keeps its settings.
        phases = type(self.model).phases
        groups = dict.fromkeys((*self.model.networks(), *phases))
        for section, known in (("groups", groups), ("phases", phases)):
            for name in getattr(self.cfg.optim, section):
                if name not in known:
                    raise ConfigError(
                        f"optim.{section}.{name}: {self.cfg.model} has only: {', '.join(known)}"
                    )

    def resume_checkpoint(self, path: Path, *, same_run: bool = True) -> None:
        """Go on from a checkpoint when :meth:`fit` starts.

        Args:
            same_run: False when the run goes on in another folder: its best is not there.

        Raises:
            WeightsError: not a checkpoint of this model.
        """
        state = load_checkpoint(path)
        if state["model_name"] != self.cfg.model:
            raise WeightsError(f"{path} belongs to {state['model_name']}, not to {self.cfg.model}")
        self._resume_state = state
        p = state["progress"]
        if not same_run or p["best"].get("metric", self.cfg.valid_metric) != self.cfg.valid_metric:
            p.update(best={}, bad_validations=0)
        log.info(
            "resuming from %s: epoch %d, batch %d, step %d",
            path,
            p["epoch"] + 1,
            p["batch_in_epoch"],
            p["global_step"],
        )

    def _setup(self, steps_per_epoch: int, total_steps: int) -> None:
        """Load weights, make optimizers, wrap the networks, load the rest of a resumed state."""
        state = self._resume_state
        if state is not None:
            restore_networks(self.model, state, averaged=False)
            load_extra_state(self.model, state["other_parameter"])
        self.networks = TrainedNetworks(self.cfg, self.model, self.runtime)
        for component in self.model.components.values():
            component.network.to(self.runtime.device)
        self.total_steps = max(total_steps, 1)
        self.schedule = Schedule(self.cfg, total_steps, steps_per_epoch)
        if state is not None:
            load_training_state(self, state)

    # -- the loop ---------------------------------------------------------------------------------

    def fit(self, train_data: DataLoader, valid_data: DataLoader | None = None) -> FitResult:
        """Train until ``epochs``, ``max_steps``, ``max_minutes``, early stop or a signal.

        Raises:
            Interrupted: SIGINT or SIGTERM; ``last.ckpt`` was written.
            StageError: too many batches with NaN.
        """
        accumulate = self.cfg.optim.accumulate
        steps = [-(-n // accumulate) for n in epoch_batches(train_data, self.cfg.epochs)]
        steps_per_epoch = steps[0] if steps else 1
        total = self.cfg.max_steps or sum(steps)
        self._setup(steps_per_epoch, total)
        started = time.monotonic()
        before = self.progress.seconds
        deadline = started + 60 * self.cfg.max_minutes if self.cfg.max_minutes else math.inf
        reason = f"reached {total} steps"
        with self.stop.watching():
            if self.progress.validation_due and valid_data is not None:
                self._validate(valid_data)
            while self.progress.global_step < total:
                late = self._train_epoch(train_data, total, deadline)
                self.progress.seconds = before + time.monotonic() - started
                ended = self.progress.batch_in_epoch == 0
                over = self.progress.global_step >= total or late
                every = self.cfg.eval_step
                validate = valid_data is not None and every > 0
                at_epoch = ended and self.progress.epoch % max(every, 1) == 0
                validate = validate and (over or at_epoch)
                self.progress.validation_due = validate
                self._stop_if_signalled()
                patience_over = False
                if validate:
                    if self.scorer is not None or self._save_is_due():
                        self._save("last.ckpt")  # a validation may be long
                    patience_over = self._validate(valid_data)
                if self.cfg.keep_every and ended and self.progress.epoch % self.cfg.keep_every == 0:
                    self._save(f"epoch_{self.progress.epoch:04d}.ckpt")
                if validate or over or patience_over or self._save_is_due():
                    self._save("last.ckpt")
                self._stop_if_signalled()
                if patience_over:
                    reason = f"no progress in {self.cfg.stopping_step} validations"
                    break
                if late:
                    reason = f"reached {self.cfg.max_minutes} minutes"
                    break
        if self.checkpoint_dir is not None and not (self.checkpoint_dir / "best.ckpt").exists():
            self._save("best.ckpt")
        self.networks.unwrap()
        p = self.progress
        return FitResult(
            p.best.get("value"),
            p.best.get("step", p.global_step),
            p.global_step,
            p.epoch,
            p.seconds,
            reason,
        )

    def _train_epoch(self, loader: DataLoader, total: int, deadline: float) -> bool:
        """One epoch, or the rest of one; leaves early at ``total`` steps, deadline or signal.

        Returns:
            True when the deadline has passed.
        """
        p = self.progress
        loader.sampler.set_position(p.epoch, 0)
        batches = len(loader)  # of the whole epoch
        loader.sampler.set_position(p.epoch, p.batch_in_epoch * loader.batch_size)
        self.model.train()
        self.meter.clear()
        waited, began = 0.0, time.monotonic()
        items = 0
        late = False
        bar = progress(
            total=batches,
            initial=p.batch_in_epoch,
            leave=False,
            unit="batch",
            show=self.cfg.show_progress if self.runtime.is_zero else False,
            desc=f"epoch {p.epoch + 1} step {p.global_step}/{total}",
        )
        iterator = iter(loader)
        with bar:
            while p.batch_in_epoch < batches:
                mark = time.monotonic()
                try:
                    batch = next(iterator)
                except StopIteration:
                    break
                waited += time.monotonic() - mark
                # The last group of an epoch may be smaller; its mean is over what it has.
                first = p.batch_in_epoch - p.batch_in_epoch % self.cfg.optim.accumulate
                group = min(self.cfg.optim.accumulate, batches - first)
                p.batch_in_epoch += 1
                boundary = p.batch_in_epoch == first + group
                self.train_step(batch, boundary, group)
                items += loader.batch_size * self.runtime.world_size
                bar.update()
                if not boundary:
                    continue
                p.global_step += 1
                elapsed = time.monotonic() - began
                if p.global_step % self.cfg.log_every == 0 or p.global_step == total:
                    self._log_step(bar, items / elapsed, waited / elapsed, total)
                if p.batch_in_epoch < batches and self._save_is_due():
                    self._save("last.ckpt")
                # Clocks and signals differ between processes, but all must leave at the same step.
                late = self.runtime.any(time.monotonic() >= deadline)
                if p.global_step >= total or late or self.runtime.any(bool(self.stop)):
                    break
        loader.sampler.set_position(p.epoch, 0)
        if p.batch_in_epoch >= batches:
            p.epoch += 1
            p.batch_in_epoch = 0
        return late

    def train_step(
        self, batch: Mapping[str, Any], boundary: bool = True, group: int | None = None
    ) -> bool:
        """Forward, backward and, at a boundary of accumulation, one optimizer step per phase.

        Args:
            boundary: False while gradients of several batches are added.
            group: batches whose gradients are added; default ``optim.accumulate``.

        Returns:
            False when the batch was skipped because of NaN.
        """
        p, options = self.progress, self.cfg.optim
        if self.runtime.any(not _all_finite(batch)):
            self._skip(batch, "the batch holds NaN or infinite values")
            return False
        batch = self.runtime.to_device(batch)
        self.schedule.apply(
            self.networks.optimizers, self.networks.base_rates, p.global_step, p.epoch
        )
        if isinstance(self.model, FollowsProgress):
            self.model.training_progress = p.global_step / self.total_steps
        everything = [getattr(self.model, name) for name in self.networks.optimizers]
        with self.runtime.no_sync(everything, not boundary):
            shared = self.model.forward_train(batch)
        for phase in self.phases:
            phase_options = options.phases.get(phase)
            if phase_options is not None:
                early = p.global_step < phase_options.start_step
                if early or p.global_step % phase_options.every:
                    continue
            names = [
                n for n in networks_of_phase(self.model, phase) if n in self.networks.optimizers
            ]
            networks = [getattr(self.model, name) for name in names]
            with (
                self.networks.only_requires_grad(names),
                self.runtime.no_sync(networks, not boundary),
            ):
                losses = self.model.calculate_loss(batch, phase, shared)
                if self.runtime.any(not bool(torch.isfinite(losses["loss"]))):
                    self._skip(batch, f"the loss of the phase '{phase}' is not finite")
                    return False
                self.runtime.backward(losses["loss"] / (group or options.accumulate))
            # The phases of a GAN each have a 'loss' of their own.
            several = len(self.phases) > 1
            self.meter.add(
                {f"loss_{phase}" if k == "loss" and several else k: v for k, v in losses.items()}
            )
            limit = phase_options.clip_grad if phase_options else None
            if boundary and not self.networks.step(names, limit or options.clip_grad):
                self._skip(batch, f"a gradient of the phase '{phase}' is not finite")
                return False
        if boundary:
            self.networks.update_average()
        return True

    def _skip(self, batch: Mapping[str, Any], why: str) -> None:
        p = self.progress
        p.nan_batches += 1
        self.networks.zero_grad()
        names = batch.get("clip_id")
        log.warning(
            "step %d: %s; the batch is skipped (clips: %s)",
            p.global_step,
            why,
            ", ".join(map(str, names)) if names is not None else "unknown",
        )
        if p.nan_batches > self.cfg.optim.max_nan:
            raise StageError(
                f"{p.nan_batches} batches gave NaN or infinite values (optim.max_nan = "
                f"{self.cfg.optim.max_nan}). Lower the learning rate, set optim.clip_grad, or look "
                "at the clips named above. The last good state is in last.ckpt."
            )

    # -- logging ----------------------------------------------------------------------------------

    def _log_step(self, bar: Any, rate: float, waiting: float, total: int) -> None:
        p = self.progress
        means = self.meter.take()
        first = next(iter(self.networks.optimizers.values()))
        extra = {
            "learning_rate": first.param_groups[0]["lr"],
            "items_per_second": rate,
            "data_wait_share": waiting,
        }
        if self.runtime.device.type == "cuda":
            extra["gpu_gib"] = torch.cuda.max_memory_allocated() / 2**30
        if not self.runtime.is_zero:
            return
        self.plateau.see(means, self.cfg.log_every)
        self.logger.scalars({**means, **extra}, p.global_step, "train")
        digits = self.cfg.loss_decimal_place
        text = ", ".join(f"{key} {value:.{digits}f}" for key, value in means.items())
        bar.set_postfix_str(f"{text}, {rate:.1f} items/s, waiting {waiting:.0%}")
        if bar.disable and p.global_step % (10 * self.cfg.log_every) == 0:
            log.info(
                "step %d/%d  %s, %.1f items/s, waiting for data %.0f %%",
                p.global_step,
                total,
                text,
                rate,
                100 * waiting,
            )
        else:
            log.debug("step %d/%d  %s", p.global_step, total, text)

    # -- validation -------------------------------------------------------------------------------

    def _log_pictures(self, batch: Mapping[str, Any]) -> None:
        if self.runtime.is_zero and isinstance(self.model, Visualizes):
            folder = self.checkpoint_dir.parent / "samples" if self.checkpoint_dir else None
            self.logger.pictures(self.model.visualize(batch), self.progress.global_step, folder)

    def _validate(self, loader: DataLoader) -> bool:
        """Validate, remember the best; True when patience is over."""
        p = self.progress
        for name in self.networks.optimizers:
            self.runtime.sync_buffers(getattr(self.model, name))
        with preserve_rng(), self.networks.averaged():
            losses = mean_losses(
                self.model,
                loader,
                self.runtime,
                show_progress=self.cfg.show_progress,
                batches=self.cfg.valid_batches,
                stop=self.stop,
                first=self._log_pictures,
            )
            if losses is None:  # asked to stop: made up for after the resume
                return False
            if self.scorer is not None and self.runtime.is_zero:
                with self.networks.unwrapped():
                    losses.update(self.scorer.score(self.model))
            losses = self.runtime.broadcast(losses)
        if isinstance(self.model, FollowsValidation):
            self.model.after_validation(losses)
        name = self.cfg.valid_metric
        key = name.split("/", 1)[1] if name.startswith("loss/") else name
        if key not in losses:
            raise ConfigError(
                f"valid_metric={name}: the validation gives only: {', '.join(sorted(losses))}"
            )
        value = float(losses[key])
        higher = self.scorer.higher_is_better if self.scorer is not None else False
        best = p.best.get("value")
        improved = math.isfinite(value) and (
            best is None or (value > best if higher else value < best)
        )
        p.bad_validations = 0 if improved else p.bad_validations + 1
        p.validation_due = False
        self.schedule.after_validation(improved)
        if improved:
            p.best = {"metric": name, "value": value, "epoch": p.epoch, "step": p.global_step}
            self._save("best.ckpt")
        if self.runtime.is_zero:
            digits = self.cfg.loss_decimal_place
            text = ", ".join(f"{k} {v:.{digits}f}" for k, v in losses.items())
            log.info(
                "validation at step %d (epoch %d, %.1f min): %s%s",
                p.global_step,
                p.epoch,
                p.seconds / 60,
                text,
                "  <- best" if improved else "",
            )
            self.logger.scalars(losses, p.global_step, "valid")
            self.logger.record(
                {
                    "step": p.global_step,
                    "epoch": p.epoch,
                    "seconds": round(p.seconds, 3),
                    "best": improved,
                    **{k: float(v) for k, v in losses.items()},
                }
            )
        return 0 < self.cfg.stopping_step <= p.bad_validations

    # -- checkpoints ------------------------------------------------------------------------------

    def _save_is_due(self) -> bool:
        """Rank 0 decides, since clocks differ between processes."""
        due = time.monotonic() - self._last_save > 60 * self.cfg.save_minutes
        return bool(self.runtime.broadcast(due))

    def _save(self, name: str) -> None:
        if self.checkpoint_dir is None:
            return
        for network in self.networks.optimizers:
            self.runtime.sync_buffers(getattr(self.model, network))
        rng = [get_rng_state()]
        if self.runtime.world_size > 1:
            gathered: list[Any] = [None] * self.runtime.world_size
            torch.distributed.all_gather_object(gathered, rng[0])
            rng = gathered
        if self.runtime.is_zero:
            save_checkpoint(self.checkpoint_dir / name, training_state(self, rng))
        self._last_save = time.monotonic()
        self.runtime.barrier()

    # -- signals ----------------------------------------------------------------------------------

    def _stop_if_signalled(self) -> None:
        if not self.runtime.any(bool(self.stop)):
            return
        self._save("last.ckpt")
        self.networks.unwrap()
        where = "nothing was saved (saved=false)"
        if self.checkpoint_dir is not None:
            where = (
                f"the state is in {self.checkpoint_dir / 'last.ckpt'}; add --resume=auto to go on"
            )
        raise Interrupted(
            f"training stopped at step {self.progress.global_step}: {where}",
            self.stop.number or signal.SIGTERM,
        )


def _all_finite(batch: Mapping[str, Any]) -> bool:
    """NaN must be caught before the forward pass: it would enter the BatchNorm statistics."""
    return all(
        bool(torch.isfinite(value).all())
        for value in batch.values()
        if isinstance(value, Tensor) and value.is_floating_point()
    )
