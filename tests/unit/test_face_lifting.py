"""The lifting solver: made-up heads in front of a camera, exact projection, re-lift, resampling."""

from __future__ import annotations

import numpy as np
import pytest

from talkingface.data.face.lifting import SCALE, LiftedFace, lift, resample_motion
from talkingface.data.face.topology import CHIN, FOREHEAD, LIPS, N_POINTS, STABLE, pose_template

SIZE = (1280, 720)
LIP = list(LIPS)


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    """(478,3) object points: x right, y up, z toward the camera, outer eye distance 1."""
    rng = np.random.default_rng(0)
    vertices, template = pose_template()
    points = np.zeros((N_POINTS, 3))
    points[:, :2] = rng.uniform(-0.8, 0.8, (N_POINTS, 2))
    points[:, 2] = 0.4 - 0.6 * (points[:, :2] ** 2).sum(axis=1)
    points[vertices] = template * [1, -1, 1]
    # Points of STABLE that the template lacks, and the chin, at the usual places.
    for vertex, place in {
        **{129: (-0.40, -0.75, 0.25), 358: (0.40, -0.75, 0.25)},
        **{234: (-1.29, -0.4, -0.9), 454: (1.29, -0.4, -0.9)},
        **{196: (-0.11, -0.23, 0.45), 419: (0.11, -0.23, 0.45)},
        CHIN: (0.0, -2.0, 0.1),
    }.items():
        points[vertex] = place
    angle = np.linspace(np.pi, 3 * np.pi, 20, endpoint=False)
    for contour, width in ((LIPS[:20], 0.45), (LIPS[20:], 0.35)):
        y = -1.25 + 0.3 * width * np.sin(angle)
        points[list(contour)] = np.stack([width * np.cos(angle), y, 0.4 + 0 * y], axis=1)
    points = points / np.linalg.norm(points[263] - points[33])
    return points - points[list(STABLE)].mean(axis=0)


def rotations(degrees: np.ndarray) -> np.ndarray:
    """(T,3,3) from (T,3) angles about x, y, z, after the half turn from object to camera axes."""
    from scipy.spatial.transform import Rotation

    half_turn = np.diag([1.0, -1.0, -1.0])
    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ half_turn


class Scene:
    """A head with a moving mouth in front of a camera.

    ``landmarks`` are what a perfect face mesh finds: pixels, and the depth of every point relative
    to the steady points at the pixel scale of their mean distance.
    """

    def __init__(self, head: np.ndarray, *, focal: float, pixels: float, frames: int = 40) -> None:
        time = np.linspace(0, 2 * np.pi, frames)
        self.rotation = rotations(
            np.stack([12 * np.cos(2 * time), 30 * np.sin(time), 8 * np.sin(3 * time)], axis=1)
        )
        self.points = np.repeat(head[None], frames, axis=0)
        self.opening = 0.15 * np.abs(np.sin(4 * time))
        lower = LIP[1:10] + LIP[21:30]
        self.points[:, lower, 1] -= self.opening[:, None]
        distance = focal * SCALE / pixels  # the outer eye distance is this many pixels wide
        place = np.stack([0.10 + 0.03 * np.cos(time), 0.05 * np.sin(time), 1 + 0.05 * np.sin(time)])
        self.translation = place.T * distance
        turned = np.einsum("tij,tvj->tvi", self.rotation, self.points)
        camera = SCALE * turned + self.translation[:, None]
        middle = camera[:, list(STABLE), 2].mean(axis=1)[:, None]
        xy = focal * camera[..., :2] / camera[..., 2:] + np.array(SIZE) / 2
        depth = (camera[..., 2] / middle - 1) * focal
        self.landmarks = np.concatenate([xy, depth[..., None]], axis=2)
        self.focal = focal


def degrees_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    sine = np.linalg.norm(a - b, axis=(-2, -1)) / np.sqrt(8)
    return np.degrees(2 * np.arcsin(np.minimum(1, sine)))


def projected(face: LiftedFace) -> np.ndarray:
    """Its points in pixels, (T,478,2)."""
    camera = face.to_camera()
    return face.focal * camera[..., :2] / camera[..., 2:] + face.center


def rotation_error(face: LiftedFace, scene: Scene) -> np.ndarray:
    """Degrees per frame between found and true turn since the first frame."""
    found = face.rotation @ face.rotation[0].T
    true = scene.rotation @ scene.rotation[0].T
    return degrees_between(found, true)


def noisy(scene: Scene, pixels: float = 0.4) -> np.ndarray:
    """Its landmarks with the noise of a detector: every point, the size and the place."""
    rng = np.random.default_rng(1)
    points = scene.landmarks
    middle = points.mean(axis=1, keepdims=True) * [1, 1, 0]
    size = 1 + rng.normal(0, 0.004, (len(points), 1, 1))
    shaken = (points - middle) * size + middle + rng.normal(0, pixels, (len(points), 1, 3))
    return shaken + rng.normal(0, pixels, points.shape)


@pytest.fixture(scope="module")
def near(head: np.ndarray) -> Scene:
    """At a usual distance, with a usual focal length."""
    return Scene(head, focal=1.2 * SIZE[0], pixels=110)


@pytest.fixture(scope="module")
def calm(head: np.ndarray) -> Scene:
    """The same motion at a usual speed, six seconds of it."""
    return Scene(head, focal=1.2 * SIZE[0], pixels=110, frames=150)


# -- the solver ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("focal", "pixels"), [(400_000, 110), (1536, 110), (768, 200)])
def test_a_head_with_exact_depth_is_found_exactly(head, focal, pixels):
    """From far away, and so near that perspective is strong: the rounds take its error out."""
    scene = Scene(head, focal=focal, pixels=pixels)
    face = lift(scene.landmarks, SIZE, focal)
    assert rotation_error(face, scene).max() < 1e-6  # degrees
    # Up to a fixed turn and shift of the object's axes, points and place are the true ones too.
    own = face.rotation[0].T @ scene.rotation[0]
    shift = face.points[0, 6] - own @ scene.points[0, 6]
    np.testing.assert_allclose(face.points, scene.points @ own.T + shift, atol=1e-9)
    true = SCALE * np.einsum("tij,tvj->tvi", scene.rotation, scene.points)
    np.testing.assert_allclose(face.to_camera(), true + scene.translation[:, None], rtol=1e-6)


def test_the_opening_of_the_mouth_is_found_in_object_units(near):
    face = lift(near.landmarks, SIZE, near.focal)
    gap = np.linalg.norm(face.points[:, 13] - face.points[:, 14], axis=1)
    true = np.linalg.norm(near.points[:, 13] - near.points[:, 14], axis=1)
    assert np.ptp(true) > 0.1
    np.testing.assert_allclose(gap, true, atol=1e-6)


def test_the_object_has_the_axes_and_the_unit_of_the_specification(near):
    """x from eye to eye, y from chin to forehead, z toward the camera, outer eye distance 1."""
    face = lift(near.landmarks, SIZE, near.focal)
    template = face.template
    np.testing.assert_allclose(template[263] - template[33], [1, 0, 0], atol=1e-9)
    up = template[FOREHEAD] - template[CHIN]
    assert up[1] > 1 and abs(up[2]) < 1e-9
    assert template[1, 2] > template[[127, 356], 2].max()
    np.testing.assert_allclose(template[list(STABLE)].mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(face.points.mean(axis=0), template, atol=0.02)
    np.testing.assert_allclose(np.linalg.det(face.rotation), 1)
    assert (face.rotation[:, 1, 1] < 0).all() and (face.rotation[:, 2, 2] < 0).all()
    assert (face.scale, face.focal, face.center.tolist()) == (90, 1536, [640, 360])


# -- projection ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.6, 1.2, 2.0, 4.0])
def test_points_project_onto_the_detected_pixels_at_any_focal_length(near, ratio):
    landmarks = noisy(near)
    face = lift(landmarks, SIZE, ratio * SIZE[0])
    assert np.abs(projected(face) - landmarks[..., :2]).max() < 1e-6
    smoothed = face.smoothed(rotation=2, shift=2, depth=5)
    assert np.abs(smoothed.rotation - face.rotation).max() > 1e-3
    assert np.abs(smoothed.translation - face.translation).max() > 1e-3
    assert np.abs(projected(smoothed) - landmarks[..., :2]).max() < 1e-6


def test_projection_is_that_of_a_pinhole_camera(near):
    """As in the official code, point by point."""
    face = lift(near.landmarks, SIZE, 1000.0)
    matrix = np.array([[1000, 0, 640], [0, 1000, 360], [0, 0, 1]])
    for t, v in ((0, 1), (7, 61), (39, 477)):
        pixel = matrix @ (90 * face.rotation[t] @ face.points[t, v] + face.translation[t])
        np.testing.assert_allclose(projected(face)[t, v], pixel[:2] / pixel[2])


# -- smoothing -------------------------------------------------------------------------------------


def test_smoothing_steadies_the_pose(calm):
    clean = lift(calm.landmarks, SIZE, calm.focal)
    shaken = lift(noisy(calm), SIZE, calm.focal)
    options = {"rotation": 1, "shift": 1, "depth": 3}
    turns, places = [], []
    for truth, found in ((clean, shaken), (clean.smoothed(**options), shaken.smoothed(**options))):
        change = found.rotation @ np.swapaxes(truth.rotation, 1, 2)
        turns.append(change[:, [2, 0, 1], [1, 2, 0]].std(axis=0))  # small angles about x, y, z
        places.append((found.translation - truth.translation).std(axis=0))
        np.testing.assert_allclose(np.linalg.det(found.rotation), 1)
    assert (turns[1] < 0.65 * turns[0]).all()
    assert (places[1] / places[0] < [0.65, 0.65, 0.35]).all()


def test_smoothing_hardly_bends_the_motion(calm):
    clean = lift(calm.landmarks, SIZE, calm.focal)
    smoothed = clean.smoothed(rotation=1, shift=1, depth=2)
    assert degrees_between(smoothed.rotation, clean.rotation)[4:-4].max() < 0.2
    assert np.abs(smoothed.points - clean.points)[4:-4].max() < 0.01


def test_removed_depth_noise_does_not_land_in_the_lips(calm):
    """Solving back would put it into the depth of every point."""
    face = lift(noisy(calm), SIZE, calm.focal)
    smoothed = face.smoothed(rotation=1, shift=1, depth=3)
    naive = face.to_camera() - smoothed.translation[:, None]
    naive = np.einsum("tji,tvj->tvi", smoothed.rotation, naive) / SCALE
    upper = [0, 37, 267, 13]
    before, after, back = (
        p[:, upper, 2].std(axis=0).mean() for p in (face.points, smoothed.points, naive)
    )
    assert after < 1.15 * before
    assert back > 5 * after


def test_smoothed_points_are_lifted_again_as_specified(near):
    """The steps of the solver, point by point."""
    landmarks = noisy(near)
    face = lift(landmarks, SIZE, near.focal)
    smoothed = face.smoothed(rotation=2, shift=2, depth=4)
    inverse = np.linalg.inv([[near.focal, 0, 640], [0, near.focal, 360], [0, 0, 1]])
    for t, v in ((3, 1), (20, 13), (39, 234)):
        rotation, translation = smoothed.rotation[t], smoothed.translation[t]
        point = face.points[t, v]
        for _ in range(2):
            depth = translation[2] + SCALE * (rotation @ point)[2]
            camera = depth * (inverse @ [*landmarks[t, v, :2], 1])
            point = rotation.T @ (camera - translation) / SCALE
        np.testing.assert_allclose(smoothed.points[t, v], point, atol=1e-9)


def test_no_smoothing_changes_nothing(near):
    face = lift(noisy(near), SIZE, near.focal)
    same = face.smoothed(rotation=0, shift=0, depth=0)
    np.testing.assert_allclose(same.rotation, face.rotation, atol=1e-12)
    np.testing.assert_allclose(same.translation, face.translation)
    np.testing.assert_allclose(same.points, face.points, atol=1e-9)


def test_the_whole_turn_of_the_head_may_be_large(head):
    """A smoothed rotation vector must not flip: the head turns from profile to profile."""
    scene = Scene(head, focal=1536.0, pixels=110)
    angles = np.zeros((40, 3))
    angles[:, 1] = np.linspace(-80, 80, 40)
    scene.rotation = rotations(angles)
    turned = np.einsum("tij,tvj->tvi", scene.rotation, scene.points)
    camera = SCALE * turned + [0, 0, 1300]
    middle = camera[:, list(STABLE), 2].mean(axis=1)[:, None]
    xy = 1536 * camera[..., :2] / camera[..., 2:] + np.array(SIZE) / 2
    depth = (camera[..., 2] / middle - 1) * 1536
    face = lift(np.concatenate([xy, depth[..., None]], axis=2), SIZE, 1536.0)
    assert rotation_error(face, scene).max() < 1e-6
    change = degrees_between(face.smoothed().rotation, face.rotation)
    assert change[4:-4].max() < 0.01  # a steady turn is not bent


def test_one_frame_is_enough(near):
    face = lift(near.landmarks[:1], SIZE, near.focal)
    assert np.abs(projected(face.smoothed()) - near.landmarks[:1, :, :2]).max() < 1e-6


# -- other rates -----------------------------------------------------------------------------------


def test_resampling_keeps_the_frames_that_both_rates_have():
    """25 and 60 frames/s meet every 0.2 s."""
    values = np.random.default_rng(0).normal(size=(51, 4, 3))
    result = resample_motion(values, 25, 60)
    assert result.shape == (122, 4, 3)  # 51 * 60 / 25 = 122.4
    np.testing.assert_allclose(result[::12], values[::5], atol=1e-12)


@pytest.mark.parametrize(
    ("frames", "fps", "target", "count"),
    [(25, 25, 60, 60), (51, 25, 60, 122), (90, 30, 25, 75), (300, 29.97, 60, 601), (1, 25, 60, 2)],
)
def test_resampling_keeps_the_duration(frames, fps, target, count):
    result = resample_motion(np.arange(float(frames))[:, None], fps, target)
    assert len(result) == count
    times = np.minimum(np.arange(count) / target, (frames - 1) / fps)
    np.testing.assert_allclose(result[:, 0], times * fps, atol=1e-9)


def test_resampling_never_overshoots():
    """Between two frames nothing is outside their values: no wiggle beside a sudden move."""
    rng = np.random.default_rng(1)
    values = np.concatenate([np.zeros(10), np.ones(10), rng.normal(size=30)])[:, None]
    result = resample_motion(values, 25, 600)[:, 0]
    for k in range(49):
        between = result[24 * k : 24 * (k + 1) + 1]
        low, high = sorted(values[k : k + 2, 0])
        assert between.min() >= low - 1e-12 and between.max() <= high + 1e-12


def test_resampling_makes_no_stairs():
    """A smooth motion stays smooth: far nearer to it than repeated frames."""
    time = np.arange(50) / 25
    fine = np.arange(120) / 60
    result = resample_motion(np.sin(8 * time)[:, None], 25, 60)[:118, 0]
    nearest = np.sin(8 * time)[np.minimum(np.round(fine * 25).astype(int), 49)][:118]
    truth = np.sin(8 * fine)[:118]
    assert np.abs(result - truth).max() < 0.02
    assert np.abs(nearest - truth).max() > 0.1
