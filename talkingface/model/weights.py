"""Read weights from checkpoints and official files, and load them strictly by name."""

from __future__ import annotations

import logging
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
from talkingface.utils.weights import LoadReport, load_strict, read_weights, zip_damage

log = logging.getLogger(__name__)

CHECKPOINT_FORMAT = "talkingface.ckpt/1"
# Keys of the state_dict in files: most, A2P's guide and lips, A2P's VQ, fairseq.
_HOLDERS = ("state_dict", "model_state_dict", "net", "model")


def extract_state_dict(
    content: Mapping[str, Any], networks: tuple[str, ...], network: str
) -> dict[str, Tensor]:
    """The tensors of one network from a checkpoint of this toolkit or an official file.

    Accepts a bare state_dict, one under the key ``state_dict`` or a similar one, names that start
    with ``module.`` (saved from DataParallel), and checkpoints of this toolkit, whose names start
    with the network.
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
        raise WeightsError("the file contains no state_dict")
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
        raise WeightsError(f"{source} contains no tensors for the network '{name}'")
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
    """Read a checkpoint of this toolkit.

    Raises:
        WeightsError: missing, damaged (with the newest intact one beside it), or no checkpoint.
    """
    try:
        state = read_weights(path)
    except WeightsError as error:
        others = [p for p in Path(path).parent.glob("*.ckpt") if p.name != Path(path).name]
        for other in sorted(others, key=lambda p: p.stat().st_mtime, reverse=True):
            if not zip_damage(other):
                raise WeightsError(
                    f"{error}. The newest intact one beside it is {other}"
                ) from error
        raise
    if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
        raise WeightsError(
            f"{path} is no checkpoint of this toolkit ({CHECKPOINT_FORMAT}). Official weights "
            "can be loaded with talkingface.load_weights, not resumed."
        )
    return state


def restore_networks(
    model: AbstractTalkingFace, state: Mapping[str, Any], averaged: bool, *, partly: bool = False
) -> None:
    """Load a checkpoint's networks into an unwrapped model, strictly.

    Args:
        averaged: use the EMA weights of the main network if the file has them.
        partly: the file may lack networks other than the main one, e.g. a discriminator.
    """
    for name, network in model.networks().items():
        prefix, tensors = f"{name}.", state["state_dict"].items()
        weights = {k.removeprefix(prefix): v for k, v in tensors if k.startswith(prefix)}
        if partly and not weights and name != model.main_network:
            log.info("%s: not in the file, starts untrained", name)
            continue
        if averaged and (state.get("ema_state_dict") or {}).get(name):
            weights = state["ema_state_dict"][name]
        load_strict(network, weights, source="the checkpoint", network=name)


def extra_state(model: AbstractTalkingFace) -> dict[str, Any]:
    """Statistics and further state of a model, which a checkpoint stores beside its networks."""
    state = model.statistics.state() if model.statistics is not None else {}
    return {**state, **(model.other_parameter() if isinstance(model, HasExtraState) else {})}


def load_extra_state(model: AbstractTalkingFace, values: Mapping[str, Any]) -> None:
    """Restore what :func:`extra_state` returned."""
    if model.statistics is not None:
        model.statistics.load(values)
    if isinstance(model, HasExtraState):
        model.load_other_parameter(values)
