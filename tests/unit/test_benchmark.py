"""--benchmark: the same clips for all, files, resuming, warnings, bad input."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from trainkit import hyperlips_config

from talkingface.comparison import run as module
from talkingface.comparison.entries import titled
from talkingface.comparison.run import benchmark
from talkingface.comparison.tables import console_lines
from talkingface.data.filelists import read_filelist
from talkingface.data.media.writer import VideoWriter
from talkingface.errors import ConfigError, DataError, StageError
from talkingface.evaluator.pairing import split_list
from talkingface.quick_start.quick_start import run_config

ROWS = [
    "HyperLipsBase", "HyperLipsBase, shuffled audio", "copy reference", "retrieved mouth",
    "real video (re-encoded)",
]  # fmt: skip
METRICS = ["PSNR", "LMD"]


class Place:
    """A run of one step and where its benchmarks go."""

    def __init__(self, project: Path, folder: Path) -> None:
        self.folder, self.root = folder, project / "dataset/Synthetic-tiny"
        lists = self.root / "filelist"
        # One clip of the test split and one that the model was trained on.
        self.clips = sorted(read_filelist(lists / f"{s}.txt")[0] for s in ("train", "test"))
        (folder / "test.txt").write_text("".join(f"{name}\n" for name in self.clips))
        cfg = hyperlips_config(
            project, max_steps=1, epochs=1, eval_step=0, stages=["train"],
            test_filelist=str(folder / "test.txt"), checkpoint_dir=str(folder / "saved"),
            results_dir=str(folder / "results"), log_dir=str(folder / "log"),
            tensorboard_dir=str(folder / "tensorboard"), metrics=METRICS, n_preview=1,
        )  # fmt: skip
        self.run_id = run_config(cfg).run_dir.name
        self.config = {
            "metrics": METRICS, "checkpoint_dir": str(folder / "saved"), "show_progress": False,
        }  # fmt: skip

    def benchmark(self, output: str = "bench", **options: Any) -> Path:
        config = {**self.config, **options.pop("config", {})}
        given = {"models": "HyperLipsBase", "datasets": "Synthetic", **options}
        files = options.pop("config_files", [])
        given.pop("config_files", None)
        benchmark({**given, "output": str(self.folder / output)}, config, files)
        return self.folder / output


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "benchmark.json").read_text("utf-8"))


def means(folder: Path, key: str = "PSNR", part: int = 0) -> dict[str, float]:
    summary = read(folder)["datasets"][part]["rows"]
    return {row: cells[key]["mean"] for row, cells in summary.items()}


def made_by(folder: Path, row: str) -> Path:
    """The folder of a row's videos."""
    return next((folder / "videos/Synthetic").glob(f"{row}*"))


def lines(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def place(tiny_synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tiny_synthetic, tmp_path_factory.mktemp("benchmark"))


@pytest.fixture(scope="module")
def finished(place: Place) -> Path:
    return place.benchmark()


@pytest.fixture(scope="module")
def data(finished: Path) -> dict[str, Any]:
    return json.loads((finished / "benchmark.json").read_text("utf-8"))


def test_all_rows_are_scored_on_the_same_clips(place, data):
    (part,) = data["datasets"]
    assert list(part["rows"]) == ROWS
    assert sorted(part["clips"]) == place.clips
    for row in ROWS:
        assert sorted(part["values"][row]) == place.clips
        assert {cell["n"] for cell in part["rows"][row].values()} == {2}


def test_the_order_of_the_rows_is_what_a_viewer_would_say(data):
    cells = {row: values["PSNR"]["mean"] for row, values in data["datasets"][0]["rows"].items()}
    assert cells["real video (re-encoded)"] > cells["HyperLipsBase"] > cells["copy reference"]


def test_every_table_holds_the_same_numbers(finished, data):
    mean = data["datasets"][0]["rows"]["copy reference"]["PSNR"]["mean"]
    (line,) = [
        line for line in lines(finished / "benchmark.csv")
        if line["row"] == "copy reference" and line["output"] == "PSNR"
    ]  # fmt: skip
    assert float(line["mean"]) == mean and line["baseline"] == "copy reference"
    single = [
        float(line["PSNR"]) for line in lines(finished / "clips.csv")
        if line["row"] == "copy reference"
    ]  # fmt: skip
    assert sum(single) / 2 == pytest.approx(mean)
    for name in ("benchmark.md", "benchmark.tex"):
        assert f"{mean:.4f}" in (finished / name).read_text("utf-8")
    page = (finished / "benchmark.html").read_text("utf-8")
    assert repr(mean)[:12] in page and "data:video/mp4;base64," in page


def test_latex_escapes_what_it_must(finished):
    text = (finished / "benchmark.tex").read_text("utf-8")
    assert r"PSNR\_face" in text and r"\uparrow" in text
    assert text.count("{") == text.count("}")


def test_costs_are_measured(data):
    cost = data["cost"]["HyperLipsBase"]
    assert cost["parameters"] > 1000 and cost["flops_per_frame"] > 1e5
    assert cost["ms_per_frame"] > 0 and cost["real_time_factor"] > 0
    assert cost["device"] == "cpu"


def test_clips_that_a_model_was_trained_on_are_told(data):
    (warning,) = data["rows"]["HyperLipsBase"]["warnings"]
    assert "trained on 1 of these 2 clips" in warning


def test_clips_that_the_start_weights_were_trained_on_count_too(place, tiny_synthetic):
    from talkingface.comparison.entries import Competitor, seen_in_training, usable_clips

    (checkpoint,) = place.folder.glob(f"saved/*/*/{place.run_id}/checkpoints/best.ckpt")
    settings = {
        "train_filelist": str(place.folder / "other.txt"),
        "test_filelist": str(place.folder / "test.txt"),
    }
    test = read_filelist(tiny_synthetic / "dataset/Synthetic-tiny/filelist/test.txt")
    (place.folder / "other.txt").write_text(test[-1] + "\n")
    plain, tuned = (
        hyperlips_config(tiny_synthetic, **settings, **more)
        for more in ({}, {"init": str(checkpoint)})
    )
    clips = [c for c in usable_clips(plain, "test") if c.id != test[-1]]
    entries = [Competitor("a", "b", cfg, checkpoint) for cfg in (plain, tuned)]
    assert seen_in_training(entries[0], clips) < seen_in_training(entries[1], clips)


def test_a_second_run_makes_nothing_again_and_gives_equal_tables(place, finished, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*.mp4")}
    tables = [(finished / n).read_bytes() for n in ("benchmark.csv", "clips.csv")]
    monkeypatch.setattr(module.Evaluator, "score_clip", None)  # must not be needed
    place.benchmark()
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*.mp4")} == before
    assert [(finished / n).read_bytes() for n in ("benchmark.csv", "clips.csv")] == tables


def test_a_killed_benchmark_goes_on_where_it_stopped(place, finished, monkeypatch):
    calls = []
    score = module.Evaluator.score_clip

    def killed(self, clip, row):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(clip.name)
        score(self, clip, row)

    monkeypatch.setattr(module.Evaluator, "score_clip", killed)
    with pytest.raises(KeyboardInterrupt):
        place.benchmark("killed")
    monkeypatch.setattr(module.Evaluator, "score_clip", score)
    made = {p: p.stat().st_mtime_ns for p in (place.folder / "killed").rglob("*.mp4")}
    folder = place.benchmark("killed")
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*.mp4")} == made
    assert (folder / "clips.csv").read_bytes() == (finished / "clips.csv").read_bytes()


def test_runs_folders_and_titles_can_be_named(place, finished, tiny_synthetic):
    shutil.copytree(
        made_by(finished, "copy_reference"), place.folder / "other tool", dirs_exist_ok=True,
    )  # fmt: skip
    folder = place.benchmark(
        "mixed", models=f"mine={place.run_id},{place.folder / 'other tool'}",
        config={"baselines": ["real"]}, baseline="other tool",
    )  # fmt: skip
    (part,) = json.loads((folder / "benchmark.json").read_text("utf-8"))["datasets"]
    assert list(part["rows"]) == ["mine", "other tool", "real video (re-encoded)"]
    cells = part["rows"]
    assert cells["mine"]["PSNR"]["difference"] == pytest.approx(
        cells["mine"]["PSNR"]["mean"] - cells["other tool"]["PSNR"]["mean"]
    )


def test_models_without_a_run_use_the_other_clips_of_the_dataset_too(place, finished):
    data = {"root": str(place.root), "test_filelist": str(place.folder / "test.txt")}
    config = {**data, "metrics": ["PSNR"], "baselines": ["retrieved_mouth"]}
    models = "HyperLipsBase=zoo/HyperLipsBase,VideoRewrite"
    folder = place.benchmark("no_run", models=models, config=config)
    found = means(folder)
    assert found["VideoRewrite"] > 20 and found["HyperLipsBase"] > 20
    assert found["retrieved mouth"] == means(finished)["retrieved mouth"]


def test_an_output_without_any_value_has_no_column(data):
    spec, nan = {"direction": "down"}, {"mean": math.nan, "n": 0}
    changed = {**data, "outputs": {**data["outputs"], "NIQE": spec}}
    part = changed["datasets"][0]
    rows = {row: {**cells, "NIQE": nan} for row, cells in part["rows"].items()}
    changed["datasets"] = [{**part, "rows": rows}]
    text = "\n".join(console_lines(changed, 4))
    assert "undefined in all rows (see the notes): NIQE" in text and "NIQE ↓" not in text
    assert "  2\n" in text and "0/2" not in text


def test_folders_alone_are_compared_without_any_model(place, finished, tmp_path):
    videos = finished / "videos/Synthetic"
    folder = place.benchmark(
        "folders", datasets=str(next(videos.glob("real_video*"))),
        models=f"copy_reference={made_by(finished, 'copy_reference')},{videos / 'HyperLipsBase'}",
    )  # fmt: skip
    content = json.loads((folder / "benchmark.json").read_text("utf-8"))
    (part,) = content["datasets"]
    assert list(part["rows"]) == ["copy_reference", "HyperLipsBase", "real video"]
    assert part["rows"]["real video"]["PSNR"]["mean"] == 100
    assert content["cost"] == {}


def test_a_clip_without_a_video_is_left_out_for_all_and_told(place, finished, tmp_path):
    partial = tmp_path / "partial"
    shutil.copytree(made_by(finished, "copy_reference"), partial)
    next(partial.rglob("*.mp4")).unlink()
    folder = place.benchmark(
        "partial", models=f"HyperLipsBase,{partial}", config={"baselines": ["real"]}
    )
    (part,) = json.loads((folder / "benchmark.json").read_text("utf-8"))["datasets"]
    assert {cell["n"] for row in part["rows"].values() for cell in row.values()} == {1}
    assert any("no video of this clip" in item["reason"] for item in part["undefined"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": "HyperLipsBaze"}, "neither a trained model"),
        ({"models": "SyncExpert"}, "SyncExpert"),
        ({"models": "HyperLipsBase,HyperLipsBase"}, "two rows"),
        ({"datasets": "Nowhere"}, "Nowhere"),
        ({"baseline": "nobody"}, "there is no row 'nobody'"),
        ({"models": "copy reference=HyperLipsBase"}, "name of a baseline"),
        ({"models": ""}, "needs --models"),
    ],
)
def test_wrong_names_are_explained_before_any_work(place, options, message):
    with pytest.raises((ConfigError, DataError, StageError), match=message):
        place.benchmark("wrong", **options)
    assert not list((place.folder / "wrong").rglob("*.mp4"))


@pytest.mark.parametrize("option", ["models", "datasets"])
def test_the_tables_do_not_go_into_a_folder_of_videos_that_is_compared(place, finished, option):
    output = made_by(finished, "copy_reference").relative_to(place.folder)
    with pytest.raises(ConfigError, match="would replace"):
        place.benchmark(str(output), **{option: str(place.folder / output)})
    assert not list((place.folder / output).rglob("benchmark*"))


def test_lists_may_be_bracketed_and_paths_may_hold_commas(tmp_path):
    odd = tmp_path / "a,b"
    odd.mkdir()
    assert split_list("[A, B ,C]") == ["A", "B", "C"]
    assert split_list(str(odd)) == [str(odd)]


def folder_with(path: Path, clips: dict[str, Path]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, clip in clips.items():
        shutil.copy(clip, path / f"{name}.mp4")
    return path


@pytest.fixture(scope="module")
def videos(tiny_synthetic: Path) -> list[Path]:
    return sorted((tiny_synthetic / "dataset/Synthetic-tiny/data").rglob("*.mp4"))


@pytest.mark.slow
def test_a_model_speaks_for_a_folder_of_real_videos_too(place, videos, tmp_path):
    real = folder_with(tmp_path / "my faces é", {"x y": videos[0]})
    folder = place.benchmark("cross", datasets=f"Synthetic,{real}", config={"eval_clips": 1})
    content = read(folder)
    assert [part["name"] for part in content["datasets"]] == ["Synthetic", "my faces é"]
    assert list(content["datasets"][1]["rows"]) == ROWS
    assert set(content["cost"]) == {"HyperLipsBase (Synthetic)", "HyperLipsBase (my faces é)"}


@pytest.mark.slow
def test_a_replaced_clip_is_generated_and_scored_again(place, videos, tmp_path):
    real = folder_with(tmp_path / "real", {"x": videos[0]})
    options = {"datasets": str(real), "config": {"baselines": ["real", "shuffled_audio"]}}
    first = means(place.benchmark("stale", **options))
    folder_with(real, {"x": videos[2]})
    second = means(place.benchmark("stale", **options))
    fresh = means(place.benchmark("fresh", **options))
    assert second == fresh and second != first


@pytest.mark.slow
def test_settings_of_generation_reach_every_row(place, finished, tmp_path):
    folder = tmp_path / "coarse"
    shutil.copytree(finished, folder)
    place.benchmark(str(folder), config={"infer.crf": 40})
    before, after = means(finished), means(folder)
    assert after["copy reference"] < before["copy reference"] - 1
    assert after["real video (re-encoded)"] < before["real video (re-encoded)"] - 1


def test_rows_and_datasets_never_share_a_folder_or_a_name(place, finished, videos, tmp_path):
    for name in ("A", "B"):
        folder_with(tmp_path / name / "real", {"x": videos[0]})
    both = f"{tmp_path / 'A/real'},{tmp_path / 'B/real'}"
    with pytest.raises(ConfigError, match="two are called 'real'"):
        place.benchmark("twins", datasets=both)
    copies = made_by(finished, "copy_reference")
    for number, title in enumerate(("my+model", "my model", "my_model")):
        other = {"my+model": "my_model"}.get(title, "my+model")
        folder = place.benchmark(
            f"alike{number}", models=f"{title}={place.run_id},{other}={copies}",
            config={"baselines": [], "eval_clips": 1},
        )  # fmt: skip
        assert means(folder)[title] != means(folder)[other]
    assert len({module._slug(t) for t in ("my model", "my_model", "my+model", "my,model")}) == 4


def test_a_runs_own_metric_settings_and_clip_number_do_not_count(place, finished, monkeypatch):
    from talkingface.comparison import entries

    real = entries.configure

    def stored_otherwise(options, config, files):
        own = {"metric_params": {"LMD": {"align": "none"}}, "eval_clips": 1, **config}
        return real(options, own, files)

    monkeypatch.setattr(entries, "configure", stored_otherwise)
    folder = place.benchmark("leak", config={"baselines": []})
    assert "align=centroid" in read(folder)["outputs"]["LMD"]["definition"]
    assert means(folder, "LMD")["HyperLipsBase"] == means(finished, "LMD")["HyperLipsBase"]


def test_metrics_may_be_a_plain_word_or_come_from_a_file(place, tmp_path):
    settings = tmp_path / "mine.yaml"
    settings.write_text("metric_params: {LMD: {align: none}}\n")
    config = {"metrics": "LMD, PSNR", "eval_clips": 1, "baselines": []}
    folder = place.benchmark("word", config=config, config_files=[str(settings)])
    assert "align=none" in read(folder)["outputs"]["LMD"]["definition"]


def test_a_broken_video_costs_its_own_cells_only(place, finished, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(made_by(finished, "copy_reference"), broken)
    next(broken.rglob("*.mp4")).write_bytes(b"no video")
    config = {"baselines": ["copy_reference"]}
    folder = place.benchmark("broken", models=f"HyperLipsBase,{broken}", config=config)
    assert (folder / "benchmark.html").exists()
    assert means(folder)["broken"] == pytest.approx(means(folder)["copy reference"])


def test_a_clip_without_sound_is_reported_and_does_not_stop_the_others(place, videos, tmp_path):
    real = folder_with(tmp_path / "part mute", {"z": videos[0]})
    with VideoWriter(real / "mute.mp4", 25) as writer:
        from talkingface.data.media.reader import read_frames

        for frame in read_frames(videos[0]):
            writer.write(frame)
    folder = place.benchmark("mute", datasets=str(real), config={"baselines": []})
    (part,) = read(folder)["datasets"]
    assert {item["clip"] for item in part["undefined"]} == {"mute"}
    assert part["rows"]["HyperLipsBase"]["PSNR"]["n"] == 1


def test_a_deterministic_model_has_no_diversity(place):
    folder = place.benchmark("div", config={"metrics": ["Div"], "baselines": [], "eval_clips": 1})
    cells = read(folder)["datasets"][0]["rows"]["HyperLipsBase"]
    assert {cell["mean"] for cell in cells.values()} == {0.0}


def test_a_mistake_in_the_last_dataset_is_found_before_any_work(place):
    with pytest.raises(ConfigError, match="Typo"):
        place.benchmark("typo", datasets="Synthetic,Typo")
    assert not (place.folder / "typo").exists()


def test_paths_may_hold_equal_signs(tmp_path, monkeypatch):
    (tmp_path / "lr=1e-4").mkdir()
    assert titled(str(tmp_path / "lr=1e-4")) == ("", str(tmp_path / "lr=1e-4"))
    assert titled("mine = /some/where=else") == ("mine", "/some/where=else")


def test_an_empty_folder_called_like_a_model_is_not_meant(place, tmp_path, monkeypatch):
    (tmp_path / "HyperLipsBase").mkdir()
    (tmp_path / "Synthetic").mkdir()
    monkeypatch.chdir(tmp_path)
    folder = place.benchmark("named", config={"baselines": [], "eval_clips": 1})
    assert read(folder)["rows"]["HyperLipsBase"]["kind"] == "model"


@pytest.mark.parametrize(
    "args", [["--benchmark", "--reference=x"], ["--evaluate_videos=a", "--baseline=b"]]
)
def test_options_of_another_action_are_refused(run_cli, args):
    done = run_cli(args)
    assert done.returncode == 2 and "belongs to" in done.stderr
