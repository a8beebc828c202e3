"""Commands in processes forked from one that has loaded PyTorch, which takes seconds each time.

Such a process has imported packages of others only, so that a command still loads and runs all of
our code. The caller starts this file once; each line of JSON that it sends is one command.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import runpy
import select
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGES = (
    *("torch", "torch.utils.data", "torch.utils.tensorboard", "torchvision", "lightning_fabric"),
    *("scipy.signal", "scipy.ndimage", "scipy.io", "scipy.special", "cv2", "av", "h5py"),
    *("mediapipe", "mediapipe.tasks.python.vision", "pydantic", "yaml", "tqdm", "safetensors"),
)


class ForkedCommands:
    """The client; one process for all commands of a test worker."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None

    def run(
        self,
        argv: list[str],
        env: dict[str, str],
        cwd: Path,
        timeout: float,
        kill: Callable[[], bool] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """``python argv``: a script and its arguments.

        Args:
            kill: called often; when it returns True, SIGKILL is sent to the process and its
                children, and the status is -9.
        """
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
            atexit.register(self._process.kill)
        with tempfile.TemporaryDirectory() as folder:
            texts = [Path(folder) / "stdout", Path(folder) / "stderr"]
            job = {"argv": argv, "env": env, "cwd": str(cwd), "texts": [str(t) for t in texts]}
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
            pid = json.loads(self._process.stdout.readline())
            end, done, late = time.monotonic() + timeout, False, False
            while not (done or late):
                late = time.monotonic() > end
                if late or (kill and kill()):
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(pid, 9)
                    break
                wait = 0.002 if kill else timeout
                done = bool(select.select([self._process.stdout], [], [], wait)[0])
            status = json.loads(self._process.stdout.readline())
            out, err = (text.read_text("utf-8") for text in texts)
        command = [sys.executable, *argv]
        if late:
            raise subprocess.TimeoutExpired(command, timeout, out, err)
        return subprocess.CompletedProcess(command, status, out, err)


def serve() -> None:
    for name in PACKAGES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    answers = os.dup(1)  # nothing that is printed comes between the answers
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        job = json.loads(line)
        for name in job["texts"]:
            Path(name).touch()
        pid = os.fork()
        if not pid:
            os.setpgid(0, 0)
            os.close(answers)
            _run(job)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpgid(pid, pid)  # so that it can be killed with its children from now on
        os.write(answers, f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _run(job: dict[str, Any]) -> None:
    status = 1
    for number, name in zip((0, 1, 2), (os.devnull, *job["texts"]), strict=True):
        file = os.open(name, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(
        2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )
    try:
        os.environ.clear()
        os.environ.update(job["env"])
        os.chdir(job["cwd"])
        sys.argv = list(job["argv"])
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # what the interpreter does at its end
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
