"""``--recipe``: several runs in sequence, each with the checkpoints of earlier ones.

A recipe is a YAML below ``properties/recipe``: a list of stages, each with a model. The components
that the models declare connect them: a stage whose model needs the model of an earlier stage gets
its checkpoint. Every stage is an ordinary run with its own folder; the same command again continues
in the stage where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from talkingface.components.runs import named_weights
from talkingface.components.store import ComponentStore
from talkingface.config.config import Config, load_config
from talkingface.errors import ConfigError
from talkingface.model.weights import load_checkpoint
from talkingface.quick_start import quick_start
from talkingface.registry import Entry, get_registry
from talkingface.utils.hashes import sha256_of
from talkingface.utils.logs import setup_logging
from talkingface.utils.paths import read_json, resolve, shown, write_json
from talkingface.utils.suggest import did_you_mean

log = logging.getLogger(__name__)

_STAGE_KEYS = ("name", "model", "inputs", "settings", "official", "optional")


@dataclass(frozen=True)
class Stage:
    """One run of a recipe.

    Attributes:
        inputs: key of the configuration -> stage whose checkpoint is its value; components of
            earlier stages need not be listed.
        settings: further keys that the recipe sets.
        official: alternative files in the weights folder, one of which replaces the stage.
        optional: run it only if the settings of a later stage use its checkpoint.
    """

    name: str
    model: str
    inputs: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    official: list[str] = field(default_factory=list)
    optional: bool = False


def read_stages(entry: Entry) -> list[Stage]:
    """The stages of a recipe's YAML.

    Raises:
        ConfigError: a stage lacks its name or model, or an input is not an earlier stage.
    """
    stages: list[Stage] = []
    for number, item in enumerate(entry.meta.get("stages") or (), 1):
        where = f"{entry.path}: stage {number}"
        for key in item:
            if key not in _STAGE_KEYS:
                hint = did_you_mean(key, _STAGE_KEYS)
                raise ConfigError(f"{where}: unknown key '{key}'.{hint}")
        if not {"name", "model"} <= set(item):
            raise ConfigError(f"{where} needs name and model")
        stage = Stage(**item)
        earlier = [other.name for other in stages]
        for key, source in stage.inputs.items():
            if source not in earlier:
                raise ConfigError(f"{where}: {key}: '{source}' is not an earlier stage")
        if stage.name in earlier:
            raise ConfigError(f"{where}: a second stage '{stage.name}'")
        stages.append(stage)
    if not stages:
        raise ConfigError(f"{entry.path}: a recipe needs stages")
    return stages


def run_recipe(
    options: Mapping[str, str], config: Mapping[str, Any], config_files: Sequence[str] = ()
) -> int:
    """Run the action; returns the exit status.

    Args:
        options: ``recipe``, the name of the recipe.
        config: ``dataset`` and keys for all stages (``preset``, ``device``...); keys that begin
            with a stage's name are for that stage only (``base.max_steps``); the value of a
            stage's name is a checkpoint or run id that replaces the stage, or null to skip it.

    Raises:
        ConfigError: unknown recipe or key, or no dataset.
    """
    entry = get_registry(config.get("plugin_path")).entry("recipe", options["recipe"])
    stages = read_stages(entry)
    if not config.get("dataset"):
        raise ConfigError(f"--recipe={entry.name} needs --dataset=<Dataset>")
    common, own, given = divide(stages, config)
    configured = partial(configure, common=common, own=own, config_files=config_files)
    stages = connect(stages, configured)
    given = _located(stages, own, given, configured)
    setup_logging(str(config.get("log_level", "info")))
    needed = needed_stages(stages, given)
    _check(stages, needed, own, given, configured)
    record = _record_path(entry, common, own)
    done: dict[str, dict[str, Any]] = read_json(record)
    outputs: dict[str, str | None] = dict(given)
    lines = []
    for number, stage in enumerate(stages, 1):
        title = f"stage {number} of {len(stages)}, {stage.name} ({stage.model})"
        if stage.name in given:
            lines.append(f"  {title}: given, {given[stage.name] or 'left out'}")
            continue
        if stage.name not in needed:
            lines.append(f"  {title}: not needed")
            continue
        cfg = configured(stage, outputs)
        inputs = {key: _hash(outputs[source]) for key, source in stage.inputs.items()}
        finished = done.get(stage.name, {})
        same = finished.get("hash") == cfg.hash and finished.get("inputs") == inputs
        if same and Path(finished["checkpoint"]).is_file():
            log.info("%s: done, %s", title, finished["run"])
        else:
            log.info("\n== %s", title)
            path = quick_start.resume_from(cfg)
            reason = path and ComponentStore(cfg).change_since(load_checkpoint(path))
            if reason:
                log.info("a new run, since the earlier one cannot continue: %s", reason)
                own[stage.name]["resume"] = False
                cfg = configured(stage, outputs)
            started = time.monotonic()
            result = quick_start.run_config(cfg, command=sys.argv)
            finished = done[stage.name] = {
                "hash": cfg.hash,
                "inputs": inputs,
                "run": result.run_dir.name,
                "checkpoint": str(result.checkpoint),
                "minutes": (time.monotonic() - started) / 60,
            }
            write_json(record, done)
        outputs[stage.name] = finished["checkpoint"]
        lines.append(f"  {title}: {finished['run']}, {finished['minutes']:.1f} min")
    log.info("\nrecipe %s on %s:\n%s", entry.name, config["dataset"], "\n".join(lines))
    log.info("record: %s", shown(record))
    return 0


def connect(stages: list[Stage], configured: Callable[..., Config]) -> list[Stage]:
    """Add checkpoints of earlier stages to the inputs of stages whose components they are."""
    connected = []
    for number, stage in enumerate(stages):
        earlier = {other.model: other.name for other in stages[:number]}
        specs = ComponentStore(configured(stage, {})).specs
        inputs = {
            f"weights.{name}": earlier[spec.model]
            for name, spec in specs.items()
            if spec.model in earlier
        }
        connected.append(replace(stage, inputs={**inputs, **stage.inputs}))
    return connected


def needed_stages(stages: list[Stage], given: Mapping[str, str | None]) -> set[str]:
    """Stages to run: without a given checkpoint, and final or an input of a stage to run."""
    needed: set[str] = set()
    for stage in reversed(stages):
        users = {other.name for other in stages if stage.name in other.inputs.values()}
        wanted = users & needed if users else not stage.optional
        if stage.name not in given and wanted:
            needed.add(stage.name)
    return needed


def _located(
    stages: list[Stage],
    own: Mapping[str, Mapping[str, Any]],
    given: Mapping[str, str | None],
    configured: Callable[..., Config],
) -> dict[str, str | None]:
    """Paths of given checkpoints (files or run ids) and of official files that replace stages."""
    located: dict[str, str | None] = {}
    for stage in stages:
        if stage.name not in given:
            if not own[stage.name]:
                folder = resolve(configured(stage, {}).weights_dir)
                files = [folder / name for name in stage.official if (folder / name).is_file()]
                if files:
                    log.info("%s: %s is used", stage.name, shown(files[0]))
                    located[stage.name] = str(files[0])
            continue
        value = located[stage.name] = given[stage.name]
        if value:
            path = named_weights(configured(stage, {}), str(value))
            if not path.is_file():
                raise ConfigError(f"--{stage.name}={value}: there is no such file or run id")
            located[stage.name] = str(path)
    return located


def _check(
    stages: list[Stage],
    needed: set[str],
    own: Mapping[str, Mapping[str, Any]],
    given: Mapping[str, str | None],
    configured: Callable[..., Config],
) -> None:
    """Check the settings of all stages before the first training."""
    used = {source for stage in stages if stage.name in needed for source in stage.inputs.values()}
    for stage in stages:
        if stage.name not in needed:
            if own[stage.name]:
                raise ConfigError(
                    f"--{stage.name}.{next(iter(own[stage.name]))}: the stage does not run, since "
                    "weights are given in its place"
                )
            continue
        cfg = configured(stage, given)
        if stage.name in used and not ("train" in quick_start.active_stages(cfg) and cfg.saved):
            raise ConfigError(
                f"stage {stage.name} must train and keep its checkpoint for the stages after it: "
                f"do not change 'stages', 'train' and 'saved', or give --{stage.name}=CHECKPOINT"
            )


def _hash(checkpoint: str | None) -> str | None:
    path = Path(checkpoint) if checkpoint else None
    return sha256_of(path) if path and path.is_file() else checkpoint


def divide(
    stages: list[Stage], config: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]], dict[str, str | None]]:
    """Keys for all stages, keys of single stages, and given checkpoints by stage."""
    common: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {stage.name: {} for stage in stages}
    given: dict[str, str | None] = {}
    for key, value in config.items():
        head, dot, rest = key.partition(".")
        if head not in own:
            common[key] = value
        elif dot:
            own[head][rest] = value
        else:
            given[head] = value
    return common, own, given


def configure(
    stage: Stage,
    outputs: Mapping[str, str | None],
    *,
    common: Mapping[str, Any],
    own: Mapping[str, Mapping[str, Any]],
    config_files: Sequence[str],
) -> Config:
    """The configuration of a stage; inputs without a checkpoint yet keep their defaults."""
    inputs = {key: outputs[source] for key, source in stage.inputs.items() if source in outputs}
    settings = {key: value for key, value in common.items() if key != "model"}
    return load_config(
        stage.model,
        str(common["dataset"]),
        config_files=config_files,
        overrides={"resume": "auto", **stage.settings, **inputs},
        cli={**settings, **own[stage.name]},
    )


def _record_path(entry: Entry, common: Mapping[str, Any], own: Mapping[str, Any]) -> Path:
    """File of the finished stages of a recipe; its name depends on the settings."""
    settings = json.dumps([common, own], sort_keys=True, default=str)
    name = f"{common['dataset']}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}.json"
    saved = resolve(str(common.get("checkpoint_dir", "saved")))
    return saved / "recipes" / entry.name / name
