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


def setup_logging(level: str, files: Iterable[Path] = ()) -> list[logging.Handler]:
    """Log the package to the terminal (message only) and to files (with time and module).

    Returns:
        The file handlers, for :func:`close_handlers`.
    """
    package = logging.getLogger("talkingface")
    package.setLevel(logging.DEBUG)
    package.propagate = False
    for handler in [h for h in package.handlers if isinstance(h, _TqdmHandler)]:
        package.removeHandler(handler)
    terminal = _TqdmHandler()
    terminal.setLevel(level.upper())
    terminal.setFormatter(logging.Formatter("%(message)s"))
    package.addHandler(terminal)
    handlers: list[logging.Handler] = []
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        package.addHandler(handler)
        handlers.append(handler)
    return handlers


def close_handlers(handlers: Iterable[logging.Handler]) -> None:
    """Detach and close file handlers, so that a second run in one process does not log twice."""
    package = logging.getLogger("talkingface")
    for handler in handlers:
        package.removeHandler(handler)
        handler.close()


def progress(
    iterable: Iterable | None = None, *, show: str | bool = "auto", **options: Any
) -> tqdm:
    """A tqdm bar; with ``show="auto"`` only when stderr is a terminal."""
    visible = sys.stderr.isatty() if show == "auto" else bool(show)
    return tqdm(iterable, disable=not visible, dynamic_ncols=True, **options)
