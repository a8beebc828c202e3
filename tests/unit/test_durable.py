"""Files survive kills, power cuts and damage, and nothing of a living process is removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from talkingface.errors import ConfigError, EnvironmentProblem, WeightsError
from talkingface.model.weights import load_checkpoint
from talkingface.trainer.checkpoint import export_weights, save_checkpoint
from talkingface.trainer.loggers import RunLogger
from talkingface.utils import paths
from talkingface.utils.locks import file_lock
from talkingface.utils.paths import atomic, is_temporary, remove_stale
from talkingface.utils.weights import read_weights


def state(value: float = 1.0) -> dict:
    return {"state_dict": {"net.w": torch.full((3, 4), value)}, "names": ["a", "b"]}


def test_a_lock_that_is_a_link_leaves_its_target_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    (tmp_path / ".lock").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(EnvironmentProblem, match="symbolic link"), file_lock(tmp_path / ".lock"):
        pass
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_a_lock_keeps_the_content_of_its_file(tmp_path):
    (tmp_path / ".lock").write_text("words")
    with file_lock(tmp_path / ".lock"):
        pass
    assert (tmp_path / ".lock").read_text() == "words"


def test_a_busy_lock_is_refused_and_free_after_the_process(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from talkingface.utils.locks import file_lock\n"
        "with file_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / ".lock")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match="someone"), file_lock(tmp_path / ".lock", busy="someone"):
        pass
    process.kill()
    process.wait()
    with file_lock(tmp_path / ".lock", busy="someone"):
        pass


def test_a_disk_without_locks_is_told_and_used(tmp_path, monkeypatch, caplog):
    import fcntl

    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with file_lock(tmp_path / ".lock"):
        pass
    assert "no file locks" in caplog.text


def test_only_files_of_dead_writers_are_removed(tmp_path, monkeypatch):
    def left_by(process: int, machine: tuple[str, str] | None = None) -> None:
        host, boot = machine or paths._machine()
        (tmp_path / f"a.tmp-{host}{boot}-{process}-0123abcd.json").touch()

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left_by(dead.pid)
    left_by(os.getpid())
    left_by(os.getpid(), ("0" * 8, "1" * 8))  # another machine
    left_by(os.getpid(), (paths._machine()[0], "1" * 8))  # before this machine was started again
    (tmp_path / f"b.tmp-{dead.pid}-0123abcd.json").touch()  # of an earlier version
    (tmp_path / "c.tmp-mine.json").touch()
    remove_stale(tmp_path)
    host, boot = paths._machine()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([
        f"a.tmp-{host}{boot}-{os.getpid()}-0123abcd.json",
        f"a.tmp-{'0' * 8}{'1' * 8}-{os.getpid()}-0123abcd.json",
        "c.tmp-mine.json",
    ])  # fmt: skip
    old = tmp_path / f"a.tmp-{'0' * 8}{'1' * 8}-{os.getpid()}-0123abcd.json"
    os.utime(old, (0, 0))
    remove_stale(tmp_path)
    assert not old.exists()


def test_a_temporary_file_is_known_by_its_name(tmp_path):
    with atomic(tmp_path / ("long" * 60 + ".json")[-250:]) as temporary:
        assert is_temporary(temporary) and not paths.is_stale(temporary)
        temporary.write_text("x")


def test_the_folder_is_synchronised_after_the_rename(tmp_path, monkeypatch):
    calls = []
    real_replace, real_fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), real_replace(a, b)))
    monkeypatch.setattr(os, "fsync", lambda f: (calls.append(
        "folder" if os.path.isdir(f"/proc/self/fd/{f}") else "file"), real_fsync(f)))  # fmt: skip
    paths.write_text(tmp_path / "a.txt", "x")
    assert calls == ["file", "replace", "folder"]


@pytest.mark.parametrize("kind", ["same", "symbolic", "hard", "spelling"])
def test_an_output_that_is_an_input_is_refused(tmp_path, kind):
    used, output = tmp_path / "voice.wav", tmp_path / "out.mp4"
    used.write_text("sound")
    if kind == "symbolic":
        output.symlink_to(used)
    elif kind == "hard":
        os.link(used, output)
    else:
        output = used if kind == "same" else tmp_path / "." / ".." / tmp_path.name / "voice.wav"
    with pytest.raises(ConfigError, match="would replace"):
        paths.refuse_to_replace(output, [None, tmp_path / "missing", used])
    paths.refuse_to_replace(tmp_path / "new.mp4", [used])


# -- checkpoints ---------------------------------------------------------------------------------


def test_equal_states_give_equal_bytes(tmp_path):
    names = ["".join(["cl", "ip"]), "clip"]  # equal strings, two objects or one
    for index, folder in enumerate(("one", "two")):
        content = {**state(), "names": [names[0], names[index]]}
        save_checkpoint(tmp_path / folder / f"{folder}.ckpt", content)
    one, two = tmp_path / "one/one.ckpt", tmp_path / "two/two.ckpt"
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("where", [0.2, 0.5, 0.95])
@pytest.mark.parametrize("kind", ["flip", "cut"])
def test_a_damaged_checkpoint_names_the_one_before_it(tmp_path, kind, where):
    path = tmp_path / "last.ckpt"
    for value in (1.0, 2.0):
        save_checkpoint(path, {"state_dict": {"net.w": torch.full((300, 400), value)}},
                        keep=tmp_path / "previous.ckpt")  # fmt: skip
    data = bytearray(path.read_bytes())
    if kind == "cut":
        data = data[: int(where * len(data))]
    else:
        data[int(where * len(data))] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="damaged.*intact one beside it is .*previous.ckpt"):
        load_checkpoint(path)
    previous = load_checkpoint(tmp_path / "previous.ckpt")
    assert previous["state_dict"]["net.w"][0, 0] == 1


def test_damaged_exported_weights_are_refused(tmp_path):
    path = export_weights(tmp_path, {"w": torch.arange(1000.0), "n": torch.tensor(3)}, {})
    assert read_weights(path)["n"] == 3
    data = bytearray(path.read_bytes())
    data[-100] ^= 4
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="does not fit its checksum"):
        read_weights(path)


def test_a_resumed_run_does_not_repeat_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = "".join(json.dumps({"step": step}) + "\n" for step in (10, 20, 30))
    path.write_text(lines + '{"step": 4')  # killed while it wrote
    logger = RunLogger(None, path)
    logger.rewind(20)
    logger.record({"step": 30})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [10, 20, 30]
