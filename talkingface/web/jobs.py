"""Commands of the toolkit in processes of their own, with their progress."""

from __future__ import annotations

import atexit
import os
import re
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator, Sequence

from talkingface.errors import TalkingFaceError
from talkingface.utils.paths import PACKAGE_DIR

_BAR = re.compile(r"(.*?)\s*(\d+)%\|.*\|\s*(.*)")  # of tqdm: title, percent, counts
_PATIENCE = 10  # seconds that a stopped command may take to end
_KEPT = 200  # last lines of output
_running: weakref.WeakSet[Job] = weakref.WeakSet()


class Job:
    """A command, as ``talkingface <words>`` would run it.

    Attributes:
        lines: its output so far, without progress bars; at most the last ``_KEPT``.
        status: its exit status; None while it runs.
        cancelled: whether :meth:`cancel` was called.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.lines: list[str] = []
        self.status: int | None = None
        self.cancelled = False
        path = os.pathsep.join(filter(None, (str(PACKAGE_DIR.parent), os.getenv("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "talkingface", *words, "--show_progress=true"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal stops the studio, which stops it
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
        )
        _running.add(self)

    def follow(self) -> Iterator[str]:
        """The progress in a line, until the command ends or is cancelled.

        Raises:
            TalkingFaceError: the command failed; with its message.
        """
        text = b""
        while block := self._process.stdout.read1(4096):
            *parts, text = re.split(rb"[\r\n]", text + block)
            for part in parts:
                line = part.decode("utf-8", "replace").strip()
                if found := _BAR.match(line):
                    yield f"{found[1]} {found[2]} %, {found[3]}"
                elif line:
                    self.lines = [*self.lines, line][-_KEPT:]
                    yield line
        if last := text.decode("utf-8", "replace").strip():
            self.lines.append(last)
        self.status = self._process.wait()
        if self.status and not self.cancelled:
            wrong = [line for line in self.lines if line.startswith(("error: ", "stopped: "))]
            raise TalkingFaceError(wrong[-1] if wrong else f"exit status {self.status}")

    def cancel(self) -> None:
        """Stop the command; kill it if it does not end. SIGINT may be ignored in the background."""
        if self._process.poll() is not None:
            return
        self.cancelled = True
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(_PATIENCE)
                return
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue


@atexit.register
def _stop_all() -> None:
    for job in list(_running):
        job.cancel()
