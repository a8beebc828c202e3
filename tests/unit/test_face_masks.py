"""Sketches and masks, pixel by pixel against MediaPipe's and OpenCV's own drawing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from talkingface.data.face import masks
from talkingface.data.face.masks import mouth_mask, polygon_mask, sketch
from talkingface.data.face.topology import EYE_LEFT, MOUTH_RING, N_POINTS

# The lip mask's polygon of the official code, in this order.
LIP_POLYGON = [164, 167, 165, 92, 186, 57, 43, 106, 182, 83, 18, 313, 406, 335, 273, 287, 410, 322,
               391, 393]  # fmt: skip


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """(478,3) in the unit square: the mesh of scikit-image's portrait."""
    pytest.importorskip("mediapipe")
    data = pytest.importorskip("skimage.data")
    from talkingface.data.face.mesh import FaceMesher

    with FaceMesher(tracking=False) as mesher:
        points = mesher(data.astronaut())[0].astype(np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - low) / (high - low).max()


def as_mediapipe_draws(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """The sketch with MediaPipe's drawing helper and the edges of the official code."""
    vision = pytest.importorskip("mediapipe.tasks.python.vision")
    from mediapipe.tasks.python.components.containers.landmark import NormalizedLandmark

    mesh, drawing = vision.FaceLandmarksConnections, vision.drawing_utils

    def pairs(part: str) -> list[tuple[int, int]]:
        return [(edge.start, edge.end) for edge in getattr(mesh, f"FACE_LANDMARKS_{part}")]

    oval = set(pairs("FACE_OVAL"))
    for arc in ([10, 338, 297, 332, 284, 251, 389], [162, 21, 54, 103, 67, 109, 10]):
        oval -= {edge for a, b in zip(arc, arc[1:], strict=False) for edge in ((a, b), (b, a))}
    nose = [(168, 6), (6, 197), (197, 195), (195, 5), (5, 4), (4, 45), (45, 220), (220, 115),
            (115, 48), (4, 275), (275, 440), (440, 344), (344, 278)]  # fmt: skip
    parts = ("LIPS", "LEFT_EYE", "RIGHT_EYE", "LEFT_EYEBROW", "RIGHT_EYEBROW")
    edges = [*oval, *nose, *(e for part in parts for e in pairs(part))]
    assert len(edges) == 125
    # Shares of the picture in float32, as MediaPipe stores them.
    shares = (points[:, :2] / (width, height)).astype(np.float32).tolist()
    marks = [NormalizedLandmark(x=x, y=y) for x, y in shares]
    edges = [mesh.Connection(start, end) for start, end in edges]
    canvas = np.zeros((height, width, 3), np.uint8)
    white = drawing.DrawingSpec(color=(255, 255, 255), thickness=6)
    drawing.draw_landmarks(canvas, marks, edges, None, white)
    assert np.array_equal(canvas.min(axis=2), canvas.max(axis=2))
    return canvas[..., 0]


def stored(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixels of points that went through MediaPipe's float32 shares of the picture."""
    size = np.array([width, height])
    return (points[:, :2] / size).astype(np.float32).astype(np.float64) * size


@pytest.mark.parametrize(
    ("scale", "shift", "height", "width"),
    [
        (200, (28, 28), 256, 256),
        (300, (40, 20), 340, 380),  # not square
        (90, (10, 10), 128, 128),
        (260, (-60, -20), 256, 256),  # over the left border
        (260, (90, 60), 256, 256),  # over the lower right corner
        (260, (-10, -130), 200, 256),  # eyes above the picture
        (100, (400, 0), 128, 128),  # beside it
    ],
)
def test_sketches_are_those_of_mediapipe(face, scale, shift, height, width):
    points = stored(face[:, :2] * scale + shift, height, width)
    expected = as_mediapipe_draws(points, height, width)
    assert np.array_equal(sketch(points, height, width), expected)
    inside = ((points >= 0) & (points <= (width, height))).all(axis=1)
    assert inside.any() == (shift != (400, 0)) == (expected.max() == 255)


def test_sketches_of_turned_faces_are_those_of_mediapipe(face):
    """Lines of all directions."""
    for angle in range(0, 360, 24):
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        points = (face[:, :2] - 0.4) @ np.array([[c, s], [-s, c]]) * 230 + 128
        points = stored(points, 256, 256)
        assert np.array_equal(sketch(points, 256, 256), as_mediapipe_draws(points, 256, 256))


def test_points_on_the_very_border_are_drawn_as_mediapipe_draws_them(face):
    """0 and the full width belong to the picture, and what is beyond does not."""
    points = stored(face[:, :2] * 200 + 28, 256, 256)
    points[17] = (0, 128)
    points[152] = (128, 256)
    points[10] = (256, 0)
    points[61] = (-1e-3, 150)
    points[291] = (256.01, 150)
    assert np.array_equal(sketch(points, 256, 256), as_mediapipe_draws(points, 256, 256))


def test_lines_with_an_end_outside_are_left_out(monkeypatch):
    monkeypatch.setattr(masks, "SKETCH_EDGES", [(1, 2), (2, 3), (1, 0)])
    points = np.full((N_POINTS, 2), -5.0)
    points[[1, 2, 3]] = [(2.5, 2.5), (12.9, 2.1), (12, 30)]
    picture = sketch(points, 16, 16, thickness=1)
    expected = np.zeros((16, 16), np.uint8)
    expected[2, 2:13] = 255
    assert np.array_equal(picture, expected)


def test_the_thickness_can_be_chosen_and_lines_follow_the_edges(face, monkeypatch):
    points = face * 200 + 28
    thin, thick = (sketch(points, 256, 256, thickness=t) for t in (2, 6))
    assert thin.sum() < 0.6 * thick.sum()
    eye = [(a, b) for a, b in zip(EYE_LEFT, EYE_LEFT[1:], strict=False)]
    monkeypatch.setattr(masks, "SKETCH_EDGES", eye)
    only = sketch(points, 256, 256, thickness=1)
    rows, columns = np.nonzero(only)
    low, high = np.floor(points[list(EYE_LEFT), :2].min(0)), points[list(EYE_LEFT), :2].max(0)
    assert (columns.min(), rows.min()) == tuple(low)
    assert (columns.max(), rows.max()) == tuple(np.floor(high))


# -- masks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [(28, 28), (-80, -90), (120.7, 99.3), (-500, 0)])
def test_the_mouth_mask_is_the_polygon_of_the_specification(face, shift):
    points = face[:, :2] * 200 + shift
    expected = np.zeros((240, 256), np.uint8)
    corners = [[int(np.floor(x)), int(np.floor(y))] for x, y in points[LIP_POLYGON]]
    cv2.fillPoly(expected, [np.array(corners, np.int32)], 255)
    mask = mouth_mask(points, 240, 256)
    assert mask.dtype == np.uint8 and mask.shape == (240, 256)
    assert np.array_equal(mask, expected)
    assert (mask.max() == 255) == (shift != (-500, 0))


def test_the_mouth_mask_holds_the_lips_and_no_nose_or_chin(face):
    points = face * 200 + 28
    mask = mouth_mask(points, 256, 256)
    inside = [mask[int(y), int(x)] for x, y in points[[61, 291, 0, 17, 13, 14], :2]]
    outside = [mask[int(y), int(x)] for x, y in points[[1, 2, 152, 205, 425], :2]]
    assert inside == [255] * 6 and outside == [0] * 5
    assert set(MOUTH_RING) == set(LIP_POLYGON)


def test_corners_of_polygons_are_rounded_down():
    mask = polygon_mask(np.array([[2.9, 3.9], [7.99, 3.1], [7.5, 8.999], [2.1, 8.5]]), 12, 12)
    expected = np.zeros((12, 12), np.uint8)
    expected[3:9, 2:8] = 255
    assert np.array_equal(mask, expected)
    assert polygon_mask(np.array([[-0.5, -0.5, 9], [3, -0.5, 9], [3, 3, 9]]), 8, 8)[0, 0] == 255
