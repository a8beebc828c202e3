"""Old key names and spelling variants, translated before the layers are merged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from talkingface.config.merge import Layer, merge_into, nest
from talkingface.errors import ConfigError
from talkingface.registry import META_KEYS
from talkingface.utils.suggest import fold

# Keys of the earlier talkingface-toolkit without a replacement, and the reason.
_RETIRED = {
    "temp_sub_dir": "scratch files need no folder of their own",
    "valid_metric_bigger": "the direction follows from the metric",
}
# Sections that may be written as a single value: --face=left.
_SHORT = {"face": "choose"}
_HINTS = {"gpu_id": " It is a number of devices; choose a GPU with 'device: cuda:<number>'."}


def spelled_out(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace short forms by full keys.

    Raises:
        ConfigError: the short and the full form have different values.
    """
    result = dict(values)
    for section, key in _SHORT.items():
        value = result.get(section)
        if value is None or isinstance(value, Mapping):
            continue
        full = f"{section}.{key}"
        if result.get(full, value) != value:
            raise ConfigError(f"'{section}' is short for '{full}', and both are set. Keep one.")
        result[full] = result.pop(section)
    return result


def apply_aliases(
    layers: list[Layer], aliases: Mapping[str, str], metrics: Iterable[str]
) -> list[str]:
    """Rename old keys within each layer.

    Args:
        metrics: names of the registered metrics.

    Returns:
        Deprecation messages.

    Raises:
        ConfigError: an old key and its new name have different values.
    """
    notes = []
    old_names = {fold(name): name for name in (*aliases, *_RETIRED)}
    for layer in layers:
        for key in list(layer.values):
            if fold(key) in old_names:
                layer.values[old_names[fold(key)]] = layer.values.pop(key)
        for old, why in _RETIRED.items():
            if old in layer.values:
                del layer.values[old]
                notes.append(f"{layer.where(old)}: '{old}' is not used any more: {why}.")
        for old, new in aliases.items():
            if old not in layer.values:
                continue
            value = layer.values.pop(old)
            place = layer.where(old)
            parts = new.split(".")
            if parts[0] == "metric_params" and parts[1] not in metrics:
                notes.append(f"{place}: '{old}' has no effect: there is no metric {parts[1]}.")
                continue
            if old == "gpu_id":
                value = len([p for p in str(value).split(",") if p.strip()]) or 1
            current: Any = layer.values
            for part in parts:
                current = current.get(part) if isinstance(current, dict) else None
            # Old configurations have 'resume: true' beside resume_checkpoint_path.
            agrees = current == value or (old == "resume_checkpoint_path" and current is True)
            if current is not None and not agrees:
                raise ConfigError(
                    f"{place}: '{old}' is the old name of '{new}', and both are set to different "
                    f"values ({value!r} and {current!r}). Keep only '{new}'."
                )
            merge_into(layer.values, nest({new: value}))
            if old in layer.lines:
                layer.lines[new] = layer.lines[old]
            notes.append(f"{place}: '{old}' is an old name; write '{new}'." + _HINTS.get(old, ""))
        if "use_gpu" in layer.values:
            place, use = layer.where("use_gpu"), layer.values.pop("use_gpu")
            device = layer.values.get("device")
            if device is not None and device != "auto" and bool(use) == (device == "cpu"):
                raise ConfigError(
                    f"{place}: 'use_gpu: {str(use).lower()}' (old name of 'device') contradicts "
                    f"'device: {device}'. Keep only 'device'."
                )
            if not use:
                layer.values["device"] = "cpu"
            notes.append(f"{place}: 'use_gpu' is an old name; write 'device: cpu|cuda|auto'.")
    return notes


def fold_keys(layers: list[Layer], schema: type[BaseModel]) -> None:
    """Accept ``-`` for ``_`` and any case in top-level key names."""
    known = {fold(name): name for name in schema.model_fields}
    for layer in layers:
        for key in list(layer.values):
            canonical = known.get(fold(key))
            if canonical and canonical != key and key not in META_KEYS["model"]:
                layer.values[canonical] = layer.values.pop(key)
