"""Open weights files without running code that they may contain, and load them by exact names."""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from talkingface.errors import WeightsError
from talkingface.utils.hashes import sha256_of
from talkingface.utils.limits import require_resources


@dataclass(frozen=True)
class LoadReport:
    """Result of loading a state_dict: number of loaded tensors and the keys that were dropped."""

    source: str
    network: str
    matched: int
    dropped: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.matched} tensors of {self.source} loaded into '{self.network}'"
        unused = f"; not used by this network: {_grouped(self.dropped)}"
        return text + unused if self.dropped else text


def _grouped(keys: Any, limit: int = 6) -> str:
    """Keys grouped by their first two parts, largest group first, so that 300 keys fit a line."""
    groups = Counter(".".join(str(key).split(".")[:2]) for key in keys)
    parts = [f"{name}.* ({n})" if n > 1 else name for name, n in groups.most_common(limit)]
    more = len(groups) - limit
    return ", ".join(parts) + (f", and {more} more groups" if more > 0 else "")


def read_weights(path: str | Path, *, trust: str | None = None) -> dict[str, Any]:
    """Open a weights file without running code that it may contain.

    Args:
        path: ``.ckpt``, ``.pth``, ``.pt``, ``.pkl``, ``.model`` or ``.safetensors``.
        trust: SHA-256 values, separated by commas, of files that are opened although they contain
            pickled objects.

    Raises:
        WeightsError: the file is missing, a Git LFS pointer or damaged, or it contains pickled
            objects and is not trusted.
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
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_file

        try:
            tensors = dict(load_file(str(path)))
            with safe_open(str(path), "pt") as content:
                expected = (content.metadata() or {}).get("crc32")
        except SafetensorError as error:
            raise WeightsError(f"{path} is damaged or no safetensors file: {error}") from error
        if expected not in (None, tensors_crc(tensors)):
            raise WeightsError(f"{path} is damaged: its content does not fit its checksum")
        return tensors
    if head.startswith(b"PK") and (reason := zip_damage(path)):
        raise WeightsError(f"{path} is damaged or no PyTorch file: {reason}")
    content = _unpickled(path, head, trust)
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, no dictionary of tensors")
    return content


def _unpickled(path: Path, head: bytes, trust: str | None) -> Any:
    """The content of a file of ``torch.save``; ``head`` is its beginning."""
    try:
        # fairseq stores its options in a Namespace, which contains only values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if is_trusted(path, trust):
            return torch.load(path, map_location="cpu", weights_only=False)
        pickled = head.startswith((b"PK", b"\x80"))  # zip archive, or pickle protocol 2 and later
        if not pickled or not ("Unsupported" in str(error) or "GLOBAL" in str(error)):
            raise WeightsError(f"{path} is damaged or no PyTorch file") from error
        names = dict.fromkeys(re.findall(r"GLOBAL ([\w.]+)", str(error)))
        raise WeightsError(
            f"{path} contains Python objects besides tensors, which could run code when opened "
            f"({', '.join(names) or 'of an unknown class'}). If you trust its origin, add "
            f"--trust_checkpoint={sha256_of(path)}"
        ) from error
    except Exception as error:  # damaged files raise many kinds of errors
        require_resources(error)
        raise WeightsError(f"{path} is damaged or no PyTorch file: {error}") from error


def zip_damage(path: Path) -> str:
    """Why a zip archive, e.g. a PyTorch file, is damaged; empty when its checksums are right."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                with archive.open(entry) as stream:  # the checksum is compared at the end
                    while stream.read(1 << 24):
                        pass
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile) as error:
        require_resources(error)
        return str(error) or type(error).__name__
    return ""


def tensors_crc(tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 of the bytes of contiguous tensors on the CPU, in the order of their names."""
    crc = 0
    for name in sorted(tensors):
        flat = tensors[name].reshape(-1)
        crc = zlib.crc32(flat.view(torch.uint8).numpy().data if flat.numel() else b"", crc)
    return f"{crc:08x}"


def is_trusted(path: Path, trust: str | None) -> bool:
    """Whether the SHA-256 of a file is among those of ``trust``, separated by commas."""
    return bool(trust) and sha256_of(path) in trust.lower().replace(",", " ").split()


def require_trust(path: Path, trust: str | None, kind: str) -> None:
    """The gate for files that can run code when they are opened.

    Raises:
        WeightsError: the file is not trusted.
    """
    if not is_trusted(path, trust):
        raise WeightsError(
            f"{path} is {kind}, which can run code when it is opened. If you trust its origin, add "
            f"--trust_checkpoint={sha256_of(path)}"
        )


def load_strict(
    net: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str,
    network: str,
    optional: tuple[str, ...] = (),
) -> LoadReport:
    """Load by name; every key must exist with the right shape.

    Args:
        optional: prefixes of names that may be missing or unexpected.

    Raises:
        WeightsError: with missing, unexpected and mismatched names, grouped.
    """
    own = net.state_dict()

    def is_optional(key: str) -> bool:
        # Files older than PyTorch 0.4.1 lack these counters, and no network here uses them.
        return key.endswith("num_batches_tracked") or key.startswith(optional)

    missing = [key for key in own if key not in state and not is_optional(key)]
    excess = [key for key in state if key not in own]
    unexpected = [key for key in excess if not is_optional(key)]
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
        lines.append("  Do they belong to another model, size or preset? Nothing was loaded.")
        raise WeightsError("\n".join(lines))
    net.load_state_dict({key: state.get(key, value) for key, value in own.items()})
    return LoadReport(source, network, len(own.keys() & state.keys()), tuple(excess))
