"""``--verify`` and ``--convert``: the files of Live Speech Portraits people."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from talkingface.data.clips import write_filelist
from talkingface.data.dataprocess.base import IMPORTED
from talkingface.data.dataprocess.lsp_process import LSPProcess
from talkingface.data.lsp import files
from talkingface.data.lsp.convert import convert_person
from talkingface.errors import ConfigError, DataError, StageError
from talkingface.quick_start.prepare import relative_root
from talkingface.registry import refresh
from talkingface.utils.logs import setup_logging
from talkingface.utils.paths import project_root, shown, write_json, write_text

log = logging.getLogger(__name__)


def _folder(options: Mapping[str, str], key: str) -> Path:
    folder = Path(options[key]).expanduser()
    if not folder.is_dir():
        raise DataError(f"--{key}={folder}: there is no such folder")
    return folder


def verify_command(options: Mapping[str, str], config: Mapping[str, Any]) -> int:
    """Check every folder with motion files below ``--verify``; returns the exit status.

    Raises:
        StageError: a folder has a fault; all are listed.
    """
    setup_logging(str(config.get("log_level", "info")))
    root = _folder(options, "verify")
    found = sorted(path.parent for path in root.rglob(files.FIT))
    if not found:
        raise DataError(f"{root}: no folder below it holds {files.FIT}")
    faults, worst = [], 0.0
    for folder in found:
        try:
            facts = files.verify_files(files.MotionFiles(folder))
        except DataError as error:
            faults.append(str(error))
            continue
        worst = max(worst, facts.get("projection_error", 0.0))
        log.debug("%s: %s", folder, facts)
    log.info(
        "%s: %d of %d folders are right; largest projection error %.5f px (limit %.2f)",
        shown(root), len(found) - len(faults), len(found), worst, files.MAX_PROJECTION_ERROR,
    )  # fmt: skip
    if faults:
        raise StageError("\n  ".join([f"{len(faults)} of {len(found)} folders:", *faults]))
    return 0


def convert_command(options: Mapping[str, str], config: Mapping[str, Any]) -> int:
    """Convert a person's folder; see :func:`~talkingface.data.lsp.convert.convert_person`."""
    setup_logging(str(config.get("log_level", "info")))
    source = _folder(options, "convert")
    name = config.get("dataset")
    if bool(options.get("output")) == bool(name):
        raise ConfigError("--convert needs --output=<new folder> or --dataset=<new name>")
    root = project_root() / "dataset" / str(name)
    home = root / "preprocessed_data" / LSPProcess.id
    target = home / source.name if name else Path(options["output"]).expanduser()
    if target.exists() and any(target.iterdir()):
        raise ConfigError(f"--output={target} is not empty; choose a new folder")
    try:
        kind = convert_person(source, target)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    log.info("%s (%s) converted into %s", shown(source), kind, shown(target))
    if name:
        if "training" not in kind:
            raise ConfigError(f"--dataset={name}: a dataset can only be made of a training tree")
        _register(str(name), root, home, files.Person(target))
    return 0


def _register(name: str, root: Path, home: Path, person: files.Person) -> None:
    """Make a dataset of a converted training tree: markers, lists and a YAML. There is no video."""
    names = {split: person.listed(split) for split in ("train", "val")}
    for clip_id in dict.fromkeys(name for listed in names.values() for name in listed):
        clip = person.clip(clip_id)
        marker = {
            "clip": clip_id,
            "status": "ok",
            "person": person.name,
            "frames": int(clip.manifest["frames"]),
            "seconds": len(clip) / 60,
            "fingerprint": {"processor": IMPORTED, "inputs": []},
        }
        write_json(home / ".status" / f"{clip_id}.json", marker)
    for split, listed in {**names, "test": names["val"]}.items():
        write_filelist(root / "filelist" / f"{split}.txt", listed)
    own = project_root() / "properties" / "dataset" / "local" / f"{name}.yaml"
    lines = (
        f"name: {name}",
        f"summary: files of {person.name}, converted from the official training tree; no videos",
        "licence: that of the tree",
        "origin: python run_talkingface.py --convert=...",
        f"root: {relative_root(root)}",
    )
    write_text(own, "\n".join(lines) + "\n")
    refresh()
    log.info(
        "train it:  python run_talkingface.py --model=Feature2Face --dataset=%s --stages=train",
        name,
    )
