"""tools/behaviour.py: what lasts is compared, what passes is not."""

from __future__ import annotations

import json

import pytest
from conftest import REPOSITORY

RUN = "HyperLipsBase-Synthetic-20261130-001124-13ffed"


@pytest.fixture
def behaviour(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "tools"))
    import behaviour

    return behaviour


def test_every_registered_model_is_recorded(behaviour):
    from talkingface.registry import Registry

    assert sorted(behaviour.ORDER) == sorted(Registry().names("model"))


def test_paths_runs_and_times_are_left_out(behaviour, tmp_path):
    value = {"a": f"{tmp_path}/saved/{RUN}/best.ckpt", "seconds": 3.0, "rows": [{"run_id": RUN}]}
    assert behaviour.lasting(value, tmp_path) == {
        "a": "<root>/saved/<run>/best.ckpt",
        "rows": [{}],
    }


def test_differences_name_the_place(behaviour):
    before = {"models": {"A": {"x": 1, "y": [1, 2]}, "B": {}}}
    after = {"models": {"A": {"x": 1, "y": [1, 3], "z": 0}}}
    assert behaviour.differences(before, before) == []
    assert behaviour.differences(before, after) == [
        "models / A / y / 1: 2 -> 3",
        "models / A / z: only after",
        "models / B: only before",
    ]


def test_files_are_compared_by_content_and_markers_by_what_they_say(behaviour, tmp_path):
    clip = tmp_path / "id0/clip"
    clip.mkdir(parents=True)
    (clip / "mel.npy").write_bytes(b"1")
    marker = tmp_path / ".status/id0/clip.json"
    marker.parent.mkdir(parents=True)

    def write(changed: float, frames: int) -> dict[str, str]:
        content = {"inputs": [["clip.mp4", 10, "hash"]]}
        status = {"fingerprint": content, "times": [changed], "frames": frames, "seconds": changed}
        marker.write_text(json.dumps(status))
        return behaviour.files(tmp_path)

    first = write(1.0, 25)
    assert write(2.0, 25) == first
    assert write(2.0, 24) != first
    (clip / "mel.npy").write_bytes(b"2")
    assert write(1.0, 25) != first


def test_settings_and_their_explanations_are_the_same_twice(behaviour):
    first = behaviour.texts("SyncNet")
    assert first == behaviour.texts("SyncNet")
    assert any(line.startswith("learning_rate") for line in first["print_config"])
    assert first["explain"]["learning_rate"].startswith("learning_rate")
