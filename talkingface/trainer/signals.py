"""Stop a training after the current step on Ctrl-C, SIGTERM or a closed terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from talkingface.utils.system import SIGNAL_ECHO_SECONDS

log = logging.getLogger(__name__)


class StopRequest:
    """Stores the first SIGINT, SIGTERM or SIGHUP while :meth:`watching`; a later one stops at once.

    Attributes:
        number: of the signal; None without one.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._time = 0.0

    def __bool__(self) -> bool:
        return self.number is not None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the signals inside the block; does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        trainer = os.getpid()

        def handle(number: int, _frame: Any) -> None:
            if os.getpid() != trainer:
                return  # a newly forked process of the data loader, which the trainer ends
            if self.number is not None:
                if time.monotonic() - self._time > SIGNAL_ECHO_SECONDS:
                    raise KeyboardInterrupt
                return
            self.number, self._time = number, time.monotonic()
            log.warning("signal %s: finishing this step, then saving", signal.Signals(number).name)

        signals = [signal.SIGINT, signal.SIGTERM]
        hangup = getattr(signal, "SIGHUP", None)
        if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:  # not nohup
            signals.append(hangup)
        previous = {number: signal.signal(number, handle) for number in signals}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
