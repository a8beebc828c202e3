"""Sketches for stage 2 of HyperLips: alike at training and inference, and steady."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from talkingface.data.face.sketches import INPUT_SIZE, SketchMaker, draw_sketch


def points(shift: float = 0.0) -> np.ndarray:
    """478 points on a spiral within the crop, as shares of it; (478,2)."""
    turn = np.linspace(0, 40, 478)
    radius = np.linspace(0.1, 0.35, 478)
    return 0.5 + shift + radius[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)


class Seen:
    """A stand-in for the face mesher: what it finds in each picture, in order."""

    def __init__(self, found: list) -> None:
        self.found = list(found)

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        item = self.found.pop(0)
        return np.zeros((0, 478, 2)) if item is None else (item * 256)[None]


def sketches(found: list, smoothing: float) -> list:
    maker = SketchMaker(25, smoothing)
    maker._mesher = Seen(found)
    picture = np.zeros((INPUT_SIZE, INPUT_SIZE, 3), np.uint8)
    made = [item for number in range(len(found)) for item in maker.add(number, picture)]
    return made + list(maker.finish())


def test_a_sketch_is_black_and_white_and_its_lines_scale_with_the_picture():
    small, large = draw_sketch(points(), 128), draw_sketch(points(), 512)
    assert set(np.unique(small)) == set(np.unique(large)) == {0, 255}
    assert (small > 0).mean() == pytest.approx((large > 0).mean(), abs=0.01)


def test_every_picture_gets_its_sketch_in_order():
    made = sketches([points(i / 500) for i in range(9)], 0.04)
    assert [key for key, *_ in made] == list(range(9))
    assert all(line.shape == (INPUT_SIZE, INPUT_SIZE) for *_, line in made)


def test_without_smoothing_a_sketch_is_that_of_its_own_points():
    found = [points(i / 100) for i in range(4)]
    for (*_, line), own in zip(sketches(found, 0.0), found, strict=True):
        assert np.array_equal(line, draw_sketch(own, INPUT_SIZE))


def test_smoothing_halves_the_tremble_of_the_lines():
    rng = np.random.default_rng(0)
    found = [points() + rng.normal(0, 0.01, (478, 2)) for _ in range(20)]

    def tremble(smoothing: float) -> float:
        lines = [line.astype(float) for *_, line in sketches(found, smoothing)]
        pairs = zip(lines, lines[1:], strict=False)
        return float(np.mean([np.abs(a - b).mean() for a, b in pairs]))

    assert tremble(0.06) < 0.6 * tremble(0.0)


def test_a_picture_without_a_face_gets_the_sketch_before_it_and_does_not_reach_its_neighbours():
    before, after = [points()] * 3, [points(0.05)] * 3
    lines = [line for *_, line in sketches([None, *before, None, *after], 0.04)]
    assert not lines[0].any()
    for line, found in zip(lines[1:], [*before, points(), *after], strict=True):
        assert np.array_equal(line, draw_sketch(found, INPUT_SIZE))


def test_lines_of_the_official_generation_are_twice_as_thick():
    thin, thick = (draw_sketch(points(), 128, upstream=upstream) for upstream in (False, True))
    assert (thick > 0).sum() > 1.1 * (thin > 0).sum()
    assert (thick[thin > 0] > 0).mean() > 0.98


def test_two_shots_are_not_averaged():
    maker = SketchMaker(25, 0.04)
    maker._mesher = Seen([points()] * 3 + [points(0.05)] * 3)
    picture = np.zeros((INPUT_SIZE, INPUT_SIZE, 3), np.uint8)
    made = [item for n in range(6) for item in maker.add(n, picture, shot=n // 3)]
    for (*_, line), found in zip(
        [*made, *maker.finish()], [points()] * 3 + [points(0.05)] * 3, strict=True
    ):
        assert np.array_equal(line, draw_sketch(found, INPUT_SIZE))


def test_a_closed_maker_leaves_no_thread_behind():
    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    if not os.path.isdir("/proc/self/task"):
        pytest.skip("threads are counted on Linux only")
    with SketchMaker(25, 0.04):  # what stays after the first one stays once
        pass
    before = threads()
    for _ in range(4):
        with SketchMaker(25, 0.04):
            assert threads() >= before
    limit = time.monotonic() + 10
    while threads() > before and time.monotonic() < limit:
        time.sleep(0.05)  # the system takes a moment to remove a thread that has ended
    assert threads() <= before


def test_the_memory_does_not_grow():
    maker = SketchMaker(25, 0.04)
    maker._mesher = Seen([points()] * 200)
    picture = np.zeros((INPUT_SIZE, INPUT_SIZE, 3), np.uint8)
    for number in range(200):
        list(maker.add(number, picture))
        assert len(maker._waiting) <= 2 * maker.reach + 2
