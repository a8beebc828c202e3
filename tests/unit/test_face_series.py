"""Values over time: gaps, smoothing and runs. (Filling and smoothing alone: test_face_boxes.py.)"""

from __future__ import annotations

import numpy as np
import pytest

from talkingface.data.face.series import fill_gaps, runs, smooth, smooth_runs


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([], []),
        ([4], [(0, 1)]),
        ([0, 0, 0], [(0, 3)]),
        ([-1, 0, 0, -1, 1, 1], [(0, 1), (1, 3), (3, 4), (4, 6)]),
    ],
)
def test_runs_are_stretches_of_equal_values(labels, expected):
    assert list(runs(np.array(labels, int))) == expected


def test_a_step_stays_sharp_between_two_segments():
    values = np.repeat([0.0, 100.0], 20)[:, None]
    labels = np.repeat([0, 1], 20)
    assert np.array_equal(smooth_runs(values, 3.0, labels), values)
    assert 10 < smooth_runs(values, 3.0)[19, 0] < 50  # without segments it does not


def test_gaps_inside_a_segment_are_filled_and_frames_outside_are_not():
    values = np.arange(10.0)[:, None]
    values[[3, 4]] = np.nan
    labels = np.array([0] * 6 + [-1] * 2 + [1] * 2)
    result = smooth_runs(values, 0.0, labels)[:, 0]
    assert result[:6].tolist() == [0, 1, 2, 3, 4, 5]
    assert np.isnan(result[6:8]).all()
    assert result[8:].tolist() == [8, 9]


def test_a_gap_at_the_border_of_a_segment_is_not_filled_from_the_next_one():
    values = np.array([1.0, np.nan, np.nan, 7.0])[:, None]
    result = smooth_runs(values, 1.0, np.array([0, 0, 1, 1]))[:, 0]
    np.testing.assert_allclose(result, [1, 1, 7, 7])


def test_a_segment_without_any_value_stays_unknown():
    values = np.full((6, 2), np.nan)
    values[:3] = 1
    result = smooth_runs(values, 2.0, np.array([0, 0, 0, 1, 1, 1]))
    assert (result[:3] == 1).all() and np.isnan(result[3:]).all()


def test_a_frame_with_one_unknown_number_is_unknown_as_a_whole():
    values = np.array([[0.0, 0.0], [50.0, np.nan], [2.0, 2.0]])
    assert fill_gaps(values).tolist() == [[0, 0], [1, 1], [2, 2]]


def test_smoothing_is_a_gaussian_of_the_given_deviation():
    impulse = np.zeros((61, 1))
    impulse[30] = 1
    result = smooth(impulse, 4.0)[:, 0]
    offset = np.arange(61) - 30
    assert result.sum() == pytest.approx(1)
    assert np.sqrt((result * offset**2).sum()) == pytest.approx(4.0, rel=0.03)  # cut at 3 sigma


def test_every_number_of_a_frame_is_smoothed_on_its_own():
    values = np.random.default_rng(0).normal(size=(30, 4, 3))
    whole = smooth_runs(values, 2.0)
    assert whole.shape == values.shape
    np.testing.assert_array_equal(whole[:, 2, 1], smooth(values[:, 2, 1], 2.0))
