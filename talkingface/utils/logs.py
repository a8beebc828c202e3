"""Text logs and progress bars."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

_PLAIN = "{desc}: {n_fmt}/{total_fmt} {unit}s, {elapsed} elapsed, {remaining} left{postfix}"
PLAIN_SECONDS = 30  # between the lines that replace a progress bar


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


class _LogLines:
    """A file whose lines become log messages, one every ``PLAIN_SECONDS``."""

    def __init__(self) -> None:
        self._next = time.monotonic() + PLAIN_SECONDS

    def write(self, text: str) -> None:
        if time.monotonic() >= self._next and (line := text.strip()):
            self._next = time.monotonic() + PLAIN_SECONDS
            logging.getLogger("talkingface").info("%s", line)

    def flush(self) -> None:
        pass


def progress(
    iterable: Iterable | None = None,
    *,
    show: str | bool = "auto",
    form: str | None = None,
    plain: str = _PLAIN,
    **options: Any,
) -> tqdm:
    """A tqdm bar. With ``show="auto"`` and without a terminal: a log line every 30 s instead.

    Args:
        form: layout of the bar, ``plain`` of the lines (``bar_format`` of tqdm).
    """
    if show != "auto" or sys.stderr.isatty():
        return tqdm(iterable, disable=not show, dynamic_ncols=True, bar_format=form, **options)
    return tqdm(iterable, file=_LogLines(), bar_format=plain, mininterval=1, **options)


def duration(seconds: float) -> str:
    """A readable duration: ``40 s``, ``8 min``, ``1 h 20 min``, ``3 days``."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours / 24:.0f} days"
