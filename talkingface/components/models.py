"""Build models and load their weights."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkingface.errors import ConfigError, WeightsError
from talkingface.model.abstract_talkingface import AbstractTalkingFace
from talkingface.model.weights import CHECKPOINT_FORMAT, load_into, restore_networks
from talkingface.utils.weights import read_weights

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)


# Methods of models that have other names now; a model of the user that has one is told.
_MOVED = {
    "frozen_networks": "components(cfg) of the model's config class",
    "learn_from": "fit_statistics",
    "require_same": "check_resume_compatible",
    "test_facts": "result_notes",
    "measure_clip": "evaluate_clip",
    "measure_motions": "evaluate_motions",
}


def build_model(cfg: Config) -> AbstractTalkingFace:
    """The untrained model of a configuration.

    Raises:
        ConfigError: its class has a method under a former name, which nothing would call.
    """
    model_cls = cfg.registry.resolve(cfg.model_entry, "model")
    for old, new in _MOVED.items():
        if hasattr(model_cls, old):
            raise ConfigError(
                f"{model_cls.__name__}.{old} is not called any more; use {new} "
                "(docs/architecture.md)."
            )
    return model_cls(cfg)


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
        model.lineage = dict(content.get("frozen_weights") or {})
        log.debug("weights of %s, step %s", path, content["global_step"])
        return
    log.info("%s", load_into(model, path, trust=trust))
    # A run writes weights.json beside the weights that it exports.
    description = path.with_name("weights.json")
    model.has_official_weights = not description.is_file()
    if description.is_file():
        values = json.loads(description.read_text("utf-8")).get("other_parameter")
        if values:
            model.load_other_parameter(values)


def config_of_checkpoint(path: Path, trust: str | None = None) -> dict[str, Any] | None:
    """Settings stored in a checkpoint of ours, or beside weights that a run exported; None for an
    official file."""
    from talkingface.utils.yaml_files import parse_yaml

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
