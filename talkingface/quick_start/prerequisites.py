"""Train the components that a model needs and that do not exist yet, so that a command suffices."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkingface.components.runs import newest_checkpoint, saved_folder
from talkingface.components.store import ComponentStore
from talkingface.config.config import load_config
from talkingface.config.merge import flatten
from talkingface.errors import ConfigError
from talkingface.model.weights import load_checkpoint
from talkingface.quick_start.run_dir import find_runs
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


def train_prerequisites(cfg: Config, stages: Collection[str], command: Sequence[str]) -> None:
    """Train required components of ``auto`` weights that do not exist yet, with the same settings.

    A run of its own each, without its evaluation; one that was stopped goes on. ``--recipe`` gives
    more control. On several devices nothing is trained, and the missing weights are reported as an
    error later.

    Raises:
        ConfigError: there is a run that was stopped, but with other settings.
    """
    several = cfg.devices > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1
    if not {"preprocess", "train"} <= set(stages) or several or cfg.shard:
        return
    store = ComponentStore(cfg)
    for name in store.to_train():
        if store.find(name) is not None:  # trained for one before it
            continue
        spec = store.specs[name]
        model = str(spec.model)
        own = _configuration(cfg, model)
        stopped = newest_checkpoint(saved_folder(cfg), model, cfg.dataset)
        known = [run.best for run in find_runs(own, same_settings=True)]
        if stopped is not None and stopped not in known:
            run = stopped.parents[1].name
            raise ConfigError(
                f"{cfg.model} needs {model}, whose run {run} did not reach its end. Repeat its "
                f"command with --resume=auto, or use it as it is: --weights.{name}={run}"
            )
        state = "goes on" if stopped is not None else "is trained first, there is none yet"
        log.info("%s: %s on %s %s", spec.purpose, model, cfg.dataset, state)
        _train(own, command)
        log.info("\nnow %s", cfg.model)


def require_same_components(cfg: Config, checkpoint: Path) -> None:
    """A run goes on with the components that it was trained with, not with newer ones.

    Raises:
        ConfigError: another one would be taken now.
    """
    reason = ComponentStore(cfg).change_since(load_checkpoint(checkpoint))
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
