"""A trained network that is attached to another model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass
class Component:
    """What a :class:`~talkingface.config.component_spec.ComponentSpec` was satisfied with.

    Attributes:
        network: in eval mode and without gradients; the whole model where its spec says so.
        source: ``path`` and ``sha256`` of the weights file; kept in checkpoints.
        settings: configuration of the run that trained it; empty for official files.
        lineage: sources of the components that it was itself trained with, by name.
    """

    network: nn.Module
    source: dict[str, str] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False)
