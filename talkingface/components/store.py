"""Choose, check and load the weights files of components."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from talkingface.components.models import build_model, config_of_checkpoint, load_model_weights
from talkingface.components.runs import named_weights, newest_checkpoint, saved_folder
from talkingface.components.zoo import has_entry
from talkingface.config.component_spec import ComponentSpec
from talkingface.config.config import load_config
from talkingface.config.merge import flatten
from talkingface.errors import ConfigError, WeightsError
from talkingface.model.component import Component, Source, WeightsOrigin
from talkingface.model.weights import CHECKPOINT_FORMAT, extract_state_dict
from talkingface.utils.hashes import sha256_of
from talkingface.utils.paths import resolve, shown
from talkingface.utils.weights import load_strict, read_weights

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.model.abstract_talkingface import AbstractTalkingFace

log = logging.getLogger(__name__)


class ComponentStore:
    """The components of one configuration.

    Args:
        cfg: configuration of the model that needs the components.
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg

    @cached_property
    def specs(self) -> dict[str, ComponentSpec]:
        """Specs that the config class declares, by name."""
        return self.cfg.schema.components(self.cfg)

    # -- finding -----------------------------------------------------------------------------------

    def find(self, name: str) -> Path | None:
        """The file of the key ``weights.<name>``; None without one.

        ``auto`` takes only runs that reached their end. A given path need not exist.
        """
        spec = self.specs[name]
        if spec.weights != "auto":
            return named_weights(self.cfg, spec.weights, spec.model) if spec.weights else None
        trained = None
        if spec.model:
            saved = saved_folder(self.cfg)
            trained = newest_checkpoint(saved, spec.model, self.cfg.dataset, finished=True)
        official = self._official(spec)
        # A component that generates should fit the dataset; one in a loss is better when it was
        # trained on more data.
        return trained or official if spec.at_inference else official or trained

    def path(self, name: str) -> Path:
        """As :meth:`find`, for a file that must exist.

        Raises:
            WeightsError: the file is missing; the message explains how to get it.
        """
        path = self.find(name)
        if path is None or not path.is_file():
            raise self._missing(name)
        return path

    def sha256(self, name: str) -> str:
        """SHA-256 of :meth:`path`, in hex."""
        return sha256_of(self.path(name))

    def to_train(self) -> list[str]:
        """Names of required components without a file, which a run of ``model`` can supply."""
        return [
            name
            for name, spec in self.specs.items()
            if spec.required and spec.model and spec.weights == "auto" and self.find(name) is None
        ]

    def _official(self, spec: ComponentSpec) -> Path | None:
        """The first official file that exists, if all ``extra_files`` exist too."""
        folder = resolve(self.cfg.weights_dir)
        if not all((folder / name).is_file() for name in spec.extra_files):
            return None
        return next((folder / file for file in spec.files if (folder / file).is_file()), None)

    def _missing(self, name: str) -> WeightsError:
        return WeightsError(f"{self.specs[name].purpose} needs weights: {self._how_to_get(name)}")

    def _how_to_get(self, name: str) -> str:
        spec, options = self.specs[name], []
        if spec.model:
            options.append(f"train one with --model={spec.model} --dataset={self.cfg.dataset}")
        if has_entry(spec.model):
            options.append(f"set weights.{name}=zoo")
        if spec.files:
            extra = "".join(f" and {file}" for file in spec.extra_files)
            options.append(f"put {' or '.join(spec.files)}{extra} into {self.cfg.weights_dir}/")
        return ", or ".join([*options, f"set weights.{name}"])

    # -- attaching ---------------------------------------------------------------------------------

    def attach_for_training(
        self, model: AbstractTalkingFace, resumed: Mapping[str, Any] | None = None
    ) -> None:
        """Load the components that training uses; log the file of each or that it is not used.

        Args:
            resumed: content of the checkpoint that training continues from. Its components are
                used again, not newer ones.

        Raises:
            WeightsError: a named or required file is missing, does not fit, or has changed since
                the checkpoint was written.
        """
        pinned = (resumed or {}).get("frozen_weights")
        for name, spec in self.specs.items():
            if pinned is not None:
                path = _pinned(name, pinned.get(name))
            else:
                path = self._shared(name, model.components) or self.find(name)
            if path is not None:
                self._attach(model, name, path)
            elif spec.required:
                raise self._missing(name)
            else:
                log.warning("%s is not used: no weights (%s)", spec.purpose, self._how_to_get(name))

    def attach_for_inference(self, model: AbstractTalkingFace) -> None:
        """Load the components that generation needs: the files that the model was trained with."""
        for name, spec in self.specs.items():
            if spec.at_inference and name not in model.components:
                path = self._trained_with(name, model.origin, model.components)
                self._attach(model, name, path)

    def _attach(self, model: AbstractTalkingFace, name: str, path: Path) -> None:
        model.components[name] = self.load(name, path)
        log.info("%s: weights of %s", self.specs[name].purpose, shown(path))

    # -- lineage -----------------------------------------------------------------------------------

    def as_trained(self, model: AbstractTalkingFace) -> Config:
        """The configuration with ``auto`` replaced by the files that a loaded model was trained
        with, so that test data are made by the same components as the training data."""
        chosen = {
            f"weights.{name}": str(self._trained_with(name, model.origin, model.components))
            for name, spec in self.specs.items()
            if spec.at_inference and spec.weights == "auto" and name in model.origin.lineage
        }
        if not chosen:
            return self.cfg
        base = self.cfg.to_dict()
        overrides = {**chosen, "resume": False}
        return load_config(self.cfg.model, self.cfg.dataset, base=base, overrides=overrides)

    def inference_files(self, checkpoint: Path | None) -> list[Path]:
        """Files of the components that generation with a checkpoint, or without one, needs."""
        origin = WeightsOrigin()
        if checkpoint is not None:
            content = read_weights(checkpoint, trust=self.cfg.trust_checkpoint)
            official = content.get("format") != CHECKPOINT_FORMAT
            lineage = {} if official else dict(content.get("frozen_weights") or {})
            origin = WeightsOrigin(official, lineage)
        return [
            self._trained_with(name, origin, {})
            for name, spec in self.specs.items()
            if spec.at_inference
        ]

    def change_since(self, checkpoint: Mapping[str, Any]) -> str | None:
        """Why a run cannot continue from a checkpoint: the file of a component that generates is
        another one now. None if it can continue."""
        pinned = checkpoint.get("frozen_weights") or {}
        for name, spec in self.specs.items():
            source = pinned.get(name)
            if not source or not spec.at_inference:
                continue
            path = self.find(name)
            if path is not None and _unchanged(path, source["sha256"]):
                continue
            if path is None or str(path) == source["path"]:
                return f"{source['path']} has changed since, or is gone"
            return (
                f"it was trained with {source['path']}, but weights.{name} selects {shown(path)} "
                f"now (--weights.{name}={source['path']} selects the old file, in a new run)"
            )
        return None

    def _trained_with(
        self,
        name: str,
        origin: WeightsOrigin,
        attached: Mapping[str, Component],
    ) -> Path:
        """The file that loaded weights were trained with, unless the key names another.

        Args:
            origin: origin of the loaded weights.
            attached: components that the model already has.
        """
        spec, source = self.specs[name], origin.lineage.get(name)
        if source and spec.weights in ("auto", source["path"]):
            path = Path(source["path"])
            if _unchanged(path, source["sha256"]):
                return path
            log.warning(
                "%s: %s, with which it was trained, is gone or has changed", self.cfg.model, path
            )
        if origin.official and spec.weights == "auto":
            official = self._official(spec)
            if official is None:
                raise WeightsError(
                    f"{spec.purpose} needs the official file that belongs to these weights: put "
                    f"{' or '.join(spec.files)} into {self.cfg.weights_dir}/, or set "
                    f"weights.{name}"
                )
            return official
        return self._shared(name, attached) or self.path(name)

    def _shared(self, name: str, attached: Mapping[str, Component]) -> Path | None:
        """The file that the components in ``same_as`` were trained with; None for a given key."""
        spec = self.specs[name]
        sources: dict[str, tuple[str, str]] = {}  # SHA-256 -> path, component
        for other in spec.same_as:
            source = attached[other].lineage.get(name) if other in attached else None
            if source:
                sources[source["sha256"]] = (source["path"], other)
        if spec.weights != "auto":
            named = self.find(name)
            if sources and named and named.is_file() and sha256_of(named) not in sources:
                log.warning("%s: the other parts were trained with another file", shown(named))
            return None
        if len(sources) > 1:
            parts = " and ".join(f"{other} with {path}" for path, other in sources.values())
            raise ConfigError(
                f"{spec.purpose}: the parts were trained with different files ({parts}). Train one "
                "of them again, or name others with weights.<part>."
            )
        for sha256, (text, other) in sources.items():
            path = Path(text)
            if not _unchanged(path, sha256):
                raise WeightsError(
                    f"{other} was trained with {path}, which is gone or has changed. Restore the "
                    f"file, train {other} again, or set weights.{name}."
                )
            return path
        return None

    # -- loading -----------------------------------------------------------------------------------

    def network(self, name: str) -> nn.Module:
        """The network of :meth:`path`, in eval mode and without gradients."""
        return self.load(name, self.path(name)).network

    def load(self, name: str, path: Path) -> Component:
        """Build a component with the settings of its run, or for official weights; load its file.

        Raises:
            WeightsError: the file is damaged or made for another model.
            ConfigError: it was trained with settings that contradict those of this run.
        """
        source = {"path": str(path), "sha256": sha256_of(path)}
        spec, settings = self.specs[name], self.settings(name, path)
        if settings is not None:
            plain = {**settings, "preset": None, "resume": False}  # a preset may have changed since
            trained = build_model(load_config(overrides=plain))
            load_model_weights(trained, path)
            network = trained if spec.whole_model else trained.network
            return Component(network, source, settings, trained.origin.lineage)
        if spec.whole_model:
            return Component(self._official_model(name, path), source)
        network = spec.build()
        state: dict[str, Any] = {}
        for file in (path, *(resolve(self.cfg.weights_dir) / n for n in spec.extra_files)):
            content = read_weights(file, trust=self.cfg.trust_checkpoint)
            state.update(extract_state_dict(content, (), ""))
        # Classifier heads of image networks are not built.
        optional = ("classifier.", *spec.optional_keys)
        load_strict(network, state, source=shown(path), network=name, optional=optional)
        return Component(network, source)

    def settings(self, name: str, path: Path) -> dict[str, Any] | None:
        """Settings of the run that trained a component; None for an official file.

        Raises:
            WeightsError: the file belongs to another model.
            ConfigError: a key of ``same_settings`` has another value in this run.
        """
        settings = config_of_checkpoint(path, self.cfg.trust_checkpoint)
        if settings is None:
            return None
        model = self.specs[name].model
        if settings["model"] != model:
            raise WeightsError(f"{path} belongs to {settings['model']}, not to {model}")
        self._require_agreement(name, path, flatten(settings))
        return settings

    def _official_model(self, name: str, path: Path) -> AbstractTalkingFace:
        """The whole model of an official file."""
        spec, cfg = self.specs[name], self.cfg
        if path.with_name("weights.json").is_file():
            raise WeightsError(
                f"{path} was exported by a run, but the run's config.yaml with its settings "
                "is not beside it. Copy it there, or name the .ckpt of the run."
            )
        model_cls = cfg.registry.resolve(cfg.registry.entry("model", str(spec.model)), "model")
        state = extract_state_dict(read_weights(path, trust=cfg.trust_checkpoint), (), "")
        # Optional class method: settings that follow from the names in an official state_dict.
        settings_of = getattr(model_cls, "settings_of", None)
        inferred = settings_of(state) if settings_of else {}
        settings = {**flatten(spec.official_settings or {}), **inferred}
        own = load_config(spec.model, cfg.dataset, overrides={**settings, "resume": False})
        self._require_agreement(name, path, flatten(own.to_dict()))
        model = build_model(own)
        load_model_weights(model, path, cfg.trust_checkpoint)
        return model

    def _require_agreement(self, name: str, path: Path, trained: Mapping[str, Any]) -> None:
        current = flatten(self.cfg.to_dict())
        for key in self.specs[name].same_settings:
            if key in trained and trained[key] != current[key]:
                raise ConfigError(
                    f"weights.{name}: {path} was trained with {key}={trained[key]}, but this run "
                    f"has {current[key]}. Set --{key}={str(trained[key]).replace(' ', '')}."
                )


def _unchanged(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256


def _pinned(name: str, source: Source | None) -> Path | None:
    """The file that a checkpoint was trained with; None without one."""
    if source is None:
        return None
    path = Path(source["path"])
    if not _unchanged(path, source["sha256"]):
        raise WeightsError(
            f"The run was trained with {path} as {name}; the file is gone or has changed, so the "
            "run cannot continue exactly. Restore the file, or start a new run."
        )
    return path
