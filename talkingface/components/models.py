"""Build models and load their weights."""

from __future__ import annotations

import inspect
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkingface.errors import ConfigError, WeightsError
from talkingface.model.abstract_talkingface import AbstractTalkingFace
from talkingface.model.component import WeightsOrigin
from talkingface.model.weights import (
    CHECKPOINT_FORMAT,
    load_extra_state,
    load_into,
    restore_networks,
)
from talkingface.utils.weights import read_weights
from talkingface.utils.yaml_files import parse_yaml

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)

# Former names of model methods and their replacements; a model class with one is an error.
_MOVED = {
    "frozen_networks": "components(cfg) of the model's config class",
    **dict.fromkeys(("learn_from", "fit_statistics"), "statistics, or initialize"),
    **dict.fromkeys(("require_same", "check_resume_compatible"), "statistics.check_resume"),
    "check_test_data": "statistics.check_test",
    "test_facts": "result_notes",
    **dict.fromkeys(
        ("measure_clip", "measure_motions", "generate_motions", "evaluate_motions"),
        "evaluate_clip, which returns a ClipResult",
    ),
    "active_phases": "self.phases, set in __init__",
    "phase_networks": "phases, whose names end those of their networks",
    "predict": "forward_train",
    "bgr": "visualize, which returns RGB",
}


def check_model_class(model_cls: type[AbstractTalkingFace]) -> None:
    """Check that a model class has no member of an earlier version.

    Raises:
        ConfigError: a member has a former name, so that nothing would call it.
    """
    name = model_cls.__name__
    for old, new in _MOVED.items():
        if hasattr(model_cls, old):
            raise ConfigError(f"{name}.{old} is not used any more; use {new} (docs/extending.md).")
    if "valid" in inspect.signature(model_cls.calculate_loss).parameters:
        raise ConfigError(
            f"{name}.calculate_loss takes (batch, phase, shared); in validation self.training is "
            "False (docs/extending.md)."
        )


def build_model(cfg: Config) -> AbstractTalkingFace:
    """The untrained model of a configuration."""
    model_cls = cfg.registry.resolve(cfg.model_entry, "model")
    check_model_class(model_cls)
    return model_cls(cfg)


def load_model_weights(
    model: AbstractTalkingFace, path: Path, trust: str | None = None, *, partly: bool = False
) -> None:
    """Load a checkpoint of a run (the averaged weights if it has some) or an official file.

    Args:
        partly: a checkpoint may lack networks other than the main one.

    Raises:
        WeightsError: missing, damaged, unsafe, or made for another model or size.
    """
    content: dict[str, Any] = read_weights(path, trust=trust)
    if content.get("format") == CHECKPOINT_FORMAT:
        if content["model_name"] != model.cfg.model:
            raise WeightsError(
                f"{path} belongs to {content['model_name']}, not to {model.cfg.model}"
            )
        restore_networks(model, content, averaged=True, partly=partly)
        load_extra_state(model, content["other_parameter"])
        model.origin = WeightsOrigin(lineage=dict(content.get("frozen_weights") or {}))
        log.debug("weights of %s, step %s", path, content["global_step"])
        return
    log.info("%s", load_into(model, path, trust=trust))
    # A run writes weights.json beside the weights that it exports.
    description = path.with_name("weights.json")
    model.origin = WeightsOrigin(official=not description.is_file())
    if description.is_file():
        values = json.loads(description.read_text("utf-8")).get("other_parameter")
        if values:
            load_extra_state(model, values)


def start_from(model: AbstractTalkingFace, path: Path, trust: str | None = None) -> None:
    """Load weights, and statistics if the file has some, from which a training starts.

    Raises:
        WeightsError: see :func:`load_model_weights`; the message names ``init``.
    """
    origin = model.origin
    try:
        load_model_weights(model, path, trust, partly=True)
    except WeightsError as error:
        raise WeightsError(f"init: {error}") from error
    model.origin = origin  # the trained weights are not those of the file


def config_of_checkpoint(path: Path, trust: str | None = None) -> dict[str, Any] | None:
    """Settings of the run that trained a file: stored in its checkpoint, or in the config.yaml
    beside exported weights; None for an official file."""
    content = read_weights(path, trust=trust)
    if content.get("format") == CHECKPOINT_FORMAT:
        text = content.get("config")
    else:
        file = path.with_name("config.yaml")
        if not (path.with_name("weights.json").is_file() and file.is_file()):
            return None
        text = file.read_text("utf-8")
    settings = parse_yaml(text, str(path)) if isinstance(text, str) else None
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: the stored configuration is damaged")
    return settings
