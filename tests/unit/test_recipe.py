"""--recipe: stages in order, wired together, resumable, wrong ones explained before any work."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from talkingface.config.config import load_config
from talkingface.errors import ConfigError
from talkingface.quick_start import quick_start
from talkingface.quick_start.recipe import (
    Stage,
    connect,
    divide,
    needed_stages,
    read_stages,
    run_recipe,
)
from talkingface.registry import get_registry

STAGES = [
    {"name": "expert", "model": "SyncExpert"},
    {"name": "base", "model": "HyperLipsBase", "inputs": {"weights.sync_expert": "expert"}},
]


def entry(stages: Any, path: str = "r.yaml") -> SimpleNamespace:
    return SimpleNamespace(meta={"stages": stages}, path=Path(path), name="r")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, root: Path) -> list:
    """Configurations that would have been trained; each leaves a checkpoint."""
    seen: list = []

    def fake(cfg, command=()):
        seen.append(cfg)
        folder = root / "saved" / cfg.model / cfg.dataset / f"run{len(seen)}" / "checkpoints"
        folder.mkdir(parents=True)
        (folder / "best.ckpt").write_bytes(b"x")
        return quick_start.RunResult(folder.parent, folder / "best.ckpt")

    monkeypatch.setattr(quick_start, "run_config", fake)
    return seen


def recipe(**config: Any) -> int:
    options = {"recipe": "hyperlips"}
    common = {"dataset": "Synthetic", "preset": "tiny"}
    if "base" not in config:
        common["base.data.syncnet_T"] = 5  # with a sync loss
    return run_recipe(options, {**common, **config})


def test_stages_run_in_order_and_take_what_earlier_ones_made(runs):
    assert recipe() == 0
    assert [cfg.model for cfg in runs] == ["SyncExpert", "HyperLipsBase", "HyperLipsHR"]
    assert runs[1].weights.sync_expert.endswith("SyncExpert/Synthetic/run1/checkpoints/best.ckpt")
    assert runs[2].weights.base.endswith("HyperLipsBase/Synthetic/run2/checkpoints/best.ckpt")
    assert {cfg.preset for cfg in runs} == {"tiny"} and {cfg.resume for cfg in runs} == {"auto"}


CONNECTIONS = {
    "a2p": {
        "face": {"weights.lips": "lip"},
        "guide": {"weights.vq": "vq"},
        "whole": {f"weights.{name}": name for name in ("face", "pose", "guide", "vq")},
    },
    "a2p_video": {"face": {"weights.lips": "lip"}, "whole": {"weights.face": "face"}},
    "headgan": {"pictures": {"weights.audio2exp": "speech"}},
    "hyperlips": {"base": {"weights.sync_expert": "expert"}, "hr": {"weights.base": "base"}},
    "lsp": {
        "mouth": {"weights.apc": "apc"},
        "head": {"weights.apc": "apc"},
        "portrait": {
            "weights.apc": "apc",
            "weights.audio2feature": "mouth",
            "weights.audio2headpose": "head",
            "weights.feature2face": "face",
        },
    },
    "moda": {
        "portrait": {
            "weights.moda": "motion",
            "weights.faco": "face",
            "weights.renderer": "pictures",
        }
    },
}


@pytest.mark.parametrize("name", get_registry().names("recipe"))
def test_declared_components_connect_the_stages(name):
    stages = read_stages(get_registry().entry("recipe", name))
    dataset = "SyntheticDyad" if name == "a2p" else "Synthetic"
    connected = connect(stages, lambda stage, _: load_config(stage.model, dataset))
    assert {s.name: s.inputs for s in connected if s.inputs} == CONNECTIONS[name]


def test_the_same_command_again_does_nothing_and_a_lost_checkpoint_is_made_again(runs):
    recipe()
    recipe()
    assert len(runs) == 3
    Path(runs[2].weights.base).unlink()
    recipe()
    # The base is trained again, and what stands on it too: its file is another one now.
    assert [cfg.model for cfg in runs[3:]] == ["HyperLipsBase", "HyperLipsHR"]


def test_a_stopped_recipe_goes_on_with_the_stage_that_was_stopped(runs, monkeypatch):
    work = quick_start.run_config

    def stopped(cfg, command=()):
        if cfg.model == "HyperLipsBase":
            raise KeyboardInterrupt
        return work(cfg, command)

    monkeypatch.setattr(quick_start, "run_config", stopped)
    with pytest.raises(KeyboardInterrupt):
        recipe()
    monkeypatch.setattr(quick_start, "run_config", work)
    recipe()
    assert [cfg.model for cfg in runs] == ["SyncExpert", "HyperLipsBase", "HyperLipsHR"]


def test_settings_of_a_stage_go_to_it_alone_and_given_weights_replace_it(runs):
    recipe(**{"base.max_steps": 7, "expert": None})
    assert [cfg.model for cfg in runs] == ["HyperLipsBase", "HyperLipsHR"]
    assert runs[0].max_steps == 7 and runs[1].max_steps != 7
    assert runs[0].weights.sync_expert is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"base": None}, "weights.base"),
        ({"base": "typo.pth"}, "--base=typo.pth: there is no such file or run id"),
        ({"base": __file__, "expert.max_steps": 3}, "--expert.max_steps: the stage does not run"),
        ({"stages": ["preprocess"]}, "stage expert must train"),
        ({"base.saved": False}, "stage base must train and keep its checkpoint"),
        ({"base.max_stepz": 1}, "max_stepz"),
        ({"dataset": None}, "needs --dataset"),
        ({"preset": "huge"}, "huge"),
        ({"loss.disc_wt": 1}, "unknown key 'loss'"),  # only some stages have it: base.loss.disc_wt
    ],
)
def test_wrong_keys_are_found_before_any_stage_runs(runs, config, message):
    with pytest.raises(ConfigError, match=message):
        recipe(**config)
    assert runs == []


def test_stages_that_no_other_needs_run_all_the_same():
    wires = {"a": [], "b": ["a"], "c": [], "d": ["c"]}
    stages = [Stage(n, "M", {f"weights.{s}": s for s in sources}) for n, sources in wires.items()]
    assert needed_stages(stages, {}) == {"a", "b", "c", "d"}
    assert needed_stages(stages, {"d": "x"}) == {"a", "b"}
    assert needed_stages(stages, {"a": None}) == {"b", "c", "d"}


def test_a_run_id_stands_for_its_checkpoint(runs, root):
    run = root / "saved/HyperLipsBase/Synthetic/mine/checkpoints"
    run.mkdir(parents=True)
    (run / "best.ckpt").write_bytes(b"x")
    recipe(base="mine")
    assert runs[0].weights.base == str(run / "best.ckpt")


def test_the_sync_expert_is_not_trained_for_a_base_without_sync_loss(runs):
    recipe(**{"base.data.syncnet_T": 1})
    assert [cfg.model for cfg in runs] == ["HyperLipsBase", "HyperLipsHR"]


def test_a_stage_that_nobody_needs_is_left_out(runs):
    recipe(base=__file__)
    assert [cfg.model for cfg in runs] == ["HyperLipsHR"]
    assert runs[0].weights.base == __file__


def test_a_stage_is_made_again_when_what_it_stands_on_was_trained_further(runs):
    recipe()
    Path(runs[2].weights.base).write_bytes(b"trained further")
    recipe()
    assert [cfg.model for cfg in runs[3:]] == ["HyperLipsHR"]


@pytest.mark.parametrize("flag", ["--dry_run", "--print_config", "--model=HyperLipsHR"])
def test_what_belongs_to_one_model_is_refused(run_cli, flag):
    done = run_cli(["--recipe=hyperlips", "--dataset=Synthetic", flag])
    assert done.returncode == 2 and "--model" in done.stderr


def test_keys_are_divided_by_the_name_they_begin_with():
    stages = read_stages(entry(STAGES))
    config = {"device": "cpu", "base.optim.beta": 1, "base": "run7", "based.x": 2}
    common, own, given = divide(stages, config)
    assert common == {"device": "cpu", "based.x": 2}
    assert own == {"expert": {}, "base": {"optim.beta": 1}} and given == {"base": "run7"}


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "needs stages"),
        ([{"name": "a"}], "needs name and model"),
        ([{"name": "a", "model": "M", "input": {}}], "unknown key 'input'"),
        ([{"name": "a", "model": "M", "inputs": {"weights.x": "b"}}], "is not an earlier stage"),
        ([{"name": "a", "model": "M"}, {"name": "a", "model": "M"}], "a second stage 'a'"),
    ],
)
def test_a_wrong_recipe_is_explained(stages, message):
    with pytest.raises(ConfigError, match=message):
        read_stages(entry(stages))


def test_every_recipe_of_the_toolkit_can_be_read():
    recipes = get_registry().entries("recipe")
    assert "hyperlips" in recipes
    for item in recipes.values():
        assert read_stages(item) and item.summary
