"""Intervals, paired tests and the summary of a comparison."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from talkingface.comparison.stats import (
    bootstrap_interval,
    holm,
    lower_is_better_score,
    paired_p,
    stars,
    summarize,
)
from talkingface.evaluator.evaluator import RowResult


def row(name: str, key: str, values: list[float]) -> RowResult:
    return RowResult(name, {f"clip{i}": {key: v} for i, v in enumerate(values)})


def summary(rows: dict[str, list[float]], direction: str, **options) -> dict:
    made = [row(name, "X", values) for name, values in rows.items()]
    found = summarize(made, {"X": {"direction": direction}}, **options)
    return {name: cells["X"] for name, cells in found.items()}


def test_the_interval_holds_the_true_mean_in_about_95_percent_of_samples():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(60):
        low, high = bootstrap_interval(rng.normal(5, 2, 25))
        hits += low <= 5 <= high
    assert 50 <= hits <= 60


def test_the_interval_is_that_of_the_normal_distribution_for_many_values():
    values = np.random.default_rng(0).normal(0, 1, 400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - half, abs=0.01)
    assert high == pytest.approx(values.mean() + half, abs=0.01)


@pytest.mark.parametrize("values", [[], [1.0]])
def test_there_is_no_interval_of_fewer_than_two_values(values):
    assert all(math.isnan(v) for v in bootstrap_interval(values))


def test_equal_values_have_an_interval_without_width():
    assert bootstrap_interval([0.3] * 5) == (0.3, 0.3)


def test_p_is_the_share_of_sign_patterns_that_are_as_extreme():
    differences = np.array([0.5, 1.0, -0.2, 0.7, 0.4, 0.9])
    patterns = np.array(list(itertools.product([1, -1], repeat=6)))
    extreme = np.abs((patterns * differences).mean(1)) >= abs(differences.mean()) - 1e-12
    assert paired_p(differences) == pytest.approx(extreme.mean())


def test_p_of_no_difference_is_one_and_few_clips_never_reach_significance():
    assert paired_p([0.0] * 8) == 1.0
    assert paired_p([3.0]) == 1.0
    assert paired_p([1.0] * 5) == pytest.approx(2 / 32)
    assert paired_p([1.0] * 6) == pytest.approx(2 / 64)
    assert math.isnan(paired_p([]))


def test_p_values_repeat_exactly():
    values = np.random.default_rng(1).normal(0.3, 1, 30)
    assert paired_p(values) == paired_p(values)
    assert bootstrap_interval(values) == bootstrap_interval(values)


def test_holm_multiplies_by_the_number_of_tests_left_and_never_falls():
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": math.nan})
    assert found["a"] == pytest.approx(0.03)
    assert found["c"] == found["b"] == pytest.approx(0.06)
    assert math.isnan(found["d"])
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize(
    ("direction", "good", "bad"), [("up", 3, 1), ("down", 1, 3), ("zero", -1, 3), ("real", 4, 9)]
)
def test_smaller_badness_is_better_in_every_direction(direction, good, bad):
    assert lower_is_better_score(good, direction, 5.0) < lower_is_better_score(bad, direction, 5.0)


def test_differences_are_against_the_baseline_on_the_same_clips():
    found = summary(
        {"A": [1, 2, 3, 4, 5, 6, math.nan], "B": [2, 3, 4, 5, 6, 8, 100]},
        "down", baseline="B", real=None,
    )  # fmt: skip
    assert found["A"]["n"] == found["B"]["n"] == 6
    assert found["A"]["difference"] == pytest.approx(-7 / 6)
    assert found["A"]["p"] == pytest.approx(2 / 64)
    assert math.isnan(found["B"]["p"]) and math.isnan(found["B"]["difference"])
    assert found["A"]["best"] and not found["B"]["best"]


def test_nearness_to_the_real_video_is_judged_clip_by_clip():
    real = [10.0, 20, 30, 40, 50, 60]
    near = [v + (-1) ** i for i, v in enumerate(real)]
    far = [v + 5 for v in real]
    rows = {"near": near, "far": far, "real": real}
    found = summary(rows, "real", baseline="far", real="real")
    assert found["near"]["best"] and not found["far"]["best"] and not found["real"]["best"]
    assert found["near"]["p"] == pytest.approx(2 / 64)
    assert math.isnan(summary({"near": near, "far": far}, "real", baseline="far", real=None)
                      ["near"]["p"])  # fmt: skip


def test_the_real_video_is_never_the_best_and_a_single_system_neither():
    found = summary({"A": [1.0, 2], "real": [9.0, 9]}, "up", baseline="A", real="real")
    assert not any(cell["best"] for cell in found.values())


def test_a_row_without_any_value_does_not_count_against_the_others():
    found = summary({"A": [1.0, 2], "B": [math.nan] * 2}, "up", baseline="A", real=None)
    assert found["A"]["n"] == 2 and found["B"]["n"] == 0
    assert math.isnan(found["B"]["mean"]) and math.isnan(found["B"]["p"])


def test_stars_stand_for_p():
    assert [stars(p) for p in (0.2, 0.04, 0.001, math.nan, None)] == ["", "*", "**", "", ""]


def test_the_best_row_is_the_one_that_the_test_calls_better():
    swinging = [8.0, -8.0] * 4
    rows = {"swinging": swinging, "steady": [1.0, 0.9] * 4}
    found = summary(rows, "zero", baseline="steady", real=None)
    assert found["steady"]["best"] and not found["swinging"]["best"]
    assert found["swinging"]["p"] < 0.05


def test_nothing_is_best_where_all_rows_are_equal_or_no_direction_is_better():
    assert not any(c["best"] for c in summary({"A": [1.0, 2], "B": [1.0, 2]}, "up",
                                              baseline="A", real=None).values())  # fmt: skip
    assert not any(c["best"] for c in summary({"A": [1.0, 2], "B": [3.0, 2]}, "none",
                                              baseline="A", real=None).values())  # fmt: skip


@pytest.mark.parametrize(("clips", "best"), [(["a", "b"], True), (["a"], False)])
def test_pooled_values_compare_only_over_the_same_clips(clips, best):
    rows = [
        RowResult("A", pooled={"FID": 5.0}, pooled_clips={"FID": ["a", "b"]}),
        RowResult("B", pooled={"FID": 9.0}, pooled_clips={"FID": clips}),
    ]
    found = summarize(rows, {"FID": {"direction": "down"}}, baseline="A", real=None)
    assert found["A"]["FID"]["best"] is best and not found["B"]["FID"]["best"]
    assert math.isnan(found["B"]["FID"]["low"]) and found["A"]["FID"]["mean"] == 5.0
