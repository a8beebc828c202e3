"""The choice of frames that show a person well."""

from __future__ import annotations

import numpy as np

from talkingface.data.face.portrait import facing, presentable, sharpest


def still_face(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return 100 + rng.normal(0, 0.1, (count, 478, 2))


def test_blinks_and_fast_movements_are_not_presentable():
    eyes, points = np.full(50, 0.3), still_face(50)
    eyes[10:14] = (0.2, 0.05, 0.1, 0.26)  # also a lid on its way
    points[30:] += 8  # a jerk between 29 and 30
    good = presentable(eyes, points)
    assert not good[10:14].any()
    assert not good[[29, 30]].any()
    assert good[[0, 5, 20, 40]].all()


def test_few_frames_are_all_presentable():
    eyes, points = np.array([0.3, 0.05, 0.3, 0.3]), still_face(4)
    assert presentable(eyes, points).all()
    assert presentable(eyes[:1], points[:1]).all()  # a picture


def test_mostly_moving_heads_keep_their_open_eyes():
    eyes = np.full(12, 0.3)
    eyes[3] = 0.1
    points = still_face(12) + np.cumsum(np.array([0, 9] * 6))[:, None, None]
    good = presentable(eyes, points)
    assert not good[3]
    assert good.sum() == 11


def test_the_face_to_the_camera_with_a_resting_mouth_comes_first():
    angle = np.array([20.0, 2.0, 3.0, 1.0, 15.0])
    mouth = np.array([0.02, 0.03, 0.02, 0.4, 0.02])
    assert facing(angle, mouth)[0] == 2
    assert set(facing(angle, mouth)[:2]) == {1, 2}


def test_the_sharpest_of_the_first_frames():
    rng = np.random.default_rng(1)
    sharp = rng.integers(0, 255, (32, 32, 3), np.uint8)
    pictures = [sharp // 4, sharp // 2, sharp // 8, sharp // 3, sharp // 4, sharp]
    assert sharpest(pictures, range(6)) == 1  # the sixth one is no longer asked for
