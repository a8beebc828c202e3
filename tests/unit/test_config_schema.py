"""Strictness: no unknown key, no wrong type, and messages that say what, where and how."""

from __future__ import annotations

import pytest
from conftest import dataset_for

from talkingface.config.config import iter_fields, load_config
from talkingface.config.reference import explain_key, print_config
from talkingface.errors import ConfigError
from talkingface.registry import get_registry
from talkingface.utils.suggest import nearest

PAIR = ("HyperLipsBase", "Synthetic")


def refused(**settings) -> str:
    """Message of a configuration that must not be accepted."""
    with pytest.raises(ConfigError) as caught:
        load_config(*PAIR, cli={key.replace("__", "."): value for key, value in settings.items()})
    assert caught.value.exit_code == 2
    return str(caught.value)


MISSPELT = {
    "learning_rat": "learning_rate",
    "bacth_size": "batch_size",
    "seeed": "seed",
    "loss__syncnet_w": "loss.syncnet_wt",
    "optim__ema": "optim.ema_decay",
    "model_params__image_sizee": "model_params.image_size",
    "syntetic__clips": "synthetic",
    "gpu": "device",
    "fp16": "precision",
    "early_stopping": "stopping_step",
}


@pytest.mark.parametrize(("typed", "meant"), MISSPELT.items())
def test_an_unknown_key_is_refused_with_the_nearest_one(typed, meant):
    message = refused(**{typed: 1})
    assert f"unknown key '{typed.split('__')[0]}" in message
    assert f"'{meant}" in message
    assert "command line" in message and "--explain" in message


def test_an_unknown_key_in_a_file_is_named_with_its_line(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 1\nloss:\n  l1_wt: 1.0\n  dics_wt: 0.1\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(*PAIR, config_files=[path])
    assert "mine.yaml:4" in str(caught.value)
    assert "loss.disc_wt" in str(caught.value)


WRONG = {
    "epochs": "many",
    "batch_size": 0,
    "learning_rate": -1e-4,
    "shuffle": "perhaps",
    "precision": "fp8",
    "device": "gpu0",
    "optim__scheduler": "cosin",
    "make_split": [0.5, 0.5],
    "seed": -1,
    "model_params__image_size": 65,
}


@pytest.mark.parametrize(("key", "value"), WRONG.items())
def test_a_wrong_value_is_refused_with_key_value_and_place(key, value):
    message = refused(**{key: value})
    assert key.replace("__", ".") in message
    assert str(value) in message or repr(value) in message
    assert "command line" in message


def test_all_wrong_settings_are_listed_at_once():
    message = refused(epochs="many", batch_size=0, learning_rat=1)
    assert message.startswith("3 settings are wrong:")
    assert all(word in message for word in ("epochs", "batch_size", "learning_rat"))


def test_numbers_without_a_point_fit_where_a_float_is_wanted():
    cfg = load_config(*PAIR, cli={"learning_rate": 1, "save_minutes": 2})
    assert cfg.learning_rate == 1.0 and cfg.save_minutes == 2.0


def test_metrics_may_be_one_name_a_comma_list_or_a_list_in_any_spelling():
    for value in ("lmd, Ssim", ["LMD", "ssim"]):
        assert load_config(*PAIR, cli={"metrics": value}).metrics == ["LMD", "SSIM"]
    assert load_config(*PAIR, cli={"metrics": "psnr"}).metrics == ["PSNR"]


def test_an_unknown_metric_is_refused_with_the_nearest_one():
    message = refused(metrics=["LMDD"])
    assert "no metric called 'LMDD'" in message and "'LMD'" in message


def test_a_parameter_that_a_metric_does_not_have_is_refused_before_the_training():
    message = refused(metric_params__SSIM__kidn="uniform7")
    assert "metric_params.SSIM.kidn" in message and "'kind'" in message


def test_parameters_of_an_unknown_metric_are_refused_with_their_place():
    message = refused(metric_params__SIMM__kind="uniform7")
    assert "metric_params (command line)" in message and "'SSIM'" in message


def test_the_name_in_metric_params_becomes_canonical():
    cfg = load_config(*PAIR, cli={"metric_params.ssim.kind": "uniform7"})
    assert cfg.metric_params == {"SSIM": {"kind": "uniform7"}}


def test_a_criterion_that_no_metric_gives_is_refused_before_the_training():
    message = refused(valid_metric="PSNR_moth")
    assert "valid_metric" in message and "'PSNR_mouth'" in message


@pytest.mark.parametrize(
    ("criterion", "goal"),
    [
        ("jitter", "the real video's value"),
        ("AV_offset", "zero"),
        ("E_ratio", "the real video's value"),
        ("E_O", "neither a large nor a small value"),
    ],
)
def test_a_criterion_that_should_neither_rise_nor_fall_is_refused(criterion, goal):
    message = refused(valid_metric=criterion, metrics=["PSNR", "jitter", "LSE", "TCM"])
    assert f"valid_metric = '{criterion}'" in message and f"its goal is {goal}" in message
    offered = message[message.index("(PSNR") :]
    assert "LSE_D" in offered and "E_V" in offered
    names = offered.strip("(). ").split(", ")
    assert criterion not in names and "jitter_ratio" not in names


@pytest.mark.parametrize("criterion", ["loss", "loss/l1", "PSNR_mouth"])
def test_losses_and_outputs_of_the_metrics_are_criteria(criterion):
    assert load_config(*PAIR, cli={"valid_metric": criterion}).valid_metric == criterion


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"stages": ["trian"]}, ("stages", "'train'")),
        ({"baselines": ["reel"]}, ("baselines", "'real'")),
        ({"make_split": [0.5, 0.5, 0.5]}, ("make_split", "add up to 1")),
    ],
)
def test_values_that_only_the_whole_can_judge_are_checked(settings, words):
    message = refused(**settings)
    assert all(word in message for word in words)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ConfigError) as caught:
        load_config(*PAIR, preset="tinny")
    assert "Did you mean 'tiny'?" in str(caught.value) and "paper" in str(caught.value)


def test_a_preset_is_matched_in_any_spelling():
    assert load_config(*PAIR, preset="TINY").epochs == load_config(*PAIR, preset="tiny").epochs


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_an_unknown_name_is_refused_with_the_nearest_one(kind):
    names = dict(zip(("model", "dataset"), PAIR, strict=True))
    typed = names[kind][:-1]
    with pytest.raises(ConfigError) as caught:
        load_config(**{**names, kind: typed})
    assert f"no {kind} called '{typed}'" in str(caught.value)
    assert f"Did you mean '{names[kind]}'" in str(caught.value)


def test_a_configuration_is_read_only_and_knows_its_keys():
    cfg = load_config(*PAIR)
    assert cfg["loss.disc_wt"] == cfg.loss.disc_wt == 0.2
    assert "loss.disc_wt" in cfg and "loss.nothing" not in cfg
    assert set(cfg) >= {"seed", "model_params", "synthetic"} and len(cfg) == len(list(cfg))
    with pytest.raises(ConfigError, match="'loss.disc_wt'"):
        cfg["loss.dics_wt"]
    with pytest.raises(AttributeError):
        cfg.no_such_key  # noqa: B018


@pytest.mark.parametrize("model", get_registry().names("model"))
@pytest.mark.parametrize("dataset", get_registry().names("dataset"))
def test_every_supported_pair_and_preset_is_valid_without_editing_a_file(model, dataset):
    registry = get_registry()
    entry = registry.entry("model", model)
    if not registry.supports(entry, registry.entry("dataset", dataset)):
        pytest.skip(f"{model} does not support {dataset}")
    assert "tiny" in entry.presets
    for preset in (None, *entry.presets):
        cfg = load_config(model, dataset, preset=preset)
        assert (cfg.model, cfg.dataset, cfg.preset) == (model, dataset, preset)
        assert not cfg.notes  # our own files use no old name


@pytest.mark.parametrize("model", get_registry().names("model"))
def test_every_key_is_described(model):
    cfg = load_config(model, dataset_for(model))
    bare = [key for key, info in iter_fields(cfg.schema) if not info.description]
    assert bare == []


def test_print_config_shows_every_key_with_its_source():
    cfg = load_config(*PAIR, cli={"loss.disc_wt": 0.5})
    lines = print_config(cfg).splitlines()
    shown = {line.split("=")[0].strip(): line for line in lines if " = " in line}
    leaves = {key for key, info in iter_fields(cfg.schema) if not hasattr(cfg[key], "model_dump")}
    # A mapping with free names is shown by its parts, or as {} when it is empty.
    free = {key for key in leaves if isinstance(cfg[key], dict)}
    assert leaves - free <= set(shown)
    assert shown["loss.disc_wt"].endswith("# command line") and "0.5" in shown["loss.disc_wt"]
    assert "properties/overall.yaml:" in shown["seed"]
    assert shown["log_wandb"].endswith("# default")


def test_explain_tells_type_limits_default_value_source_and_old_names():
    cfg = load_config(*PAIR, cli={"learning_rate": 3e-3})
    text = explain_key(cfg, "lr")
    assert text.startswith("learning_rate\n")
    for part in ("float (> 0)", "0.0001", "0.003", "# command line", "initial_learning_rate"):
        assert part in text


def test_explain_finds_a_key_by_its_last_name_in_all_sections():
    text = explain_key(load_config(*PAIR), "disc_wt")
    assert text.startswith("loss.disc_wt\n")


def test_explain_of_an_unknown_key_suggests_one():
    with pytest.raises(ConfigError, match="Did you mean 'learning_rate'"):
        explain_key(load_config(*PAIR), "leaning_rate")


def test_suggestions_are_near_and_few():
    known = ["learning_rate", "batch_size", "loss.disc_wt", "seed"]
    assert nearest("learning-rte", known) == ["learning_rate"]
    assert nearest("dics_wt", known) == ["loss.disc_wt"]
    assert nearest("zzzzzz", known) == []
