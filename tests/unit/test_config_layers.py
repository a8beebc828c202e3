"""Layers of the configuration: who wins, how mappings merge, and where a value came from."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from talkingface.config.config import load_config
from talkingface.config.merge import Layer, flatten, merge_layers, nest
from talkingface.errors import ConfigError

# From low to high. Each writes one number into every layer from itself upwards.
LAYERS = [
    "built-in",
    "overall",
    "model",
    "dataset",
    "pair",
    "preset",
    "first file",
    "second file",
    "overrides",
    "command line",
]
DEFAULT = 16  # of batch_size in the schema


@pytest.fixture
def project(root: Path):
    """``project(*names)`` -> configuration in which the named layers set batch_size."""

    def write(path: str, text: str) -> Path:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        return target

    def build(*names: str):
        def line(name: str, indent: str = "") -> str:
            return f"{indent}batch_size: {100 + LAYERS.index(name)}\n" if name in names else ""

        write("properties/overall.yaml", "seed: 1\n" + line("overall"))
        write(
            "properties/model/Layered.yaml",
            "name: Layered\nsummary: a model for this test\ndatasets: [LayeredData]\n"
            + line("model")
            + "presets:\n  small:\n    seed: 5\n"
            + line("preset", "    "),
        )
        write(
            "properties/dataset/LayeredData.yaml",
            "name: LayeredData\nsummary: a dataset for this test\n" + line("dataset"),
        )
        write("properties/pair/Layered@LayeredData.yaml", "epochs: 3\n" + line("pair"))
        files = [
            write(f"{name}.yaml", "log_every: 3\n" + line(name))
            for name in ("first file", "second file")
        ]
        number = {name: 100 + LAYERS.index(name) for name in names}
        from talkingface.registry import refresh

        refresh()
        return load_config(
            "layered",
            "layereddata",
            config_files=files,
            overrides={"batch_size": number["overrides"]} if "overrides" in names else None,
            cli={"batch_size": number["command line"]} if "command line" in names else None,
            preset="small",
        )

    return build


@pytest.mark.parametrize("index", range(1, len(LAYERS)))
def test_each_layer_wins_over_the_one_below(project, index):
    lower, higher = LAYERS[index - 1], LAYERS[index]
    names = [name for name in (lower, higher) if name != "built-in"]
    assert project(*names).batch_size == 100 + index
    only_lower = project(*[name for name in (lower,) if name != "built-in"])
    assert only_lower.batch_size == (100 + index - 1 if lower != "built-in" else DEFAULT)


WHERE = {
    "overall": "properties/overall.yaml:2",
    "model": "properties/model/Layered.yaml:4",
    "dataset": "properties/dataset/LayeredData.yaml:3",
    "pair": "properties/pair/Layered@LayeredData.yaml:2",
    "preset": "properties/model/Layered.yaml preset small:7",
    "first file": "first file.yaml:2",
    "overrides": "overrides",
    "command line": "command line",
}


@pytest.mark.parametrize(("layer", "place"), WHERE.items())
def test_the_provenance_names_file_and_line(project, root, monkeypatch, layer, place):
    monkeypatch.chdir(root)
    assert project(layer).provenance["batch_size"] == place


def test_a_key_that_nobody_sets_has_no_provenance(project):
    cfg = project()
    assert "batch_size" not in cfg.provenance
    assert cfg.batch_size == DEFAULT


def test_names_are_stored_in_canonical_spelling(project):
    cfg = project()
    assert (cfg.model, cfg.dataset) == ("Layered", "LayeredData")


def test_the_dataset_may_be_refused_by_the_model(project):
    project()
    with pytest.raises(ConfigError, match="Layered cannot be trained on Synthetic.*LayeredData"):
        load_config("Layered", "Synthetic")


def test_a_dotted_key_keeps_its_siblings():
    before = load_config("HyperLipsBase", "Synthetic")
    after = load_config("HyperLipsBase", "Synthetic", cli={"loss.disc_wt": 0.5})
    assert after.loss.disc_wt == 0.5
    assert after.loss.syncnet_wt == before.loss.syncnet_wt == 0.03
    changed = {
        key
        for key, value in flatten(after.to_dict()).items()
        if flatten(before.to_dict())[key] != value
    }
    assert changed == {"loss.disc_wt"}


def test_a_nested_mapping_in_a_file_keeps_its_siblings_too(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("optim:\n  groups:\n    discriminator: {weight_decay: 0.1}\n")
    group = load_config("HyperLipsBase", "Synthetic", config_files=[path]).optim.groups[
        "discriminator"
    ]
    assert (group.weight_decay, group.learning_rate) == (0.1, 5e-4)


def test_lists_replace_and_are_not_appended():
    cfg = load_config("HyperLipsBase", "Synthetic", cli={"metrics": ["PSNR"]})
    assert cfg.metrics == ["PSNR"]


def test_null_sets_null():
    cfg = load_config(
        "HyperLipsBase", "Synthetic", overrides={"max_steps": 5}, cli={"max_steps": None}
    )
    assert cfg.max_steps is None
    assert cfg.provenance["max_steps"] == "command line"


def test_a_scalar_over_a_mapping_forgets_where_the_parts_came_from():
    layers = [Layer("low", {"a": {"b": 1, "c": 2}}), Layer("high", {"a": None})]
    assert merge_layers(layers) == ({"a": None}, {"a": "high"})


def test_an_empty_mapping_removes_nothing():
    layers = [Layer("low", {"a": {"b": 1}}), Layer("high", {"a": {}})]
    assert merge_layers(layers) == ({"a": {"b": 1}}, {"a.b": "low"})


def test_merging_changes_no_layer():
    low = Layer("low", {"a": {"b": 1}})
    merge_layers([low, Layer("high", {"a": {"b": 2}})])
    assert low.values == {"a": {"b": 1}}


def test_nest_and_flatten_are_each_others_reverse():
    flat = {"a.b.c": 1, "a.d": [1, 2], "e": None}
    assert nest(flat) == {"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None}
    assert flatten(nest(flat)) == flat


def test_a_section_that_is_also_given_a_plain_value_is_refused():
    with pytest.raises(ConfigError, match="'loss' already has a plain value"):
        nest({"loss": 3, "loss.l1_wt": 1})


def test_a_configuration_read_back_from_its_own_text_is_equal(tmp_path):
    cfg = load_config("HyperLipsBase", "Synthetic", cli={"loss.disc_wt": 0.5}, preset="tiny")
    path = tmp_path / "again.yaml"
    path.write_text(cfg.to_yaml(), encoding="utf-8")
    again = load_config(config_files=[path])
    assert again.to_dict() == cfg.to_dict()
    assert again.hash == cfg.hash


def test_the_hash_ignores_the_machine_and_sees_what_is_learned():
    plain = load_config("HyperLipsBase", "Synthetic").hash
    same = {"device": "cpu", "num_workers": 3, "epochs": 9, "results_dir": "elsewhere"}
    assert load_config("HyperLipsBase", "Synthetic", cli=same).hash == plain
    for key, value in {"seed": 7, "learning_rate": 3e-4, "loss.disc_wt": 0.3}.items():
        assert load_config("HyperLipsBase", "Synthetic", cli={key: value}).hash != plain, key


def test_a_configuration_travels_to_a_worker_process():
    cfg = load_config("HyperLipsBase", "Synthetic", cli={"loss.disc_wt": 0.5}, preset="tiny")
    again = pickle.loads(pickle.dumps(cfg))
    assert again.to_dict() == cfg.to_dict()
    assert again.provenance == cfg.provenance


def test_it_is_known_which_keys_came_from_one_source(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 3\nepochs: 4\n")
    cfg = load_config(
        "HyperLipsBase", "Synthetic", config_files=[path], cli={"batch_size": 2, "shuffle": False}
    )
    assert cfg.set_with("seed", "epochs") and cfg.set_with("batch_size", "shuffle")
    assert not cfg.set_with("seed", "batch_size")
    assert not cfg.set_with("devices", "n_such_key")


def test_a_finished_run_lies_below_config_files(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 3\n")
    cfg = load_config(
        "HyperLipsBase", "Synthetic", base={"seed": 1, "epochs": 9}, config_files=[path]
    )
    assert (cfg.seed, cfg.epochs) == (3, 9)


def test_paths_start_from_the_project_folder_and_may_use_variables(root, monkeypatch):
    monkeypatch.setenv("MY_CLIPS", "/somewhere/clips")
    cfg = load_config(
        "HyperLipsBase", "MEAD", cli={"data_root": "${MY_CLIPS}/mead", "root": "sets/mead"}
    )
    assert cfg.data_dir == Path("/somewhere/clips/mead")
    assert cfg.dataset_root == root / "sets/mead"
    assert cfg.processed_dir == root / "sets/mead/preprocessed_data"
    assert cfg.filelist("val") == root / "sets/mead/filelist/val.txt"


def test_a_tilde_is_the_home_folder():
    cfg = load_config("HyperLipsBase", "MEAD", cli={"root": "~/mead"})
    assert cfg.dataset_root == Path.home() / "mead"


def test_the_old_form_of_preprocessed_root_names_the_same_folder(root):
    from talkingface.registry import get_registry

    folders = set()
    for value in ("sets/mead/processed", "sets/mead/processed/imgs"):
        cfg = load_config("HyperLipsBase", "MEAD", cli={"preprocessed_root": value})
        process = get_registry().resolve(cfg.model_entry, "dataprocess")(cfg)
        folders.add(process.folder)
    assert folders == {root / "sets/mead/processed/imgs"}
