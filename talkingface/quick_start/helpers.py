"""Steps that training, evaluation and generation share."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from talkingface.config.config import load_config
from talkingface.config.merge import flatten
from talkingface.errors import ConfigError, WeightsError
from talkingface.model.abstract_talkingface import AbstractTalkingFace, FrozenNetwork
from talkingface.model.weights import (
    CHECKPOINT_FORMAT,
    extract_state_dict,
    load_into,
    load_strict,
    read_weights,
    sha256_of,
)
from talkingface.pipeline.base import Pipeline
from talkingface.quick_start.run_dir import named_weights, newest_checkpoint, saved_folder
from talkingface.trainer.checkpoint import restore_networks
from talkingface.utils.paths import resolve, shown

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)


def build_model(cfg: Config) -> AbstractTalkingFace:
    """The untrained model of a configuration."""
    return cfg.registry.resolve(cfg.model_entry, "model")(cfg)


def build_pipeline(
    cfg: Config, model: AbstractTalkingFace, device: torch.device
) -> Pipeline | None:
    """The generator of videos, None for models that make none."""
    if not cfg.model_entry.target("pipeline"):
        return None
    attach_generators(cfg, model)
    return cfg.registry.resolve(cfg.model_entry, "pipeline")(cfg, model, device)


def attach_generators(cfg: Config, model: AbstractTalkingFace) -> None:
    """Load the helpers that a model generates with: those that its weights were trained with."""
    for name, helper in model.frozen_networks().items():
        if helper.generates and name not in model.frozen:
            path = _trained_with(cfg, model, name, helper)
            network, settings = _frozen_network(cfg, name, helper, path, model)
            source = {"path": str(path), "sha256": sha256_of(path)}
            model.attach_frozen(name, network, source, settings)
            log.info("%s: weights of %s", helper.why, shown(path))


def _trained_with(
    cfg: Config, model: AbstractTalkingFace, name: str, helper: FrozenNetwork
) -> Path:
    """The helper's file that loaded weights were trained with, unless the key names another."""
    source = model.trained_with.get(name)
    if source and helper.weights in ("auto", source["path"]):
        path = Path(source["path"])
        if path.is_file() and sha256_of(path) == source["sha256"]:
            return path
        log.warning("%s: %s, with which it was trained, is gone or changed", cfg.model, path)
    if model.foreign_weights and helper.weights == "auto":
        official = _official(cfg, helper)
        if official is None:
            raise WeightsError(
                f"{helper.why} needs the official file that belongs to these weights: put "
                f"{' or '.join(helper.files)} into {cfg.weights_dir}/, or set weights.{name}"
            )
        return official
    return _followed(cfg, model, name, helper) or required_weights(cfg, name)


def _followed(
    cfg: Config, model: AbstractTalkingFace, name: str, helper: FrozenNetwork
) -> Path | None:
    """The file of a helper that other helpers were trained with."""
    found: dict[str, tuple[str, str]] = {}
    for other in helper.follows:
        source = model.frozen_trained_with.get(other, {}).get(name)
        if source:
            found[source["sha256"]] = (source["path"], other)
    if helper.weights != "auto":
        named = find_weights(cfg, helper)
        if found and named and named.is_file() and sha256_of(named) not in found:
            log.warning("%s: the other parts were trained with another one", shown(named))
        return None
    if len(found) > 1:
        parts = " and ".join(f"{other} with {path}" for path, other in found.values())
        raise ConfigError(
            f"{helper.why}: the parts do not belong together ({parts}). Train one of them again, "
            f"or name others with weights.<part>."
        )
    for sha256, (text, other) in found.items():
        path = Path(text)
        if not path.is_file() or sha256_of(path) != sha256:
            raise WeightsError(
                f"{other} was trained with {path}, which is gone or has changed. Restore the file, "
                f"train {other} again, or set weights.{name}."
            )
        return path
    return None


def as_trained(cfg: Config, model: AbstractTalkingFace) -> Config:
    """The configuration with the helpers that loaded weights were trained with in place of auto:
    data that a helper makes must be made by the same one."""
    chosen = {
        f"weights.{name}": str(_trained_with(cfg, model, name, helper))
        for name, helper in model.frozen_networks().items()
        if helper.generates and helper.weights == "auto" and name in model.trained_with
    }
    if not chosen:
        return cfg
    return load_config(
        cfg.model, cfg.dataset, base=cfg.to_dict(), overrides={**chosen, "resume": False}
    )


def load_model_weights(model: AbstractTalkingFace, path: Path, trust: str | None = None) -> None:
    """Load a checkpoint of ours (averaged weights first) or an official file.

    Raises:
        WeightsError: missing, damaged, unsafe, or made for another model or size.
    """
    content: dict[str, Any] = read_weights(path, trust=trust)
    if content.get("format") == CHECKPOINT_FORMAT:
        if content["model_name"] != model.cfg.model:
            raise WeightsError(
                f"{path} belongs to {content['model_name']}, not to {model.cfg.model}"
            )
        restore_networks(model, content, averaged=True)
        model.load_other_parameter(content["other_parameter"])
        model.trained_with = dict(content.get("frozen_weights") or {})
        log.debug("weights of %s, step %s", path, content["global_step"])
    else:
        log.info("%s", load_into(model, path, trust=trust))
        # Beside the weights that a run exports lies what they are.
        facts = path.with_name("weights.json")
        model.foreign_weights = not facts.is_file()
        if facts.is_file():
            values = json.loads(facts.read_text("utf-8")).get("other_parameter")
            if values:
                model.load_other_parameter(values)


def attach_frozen(
    cfg: Config, model: AbstractTalkingFace, resumed: dict[str, Any] | None = None
) -> None:
    """Load the helpers that the model's losses use; say which are used and which are not.

    Args:
        resumed: content of the checkpoint to go on from; its helpers are used again, so that one
            trained in the meantime does not change the run.

    Raises:
        WeightsError: a named or required file is missing, does not fit, or changed since the
            checkpoint was written.
    """
    pinned = (resumed or {}).get("frozen_weights")
    for name, helper in model.frozen_networks().items():
        if pinned is not None:
            path = _pinned(name, pinned.get(name))
        else:
            path = _followed(cfg, model, name, helper) or find_weights(cfg, helper)
        if path is None:
            ways = _ways(cfg, name, helper)
            if helper.required:
                raise WeightsError(f"{helper.why} needs weights: {ways}")
            log.warning("%s is not used: no weights (%s)", helper.why, ways)
            continue
        network, settings = _frozen_network(cfg, name, helper, path, model)
        source = {"path": str(path), "sha256": sha256_of(path)}
        model.attach_frozen(name, network, source, settings)
        log.info("%s: weights of %s", helper.why, shown(path))


def find_weights(cfg: Config, helper: FrozenNetwork) -> Path | None:
    """The file of a helper by its key: a path or run id, or what ``auto`` finds; None: none.

    ``auto`` takes only runs that reached their end.
    """
    if helper.weights != "auto":
        return named_weights(cfg, helper.weights) if helper.weights else None
    trained = None
    if helper.model:
        trained = newest_checkpoint(saved_folder(cfg), helper.model, cfg.dataset, finished=True)
    official = _official(cfg, helper)
    # What generates belongs to the data; a judge is the better the more it has seen.
    return trained or official if helper.generates else official or trained


def _official(cfg: Config, helper: FrozenNetwork) -> Path | None:
    """An official file of a helper whose further files are there too."""
    folder = resolve(cfg.weights_dir)
    if not all((folder / name).is_file() for name in helper.also):
        return None
    return next((folder / file for file in helper.files if (folder / file).is_file()), None)


def stage_files(cfg: Config, checkpoint: Path) -> list[Path]:
    """Files of the earlier stages with which a checkpoint generates."""
    model = build_model(cfg)
    content = read_weights(checkpoint, trust=cfg.trust_checkpoint)
    ours = content.get("format") == CHECKPOINT_FORMAT
    model.trained_with = dict(content.get("frozen_weights") or {}) if ours else {}
    model.foreign_weights = not ours
    helpers = model.frozen_networks().items()
    return [_trained_with(cfg, model, name, h) for name, h in helpers if h.generates]


def required_weights(cfg: Config, name: str) -> Path:
    """The file of a helper that a preparation stands on.

    Raises:
        WeightsError: there is none; the message says how to get it.
    """
    helper = build_model(cfg).frozen_networks()[name]
    path = find_weights(cfg, helper)
    if path is None or not path.is_file():
        raise WeightsError(f"{helper.why} needs weights: {_ways(cfg, name, helper)}")
    return path


def _ways(cfg: Config, name: str, helper: FrozenNetwork) -> str:
    """How to get a helper's weights."""
    ways = []
    if helper.model:
        ways.append(f"train one with --model={helper.model} --dataset={cfg.dataset}")
    if helper.files:
        further = "".join(f" and {file}" for file in helper.also)
        ways.append(f"put {' or '.join(helper.files)}{further} into {cfg.weights_dir}/")
    return ", or ".join([*ways, f"set weights.{name}"])


def stage_pipeline(cfg: Config, name: str, checkpoint: Path, device: torch.device) -> Pipeline:
    """The generator of an earlier stage as it generates by default, with the faces of this run.

    Args:
        name: of the helper.

    Raises:
        WeightsError, ConfigError: made for another model, or with keys that do not agree.
    """
    helper = build_model(cfg).frozen_networks()[name]
    stored = _agreeing_settings(cfg, name, helper, checkpoint)
    if stored is None:
        stored = {"model": helper.model, "dataset": cfg.dataset, "fps": cfg.fps}
    plain = load_config(stored["model"], stored["dataset"])
    own = load_config(
        stored["model"], stored["dataset"], base=stored,
        overrides={"infer": plain.infer.model_dump(), "face": cfg.face.model_dump(),
                   "precision": cfg.precision, "resume": False},
    )  # fmt: skip
    network = build_model(own)
    load_model_weights(network, checkpoint, cfg.trust_checkpoint)
    return build_pipeline(own, network.eval(), device)


def _pinned(name: str, source: dict[str, str] | None) -> Path | None:
    """The helper's file that a checkpoint was trained with; None when it had none."""
    if source is None:
        return None
    path = Path(source["path"])
    if not path.is_file() or sha256_of(path) != source["sha256"]:
        raise WeightsError(
            f"The run was trained with {path} as {name}; the file has vanished or changed, so it "
            "cannot go on exactly. Restore the file, or start a new run."
        )
    return path


def _agreeing_settings(
    cfg: Config, name: str, helper: FrozenNetwork, path: Path
) -> dict[str, Any] | None:
    """Settings of the run that trained a helper; None for official files."""
    settings = config_of_checkpoint(path, cfg.trust_checkpoint)
    if settings is None:
        return None
    if settings["model"] != helper.model:
        raise WeightsError(f"{path} belongs to {settings['model']}, not to {helper.model}")
    _require_agreement(cfg, name, helper, path, flatten(settings))
    return settings


def _require_agreement(
    cfg: Config, name: str, helper: FrozenNetwork, path: Path, then: dict[str, Any]
) -> None:
    """Keys that a helper and this run must share.

    Raises:
        ConfigError: naming the key and its value.
    """
    now = flatten(cfg.to_dict())
    for key in helper.agree:
        if key in then and then[key] != now[key]:
            raise ConfigError(
                f"weights.{name}: {path} was trained with {key}={then[key]}, but this run has "
                f"{now[key]}. Set --{key}={str(then[key]).replace(' ', '')}."
            )


def helper_network(cfg: Config, name: str, path: Path) -> torch.nn.Module:
    """A helper with its weights, in eval mode, for a preparation."""
    helper = build_model(cfg).frozen_networks()[name]
    return _frozen_network(cfg, name, helper, path)[0].eval().requires_grad_(False)


def _frozen_network(
    cfg: Config,
    name: str,
    helper: FrozenNetwork,
    path: Path,
    model: AbstractTalkingFace | None = None,
) -> tuple[torch.nn.Module, dict[str, Any] | None]:
    """A helper with its weights, of the size of a trained run or an official file's; settings.

    Args:
        model: learns what the helper itself was trained with.
    """
    settings = _agreeing_settings(cfg, name, helper, path)
    if settings is not None:
        judge = build_model(load_config(overrides={**settings, "resume": False}))
        load_model_weights(judge, path)
        if model is not None:
            model.frozen_trained_with[name] = judge.trained_with
        return judge if helper.whole is not None else judge.network, settings
    if helper.whole is not None:
        if path.with_name("weights.json").is_file():
            raise WeightsError(
                f"{path} was exported by a run, but the run's config.yaml, which tells its "
                "settings, does not lie beside it. Take it along, or name the .ckpt of the run."
            )
        part = cfg.registry.resolve(cfg.registry.entry("model", helper.model), "model")
        state = extract_state_dict(read_weights(path, trust=cfg.trust_checkpoint), (), "")
        settings = {**flatten(helper.whole), **part.settings_of(state), "resume": False}
        own = load_config(helper.model, cfg.dataset, overrides=settings)
        _require_agreement(cfg, name, helper, path, flatten(own.to_dict()))
        judge = build_model(own)
        load_model_weights(judge, path, cfg.trust_checkpoint)
        return judge, None
    network = helper.build()
    state: dict[str, Any] = {}
    for file in (path, *(resolve(cfg.weights_dir) / name for name in helper.also)):
        content = read_weights(file, trust=cfg.trust_checkpoint)
        state.update(extract_state_dict(content, (), ""))
    # Classifier heads of image networks are not built.
    optional = ("classifier.", *helper.optional)
    load_strict(network, state, source=shown(path), network="helper", optional=optional)
    return network, None


def config_of_checkpoint(path: Path, trust: str | None = None) -> dict[str, Any] | None:
    """Settings stored in a checkpoint of ours, or beside weights that a run exported; None for an
    official file."""
    from talkingface.config.loader import parse_yaml

    content = read_weights(path, trust=trust)
    if content.get("format") != CHECKPOINT_FORMAT:
        beside = path.with_name("config.yaml")
        if not (path.with_name("weights.json").is_file() and beside.is_file()):
            return None
        text = beside.read_text("utf-8")
    else:
        text = content["config"]
    settings = parse_yaml(text, str(path))
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: the stored configuration is damaged")
    return settings
