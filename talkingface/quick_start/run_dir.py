"""Names and folders of a run: one id in ``saved``, ``log``, ``log_tensorboard``, ``results``."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from talkingface.components.runs import saved_folder
from talkingface.utils.paths import explain_os_errors, resolve, write_text

if TYPE_CHECKING:
    from talkingface.config.config import Config


@dataclass(frozen=True)
class RunDir:
    """Folders of one run."""

    id: str
    root: Path
    results: Path
    log_file: Path
    tensorboard: Path

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def best(self) -> Path:
        return self.checkpoints / "best.ckpt"

    @property
    def last(self) -> Path:
        return self.checkpoints / "last.ckpt"


def _layout(cfg: Config, run_id: str) -> RunDir:
    return RunDir(
        id=run_id,
        root=saved_folder(cfg) / cfg.model / cfg.dataset / run_id,
        results=resolve(cfg.results_dir) / cfg.model / cfg.dataset / run_id,
        log_file=resolve(cfg.log_dir) / cfg.model / f"{run_id}.log",
        tensorboard=resolve(cfg.tensorboard_dir) / cfg.model / run_id,
    )


def new_run(cfg: Config) -> RunDir:
    """Make a run folder of its own; simultaneous runs never share one."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    base = f"{cfg.model}-{cfg.dataset}-{stamp}-{cfg.hash[:6]}"
    number = 1
    while True:
        run = _layout(cfg, base if number == 1 else f"{base}-{number}")
        with explain_os_errors(run.root):
            try:
                run.root.mkdir(parents=True)
            except FileExistsError:  # made by another process within the same second
                number += 1
                continue
        write_text(run.root.parent / "latest.txt", run.id + "\n")
        return run


def open_run(cfg: Config, run_id: str) -> RunDir:
    """Folders of an existing run."""
    return _layout(cfg, run_id)


def find_runs(cfg: Config, *, same_settings: bool) -> list[RunDir]:
    """Existing runs of the pair, newest first.

    Args:
        same_settings: only those whose settings that change what is learned are equal.
    """
    folder = saved_folder(cfg) / cfg.model / cfg.dataset
    found = []
    for path in folder.glob("*/provenance.json"):
        try:
            info = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if not same_settings or info.get("config_hash") == cfg.hash:
            found.append((info.get("started", ""), path.parent.name))
    return [_layout(cfg, name) for _, name in sorted(found, reverse=True)]


def run_of_checkpoint(cfg: Config, path: Path) -> RunDir | None:
    """The run that a checkpoint lies in, when it belongs to this pair's folders."""
    if path.parent.name != "checkpoints":
        return None
    run = _layout(cfg, path.parent.parent.name)
    return run if run.root.resolve() == path.parent.parent.resolve() else None
