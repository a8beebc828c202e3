"""File locks between the processes of one machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from talkingface.utils.paths import explain_os_errors


@contextlib.contextmanager
def file_lock(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock while the block runs; a killed process releases it. Windows has no lock.

    Args:
        shared: other processes with ``shared`` may hold it at the same time.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")
    with file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
