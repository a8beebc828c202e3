"""Models that a model stands on: trained first where there are none, so that a command suffices."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkingface.config.config import load_config
from talkingface.config.merge import flatten
from talkingface.errors import ConfigError
from talkingface.model.weights import sha256_of
from talkingface.quick_start.helpers import build_model, find_weights
from talkingface.quick_start.run_dir import find_runs, newest_checkpoint, saved_folder
from talkingface.utils.paths import shown

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)

# Settings of a run that mean something else, or nothing, to the model before it.
_OWN = {
    *("model", "dataset", "preset", "stages", "train", "resume", "evaluate_model_file", "saved"),
    *("model_params", "loss", "weights", "data", "infer", "audio", "optim", "learner"),
    *("batch_size", "learning_rate", "weight_decay", "metrics", "metric_params", "valid_metric"),
}


def train_earlier_stages(cfg: Config, stages: Collection[str], command: Sequence[str]) -> None:
    """Train required helpers of ``auto`` weights that do not exist yet, with the same settings.

    A run of its own each, without its evaluation; one that was stopped goes on. ``--recipe`` gives
    more control. On several devices nothing is trained, and the missing weights are reported as an
    error later.

    Raises:
        ConfigError: there is a run that was stopped, but with other settings.
    """
    several = cfg.devices > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1
    if not {"preprocess", "train"} <= set(stages) or several or cfg.shard:
        return
    for name, helper in build_model(cfg).frozen_networks().items():
        needed = helper.required and helper.model and helper.weights == "auto"
        if not needed or find_weights(cfg, helper) is not None:
            continue
        earlier = _configuration(cfg, str(helper.model))
        stopped = newest_checkpoint(saved_folder(cfg), str(helper.model), cfg.dataset)
        own = [run.best for run in find_runs(earlier, same_settings=True)]
        if stopped is not None and stopped not in own:
            run = stopped.parents[1].name
            raise ConfigError(
                f"{cfg.model} stands on {helper.model}, whose run {run} did not reach its end. "
                f"Repeat its command with --resume=auto, or use it as it is: --weights.{name}={run}"
            )
        state = "goes on" if stopped is not None else "is trained first, there is none yet"
        log.info("%s: %s on %s %s", helper.why, helper.model, cfg.dataset, state)
        _train(earlier, command)
        log.info("\nnow %s", cfg.model)


def changed_stage(cfg: Config, checkpoint: Path) -> str | None:
    """Why a run cannot go on: an earlier model that it stands on is another one now."""
    from talkingface.trainer.checkpoint import load_checkpoint

    pinned = load_checkpoint(checkpoint).get("frozen_weights") or {}
    for name, helper in build_model(cfg).frozen_networks().items():
        source = pinned.get(name)
        if not source or not helper.generates:
            continue
        found = find_weights(cfg, helper)
        if found is not None and found.is_file() and sha256_of(found) == source["sha256"]:
            continue
        if found is None or str(found) == source["path"]:
            return f"{source['path']} has changed since, or is gone"
        return (
            f"it stands on {source['path']}, but weights.{name} means {shown(found)} now "
            f"(--weights.{name}={source['path']} takes the old one, in a new run)"
        )
    return None


def require_same_stages(cfg: Config, checkpoint: Path) -> None:
    """A run goes on with the earlier models that it stands on, not with newer ones.

    Raises:
        ConfigError: another one would be taken now.
    """
    reason = changed_stage(cfg, checkpoint)
    if reason:
        raise ConfigError(
            f"The run of {shown(checkpoint)} cannot go on: {reason}. Leave --resume out (or set "
            "--resume=false) to start anew."
        )


def _train(cfg: Config, command: Sequence[str]) -> None:
    from talkingface.quick_start.quick_start import run_config

    run_config(cfg, command=command)


def _configuration(cfg: Config, model: str) -> Config:
    """What the user set beside the files of the toolkit, for another model on the same data."""
    entry = cfg.registry.entry("model", model)
    preset = cfg.preset if cfg.preset in entry.presets else None
    plain = load_config(model, cfg.dataset, overrides={"plugin_path": cfg.plugin_path})
    known = {key.split(".")[0] for key in plain.to_dict()} - _OWN
    chosen: dict[str, Any] = {
        key: value
        for key, value in flatten(cfg.to_dict()).items()
        if key.split(".")[0] in known and cfg.chosen(key)
    }
    return load_config(
        model,
        cfg.dataset,
        preset=preset,
        overrides={**chosen, "resume": "auto", "stages": ["preprocess", "train"]},
    )
