"""The evaluation stage: its files, its rows, and that it repeats itself exactly."""

from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from trainkit import hyperlips_config

from talkingface.config.config import load_config
from talkingface.data.clips import make_clip
from talkingface.data.media.audio import load_audio
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import count_frames, read_frames
from talkingface.errors import ConfigError, DataError
from talkingface.evaluator.evaluator import Evaluator, Row, RowResult, aggregate
from talkingface.evaluator.report import (
    append_leaderboard,
    console_table,
    reasons_text,
    write_metrics,
)
from talkingface.pipeline.base import Pipeline
from talkingface.quick_start.quick_start import RunResult, run_config
from talkingface.quick_start.rows import (
    Generator,
    VideoRow,
    model_row,
    shuffled_waves,
    video_pair,
)

ROWS = [
    "HyperLipsBase", "shuffled audio", "copy reference", "retrieved mouth",
    "real video (re-encoded)",
]  # fmt: skip
TEST_CLIPS = ["p01/p01_001", "p00/p00_001"]  # two of the four: statistics need more than one


class Finished:
    """A run of one step, evaluated on two clips."""

    def __init__(self, project: Path, folder: Path) -> None:
        self.project, self.folder = project, folder
        (folder / "test.txt").write_text("".join(f"{name}\n" for name in TEST_CLIPS))
        self.result = self.run(stages="train,evaluate")

    def run(self, **settings: object) -> RunResult:
        cfg = hyperlips_config(
            self.project,
            max_steps=1,
            epochs=1,
            eval_step=0,
            test_filelist=str(self.folder / "test.txt"),
            checkpoint_dir=str(self.folder / "saved"),
            results_dir=str(self.folder / "results"),
            log_dir=str(self.folder / "log"),
            tensorboard_dir=str(self.folder / "tensorboard"),
            n_preview=1,
            **settings,
        )
        return run_config(cfg)

    @property
    def results(self) -> Path:
        return next((self.folder / "results" / "HyperLipsBase" / "Synthetic").iterdir())

    @property
    def metrics(self) -> dict:
        return json.loads((self.results / "metrics.json").read_text())

    def leaderboard(self) -> list[dict[str, str]]:
        with open(self.folder / "results" / "leaderboard.csv", encoding="utf-8") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tiny_synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return Finished(tiny_synthetic, tmp_path_factory.mktemp("evaluation"))


def test_every_row_has_every_number_on_the_same_clips(finished):
    rows = finished.metrics["rows"]
    assert list(rows) == ROWS
    for name, values in rows.items():
        assert list(values) == list(finished.metrics["outputs"]), name
        for key, item in values.items():
            assert item["n"] == 2, f"{name}: {key}"
            assert math.isfinite(item["mean"]) and math.isfinite(item["std"])


def test_the_real_video_scores_best(finished):
    rows = finished.metrics["rows"]
    for key, spec in finished.metrics["outputs"].items():
        best = rows["real video (re-encoded)"][key]["mean"]
        others = [rows[name][key]["mean"] for name in ROWS[:3]]
        assert best > max(others) if spec["direction"] == "up" else best < min(others), key


def test_the_metrics_file_says_what_was_measured_on_what(finished):
    metrics = finished.metrics
    assert metrics["clips"] == TEST_CLIPS
    assert metrics["split"] == "test"
    assert metrics["run_id"] == finished.results.name
    assert metrics["definitions"]["SSIM"] == "SSIM[gray=False,kind=gaussian11]"
    assert metrics["outputs"]["LMD"]["direction"] == "down"


def test_the_table_per_clip_averages_to_the_aggregate(finished):
    with open(finished.results / "metrics.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [(line["row"], line["clip"]) for line in lines] == [
        (row, clip) for row in ROWS for clip in TEST_CLIPS
    ]
    for row in ROWS:
        values = [float(line["PSNR_mouth"]) for line in lines if line["row"] == row]
        assert np.mean(values) == finished.metrics["rows"][row]["PSNR_mouth"]["mean"]


def test_every_row_compares_the_same_frames_at_the_size_that_is_named(finished):
    frames = finished.metrics["frames"]
    assert set(frames) == set(ROWS)
    assert all(frames[row] == frames[ROWS[0]] for row in ROWS)
    assert set(frames[ROWS[0]]) == set(TEST_CLIPS) and min(frames[ROWS[0]].values()) > 20
    assert len(finished.metrics["sizes"]) == 1


def test_each_row_has_its_videos_as_long_as_the_real_ones(finished):
    for row in ROWS:
        for clip in TEST_CLIPS:
            path = finished.results / "videos" / row.replace(" ", "_") / f"{clip}.mp4"
            real = finished.project / "dataset/Synthetic-tiny/data" / f"{clip}.mp4"
            assert abs(count_frames(path, 25) - count_frames(real, 25)) <= 3
            assert (probe(path).width, probe(path).height) == (256, 256)


def test_there_are_as_many_previews_as_asked_for_with_sound(finished):
    previews = list((finished.results / "previews").iterdir())
    assert [path.name for path in previews] == ["p01_p01_001.mp4"]
    info = probe(previews[0])
    assert info.has_audio
    assert info.width >= len(ROWS) * 256


def test_the_leaderboard_gets_one_line_per_row(finished):
    lines = finished.leaderboard()
    assert [line["row"] for line in lines] == ROWS
    columns = list(lines[0])
    assert columns[:7] == ["date", "model", "dataset", "run_id", "config_hash", "preset", "row"]
    assert columns[7:] == ["clips", *finished.metrics["outputs"]]
    first = lines[0]
    assert (first["model"], first["dataset"], first["preset"], first["clips"]) == (
        "HyperLipsBase",
        "Synthetic",
        "tiny",
        "2",
    )
    assert float(first["SSIM"]) == finished.metrics["rows"]["HyperLipsBase"]["SSIM"]["mean"]


def test_the_result_of_the_run_is_the_models_row(finished):
    row = finished.metrics["rows"]["HyperLipsBase"]
    assert finished.result.test_result == {key: item["mean"] for key, item in row.items()}
    summary = json.loads((finished.result.run_dir / "summary.json").read_text())
    assert summary["test_result"] == finished.result.test_result


@pytest.mark.slow
def test_evaluating_again_gives_the_same_bytes_and_no_new_lines(finished):
    before = {n: (finished.results / n).read_bytes() for n in ("metrics.json", "metrics.csv")}
    shutil.rmtree(finished.results)
    again = finished.run(stages="evaluate")
    assert again.run_dir == finished.result.run_dir
    for name, content in before.items():
        assert (finished.results / name).read_bytes() == content, name
    assert len(finished.leaderboard()) == len(ROWS)


def test_a_checkpoint_can_be_evaluated_by_its_path(finished, tmp_path):
    copy = Path(shutil.copy(finished.result.checkpoint, tmp_path / "weights.ckpt"))
    result = finished.run(evaluate_model_file=str(copy), metrics="PSNR", baselines=[], eval_clips=1)
    assert list(result.test_result) == ["PSNR", "PSNR_face", "PSNR_mouth"]
    assert result.run_dir != finished.result.run_dir
    shutil.rmtree(finished.folder / "results/HyperLipsBase/Synthetic" / result.run_dir.name)


def test_other_settings_find_no_run_to_evaluate(finished):
    with pytest.raises(ConfigError, match="no trained run of HyperLipsBase"):
        finished.run(stages="evaluate", learning_rate=0.5)


# -- parts -----------------------------------------------------------------------------------------


def test_the_shuffled_sound_is_the_next_clips_with_the_own_length(tiny_synthetic):
    paths = sorted((tiny_synthetic / "dataset/Synthetic-tiny/data").rglob("*.mp4"))[:3]
    clips = [make_clip(path) for path in paths]
    own = [load_audio(clip.audio, 16000) for clip in clips]
    waves = shuffled_waves(clips)
    for index, clip in enumerate(clips):
        wave, following = waves[clip.id](), own[(index + 1) % 3]
        assert len(wave) == len(own[index])
        common = min(len(wave), len(following))
        assert np.array_equal(wave[:common], following[:common])


def test_a_single_clip_gets_its_own_sound_moved_by_half(talking_clip):
    clip = make_clip(talking_clip)
    own = load_audio(talking_clip, 16000)
    wave = shuffled_waves([clip])[clip.id]()
    assert np.array_equal(wave, np.roll(own, len(own) // 2))


def score(cfg, clip, sample) -> RowResult:
    (row,) = Evaluator(cfg).run([Row("Model", {clip.id: sample})])
    return row


class Shaky(Pipeline):
    """Repeats the source's frames, moved by the seed when it is ``stochastic``."""

    def prepare(self, source: Path, *, show_progress: object = False) -> list[np.ndarray]:
        return list(read_frames(source, fps=25))

    def frame_count(self, identity, wave) -> int:
        return len(identity)

    def generate(self, identity, wave, *, baseline=None, **options):
        self.given.append(options)
        for frame in identity:
            yield np.roll(frame, 4 * (options.get("seed") or 0), axis=1)


@pytest.mark.parametrize("stochastic", [False, True])
def test_diversity_gets_samples_of_other_seeds_or_none_where_they_would_be_equal(
    talking_clip, tmp_path, stochastic
):
    cfg = hyperlips_config(metrics=["Div"])
    pipeline = Shaky(cfg, None, None)
    pipeline.stochastic, pipeline.given = stochastic, []
    clip, path = make_clip(talking_clip), tmp_path / "clip.mp4"
    planned = model_row(Generator(cfg, "Model", lambda: pipeline, tmp_path))
    row = score(cfg, clip, lambda: video_pair(planned, clip, path, True))
    values = row.values[clip.id]
    samples = sorted(p.name for p in tmp_path.glob("*.seed*.mp4"))
    if stochastic:
        assert pipeline.given == [{"seed": seed} for seed in range(5)]
        assert samples == [f"clip.seed{seed}.mp4" for seed in range(1, 5)]
        assert values["Div_H"] > 0.01
    else:
        assert pipeline.given == [{}] and samples == []
        assert values == {"Div_H": 0, "Div_E": 0, "Div_M": 0}
        assert "deterministic" in row.notes[clip.id][0]


def test_samples_that_cannot_be_made_cost_only_the_diversity(talking_clip, tmp_path):
    cfg = hyperlips_config(metrics=["Div", "PSNR"])
    clip, path = make_clip(talking_clip), tmp_path / "clip.mp4"

    class Unlucky(Generator):
        def samples(self, clip, path):
            raise DataError("no luck")

    planned = model_row(Unlucky(cfg, "Model", lambda: None, tmp_path))
    planned.make = lambda c, p: shutil.copy(c.path, p)
    row = score(cfg, clip, lambda: video_pair(planned, clip, path, True))
    assert row.values[clip.id]["PSNR"] == 100 and math.isnan(row.values[clip.id]["Div_H"])
    assert row.notes[clip.id] == ["further samples were not generated: no luck"]


def test_the_sound_is_that_of_the_clip_also_where_it_lies_beside_the_video(
    talking_clip, tone_wav, tmp_path
):
    clip = replace(make_clip(talking_clip), audio=tone_wav)
    planned = VideoRow("Model", "model", "", lambda c, p: None)
    assert video_pair(planned, clip, tmp_path / "clip.mp4", False).sound == tone_wav


def test_a_video_that_cannot_be_made_is_undefined_with_its_reason(talking_clip, tmp_path):
    def fail(clip, path):
        raise DataError("no face")

    clip = make_clip(talking_clip)
    planned = VideoRow("Model", "model", "", fail)
    cfg = hyperlips_config(metrics=["PSNR"])
    row = score(cfg, clip, lambda: video_pair(planned, clip, tmp_path / "a.mp4", False))
    assert math.isnan(row.values[clip.id]["PSNR"])
    assert set(row.reasons.values()) == {"not generated: no face"}


def test_notes_that_differ_in_numbers_only_are_one_kind_and_a_clip_counts_once():
    row = RowResult("Model", {"a": {}, "b": {}})
    row.notes = {"a": ["LSE: 12 noisy", "LSE: no offset", "LSE: 1.5 noisy"], "b": ["LSE: 5 noisy"]}
    assert reasons_text([row]) == [
        "Model: 2 clip(s), e.g. LSE: 12 noisy",
        "Model: 1 clip(s), e.g. LSE: no offset",
    ]


OUTPUTS = {"PSNR": {"direction": "up"}, "LMD": {"direction": "down"}}


def rows_of(**values: float) -> list[RowResult]:
    row = RowResult("Model", {"c1": values}, notes={"c1": []})
    row.reasons = {("c1", k): "no face" for k, v in values.items() if math.isnan(v)}
    return [row]


def header(run_id: str) -> dict[str, str]:
    return {"model": "Model", "dataset": "D", "run_id": run_id, "config_hash": "0", "preset": ""}


def test_the_leaderboard_keeps_other_runs_and_takes_new_columns(tmp_path):
    path = tmp_path / "leaderboard.csv"
    for run, values in (
        ("one", {"PSNR": 20.0}),
        ("two", {"PSNR": 21.0, "LMD": 3.0}),
        ("one", {"PSNR": 22.0}),
    ):
        append_leaderboard(path, header(run), aggregate(rows_of(**values), values))
    with open(path, encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [(line["run_id"], line["PSNR"], line["LMD"]) for line in lines] == [
        ("two", "21.0", "3.0"),
        ("one", "22.0", ""),
    ]


def test_undefined_values_are_null_in_json_and_nan_in_csv(tmp_path):
    rows = rows_of(PSNR=20.5, LMD=math.nan)
    write_metrics(tmp_path, rows, aggregate(rows, OUTPUTS), OUTPUTS, {"model": "Model"})
    data = json.loads(
        (tmp_path / "metrics.json").read_text(), parse_constant=lambda name: pytest.fail(name)
    )
    assert data["rows"]["Model"]["LMD"] == {"mean": None, "std": None, "n": 0}
    assert data["undefined"] == [
        {"row": "Model", "clip": "c1", "output": "LMD", "reason": "no face"}
    ]
    with open(tmp_path / "metrics.csv", encoding="utf-8") as file:
        assert next(csv.DictReader(file))["LMD"] == "nan"


def test_the_console_table_shows_directions_and_rounds(tmp_path):
    rows = rows_of(PSNR=20.123456, LMD=math.nan)
    text = console_table(aggregate(rows, OUTPUTS), OUTPUTS, 2)
    assert "PSNR ↑" in text and "without a value: LMD" in text
    assert "20.12" in text and "20.123" not in text and "nan" not in text
    other = {k: {"mean": 1.0, "std": 0.0, "n": 1} for k in OUTPUTS}
    text = console_table({**aggregate(rows, OUTPUTS), "other": other}, OUTPUTS, 2)
    assert "LMD ↓" in text and "nan" in text


def test_the_console_table_is_at_most_a_hundred_columns_wide():
    names = [f"{metric}_{part}" for metric in ("PSNR", "SSIM", "LMD", "VERY_LONG_NAME")
             for part in ("whole", "face", "mouth")]  # fmt: skip
    outputs = {n: {"direction": "up", "detail": n.endswith("face")} for n in names}
    table = {row: {n: {"mean": 1.0, "std": 0.0, "n": 3} for n in names} for row in ("A", "B")}
    *lines, last = console_table(table, outputs, 4).splitlines()
    assert max(map(len, lines)) <= 100 and "face" not in lines[0] and "PSNR_whole" in lines[0]
    shown = {word for word in lines[0].split() if "_" in word}
    assert last.startswith("in metrics.json also: ")
    assert shown | set(last.split(": ")[1].split(", ")) == set(names)


@pytest.mark.parametrize(("settings", "problems"), [({"metrics": ["LPIPS"]}, 1), ({}, 0)])
def test_weights_of_named_metrics_are_missed_before_the_training(
    tiny_synthetic, settings, problems
):
    from talkingface.quick_start.preflight import _metrics

    found = list(_metrics(hyperlips_config(tiny_synthetic, **settings)))
    assert len(found) == problems
    assert all("lpips" in str(error).lower() for error in found)


def test_a_named_metric_of_motions_is_checked_before_the_training(monkeypatch):
    from talkingface.evaluator.metrics.motion_distribution import MotionDistribution
    from talkingface.quick_start.preflight import _metrics

    monkeypatch.setattr(MotionDistribution, "missing", lambda self: "no weights")
    cfg = load_config("A2PFace", "SyntheticDyad", overrides={"metrics": ["FD", "LPIPS"]})
    problems = list(_metrics(cfg))  # LPIPS, also without its weights, does not apply to motions
    assert len(problems) == 1 and "FD: no weights" in str(problems[0])
    assert not list(_metrics(load_config("A2PFace", "SyntheticDyad")))  # not named by the user
