"""Read weights from files of ours and of the original authors, and load them strictly by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from talkingface.errors import WeightsError
from talkingface.model.abilities import (
    ExplainsMismatch,
    HasExtraState,
    HasOptionalKeys,
    RenamesOfficialKeys,
)
from talkingface.model.abstract_talkingface import AbstractTalkingFace
from talkingface.utils.hashes import sha256_of
from talkingface.utils.weights import LoadReport, load_strict, read_weights

__all__ = ["LoadReport", "load_strict", "read_weights", "sha256_of"]

CHECKPOINT_FORMAT = "talkingface.ckpt/1"
# Where files keep their tensors: most, A2P's guide and lips, A2P's VQ, fairseq.
_HOLDERS = ("state_dict", "model_state_dict", "net", "model")


def extract_state_dict(
    content: Mapping[str, Any], networks: tuple[str, ...], network: str
) -> dict[str, Tensor]:
    """The tensors of one network out of a checkpoint of ours or of an official file.

    Accepts a bare state_dict, one below the key ``state_dict`` or a similar one, names that start
    with ``module.`` (saved from DataParallel), and our own checkpoints, whose names start with the
    network.
    """
    if content.get("format") == CHECKPOINT_FORMAT:
        averaged = content.get("ema_state_dict")
        if averaged and network in averaged:
            return dict(averaged[network])
        state = content["state_dict"]
    else:
        inner = (content[key] for key in _HOLDERS if isinstance(content.get(key), Mapping))
        state = next(inner, content)
    if not isinstance(state, Mapping):
        raise WeightsError("the file holds no state_dict")
    state = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if state and all(key.startswith("module.") for key in state):
        state = {key[len("module.") :]: value for key, value in state.items()}
    if state and all(key.split(".")[0] in networks for key in state):
        prefix = network + "."
        state = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    return state


def load_into(
    model: AbstractTalkingFace,
    path_or_state_dict: str | Path | Mapping[str, Any],
    *,
    network: str | None = None,
    trust: str | None = None,
) -> LoadReport:
    """Load weights into one network of a model; see :func:`talkingface.load_weights`."""
    if isinstance(path_or_state_dict, Mapping):
        content, source = path_or_state_dict, "the state_dict"
    else:
        content, source = read_weights(path_or_state_dict, trust=trust), str(path_or_state_dict)
    name = network or model.main_network
    networks = model.networks()
    if name not in networks:
        raise WeightsError(f"there is no network '{name}'; the model has: {', '.join(networks)}")
    state = extract_state_dict(content, tuple(networks), name)
    if not state:
        raise WeightsError(f"{source} holds no tensors for the network '{name}'")
    main = name == model.main_network
    if main and isinstance(model, RenamesOfficialKeys):
        state = model.remap_state_dict(state)
    optional = model.optional_keys if main and isinstance(model, HasOptionalKeys) else ()
    try:
        return load_strict(networks[name], state, source=source, network=name, optional=optional)
    except WeightsError as error:
        hint = model.state_hint(state) if main and isinstance(model, ExplainsMismatch) else ""
        raise WeightsError(f"{error} {hint}".rstrip()) from None


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of ours.

    Raises:
        WeightsError: missing, damaged, or a file of another kind.
    """
    state = read_weights(path)
    if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
        raise WeightsError(
            f"{path} is no checkpoint of this toolkit ({CHECKPOINT_FORMAT}). Official weights "
            "can be loaded with talkingface.load_weights, not resumed."
        )
    return state


def restore_networks(model: AbstractTalkingFace, state: Mapping[str, Any], averaged: bool) -> None:
    """Load a checkpoint's networks into an unwrapped model, strictly.

    Args:
        averaged: take the EMA weights of the main network when the file has them.
    """
    for name, network in model.networks().items():
        prefix = name + "."
        own = {k[len(prefix) :]: v for k, v in state["state_dict"].items() if k.startswith(prefix)}
        if averaged and (state.get("ema_state_dict") or {}).get(name):
            own = state["ema_state_dict"][name]
        load_strict(network, own, source="the checkpoint", network=name)


def extra_state(model: AbstractTalkingFace) -> dict[str, Any]:
    """What a checkpoint keeps of a model beside its networks: statistics and further state."""
    state = model.statistics.state() if model.statistics is not None else {}
    return {**state, **(model.other_parameter() if isinstance(model, HasExtraState) else {})}


def load_extra_state(model: AbstractTalkingFace, values: Mapping[str, Any]) -> None:
    """Restore what :func:`extra_state` returned."""
    if model.statistics is not None:
        model.statistics.load(values)
    if isinstance(model, HasExtraState):
        model.load_other_parameter(values)
