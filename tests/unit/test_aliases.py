"""Old key names of the ancestor: they work, say so once, and may not contradict the new ones."""

from __future__ import annotations

import pytest
from conftest import dataset_for

from talkingface.config.config import iter_fields, load_config
from talkingface.errors import ConfigError
from talkingface.registry import get_registry

PAIR = ("HyperLipsBase", "Synthetic")
OLD = {
    "train_batch_size": ("batch_size", 7, 7),
    "evaluate_batch_size": ("eval_batch_size", 50, 50),
    "initial_learning_rate": ("learning_rate", 1e-3, 1e-3),
    "lr": ("learning_rate", 1e-3, 1e-3),
    "nepochs": ("epochs", 20, 20),
    "worker": ("num_workers", 0, 0),
    "gpu_id": ("devices", "3, 4, 5", 3),
    "state": ("log_level", "debug", "debug"),
    "temp_dir": ("results_dir", "results/temp", "results/temp"),
    "resume_checkpoint_path": ("resume", "a/last.ckpt", "a/last.ckpt"),
    "use_gpu": ("device", False, "cpu"),
    "img_size": ("model_params.image_size", 96, 96),
    "syncnet_wt": ("loss.syncnet_wt", 0.1, 0.1),
    "disc_wt": ("loss.disc_wt", 0.1, 0.1),
    "l1_wt": ("loss.l1_wt", 2, 2.0),
    "syncnet_T": ("data.syncnet_T", 1, 1),
}


@pytest.mark.parametrize(("old", "expected"), OLD.items())
def test_an_old_name_sets_the_new_key_and_says_so_once(old, expected):
    new, given, value = expected
    cfg = load_config(*PAIR, cli={old: given})
    assert cfg[new] == value
    assert len(cfg.notes) == 1
    assert f"'{old}' is an old name" in cfg.notes[0] and new in cfg.notes[0]
    assert cfg.notes[0].startswith("command line")


@pytest.mark.parametrize("model", get_registry().names("model"))
def test_every_old_name_points_to_a_key_that_exists(model):
    cfg = load_config(model, dataset_for(model))
    known = {name for name, _ in iter_fields(cfg.schema)}
    for old, new in cfg.schema.aliases.items():
        assert new in known or new.startswith("metric_params."), old
        assert old not in known, f"'{old}' is also a key of its own"


def test_the_note_names_file_and_line(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text("seed: 1\nnepochs: 20\n", encoding="utf-8")
    cfg = load_config(*PAIR, config_files=[path])
    assert cfg.epochs == 20
    assert "old.yaml:2: 'nepochs' is an old name; write 'epochs'" in cfg.notes[0]
    assert cfg.provenance["epochs"].endswith("old.yaml:2")


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 1e-3, "learning_rate": 2e-3},
        {"lr": 1e-3, "initial_learning_rate": 2e-3},
        {"train_batch_size": 8, "batch_size": 16},
        {"disc_wt": 0.1, "loss.disc_wt": 0.2},
        {"gpu_id": "0,1", "devices": 1},
        {"use_gpu": False, "device": "cuda"},
        {"use_gpu": True, "device": "cpu"},
    ],
)
def test_an_old_and_a_new_name_with_different_values_are_an_error(settings):
    with pytest.raises(ConfigError) as caught:
        load_config(*PAIR, cli=settings)
    message = str(caught.value)
    assert "command line" in message and "Keep only" in message
    assert any(f"'{key}" in message for key in settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 1e-3, "learning_rate": 1e-3},
        {"gpu_id": "0,1", "devices": 2},
        {"use_gpu": False, "device": "cpu"},
        {"use_gpu": True, "device": "cuda"},
        {"use_gpu": False, "device": "auto"},
    ],
)
def test_an_old_and_a_new_name_that_agree_are_accepted(settings):
    load_config(*PAIR, cli=settings)


def test_resume_true_beside_a_path_means_the_path():
    cfg = load_config(*PAIR, cli={"resume": True, "resume_checkpoint_path": "a/last.ckpt"})
    assert cfg.resume == "a/last.ckpt"


def test_an_old_name_in_a_higher_layer_wins_over_the_new_name_below():
    cfg = load_config(*PAIR, overrides={"learning_rate": 5e-3}, cli={"lr": 1e-3})
    assert cfg.learning_rate == 1e-3
    assert cfg.provenance["learning_rate"] == "command line"


def test_the_device_count_of_gpu_id_needs_no_environment_variable(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    import os

    load_config(*PAIR, cli={"gpu_id": "0,1"})
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize("old", ["temp_sub_dir", "valid_metric_bigger"])
def test_a_retired_key_is_accepted_and_said_to_be_unused(old):
    cfg = load_config(*PAIR, cli={old: "x"})
    assert len(cfg.notes) == 1 and f"'{old}' is not used any more" in cfg.notes[0]


@pytest.mark.skipif("LSE" in get_registry().names("metric"), reason="LSE exists: a plain alias now")
@pytest.mark.parametrize("old", ["vshift", "lse_checkpoint_path"])
def test_an_old_key_of_a_metric_that_is_not_there_yet_is_said_to_have_no_effect(old):
    cfg = load_config(*PAIR, cli={old: 15})
    assert len(cfg.notes) == 1 and "has no effect" in cfg.notes[0] and "LSE" in cfg.notes[0]
    assert "LSE" not in cfg.metric_params


def test_an_old_name_in_a_file_may_be_written_with_a_hyphen(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text("train-batch-size: 4\n", encoding="utf-8")
    assert load_config(*PAIR, config_files=[path]).batch_size == 4


@pytest.mark.parametrize("value", ["left", "largest", 1])
def test_a_face_is_chosen_by_one_word(value):
    cfg = load_config("HyperLipsBase", "Synthetic", cli={"face": value})
    assert cfg.face.choose == value and not cfg.notes
    both = load_config(
        "HyperLipsBase", "Synthetic", cli={"face": value, "face.max_faces": 2, "face.choose": value}
    )
    assert (both.face.choose, both.face.max_faces) == (value, 2)


def test_a_face_that_does_not_exist_is_an_error():
    with pytest.raises(ConfigError, match="face.choose"):
        load_config("HyperLipsBase", "Synthetic", cli={"face": "middle"})
    with pytest.raises(ConfigError, match=r"short for 'face\.choose'"):
        load_config("HyperLipsBase", "Synthetic", cli={"face": "left", "face.choose": "right"})
