"""The YAML dialect: what a scalar means, what is refused, and where an error is said to be."""

from __future__ import annotations

import math

import pytest

from talkingface.errors import ConfigError
from talkingface.utils.yaml_files import key_lines, load_yaml, parse_value, parse_yaml

SCALARS = {
    "1e-4": 1e-4,
    "5e-4": 5e-4,
    "1.0e-4": 1e-4,
    "1E3": 1000.0,
    ".5": 0.5,
    "-2": -2,
    "010": 10,
    "0o17": "0o17",
    "0x10": "0x10",
    "1_000": "1_000",
    "1:30": "1:30",
    "2023-01-01": "2023-01-01",
    "true": True,
    "FALSE": False,
    "yes": "yes",
    "no": "no",
    "on": "on",
    "off": "off",
    "null": None,
    "~": None,
    "None": None,
    "'None'": "None",
    "'1e-4'": "1e-4",
}


@pytest.mark.parametrize(("text", "value"), SCALARS.items())
def test_a_scalar_means_the_same_in_a_file_and_on_the_command_line(text, value):
    from_file = parse_yaml(f"key: {text}")["key"]
    typed = parse_value(text)
    assert from_file == value and type(from_file) is type(value)
    assert typed == value and type(typed) is type(value)


def test_an_empty_value_is_null_and_infinity_is_a_float():
    assert parse_yaml("key:") == {"key": None}
    assert parse_yaml("key: .inf")["key"] == math.inf
    assert math.isnan(parse_yaml("key: .nan")["key"])


def test_flow_collections_are_read_on_the_command_line():
    assert parse_value("[LMD, NIQE]") == ["LMD", "NIQE"]
    assert parse_value("{a: 1e-4, b: [true, None]}") == {"a": 1e-4, "b": [True, None]}


@pytest.mark.parametrize("text", ["a b: c #d.mp4", "C:\\clips", "x=y", "*.mp4", "@me", "中文 名"])
def test_a_path_typed_on_the_command_line_stays_as_typed(text):
    assert parse_value(text) == text


@pytest.mark.parametrize(
    "text",
    ["!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!anything x"],
)
def test_a_tag_that_would_build_an_object_is_refused(text):
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse_yaml(f"key: {text}")


def test_code_typed_as_a_value_is_only_text():
    code = "__import__('os').system('true')"
    assert parse_value(code) == code


def test_a_repeated_key_is_an_error_with_file_line_and_column(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("seed: 1\nloss:\n  l1_wt: 1\n  l1_wt: 2\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_yaml(path)
    assert f"{path}:4:3" in str(caught.value)
    assert "l1_wt" in str(caught.value) and "given twice" in str(caught.value)


def test_a_repeated_key_in_a_flow_mapping_is_an_error_too():
    with pytest.raises(ConfigError, match="'a' is given twice"):
        parse_value("{a: 1, a: 2}")


def test_a_syntax_error_says_file_line_and_column(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("seed: 1\nmetrics: [LMD, NIQE\nepochs: 2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"{path}:3:\d+: not valid YAML"):
        load_yaml(path)


def test_merge_keys_and_anchors_still_work():
    text = "base: &base {a: 1, b: 2}\nmine:\n  <<: *base\n  b: 3\n"
    assert parse_yaml(text)["mine"] == {"a": 1, "b": 3}


def test_a_file_is_utf8_with_or_without_byte_order_mark(tmp_path):
    path = tmp_path / "文.yaml"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text("name: 合成\n", encoding=encoding)
        assert load_yaml(path)[0] == {"name": "合成"}
    path.write_bytes("name: Ärger\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="UTF-8"):
        load_yaml(path)


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n", "7\n"])
def test_a_file_must_hold_a_mapping(tmp_path, text):
    path = tmp_path / "list.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="key: value"):
        load_yaml(path)


def test_an_empty_file_sets_nothing(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("# only a comment\n", encoding="utf-8")
    assert load_yaml(path) == ({}, {})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="gone.yaml.*does not exist"):
        load_yaml(tmp_path / "gone.yaml")


def test_every_key_knows_its_line():
    assert key_lines("a: 1\nb:\n  c: 2\n  d: {e: 3}\n") == {
        "a": 1,
        "b": 2,
        "b.c": 3,
        "b.d": 4,
        "b.d.e": 4,
    }
