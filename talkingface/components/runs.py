"""Where runs and their checkpoints lie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from talkingface.utils.paths import resolve

if TYPE_CHECKING:
    from talkingface.config.config import Config


def saved_folder(cfg: Config) -> Path:
    """Where runs are saved."""
    folder = resolve(cfg.checkpoint_dir)
    if cfg.checkpoint_sub_dir:  # the ancestor wrote it with a leading slash
        folder = folder / cfg.checkpoint_sub_dir.lstrip("/\\")
    return folder


def named_weights(cfg: Config, text: str) -> Path:
    """The file that a weights key names: a path (see ``Config.weights_path``) or a run id.

    The file need not exist.
    """
    path = cfg.weights_path(text)
    runs = sorted(saved_folder(cfg).glob(f"*/*/{text}/checkpoints/best.ckpt"))
    return path if path.is_file() or not runs else runs[0]


def newest_checkpoint(
    saved: Path, model: str, dataset: str | None = None, *, finished: bool = False
) -> Path | None:
    """Best checkpoint of the newest run of a model, over all datasets or one.

    Args:
        finished: only of runs that reached their end.
    """
    candidates = [
        path
        for path in (saved / model).glob(f"{dataset or '*'}/*/checkpoints/best.ckpt")
        if path.is_file() and (not finished or (path.parents[1] / "summary.json").is_file())
    ]
    return max(candidates, key=lambda path: path.stat().st_mtime, default=None)
