"""Checkpoint files: written whole or not at all, and readable without running code."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from talkingface.errors import WeightsError
from talkingface.model.weights import CHECKPOINT_FORMAT, read_weights
from talkingface.utils.paths import explain_os_errors, write_json

log = logging.getLogger(__name__)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` atomically: temporary file, fsync, rename.

    Args:
        state: tensors and plain Python values only, so that ``weights_only=True`` can read it.

    Raises:
        EnvironmentProblem: full disk or no permission; an older file of that name is kept.
    """
    path = Path(path)
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                try:
                    torch.save({"format": CHECKPOINT_FORMAT, **state}, file)
                except RuntimeError as error:  # torch hides the errno of a failed write
                    if "write" in str(error) or "unexpected pos" in str(error):
                        raise OSError(28, "No space left on device") from error
                    raise
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)


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


def export_weights(folder: Path, state: dict[str, torch.Tensor], info: dict[str, Any]) -> Path:
    """Write ``weights.safetensors`` and ``weights.json`` (what, how good, trained on what)."""
    from safetensors.torch import save

    path = folder / "weights.safetensors"
    data = save({key: value.detach().contiguous().cpu().clone() for key, value in state.items()})
    with explain_os_errors(path):
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_bytes(data)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    write_json(folder / "weights.json", info)
    return path
