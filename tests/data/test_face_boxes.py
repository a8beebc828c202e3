"""Face boxes: steady over time, blind to the mouth, whole at gaps and picture borders."""

from __future__ import annotations

import numpy as np
import pytest

from talkingface.data.face.boxes import (
    MARGINS,
    crop_face,
    face_boxes,
    integer_box,
    landmark_box,
    resize_image,
)
from talkingface.data.face.series import fill_gaps, smooth
from talkingface.data.face.topology import CHIN, FACE_OVAL, FOREHEAD, LIPS, N_POINTS, RIGID

LOWER_FACE = sorted(set(LIPS) | {CHIN, 148, 176, 149, 150, 377, 400, 378, 379})


def face(seed: int = 0) -> np.ndarray:
    """(478,3): an oval of 80 x 100 px around (128, 120) with points inside."""
    rng = np.random.default_rng(seed)
    points = np.zeros((N_POINTS, 3))
    points[:, :2] = [128, 120] + rng.uniform(-20, 20, (N_POINTS, 2))
    angle = np.linspace(0, 2 * np.pi, len(FACE_OVAL), endpoint=False)
    points[list(FACE_OVAL), 0] = 128 + 40 * np.sin(angle)
    points[list(FACE_OVAL), 1] = 120 - 50 * np.cos(angle)
    return points


def clip(frames: int = 50) -> np.ndarray:
    return np.repeat(face()[None], frames, axis=0)


def test_the_test_face_has_its_forehead_on_top_and_its_chin_below():
    points = face()
    assert points[FOREHEAD, 1] == points[list(FACE_OVAL), 1].min() == 70
    assert points[CHIN, 1] == points[list(FACE_OVAL), 1].max() == 170


def test_a_still_face_gets_the_box_of_its_oval_with_margins():
    for margins in (MARGINS, (0.1, -0.05, 0.2)):
        check_margins(face_boxes(clip(), fps=25, margins=margins), margins)
    np.testing.assert_array_equal(face_boxes(clip(), fps=25)[0],
                                  face_boxes(clip(), fps=25, margins=MARGINS)[0])  # fmt: skip


def check_margins(boxes: np.ndarray, margins: tuple[float, float, float]) -> None:
    x, y = face()[list(FACE_OVAL), 0], face()[list(FACE_OVAL), 1]
    top, bottom, side = margins
    height = y.max() - y.min()
    expected = [
        x.min() - side * height,
        y.min() - top * height,
        x.max() + side * height,
        y.max() + bottom * height,
    ]
    np.testing.assert_allclose(boxes, np.repeat([expected], 50, axis=0), atol=1e-9)


def test_no_box_tells_how_far_the_mouth_is_open():
    """A box around all points would grow with the jaw, and a network could read it off."""
    opening = np.abs(np.sin(np.arange(50) / 3)) * 15
    talking = clip()
    talking[:, LOWER_FACE, 1] += opening[:, None]
    boxes = face_boxes(talking, fps=25)
    assert np.ptp(boxes, axis=0).max() < 1e-9
    naive = talking[:, list(FACE_OVAL), 1].max(axis=1)
    assert np.ptp(naive) > 10  # the opening is there to be seen


def test_the_points_that_place_the_box_are_not_on_lips_or_jaw():
    assert not set(RIGID) & (set(LIPS) | set(FACE_OVAL))


def test_the_box_follows_a_moving_and_growing_face():
    time = np.linspace(0, 1, 100)[:, None]
    moving = np.repeat(face()[None], 100, axis=0)
    centre = moving[0, list(RIGID), :2].mean(axis=0)
    moving[:, :, :2] = centre + (moving[:, :, :2] - centre) * (1 + 0.5 * time[:, :, None])
    moving[:, :, 0] += 30 * time
    rough = face_boxes(moving, fps=25, smoothing=0.0)
    size = (rough[:, 2:] - rough[:, :2]) / (rough[0, 2:] - rough[0, :2])
    np.testing.assert_allclose(size, np.repeat(1 + 0.5 * time, 2, axis=1), rtol=1e-6)
    # A steady motion is not delayed; only within three deviations of the ends is it bent.
    smoothed = face_boxes(moving, fps=25, smoothing=0.1)
    np.testing.assert_allclose(smoothed[8:-8], rough[8:-8], atol=1e-6)


def test_smoothing_removes_jitter_but_no_slow_motion():
    rng = np.random.default_rng(1)
    shaking = clip(200)
    shaking[:, :, :2] += rng.normal(0, 2, (200, 1, 2))
    rough = face_boxes(shaking, fps=25, smoothing=0.0)
    steady = face_boxes(shaking, fps=25, smoothing=0.2)
    assert np.diff(steady[:, 0]).std() < 0.15 * np.diff(rough[:, 0]).std()
    assert abs(steady[:, 0].mean() - rough[:, 0].mean()) < 0.2


def test_smoothing_is_in_seconds_not_in_frames():
    step = np.zeros((200, 1))
    step[100:] = 1.0
    slow, fast = smooth(step, 0.2 * 25), smooth(step, 0.2 * 50)
    rise = [int((s > 0.1).argmax()) - 100 for s in (slow, fast)]
    assert rise[1] == pytest.approx(2 * rise[0], abs=2)


def test_frames_without_a_face_get_interpolated_boxes():
    moving = clip(30)
    moving[:, :, 0] += np.arange(30)[:, None]
    whole = face_boxes(moving, fps=25, smoothing=0)
    gappy = moving.copy()
    gappy[10:20] = np.nan
    np.testing.assert_allclose(face_boxes(gappy, fps=25, smoothing=0), whole, atol=1e-6)


def test_boxes_at_a_missing_start_and_end_are_those_of_the_nearest_face():
    gappy = clip(20)
    gappy[:5] = gappy[-5:] = np.nan
    boxes = face_boxes(gappy, fps=25)
    assert np.isfinite(boxes).all()
    assert np.ptp(boxes, axis=0).max() < 1e-9


def test_a_clip_without_any_face_has_no_boxes():
    assert np.isnan(face_boxes(np.full((5, N_POINTS, 3), np.nan), fps=25)).all()


def test_one_frame_is_enough():
    assert np.isfinite(face_boxes(clip(1), fps=25)).all()


def test_gaps_are_filled_linearly():
    values = np.array([np.nan, 1.0, np.nan, np.nan, 4.0, np.nan])[:, None]
    assert fill_gaps(values)[:, 0].tolist() == [1, 1, 2, 3, 4, 4]


def test_smoothing_works_on_a_copy():
    values = np.random.default_rng(0).normal(size=(20, 4))
    before = values.copy()
    smooth(values, 3.0)
    assert np.array_equal(values, before)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((10.4, 20.6, 30.5, 40.4), (10, 21, 30, 40)),
        ((-15, -3, 30, 40), (0, 0, 30, 40)),
        ((80, 60, 130, 90), (80, 60, 100, 80)),
        ((-50, -50, -10, -10), (0, 0, 2, 2)),
        ((200, 200, 300, 300), (98, 78, 100, 80)),
        ((5, 5, 5, 5), (5, 5, 7, 7)),
    ],
    ids=["rounded", "over top left", "over bottom right", "left of it", "right of it", "empty"],
)
def test_a_box_is_cut_to_the_picture_and_never_empty(box, expected):
    assert integer_box(np.array(box, float), height=80, width=100) == expected
    assert crop_face(np.zeros((80, 100, 3), np.uint8), np.array(box, float)).size > 0


def test_a_crop_holds_the_pixels_of_its_box():
    image = np.arange(80 * 100).reshape(80, 100)
    assert np.array_equal(crop_face(image, np.array([10.0, 20, 13, 22])), image[20:22, 10:13])


def test_shrinking_averages_areas():
    image = np.zeros((8, 8, 3), np.uint8)
    image[::2] = 200
    assert (resize_image(image, 4) == 100).all()


def test_sizes_are_width_first():
    assert resize_image(np.zeros((10, 20, 3), np.uint8), (6, 4)).shape == (4, 6, 3)


def test_a_landmark_box_grows_by_margin_or_scale():
    points = np.array([[10.0, 20.0], [30.0, 30.0]])
    assert landmark_box(points).tolist() == [10, 20, 30, 30]
    assert landmark_box(points, margin=0.1).tolist() == [8, 19, 32, 31]
    assert landmark_box(points, scale=2.0).tolist() == [0, 15, 40, 35]
