"""Imports of optional and system-dependent packages, with messages that say how to repair them."""

from __future__ import annotations

import importlib
import re
from importlib import metadata
from types import ModuleType

from talkingface.errors import EnvironmentProblem
from talkingface.utils.paths import REPOSITORY

BUILT_FOR_TORCH = ("torchvision", "torchaudio")

_SYSTEM_LIBRARIES = (
    "{package} could not be loaded because the system library {lib} is missing.\n"
    "  Debian/Ubuntu:  apt-get install -y libgl1 libglib2.0-0 libegl1 libgles2\n"
    "  Fedora/RHEL:    dnf install -y mesa-libGL mesa-libEGL mesa-libGLES glib2\n"
    "  conda:          conda install -c conda-forge libgl libegl libgles"
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
    root = package.split(".")[0]
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        missing = (error.name or package).split(".")[0]
        raise EnvironmentProblem(
            f"{why} needs the package '{error.name or package}', which is not installed. "
            f"Install it with: {how_to_install(missing, extra if missing == root else None)}"
        ) from error
    except (ImportError, OSError, RuntimeError) as error:
        text = str(error)
        if root in ("cv2", "mediapipe"):
            explain_missing_library(root, error)
        if root in BUILT_FOR_TORCH:
            raise EnvironmentProblem(f"{why} needs {root}: {torch_mismatch(root)}") from error
        if not isinstance(error, ImportError):
            raise
        raise EnvironmentProblem(f"{why} needs '{package}', which fails to load: {text}") from error


def how_to_install(package: str, extra: str | None = None) -> str:
    """The command that installs a missing package."""
    if REPOSITORY is None:
        return f"pip install {package}"
    return f"pip install -e '.[{extra}]'" if extra else "pip install -r requirements.txt"


def torch_mismatch(package: str) -> str:
    """Why a package with compiled parts for one version of PyTorch does not load."""
    own, torch = installed_version(package), installed_version("torch")
    remedy = "pip install -r requirements.txt"
    if REPOSITORY is None:
        remedy = "install torch, torchvision and torchaudio of one release"
    return f"{package} {own} was not built for torch {torch}: {remedy}"


def check_torchvision() -> None:
    """Explain a torchvision that was built for another torch; nothing is imported.

    Each torchvision names the one torch that it was built for. torchaudio does not (2.11.1 claims
    any torch from 2.11 on and loads beside few): :func:`require` explains it where it is used.

    Raises:
        EnvironmentProblem: the installed versions do not fit.
    """
    torch = installed_version("torch")
    for text in _requirements("torchvision"):
        wanted = re.fullmatch(r"torch ?\(?==([^)]+)\)?", text)
        if torch and wanted and wanted[1].split("+")[0] != torch.split("+")[0]:
            raise EnvironmentProblem(torch_mismatch("torchvision"))


def installed_version(package: str) -> str | None:
    """Version of an installed package without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _requirements(package: str) -> list[str]:
    try:
        return metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return []


def explain_missing_library(package: str, error: Exception) -> None:
    """Turn the loader's error about a system library (libGL, libEGL...) into a message.

    Raises:
        EnvironmentProblem: ``error`` is one; otherwise nothing happens.
    """
    library, _, rest = str(error).partition(":")
    if "cannot open shared object" in rest:
        title = "OpenCV" if package == "cv2" else "MediaPipe"
        text = _SYSTEM_LIBRARIES.format(package=title, lib=library)
        raise EnvironmentProblem(text) from error


def import_cv2() -> ModuleType:
    """OpenCV, or an :class:`EnvironmentProblem` that names the missing system library."""
    return require("cv2", why="Image reading and drawing")


def import_av() -> ModuleType:
    """PyAV without its log messages.

    Its log callback needs Python's lock, which PyAV holds while it ends decoder threads: a thread
    that logs then hangs the process. PyAV logs nothing by default, but torchvision up to 0.24
    switches it on when it is imported.
    """
    av = require("av", why="Reading and writing video and audio")
    av.logging.set_level(None)
    return av
