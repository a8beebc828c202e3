"""Checkpoint files: written atomically, readable with ``weights_only=True``."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from talkingface.model.weights import CHECKPOINT_FORMAT
from talkingface.utils.paths import atomic, write_json
from talkingface.utils.weights import tensors_crc


def save_checkpoint(path: Path, state: dict[str, Any], *, keep: Path | None = None) -> None:
    """Write ``state`` atomically: temporary file, fsync, rename. Equal states give equal bytes.

    Args:
        state: tensors and plain Python values only, so that ``weights_only=True`` can read it.
        keep: the file that ``path`` replaces gets this name.

    Raises:
        EnvironmentProblem: full disk or no permission; an older file of this name is kept.
    """
    if keep is not None and path.is_file():
        _copy(path, keep)
    with atomic(path) as temporary:
        try:
            with open(temporary, "wb") as file:  # of a path, the archive would contain the name
                torch.save(_interned({"format": CHECKPOINT_FORMAT, **state}), file)
        except RuntimeError as error:  # torch hides the errno of a failed write
            if "write" in str(error) or "unexpected pos" in str(error):
                raise OSError(errno.ENOSPC, "No space left on device") from error
            raise


def _copy(source: Path, target: Path) -> None:
    """Give a file a second name; a copy where the disk has no hard links."""
    with atomic(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def _interned(value: Any) -> Any:
    """The same content with equal strings as one object: pickle writes a repeated object once, so
    that the bytes would depend on where the strings came from."""
    if isinstance(value, Mapping):
        return {_interned(key): _interned(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_interned, value))
    return sys.intern(str(value)) if type(value) is str else value


def export_weights(folder: Path, state: dict[str, torch.Tensor], info: dict[str, Any]) -> Path:
    """Write ``weights.safetensors`` and ``info`` as ``weights.json``."""
    from safetensors.torch import save

    path = folder / "weights.safetensors"
    tensors = {key: value.detach().contiguous().cpu().clone() for key, value in state.items()}
    data = save(tensors, {"crc32": tensors_crc(tensors)})
    with atomic(path) as temporary:
        temporary.write_bytes(data)
    write_json(folder / "weights.json", info)
    return path


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that JSON can hold; tensors as lists."""
    plain: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            plain[key] = plain_values(value)
        elif isinstance(value, torch.Tensor):
            plain[key] = value.tolist()
        elif value is None or isinstance(value, (bool, int, float, str, list)):
            plain[key] = value
    return plain
