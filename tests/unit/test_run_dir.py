"""Run folders: one id in four places, never shared, found again by settings."""

from __future__ import annotations

import json
import re
import threading

import pytest

from talkingface.components.runs import newest_checkpoint
from talkingface.config.config import load_config
from talkingface.errors import ConfigError, EnvironmentProblem
from talkingface.quick_start.quick_start import active_stages
from talkingface.quick_start.run_dir import find_runs, new_run, open_run, run_of_checkpoint

PAIR = ("HyperLipsBase", "Synthetic")


def config(**settings):
    return load_config(*PAIR, cli=settings)


def finished(cfg, started: str):
    """A run as a training leaves it."""
    run = new_run(cfg)
    run.checkpoints.mkdir()
    run.best.write_bytes(b"weights")
    record = {"started": started, "config_hash": cfg.hash}
    (run.root / "provenance.json").write_text(json.dumps(record))
    return run


def test_a_run_has_one_id_in_all_four_places(root):
    cfg = config()
    run = new_run(cfg)
    pattern = rf"HyperLipsBase-Synthetic-\d{{8}}-\d{{6}}-{cfg.hash[:6]}"
    assert re.fullmatch(pattern, run.id) and run.id.isascii()
    assert run.root == root / "saved/HyperLipsBase/Synthetic" / run.id
    assert run.results == root / "results/HyperLipsBase/Synthetic" / run.id
    assert run.log_file == root / "log/HyperLipsBase" / f"{run.id}.log"
    assert run.tensorboard == root / "log_tensorboard/HyperLipsBase" / run.id
    assert run.root.is_dir()
    assert (run.root.parent / "latest.txt").read_text().strip() == run.id


def test_simultaneous_runs_never_share_a_folder(root):
    cfg, runs = config(), []
    threads = [threading.Thread(target=lambda: runs.append(new_run(cfg))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({run.root for run in runs}) == 8
    seconds = {re.match(r".*-\d{8}-\d{6}-[0-9a-f]{6}", run.id).group() for run in runs}
    assert len(seconds) < 8  # so there was a clash, and a number was appended
    assert any(run.id.endswith("-2") for run in runs)
    assert (runs[0].root.parent / "latest.txt").read_text().strip() in {run.id for run in runs}


def test_a_sub_folder_with_a_leading_slash_stays_below_the_checkpoint_folder(root):
    run = new_run(config(checkpoint_dir="my saved", checkpoint_sub_dir="/wav2lip"))
    assert run.root.is_relative_to(root / "my saved/wav2lip")


def test_folders_may_hold_blanks_and_chinese_characters(root):
    run = new_run(config(checkpoint_dir="保存 folder/a 'b'"))
    assert run.root.is_dir()


def test_runs_of_equal_settings_are_found_newest_first(root):
    cfg = config()
    old, new = finished(cfg, "2024-01-01T00:00:00"), finished(cfg, "2025-01-01T00:00:00")
    finished(config(seed=7), "2026-01-01T00:00:00")
    assert [run.id for run in find_runs(cfg)] == [new.id, old.id]


def test_a_damaged_record_hides_only_its_own_run(root):
    cfg = config()
    good, bad = finished(cfg, "2024-01-01T00:00:00"), finished(cfg, "2025-01-01T00:00:00")
    (bad.root / "provenance.json").write_text('{"started": "20')
    assert [run.id for run in find_runs(cfg)] == [good.id]


def test_a_checkpoint_knows_its_run_and_a_foreign_file_has_none(root, tmp_path):
    cfg = config()
    run = finished(cfg, "2024-01-01T00:00:00")
    assert run_of_checkpoint(cfg, run.best) == run == open_run(cfg, run.id)
    assert run_of_checkpoint(cfg, tmp_path / "weights.pth") is None
    assert run_of_checkpoint(cfg, tmp_path / "checkpoints/best.ckpt") is None


def test_the_newest_checkpoint_of_a_model_is_found_over_datasets(root):
    run = finished(config(), "2024-01-01T00:00:00")
    saved = root / "saved"
    assert newest_checkpoint(saved, "HyperLipsBase") == run.best
    assert newest_checkpoint(saved, "HyperLipsBase", "Synthetic") == run.best
    assert newest_checkpoint(saved, "HyperLipsBase", "MEAD") is None
    assert newest_checkpoint(saved, "SyncExpert") is None


def test_a_place_that_cannot_hold_a_folder_is_explained(root):
    (root / "saved").write_text("a file is in the way")
    with pytest.raises(EnvironmentProblem) as caught:
        new_run(config())
    assert "saved" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "stages"),
    [
        ({}, ["preprocess", "train", "evaluate"]),
        ({"stages": ["evaluate", "train"]}, ["train", "evaluate"]),
        ({"need_preprocess": False}, ["train", "evaluate"]),
        ({"train": False}, ["preprocess", "evaluate"]),
        ({"evaluate_model_file": "a.ckpt"}, ["evaluate"]),
        ({"evaluate_model_file": "a.ckpt", "stages": ["preprocess", "evaluate"]},
         ["preprocess", "evaluate"]),
    ],
)  # fmt: skip
def test_old_switches_choose_the_stages(settings, stages):
    assert active_stages(config(**settings)) == stages


def test_a_checkpoint_from_another_machine_needs_nothing_of_it(root, tmp_path):
    """Its dataset, plugin folder, preset and removed keys do not exist here."""
    from talkingface.quick_start.infer import configure
    from talkingface.trainer.checkpoint import save_checkpoint

    settings = load_config("HyperLipsBase", "Synthetic", preset="tiny").to_dict()
    settings.update(dataset="their_face", plugin_path=["/their/plugins"], old_key=3)
    settings["infer"]["older"] = 1
    settings["preset"] = "theirs"
    save_checkpoint(tmp_path / "a.ckpt", {"config": json.dumps(settings)})
    cfg, path = configure({"checkpoint": str(tmp_path / "a.ckpt")}, {}, [])
    assert path == tmp_path / "a.ckpt" and cfg.model == "HyperLipsBase"
    assert cfg.model_params.image_size == settings["model_params"]["image_size"]
    assert {"infer.older", "old_key"} <= {note.split("'")[1] for note in cfg.notes}
    save_checkpoint(tmp_path / "b.ckpt", {"config": json.dumps({**settings, "model": "Theirs"})})
    with pytest.raises(ConfigError, match="Theirs is a plugin; add --plugin_path"):
        configure({"checkpoint": str(tmp_path / "b.ckpt")}, {}, [])


def test_the_place_of_the_data_does_not_change_a_run_but_their_content_does(root):
    from talkingface.quick_start.training_data import changes

    assert config(root="/a/b", data_root="/c").hash == config().hash
    assert config(fps=30).hash != config().hash
    now = {"a": "1", "b": "2", "c": "3"}
    assert changes(now, dict(now)) == ""
    assert changes({"a": "1", "b": "0", "d": "4"}, now) == (
        "1 missing, e.g. d; 1 new, e.g. c; 1 changed, e.g. b"
    )
