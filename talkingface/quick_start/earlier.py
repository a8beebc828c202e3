"""Models that a model stands on: trained first where there are none, so that a command suffices."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from talkingface.config.config import load_config
from talkingface.config.merge import flatten
from talkingface.quick_start.helpers import build_model, find_weights
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

    A run of its own each, resumed when it was stopped; ``--recipe`` gives more control. With
    several devices nothing is done, and the missing weights are reported as an error later.
    """
    if not {"preprocess", "train"} & set(stages) or cfg.devices > 1 or cfg.shard:
        return
    for helper in build_model(cfg).frozen_networks().values():
        needed = helper.required and helper.model and helper.weights == "auto"
        if needed and find_weights(cfg, helper) is None:
            log.info(
                "%s: %s on %s is trained first, there is none yet",
                helper.why,
                helper.model,
                cfg.dataset,
            )
            _train(_configuration(cfg, str(helper.model)), command)
            log.info("\nnow %s", cfg.model)


def _train(cfg: Config, command: Sequence[str]) -> None:
    from talkingface.quick_start.quick_start import run_config

    run_config(cfg, command=command)


def _configuration(cfg: Config, model: str) -> Config:
    """What the user set beside the files of the toolkit, for another model on the same data."""
    entry = cfg.registry.entry("model", model)
    preset = cfg.preset if cfg.preset in entry.presets else None
    plain = load_config(model, cfg.dataset, overrides={"plugin_path": cfg.plugin_path})
    known = {key.split(".")[0] for key in plain.to_dict()} - _OWN
    files = ("properties/", shown(cfg.model_entry.path), shown(cfg.dataset_entry.path))
    chosen: dict[str, Any] = {
        key: value
        for key, value in flatten(cfg.to_dict()).items()
        if key.split(".")[0] in known
        and not cfg.provenance.get(key, "properties/").startswith(files)
    }
    return load_config(model, cfg.dataset, preset=preset, overrides={**chosen, "resume": "auto"})
