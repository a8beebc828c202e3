"""Which file satisfies a component, what it was trained with, and how to get a missing one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from talkingface.components.models import build_model, config_of_checkpoint, load_model_weights
from talkingface.components.runs import named_weights, newest_checkpoint, saved_folder
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
        cfg: of the model that needs the components.
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg

    @cached_property
    def specs(self) -> dict[str, ComponentSpec]:
        """Declared by the config class, by name."""
        return self.cfg.schema.components(self.cfg)

    # -- finding -----------------------------------------------------------------------------------

    def find(self, name: str) -> Path | None:
        """The file that the key ``weights.<name>`` means now; None when there is none.

        ``auto`` takes only runs that reached their end. A path need not exist.
        """
        spec = self.specs[name]
        if spec.weights != "auto":
            return named_weights(self.cfg, spec.weights) if spec.weights else None
        trained = None
        if spec.model:
            saved = saved_folder(self.cfg)
            trained = newest_checkpoint(saved, spec.model, self.cfg.dataset, finished=True)
        official = self._official(spec)
        # What generates belongs to the data; a network in a loss gains from more training data.
        return trained or official if spec.at_inference else official or trained

    def path(self, name: str) -> Path:
        """As :meth:`find`, for a file that must exist.

        Raises:
            WeightsError: there is none; the message says how to get it.
        """
        found = self.find(name)
        if found is None or not found.is_file():
            raise self._missing(name)
        return found

    def sha256(self, name: str) -> str:
        """SHA-256 of :meth:`path`, in hex."""
        return sha256_of(self.path(name))

    def to_train(self) -> list[str]:
        """Names of required components that only a training of ``model`` can supply now."""
        return [
            name
            for name, spec in self.specs.items()
            if spec.required and spec.model and spec.weights == "auto" and self.find(name) is None
        ]

    def _official(self, spec: ComponentSpec) -> Path | None:
        """An official file whose further files are there too."""
        folder = resolve(self.cfg.weights_dir)
        if not all((folder / name).is_file() for name in spec.extra_files):
            return None
        return next((folder / file for file in spec.files if (folder / file).is_file()), None)

    def _missing(self, name: str) -> WeightsError:
        return WeightsError(f"{self.specs[name].purpose} needs weights: {self._how_to_get(name)}")

    def _how_to_get(self, name: str) -> str:
        spec, ways = self.specs[name], []
        if spec.model:
            ways.append(f"train one with --model={spec.model} --dataset={self.cfg.dataset}")
        if spec.files:
            further = "".join(f" and {file}" for file in spec.extra_files)
            ways.append(f"put {' or '.join(spec.files)}{further} into {self.cfg.weights_dir}/")
        return ", or ".join([*ways, f"set weights.{name}"])

    # -- attaching ---------------------------------------------------------------------------------

    def attach_for_training(
        self, model: AbstractTalkingFace, resumed: Mapping[str, Any] | None = None
    ) -> None:
        """Load the components that the losses use; log which are used and which are not.

        Args:
            resumed: content of the checkpoint to go on from. Its components are used again, so that
                one trained in the meantime does not change the run.

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
                ways = self._how_to_get(name)
                log.warning("%s is not used: no weights (%s)", spec.purpose, ways)

    def attach_for_inference(self, model: AbstractTalkingFace) -> None:
        """Load the components that a model generates with: those that it was trained with."""
        for name, spec in self.specs.items():
            if spec.at_inference and name not in model.components:
                path = self._trained_with(name, model.origin, model.components)
                self._attach(model, name, path)

    def _attach(self, model: AbstractTalkingFace, name: str, path: Path) -> None:
        model.components[name] = self.load(name, path)
        log.info("%s: weights of %s", self.specs[name].purpose, shown(path))

    # -- lineage -----------------------------------------------------------------------------------

    def as_trained(self, model: AbstractTalkingFace) -> Config:
        """The configuration with the files that a loaded model was trained with in place of
        ``auto``: data that a component makes must be made by the same one."""
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

    def inference_files(self, checkpoint: Path) -> list[Path]:
        """Files of the components that a checkpoint generates with."""
        content = read_weights(checkpoint, trust=self.cfg.trust_checkpoint)
        official = content.get("format") != CHECKPOINT_FORMAT
        lineage = {} if official else dict(content.get("frozen_weights") or {})
        return [
            self._trained_with(name, WeightsOrigin(official, lineage), {})
            for name, spec in self.specs.items()
            if spec.at_inference
        ]

    def change_since(self, checkpoint: Mapping[str, Any]) -> str | None:
        """Why a run cannot go on from a checkpoint: a component of it is another file now."""
        pinned = checkpoint.get("frozen_weights") or {}
        for name, spec in self.specs.items():
            source = pinned.get(name)
            if not source or not spec.at_inference:
                continue
            found = self.find(name)
            if found is not None and found.is_file() and sha256_of(found) == source["sha256"]:
                continue
            if found is None or str(found) == source["path"]:
                return f"{source['path']} has changed since, or is gone"
            return (
                f"it was trained with {source['path']}, but weights.{name} means {shown(found)} "
                f"now (--weights.{name}={source['path']} takes the old one, in a new run)"
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
            origin: of the loaded weights.
            attached: components that the model has already.
        """
        spec, source = self.specs[name], origin.lineage.get(name)
        if source and spec.weights in ("auto", source["path"]):
            path = Path(source["path"])
            if path.is_file() and sha256_of(path) == source["sha256"]:
                return path
            log.warning(
                "%s: %s, with which it was trained, is gone or changed", self.cfg.model, path
            )
        if origin.official and spec.weights == "auto":
            found = self._official(spec)
            if found is None:
                raise WeightsError(
                    f"{spec.purpose} needs the official file that belongs to these weights: put "
                    f"{' or '.join(spec.files)} into {self.cfg.weights_dir}/, or set "
                    f"weights.{name}"
                )
            return found
        return self._shared(name, attached) or self.path(name)

    def _shared(self, name: str, attached: Mapping[str, Component]) -> Path | None:
        """The file of a component with which other components were trained."""
        spec = self.specs[name]
        found: dict[str, tuple[str, str]] = {}
        for other in spec.same_as:
            source = attached[other].lineage.get(name) if other in attached else None
            if source:
                found[source["sha256"]] = (source["path"], other)
        if spec.weights != "auto":
            named = self.find(name)
            if found and named and named.is_file() and sha256_of(named) not in found:
                log.warning("%s: the other parts were trained with another one", shown(named))
            return None
        if len(found) > 1:
            parts = " and ".join(f"{other} with {path}" for path, other in found.values())
            raise ConfigError(
                f"{spec.purpose}: the parts do not belong together ({parts}). Train one of them "
                f"again, or name others with weights.<part>."
            )
        for sha256, (text, other) in found.items():
            path = Path(text)
            if not path.is_file() or sha256_of(path) != sha256:
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
        """A component of the size of a trained run or of an official file.

        Raises:
            WeightsError: damaged, or made for another model.
            ConfigError: trained with settings that do not agree with those of this run.
        """
        source = {"path": str(path), "sha256": sha256_of(path)}
        spec, settings = self.specs[name], self.settings(name, path)
        if settings is not None:
            trained = build_model(load_config(overrides={**settings, "resume": False}))
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
            WeightsError: it belongs to another model.
            ConfigError: keys that must agree with this run do not.
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
                f"{path} was exported by a run, but the run's config.yaml, which holds its "
                "settings, does not lie beside it. Copy it there, or name the .ckpt of the run."
            )
        model_cls = cfg.registry.resolve(cfg.registry.entry("model", str(spec.model)), "model")
        state = extract_state_dict(read_weights(path, trust=cfg.trust_checkpoint), (), "")
        settings = {**flatten(spec.official_settings or {}), **_settings_of(model_cls, state)}
        own = load_config(spec.model, cfg.dataset, overrides={**settings, "resume": False})
        self._require_agreement(name, path, flatten(own.to_dict()))
        model = build_model(own)
        load_model_weights(model, path, cfg.trust_checkpoint)
        return model

    def _require_agreement(self, name: str, path: Path, then: Mapping[str, Any]) -> None:
        now = flatten(self.cfg.to_dict())
        for key in self.specs[name].same_settings:
            if key in then and then[key] != now[key]:
                raise ConfigError(
                    f"weights.{name}: {path} was trained with {key}={then[key]}, but this run has "
                    f"{now[key]}. Set --{key}={str(then[key]).replace(' ', '')}."
                )


def _pinned(name: str, source: Source | None) -> Path | None:
    """The file that a checkpoint was trained with; None when it had none."""
    if source is None:
        return None
    path = Path(source["path"])
    if not path.is_file() or sha256_of(path) != source["sha256"]:
        raise WeightsError(
            f"The run was trained with {path} as {name}; the file has vanished or changed, so it "
            "cannot go on exactly. Restore the file, or start a new run."
        )
    return path


def _settings_of(model_cls: type, state: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the configuration that the names of an official file tell."""
    read = getattr(model_cls, "settings_of", None)
    return read(state) if read else {}
