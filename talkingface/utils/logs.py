"""Text logs and progress bars."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm


class _TqdmHandler(logging.StreamHandler):
    """Writes log lines above a progress bar instead of into it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


class _RunFile(logging.FileHandler):
    """A log file of the present run; after a failed write, e.g. on a full disk, the run goes on."""

    def handleError(self, record: logging.LogRecord) -> None:
        package = logging.getLogger("talkingface")
        package.removeHandler(self)
        package.warning("%s cannot be written any more: %s", self.baseFilename, sys.exc_info()[1])


def setup_logging(level: str, files: Iterable[Path] = ()) -> None:
    """Log the package to the terminal (message only) and to files (with time and module)."""
    package = logging.getLogger("talkingface")
    package.setLevel(logging.DEBUG)
    package.propagate = False
    for handler in [h for h in package.handlers if isinstance(h, _TqdmHandler)]:
        package.removeHandler(handler)
    terminal = _TqdmHandler()
    terminal.setLevel(level.upper())
    terminal.setFormatter(logging.Formatter("%(message)s"))
    package.addHandler(terminal)
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _RunFile(path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        package.addHandler(handler)


def close_run_files() -> None:
    """Detach and close the log files, so that a second run in one process does not log to them."""
    package = logging.getLogger("talkingface")
    for handler in [h for h in package.handlers if isinstance(h, _RunFile)]:
        package.removeHandler(handler)
        handler.close()


def progress(
    iterable: Iterable | None = None, *, show: str | bool = "auto", **options: Any
) -> tqdm:
    """A tqdm bar; with ``show="auto"`` only when stderr is a terminal."""
    visible = sys.stderr.isatty() if show == "auto" else bool(show)
    return tqdm(iterable, disable=not visible, dynamic_ncols=True, **options)
