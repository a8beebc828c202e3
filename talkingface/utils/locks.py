"""File locks between processes."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from talkingface.errors import ConfigError, EnvironmentProblem
from talkingface.utils.paths import explain_os_errors

log = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def file_lock(path: Path, *, shared: bool = False, busy: str | None = None) -> Iterator[None]:
    """Hold a lock while the block runs; a killed process releases it.

    Windows and some network disks have no locks; a warning then says so.

    Args:
        path: the lock file; it is created if missing, and its content is never changed.
        shared: other processes with ``shared`` may hold it at the same time.
        busy: message of the error if another process holds the lock; None waits for it.

    Raises:
        ConfigError: ``busy``.
        EnvironmentProblem: no permission, or ``path`` is a symbolic link.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            if error.errno == errno.ELOOP:
                text = f"The lock file {path} is a symbolic link. Remove the link."
                raise EnvironmentProblem(text) from error
            raise
    try:
        mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(descriptor, mode | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise ConfigError(str(busy)) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            log.warning(
                "%s: this disk has no file locks (%s). Do not start two processes that write into "
                "the same folders.",
                path.parent,
                error.strerror,
            )
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock exclusively; False where there are no locks."""
    try:
        if path.is_file():
            with file_lock(path, shared=True, busy="locked"):
                pass
        return False
    except ConfigError:
        return True
    except EnvironmentProblem:
        return False
