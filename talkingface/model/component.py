"""A trained network that is attached to another model, and the source of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

Source = dict[str, str]  # ``path`` and ``sha256`` of a weights file


@dataclass
class WeightsOrigin:
    """Source of the weights of a model.

    Attributes:
        official: whether they come from an official file.
        lineage: sources of the components that they were trained with, by name.
    """

    official: bool = False
    lineage: Mapping[str, Source] = field(default_factory=dict)


@dataclass
class Component:
    """The network that satisfies a :class:`~talkingface.config.component_spec.ComponentSpec`.

    Attributes:
        network: in eval mode and without gradients; the whole model if the spec requires it.
        source: of the weights file, stored in checkpoints; None for a network without a file.
        settings: configuration of the run that trained it; empty for official files.
        lineage: sources of the components that it was trained with, by name.
    """

    network: nn.Module
    source: Source | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Source] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False)


def component_sources(components: Mapping[str, Component]) -> dict[str, Source]:
    """Sources of components, for a checkpoint."""
    return {name: part.source for name, part in components.items() if part.source}
