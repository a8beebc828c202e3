"""Imports of optional and system-dependent packages, with errors that name the remedy."""

from __future__ import annotations

import importlib
import re
from importlib import metadata
from types import ModuleType

from talkingface.errors import EnvironmentProblem
from talkingface.utils.limits import require_resources
from talkingface.utils.paths import REPOSITORY

# Packages whose name on PyPI is not that of the module.
_DISTRIBUTIONS = {
    "cv2": "opencv-contrib-python", "espeakng_loader": "espeakng-loader", "hibari": "hibari-tts",
    "lightning_fabric": "lightning-fabric", "yaml": "PyYAML", "PIL": "pillow",
}  # fmt: skip
BUILT_FOR_TORCH = ("torchvision", "torchaudio")

_SYSTEM_LIBRARIES = (
    "{package} could not be loaded because the system library {lib} is missing.\n"
    "  Debian/Ubuntu:  apt-get install -y libgl1 libglib2.0-0 libegl1 libgles2\n"
    "  Fedora/RHEL:    dnf install -y mesa-libGL mesa-libEGL mesa-libGLES glib2\n"
    "  conda:          conda install -c conda-forge libgl libegl libgles"
)


def require(package: str, *, why: str, extra: str | None = None) -> ModuleType:
    """Import ``package``; the error explains what to install.

    Args:
        package: dotted module name.
        why: the feature that needs it, e.g. ``"the LPIPS metric"``.
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
        require_resources(error)
        if root in ("cv2", "mediapipe"):
            explain_missing_library(root, error)
        if root in BUILT_FOR_TORCH:
            raise EnvironmentProblem(f"{why} needs {root}: {torch_mismatch(root)}") from error
        if not isinstance(error, ImportError):
            raise
        raise EnvironmentProblem(
            f"{why} needs '{package}', which fails to load: {error}"
        ) from error


def how_to_install(package: str, extra: str | None = None) -> str:
    """The command that installs a missing package."""
    if REPOSITORY is None:
        return f"pip install {_DISTRIBUTIONS.get(package, package)}"
    return f"pip install -e '.[{extra}]'" if extra else "pip install -r requirements.txt"


def torch_mismatch(package: str) -> str:
    """Error text for a package that was compiled for another version of PyTorch."""
    version, torch = installed_version(package), installed_version("torch")
    remedy = "pip install -r requirements.txt"
    if REPOSITORY is None:
        remedy = "install torch, torchvision and torchaudio of one release"
    return f"{package} {version} was not built for torch {torch}: {remedy}"


def check_torchvision() -> None:
    """Check that torchvision was built for the installed torch; nothing is imported.

    torchvision's metadata require one version of torch. Those of torchaudio do not: 2.11.1 accepts
    any torch from 2.11 on, but loads with few of them. :func:`require` explains that when
    torchaudio is imported.

    Raises:
        EnvironmentProblem: the installed versions are incompatible.
    """
    torch = installed_version("torch")
    if torch is None or installed_version("torchvision") is None:
        return
    for text in metadata.requires("torchvision") or []:
        wanted = re.fullmatch(r"torch ?\(?==([^)]+)\)?", text)
        if wanted and wanted[1].split("+")[0] != torch.split("+")[0]:
            raise EnvironmentProblem(torch_mismatch("torchvision"))


def installed_version(package: str) -> str | None:
    """Version of a package, read without importing it; None when it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def explain_missing_library(package: str, error: Exception) -> None:
    """Explain an import error that is about a missing system library (libGL, libEGL...).

    Raises:
        EnvironmentProblem: ``error`` is about a system library; otherwise nothing happens.
    """
    library, _, rest = str(error).partition(":")
    if "cannot open shared object" in rest:
        title = "OpenCV" if package == "cv2" else "MediaPipe"
        raise EnvironmentProblem(_SYSTEM_LIBRARIES.format(package=title, lib=library)) from error


def import_cv2() -> ModuleType:
    """OpenCV, or an :class:`EnvironmentProblem` that names the missing system library."""
    return require("cv2", why="Image reading and drawing")


def import_av() -> ModuleType:
    """PyAV with its log messages switched off.

    PyAV's log callback needs the GIL, which PyAV holds while it joins decoder threads. A thread
    that logs at that moment deadlocks the process. PyAV logs nothing by default, but importing
    torchvision up to 0.24 switches its logging on.
    """
    av = require("av", why="Reading and writing video and audio")
    av.logging.set_level(None)
    return av
