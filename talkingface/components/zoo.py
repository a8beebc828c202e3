"""The zoo: trained weights that ship with the toolkit, below ``checkpoints/zoo``.

``zoo/<entry>/`` holds exported weights (``weights.safetensors``, ``weights.json``, ``config.yaml``)
and ``card.yaml``: how they were made and what they reach. ``benchmarks/make_zoo.py`` writes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from talkingface.errors import ConfigError
from talkingface.utils.paths import SHIPPED
from talkingface.utils.suggest import did_you_mean
from talkingface.utils.yaml_files import load_yaml

ZOO = SHIPPED / "checkpoints" / "zoo"
NAME = "zoo"  # of the value of a weights key


def cards() -> dict[str, dict[str, Any]]:
    """The card of each entry, by name."""
    return {path.parent.name: load_yaml(path)[0] for path in _entries()}


def zoo_rows() -> list[tuple[str, str]]:
    """Value of a weights key, and summary, of each entry."""
    return [(f"{NAME}/{name}", card["summary"]) for name, card in cards().items()]


def _entries() -> list[Path]:
    cards = sorted(ZOO.glob("*/card.yaml"))
    return [path for path in cards if path.with_name("weights.safetensors").is_file()]


def is_zoo(text: str) -> bool:
    """Whether a weights key names the zoo: ``zoo`` or ``zoo/<entry>``."""
    return text == NAME or text.startswith(f"{NAME}/")


def has_entry(model: str | None) -> bool:
    """Whether ``zoo`` stands for weights of this model."""
    return model is not None and (ZOO / model / "card.yaml") in _entries()


def zoo_file(text: str, model: str | None = None) -> Path:
    """The weights of ``zoo/<entry>``, or of ``zoo`` for a model.

    Raises:
        ConfigError: there is no such entry.
    """
    name = text.removeprefix(NAME).removeprefix("/") or model or ""
    known = cards()
    if name not in known:
        hint = did_you_mean(name, known)
        of_model = f" for {model}" if text == NAME and model else ""
        raise ConfigError(
            f"{text}: the zoo has no such weights{of_model}.{hint} It has {', '.join(known)}; a "
            "path or a run id names others, 'none' none."
        )
    return ZOO / name / "weights.safetensors"


def is_in_zoo(path: Path) -> bool:
    """Whether a file is one of the zoo."""
    return path.resolve().is_relative_to(ZOO.resolve())
