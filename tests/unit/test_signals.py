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
