"""The metrics seam and LipLeak on pictures and points whose values are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from talkingface.evaluator.metrics.lip_leak import mouth_aspect_ratio
from talkingface.evaluator.metrics.seam import border_gradients

RNG = np.random.default_rng(2)
FACE = cv2.resize(RNG.integers(90, 170, (12, 12, 3), np.uint8), (160, 160))


def put(weights: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Another picture on the face."""
    mixed = FACE + weights[..., None] * (other.astype(float) - FACE)
    return np.rint(mixed).astype(np.uint8)


def box(blur: float) -> np.ndarray:
    weights = np.zeros((160, 160))
    weights[80:150, 30:130] = 1
    return cv2.GaussianBlur(weights, (0, 0), blur) if blur else weights


def ratio(picture: np.ndarray) -> float:
    generated, real = border_gradients(picture, FACE, 4.0)
    return generated / real


def test_a_visible_box_has_a_large_seam_and_a_soft_one_has_not():
    lighter = np.clip(FACE.astype(int) + 30, 0, 255)
    hard, soft = (ratio(put(box(blur), lighter)) for blur in (0, 12))
    assert hard > 3
    assert soft < hard / 2.5


def test_another_mouth_without_a_border_has_no_seam():
    """Inside, everything is different; at the border, nothing is."""
    y, x = np.indices((160, 160))
    fade = np.clip(1.6 - np.hypot((x - 80) / 40, (y - 115) / 28), 0, 1)
    moved = np.roll(FACE, 9, axis=0)
    assert ratio(put(cv2.GaussianBlur(fade, (0, 0), 5), moved)) < 1.1


def test_nothing_changed_is_no_seam():
    assert border_gradients(FACE, FACE, 4.0) is None
    noise = np.clip(FACE + RNG.normal(0, 1, FACE.shape), 0, 255).astype(np.uint8)
    assert border_gradients(noise, FACE, 4.0) is None


@pytest.mark.parametrize(("gap", "expected"), [(10.0, 0.375), (20 / 3, 0.25), (0.0, 0.0)])
def test_the_mouth_aspect_ratio_is_three_gaps_over_twice_the_width(gap, expected):
    """Values of KeySync's formula: three gaps of 10 at a width of 40 give 0.375."""
    points = np.zeros((2, 478, 3))
    points[:, 308, 0] = 40
    for upper, lower in ((81, 178), (13, 14), (311, 402)):
        points[:, upper, 1], points[:, lower, 1] = -gap / 2, gap / 2
    points[1, 13] = np.nan
    found = mouth_aspect_ratio(points)
    assert found[0] == pytest.approx(expected) and np.isnan(found[1])
