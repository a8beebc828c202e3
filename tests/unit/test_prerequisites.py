"""Components that a model needs are trained first where there are none."""

from __future__ import annotations

import json
import os

import pytest
import torch

from talkingface.config.config import load_config
from talkingface.errors import ConfigError
from talkingface.model.weights import CHECKPOINT_FORMAT
from talkingface.quick_start import prerequisites, quick_start
from talkingface.quick_start.prerequisites import require_same_components, train_prerequisites
from talkingface.utils.hashes import sha256_of

ALL = ("preprocess", "train", "evaluate")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, root) -> list:
    """Configurations of the runs that would have been made."""
    seen: list = []
    monkeypatch.setattr(quick_start, "run_config", lambda cfg, command=(): seen.append(cfg))
    return seen


def hr(**settings):
    cli = {"model": "HyperLipsHR", "dataset": "Synthetic", "preset": "tiny", **settings}
    return load_config(cli=cli)


def test_the_base_is_trained_first_with_what_the_user_set_for_data_and_device(trained):
    settings = {"device": "cpu", "synthetic.persons": 5, "epochs": 1, "face": "left"}
    own = {"batch_size": 3, "loss.disc_wt": 0.5, "metrics": ["LMD"], "resume": False}
    train_prerequisites(hr(**settings, **own), ALL, [])
    (base,) = trained
    assert (base.model, base.dataset, base.preset) == ("HyperLipsBase", "Synthetic", "tiny")
    assert (base.device, base.synthetic.persons, base.epochs) == ("cpu", 5, 1)
    assert base.face.choose == "left" and base.resume == "auto"
    plain = load_config("HyperLipsBase", "Synthetic", preset="tiny")
    assert base.batch_size == plain.batch_size and base.metrics == plain.metrics
    assert base.loss == plain.loss


@pytest.mark.parametrize(
    ("settings", "stages"),
    [
        ({"weights.base": "run7"}, ALL),  # named: missing files are an error, not a training
        ({}, ("evaluate",)),
        ({}, ("train", "evaluate")),  # the data were prepared with a base that must exist
        ({"devices": 2}, ALL),
    ],
)
def test_nothing_is_trained_where_weights_are_named_or_nothing_is_to_be_learned(
    trained, settings, stages
):
    train_prerequisites(hr(**settings), stages, [])
    assert trained == []


def test_a_base_that_exists_is_used(trained, root):
    run = root / "saved/HyperLipsBase/Synthetic/run1/checkpoints"
    run.mkdir(parents=True)
    (run / "best.ckpt").write_bytes(b"x")
    (run.parent / "summary.json").write_text("{}")
    train_prerequisites(hr(), ALL, [])
    assert trained == []


def test_a_stopped_base_goes_on_or_is_asked_about_but_never_taken_as_it_is(trained, root):
    base = load_config("HyperLipsBase", "Synthetic", preset="tiny")
    for run, config_hash in (("mine", "another hash"), ("automatic", base.hash)):
        folder = root / f"saved/HyperLipsBase/Synthetic/{run}"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints/best.ckpt").write_bytes(b"x")
        (folder / "provenance.json").write_text(json.dumps({"config_hash": config_hash}))
        if run == "mine":
            with pytest.raises(ConfigError, match=r"run mine did not.*--weights.base=mine"):
                train_prerequisites(hr(), ALL, [])
            assert trained == []
    train_prerequisites(hr(), ALL, [])
    assert [cfg.resume for cfg in trained] == ["auto"]


def test_processes_of_a_launcher_train_nothing_each_for_itself(trained, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    train_prerequisites(hr(), ALL, [])
    assert trained == []


def test_a_run_is_not_resumed_on_another_base_than_its_own(root, tmp_path):
    old, new = (root / f"saved/HyperLipsBase/Synthetic/{n}/checkpoints/best.ckpt" for n in "ab")
    for number, path in enumerate((old, new)):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"base %d" % number)
        (path.parents[1] / "summary.json").write_text("{}")
        os.utime(path, (number, number))
    state = {
        "format": CHECKPOINT_FORMAT,
        "frozen_weights": {"base": {"path": str(old), "sha256": sha256_of(old)}},
    }
    torch.save(state, tmp_path / "last.ckpt")
    with pytest.raises(ConfigError) as caught:
        require_same_components(hr(), tmp_path / "last.ckpt")
    assert f"--weights.base={old}" in str(caught.value) and "b/checkpoints" in str(caught.value)
    require_same_components(hr(**{"weights.base": str(old)}), tmp_path / "last.ckpt")
    new.unlink()
    require_same_components(hr(), tmp_path / "last.ckpt")
    old.write_bytes(b"trained further")
    with pytest.raises(ConfigError, match=r"has changed since, or is gone.*--resume=false"):
        require_same_components(hr(**{"weights.base": str(old)}), tmp_path / "last.ckpt")


@pytest.mark.parametrize("name", ["HyperLipsBase", "SyncNet"])
def test_components_that_are_not_required_are_never_trained(trained, name):
    train_prerequisites(load_config(name, "Synthetic", preset="tiny"), ALL, [])
    assert trained == []


def test_only_settings_are_kept_from_the_earlier_model_that_mean_another_thing_there():
    fields = load_config("HyperLipsHR", "Synthetic").to_dict()
    assert prerequisites._OWN - set(fields) <= {"preset"}
