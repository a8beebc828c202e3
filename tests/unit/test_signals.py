"""Ctrl-C and SIGTERM: the first one is a wish, its echo is ignored, a later one is an order."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch
from torch.utils.data import DataLoader

from talkingface.data.dataset import base
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


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals are not held back here")
@pytest.mark.parametrize("ours", [True, False])
def test_a_signal_during_the_start_of_a_loader_process_does_not_end_it(ours, monkeypatch):
    """Between PyTorch's own handlers and ours; without ours the training ends with an error."""
    from torch.utils.data._utils import signal_handling

    original = signal_handling._set_worker_signal_handlers

    def and_a_signal() -> None:
        original()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(signal_handling, "_set_worker_signal_handlers", and_a_signal)
    numbers = torch.arange(8)
    kind, options = (
        (base._Loader, {"worker_init_fn": base._start_worker}) if ours else (DataLoader, {})
    )
    loader = kind(numbers, num_workers=2, batch_size=4, **options)
    if ours:
        assert torch.cat(list(loader)).tolist() == numbers.tolist()
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    else:
        with pytest.raises(RuntimeError, match="exited unexpectedly|killed by signal"):
            list(loader)
