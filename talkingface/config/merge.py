"""Layers of settings and their merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from talkingface.errors import ConfigError


@dataclass
class Layer:
    """One source of settings.

    Attributes:
        label: name of the source in messages, e.g. a path or ``command line``.
        values: nested mapping; dotted keys are expanded by :func:`nest`.
        lines: line number of each dotted key, for files.
    """

    label: str
    values: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)

    def where(self, key: str) -> str:
        return f"{self.label}:{self.lines[key]}" if key in self.lines else self.label


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Expand dotted keys: ``{"loss.l1_wt": 1}`` becomes ``{"loss": {"l1_wt": 1}}``."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, last = str(key).split(".")
        target = nested
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise ConfigError(f"'{key}': '{parent}' already has a plain value")
        value = nest(value) if isinstance(value, Mapping) else value
        if isinstance(value, dict) and isinstance(target.get(last), dict):
            merge_into(target[last], value)
        else:
            target[last] = value
    return nested


def merge_into(base: dict, extra: Mapping) -> None:
    """Merge mappings recursively in place; other values of ``extra`` replace those of ``base``."""
    for key, value in extra.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            merge_into(base[key], value)
        else:
            base[key] = value


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The reverse of :func:`nest`; an empty mapping stays a leaf."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def merge_layers(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    """Merge layers, low to high: mappings recursively, lists and scalars replace earlier values.

    Returns:
        The values, and the source (``label:line``) of each leaf by dotted key.
    """
    merged: dict[str, Any] = {}
    provenance: dict[str, str] = {}

    def put(target: dict, values: Mapping, layer: Layer, prefix: str) -> None:
        for key, value in values.items():
            dotted = f"{prefix}{key}"
            if isinstance(value, Mapping) and value:
                if not isinstance(target.get(key), dict):
                    target[key] = {}
                provenance.pop(dotted, None)
                put(target[key], value, layer, dotted + ".")
            else:
                if isinstance(value, Mapping) and isinstance(target.get(key), dict):
                    continue  # an empty mapping
                for old in [k for k in provenance if k == dotted or k.startswith(dotted + ".")]:
                    del provenance[old]
                target[key] = dict(value) if isinstance(value, Mapping) else value
                provenance[dotted] = layer.where(dotted)

    for layer in layers:
        put(merged, layer.values, layer, "")
    return merged, provenance


def source_of(provenance: Mapping[str, str], key: str) -> str:
    """The source of a key or, for a section, of its first key that is set; else ``default``."""
    inner = (source for name, source in provenance.items() if name.startswith(key + "."))
    return provenance.get(key) or next(inner, "default")
