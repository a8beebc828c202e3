"""The registry: every model, dataset and metric is one YAML file below a ``properties`` folder.

Listing names imports nothing; resolving a class imports only the module in its YAML.
``--plugin_path`` or ``TALKINGFACE_PLUGINS`` (several paths separated by ``os.pathsep``) add folders
outside the repository. Such a folder contains ``properties/{model,dataset,metric}`` and the Python
modules of its YAML files.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from talkingface.errors import ConfigError, EnvironmentProblem
from talkingface.utils.paths import SHIPPED, is_repository, project_root
from talkingface.utils.suggest import did_you_mean, fold
from talkingface.utils.yaml_files import load_yaml

KINDS = ("model", "dataset", "metric", "recipe")
# Keys of the YAML that describe the entry itself; all others are configuration values.
META_KEYS = {
    "model": ("name", "summary", "paper", "licence", "classes", "datasets", "needs", "presets",
              "aliases"),
    "dataset": ("name", "summary", "kind", "licence", "origin", "about", "classes", "needs",
                "presets", "aliases"),
    "recipe": ("name", "summary", "stages", "aliases"),
    "metric": ("name", "summary", "reference", "class", "outputs", "inputs", "params", "aliases"),
}  # fmt: skip
# test_dataset: dataset class for the test of a model that only joins trained parts.
ROLES = ("model", "config", "dataset", "test_dataset", "dataprocess", "trainer", "pipeline",
         "source")  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One YAML file of the registry.

    Attributes:
        kind: ``model``, ``dataset``, ``metric`` or ``recipe``.
        name: canonical spelling.
        path: the YAML file.
        meta: the descriptive keys (see :data:`META_KEYS`).
        values: configuration values that this file sets.
        lines: line number of every dotted key.
    """

    kind: str
    name: str
    path: Path
    meta: dict[str, Any]
    values: dict[str, Any] = field(repr=False)
    lines: dict[str, int] = field(repr=False)

    @property
    def summary(self) -> str:
        return str(self.meta.get("summary", "")).strip()

    @property
    def presets(self) -> dict[str, dict[str, Any]]:
        return self.meta.get("presets") or {}

    def target(self, role: str) -> str | None:
        """The ``module:Class`` string of a role; None if the YAML has none."""
        if self.kind == "metric":
            return self.meta.get("class") if role == "metric" else None
        return (self.meta.get("classes") or {}).get(role)


class Registry:
    """All entries below a list of ``properties`` folders.

    Args:
        plugins: further folders, searched after the repository.

    Raises:
        ConfigError: a plugin folder does not exist, or two files have the same name.
    """

    def __init__(self, plugins: Iterable[str | Path] = ()) -> None:
        self.plugins = [Path(item).expanduser().resolve() for item in plugins]
        for folder in self.plugins:
            if not folder.is_dir():
                raise ConfigError(f"plugin_path: the folder {folder} does not exist")
        roots = [SHIPPED / "properties"]
        project = project_root()
        if not is_repository(project):  # an installed package inside a checkout: the same files
            roots.insert(0, project / "properties")
        roots += [p / "properties" if (p / "properties").is_dir() else p for p in self.plugins]
        self.roots = list(dict.fromkeys(root for root in roots if root.is_dir()))
        self.own_datasets = project / "properties" / "dataset" / "local"
        self._entries: dict[str, dict[str, Entry]] = {}

    def entries(self, kind: str) -> dict[str, Entry]:
        """Entries of a kind, keyed by canonical name, sorted by name."""
        if kind not in self._entries:
            entries: dict[str, Entry] = {}
            folders = [root / kind for root in self.roots]
            folders += [self.own_datasets] if kind == "dataset" else []
            paths = (path for folder in folders for path in sorted(folder.rglob("*.yaml")))
            for path in dict.fromkeys(paths):
                entry = _read_entry(kind, path)
                other = entries.setdefault(fold(entry.name), entry)
                if other is not entry:
                    raise ConfigError(
                        f"two files describe the {kind} '{entry.name}': {other.path}, {path}."
                        " Rename one of them."
                    )
            ordered = sorted(entries.values(), key=lambda item: item.name.lower())
            self._entries[kind] = {entry.name: entry for entry in ordered}
        return self._entries[kind]

    def names(self, kind: str) -> list[str]:
        return list(self.entries(kind))

    def entry(self, kind: str, name: str) -> Entry:
        """The entry of a name (any spelling) or alias.

        Raises:
            ConfigError: unknown name; the message contains the most similar known ones.
        """
        wanted = fold(name)
        for entry in self.entries(kind).values():
            if wanted in map(fold, (entry.name, *(entry.meta.get("aliases") or ()))):
                return entry
        known = self.names(kind)
        raise ConfigError(
            f"There is no {kind} called '{name}'.{did_you_mean(name, known)} "
            f"Known {kind}s: {', '.join(known)}. ('--list' describes them.)"
        )

    def supports(self, model: Entry, dataset: Entry) -> bool:
        """Whether a model's YAML lists the dataset; ``datasets: any`` accepts all with videos,
        ``datasets: all`` also those of motion."""
        supported = model.meta.get("datasets", "any")
        if supported == "all":
            return True
        if supported == "any":
            return dataset.meta.get("kind", "video") == "video"
        return fold(dataset.name) in {fold(item) for item in supported}

    def resolve(self, entry: Entry, role: str) -> Any:
        """Import the class of an entry for a role, e.g. ``dataset``.

        Raises:
            ConfigError: the YAML has no class for the role, or it does not exist.
            EnvironmentProblem: its module needs a package that is not installed.
        """
        target = entry.target(role)
        if not target:
            raise ConfigError(f"{entry.path}: 'classes' names no '{role}' for {entry.name}")
        return import_target(target, f"{entry.path} (classes.{role})", self.plugins)


def import_target(target: str, where: str, plugins: Iterable[Path] = ()) -> Any:
    """Import ``module:Class``.

    Args:
        where: source of the text, for error messages.
        plugins: folders to add to ``sys.path``.
    """
    module_name, _, attribute = str(target).partition(":")
    if not attribute:
        raise ConfigError(f"{where}: '{target}' must have the form 'package.module:Class'")
    for folder in plugins:
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing and module_name.startswith(missing):
            raise ConfigError(f"{where}: there is no Python module '{module_name}'") from error
        raise EnvironmentProblem(
            f"{target} needs the Python package '{missing}', which is not installed. "
            f"Install it with: pip install {missing.split('.')[0]}"
        ) from error
    if not hasattr(module, attribute):
        raise ConfigError(f"{where}: the module '{module_name}' has no '{attribute}'")
    return getattr(module, attribute)


def _read_entry(kind: str, path: Path) -> Entry:
    data, lines = load_yaml(path)
    meta = {key: data[key] for key in META_KEYS[kind] if key in data}
    values = {key: value for key, value in data.items() if key not in META_KEYS[kind]}
    name = str(meta.get("name", path.stem))
    if fold(name) != fold(path.stem):
        raise ConfigError(f"{path}: 'name: {name}' must equal the file name '{path.stem}'")
    for role in meta.get("classes") or {}:
        if role not in ROLES:
            raise ConfigError(
                f"{path}:{lines.get('classes.' + role, 0)}: unknown role 'classes.{role}'."
                + did_you_mean(role, ROLES)
            )
    if kind in ("metric", "recipe"):
        for key in values:
            raise ConfigError(f"{path}:{lines[key]}: unknown key '{key}'."
                              + did_you_mean(key, META_KEYS[kind]))  # fmt: skip
    return Entry(kind, name, path, meta, values, lines)


def plugin_folders(extra: str | Path | Iterable[str | Path] | None = None) -> tuple[str, ...]:
    """Plugin folders of the setting ``plugin_path`` and of ``TALKINGFACE_PLUGINS``."""
    items = [extra] if isinstance(extra, (str, Path)) else list(extra or ())
    items.append(os.environ.get("TALKINGFACE_PLUGINS", ""))
    parts = (part for item in items for part in str(item).split(os.pathsep) if part)
    return tuple(dict.fromkeys(parts))


@lru_cache(maxsize=8)
def _cached(plugins: tuple[str, ...], root: Path) -> Registry:
    return Registry(plugins)


def get_registry(plugin_path: str | Path | Iterable[str | Path] | None = None) -> Registry:
    """The registry of this process, cached for each set of plugin folders."""
    return _cached(plugin_folders(plugin_path), project_root())


def refresh() -> None:
    """Clear the cache, after a YAML file was added at run time."""
    _cached.cache_clear()
