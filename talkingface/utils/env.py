"""Imports of optional and system-dependent packages, with messages that say how to repair them."""

from __future__ import annotations

import importlib
from types import ModuleType

from talkingface.errors import EnvironmentProblem

_CV2_FIX = (
    "OpenCV could not be loaded because the system library {lib} is missing.\n"
    "  Debian/Ubuntu:  apt-get install -y libgl1 libglib2.0-0\n"
    "  Fedora/RHEL:    dnf install -y mesa-libGL glib2\n"
    "  conda:          conda install -c conda-forge libgl"
)


def require(package: str, *, why: str, extra: str | None = None) -> ModuleType:
    """Import ``package`` or explain what to install.

    Args:
        package: dotted module name.
        why: what needs it, e.g. ``"the LPIPS metric"``.
        extra: name of the extra in ``pyproject.toml`` that installs it.

    Raises:
        EnvironmentProblem: when the package is not installed or cannot be loaded.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        root = package.split(".")[0]
        how = f"pip install -e '.[{extra}]'" if extra else f"pip install {root}"
        if error.name and error.name.split(".")[0] != root:
            how = f"pip install {error.name.split('.')[0]}"
        raise EnvironmentProblem(
            f"{why} needs the package '{error.name or package}', which is not installed. "
            f"Install it with: {how}"
        ) from error
    except ImportError as error:
        text = str(error)
        if "cannot open shared object" in text and root_is_cv(text, package):
            raise EnvironmentProblem(_CV2_FIX.format(lib=text.split(":")[0])) from error
        raise EnvironmentProblem(f"{why} needs '{package}', which fails to load: {text}") from error


def root_is_cv(text: str, package: str) -> bool:
    """True when a failed import is about OpenCV's system libraries (libGL, libgthread...)."""
    return package.split(".")[0] in ("cv2", "mediapipe") or "libGL" in text or "libgthread" in text


def import_cv2() -> ModuleType:
    """OpenCV, or an :class:`EnvironmentProblem` that names the missing system library."""
    return require("cv2", why="Image reading and drawing")
