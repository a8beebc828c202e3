"""Ctrl-C and SIGTERM: the first one is a wish, its echo is ignored, a later one is an order."""

from __future__ import annotations

import os
import signal
import time

import pytest

from talkingface.trainer.signals import StopRequest
from talkingface.utils.system import SIGNAL_ECHO_SECONDS


def test_a_signal_is_remembered_and_its_echo_ignored():
    stop = StopRequest()
    with stop.watching():
        assert not stop
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.number == signal.SIGINT


def test_a_later_signal_stops_at_once():
    stop = StopRequest()
    with pytest.raises(KeyboardInterrupt), stop.watching():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SIGNAL_ECHO_SECONDS + 0.1)
        os.kill(os.getpid(), signal.SIGTERM)


def test_the_former_handlers_come_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopRequest().watching():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_loader_process_forked_a_moment_ago_says_nothing(caplog):
    """Until it has handlers of its own it holds those of the trainer."""
    with StopRequest().watching():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(len(caplog.records))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
