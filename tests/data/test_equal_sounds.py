"""Copies of a recording are one source, whatever their names: no copy is trained on and tested."""

from __future__ import annotations

from pathlib import Path

from talkingface.data.clips import Clip
from talkingface.data.dataprocess.engine import join_equal_sounds


def clip(name: str, source: str) -> Clip:
    return Clip(name, Path(name), Path(name), source=source)


def test_clips_of_the_same_sound_and_their_siblings_become_one_source():
    clips = [clip("a_0", "a"), clip("a_1", "a"), clip("b_0", "b"), clip("b_1", "b"), clip("c", "c")]
    sounds = {"a_0": "x", "a_1": "y", "b_0": "x", "b_1": "z", "c": "w"}
    markers = {name: {"sound": sound} for name, sound in sounds.items()}
    joined = {c.id: c.source for c in join_equal_sounds(clips, markers)}
    assert len({joined[n] for n in ("a_0", "a_1", "b_0", "b_1")}) == 1
    assert joined["c"] == "c"


def test_other_sounds_and_clips_without_one_stay_apart():
    clips = [clip("a", "a"), clip("b", "b"), clip("silent1", "s1"), clip("silent2", "s2")]
    markers = {"a": {"sound": "x"}, "b": {"sound": "y"}, "silent1": {}, "silent2": {}}
    assert join_equal_sounds(clips, markers) == clips
