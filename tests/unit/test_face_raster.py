"""PNCC pictures: the rasteriser against a slow one that tries every pixel, and its promises."""

from __future__ import annotations

import numpy as np
import pytest

from talkingface.data.face.raster import pncc_colors, rasterize
from talkingface.data.face.topology import (
    CHIN,
    FOREHEAD,
    LIPS_INNER,
    N_MESH,
    NOSE_TIP,
    triangles,
)

TOLERANCE = 1e-6


def slow(vertices, colors, height, width, faces, flat=False):
    """One pixel after the other, one triangle after the other. Depth and owner too."""
    picture = np.zeros((height, width, colors.shape[1]))
    nearest = np.full((height, width), np.inf)
    owner = np.full((height, width), -1)
    for number, face in enumerate(faces):
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = vertices[face].tolist()
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area <= 0:
            continue
        for row in range(height):
            for column in range(width):
                x, y = column + 0.5, row + 0.5
                u = ((bx - x) * (cy - y) - (by - y) * (cx - x)) / area
                v = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) / area
                w = ((ax - x) * (by - y) - (ay - y) * (bx - x)) / area
                depth = u * az + v * bz + w * cz
                if min(u, v, w) >= -TOLERANCE and depth < nearest[row, column] - 1e-9:
                    a, b, c = colors[face]
                    shade = (a + b + c) / 3 if flat else u * a + v * b + w * c
                    picture[row, column] = shade
                    nearest[row, column] = depth
                    owner[row, column] = number
    return picture, owner


def heap(seed: int, triangles: int = 14) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangles that cross each other, some from behind, some outside of 24 x 32 pixels."""
    rng = np.random.default_rng(seed)
    vertices = rng.uniform([-10, -10, 0], [42, 34, 30], (20, 3))
    faces = np.array([rng.choice(20, 3, replace=False) for _ in range(triangles)])
    return vertices, rng.uniform(0.1, 1, (20, 3)), faces


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """(468,3) pixels in a picture of 400 x 400: the mesh of scikit-image's portrait, lips apart."""
    pytest.importorskip("mediapipe")
    data = pytest.importorskip("skimage.data")
    from talkingface.data.face.mesh import FaceMesher

    with FaceMesher(tracking=False) as mesher:
        points = mesher(data.astronaut())[0][:N_MESH].astype(np.float64)
    points -= (points.min(axis=0) + points.max(axis=0)) / 2
    points *= 320 / np.ptp(points[:, 1])
    return points + [200, 200, 0]


@pytest.fixture(scope="module")
def colors(face: np.ndarray) -> np.ndarray:
    return pncc_colors(face)


def turned(points: np.ndarray, yaw: float, pitch: float, roll: float) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    center = points.mean(axis=0)
    matrix = Rotation.from_euler("xyz", [pitch, yaw, roll], degrees=True).as_matrix()
    return (points - center) @ matrix.T + center


# -- against the slow one --------------------------------------------------------------------------


@pytest.mark.parametrize("flat", [False, True], ids=["smooth", "flat"])
@pytest.mark.parametrize("seed", range(4))
def test_pictures_equal_those_of_a_slow_rasteriser(seed, flat):
    vertices, colors, faces = heap(seed)
    expected, owner = slow(vertices, colors, 24, 32, faces, flat)
    assert len(np.unique(owner)) > 4 and (owner < 0).any()
    picture = rasterize(vertices, colors, 24, 32, faces=faces, flat=flat)
    assert picture.dtype == np.float32
    np.testing.assert_allclose(picture, expected, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_colors_may_have_any_number_of_channels(channels):
    vertices, _, faces = heap(9)
    colors = np.random.default_rng(0).uniform(-3, 3, (20, channels))
    expected, _ = slow(vertices, colors, 24, 32, faces)
    picture = rasterize(vertices, colors, 24, 32, faces=faces)
    assert picture.shape == (24, 32, channels)
    np.testing.assert_allclose(picture, expected, atol=1e-5)


def test_one_triangle_by_hand():
    """Pixel centres are at +0.5 and pixels on an edge are inside."""
    vertices = np.array([[0.5, 0.5, 0], [4.5, 0.5, 0], [0.5, 4.5, 0]])
    picture = rasterize(vertices, np.eye(3), 6, 6, faces=np.array([[0, 1, 2]]))
    covered = picture.sum(axis=2) > 0
    rows = ["#####.", "####..", "###...", "##....", "#.....", "......"]
    assert ["".join(".#"[int(c)] for c in row) for row in covered] == rows
    np.testing.assert_allclose(picture[1, 2], [0.25, 0.5, 0.25])
    np.testing.assert_allclose(picture[0, 0], [1, 0, 0], atol=1e-6)


# -- depth -----------------------------------------------------------------------------------------


def sheet(z: float, corners=((1, 1), (20, 2), (3, 19))) -> np.ndarray:
    return np.array([(x, y, z) for x, y in corners], float)


@pytest.mark.parametrize("first", [0, 1])
def test_the_nearer_surface_wins_whatever_comes_first(first):
    vertices = np.concatenate([sheet(5.0), sheet(5.01, ((2, 1), (18, 6), (1, 17)))])
    colors = np.repeat(np.eye(2), 3, axis=0)
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    picture = rasterize(vertices, colors, 22, 22, faces=faces if first == 0 else faces[::-1])
    alone = rasterize(vertices, colors, 22, 22, faces=faces[:1])
    near = alone[..., 0] > 0
    assert near.sum() > 100
    assert (picture[near] == [1, 0]).all()
    assert (picture[~near, 1] > 0.5).any()


@pytest.mark.parametrize("z", [0.0, 5.0, -3.7, 1234.567])
def test_of_equal_depths_the_first_triangle_wins(z):
    """Also where the depths differ in the last bits only."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        vertices = np.concatenate([sheet(z, rng.uniform(0, 24, (3, 2))) for _ in range(2)])
        faces = np.array([[0, 1, 2], [3, 4, 5]])
        for k, (a, b, c) in enumerate(vertices[faces][..., :2]):
            if np.linalg.det([b - a, c - a]) < 0:
                faces[k] = faces[k][::-1]
        colors = np.repeat(np.eye(2), 3, axis=0)
        picture = rasterize(vertices, colors, 24, 24, faces=faces, flat=True)
        alone = rasterize(vertices, colors, 24, 24, faces=faces[:1], flat=True)[..., 0] > 0
        assert (picture[alone] == [1, 0]).all()


def test_the_same_triangle_twice_keeps_the_first_color():
    """Tilted, and listed from another corner: its depth is calculated in another way."""
    rng = np.random.default_rng(1)
    for _ in range(30):
        corners = rng.uniform(0, 24, (3, 3))
        if np.linalg.det(corners[1:, :2] - corners[0, :2]) < 0:
            corners = corners[::-1]
        vertices = np.concatenate([corners, corners[[1, 2, 0]]])
        colors = np.repeat(np.eye(2), 3, axis=0)
        faces = np.array([[0, 1, 2], [3, 4, 5]])
        picture = rasterize(vertices, colors, 24, 24, faces=faces, flat=True)
        assert picture[..., 1].max() == 0


def test_triangles_seen_from_behind_are_left_out():
    vertices, color = sheet(1.0), np.ones((3, 1))
    front = rasterize(vertices, color, 22, 22, faces=np.array([[0, 1, 2]]))
    back = rasterize(vertices, color, 22, 22, faces=np.array([[0, 2, 1]]))
    assert front.sum() > 100 and back.sum() == 0


@pytest.mark.filterwarnings("error")
def test_triangles_without_area_are_left_out():
    vertices = np.array([[1, 1, 0], [9, 9, 0], [5, 5, 0], [5, 5, 0]], float)
    faces = np.array([[0, 1, 2], [2, 3, 0], [2, 2, 2]])
    assert rasterize(vertices, np.ones((4, 1)), 10, 10, faces=faces).sum() == 0


def test_neighbouring_triangles_leave_no_seam():
    """A fan whose corners and spokes run through pixel centres."""
    rim = [(2.5, 2.5), (12.5, 2.5), (22.5, 2.5), (22.5, 22.5), (12.5, 22.5), (2.5, 22.5)]
    vertices = np.array([(12.5, 12.5, 0.0), *((x, y, 1.0) for x, y in rim)])
    faces = np.array([[0, k, k % 6 + 1] for k in range(1, 7)])
    covered = rasterize(vertices, np.ones((7, 1)), 25, 25, faces=faces)[..., 0]
    expected = np.zeros((25, 25))
    expected[2:23, 2:23] = 1
    np.testing.assert_allclose(covered, expected, atol=1e-6)


# -- borders of the picture ------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [(-150, 0), (0, 170), (130, -140), (-399, -399)])
def test_a_face_partly_outside_is_cut_off(face, colors, shift):
    whole = rasterize(face + [400, 400, 0], colors, 1200, 1200)
    part = rasterize(face + [*shift, 0], colors, 400, 400)
    x, y = 400 - shift[0], 400 - shift[1]
    np.testing.assert_allclose(part, whole[y : y + 400, x : x + 400], atol=1e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shift", [(500, 0), (-500, 0), (0, 500), (0, -500), (1e7, -1e7)])
def test_a_face_outside_leaves_the_picture_black(face, colors, shift):
    assert rasterize(face + [*shift, 0], colors, 400, 400).max() == 0


def test_pictures_need_not_be_square(face, colors):
    wide = rasterize(face, colors, 300, 400)
    assert wide.shape == (300, 400, 3)
    np.testing.assert_array_equal(wide, rasterize(face, colors, 400, 400)[:300])


# -- faces -----------------------------------------------------------------------------------------


def holes(covered: np.ndarray) -> list[np.ndarray]:
    """Uncovered parts that do not touch the border of the picture."""
    from scipy.ndimage import label

    parts, count = label(~covered)
    border = {*parts[0], *parts[-1], *parts[:, 0], *parts[:, -1]}
    return [parts == k for k in range(1, count + 1) if k not in border]


def test_a_face_has_one_hole_between_the_lips(face, colors):
    covered = rasterize(face, colors, 400, 400).sum(axis=2) > 0
    (mouth,) = holes(covered)
    lips = face[list(LIPS_INNER), :2]
    x, y = lips.T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert area > 500
    assert mouth.sum() == pytest.approx(area, rel=0.05)
    rows, columns = np.nonzero(mouth)
    assert y.min() - 1 < rows.min() and rows.max() < y.max() + 1
    assert x.min() - 1 < columns.min() and columns.max() < x.max() + 1


def test_the_hole_shrinks_with_the_mouth(face, colors):
    """Inner lips that meet leave none."""
    sizes = []
    lower, upper = LIPS_INNER[1:10], LIPS_INNER[:10:-1]
    for closing in (0.0, 0.5, 1.0):
        points = face.copy()
        middle = (points[list(lower)] + points[list(upper)]) / 2
        for lip in (lower, upper):
            points[list(lip)] += closing * (middle - points[list(lip)])
        covered = rasterize(points, colors, 400, 400).sum(axis=2) > 0
        sizes.append(sum(hole.sum() for hole in holes(covered)))
    assert sizes[0] > 1.8 * sizes[1] > 0
    assert sizes[2] <= 4  # pixels in the corners of the mouth


def test_the_open_eyes_are_closed_by_default(face, colors):
    """The only picture with eye holes is the one that was asked for."""
    open_eyes = rasterize(face, colors, 400, 400, faces=triangles(close_eyes=False))
    assert len(holes(open_eyes.sum(axis=2) > 0)) == 3


def test_the_far_cheek_does_not_shine_through_the_mouth(face, colors):
    """With culling the hole is black at every yaw (ours)."""
    points = turned(face, -40, 0, 0)
    lips = points[list(LIPS_INNER), :2].mean(axis=0).astype(int)
    covered = rasterize(points, colors, 400, 400).sum(axis=2) > 0
    assert not covered[lips[1], lips[0]]


@pytest.mark.parametrize("seed", range(6))
def test_colors_stay_with_their_vertices_in_every_pose(face, colors, seed):
    """Where a vertex is seen, the picture has its colour."""
    rng = np.random.default_rng(seed)
    points = turned(face, *rng.uniform(-60, 60, 3))
    picture = rasterize(points, colors, 400, 400)
    # Depth as a colour tells which vertices are in front. The pixel under a vertex is up to half a
    # pixel away from it, so only vertices whose surroundings are not seen from the side count.
    points[:, 2] += 1000  # no vertex has the depth 0 of the background
    depth = rasterize(points, points[:, 2:], 400, 400)[..., 0]
    corners = points[triangles()]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    facing = normals[:, 2] / np.linalg.norm(normals, axis=1)
    slope = np.ones(N_MESH)
    np.minimum.at(slope, triangles().ravel(), np.repeat(facing, 3))
    column, row = np.floor(points[:, :2]).astype(int).T
    seen = (slope > 0.35) & (np.abs(depth[row, column] - points[:, 2]) < 2)
    assert seen.sum() > 60
    wrong = np.abs(picture[row, column][seen] - colors[seen]).max(axis=1)
    assert wrong.max() < 0.02
    assert wrong.mean() < 0.005


def test_the_order_of_triangles_changes_neither_outline_nor_picture(face, colors):
    points = turned(face, 35, -10, 5)
    picture = rasterize(points, colors, 400, 400)
    order = np.random.default_rng(0).permutation(880)
    shuffled = rasterize(points, colors, 400, 400, faces=triangles()[order])
    assert np.array_equal(shuffled.sum(axis=2) > 0, picture.sum(axis=2) > 0)
    np.testing.assert_allclose(shuffled, picture, atol=1e-5)


def test_flat_shading_gives_each_triangle_one_color(face, colors):
    picture = rasterize(face, colors, 400, 400, flat=True)
    means = colors[triangles()].mean(axis=1).astype(np.float32)
    shades = np.unique(picture[picture.sum(axis=2) > 0], axis=0)
    assert 300 < len(shades) <= 880
    distance = np.abs(shades[:, None] - means[None]).max(axis=2).min(axis=1)
    assert distance.max() < 1e-6


# -- colours ---------------------------------------------------------------------------------------


def test_colors_are_the_place_in_the_mean_face(face, colors):
    assert colors.min() == 0 and colors.max() == 1
    assert colors.min(axis=0).tolist() == [0, 0, 0] and colors.max(axis=0).tolist() == [1, 1, 1]
    np.testing.assert_allclose(pncc_colors(face * 7 - 1000), colors)
    left_to_right = np.argsort(face[:, 0])
    assert (np.diff(colors[left_to_right, 0]) >= 0).all()
    assert colors[FOREHEAD, 1] < 0.05 and colors[CHIN, 1] > 0.95  # green: forehead to chin
    assert colors[NOSE_TIP, 2] < 0.1 < 0.8 < colors[[127, 356], 2].min()  # blue: nose to ears


def test_no_vertex_is_black_like_the_background(face, colors):
    assert colors.sum(axis=1).min() > 0.5
    with pytest.raises(ValueError, match="black"):
        pncc_colors(np.array([[0.0, 0, 0], [1, 2, 3], [2, 1, 1]]))


def test_the_mask_of_the_background_is_the_outline(face, colors):
    """HeadGAN's rule, sum of channels > 0.01, finds exactly the pixels of the mesh."""
    points = turned(face, 20, 10, 0)
    mask = rasterize(points, np.ones((N_MESH, 1)), 400, 400)[..., 0] > 0
    picture = np.rint(rasterize(points, colors, 400, 400) * 255) / 255
    assert np.array_equal(picture.sum(axis=2) > 0.01, mask)
