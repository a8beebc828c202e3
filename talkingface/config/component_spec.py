"""Declaration of a trained network that a model needs. It does not import torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ComponentSpec:
    """A trained network that another model needs: for a loss, as input, or to generate.

    ``components(cfg)`` of a config class returns its specs by name; ``weights.<name>`` is the key
    of each. :class:`talkingface.components.store.ComponentStore` finds and loads the files.

    Attributes:
        weights: value of the key ``weights.<name>``: ``auto``, a path, a run id, or None for off.
        purpose: what uses the network; shown in messages.
        model: registered model whose finished runs can supply it.
        files: alternative file names of official weights in ``weights_dir``.
        extra_files: further official files that belong to the same network.
        network: ``module:callable`` that builds the network for official files. Not needed with
            ``official_settings``.
        arguments: of that callable.
        required: missing weights are an error; otherwise the loss is not used, with a warning.
        at_inference: generation needs it too, not only training. ``auto`` then prefers runs on the
            same dataset to official files; for losses it is the other way round.
        same_settings: keys whose values must equal those of the run of ``model`` that supplies it.
        optional_keys: prefixes of state_dict names that official files may lack or have in excess.
        same_as: components that have a component of this name themselves; ``auto`` selects theirs.
        official_settings: settings of ``model`` that official files were trained with. If given,
            the whole model, with the units of its values, is attached in place of its main network.
    """

    weights: str | None
    purpose: str
    model: str | None = None
    files: tuple[str, ...] = ()
    extra_files: tuple[str, ...] = ()
    network: str | None = None
    arguments: tuple[Any, ...] = ()
    required: bool = False
    at_inference: bool = False
    same_settings: tuple[str, ...] = ()
    optional_keys: tuple[str, ...] = ()
    same_as: tuple[str, ...] = ()
    official_settings: Mapping[str, Any] | None = None

    @property
    def whole_model(self) -> bool:
        """Whether the whole model is attached in place of its main network."""
        return self.official_settings is not None

    def build(self) -> Any:
        """The untrained ``nn.Module`` for official files."""
        module, _, name = str(self.network).partition(":")
        return getattr(importlib.import_module(module), name)(*self.arguments)


def vgg19(weights: str | None, purpose: str, *, required: bool = False) -> ComponentSpec:
    """torchvision's VGG19, for perceptual losses."""
    return ComponentSpec(
        weights,
        purpose,
        files=("vgg19-dcbf9e9f.pth",),
        network="talkingface.model.losses.perceptual:VGG19Features",
        required=required,
    )
