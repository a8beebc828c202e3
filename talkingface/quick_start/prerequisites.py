"""Train missing components of a model before the model itself."""

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

# Settings of a model that are not passed on to the training of its components.
_OWN = {
    *("model", "dataset", "preset", "stages", "train", "resume", "evaluate_model_file", "saved"),
    *("init", "model_params", "loss", "weights", "data", "infer", "audio", "optim", "learner"),
    *("batch_size", "learning_rate", "weight_decay", "metrics", "metric_params", "valid_metric"),
    "best",
}


def train_prerequisites(cfg: Config, stages: Collection[str], command: Sequence[str]) -> None:
    """Train required components with ``auto`` weights that do not exist yet, with equal settings.

    Each is a run without evaluation; a stopped run continues. ``--recipe`` gives more control. On
    several devices nothing is trained here; missing weights are an error later.

    Raises:
        ConfigError: a stopped run exists, but with other settings.
    """
    from talkingface.quick_start.quick_start import run_config

    several = cfg.devices > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1
    if not {"preprocess", "train"} <= set(stages) or several or cfg.shard:
        return
    store = ComponentStore(cfg)
    for name in store.to_train():
        if store.find(name) is not None:  # trained in this loop as a prerequisite of another one
            continue
        spec = store.specs[name]
        model = str(spec.model)
        own = _configuration(cfg, model)
        stopped = newest_checkpoint(saved_folder(cfg), model, cfg.dataset)
        same = [run.best for run in find_runs(own)]
        if stopped is not None and stopped not in same:
            run = stopped.parents[1].name
            raise ConfigError(
                f"{cfg.model} needs {model}, whose run {run} did not reach its end. Repeat its "
                f"command with --resume=auto, or use it as it is: --weights.{name}={run}"
            )
        state = "continues" if stopped is not None else "is trained first, there is none yet"
        log.info("%s: %s on %s %s", spec.purpose, model, cfg.dataset, state)
        run_config(own, command=command)
        log.info("\nnow %s", cfg.model)


def require_same_components(cfg: Config, checkpoint: Path) -> None:
    """Check that a run continues with the components that it was trained with, not newer ones.

    Raises:
        ConfigError: the file of a component is another one now.
    """
    reason = ComponentStore(cfg).change_since(load_checkpoint(checkpoint))
    if reason:
        raise ConfigError(
            f"The run of {shown(checkpoint)} cannot continue: {reason}. Leave --resume out (or set "
            "--resume=false) to start a new run."
        )


def _configuration(cfg: Config, model: str) -> Config:
    """The settings that the user chose, for another model on the same data."""
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
