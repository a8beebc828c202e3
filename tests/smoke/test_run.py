"""The one command: model name and dataset name are enough, for every model."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ONE_OF_EACH, REPOSITORY, SCRIPT, SMALL, dataset_for, run_command

from talkingface.quick_start.rows import REAL, REPLACEMENTS, SHUFFLED
from talkingface.registry import Registry

REGISTRY = Registry()
MODELS = REGISTRY.names("model")
GENERATORS = [name for name in MODELS if REGISTRY.entry("model", name).target("pipeline")]
# A2P's motion is compared as motion, not as video.
WITH_VIDEO = [name for name in GENERATORS if name != "A2P"]


def chosen(names: list[str]) -> list:
    """A model of most families in the default tests; all together take half an hour."""
    return [n if n in ONE_OF_EACH else pytest.param(n, marks=pytest.mark.slow) for n in names]


every_model = pytest.mark.parametrize("model", chosen(MODELS))
# Models without a dataset class only join trained ones.
every_trained_model = pytest.mark.parametrize(
    "model", chosen([name for name in MODELS if REGISTRY.entry("model", name).target("dataset")])
)


def resolve(registry: Registry, model: str):
    return registry.resolve(registry.entry("model", model), "pipeline")


@pytest.fixture
def run(one_command, model):
    finished = one_command(model)
    assert finished.process.returncode == 0, finished.process.stderr[-3000:]
    return finished


@every_model
def test_one_command_prepares_trains_and_evaluates(run):
    text = run.process.stdout + run.process.stderr
    assert "clips usable" in text and ("training ended" in text or "joined from" in text)
    assert "Traceback" not in text


@every_model
def test_the_metrics_are_finite_numbers(run, model):
    metrics = json.loads((run.results / "metrics.json").read_text("utf-8"))
    assert metrics["model"] == model and metrics["split"] == "test"
    summary = json.loads((run.saved / "summary.json").read_text("utf-8"))
    values = summary["test_result"]
    assert sum(value is not None and math.isfinite(value) for value in values.values())
    # What is undefined after a training of seconds (or without a download) says why.
    reasons = {(u["row"], u["output"]) for u in metrics.get("undefined", [])}
    assert {(model, key) for key, value in values.items() if value is None} <= reasons


@pytest.mark.parametrize("model", chosen(GENERATORS))
def test_the_command_that_a_run_ends_with_works_as_printed(run, model, tmp_path):
    lines = run.process.stdout.splitlines()
    line = next(text for text in lines if text.startswith("try it:"))
    assert line.startswith("try it:      python run_talkingface.py --infer --model=")
    words = shlex.split(line)[4:]
    assert words.pop() == "--output=out.mp4"
    done = run_command([*words, f"--output={tmp_path / 'out.mp4'}"], run.root, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out.mp4").stat().st_size > 1000


@every_trained_model
def test_two_epochs_were_trained_and_each_was_validated(run):
    lines = [json.loads(line) for line in (run.saved / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) >= 2
    log = (run.saved / "train.log").read_text("utf-8")
    assert "(epoch 1" in log and "(epoch 2" in log


@every_model
def test_everything_lies_under_one_run_id(run, model):
    run_id = run.saved.name
    assert re.fullmatch(rf"{model}-{dataset_for(model)}-\d{{8}}-\d{{6}}-[0-9a-f]{{6}}", run_id)
    for path in (
        run.saved / "config.yaml",
        run.saved / "provenance.json",
        run.saved / "checkpoints/best.ckpt",
        run.results / "metrics.json",
        run.root / "log" / model / f"{run_id}.log",
    ):
        assert path.exists(), path
    board = run.root / "log_tensorboard" / model / run_id
    assert board.exists() or not REGISTRY.entry("model", model).target("dataset")


@every_model
def test_the_stored_configuration_repeats_the_run(run, model):
    from talkingface.config.config import load_config

    cfg = load_config(config_files=[run.saved / "config.yaml"])
    record = json.loads((run.saved / "provenance.json").read_text("utf-8"))
    assert (cfg.model, cfg.dataset, cfg.preset) == (model, dataset_for(model), "tiny")
    assert cfg.hash == record["config_hash"]
    assert record["provenance"]["device"] == "command line"


@every_model
def test_weights_and_results_have_the_recorded_names(run, model, monkeypatch):
    """recorded.json: names and shapes of the exported weights, and the rows of metrics.json.

    What is equal on one machine only (values, files) is compared by tools/behaviour.py.
    """
    monkeypatch.syspath_prepend(str(REPOSITORY / "tools"))
    import behaviour

    record = behaviour.record_run(run.root, run.saved.relative_to(run.root / "saved"))
    expected = json.loads(Path(__file__).with_name("recorded.json").read_text("utf-8"))[model]
    assert record.get("weights", {}).get("names") == expected["weights"]
    assert sorted(record["metrics"]["rows"]) == expected["rows"]


def test_the_readme_shows_the_table_that_the_first_command_prints(one_command, monkeypatch):
    """benchmarks/first_command.py writes it; rows, columns and format are those of a run."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    import first_command

    readme = (REPOSITORY / "README.md").read_text("utf-8")
    between = readme.split(first_command.MARKERS[0])[1].split(first_command.MARKERS[1])[0]
    shown = [line[4:] for line in between.splitlines() if line.startswith("    ")]
    printed = first_command.table_of(one_command("HyperLipsBase").process.stdout)

    def form(rows: list[str]) -> list[list[str]]:
        rows = [re.split(r"\s{2,}", row.strip()) for row in rows]
        return [[re.sub(r"\d", "0", re.sub(r"^\d+", "0", cell)) for cell in row] for row in rows]

    assert len(shown) == 6 and form(shown) == form(printed)
    assert re.search(r"this took \d+ s on \d+ CPU cores", between)


@every_model
def test_the_run_ends_with_what_to_do_next(run, model):
    text = run.process.stdout + run.process.stderr
    assert "run folder:" in text and run.saved.name in text
    assert "--resume=auto" in text
    assert ("--infer" in text) == (model in GENERATORS)


@every_model
def test_no_half_written_file_is_left(run):
    left = [p for p in run.root.rglob("*") if ".tmp" in p.name]
    assert left == []


@pytest.mark.parametrize("model", chosen(WITH_VIDEO))
def test_the_table_compares_the_model_with_trivial_baselines(run, model):
    metrics = json.loads((run.results / "metrics.json").read_text("utf-8"))
    titles = list(metrics["rows"])
    assert titles[0] == model
    asked = REGISTRY.entry("model", model).values.get("baselines", ["shuffled_audio", "real"])
    known = {"real": REAL, "shuffled_audio": SHUFFLED}
    known.update({name: title for name, (title, _) in REPLACEMENTS.items()})
    assert {known[name] for name in asked} | {"copy reference"} <= set(titles)
    assert len({len(os.listdir(folder)) for folder in (run.results / "videos").iterdir()}) == 1
    with open(run.root / "results/leaderboard.csv", encoding="utf-8") as file:
        assert any(row["run_id"] == run.saved.name for row in csv.DictReader(file))


@pytest.mark.parametrize("model", chosen(WITH_VIDEO))
def test_a_finished_run_speaks_with_any_voice(
    run, model, tone_wav, talking_clip, tmp_path, one_command
):
    if model == "HeadGAN":  # its expressions from a voice are a model of their own
        assert one_command("Audio2Exp").process.returncode == 0
    if resolve(REGISTRY, model).source_kind == "name":  # these draw only people that they know
        talking_clip = sorted((run.root / "dataset").rglob("data/**/*.mp4"))[0]
    av = pytest.importorskip("av")
    from conftest import run_command

    target = tmp_path / "out 出.mp4"
    done = run_command(
        [f"--model={model}", "--infer", f"--audio={tone_wav}", f"--source={talking_clip}",
         f"--output={target}", "--device=cpu"],
        run.root,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "real-time factor" in done.stdout + done.stderr
    with av.open(str(target)) as container:
        seconds = float(container.duration / av.time_base)
        assert container.streams.video and container.streams.audio
    assert 1.85 <= seconds <= 2  # Wav2Lip's windows end about 0.1 s before the sound


def test_a_finished_conversation_model_gives_motion_for_any_voice(one_command, tone_wav, tmp_path):
    """Files in both layouts, curves, and a video with sound; the whole test split alike."""
    import numpy as np
    from conftest import run_command

    from talkingface.data.media.probe import probe

    run = one_command("A2P")
    assert run.process.returncode == 0, run.process.stderr[-3000:]
    metrics = json.loads((run.results / "metrics.json").read_text("utf-8"))
    assert list(metrics["rows"]) == ["A2P", "shuffled audio", "mean motion", "real"]
    assert metrics["guide_source"].startswith("model")
    for part, width in (("face", 256), ("pose", 104)):
        with np.load(run.results / f"{part}.npz") as own:
            assert own["motions"].shape == (2, 4, 60, width)
            assert np.isfinite(own["motions"]).all() and (own["motions"][0] != 0).any()
        official = np.load(run.results / f"{part}_results.npy", allow_pickle=True).item()
        assert official["motions"].shape == (8, width, 1, 60)
        assert official["audio"].shape == (8, 96000, 2)
    assert official["keyframes"].shape == (8, 6, 104)
    assert len(list((run.results / "previews").glob("*_pose.mp4"))) == 3

    target = tmp_path / "out 出.mp4"
    asked = [
        "--infer", "--model=A2P", f"--audio={tone_wav}", f"--output={target}", "--device=cpu",
        "--infer.view=lips",
    ]  # fmt: skip
    done = run_command(asked, run.root)
    assert done.returncode == 0, done.stderr
    info = probe(target)
    assert info.has_audio and info.duration == pytest.approx(2, abs=0.1)
    for part in ("face", "pose"):
        for end in (".npz", "_results.npy", ".png", ".mp4"):
            assert (tmp_path / f"out 出_{part}{end}").is_file()
    short = run_command([*asked[:-1], "--infer.view=head"], run.root)
    assert short.returncode == 2 and "--source" in short.stderr and "Traceback" not in short.stderr


@pytest.mark.slow
def test_two_first_runs_at_the_same_time_do_not_disturb_each_other(tmp_path):
    pytest.importorskip("mediapipe")
    command = [
        sys.executable, str(SCRIPT), "--model=SyncExpert", "--dataset=Synthetic", *SMALL,
        "--max_steps=1", "--device=cpu", "--num_workers=0", "--process_workers=1",
    ]  # fmt: skip
    env = {**os.environ, "TALKINGFACE_ROOT": str(tmp_path)}
    both = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    texts = [process.communicate(timeout=300)[0].decode("utf-8", "replace") for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n----\n".join(texts)[-4000:]
    results = [json.loads(p.read_text()) for p in tmp_path.glob("results/*/*/*/metrics.json")]
    assert len(results) == 2 and results[0]["run_id"] != results[1]["run_id"]
    assert results[0]["rows"] == results[1]["rows"]
