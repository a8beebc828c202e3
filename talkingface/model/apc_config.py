"""Configuration keys of models that take APC features as input."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from talkingface.config.component_spec import ComponentSpec
from talkingface.config.schema import Section


class APCNetwork(Section):
    """Speech encoder; the defaults are the official values."""

    hidden_size: int = Field(512, ge=8, description="Width of the GRUs and of the features.")
    num_layers: int = Field(3, ge=1, description="Number of GRUs.")
    residual: bool = Field(False, description="Residual connections between the GRUs.")


class APCWeights(Section):
    """Components: trained networks that the model needs."""

    apc: str = Field(
        "auto",
        description="APC that computes the speech features: auto (newest run on the dataset, else "
        "an official file in checkpoints/), a path, or a run id.",
    )


def apc_component(cfg: Any, same_as: tuple[str, ...] = ()) -> ComponentSpec:
    """The trained APC whose features are the input of other models.

    Args:
        same_as: components that must have been trained with the same APC; they define its size.
    """
    return ComponentSpec(
        cfg.weights.apc,
        "APC, the speech features",
        model="APC",
        files=("live_speech_portraits/APC_epoch_160.model", "APC_epoch_160.model"),
        network="talkingface.model.layers.apc_networks:build_apc",
        arguments=(cfg,),
        required=True,
        at_inference=True,
        same_settings=() if same_as else ("apc.hidden_size", "apc.num_layers", "apc.residual"),
        optional_keys=("postnet.",),
        same_as=same_as,
    )
