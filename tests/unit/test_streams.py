"""A closed pipe, a closed terminal or no terminal at all never ends a command."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import SCRIPT

CODE = """
import sys
from talkingface.utils.logs import progress, setup_logging
from talkingface.utils.streams import tolerant_streams
import logging
with tolerant_streams():
    setup_logging("info")
    for number in progress(range(2000), show=True):
        logging.getLogger("talkingface").info("line %d %s", number, "x" * 200)
        print("more", "y" * 100)
    open(sys.argv[1], "w").write("done")
"""


@pytest.mark.parametrize("stdout", ["pipe", "closed"])
def test_a_program_goes_on_when_nobody_reads_its_output(tmp_path, stdout):
    done = tmp_path / "done"
    program = f"{sys.executable} -c '{CODE}' {done}"
    shell = f"{program} 2>&1 | head -n 1" if stdout == "pipe" else f"{program} >&- 2>&-"
    result = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=120)
    assert done.read_text() == "done"
    assert "Traceback" not in result.stdout + result.stderr


def test_no_streams_are_no_error():
    shell = f"{sys.executable} {SCRIPT} --version >&- 2>&-; echo $?"
    result = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == "0"


def test_a_full_disk_ends_the_logs_and_not_the_training(tmp_path, monkeypatch, caplog):
    from talkingface.trainer.loggers import RunLogger

    logger = RunLogger(tmp_path / "tb", tmp_path / "no folder" / "metrics.jsonl")
    logger.record({"step": 1})
    assert "a line is lost" in caplog.text

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logger.writer, "add_scalar", full)
    logger.scalars({"a": 1.0}, 1, "train")
    logger.scalars({"a": 1.0}, 2, "train")
    logger.close()
    assert caplog.text.count("goes on without TensorBoard") == 1
