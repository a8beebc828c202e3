"""Limits of the machine: files are not called damaged when it lacks memory or open files."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from talkingface.data.dataset import base
from talkingface.data.filelists import read_text
from talkingface.data.media.images import read_image
from talkingface.data.npz import read_npy, read_npz, save_npz
from talkingface.errors import DataError, EnvironmentProblem, ResourceProblem
from talkingface.utils.limits import message_of, resource_problem
from talkingface.utils.paths import read_json, write_json

resource = pytest.importorskip("resource")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.EMFILE, "Too many open files", "a.jpg"), "ulimit -n"),
        (OSError("Unable to open file (errno = 24, error message = 'Too many open files')"), "-n"),
        (RuntimeError("received 0 items of ancdata"), "num_workers=0"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (MemoryError(), "Out of memory: MemoryError"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "batch_size"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"), "allocate 9 GiB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "allocate memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "ulimit -v"),
        (OSError(errno.EIO, "Input/output error", "/mnt/a.jpg"), "drive of /mnt/a.jpg"),
    ],
)
def test_each_limit_has_a_message_with_a_remedy(error, text):
    assert text in str(resource_problem(error))


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file", "a"),
        ValueError("out of memory"),
        RuntimeError("size mismatch"),
        ImportError("cannot allocate memory in static TLS block"),
        ImportError("failed to map segment from shared object: Operation not permitted"),
        OSError(errno.EACCES, "Permission denied", "a"),
    ],
)
def test_other_errors_are_left_alone(error):
    assert resource_problem(error) is None


@pytest.fixture
def no_more_files():
    """Opening any file fails, as with all descriptors in use."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    opened = []

    def take() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(lowest, 3) + 2, limits[1]))
        try:
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass

    yield take
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for number in opened:
        os.close(number)


def test_good_files_are_not_called_damaged_when_too_many_are_open(tmp_path, no_more_files):
    import cv2

    picture, numbers, marker = tmp_path / "a.png", tmp_path / "a.npz", tmp_path / "a.json"
    cv2.imwrite(str(picture), np.zeros((8, 8, 3), np.uint8))
    save_npz(numbers, {"x": np.zeros(3)})
    write_json(marker, {"a": 1})
    read_image(picture), read_npz(numbers)
    no_more_files()
    for read, path in (
        (read_image, picture), (read_npz, numbers), (read_json, marker), (read_text, marker)
    ):  # fmt: skip
        with pytest.raises(EnvironmentProblem, match="Too many open files"):
            read(path)


def test_loader_processes_are_not_started_with_too_few_open_files(monkeypatch, caplog):
    monkeypatch.setattr(base, "file_limit", lambda: 64)
    assert not base._files_suffice(2)
    assert "may open 64 files, and 2 loader processes need 256" in caplog.text
    monkeypatch.setattr(base, "file_limit", lambda: None)
    assert base._files_suffice(8)


def test_the_command_raises_its_limit_of_open_files_and_ends_with_a_line_without_memory():
    code = (
        "import sys\nfrom talkingface import cli\nfrom talkingface.utils.limits import file_limit\n"
        "def fail(_):\n    print(file_limit())\n    raise MemoryError\n"
        "cli._dispatch = fail\nsys.exit(cli.main(['--list']))\n"
    )
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if limits[1] == resource.RLIM_INFINITY else min(4096, limits[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).resolve().parents[2],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1])),
        capture_output=True,
        text=True,
    )
    assert int(done.stdout) == wanted and resource.getrlimit(resource.RLIMIT_NOFILE) == limits
    assert done.returncode == 2
    assert done.stderr.startswith("error: Out of memory: MemoryError. Use a smaller --batch_size")
    assert "Traceback" not in done.stderr


def test_an_error_in_a_loader_process_is_one_line():
    from torch._utils import ExceptionWrapper

    try:
        raise EnvironmentProblem("Too many open files (limit 24): more")
    except EnvironmentProblem:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(EnvironmentProblem) as caught:
        wrapped.reraise()
    assert "Traceback" in str(caught.value)
    assert message_of(caught.value) == "Too many open files (limit 24): more"


def test_a_lack_of_open_files_ends_an_evaluation_and_is_no_value():
    from talkingface.evaluator.base_metric import Metric
    from talkingface.evaluator.evaluator import Evaluator, RowResult

    class Failing(Metric):
        uses_frames = False

        def finish(self, clip):
            raise OSError(errno.EMFILE, "Too many open files")

    metric = Failing.__new__(Failing)
    metric.name, metric.outputs, metric.reasons = "x", {"x": {}}, {}
    with pytest.raises(ResourceProblem):
        Evaluator._guarded(
            metric, type("Clip", (), {"name": "a"}), RowResult("r"), metric.finish, 0
        )


def test_a_huge_shape_in_a_header_is_a_damaged_file(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 3)))
    np.savez(tmp_path / "b.npz", x=np.zeros((3, 3)))
    huge = b"(3000000, 3000000), }"  # in place of the blanks behind the header, too
    for name, read in (("a.npy", read_npy), ("b.npz", read_npz)):
        data = (tmp_path / name).read_bytes()
        place = data.index(b"(3, 3), }")
        (tmp_path / name).write_bytes(data[:place] + huge + data[place + len(huge) :])
        with pytest.raises(DataError, match="is damaged"):
            read(tmp_path / name)
