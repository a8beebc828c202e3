"""``export``: the weights of a run for other machines and programs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from talkingface.components.models import build_model, load_model_weights
from talkingface.errors import ConfigError
from talkingface.model.weights import extra_state
from talkingface.quick_start.infer import configure
from talkingface.trainer.checkpoint import export_weights, plain_values
from talkingface.utils.logs import setup_logging
from talkingface.utils.paths import shown, write_text

log = logging.getLogger(__name__)


def export(options: Mapping[str, str], config: Mapping[str, Any], config_files: list[str]) -> int:
    """Write ``weights.safetensors``, ``weights.json`` and ``config.yaml``; returns the exit status.

    Options: ``checkpoint`` (default: the newest run of the model), ``output``. Key: ``half``.

    Raises:
        ConfigError: no run, no folder, or a folder with other files.
    """
    config = dict(config)
    half = bool(config.pop("half", False))
    cfg, checkpoint = configure(options, config, config_files)
    setup_logging(cfg.log_level)
    if checkpoint is None:
        raise ConfigError(f"{cfg.model} has no weights of its own to export")
    if not options.get("output"):
        raise ConfigError("export needs --output=<folder>")
    folder = Path(options["output"]).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--output={folder} exists already; choose a new folder")
    model = build_model(cfg)
    load_model_weights(model, checkpoint, cfg.trust_checkpoint)
    state = model.network.state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    path = export_weights(
        folder,
        halved(state) if half else state,
        {
            "model": cfg.model,
            "network": model.main_network,
            "trained_on": cfg.dataset,
            "data_licence": cfg.dataset_entry.meta.get("licence"),
            "format": "safetensors; names of the official state_dict",
            "other_parameter": plain_values(extra_state(model)),
        },
    )
    write_text(folder / "config.yaml", cfg.to_yaml())
    log.info("%s of %s: %.1f MB", shown(path), shown(checkpoint), path.stat().st_size / 1e6)
    return 0


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in half precision where every value fits; the others, and integers, as they are."""
    half = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    fits = {name: bool((t.isfinite() | ~state[name].isfinite()).all()) for name, t in half.items()}
    return {name: half[name] if fits[name] else tensor for name, tensor in state.items()}
