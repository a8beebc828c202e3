"""Read weights from files of ours and of the original authors, and load them strictly by name."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from talkingface.errors import WeightsError
from talkingface.model.abstract_talkingface import AbstractTalkingFace

CHECKPOINT_FORMAT = "talkingface.ckpt/1"
# Where files keep their tensors: most, A2P's guide and lips, A2P's VQ, fairseq.
_HOLDERS = ("state_dict", "model_state_dict", "net", "model")


@dataclass(frozen=True)
class LoadReport:
    """What a load did: counts and the keys that were dropped."""

    source: str
    network: str
    matched: int
    dropped: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.matched} tensors of {self.source} loaded into '{self.network}'"
        if self.dropped:
            text += f"; not used by this network: {_grouped(self.dropped)}"
        return text


def _grouped(keys: Any, limit: int = 6) -> str:
    """Keys by their first two parts, most frequent first, so that 300 names become one line."""
    groups = Counter(".".join(str(key).split(".")[:2]) for key in keys)
    parts = [f"{name}.* ({n})" if n > 1 else name for name, n in groups.most_common(limit)]
    more = len(groups) - limit
    return ", ".join(parts) + (f", and {more} more groups" if more > 0 else "")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def read_weights(path: str | Path, *, trust: str | None = None) -> dict[str, Any]:
    """Open a weights file without running code that it may hold.

    Args:
        path: ``.ckpt``, ``.pth``, ``.pt``, ``.pkl``, ``.model`` or ``.safetensors``.
        trust: SHA-256 of a file that is opened although it holds pickled objects; several are
            separated by commas.

    Raises:
        WeightsError: missing, a Git LFS pointer, damaged, or holding objects and not trusted.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"The weights file {path} does not exist.")
    with open(path, "rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(
            f"{path} is a Git LFS pointer, not the weights. Run 'git lfs pull' or fetch it again."
        )
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(str(path)))
        except SafetensorError as error:
            raise WeightsError(f"{path} is damaged or no safetensors file: {error}") from error
    try:
        # fairseq keeps its options in a namespace, which holds values and runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if trust and sha256_of(path) in trust.lower().replace(",", " ").split():
            return torch.load(path, map_location="cpu", weights_only=False)  # hash was checked
        pickled = head.startswith((b"PK", b"\x80"))  # zip archive, or pickle protocol 2 and later
        if not pickled or not ("Unsupported" in str(error) or "GLOBAL" in str(error)):
            raise WeightsError(f"{path} is damaged or no PyTorch file") from error
        names = dict.fromkeys(re.findall(r"GLOBAL ([\w.]+)", str(error)))
        raise WeightsError(
            f"{path} holds Python objects besides tensors, which could run code when opened "
            f"({', '.join(names) or 'of an unknown class'}). If you trust its origin, add "
            f"--trust_checkpoint={sha256_of(path)}"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is damaged or no PyTorch file: {error}") from error


def missing_units(model: str) -> WeightsError:
    """The error of weights that came without the units of their values."""
    return WeightsError(
        f"These weights of {model} come without the units of their values (norm_stats). Take the "
        ".ckpt of the run, or keep weights.json and config.yaml beside the weights; official "
        "weights need model_params.std_mode=none."
    )


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


def load_strict(
    net: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str,
    network: str,
    optional: tuple[str, ...] = (),
) -> LoadReport:
    """Load by name; every key must be there with the right shape.

    Args:
        optional: prefixes of names that may be missing or in excess.

    Raises:
        WeightsError: with missing, unexpected and mismatched names, grouped.
    """
    own = net.state_dict()
    # Counters came with PyTorch 0.4.1; files of that age lack them, and nothing reads them.
    free = lambda key: key.endswith("num_batches_tracked") or key.startswith(optional or ("\0",))  # noqa: E731
    missing = [key for key in own if key not in state and not free(key)]
    excess = [key for key in state if key not in own]
    unexpected = [key for key in excess if not free(key)]
    mismatched = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or unexpected or mismatched:
        lines = [f"{source} does not fit the network '{network}' ({type(net).__name__}):"]
        if missing:
            lines.append(f"  {len(missing)} of {len(own)} missing: {_grouped(missing)}")
        if unexpected:
            lines.append(f"  {len(unexpected)} unexpected: {_grouped(unexpected)}")
        if mismatched:
            lines.append(f"  {len(mismatched)} of another shape: " + "; ".join(mismatched[:4]))
        lines.append("  Is it made for another model, size or preset? Nothing was loaded.")
        raise WeightsError("\n".join(lines))
    net.load_state_dict({key: state.get(key, value) for key, value in own.items()})
    matched = sum(1 for key in own if key in state)
    return LoadReport(source, network, matched, tuple(excess))


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
    if name == model.main_network:
        state = model.remap_state_dict(state)
    optional = model.optional_keys if name == model.main_network else ()
    try:
        return load_strict(networks[name], state, source=source, network=name, optional=optional)
    except WeightsError as error:
        hint = model.state_hint(state) if name == model.main_network else ""
        raise WeightsError(f"{error} {hint}".rstrip()) from None
