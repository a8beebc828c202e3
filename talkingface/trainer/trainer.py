"""The training loop of all models.

A GAN is a model with two phases; see :meth:`Trainer.train_step`. A checkpoint has everything that a
resumed run needs, including the position inside the epoch: ``N`` steps give the same result as
``k`` steps, a stop, and ``N - k`` more.
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
from talkingface.model.weights import load_checkpoint, load_extra_state, restore_networks
from talkingface.trainer.checkpoint import save_checkpoint
from talkingface.trainer.display import TrainingDisplay
from talkingface.trainer.loggers import RunLogger
from talkingface.trainer.meter import LossMeter, PlateauWatch
from talkingface.trainer.networks import TrainedNetworks
from talkingface.trainer.optim import Pace, Schedule
from talkingface.trainer.runtime import Runtime
from talkingface.trainer.signals import StopRequest
from talkingface.trainer.state import FitResult, Progress, load_training_state, training_state
from talkingface.trainer.validation import Scorer, mean_losses
from talkingface.utils.paths import read_json, write_json
from talkingface.utils.seeding import get_rng_state, preserve_rng, seed_everything

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)

CLOCK = "clock.json"  # beside the checkpoints: seconds of training


def epoch_batches(loader: DataLoader, epochs: int) -> list[int]:
    """Number of batches of each epoch, at least one; some datasets begin with short epochs."""
    position = loader.sampler.epoch, loader.sampler.start
    counts = []
    for epoch in range(epochs):
        loader.sampler.set_position(epoch, 0)
        counts.append(max(len(loader), 1))
    loader.sampler.set_position(*position)
    return counts


class Trainer:
    """Trains a model.

    Args:
        model: on the CPU, not wrapped.
        checkpoint_dir: folder of ``last.ckpt`` and ``best.ckpt``; None saves nothing.
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
        self.display: TrainingDisplay | None = None

    # -- setup ------------------------------------------------------------------------------------

    def _check_options(self) -> None:
        # A phase that this configuration leaves out (a GAN's discriminator) may have settings.
        phases = type(self.model).phases
        groups = dict.fromkeys((*self.model.networks(), *phases))
        for section, known in (("groups", groups), ("phases", phases)):
            for name in getattr(self.cfg.optim, section):
                # A phase trains the networks whose names end with its own.
                part = section == "groups" and name.endswith(tuple(f"_{p}" for p in phases))
                if name not in known and not part:
                    raise ConfigError(
                        f"optim.{section}.{name}: {self.cfg.model} has only: {', '.join(known)}"
                    )

    def resume_checkpoint(self, path: Path, *, same_run: bool = True) -> None:
        """Continue from a checkpoint when :meth:`fit` starts.

        Args:
            same_run: False when the run continues in another folder, which lacks its best.ckpt.

        Raises:
            WeightsError: not a checkpoint of this model.
        """
        state = load_checkpoint(path)
        if state["model_name"] != self.cfg.model:
            raise WeightsError(f"{path} belongs to {state['model_name']}, not to {self.cfg.model}")
        self._resume_state = state
        p = state["progress"]
        p["seconds"] = read_json(path.with_name(CLOCK)).get("seconds", p["seconds"])
        if not same_run or p["best"].get("metric", self.cfg.valid_metric) != self.cfg.valid_metric:
            p.update(best={}, bad_validations=0)
        position = f"epoch {p['epoch'] + 1}, batch {p['batch_in_epoch']}, step {p['global_step']}"
        log.info("resuming from %s: %s", path, position)

    def _setup(self, steps_per_epoch: int, total_steps: int) -> None:
        """Restore weights, create optimizers, wrap the networks, restore the remaining state."""
        state = self._resume_state
        if state is not None:
            restore_networks(self.model, state, averaged=False)
            load_extra_state(self.model, state["other_parameter"])
        self.networks = TrainedNetworks(self.cfg, self.model, self.runtime)
        if self.runtime.rank:  # equal weights, but other dropout and noise than rank 0
            seed_everything(self.cfg.seed + 1000 * self.runtime.rank, self.cfg.reproducibility)
        for component in self.model.components.values():
            component.network.to(self.runtime.device)
        self.total_steps = total_steps
        self.schedule = Schedule(self.cfg, total_steps, steps_per_epoch)
        if state is not None:
            load_training_state(self, state)
        self._configured_steps = total_steps
        plan = self.progress.plan
        if plan and plan["minutes"] == self.cfg.minutes:
            self._set_total_steps(plan["steps"])
        else:
            self.progress.plan = {}

    def _set_total_steps(self, steps: int) -> None:
        """Set the length of the training, as planned for ``minutes``."""
        self.progress.plan = {"minutes": self.cfg.minutes, "steps": steps}
        self.total_steps = self.schedule.total_steps = min(steps, self._configured_steps)
        if self.display is not None:
            self.display.plan(self.total_steps)

    # -- the loop ---------------------------------------------------------------------------------

    def fit(self, train_data: DataLoader, valid_data: DataLoader | None = None) -> FitResult:
        """Train until ``epochs``, ``max_steps``, ``max_minutes``, early stop or a signal.

        Raises:
            Interrupted: SIGINT or SIGTERM; ``last.ckpt`` was written.
            StageError: too many batches with NaN or infinite values.
        """
        accumulate = self.cfg.optim.accumulate
        steps = [-(-n // accumulate) for n in epoch_batches(train_data, self.cfg.epochs)]
        steps_per_epoch = steps[0] if steps else 1
        self._setup(steps_per_epoch, self.cfg.max_steps or sum(steps))
        p = self.progress
        started = time.monotonic()
        before = p.seconds
        self._pace = Pace(self.cfg.minutes, started - before, p.global_step)
        deadline = started + 60 * self.cfg.max_minutes if self.cfg.max_minutes else math.inf
        self._open_display(started - before, deadline)
        reason = ""
        with self.stop.watching():
            if p.validation_due and valid_data is not None:
                self._validate(valid_data)
            while p.global_step < self.total_steps:
                late = self._train_epoch(train_data, deadline)
                p.seconds = before + time.monotonic() - started
                ended = p.batch_in_epoch == 0
                over = p.global_step >= self.total_steps or late
                every = self.cfg.eval_step
                validate = valid_data is not None and every > 0
                validate = validate and (over or (ended and p.epoch % every == 0))
                p.validation_due = validate
                self._stop_if_signalled()
                patience_over = False
                if validate:
                    if self.scorer is not None or self._save_is_due():
                        self._save("last.ckpt")  # before a validation that may take long
                    patience_over = self._validate(valid_data)
                if self.cfg.keep_every and ended and p.epoch % self.cfg.keep_every == 0:
                    self._save(f"epoch_{p.epoch:04d}.ckpt")
                if validate or over or patience_over or self._save_is_due():
                    self._save("last.ckpt")
                self._stop_if_signalled()
                if patience_over:
                    reason = f"no progress in {self.cfg.stopping_step} validations"
                    break
                if late:
                    reason = f"reached {self.cfg.max_minutes} minutes"
                    break
        if valid_data is None or not p.best:  # the last state is the result of this run
            p.best = {}
            self._save("best.ckpt")
        self.networks.unwrap()
        self.display.close()
        best, step = p.best.get("value"), p.best.get("step", p.global_step)
        reason = reason or f"reached {self.total_steps} steps"
        return FitResult(best, step, p.global_step, p.epoch, p.seconds, reason)

    def _train_epoch(self, loader: DataLoader, deadline: float) -> bool:
        """Train one epoch or the rest of it; stop early at the last step, deadline or signal.

        Returns:
            Whether the deadline has passed.
        """
        p = self.progress
        loader.sampler.set_position(p.epoch, 0)
        batches = len(loader)  # of the whole epoch
        loader.sampler.set_position(p.epoch, p.batch_in_epoch * loader.batch_size)
        self.model.train()
        self.meter.clear()
        waited, started = 0.0, time.monotonic()
        items = 0
        late = False
        iterator = iter(loader)
        while p.batch_in_epoch < batches:
            fetch_start = time.monotonic()
            try:
                batch = next(iterator)
            except StopIteration:
                break
            waited += time.monotonic() - fetch_start
            # The last group of an epoch may be smaller; its loss is divided by its own size.
            first = p.batch_in_epoch - p.batch_in_epoch % self.cfg.optim.accumulate
            group = min(self.cfg.optim.accumulate, batches - first)
            p.batch_in_epoch += 1
            boundary = p.batch_in_epoch == first + group
            self.train_step(batch, boundary, group)
            items += loader.batch_size * self.runtime.world_size
            if not boundary:
                continue
            p.global_step += 1
            elapsed = time.monotonic() - started
            if self._pace.budget and not p.plan:  # the clock of rank 0 decides
                if steps := self.runtime.broadcast(self._pace.total_steps(p.global_step)):
                    self._set_total_steps(steps)
            if p.global_step % self.cfg.log_every == 0 or p.global_step == self.total_steps:
                self._log_step(items / elapsed, waited / elapsed)
            self.display.advance(planned=bool(self.cfg.minutes or self.cfg.max_minutes))
            if p.batch_in_epoch < batches and self._save_is_due():
                self._save("last.ckpt")
            # Clocks and signals differ between processes, but all must stop at the same step.
            late = self.runtime.any(time.monotonic() >= deadline)
            if p.global_step >= self.total_steps or late or self.runtime.any(bool(self.stop)):
                break
        loader.sampler.set_position(p.epoch, 0)
        if p.batch_in_epoch >= batches:
            p.epoch += 1
            p.batch_in_epoch = 0
        return late

    def train_step(
        self, batch: Mapping[str, Any], boundary: bool = True, group: int | None = None
    ) -> bool:
        """Forward, backward and, at the end of an accumulation, one optimizer step per phase.

        Args:
            boundary: whether the accumulation of gradients ends with this batch.
            group: number of accumulated batches; default ``optim.accumulate``.

        Returns:
            False when the batch was skipped because of NaN.
        """
        p, options, optimizers = self.progress, self.cfg.optim, self.networks.optimizers
        if self.runtime.any(not _all_finite(batch)):
            self._skip(batch, "the batch holds NaN or infinite values")
            return False
        batch = self.runtime.to_device(batch)
        self.schedule.apply(optimizers, self.networks.base_rates, p.global_step, p.epoch)
        if isinstance(self.model, FollowsProgress):
            self.model.training_progress = p.global_step / max(self.total_steps, 1)
        with self.runtime.no_sync([getattr(self.model, n) for n in optimizers], not boundary):
            shared = self.model.forward_train(batch)
        for phase in self.phases:
            phase_options = options.phases.get(phase)
            if phase_options is not None:
                early = p.global_step < phase_options.start_step
                if early or p.global_step % phase_options.every:
                    continue
            names = [n for n in networks_of_phase(self.model, phase) if n in optimizers]
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
            # Each phase of a GAN has a 'loss'.
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
        clips = ", ".join(map(str, names)) if names is not None else "unknown"
        log.warning("step %d: %s; the batch is skipped (clips: %s)", p.global_step, why, clips)
        if p.nan_batches > self.cfg.optim.max_nan:
            raise StageError(
                f"{p.nan_batches} batches gave NaN or infinite values (optim.max_nan = "
                f"{self.cfg.optim.max_nan}). Lower the learning rate, set optim.clip_grad, or "
                "check the clips named above. The last good state is in last.ckpt."
            )

    # -- logging ----------------------------------------------------------------------------------

    def _open_display(self, started: float, deadline: float) -> None:
        """Args: ``started`` with earlier starts, and ``deadline``: values of ``time.monotonic``."""
        minutes, p = self.cfg.minutes, self.progress
        self.display = TrainingDisplay(
            self.cfg.model,
            self.cfg.show_progress if self.runtime.is_zero else False,
            self.cfg.loss_decimal_place,
            self.total_steps if p.plan or not minutes else None,
            p.global_step,
            min(deadline, started + 60 * minutes) if minutes else deadline,
        )
        if p.best:
            self.display.best(p.best["value"])

    def _log_step(self, rate: float, waiting: float) -> None:
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
        self.display.losses(means)
        speed = f"{rate:.1f} items/s, waiting for data {100 * waiting:.0f} %"
        log.debug("step %d/%d  %s, %s", p.global_step, self.total_steps, text, speed)

    # -- validation -------------------------------------------------------------------------------

    def _log_pictures(self, batch: Mapping[str, Any]) -> None:
        if self.runtime.is_zero and isinstance(self.model, Visualizes):
            folder = self.checkpoint_dir.parent / "samples" if self.checkpoint_dir else None
            self.logger.pictures(self.model.visualize(batch), self.progress.global_step, folder)

    def _validate(self, loader: DataLoader) -> bool:
        """Validate and save the best model; True when ``stopping_step`` is reached."""
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
            if losses is None:  # stopped by a signal; the resumed run validates
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
        record = p.best.get("record", p.best.get("value"))
        improved = math.isfinite(value) and (
            record is None or (value > record if higher else value < record)
        )
        record = value if improved else record
        p.bad_validations = 0 if improved else p.bad_validations + 1
        p.validation_due = False
        self.schedule.after_validation(improved)
        kept = improved or self.cfg.best == "last"
        if kept:
            place = {"epoch": p.epoch, "step": p.global_step}
            p.best = {"metric": name, "value": value, "record": record, **place}
            self._save("best.ckpt")
            self.display.best(value)
        if self.runtime.is_zero:
            digits = self.cfg.loss_decimal_place
            text = ", ".join(f"{k} {v:.{digits}f}" for k, v in losses.items())
            position = f"step {p.global_step} (epoch {p.epoch}, {p.seconds / 60:.1f} min)"
            log.info("validation at %s: %s%s", position, text, "  <- best" if kept else "")
            self.logger.scalars(losses, p.global_step, "valid")
            record = {"step": p.global_step, "epoch": p.epoch, "seconds": round(p.seconds, 3)}
            values = {k: float(v) for k, v in losses.items()}
            self.logger.record({**record, "best": kept, **values})
        return 0 < self.cfg.stopping_step <= p.bad_validations

    # -- checkpoints ------------------------------------------------------------------------------

    def _save_is_due(self) -> bool:
        """Whether ``save_minutes`` have passed on rank 0; the clocks of processes differ."""
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
            keep = self.checkpoint_dir / "previous.ckpt" if name == "last.ckpt" else None
            save_checkpoint(self.checkpoint_dir / name, training_state(self, rng), keep=keep)
            write_json(self.checkpoint_dir / CLOCK, {"seconds": round(self.progress.seconds, 3)})
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
            path = self.checkpoint_dir / "last.ckpt"
            where = f"the state is in {path}; add --resume=auto to go on"
        raise Interrupted(
            f"training stopped at step {self.progress.global_step}: {where}",
            self.stop.number or signal.SIGTERM,
        )


def _all_finite(batch: Mapping[str, Any]) -> bool:
    """Checked before the forward pass, where NaN would enter the BatchNorm statistics."""
    return all(
        bool(torch.isfinite(value).all())
        for value in batch.values()
        if isinstance(value, Tensor) and value.is_floating_point()
    )
