"""Facts about the machine and the installed versions."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from typing import Any

from talkingface.utils.paths import REPOSITORY

# A wrapper such as ``timeout`` or a job system passes on a Ctrl-C that the terminal already sent
# to the whole group. A repetition within this time is that echo, not a second wish.
SIGNAL_ECHO_SECONDS = 1.0


def cpu_count() -> int:
    """Processors that this process may use (respects containers' affinity)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def process_workers(setting: int | str, jobs: int) -> int:
    """Number of preprocessing processes for a setting (``auto`` or a number)."""
    wanted = cpu_count() if setting == "auto" else int(setting)
    return max(1, min(wanted or 1, jobs))


def versions() -> dict[str, str]:
    """Versions that may change results."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    names = (
        "torch",
        "torchvision",
        "numpy",
        "scipy",
        "librosa",
        "mediapipe",
        "torchaudio",
        "opencv-contrib-python",
        "av",
        "lightning-fabric",
    )
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any]:
    """Commit and dirty flag of the toolkit, empty outside a git checkout."""
    if REPOSITORY is None:
        return {}

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True, timeout=5
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    return {"commit": commit, "dirty": bool(ask("status", "--porcelain"))} if commit else {}
