"""Merge the layers of settings, validate them once, remember where each value came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, create_model

from talkingface.config.loader import load_yaml
from talkingface.config.schema import DatasetConfig, ModelConfig, OverallConfig, Section
from talkingface.config.suggest import did_you_mean, fold
from talkingface.errors import ConfigError
from talkingface.registry import META_KEYS, Entry, Registry, get_registry
from talkingface.utils.paths import REPOSITORY, project_root, resolve, shown

# Keys that do not change what is learned: two runs that differ only here may resume each other.
_NOT_IN_HASH = {
    "plugin_path",
    "device",
    "devices",
    "num_workers",
    "process_workers",
    "show_progress",
    "log_level",
    "log_wandb",
    "stages",
    "need_preprocess",
    "train",
    "evaluate_model_file",
    "checkpoint_dir",
    "checkpoint_sub_dir",
    "results_dir",
    "log_dir",
    "tensorboard_dir",
    "weights_dir",
    "epochs",
    "max_steps",
    "max_minutes",
    "eval_batch_size",
    "saved",
    "save_minutes",
    "keep_every",
    "resume",
    "log_every",
    "trust_checkpoint",
    "metrics",
    "metric_params",
    "baselines",
    "eval_clips",
    "n_preview",
    "metric_decimal_place",
    "loss_decimal_place",
    "stopping_step",
    "eval_step",
    "valid_batches",
    "preset",
}


@dataclass
class Layer:
    """One source of settings.

    Attributes:
        label: how the source is called in messages, e.g. a path or ``command line``.
        values: nested mapping; dotted keys are expanded by :func:`nest`.
        lines: line per dotted key, for files.
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
            _merge_plain(target[last], value)
        else:
            target[last] = value
    return nested


def _merge_plain(base: dict, extra: Mapping) -> None:
    for key, value in extra.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge_plain(base[key], value)
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
    """Deep-merge mappings, lists and scalars replace. Returns values and provenance per leaf."""
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
                    continue  # an empty mapping adds nothing
                for old in [k for k in provenance if k == dotted or k.startswith(dotted + ".")]:
                    del provenance[old]
                target[key] = dict(value) if isinstance(value, Mapping) else value
                provenance[dotted] = layer.where(dotted)

    for layer in layers:
        put(merged, layer.values, layer, "")
    return merged, provenance


def _inferred_section(name: str, values: Mapping[str, Any]) -> type[Section]:
    """A section whose keys and types are those of a YAML, for models without a config class."""
    fields: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            section = _inferred_section(f"{name}_{key}", value)
            fields[key] = (section, Field(default_factory=section, description="Set in the YAML."))
        else:
            kind: Any = float if type(value) in (int, float) else type(value)
            kind = int if type(value) is int else kind
            fields[key] = (
                Any if value is None else kind,
                Field(value, description="Set in the YAML."),
            )
    return create_model(name, __base__=Section, **fields)


def _own_class(registry: Registry, entry: Entry, base: type[Section]) -> type[Section]:
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
        notes: deprecation lines to show to the user.
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
        """SHA-256 of all settings that change what is learned."""
        kept = {key: value for key, value in self.to_dict().items() if key not in _NOT_IN_HASH}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    def provenance_of_user(self) -> set[str]:
        """Top-level keys that a config file, Python or the command line set."""
        files = {shown(p) for root in self.registry.roots for p in root.rglob("*.yaml")}
        return {
            key.split(".")[0]
            for key, source in self.provenance.items()
            if source.rsplit(":", 1)[0] not in files and " preset " not in source
        }

    def __reduce__(self) -> tuple:
        """Travel to worker processes as plain values; the classes are found again there."""
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
        """Folder that holds one sub-folder per processor."""
        if self.preprocessed_root:
            return resolve(self.preprocessed_root)
        return self.dataset_root / "preprocessed_data"

    def filelist(self, split: str) -> Path:
        """Path of the list of a split (``train``, ``val`` or ``test``)."""
        given = getattr(self._values, f"{split}_filelist")
        return resolve(given) if given else self.dataset_root / "filelist" / f"{split}.txt"

    def weights_path(self, name: str | Path) -> Path:
        """A weights file given as a path or as a name below ``checkpoints/``."""
        direct = resolve(name)
        return direct if direct.exists() else resolve(self.weights_dir) / name


def _rebuild(model: str, dataset: str, values: dict, provenance: dict[str, str]) -> Config:
    cfg = load_config(model, dataset, overrides=values)
    cfg.provenance = provenance
    return cfg


# Keys of the ancestor that have no successor, and why they are not needed.
_RETIRED = {
    "temp_sub_dir": "scratch files need no folder of their own",
    "valid_metric_bigger": "the direction follows from the metric",
}


def _apply_aliases(
    layers: list[Layer], aliases: Mapping[str, str], metrics: Iterable[str]
) -> list[str]:
    """Rename old keys within each layer; both spellings with different values are an error."""
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
            section, _, rest = new.partition(".")
            if section == "metric_params" and rest.split(".")[0] not in metrics:
                metric = rest.split(".")[0]
                notes.append(f"{place}: '{old}' has no effect: there is no metric {metric} here.")
                continue
            if old == "gpu_id":
                value = len([p for p in str(value).split(",") if p.strip()]) or 1
            current: Any = layer.values
            for part in new.split("."):
                current = current.get(part, None) if isinstance(current, dict) else None
            # The ancestor wrote 'resume: true' beside the path; that is no contradiction.
            agrees = current == value or (old == "resume_checkpoint_path" and current is True)
            if current is not None and not agrees:
                raise ConfigError(
                    f"{place}: '{old}' is the old name of '{new}', and both are set to different "
                    f"values ({value!r} and {current!r}). Keep only '{new}'."
                )
            _merge_plain(layer.values, nest({new: value}))
            layer.lines[new] = layer.lines.get(old, layer.lines.get(new, 0)) or layer.lines.pop(
                new, 0
            )
            if not layer.lines.get(new):
                layer.lines.pop(new, None)
            notes.append(f"{place}: '{old}' is an old name; write '{new}'.")
        if "use_gpu" in layer.values:
            place, use = layer.where("use_gpu"), layer.values.pop("use_gpu")
            device = layer.values.get("device")
            if device is not None and device != "auto" and bool(use) == (device == "cpu"):
                raise ConfigError(
                    f"{place}: 'use_gpu: {str(use).lower()}' is the old way to write 'device', and "
                    f"'device: {device}' says the opposite. Keep only 'device'."
                )
            if not use:
                layer.values["device"] = "cpu"
            notes.append(f"{place}: 'use_gpu' is an old name; write 'device: cpu|cuda|auto'.")
    return notes


def _validation_message(
    error: ValidationError, provenance: Mapping[str, str], known: list[str]
) -> str:
    lines = []
    for item in error.errors():
        # Tuple indices, union branches and the like follow the field name; only field names count.
        loc = [str(part) for part in item["loc"]]
        while loc and item["type"] != "extra_forbidden" and not _is_key(".".join(loc), known):
            loc.pop()
        key = ".".join(loc) or ".".join(str(part) for part in item["loc"])
        origin = next((src for k, src in provenance.items() if k == key), None) or next(
            (src for k, src in provenance.items() if k.startswith(key + ".")), "default"
        )
        if item["type"] == "extra_forbidden":
            scope = [k for k in known if k.startswith(key.rsplit(".", 1)[0] + ".")] or known
            hint = did_you_mean(key, scope) or did_you_mean(key, known)
            lines.append(
                f"unknown key '{key}' ({origin}).{hint}"
                " Explain a key with --explain=<key>, see all with --print_config."
            )
        else:
            given = item.get("input")
            lines.append(f"'{key}' = {given!r} ({origin}): {item['msg']}")
    unique = list(dict.fromkeys(lines))
    return "\n  ".join([_title(len(unique)), *unique])


def _title(count: int) -> str:
    return "1 setting is wrong:" if count == 1 else f"{count} settings are wrong:"


def _is_key(key: str, known: list[str]) -> bool:
    return key in known


def _peek(config_layers: list[Layer], key: str) -> Any:
    for layer in reversed(config_layers):
        if layer.values.get(key):
            return layer.values[key]
    return None


def load_config(
    model: str | None = None,
    dataset: str | None = None,
    *,
    config_files: Iterable[str | Path] = (),
    overrides: Mapping[str, Any] | None = None,
    cli: Mapping[str, Any] | None = None,
    preset: str | None = None,
) -> Config:
    """Build the configuration of a run from all layers.

    Precedence, low to high: built-in defaults, ``properties/overall.yaml``, model YAML, dataset
    YAML, pair YAML, preset, ``config_files`` in order, ``overrides``, ``cli``.

    Args:
        model, dataset: names in any spelling; may also be given in a config file.
        config_files: YAML files; later ones win.
        overrides: mapping from Python; dotted keys are allowed.
        cli: mapping from the command line; dotted keys are allowed.
        preset: name of a preset of the model's (or dataset's) YAML.

    Raises:
        ConfigError: unknown names, keys or presets, wrong values; all wrong values are listed.
    """
    user_layers = []
    for path in config_files:
        values, lines = load_yaml(resolve(path, Path.cwd()))
        user_layers.append(Layer(shown(path), nest(values), lines))
    if overrides:
        user_layers.append(Layer("overrides", nest(overrides)))
    if cli:
        user_layers.append(Layer("command line", nest(cli)))
    model = model or _peek(user_layers, "model")
    dataset = dataset or _peek(user_layers, "dataset")
    preset = preset or _peek(user_layers, "preset")
    registry = get_registry(_peek(user_layers, "plugin_path"))
    if not model or not dataset:
        missing = "--model" if not model else "--dataset"
        raise ConfigError(f"{missing} is missing")
    model_entry = registry.entry("model", model)
    dataset_entry = registry.entry("dataset", dataset)
    if not registry.supports(model_entry, dataset_entry):
        raise ConfigError(
            f"{model_entry.name} cannot be trained on {dataset_entry.name}; it supports: "
            + ", ".join(model_entry.meta["datasets"])
        )

    layers = [_overall_layer(registry)]
    for entry in (model_entry, dataset_entry):
        layers.append(Layer(shown(entry.path), _copy(entry.values), dict(entry.lines)))
    layers += _pair_layers(registry, model_entry, dataset_entry)
    if preset:
        layers += _preset_layers(preset, model_entry, dataset_entry)
    layers += user_layers

    schema = _schema(
        _own_class(registry, model_entry, ModelConfig),
        _own_class(registry, dataset_entry, DatasetConfig),
    )
    notes = _apply_aliases(layers, schema.aliases, registry.names("metric"))
    _fold_keys(layers, schema)
    values, provenance = merge_layers(layers)
    values.update(model=model_entry.name, dataset=dataset_entry.name, preset=preset)
    known = [name for name, _ in iter_fields(schema)]
    try:
        checked = schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_validation_message(error, provenance, known)) from None
    problems = _check_values(checked, registry, provenance)
    if problems:
        raise ConfigError("\n  ".join([_title(len(problems)), *problems]))
    return Config(checked, provenance, registry, model_entry, dataset_entry, notes)


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def _overall_layer(registry: Registry) -> Layer:
    for folder in (project_root() / "properties", REPOSITORY / "properties"):
        path = folder / "overall.yaml"
        if path.exists():
            values, lines = load_yaml(path)
            return Layer(shown(path), nest(values), lines)
    return Layer("built-in", {})


def _pair_layers(registry: Registry, model: Entry, dataset: Entry) -> list[Layer]:
    for folder in registry.roots:
        path = folder / "pair" / f"{model.name}@{dataset.name}.yaml"
        if path.exists():
            values, lines = load_yaml(path)
            return [Layer(shown(path), nest(values), lines)]
    return []


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
            layers.append(Layer(label, nest(_copy(entry.presets[name] or {})), lines))
    return layers


def _fold_keys(layers: list[Layer], schema: type[BaseModel]) -> None:
    """Accept ``-`` for ``_`` and any case in top-level key names."""
    known = {fold(name): name for name in schema.model_fields}
    for layer in layers:
        for key in list(layer.values):
            right = known.get(fold(key))
            if right and right != key and META_KEYS["model"].count(key) == 0:
                layer.values[right] = layer.values.pop(key)


def _check_values(values: Section, registry: Registry, provenance: Mapping[str, str]) -> list[str]:
    """Checks that need more than one key or the registry; metric names become canonical."""
    problems = []
    stages = ("preprocess", "train", "evaluate")
    for stage in values.stages:
        if stage not in stages:
            problems.append(f"stages: unknown stage '{stage}'.{did_you_mean(stage, stages)}")
    for name in ("metrics", "metric_params"):
        canonical = {}
        for metric in getattr(values, name):
            try:
                canonical[metric] = registry.entry("metric", metric).name
            except ConfigError as error:
                prefix = f"{name}.{metric}."
                places = [
                    source
                    for key, source in provenance.items()
                    if key == name or f"{key}.".startswith(prefix)
                ]
                problems.append(f"{name} ({(places or ['default'])[0]}): {error}")
        if name == "metrics":
            values.metrics = [canonical.get(item, item) for item in values.metrics]
        else:
            values.metric_params = {
                canonical.get(key, key): value for key, value in values.metric_params.items()
            }
    problems += _check_metric_settings(values, registry, provenance)
    baselines = ("real", "copy_reference", "shuffled_audio")
    for name in values.baselines:
        if name not in baselines:
            problems.append(f"baselines: unknown row '{name}'.{did_you_mean(name, baselines)}")
    if abs(sum(values.make_split) - 1) > 1e-6 or min(values.make_split) < 0:
        problems.append(f"make_split: the three shares must add up to 1, got {values.make_split}")
    return problems


def _check_metric_settings(
    values: Section, registry: Registry, provenance: Mapping[str, str]
) -> list[str]:
    """Names that would otherwise be found wrong only after the training."""
    problems = []
    metrics = registry.entries("metric")
    for metric, params in values.metric_params.items():
        known = (metrics[metric].meta.get("params") or {}) if metric in metrics else params
        for key in params:
            if key not in known:
                dotted = f"metric_params.{metric}.{key}"
                problems.append(
                    f"unknown key '{dotted}' ({provenance.get(dotted, 'default')})."
                    f"{did_you_mean(key, known)} {metric} knows: {', '.join(known) or 'none'}."
                )
    criterion = values.valid_metric
    if "train" in values.stages and criterion.split("/")[0] != "loss":
        chosen = [metrics[name] for name in values.metrics if name in metrics]
        outputs = [key for entry in chosen for key in entry.meta.get("outputs") or {}]
        if criterion not in outputs:
            problems.append(
                f"valid_metric = '{criterion}' ({provenance.get('valid_metric', 'default')}): "
                f"choose loss, loss/<part>, or an output of the metrics ({', '.join(outputs)})."
                + did_you_mean(criterion, outputs)
            )
    return problems
