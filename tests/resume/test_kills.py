"""Runs that are killed at many places and repeated end with the bytes of an undisturbed run.

    pytest -m slow tests/resume/test_kills.py

SIGKILL goes to the process and all its children: after different times, and as soon as a certain
file appears, e.g. the unfinished file of a checkpoint. Each attempt goes on from the state of the
one before, so that together they pass through the whole command.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import COMMANDS, FORKS, REPOSITORY, SCRIPT, SMALL, dataset_for

sys.path.insert(0, str(REPOSITORY / "tools"))
import behaviour

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FORKS, reason="needs a system with fork"),
]
TRAIN = ("--max_steps=30", "--save_minutes=0.0001", "--num_workers=2", "--process_workers=2")
# What appears while a run writes: lists, markers, checkpoints, results; patterns below the root.
UNFINISHED = (
    "dataset/*/filelist/*",
    "dataset/*/preprocessed_data/**/*tmp-*",
    "saved/*/*/*/checkpoints/*tmp-*",
    "saved/*/*/*/checkpoints/last.ckpt",
    "results/*/*/*/videos",
    "results/*/*/*/*tmp-*",
)


@dataclass(frozen=True)
class Scenario:
    """A command that is killed ``moments`` times, and once for each of the ``files``."""

    model: str
    moments: int
    files: tuple[str, ...] = ()
    more: tuple[str, ...] = ()

    def arguments(self, root: Path) -> list[str]:
        data = dataset_for(self.model)
        size = SMALL if data == "Synthetic" else SMALL[:1]
        words = [f"--model={self.model}", f"--dataset={data}", *size, "--device=cpu"]
        return [*words, *TRAIN, *(word.format(root=root) for word in self.more), "--resume=auto"]


SCENARIOS = {
    "HyperLipsBase": Scenario("HyperLipsBase", 12, UNFINISHED),
    "HyperLipsHR": Scenario(
        "HyperLipsHR", 9, UNFINISHED[2:4], ("--weights.base={root}/base.ckpt",)
    ),
    "Live Speech Portraits": Scenario("Feature2Face", 8, UNFINISHED[2:5]),
    "MODA": Scenario("MODARenderer", 8, UNFINISHED[2:3]),
    "HeadGAN": Scenario("HeadGAN", 8, UNFINISHED[2:4]),
    "audio2photoreal": Scenario("A2PGuideVQ", 8, UNFINISHED[2:3]),
    "two processes": Scenario("SyncNet", 5, UNFINISHED[2:4], ("--devices=2",)),
}


def command(
    args: list[str], root: Path, kill: Callable[[], bool] | None = None
) -> tuple[int, str, float]:
    """Status, output and seconds of one command."""
    env = {**os.environ, "TALKINGFACE_ROOT": str(root), "PYTHONIOENCODING": "utf-8"}
    env.pop("TALKINGFACE_PLUGINS", None)
    began = time.monotonic()
    done = COMMANDS.run([str(SCRIPT), *args], env, root, 900, kill)
    return done.returncode, done.stdout + done.stderr, time.monotonic() - began


def after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def on_file(root: Path, pattern: str, seconds: float) -> Callable[[], bool]:
    """Whether a file of the pattern appeared that was not there before, or the time is over."""
    known, late = set(root.glob(pattern)), after(seconds)
    return lambda: late() or any(path not in known for path in root.glob(pattern))


def triggers(scenario: Scenario, root: Path, seconds: float) -> Iterator[Callable[[], bool]]:
    # Each attempt goes on from the last state: early moments, so that all find work to kill.
    moments = [max(2.0, seconds * (0.02 + 0.12 * (n * 0.618 % 1))) for n in range(scenario.moments)]
    files = list(scenario.files)
    while moments or files:
        for _ in range(2):
            if moments:
                yield after(moments.pop(0))
        if files:
            yield on_file(root, files.pop(0), 0.3 * seconds)


def disturb(
    args: list[str], root: Path, kills: Iterator[Callable[[], bool]], ended: Callable[[], bool]
) -> int:
    """Repeat a command that is killed each time, then once more to its end; the number of kills."""
    killed = 0
    for kill in kills:
        status, text, _ = command(args, root, kill)
        assert status in (0, -9), text[-3000:]
        assert "Traceback" not in text, text[-3000:]
        killed += status == -9
        if ended():
            break
    status, text, _ = command(args, root)
    assert status == 0, text[-3000:]
    return killed


def state_of(root: Path) -> dict[str, Any]:
    """Hashes of prepared files, weights and results; the unfinished files that are left."""
    state: dict[str, Any] = {
        f"files of {folder.name}": behaviour.files(folder) for folder in root.glob("dataset/*")
    }
    for last in sorted(root.glob("saved/*/*/*/checkpoints/last.ckpt")):
        place = last.parent.parent.relative_to(root / "saved")
        assert str(place.parent) not in state, f"two runs: {list(root.glob('saved/*/*/*'))}"
        state[str(place.parent)] = behaviour.record_run(root, place)
    state["unfinished"] = [str(p.relative_to(root)) for p in root.rglob("*tmp-*")]
    return state


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A trained HyperLipsBase, which HyperLipsHR needs, with its root."""
    root = tmp_path_factory.mktemp("base")
    status, text, _ = command(SCENARIOS["HyperLipsBase"].arguments(root), root)
    assert status == 0, text[-3000:]
    return root


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_killed_and_repeated_command_ends_like_an_undisturbed_one(name, base, tmp_path):
    scenario = SCENARIOS[name]
    roots = [tmp_path / "quiet", tmp_path / "killed"]
    for root in roots:
        root.mkdir()
        checkpoint = next(base.glob("saved/HyperLipsBase/*/*/checkpoints/best.ckpt"))
        shutil.copy(checkpoint, root / "base.ckpt")
    quiet, killed = roots
    status, text, seconds = command(scenario.arguments(quiet), quiet)
    assert status == 0, text[-3000:]
    count = disturb(
        scenario.arguments(killed), killed, triggers(scenario, killed, seconds),
        lambda: bool(list(killed.glob("results/*/*/*/metrics.json"))),
    )  # fmt: skip
    print(f"{name}: {count} kills in runs of {seconds:.0f} s", flush=True)
    assert count >= 0.5 * (scenario.moments + len(scenario.files))
    assert behaviour.differences(state_of(quiet), state_of(killed)) == []


def test_a_killed_and_repeated_benchmark_has_the_same_tables(base, tmp_path):
    def arguments(name: str) -> list[str]:
        words = ["--benchmark", "--models=HyperLipsBase", "--datasets=Synthetic", "--device=cpu"]
        return [*words, f"--output={tmp_path / name}", *SMALL]

    def tables(name: str) -> dict[str, str]:
        folder = tmp_path / name
        paths = [path for path in sorted(folder.rglob("*.csv")) if "cost" not in path.name]
        texts = {p.name: p.read_text("utf-8").replace(str(folder), "<folder>") for p in paths}
        return texts | {"unfinished": str([p.name for p in folder.rglob("*tmp-*")])}

    status, text, seconds = command(arguments("quiet"), base)
    assert status == 0, text[-3000:]
    patterns = ("**/*.mp4", "**/*tmp-*", "**/*.json")
    killed = tmp_path / "killed"
    kills = (
        on_file(killed, patterns[k], 0.3 * seconds) if k < len(patterns) else after(0.04 * seconds)
        for k in range(len(patterns) + 8)
    )
    count = disturb(
        arguments("killed"), base, kills, (tmp_path / "killed/benchmark.html").exists
    )  # fmt: skip
    print(f"benchmark: {count} kills in runs of {seconds:.0f} s")
    assert count >= 6
    assert tables("quiet") == tables("killed")
