"""Processors, installed versions and git state."""

from __future__ import annotations

import os
import platform
import subprocess
from typing import Any

from talkingface.utils.env import installed_version
from talkingface.utils.paths import REPOSITORY

# A wrapper such as ``timeout`` or a job system forwards a Ctrl-C that the terminal already sent to
# the whole process group. A second signal within this time is such a copy, not a second Ctrl-C.
SIGNAL_ECHO_SECONDS = 1.0


def cpu_count() -> int:
    """Number of processors that this process may use (respects its CPU affinity)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def process_workers(setting: int | str, jobs: int) -> int:
    """Number of preprocessing processes for a setting (``auto`` or a number)."""
    wanted = cpu_count() if setting == "auto" else int(setting)
    return max(1, min(wanted, jobs))


def versions() -> dict[str, str]:
    """Versions of Python, the platform and packages, which may change results."""
    packages = (
        "torch torchvision numpy scipy librosa mediapipe torchaudio opencv-contrib-python av "
        "lightning-fabric"
    )
    numbers = {"python": platform.python_version(), "platform": platform.platform()}
    numbers |= {name: installed_version(name) for name in packages.split()}
    return {name: number for name, number in numbers.items() if number is not None}


def git_state() -> dict[str, Any]:
    """Commit and dirty flag of the toolkit, empty outside a git checkout."""
    if REPOSITORY is None:
        return {}

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True, timeout=5
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return {"commit": commit, "dirty": bool(git("status", "--porcelain"))} if commit else {}
