"""Merge the layers of settings, validate them once, keep the source of each value."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, create_model

from talkingface.config.aliases import apply_aliases, fold_keys, spelled_out
from talkingface.config.checks import (
    check_values,
    retired_keys,
    title_of,
    validation_message,
)
from talkingface.config.merge import Layer, merge_layers, nest
from talkingface.config.schema import DatasetConfig, ModelConfig, OverallConfig, Section
from talkingface.errors import ConfigError
from talkingface.registry import Entry, Registry, get_registry
from talkingface.utils.paths import SHIPPED, project_root, resolve, shown
from talkingface.utils.suggest import did_you_mean, fold
from talkingface.utils.yaml_files import load_yaml

# Keys that do not change the trained weights at a given step: one of two runs that differ in
# these keys only may resume the other.
_NOT_IN_HASH = {
    *("plugin_path", "preset", "stages", "need_preprocess", "train", "evaluate_model_file"),
    *("device", "devices", "num_workers", "process_workers", "executor", "executor_address"),
    *("shard", "show_progress", "log_level", "log_wandb", "log_every", "trust_checkpoint"),
    *("checkpoint_dir", "checkpoint_sub_dir", "results_dir", "log_dir", "tensorboard_dir"),
    *("weights_dir", "saved", "save_minutes", "keep_every", "resume"),
    *("epochs", "max_steps", "max_minutes", "stopping_step", "eval_step", "valid_batches"),
    *("eval_batch_size", "metrics", "metric_params", "baselines", "eval_clips", "n_preview"),
    *("metric_decimal_place", "loss_decimal_place", "infer", "sampler", "media"),
    # The place of the data; their content is compared by quick_start/training_data.py.
    *("root", "data_root", "preprocessed_root"),
    *("train_filelist", "val_filelist", "test_filelist"),
}


def _inferred_section(name: str, values: Mapping[str, Any]) -> type[Section]:
    """A section whose keys and types are those of a YAML, for models without a config class."""
    fields: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            section = _inferred_section(f"{name}_{key}", value)
            fields[key] = (section, Field(default_factory=section, description="Set in the YAML."))
        else:
            kind = Any if value is None else type(value)
            fields[key] = (kind, Field(value, description="Set in the YAML."))
    return create_model(name, __base__=Section, **fields)


def _config_class(registry: Registry, entry: Entry, base: type[Section]) -> type[Section]:
    """The class that declares the keys of an entry's YAML."""
    if entry.target("config"):
        return registry.resolve(entry, "config")
    shared = set(OverallConfig.model_fields) | set(DatasetConfig.model_fields)
    own = {key: value for key, value in entry.values.items() if key not in shared}
    section = _inferred_section(f"{entry.name}Config", own)
    return type(f"{entry.name}Config", (section, base), {"aliases": {}})


@lru_cache(maxsize=64)
def _schema(model_cls: type, dataset_cls: type) -> type[Section]:
    bases = (model_cls, dataset_cls, OverallConfig)
    aliases = {**OverallConfig.aliases, **dataset_cls.aliases, **model_cls.aliases}
    return type("RunConfig", bases, {"aliases": aliases, "__module__": __name__})


def iter_fields(schema: type[BaseModel], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted name and pydantic field of every leaf and section of a schema."""
    for name, info in schema.model_fields.items():
        dotted = f"{prefix}{name}"
        yield dotted, info
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from iter_fields(kind, dotted + ".")


class Config(Mapping):
    """Validated settings of one run; read-only, by attribute or by (dotted) item.

    Attributes:
        model_entry, dataset_entry: registry entries of the pair.
        provenance: source of every leaf that is not a built-in default.
        notes: deprecation messages for the user.
    """

    def __init__(
        self,
        values: Section,
        provenance: dict[str, str],
        registry: Registry,
        model_entry: Entry,
        dataset_entry: Entry,
        notes: list[str],
    ) -> None:
        self._values = values
        self.provenance = provenance
        self.registry = registry
        self.model_entry = model_entry
        self.dataset_entry = dataset_entry
        self.notes = notes

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._values, name)

    def __getitem__(self, key: str) -> Any:
        value: Any = self._values
        for part in key.split("."):
            try:
                value = value[part] if isinstance(value, Mapping) else getattr(value, part)
            except (AttributeError, KeyError):
                known = [name for name, _ in iter_fields(type(self._values))]
                raise ConfigError(f"There is no key '{key}'.{did_you_mean(key, known)}") from None
        return value

    def __contains__(self, key: object) -> bool:
        try:
            self[str(key)]
        except ConfigError:
            return False
        return True

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default

    def __iter__(self):
        return iter(type(self._values).model_fields)

    def __len__(self) -> int:
        return len(type(self._values).model_fields)

    @property
    def schema(self) -> type[Section]:
        return type(self._values)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain Python values."""
        return self._values.model_dump(mode="json")

    def to_yaml(self) -> str:
        """YAML text that ``--config_files`` reads back to an equal configuration."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    @property
    def hash(self) -> str:
        """SHA-256 of all settings that change the trained weights."""
        kept = {key: value for key, value in self.to_dict().items() if key not in _NOT_IN_HASH}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    def set_with(self, key: str, other: str) -> bool:
        """Whether one source set ``key`` and ``other``, e.g. both on the command line."""
        place = self.provenance.get(key, "").rsplit(":", 1)[0]
        return bool(place) and place == self.provenance.get(other, "").rsplit(":", 1)[0]

    def chosen(self, key: str) -> bool:
        """Whether the user set a key: not the files of the toolkit or of a plugin."""
        entries = (self.model_entry.path, self.dataset_entry.path)
        files = ("properties/", *(str(path) for path in entries), *map(shown, entries))
        files += (shown(SHIPPED / "properties"), str(SHIPPED / "properties"))
        return not self.provenance.get(key, "properties/").startswith(files)

    def __reduce__(self) -> tuple:
        """Pickle plain values; a worker process builds the classes again from the YAML files."""
        return _rebuild, (self.model, self.dataset, self.to_dict(), self.provenance)

    @property
    def dataset_root(self) -> Path:
        return resolve(self.root or f"dataset/{self.dataset}")

    @property
    def data_dir(self) -> Path:
        """Folder of the raw clips."""
        return resolve(self.data_root) if self.data_root else self.dataset_root / "data"

    @property
    def processed_dir(self) -> Path:
        """Folder with one sub-folder per preparation."""
        if self.preprocessed_root:
            return resolve(self.preprocessed_root)
        return self.dataset_root / "preprocessed_data"

    def filelist(self, split: str) -> Path:
        """Path of the list of a split (``train``, ``val`` or ``test``)."""
        given = getattr(self._values, f"{split}_filelist")
        return resolve(given) if given else self.dataset_root / "filelist" / f"{split}.txt"

    def weights_path(self, name: str | Path) -> Path:
        """A weights file given as a path or as a name below ``checkpoints/``."""
        path = resolve(name)
        return path if path.exists() else resolve(self.weights_dir) / name


def _rebuild(model: str, dataset: str, values: dict, provenance: dict[str, str]) -> Config:
    cfg = load_config(model, dataset, overrides=values)
    cfg.provenance = provenance
    return cfg


def _last_value(layers: list[Layer], key: str) -> Any:
    """The value of a key in the last layer that has one; None without."""
    return next((layer.values[key] for layer in reversed(layers) if layer.values.get(key)), None)


def _file_layer(path: Path, label: str) -> Layer:
    values, lines = load_yaml(path)
    return Layer(label, nest(spelled_out(values)), lines)


def load_config(
    model: str | None = None,
    dataset: str | None = None,
    *,
    base: Mapping[str, Any] | None = None,
    config_files: Iterable[str | Path] = (),
    overrides: Mapping[str, Any] | None = None,
    cli: Mapping[str, Any] | None = None,
    preset: str | None = None,
) -> Config:
    """Build the configuration of a run from all layers.

    Precedence, low to high: built-in defaults, ``properties/overall.yaml``, model YAML, dataset
    YAML, pair YAML, preset, ``base``, ``config_files`` in order, ``overrides``, ``cli``.

    Args:
        model, dataset: names in any spelling; may also be given in a config file.
        base: settings of a finished run, e.g. stored in a checkpoint.
        config_files: YAML files; later ones win.
        overrides: mapping from Python; dotted keys are allowed.
        cli: mapping from the command line; dotted keys are allowed.
        preset: name of a preset of the model's (or dataset's) YAML, or ``none``.

    Raises:
        ConfigError: unknown names, keys or presets, wrong values; all wrong values are listed.
    """
    user_layers = [Layer("the checkpoint", nest(base))] if base else []
    user_layers += [_file_layer(resolve(path, Path.cwd()), shown(path)) for path in config_files]
    for label, mapping in (("overrides", overrides), ("command line", cli)):
        if mapping:
            user_layers.append(Layer(label, nest(spelled_out(mapping))))
    model = model or _last_value(user_layers, "model")
    dataset = dataset or _last_value(user_layers, "dataset")
    preset = preset or _last_value(user_layers, "preset")
    preset = None if preset == "none" else preset
    registry = get_registry(_last_value(user_layers, "plugin_path"))
    if not model or not dataset:
        raise ConfigError(f"{'--dataset' if model else '--model'} is missing")
    model_entry = registry.entry("model", model)
    dataset_entry = registry.entry("dataset", dataset)
    if not registry.supports(model_entry, dataset_entry):
        kind = dataset_entry.meta.get("kind", "video")
        why = "" if kind == "video" else f": the corpus has no videos, only {kind} data"
        datasets = registry.entries("dataset").values()
        supported = ", ".join(e.name for e in datasets if registry.supports(model_entry, e))
        raise ConfigError(
            f"{model_entry.name} cannot be trained on {dataset_entry.name}{why}; it supports: "
            f"{supported}"
        )

    folders = [project_root() / "properties", SHIPPED / "properties"]
    layers = _first_file(folders, "overall.yaml")
    for entry in (model_entry, dataset_entry):
        values = nest(spelled_out(entry.values))
        layers.append(Layer(shown(entry.path), values, dict(entry.lines)))
    layers += _first_file(registry.roots, f"pair/{model_entry.name}@{dataset_entry.name}.yaml")
    if preset:
        layers += _preset_layers(preset, model_entry, dataset_entry)
    layers += user_layers

    schema = _schema(
        _config_class(registry, model_entry, ModelConfig),
        _config_class(registry, dataset_entry, DatasetConfig),
    )
    notes = apply_aliases(layers, schema.aliases, registry.names("metric"))
    fold_keys(layers, schema)
    if base:
        dropped = _drop_unknown(user_layers[0].values, schema)
        texts = {key: f"the key '{key}' does not exist any more" for key in dropped} | {
            key: text for key, text in retired_keys(schema).items() if key in dropped
        }
        notes += dict.fromkeys(f"the checkpoint: {text}" for text in texts.values())
    values, provenance = merge_layers(layers)
    values.update(model=model_entry.name, dataset=dataset_entry.name, preset=preset)
    known = [name for name, _ in iter_fields(schema)]
    try:
        checked = schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(
            validation_message(error, provenance, known, retired_keys(schema))
        ) from None
    problems = check_values(checked, registry, provenance)
    if problems:
        raise ConfigError("\n  ".join([title_of(len(problems)), *problems]))
    return Config(checked, provenance, registry, model_entry, dataset_entry, notes)


def _drop_unknown(values: dict[str, Any], schema: type[BaseModel], prefix: str = "") -> list[str]:
    """Remove the keys of an older version of the toolkit or of a plugin; returns their names."""
    dropped = []
    for key in list(values):
        info = schema.model_fields.get(key)
        if info is None:
            del values[key]
            dropped.append(f"{prefix}{key}")
            continue
        kind = info.annotation
        if isinstance(values[key], dict) and isinstance(kind, type) and issubclass(kind, BaseModel):
            dropped += _drop_unknown(values[key], kind, f"{prefix}{key}.")
    return dropped


def _first_file(folders: Iterable[Path], name: str) -> list[Layer]:
    """The layer of the first folder that has a file of that name; none without."""
    path = next((folder / name for folder in folders if (folder / name).exists()), None)
    return [_file_layer(path, shown(path))] if path else []


def _preset_layers(preset: str, model: Entry, dataset: Entry) -> list[Layer]:
    names = {fold(name): name for entry in (model, dataset) for name in entry.presets}
    name = names.get(fold(preset))
    if name is None:
        known = list(dict.fromkeys(names.values()))
        raise ConfigError(
            f"{model.name} has no preset '{preset}'.{did_you_mean(preset, known)} "
            f"Presets: {', '.join(known) or 'none'}."
        )
    layers = []
    for entry in (model, dataset):
        if name in entry.presets:
            prefix = f"presets.{name}."
            lines = {k[len(prefix) :]: v for k, v in entry.lines.items() if k.startswith(prefix)}
            label = f"{shown(entry.path)} preset {name}"
            layers.append(Layer(label, nest(entry.presets[name] or {}), lines))
    return layers
