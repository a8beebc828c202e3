"""tools/sizes.py: how large the package, its families, files and contracts may be."""

from __future__ import annotations

import importlib

import pytest
from conftest import REPOSITORY


@pytest.fixture
def sizes(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "tools"))
    return importlib.import_module("sizes")


def test_everything_is_within_its_limit(sizes):
    found = {title: (count, sizes.ABOVE.get(title, limit)) for title, count, limit in sizes.rows()}
    assert {title: pair for title, pair in found.items() if pair[0] > pair[1]} == {}


def test_what_has_reached_its_limit_is_not_excused_any_more(sizes):
    assert {title for title, count, limit in sizes.rows() if count > limit} == set(sizes.ABOVE)


def test_what_is_counted(sizes):
    counts = sizes.by_family()
    assert set(counts) == {*sizes.FAMILIES, "framework"}
    assert counts["framework"] > 10_000 and min(counts.values()) > 100
    assert sizes.members("AbstractTalkingFace") == [
        *("batch_keys", "calculate_loss", "components", "forward", "forward_train"),
        *("main_network", "network", "networks", "origin", "phases", "statistics"),
    ]
