"""``--verify`` and ``--convert``: the files of Live Speech Portraits people."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from talkingface.data.lsp import files
from talkingface.data.lsp.convert import convert_person
from talkingface.errors import ConfigError, DataError, StageError
from talkingface.utils.logs import setup_logging
from talkingface.utils.paths import shown

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
    if not options.get("output"):
        raise ConfigError("--convert needs --output=<new folder>")
    target = Path(options["output"]).expanduser()
    if target.exists() and any(target.iterdir()):
        raise ConfigError(f"--output={target} is not empty; choose a new folder")
    try:
        kind = convert_person(source, target)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    log.info("%s (%s) converted into %s", shown(source), kind, shown(target))
    return 0
