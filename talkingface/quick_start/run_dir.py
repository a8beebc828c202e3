"""Names and folders of a run: one id in ``saved``, ``log``, ``log_tensorboard``, ``results``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from talkingface.components.runs import saved_folder
from talkingface.utils.paths import explain_os_errors, read_json, resolve, write_text

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


def open_run(cfg: Config, run_id: str) -> RunDir:
    """Folders of a run, which need not exist."""
    return RunDir(
        id=run_id,
        root=saved_folder(cfg) / cfg.model / cfg.dataset / run_id,
        results=resolve(cfg.results_dir) / cfg.model / cfg.dataset / run_id,
        log_file=resolve(cfg.log_dir) / cfg.model / f"{run_id}.log",
        tensorboard=resolve(cfg.tensorboard_dir) / cfg.model / run_id,
    )


def new_run(cfg: Config) -> RunDir:
    """Create a new run folder; runs that start at the same time get different ones."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    base = f"{cfg.model}-{cfg.dataset}-{stamp}-{cfg.hash[:6]}"
    number = 1
    while True:
        run = open_run(cfg, base if number == 1 else f"{base}-{number}")
        with explain_os_errors(run.root):
            try:
                run.root.mkdir(parents=True)
            except FileExistsError:  # created by another process within the same second
                number += 1
                continue
        write_text(run.root.parent / "latest.txt", run.id + "\n")
        return run


def find_runs(cfg: Config) -> list[RunDir]:
    """Existing runs of the model on the dataset with equal ``Config.hash``, newest first."""
    folder = saved_folder(cfg) / cfg.model / cfg.dataset
    runs = []
    for path in folder.glob("*/provenance.json"):
        info = read_json(path)
        if info.get("config_hash") == cfg.hash:
            runs.append((info.get("started", ""), path.parent.name))
    return [open_run(cfg, name) for _, name in sorted(runs, reverse=True)]


def run_of_checkpoint(cfg: Config, path: Path) -> RunDir | None:
    """The run of the model on the dataset that a checkpoint belongs to; None for other files."""
    if path.parent.name != "checkpoints":
        return None
    run = open_run(cfg, path.parent.parent.name)
    return run if run.root.resolve() == path.parent.parent.resolve() else None
