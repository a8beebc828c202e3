"""Texts on configuration keys: ``--print_config`` and ``--explain``."""

from __future__ import annotations

import contextlib
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from talkingface.config.config import Config, iter_fields, load_config
from talkingface.config.merge import flatten, source_of
from talkingface.errors import ConfigError
from talkingface.registry import META_KEYS, Registry
from talkingface.utils.suggest import did_you_mean, fold


def type_name(annotation: Any) -> str:
    """A readable form of a field's type, e.g. ``float or null``."""
    origin = typing.get_origin(annotation)
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    if origin is typing.Literal:
        return "|".join(str(item) for item in typing.get_args(annotation))
    if origin is typing.Annotated:
        return type_name(typing.get_args(annotation)[0])
    if origin is typing.Union or type(annotation).__name__ == "UnionType":
        return " or ".join(type_name(item) for item in typing.get_args(annotation))
    if origin in (list, tuple, dict):
        inner = ", ".join(type_name(item) for item in typing.get_args(annotation))
        return f"{origin.__name__} of {inner}"
    name = getattr(annotation, "__name__", str(annotation))
    return {"str": "text", "bool": "true|false"}.get(name, name)


def _limits(info: Any) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    return ", ".join(
        f"{sign} {getattr(item, name)}"
        for item in info.metadata
        for name, sign in signs.items()
        if getattr(item, name, None) is not None
    )


def print_config(cfg: Config) -> str:
    """All keys, aligned, with the layer that set each."""
    flat = flatten(cfg.to_dict())
    width = max(len(key) for key in flat)
    lines: list[str] = []
    section = None
    for key, value in flat.items():
        head = key.split(".")[0] if "." in key else ""
        if head != section:
            lines.append("" if lines else f"# {cfg.model} @ {cfg.dataset}")
            section = head
        text = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
        lines.append(f"{key:<{width}} = {text!s:<24} # {source_of(cfg.provenance, key)}")
    return "\n".join(lines)


def explain_key(cfg: Config, key: str, models: Sequence[str] = ()) -> str:
    """Type, default, meaning and current value of a key, given in full or by its last part.

    Args:
        models: models whose keys are searched if the configuration has no such key.

    Raises:
        ConfigError: no such key.
    """
    fields = dict(iter_fields(cfg.schema))
    wanted = cfg.schema.aliases.get(key, key)
    matches = [n for n in fields if fold(n) == fold(wanted)]
    matches = matches or [n for n in fields if fold(n.rsplit(".", 1)[-1]) == fold(wanted)]
    if not matches:
        for model in models:
            with contextlib.suppress(ConfigError):  # not for this dataset, or no such key either
                return f"# {model}\n{explain_key(load_config(model, cfg.dataset), key)}"
        raise ConfigError(f"There is no key '{key}'.{did_you_mean(key, fields)}")
    blocks = []
    for name in matches:
        info = fields[name]
        default = info.default
        if default is PydanticUndefined:
            default = "(a section)" if info.default_factory else "(required)"
        limits = _limits(info)
        value = "(a section)" if hasattr(cfg[name], "model_dump") else cfg[name]
        old = sorted(k for k, new in cfg.schema.aliases.items() if new == name)
        blocks.append(
            f"{name}\n  {info.description}\n"
            f"  type:    {type_name(info.annotation)}{' (' + limits + ')' if limits else ''}\n"
            f"  default: {default}\n  value:   {value}   # {source_of(cfg.provenance, name)}"
            + (f"\n  old names: {', '.join(old)}" if old else "")
        )
    return "\n\n".join(blocks)


def unknown_key(registry: Registry, keys: Iterable[str]) -> str:
    """What is wrong with the first key that neither the runner nor a model nor a dataset has."""
    known: set[str] = set(META_KEYS["model"])
    datasets = registry.entries("dataset").values()
    for model in registry.entries("model").values():
        dataset = next(d.name for d in datasets if registry.supports(model, d))
        schema = load_config(model.name, dataset).schema
        known |= {*schema.model_fields, *schema.aliases}
    for dataset in datasets:
        if dataset.target("config"):
            known |= set(registry.resolve(dataset, "config").model_fields)
    names = {fold(name) for name in known}
    for key in keys:
        if fold(key.split(".")[0]) not in names:
            return f"--{key} is neither an option nor a key.{did_you_mean(key, known)}"
    return ""
