"""Steps that training, evaluation and generation share."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from talkingface.config.config import load_config
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
from talkingface.quick_start.run_dir import newest_checkpoint
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
    return cfg.registry.resolve(cfg.model_entry, "pipeline")(cfg, model, device)


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
        log.debug("weights of %s, step %s", path, content["global_step"])
    else:
        log.info("%s", load_into(model, path, trust=trust))


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
        path = None
        if pinned is not None:
            path = _pinned(name, pinned.get(name))
        elif helper.weights == "auto":
            official = [resolve(cfg.weights_dir) / file for file in helper.files]
            path = next((file for file in official if file.is_file()), None)
            if path is None and helper.model:
                path = newest_checkpoint(resolve(cfg.checkpoint_dir), helper.model, cfg.dataset)
        elif helper.weights:
            path = cfg.weights_path(helper.weights)
        if path is None:
            ways = (
                f"train one with --model={helper.model} --dataset={cfg.dataset}, or "
                if helper.model
                else ""
            )
            files = (
                f"put {' or '.join(helper.files)} into {cfg.weights_dir}/, or "
                if helper.files
                else ""
            )
            if helper.required:
                raise WeightsError(f"{helper.why} needs weights: {files}set weights.{name}=PATH")
            log.info(
                "%s is not used: no weights (%s%sset weights.%s)", helper.why, ways, files, name
            )
            continue
        network = _frozen_network(cfg, helper, path)
        model.attach_frozen(name, network, source={"path": str(path), "sha256": sha256_of(path)})
        log.info("%s: weights of %s", helper.why, shown(path))


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


def _frozen_network(cfg: Config, helper: FrozenNetwork, path: Path) -> torch.nn.Module:
    """A helper with its weights: of the size of a trained run, or an official file's."""
    settings = config_of_checkpoint(path, cfg.trust_checkpoint)
    if settings is not None:
        if settings["model"] != helper.model:
            raise WeightsError(f"{path} belongs to {settings['model']}, not to {helper.model}")
        judge = build_model(load_config(overrides={**settings, "resume": False}))
        load_model_weights(judge, path)
        return judge.network
    network = helper.build()
    content = read_weights(path, trust=cfg.trust_checkpoint)
    state = extract_state_dict(content, (), "")
    # Classifier heads of image networks are not built.
    load_strict(network, state, source=shown(path), network="helper", optional=("classifier.",))
    return network


def config_of_checkpoint(path: Path, trust: str | None = None) -> dict[str, Any] | None:
    """Settings stored in a checkpoint of ours, None for an official file."""
    from talkingface.config.loader import parse_yaml

    content = read_weights(path, trust=trust)
    if content.get("format") != CHECKPOINT_FORMAT:
        return None
    settings = parse_yaml(content["config"], str(path))
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: the stored configuration is damaged")
    return settings
