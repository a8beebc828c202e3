"""Ctrl-C and SIGTERM as a wish to stop after the current step."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from typing import Any

log = logging.getLogger(__name__)


class StopRequest:
    """Remembers the first SIGINT or SIGTERM while :meth:`watching`; a second one stops at once.

    Attributes:
        number: the signal, None when there was none.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def __bool__(self) -> bool:
        return self.number is not None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the signals inside the block; does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, _frame: Any) -> None:
            if self.number is not None:
                raise KeyboardInterrupt
            self.number = number
            log.warning("signal %s: finishing this step, then saving", signal.Signals(number).name)

        previous = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
