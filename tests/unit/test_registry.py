"""The registry: YAML files are the entries, nothing is imported to list them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from talkingface.errors import ConfigError, EnvironmentProblem
from talkingface.registry import KINDS, Registry, get_registry, import_target, plugin_folders
from talkingface.utils.paths import REPOSITORY

ENTRIES = [
    (kind, name) for kind in KINDS for name in Registry().names(kind)
]  # read at collection, so that each entry is a test of its own


@pytest.mark.parametrize(("kind", "name"), ENTRIES, ids=lambda value: value)
def test_every_entry_is_described_and_its_classes_exist(kind, name):
    registry = get_registry()
    entry = registry.entry(kind, name)
    assert len(entry.summary) > 10
    roles = ["metric"] if kind == "metric" else list(entry.meta.get("classes") or {})
    for role in roles:
        assert isinstance(registry.resolve(entry, role), type), (name, role)
    if kind == "model":
        assert "model" in roles
        assert {"dataset", "pipeline"} & set(roles)  # without a dataset it only joins others
    if kind == "dataset":
        assert entry.meta.get("licence") and entry.meta.get("origin")
    if kind == "metric":
        directions = {item["direction"] for item in entry.meta["outputs"].values()}
        assert directions <= {"up", "down", "zero", "real", "none"}


@pytest.mark.parametrize("typed", ["hyperlipsbase", "HYPERLIPSBASE", "HyperLipsBase"])
def test_a_name_is_found_in_any_case(typed):
    assert get_registry().entry("model", typed).name == "HyperLipsBase"


def test_dashes_and_underscores_are_the_same():
    assert get_registry().entry("metric", "lmd-V").name == "LMD_v"


@pytest.mark.parametrize(
    ("kind", "typed", "nearest"),
    [
        ("model", "HyperLipBase", "HyperLipsBase"),
        ("dataset", "HDFT", "HDTF"),
        ("metric", "PNSR", "PSNR"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_and_all_known_ones(kind, typed, nearest):
    registry = get_registry()
    with pytest.raises(ConfigError) as caught:
        registry.entry(kind, typed)
    assert f"no {kind} called '{typed}'" in str(caught.value)
    assert f"Did you mean '{nearest}'" in str(caught.value)
    assert all(name in str(caught.value) for name in registry.names(kind))


def test_names_are_sorted_without_regard_to_case():
    for kind in KINDS:
        names = get_registry().names(kind)
        assert names == sorted(names, key=str.lower)


# -- files that are wrong --------------------------------------------------------------------------


def write(folder: Path, kind: str, name: str, text: str) -> Path:
    path = folder / "properties" / kind / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_two_files_of_one_name_are_refused_and_both_named(tmp_path):
    path = write(tmp_path, "model", "hyperlipsbase", "summary: a second one\n")
    with pytest.raises(ConfigError) as caught:
        Registry([tmp_path]).names("model")
    assert str(path) in str(caught.value)
    assert str(REPOSITORY / "properties/model/HyperLipsBase.yaml") in str(caught.value)


def test_a_name_that_differs_from_its_file_is_refused(tmp_path):
    path = write(tmp_path, "dataset", "Mine", "name: Yours\n")
    with pytest.raises(ConfigError, match="Yours.*must equal the file name 'Mine'") as caught:
        Registry([tmp_path]).names("dataset")
    assert str(path) in str(caught.value)


def test_an_unknown_role_is_refused_with_line_and_nearest(tmp_path):
    path = write(tmp_path, "model", "Mine", "summary: x\nclasses:\n  modle: a.b:C\n")
    with pytest.raises(ConfigError) as caught:
        Registry([tmp_path]).names("model")
    assert f"{path}:3" in str(caught.value) and "'model'" in str(caught.value)


def test_an_unknown_key_of_a_metric_is_refused_with_line_and_nearest(tmp_path):
    path = write(tmp_path, "metric", "Mine", "summary: x\noutput: {}\n")
    with pytest.raises(ConfigError) as caught:
        Registry([tmp_path]).names("metric")
    assert f"{path}:2" in str(caught.value) and "'outputs'" in str(caught.value)


def test_a_plugin_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ConfigError, match="plugin_path.*gone does not exist"):
        Registry([tmp_path / "gone"])


# -- importing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("talkingface.errors", "must have the form"),
        ("talkingface.nothing_here:Class", "no Python module 'talkingface.nothing_here'"),
        ("talkingface.errors:Nothing", "has no 'Nothing'"),
    ],
)
def test_a_wrong_target_says_where_it_stands(target, words):
    with pytest.raises(ConfigError) as caught:
        import_target(target, "some.yaml (classes.model)")
    assert words in str(caught.value) and "some.yaml (classes.model)" in str(caught.value)


def test_a_module_that_needs_a_missing_package_says_how_to_install_it(tmp_path, monkeypatch):
    (tmp_path / "needs_a_package.py").write_text("import no_such_package.part\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(EnvironmentProblem) as caught:
        import_target("needs_a_package:Model", "some.yaml", [tmp_path])
    assert "pip install no_such_package" in str(caught.value)


def test_a_role_without_a_class_says_which_file_lacks_it():
    registry = get_registry()
    entry = registry.entry("model", "SyncExpert")
    with pytest.raises(ConfigError, match="SyncExpert.yaml.*'pipeline'"):
        registry.resolve(entry, "pipeline")


# -- where entries come from -----------------------------------------------------------------------


def test_plugin_folders_come_from_the_setting_and_the_environment(monkeypatch):
    monkeypatch.setenv("TALKINGFACE_PLUGINS", "/c:/a")
    assert plugin_folders("/a:/b") == ("/a", "/b", "/c")
    assert plugin_folders(["/b"]) == ("/b", "/c", "/a")
    assert plugin_folders() == ("/c", "/a")


def test_the_project_folder_may_add_entries_of_its_own(root):
    write(root, "dataset", "OnlyHere", "summary: made by a user\n")
    assert "OnlyHere" in get_registry().names("dataset")


def test_a_model_that_lists_its_datasets_supports_only_those(tmp_path):
    write(tmp_path, "model", "Picky", "summary: x\ndatasets: [hdtf]\n")
    registry = Registry([tmp_path])
    picky = registry.entry("model", "picky")
    supported = [
        name
        for name in registry.names("dataset")
        if registry.supports(picky, registry.entry("dataset", name))
    ]
    assert supported == ["HDTF"]


def test_an_alias_finds_its_entry(tmp_path):
    write(tmp_path, "model", "Renamed", "summary: x\naliases: [old_name]\n")
    assert Registry([tmp_path]).entry("model", "OLD-NAME").name == "Renamed"
