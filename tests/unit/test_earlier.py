"""A model that stands on another one: that one is trained first where there is none."""

from __future__ import annotations

import pytest

from talkingface.config.config import load_config
from talkingface.quick_start import earlier, quick_start
from talkingface.quick_start.earlier import train_earlier_stages

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
    settings = {"device": "cpu", "synthetic.clips": 5, "epochs": 1, "face": "left"}
    own = {"batch_size": 3, "loss.disc_wt": 0.5, "metrics": ["LMD"], "resume": False}
    train_earlier_stages(hr(**settings, **own), ALL, [])
    (base,) = trained
    assert (base.model, base.dataset, base.preset) == ("HyperLipsBase", "Synthetic", "tiny")
    assert (base.device, base.synthetic.clips, base.epochs) == ("cpu", 5, 1)
    assert base.face.choose == "left" and base.resume == "auto"
    plain = load_config("HyperLipsBase", "Synthetic", preset="tiny")
    assert base.batch_size == plain.batch_size and base.metrics == plain.metrics
    assert base.loss == plain.loss


@pytest.mark.parametrize(
    ("settings", "stages"),
    [
        ({"weights.base": "run7"}, ALL),  # named: missing files are an error, not a training
        ({}, ("evaluate",)),
        ({"devices": 2}, ALL),
    ],
)
def test_nothing_is_trained_where_weights_are_named_or_nothing_is_to_be_learned(
    trained, settings, stages
):
    train_earlier_stages(hr(**settings), stages, [])
    assert trained == []


def test_a_base_that_exists_is_used(trained, root):
    run = root / "saved/HyperLipsBase/Synthetic/run1/checkpoints"
    run.mkdir(parents=True)
    (run / "best.ckpt").write_bytes(b"x")
    train_earlier_stages(hr(), ALL, [])
    assert trained == []


@pytest.mark.parametrize("name", ["HyperLipsBase", "SyncNet"])
def test_helpers_that_are_not_required_are_never_trained(trained, name):
    train_earlier_stages(load_config(name, "Synthetic", preset="tiny"), ALL, [])
    assert trained == []


def test_only_settings_are_kept_from_the_earlier_model_that_mean_another_thing_there():
    fields = load_config("HyperLipsHR", "Synthetic").to_dict()
    assert earlier._OWN - set(fields) <= {"preset"}
