"""Where things lie: the project folder, property folders, and safe ways to write files."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from talkingface.errors import EnvironmentProblem

PACKAGE_DIR = Path(__file__).resolve().parents[1]
REPOSITORY = PACKAGE_DIR.parent


def project_root() -> Path:
    """Folder that relative paths start from: that of ``run_talkingface.py``.

    ``TALKINGFACE_ROOT`` moves it, e.g. to keep data and runs on another disk.
    """
    override = os.environ.get("TALKINGFACE_ROOT")
    return Path(override).expanduser().resolve() if override else REPOSITORY


def resolve(path: str | Path, root: Path | None = None) -> Path:
    """Expand ``~`` and ``${VAR}``; a relative path starts from the project folder."""
    expanded = Path(os.path.expandvars(str(path))).expanduser()
    return expanded if expanded.is_absolute() else (root or project_root()) / expanded


def shown(path: str | Path) -> str:
    """A path for people: relative to the current folder when it lies below it."""
    with contextlib.suppress(ValueError):
        return str(Path(path).resolve().relative_to(Path.cwd()))
    return str(path)


@contextlib.contextmanager
def explain_os_errors(path: Path, doing: str = "write") -> Iterator[None]:
    """Turn the usual file-system failures into messages with a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EnvironmentProblem(
                f"The disk is full: cannot {doing} {path}. Free some space or set TALKINGFACE_ROOT "
                "to a folder on a larger disk. Finished parts are kept; run the same command again."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise EnvironmentProblem(
                f"No permission to {doing} {path}. Make the folder writable, or choose another one "
                "(--root=..., --preprocessed_root=..., or TALKINGFACE_ROOT)."
            ) from error
        raise


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed to it when the block ends without an error."""
    path = Path(path)
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically, with sorted keys so that equal data give equal bytes."""
    write_text(path, json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
