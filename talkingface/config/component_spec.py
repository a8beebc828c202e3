"""Declaration of a trained network that a model needs. No torch here: ``--explain`` stays fast."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ComponentSpec:
    """A trained network that another model needs: for a loss, as input, or to generate.

    A config class returns its specs from ``components(cfg)``; the name of each is that of its key
    in the section ``weights``. :class:`talkingface.components.ComponentStore` finds and loads the
    files.

    Attributes:
        weights: value of the key ``weights.<name>``: ``auto``, a path, a run id, or None for off.
        purpose: what it is for; shown in messages.
        model: registered model whose finished runs can supply it.
        files: file names of official weights, looked for in ``weights_dir``; one is enough.
        extra_files: further official files that belong to the same network.
        network: ``module:callable`` that builds the network for official files. Not needed with
            ``official_settings``.
        arguments: of that callable.
        required: missing weights are an error; otherwise the loss is left out with a warning.
        at_inference: generation needs it too, not only training. ``auto`` then prefers runs on the
            same dataset to official files; for losses it is the other way round.
        same_settings: keys that must have the values with which a run of ``model`` was trained.
        optional_keys: prefixes of names that official files may lack or hold in excess.
        same_as: components that have a component of this name themselves; ``auto`` means theirs.
        official_settings: attach the whole model, which knows the units of its values, in place of
            its main network; these are the settings of ``model`` that official files were trained
            with.
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
        """Whether the model itself is attached, not its main network."""
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
