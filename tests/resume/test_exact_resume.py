"""A run that is stopped and resumed ends exactly where an undisturbed one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from trainkit import TOY_PLUGIN, differences, fit, hyperlips_config, toy_config

from talkingface.errors import Interrupted, WeightsError
from talkingface.model.weights import load_checkpoint
from talkingface.trainer.trainer import Trainer

REPOSITORY = Path(__file__).resolve().parents[2]
# Parts of a checkpoint that decide how training goes on; times and versions may differ.
DECISIVE = (
    "state_dict",
    "ema_state_dict",
    "ema_updates",
    "optimizers",
    "schedule",
    "other_parameter",
    "rng",
)


def decisive(path: Path) -> dict:
    state = load_checkpoint(path)
    kept = {key: state[key] for key in DECISIVE}
    progress = {k: v for k, v in state["progress"].items() if k != "seconds"}
    return {**kept, "progress": progress}


class StoppedTrainer(Trainer):
    """Gets a SIGTERM while it works on a given step, as from a job scheduler."""

    stop_at = 0

    def train_step(self, batch, boundary=True, group=None):
        done = super().train_step(batch, boundary, group)
        if boundary and self.progress.global_step + 1 == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return done


def stopped_at(step: int) -> type[Trainer]:
    return type("StoppedTrainer", (StoppedTrainer,), {"stop_at": step})


# 21 items in batches of 4: an epoch has 5 batches, so 5 and 10 are ends of epochs.
@pytest.mark.parametrize("step", [1, 3, 5, 10, 13])
def test_a_terminated_training_resumes_bit_identically(tmp_path, step):
    cfg = toy_config(epochs=3, optim__scheduler="cosine", optim__ema_decay=0.9)
    fit(cfg, tmp_path / "whole")
    with pytest.raises(Interrupted, match=f"stopped at step {step}"):
        fit(cfg, tmp_path / "parts", kind=stopped_at(step))
    fit(cfg, tmp_path / "parts", resume=tmp_path / "parts" / "last.ckpt")
    for name in ("last.ckpt", "best.ckpt"):
        assert (
            differences(decisive(tmp_path / "whole" / name), decisive(tmp_path / "parts" / name))
            == []
        )


@pytest.mark.parametrize(
    "settings",
    [
        {"optim__accumulate": 2},
        {"optim__accumulate": 3, "optim__ema_decay": 0.9},
        {"num_workers": 2, "optim__ema_decay": 0.9},
        {"optim__scheduler": "plateau", "optim__patience": 0},
        {"learner": "sgd", "optim__phases": {"discriminator": {"every": 2}}},
    ],
    ids=["accumulate 2", "accumulate 3 with EMA", "loader workers", "plateau", "SGD, every 2"],
)
def test_the_resume_is_exact_with(tmp_path, settings):
    cfg = toy_config(epochs=4, **settings)
    fit(cfg, tmp_path / "whole")
    with pytest.raises(Interrupted):
        fit(cfg, tmp_path / "parts", kind=stopped_at(4))
    fit(cfg, tmp_path / "parts", resume=tmp_path / "parts" / "last.ckpt")
    ends = [decisive(tmp_path / run / "last.ckpt") for run in ("whole", "parts")]
    assert differences(*ends) == []


def test_the_number_of_loader_workers_changes_nothing(tmp_path):
    for workers in (0, 2):
        fit(toy_config(num_workers=workers), tmp_path / str(workers))
    assert differences(*(decisive(tmp_path / w / "last.ckpt") for w in "02")) == []


def test_max_steps_in_two_parts_equals_one(tmp_path):
    for steps, resume in ((7, None), (12, tmp_path / "parts" / "last.ckpt")):
        fit(toy_config(max_steps=steps), tmp_path / "parts", resume=resume)
    fit(toy_config(max_steps=12), tmp_path / "whole")
    whole, parts = (decisive(tmp_path / run / "last.ckpt") for run in ("whole", "parts"))
    for key in ("state_dict", "optimizers", "rng"):
        assert differences(whole[key], parts[key]) == []


def test_a_different_seed_gives_different_weights(tmp_path):
    """Guards the comparisons above: they can fail."""
    for seed in (1, 2):
        fit(toy_config(seed=seed, max_steps=2), tmp_path / str(seed))
    assert differences(*(decisive(tmp_path / s / "last.ckpt")["state_dict"] for s in "12"))


def test_hyperlips_resumes_bit_identically_in_the_middle_of_an_epoch(tiny_synthetic, tmp_path):
    cfg = hyperlips_config(tiny_synthetic, max_steps=4, optim__ema_decay=0.9, optim__clip_grad=1.0)
    fit(cfg, tmp_path / "whole")
    with pytest.raises(Interrupted):
        fit(cfg, tmp_path / "parts", kind=stopped_at(3))
    assert load_checkpoint(tmp_path / "parts" / "last.ckpt")["progress"]["batch_in_epoch"] == 3
    fit(cfg, tmp_path / "parts", resume=tmp_path / "parts" / "last.ckpt")
    ends = [decisive(tmp_path / run / "last.ckpt") for run in ("whole", "parts")]
    assert differences(*ends) == []


def test_a_checkpoint_of_another_model_is_refused(tiny_synthetic, tmp_path):
    fit(toy_config(max_steps=1), tmp_path)
    with pytest.raises(WeightsError, match="belongs to ToyGan, not to HyperLipsBase"):
        fit(hyperlips_config(tiny_synthetic), resume=tmp_path / "last.ckpt")


# -- real processes --------------------------------------------------------------------------------


@dataclass
class Story:
    """One run that was killed, terminated and interrupted, and one that was left alone."""

    codes: dict[str, int]
    steps: dict[str, int]
    output: dict[str, str]
    disturbed: Path
    undisturbed: Path


def _write_lists(root: Path) -> None:
    for split in ("train", "val", "test"):
        path = root / "dataset" / "Synthetic" / "filelist" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not_read\n")


def _start(root: Path, delay: float = 0.0) -> subprocess.Popen:
    return subprocess.Popen(
        [
            sys.executable,
            str(REPOSITORY / "run_talkingface.py"),
            *("--model=ToyGan", "--dataset=Synthetic", f"--plugin_path={TOY_PLUGIN}"),
            *("--stages=train", "--num_workers=2", "--epochs=16", "--optim.scheduler=cosine"),
            *("--optim.ema_decay=0.9", "--save_minutes=0.0001", "--resume=auto"),
        ],
        env={**os.environ, "TALKINGFACE_ROOT": str(root), "TOY_DELAY": str(delay)},
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # nohup ignores SIGHUP, and a training that is started with it does, too.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )


def _step_of(root: Path) -> int:
    found = list(root.glob("saved/*/*/*/checkpoints/last.ckpt"))
    return load_checkpoint(found[0])["global_step"] if found else 0


def _wait(process: subprocess.Popen, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "the run did not get on"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    roots = {name: tmp_path_factory.mktemp(name) for name in ("disturbed", "undisturbed")}
    for root in roots.values():
        _write_lists(root)
    codes, steps, output = {}, {}, {}
    quiet = _start(roots["undisturbed"])
    # Slow items, so that there is time to disturb; they do not change the data.
    for number in (signal.SIGKILL, signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        root = roots["disturbed"]
        before = _step_of(root)
        process = _start(root, delay=0.05)
        _wait(process, lambda r=root, b=before: _step_of(r) >= b + 3)
        os.killpg(process.pid, number)  # all processes of the run, as a terminal or cluster does
        output[number.name], _ = process.communicate(timeout=60)
        codes[number.name] = process.returncode
        steps[number.name] = _step_of(root)
    last = _start(roots["disturbed"], delay=0.25)
    _wait(last, lambda: _step_of(roots["disturbed"]) > steps["SIGINT"])
    second = _start(roots["disturbed"])
    output["second"], _ = second.communicate(timeout=60)
    codes["second"] = second.returncode
    output["last"], _ = last.communicate(timeout=120)
    output["undisturbed"], _ = quiet.communicate(timeout=60)
    codes.update(last=last.returncode, undisturbed=quiet.returncode)
    assert codes["last"] == codes["undisturbed"] == 0, output
    runs = {name: list(root.glob("saved/ToyGan/Synthetic/*/")) for name, root in roots.items()}
    assert [len(found) for found in runs.values()] == [1, 1], runs
    return Story(codes, steps, output, runs["disturbed"][0], runs["undisturbed"][0])


def test_other_signals_than_sigkill_save_the_state_and_say_so(story):
    # SIGHUP is that of a closed terminal.
    for name, code in (("SIGHUP", 129), ("SIGTERM", 143), ("SIGINT", 130)):
        assert story.codes[name] == code, story.output[name]
        assert "--resume=auto" in story.output[name]
        assert "Traceback" not in story.output[name]
        assert story.output[name].count("finishing this step") == 1


def test_every_stop_left_a_checkpoint_that_was_further_on(story):
    steps = [story.steps[name] for name in ("SIGKILL", "SIGHUP", "SIGTERM", "SIGINT")]
    assert steps == sorted(set(steps)) and 3 <= steps[0] and steps[-1] < 80


def test_the_disturbed_run_ends_with_the_weights_of_the_undisturbed_one(story):
    for name in ("last.ckpt", "best.ckpt"):
        states = [
            decisive(run / "checkpoints" / name) for run in (story.disturbed, story.undisturbed)
        ]
        assert differences(*states) == []


def test_a_second_training_of_one_run_is_refused_while_the_first_goes_on(story):
    assert story.codes["second"] == 2
    assert "is being trained by another process" in story.output["second"]


def test_no_unfinished_file_is_left_behind(story):
    names = sorted(p.name for p in (story.disturbed / "checkpoints").iterdir())
    assert names == ["best.ckpt", "clock.json", "last.ckpt", "previous.ckpt"]


def test_every_file_of_a_run_opens_without_running_code(story):
    files = [p for p in story.disturbed.rglob("*") if p.is_file()]
    checkpoints = [p for p in files if p.suffix == ".ckpt" and not p.name.startswith(".")]
    assert len(checkpoints) == 3
    for path in checkpoints:
        state = torch.load(path, weights_only=True)
        assert state["format"] == "talkingface.ckpt/1"
    from safetensors.torch import load_file

    weights = load_file(str(story.disturbed / "weights.safetensors"))
    best = load_checkpoint(story.disturbed / "checkpoints" / "best.ckpt")
    assert differences(weights, best["ema_state_dict"]["generator"]) == []


def test_prepared_arrays_open_without_pickle(tiny_synthetic):
    arrays = [p for p in (tiny_synthetic / "dataset").rglob("*") if p.suffix in (".npz", ".npy")]
    assert arrays
    for path in arrays:
        loaded = np.load(path, allow_pickle=False)
        for value in [loaded] if path.suffix == ".npy" else [loaded[k] for k in loaded.files]:
            assert value.dtype != object
