"""Folders of runs and their checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from talkingface.components.zoo import is_zoo, zoo_file
from talkingface.utils.paths import resolve

if TYPE_CHECKING:
    from talkingface.config.config import Config


def saved_folder(cfg: Config) -> Path:
    """The parent folder of all runs."""
    folder = resolve(cfg.checkpoint_dir)
    # Old configurations write checkpoint_sub_dir with a leading slash.
    return folder / (cfg.checkpoint_sub_dir or "").lstrip("/\\")


def named_weights(cfg: Config, text: str, model: str | None = None) -> Path:
    """The file of a weights key: a path (see ``Config.weights_path``), a run's best checkpoint, or
    an entry of the zoo. The file need not exist.

    Args:
        model: whose weights ``zoo`` are; default: those of the configuration's model.

    Raises:
        ConfigError: the zoo has no such entry.
    """
    if is_zoo(text):
        return zoo_file(text, model or cfg.model)
    path = cfg.weights_path(text)
    runs = sorted(saved_folder(cfg).glob(f"*/*/{text}/checkpoints/best.ckpt"))
    return path if path.is_file() or not runs else runs[0]


def newest_checkpoint(
    saved: Path, model: str, dataset: str | None = None, *, finished: bool = False
) -> Path | None:
    """Best checkpoint of the newest run of a model, over all datasets or one.

    Args:
        finished: consider only runs that reached their end.
    """
    candidates = [
        path
        for path in (saved / model).glob(f"{dataset or '*'}/*/checkpoints/best.ckpt")
        if path.is_file() and (not finished or (path.parents[1] / "summary.json").is_file())
    ]
    return max(candidates, key=lambda path: path.stat().st_mtime, default=None)
