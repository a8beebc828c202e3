"""Two CPU processes train one model: equal weights, one run folder, nobody waits for ever."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import SMALL, dataset_for, run_command
from trainkit import TOY_PLUGIN, differences

from talkingface.data.dataset.base import ResumableSampler
from talkingface.model.weights import load_checkpoint

SCRIPT = Path(__file__).resolve().parents[2] / "run_talkingface.py"
RELAUNCHED = [sys.executable, str(SCRIPT), "--devices=2"]
TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29617"),
    str(SCRIPT),
]


@dataclass
class TwoProcessRun:
    """A finished run and what the two processes left."""

    root: Path
    output: str
    code: int

    @property
    def folders(self) -> list[Path]:
        return sorted(self.root.glob("saved/ToyGan/Synthetic/*/"))

    def weights_of(self, rank: int) -> dict[str, torch.Tensor]:
        return torch.load(self.root / f"rank{rank}.pt", weights_only=True)


def start(root: Path, program: list[str], *args: str, delay: float = 0.0) -> subprocess.Popen:
    for split in ("train", "val", "test"):
        path = root / "dataset" / "Synthetic" / "filelist" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not_read\n")
    return subprocess.Popen(
        [
            *program,
            *("--model=ToyGan", "--dataset=Synthetic", f"--plugin_path={TOY_PLUGIN}"),
            *("--stages=train,evaluate", "--device=cpu", "--batch_size=2"),
            *(f"--toy.weights_folder={root}", "--optim.ema_decay=0.9", *args),
        ],
        env={
            **os.environ,
            "TALKINGFACE_ROOT": str(root),
            "TOY_DELAY": str(delay),
            "OMP_NUM_THREADS": "1",
        },
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen, root: Path) -> TwoProcessRun:
    try:
        output, _ = process.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"the two processes wait for each other:\n{output}")
    return TwoProcessRun(root, output, process.returncode)


@pytest.fixture(scope="module", params=["relaunched", "torchrun"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TwoProcessRun:
    root = tmp_path_factory.mktemp(request.param)
    program = TORCHRUN if request.param == "torchrun" else RELAUNCHED
    done = finish(start(root, program, "--epochs=2"), root)
    assert done.code == 0, done.output
    assert "still open" not in done.output  # its threads could abort a process that has finished
    return done


def test_both_processes_hold_identical_weights(run):
    first, second = run.weights_of(0), run.weights_of(1)
    assert "1.running_mean" in first  # BatchNorm statistics are compared too
    assert differences(first, second) == []


def test_there_is_one_run_folder_with_one_log(run):
    assert len(run.folders) == 1
    lines = (run.folders[0] / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    assert len(list(run.root.glob("log_tensorboard/ToyGan/*/events*"))) == 1
    assert run.output.count("training ended") == 1


def test_the_saved_weights_are_those_of_the_processes(run):
    state = load_checkpoint(run.folders[0] / "checkpoints" / "last.ckpt")
    saved = {
        key.removeprefix("generator."): value
        for key, value in state["state_dict"].items()
        if key.startswith("generator.")
    }
    assert differences(saved, run.weights_of(1)) == []
    assert state["global_step"] == 10  # 21 items: 11 per process in batches of 2, the rest dropped
    assert len(state["rng"]) == 2


def test_the_evaluation_runs_once(run):
    metrics = list(run.root.glob("results/ToyGan/Synthetic/*/metrics.json"))
    assert [path.parent.name for path in metrics] == [run.folders[0].name]


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_and_the_run_goes_on(tmp_path):
    process = start(tmp_path, RELAUNCHED, "--epochs=40", "--save_minutes=0.0001", delay=0.1)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("saved/*/*/*/checkpoints/last.ckpt")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    stopped = finish(process, tmp_path)
    assert stopped.code == 128 + signal.SIGTERM, stopped.output
    assert "still open" not in stopped.output
    step = load_checkpoint(stopped.folders[0] / "checkpoints" / "last.ckpt")["global_step"]
    args = ("--epochs=40", "--save_minutes=0.0001", "--resume=auto", f"--max_steps={step + 2}")
    resumed = finish(start(tmp_path, RELAUNCHED, *args), tmp_path)
    assert resumed.code == 0, resumed.output
    assert len(resumed.folders) == 1
    assert differences(resumed.weights_of(0), resumed.weights_of(1)) == []


def test_the_processes_share_the_items_of_an_epoch_without_overlap():
    parts = []
    for rank in range(3):
        sampler = ResumableSampler(12, seed=5, shuffle=True, rank=rank, world=3)
        sampler.set_position(4)
        parts.append({index for _, index in sampler})
    assert [len(part) for part in parts] == [4, 4, 4]
    assert set.union(*parts) == set(range(12))


def test_every_process_takes_the_same_number_of_items_when_they_do_not_divide():
    counts = {
        len(list(ResumableSampler(7, seed=5, shuffle=True, rank=r, world=3))) for r in (0, 1, 2)
    }
    assert counts == {3}


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        "SyncNet", "SyncExpert", "HyperLipsBase", "APC", "Audio2Headpose", "Feature2Face",
        "MODAFaCo", "MODARenderer", "HeadGAN", "Audio2Exp", "A2PGuideVQ", "A2PLip",
    ],
)  # fmt: skip
def test_two_processes_train_each_kind_of_model(model, tmp_path):
    """Also those whose phases use some of the parameters, or several networks."""
    data = dataset_for(model)
    args = [f"--dataset={data}", *(SMALL if data == "Synthetic" else SMALL[:1]), "--device=cpu"]
    args += ["--stages=preprocess,train", "--max_steps=4", "--num_workers=0"]
    if model == "Audio2Headpose":  # its speech features
        assert run_command(["--model=APC", *args], tmp_path, timeout=600).returncode == 0
    done = run_command([f"--model={model}", *args, "--devices=2"], tmp_path, timeout=600)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert done.stdout.count("training ended: reached 4 steps") == 1, done.stdout[-2000:]
    saved = next(tmp_path.glob(f"saved/{model}/*/*/checkpoints/last.ckpt"))
    assert all(
        bool(torch.isfinite(value).all())
        for value in load_checkpoint(saved)["state_dict"].values()
        if value.is_floating_point()
    )
