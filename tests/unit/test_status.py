"""``talkingface status``, progress lines, and what a run prints at its end."""

from __future__ import annotations

import json
import math

import pytest
from conftest import REPOSITORY

from talkingface.cli import main
from talkingface.quick_start.status import runs
from talkingface.trainer.display import TrainingDisplay
from talkingface.utils import logs
from talkingface.utils.locks import file_lock
from talkingface.utils.logs import duration


@pytest.fixture
def saved(root):
    for name, finished in (("A-old", True), ("A-new", False)):
        folder = root / "saved" / "A" / "Synthetic" / name
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "provenance.json").write_text(json.dumps({"started": name[2:].zfill(4)[::-1]}))
        lines = [{"step": s, "epoch": s, "seconds": 60.0 * s, "best": s == 1, "loss": 1 / s}
                 for s in (1, 2)]  # fmt: skip
        text = "\n".join(map(json.dumps, lines)) + '\n{"step": 3, "epo'
        (folder / "metrics.jsonl").write_text(text)
        if finished:
            (folder / "summary.json").write_text(
                '{"valid_metric": "loss", "test_result": {"LMD": 2}}'
            )
    return root / "saved"


def test_status_tells_running_from_stopped_and_finished(saved, capsys):
    with file_lock(saved / "A" / "Synthetic" / "A-new" / ".lock"):
        found = {run["id"]: run for run in runs(saved)}
    assert found["A-new"]["state"] == "running" and found["A-old"]["state"] == "finished"
    assert found["A-old"]["best"] == {"step": 1, "loss": 1.0} and found["A-old"]["steps"] == 2
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert "stopped   A-new" in out and "2 steps, 2 min, best loss 1 at step 1" in out


def test_status_without_runs_says_so(root, capsys):
    assert main(["status"]) == 0
    assert "no run below" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (100, "2 min"), (4000, "67 min"), (4800, "80 min"),
     (6000, "1 h 40 min"), (400_000, "5 days")],
)  # fmt: skip
def test_durations_are_readable(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_the_line_of_a_training_knows_the_whole_run(clock):
    display = TrainingDisplay("A", False, 2, total=100, step=40)
    for _ in range(10):
        clock[0] += 2
        display.advance()
    assert display.seconds_left() == pytest.approx(100)  # 50 steps of 2 s
    display.deadline = clock[0] + 30  # --max_minutes
    assert display.seconds_left() == pytest.approx(30)
    display.losses({"loss_discriminator": 0.5, "real": 0.1, "loss_generator": 0.25, "l1": 0.125})
    assert display._losses == ", loss_generator 0.25, l1 0.12"
    display.best(1.5)
    assert display._best == ", best 1.50"
    unknown = TrainingDisplay("A", False, 2, total=None, step=0)
    assert math.isinf(unknown.seconds_left())


@pytest.mark.parametrize(("seconds", "planned"), [(2, False), (2, True), (0.5, False)])
def test_a_long_training_says_what_ten_minutes_give(clock, monkeypatch, caplog, seconds, planned):
    monkeypatch.setattr(logs.logging.getLogger("talkingface"), "propagate", True)
    monkeypatch.setattr(logs.logging.getLogger("talkingface"), "handlers", [])
    display = TrainingDisplay("A", True, 2, total=1000, step=0)
    with caplog.at_level("INFO", logger="talkingface"):
        for _ in range(30):
            clock[0] += seconds
            display.advance(planned)
    (line,) = [r.message for r in caplog.records if r.message.startswith("about")]
    told = seconds == 2 and not planned  # half an hour; that of 0.5 s takes eight minutes
    assert line.endswith("; --minutes=10 plans for 300 steps") is told, line


def test_without_a_terminal_a_line_comes_every_half_minute(clock, monkeypatch, caplog):
    monkeypatch.setattr(logs.sys.stderr, "isatty", lambda: False, raising=False)
    monkeypatch.setattr(logs.logging.getLogger("talkingface"), "propagate", True)
    monkeypatch.setattr(logs.logging.getLogger("talkingface"), "handlers", [])
    with caplog.at_level("INFO", logger="talkingface"):
        bar = logs.progress(total=100, desc="work", unit="clip")
        for _ in range(100):
            clock[0] += 1
            bar.update()
            bar.refresh()
        bar.close()
    lines = [record.message for record in caplog.records]
    assert 2 <= len(lines) <= 4 and lines[0].startswith("work: ") and "/100 clips" in lines[0]


def test_the_help_of_the_repository_and_the_commands_agree():
    from talkingface.commands import COMMANDS

    text = (REPOSITORY / "talkingface/help.txt").read_text("utf-8")
    titles = {line[2:] for line in text.splitlines() if line.startswith("# ")}
    assert titles == {"main", *COMMANDS}
