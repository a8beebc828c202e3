"""The project folder, the folder of shipped files, and atomic writes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from talkingface.errors import ConfigError, EnvironmentProblem
from talkingface.utils.limits import require_resources

# <stem>.tmp-<machine><boot>-<process>-<random>.<suffix>; earlier versions wrote no machine.
_TEMPORARY = re.compile(r"\.tmp-(?:([0-9a-f]{8})([0-9a-f]{8})-)?(\d+)-[0-9a-f]{8}\.\w+$")
_STALE_SECONDS = 24 * 3600  # after which a temporary file of another machine counts as left behind
_NAME_BYTES = 180  # file systems allow 255 bytes per name; the rest is for the temporary suffix
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)

PACKAGE_DIR = Path(__file__).resolve().parents[1]


def is_repository(folder: Path) -> bool:
    """Whether a folder is a checkout of the toolkit."""
    return (folder / "run_talkingface.py").is_file() and (folder / "properties").is_dir()


# The checkout that this package lies in; None when it was installed as a wheel.
REPOSITORY = PACKAGE_DIR.parent if is_repository(PACKAGE_DIR.parent) else None
# Folder of the ``properties`` and ``checkpoints`` that the toolkit ships; read only.
SHIPPED = REPOSITORY or PACKAGE_DIR


def project_root() -> Path:
    """Folder that relative paths start from; data, runs and results are written below it.

    The repository, or the current folder when the package is installed without one. The
    environment variable ``TALKINGFACE_ROOT`` replaces it, e.g. to use another disk.
    """
    override = os.environ.get("TALKINGFACE_ROOT")
    return Path(override).expanduser().resolve() if override else REPOSITORY or Path.cwd()


def program() -> str:
    """The command that starts the toolkit here, for messages."""
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return "python -m talkingface"
    if REPOSITORY is None or started.stem == "talkingface":
        return "talkingface"
    return "python run_talkingface.py"


def resolve(path: str | Path, root: Path | None = None) -> Path:
    """Expand ``~`` and ``${VAR}``; a relative path starts from the project folder."""
    expanded = Path(os.path.expandvars(str(path))).expanduser()
    return expanded if expanded.is_absolute() else (root or project_root()) / expanded


def shown(path: str | Path) -> str:
    """A path for messages: relative to the current folder when it lies below it."""
    with contextlib.suppress(ValueError):
        return str(Path(path).resolve().relative_to(Path.cwd()))
    return str(path)


@contextlib.contextmanager
def explain_os_errors(path: Path, doing: str = "write") -> Iterator[None]:
    """Turn common file-system errors into an EnvironmentProblem with a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (*_DISK_FULL, *_NO_PERMISSION, errno.ENOTDIR):
            raise write_problem(Path(path), error, doing) from error
        raise


def is_temporary(path: str | Path) -> bool:
    """Whether a name belongs to an unfinished file of :func:`atomic` (e.g. after a kill)."""
    return _TEMPORARY.search(Path(path).name) is not None


@lru_cache(maxsize=1)
def _machine() -> tuple[str, str]:
    """Hashes of this machine (and container), and of its last start."""
    host, boot = [socket.gethostname()], ""
    with contextlib.suppress(OSError):
        host.append(str(os.stat("/proc/self/ns/pid").st_ino))
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    names = ("|".join(host), boot)
    return tuple(hashlib.sha256(name.encode()).hexdigest()[:8] for name in names)


def temporary_tag() -> str:
    """Part of the name of a temporary file or folder by which :func:`is_stale` knows its writer."""
    return f"tmp-{''.join(_machine())}-{os.getpid()}-{secrets.token_hex(4)}"


def is_stale(path: Path) -> bool:
    """Whether the writer of a temporary file or folder has ended, e.g. was killed."""
    match = _TEMPORARY.search(path.name)
    if match is None:
        return False
    host, boot, process = match.groups()
    if host not in (None, _machine()[0]):  # processes of another machine cannot be seen
        with contextlib.suppress(OSError):
            return time.time() - path.stat().st_mtime > _STALE_SECONDS
        return False
    if boot not in (None, _machine()[1]):
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it exists and belongs to somebody else
        return False
    return False


def remove_stale(folder: Path, pattern: str = "*") -> None:
    """Remove temporary files that killed processes have left in a folder of the toolkit.

    Args:
        pattern: of the files below ``folder``; ``**/*`` also searches the sub-folders.
    """
    for path in list(folder.glob(pattern)) if folder.is_dir() else ():
        if is_stale(path) and not path.is_symlink() and path.is_file():
            with contextlib.suppress(OSError):
                path.unlink()


def discard(path: Path) -> None:
    """Remove a file or folder of the toolkit, if it exists; of a symbolic link only the link.

    Raises:
        OSError: no permission.
    """
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


def refuse_to_replace(output: Path, inputs: Iterable[Path | None]) -> None:
    """Check that writing ``output`` replaces no input, also by a link or another spelling.

    Raises:
        ConfigError: ``output`` is one of the inputs.
    """
    for used in inputs:
        with contextlib.suppress(OSError):
            if used is not None and output.exists() and os.path.samefile(output, used):
                raise ConfigError(f"--output={output} would replace {used}; choose another name")


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, so that a rename survives a power cut."""
    with contextlib.suppress(OSError, AttributeError):  # Windows cannot open folders
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def atomic(path: str | Path, *, sync: bool = True) -> Iterator[Path]:
    """Write a file under a temporary name in the same folder and rename it after the block.

    The folder is created. Other processes read the old file or the complete new one.

    Args:
        sync: wait until the content is on the disk. Unnecessary inside a folder that is itself
            renamed when it is complete.

    Yields:
        Path of the temporary file, already created; it keeps the suffix of ``path``.

    Raises:
        EnvironmentProblem: disk full, read-only folder, name too long.
    """
    path = Path(path)
    stem = path.name.encode("utf-8", "surrogateescape")[:_NAME_BYTES].decode("utf-8", "ignore")
    temporary = path.with_name(f"{stem}.{temporary_tag()}{path.suffix or '.bin'}")
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        yield temporary
        if sync:
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())  # network disks report "full" only here
        os.replace(temporary, path)
        if sync:
            sync_folder(path.parent)
    except OSError as error:
        raise write_problem(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # the folder is gone or read-only
            temporary.unlink(missing_ok=True)


def write_problem(path: Path, error: OSError, doing: str = "write") -> EnvironmentProblem:
    """The exception, with a remedy in its message, for a system error at ``path``."""
    code = error.errno
    if code in _DISK_FULL:
        free = "free space unknown"
        with contextlib.suppress(OSError):
            free = f"{shutil.disk_usage(path.parent).free / 1e9:.2f} GB free"
        why = "file size limit reached" if code == errno.EFBIG else "disk or quota full"
        return EnvironmentProblem(
            f"Could not {doing} {path}: {why} ({free}). Free some space, or set "
            "TALKINGFACE_ROOT to a folder on a larger disk. Finished files are kept; run it again."
        )
    if code in _NO_PERMISSION:
        return EnvironmentProblem(
            f"Could not {doing} {path}: no permission in the folder {path.parent}. Change it, or "
            "choose another place (--root=..., --output=..., TALKINGFACE_ROOT)."
        )
    if code == errno.EISDIR:
        return EnvironmentProblem(f"Could not write {path}: a folder of that name exists.")
    text = error.strerror or str(error)
    return EnvironmentProblem(f"Could not write {path}: {text}. Check the path and the disk.")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_if_changed(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, unless the file already has this content."""
    try:
        if path.read_text(encoding="utf-8") == text:
            return
    except (OSError, ValueError):
        pass
    write_text(path, text)


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file with an object; empty when the file is missing or damaged."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        require_resources(error)
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically, with sorted keys so that equal data give equal bytes."""
    write_text(path, json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
