"""Checkpoint files: written atomically, readable with ``weights_only=True``."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from talkingface.model.weights import CHECKPOINT_FORMAT
from talkingface.utils.paths import atomic, write_json

log = logging.getLogger(__name__)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` atomically: temporary file, fsync, rename.

    Args:
        state: tensors and plain Python values only, so that ``weights_only=True`` can read it.

    Raises:
        EnvironmentProblem: full disk or no permission; an older file of this name is kept.
    """
    with atomic(path) as temporary:
        try:
            torch.save({"format": CHECKPOINT_FORMAT, **state}, temporary)
        except RuntimeError as error:  # torch hides the errno of a failed write
            if "write" in str(error) or "unexpected pos" in str(error):
                raise OSError(errno.ENOSPC, "No space left on device") from error
            raise


def export_weights(folder: Path, state: dict[str, torch.Tensor], info: dict[str, Any]) -> Path:
    """Write ``weights.safetensors`` and ``info`` as ``weights.json``."""
    from safetensors.torch import save

    path = folder / "weights.safetensors"
    data = save({key: value.detach().contiguous().cpu().clone() for key, value in state.items()})
    with atomic(path) as temporary:
        temporary.write_bytes(data)
    write_json(folder / "weights.json", info)
    return path


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that JSON can hold; tensors as lists."""
    plain = {key: _plain(value) for key, value in values.items()}
    return {key: value for key, value in plain.items() if value is not _OPAQUE}


_OPAQUE = object()


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return plain_values(value)
    return value if isinstance(value, (bool, int, float, str, list, type(None))) else _OPAQUE
