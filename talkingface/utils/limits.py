"""Limits of the machine: errors of open files, memory and drives, whatever file is being read."""

from __future__ import annotations

import errno
import logging

from talkingface.errors import ResourceProblem

log = logging.getLogger(__name__)

WANTED_FILES = 4096
FILE_CODES = (errno.EMFILE, errno.ENFILE)
_DRIVE = (errno.EIO, getattr(errno, "ESTALE", errno.EIO), errno.ETIMEDOUT)
# Texts of errors without a number: of h5py, PyTorch, OpenCV and the loader of libraries.
_FILE_TEXTS = ("Too many open files", "received 0 items of ancdata")
_MEMORY_TEXTS = (
    *("can't allocate memory", "not enough memory", "out of memory", "Insufficient memory"),
    *("Cannot allocate memory", "bad_alloc", "failed to map segment"),
)
_OTHER_TEXTS = ("static TLS", "Operation not permitted")  # of libraries; not of memory


def file_limit() -> int | None:
    """How many files a process may open; None where there is no such limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def raise_file_limit() -> None:
    """Allow this process 4096 open files, as far as the system permits it without a privilege.

    Each tensor from a loader process takes one.
    """
    limit = file_limit()
    if limit is None or limit >= WANTED_FILES:
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(WANTED_FILES, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(wanted, limit), hard))
    except (OSError, ValueError):  # the lower limit stays
        log.debug("the limit of open files stays at %d", limit)


def resource_problem(error: BaseException) -> ResourceProblem | None:
    """The message for an error caused by too many open files, too little memory or a drive."""
    code, text = getattr(error, "errno", None), str(error)
    if code in FILE_CODES or any(part in text for part in _FILE_TEXTS):
        return ResourceProblem(
            f"Too many open files (limit {file_limit()}). Raise the limit before the command, e.g. "
            "with 'ulimit -n 8192' (as root 'ulimit -Hn 8192', in Docker '--ulimit nofile=8192'), "
            "or set --num_workers=0."
        )
    if "can't start new thread" in text:
        return ResourceProblem(
            "No further thread can be started: raise the limit of processes ('ulimit -u', in "
            "Docker '--pids-limit'), or use a smaller --num_workers and --process_workers."
        )
    if isinstance(error, MemoryError) or code == errno.ENOMEM or _of_memory(error, text):
        line = text.strip().split("\n")[0][:200] or type(error).__name__
        return ResourceProblem(
            f"Out of memory: {line}. Use a smaller --batch_size, --eval_batch_size, --num_workers "
            "or --preset, or raise a limit that is set ('ulimit -v', the container's, the job's). "
            "A training goes on from its last saved state with --resume=auto."
        )
    if isinstance(error, OSError) and code in _DRIVE:
        place = f" of {error.filename}" if error.filename else ""
        return ResourceProblem(
            f"The disk or network drive{place} does not answer ({error.strerror}). Check it, then "
            "run the command again."
        )
    return None


def _of_memory(error: BaseException, text: str) -> bool:
    kinds = (RuntimeError, OSError, ImportError)  # also of PyTorch and the loader of libraries
    known = isinstance(error, kinds) or type(error).__module__.startswith("cv2")
    if not known or any(part in text for part in _OTHER_TEXTS):
        return False
    return any(part.lower() in text.lower() for part in _MEMORY_TEXTS)


def require_resources(error: BaseException) -> None:
    """Raise the ResourceProblem of an error, if it is one.

    Called where any other error means that a file is damaged.
    """
    if problem := resource_problem(error):
        raise problem from error


def message_of(error: BaseException) -> str:
    """The message; of an error in a loader process without the traceback that PyTorch adds."""
    text = str(error)
    if "in DataLoader worker process" in text:
        text = text.rstrip().rpartition("\n")[2].partition(": ")[2] or text
    return text
