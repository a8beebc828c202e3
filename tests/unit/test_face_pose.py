"""Head pose and canonical space: exact on made-up heads, equal to the specification's formulas."""

from __future__ import annotations

import numpy as np
import pytest

from talkingface.data.face.pose import (
    canonicalize,
    decanonicalize,
    face_center,
    flip_depth,
    head_pose,
    mean_shape,
    procrustes,
)
from talkingface.data.face.topology import (
    EYE_LEFT,
    EYE_RIGHT,
    N_POINTS,
    NOSE_TIP,
    STABLE,
    pose_template,
)

METHODS = pytest.mark.parametrize("canonical", ["procrustes", "official"])


def turn(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation that takes this pose out: about x, then y, then z of fixed axes (official code)."""
    (cy, cp, cr), (sy, sp, sr) = (f(np.radians([yaw, pitch, roll])) for f in (np.cos, np.sin))
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def degrees_between(a: np.ndarray, b: np.ndarray) -> float:
    """Angle of the rotation from a to b."""
    sine = np.linalg.norm(a - b) / np.sqrt(8)
    return float(np.degrees(2 * np.arcsin(min(1.0, sine))))


@pytest.fixture(scope="module")
def made_up() -> np.ndarray:
    """(478,3) in the space of pose.py: the template, the other vertices around it at random."""
    rng = np.random.default_rng(0)
    vertices, template = pose_template()
    points = rng.normal(0, 0.5, (N_POINTS, 3))
    points[list(EYE_LEFT)] = rng.normal([-0.58, 0.1, 0.1], 0.1, (16, 3))
    points[list(EYE_RIGHT)] = rng.normal([0.58, 0.1, 0.1], 0.1, (16, 3))
    points[vertices] = template
    return points


@pytest.fixture(scope="module")
def photographed() -> np.ndarray:
    """(478,3) pixels: the mesh of scikit-image's portrait."""
    pytest.importorskip("mediapipe")
    data = pytest.importorskip("skimage.data")
    from talkingface.data.face.mesh import FaceMesher

    with FaceMesher(tracking=False) as mesher:
        faces = mesher(data.astronaut())
    assert len(faces) == 1
    return faces[0]


@pytest.fixture(scope="module")
def motion() -> dict[str, np.ndarray]:
    """Angles up to 60 degrees, scales and places of 40 frames."""
    rng = np.random.default_rng(1)
    return {
        "angles": rng.uniform(-60, 60, (40, 3)),
        "scale": rng.uniform(30, 300, 40),
        "shift": rng.uniform([100, 100, -80], [900, 600, 80], (40, 3)),
    }


def moving(head: np.ndarray, motion: dict[str, np.ndarray]) -> np.ndarray:
    """MediaPipe points (T,478,3) of a rigid head (478,3) in this motion."""
    frames = []
    for angles, scale, shift in zip(*motion.values(), strict=True):
        frames.append(scale * head @ turn(*angles) + shift)  # rows times R^T-transposed
    return np.array(frames) * [1, 1, -1]


def nodding(head: np.ndarray, frames: int = 60, noise: float = 0.3) -> np.ndarray:
    """MediaPipe points of a slowly moving head with detector noise, near (256, 250)."""
    time = np.linspace(0, 2 * np.pi, frames)
    waves = np.stack([25 * np.sin(time), 12 * np.cos(2 * time), 8 * np.sin(3 * time)], axis=1)
    shift = 20 * np.stack([np.cos(time), np.sin(time), np.sin(2 * time)], axis=1) + [256, 250, 0]
    points = moving(head, {"angles": waves, "scale": 90 + 9 * np.sin(time), "shift": shift})
    return points + np.random.default_rng(2).normal(0, noise, points.shape)


# -- similarity ------------------------------------------------------------------------------------


def test_procrustes_finds_a_similarity():
    rng = np.random.default_rng(3)
    source = rng.normal(size=(9, 3))
    rotations = np.array([turn(*angles) for angles in rng.uniform(-180, 180, (20, 3))])
    scales, shifts = rng.uniform(0.1, 9, 20), rng.normal(0, 50, (20, 3))
    target = scales[:, None, None] * (source @ np.swapaxes(rotations, 1, 2)) + shifts[:, None]
    scale, rotation, shift = procrustes(source, target)  # one source for all targets
    np.testing.assert_allclose(scale, scales)
    np.testing.assert_allclose(rotation, rotations, atol=1e-12)
    np.testing.assert_allclose(shift, shifts, atol=1e-10)
    one = procrustes(source, target[5])
    assert [np.shape(part) for part in one] == [(), (3, 3), (3,)]
    np.testing.assert_allclose(one[1], rotations[5], atol=1e-12)


def test_procrustes_leaves_the_least_squared_error():
    """No small change of its answer is better."""
    rng = np.random.default_rng(4)
    source, target = rng.normal(size=(12, 3)), rng.normal(size=(12, 3))

    def error(scale, rotation, shift) -> float:
        return float(((scale * source @ rotation.T + shift - target) ** 2).sum())

    scale, rotation, shift = procrustes(source, target)
    best = error(scale, rotation, shift)
    for _ in range(200):
        small = rng.normal(0, 0.02, 7)
        changed = turn(*np.degrees(small[:3])) @ rotation
        assert error(scale * (1 + small[6]), changed, shift + small[3:6]) > best


def test_procrustes_never_mirrors():
    rng = np.random.default_rng(5)
    source = rng.normal(size=(8, 3))
    for target in (source * [1, 1, -1], -source):
        _, rotation, _ = procrustes(source, target)
        assert np.linalg.det(rotation) == pytest.approx(1)
    flat = source * [1, 1, 0]
    _, rotation, _ = procrustes(flat, flat @ turn(30, 20, 10).T)
    np.testing.assert_allclose(rotation, turn(30, 20, 10), atol=1e-12)


def test_depth_is_turned_in_double_precision():
    points = np.array([[1, 2, 3]], np.float32)
    assert flip_depth(points).tolist() == [[1, 2, -3]]
    assert flip_depth(points).dtype == np.float64


def test_the_mean_shape_of_a_rigid_motion_is_the_shape(made_up, motion):
    mean = mean_shape(flip_depth(moving(made_up, motion)), np.array(STABLE))
    stable = mean[list(STABLE)]
    np.testing.assert_allclose(stable.mean(axis=0), 0, atol=1e-9)
    assert np.sqrt((stable**2).sum(axis=1).mean()) == pytest.approx(1)
    scale, rotation, shift = procrustes(made_up, mean)
    np.testing.assert_allclose(scale * made_up @ rotation.T + shift, mean, atol=1e-9)


def test_the_mean_shape_averages_what_is_not_rigid(made_up):
    """Vertices outside the aligning set do not turn the frames."""
    frames = np.repeat(made_up[None], 50, axis=0)
    frames[:, 13, 1] += np.sin(np.arange(50)) * 0.2
    mean = mean_shape(frames, np.array(STABLE))
    scale, rotation, shift = procrustes(made_up[list(STABLE)], mean[list(STABLE)])
    expected = frames[:, 13].mean(axis=0)
    np.testing.assert_allclose(mean[13], scale * rotation @ expected + shift, atol=1e-9)


# -- pose ------------------------------------------------------------------------------------------


@METHODS
@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_a_known_pose_is_recovered(made_up, motion, kind, canonical):
    pose = head_pose(moving(made_up, motion).astype(kind), sigma=0, canonical=canonical)
    assert pose.dtype == np.float64 and pose.shape == (40, 7)
    error = (pose[:, :3] - motion["angles"] + 180) % 360 - 180
    assert np.abs(error).max() < (1e-9 if kind is np.float64 else 1e-4)  # degrees


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_a_real_mesh_turns_as_it_is_turned(photographed, motion, kind):
    """Its own pose is not known, but the difference is."""
    itself = turn(*head_pose(photographed[None], sigma=0)[0, :3])
    points = flip_depth(photographed)
    points = (points - points.mean(axis=0)) / 60
    pose = head_pose(moving(points, motion).astype(kind), sigma=0)
    for found, wanted in zip(pose[:, :3], motion["angles"], strict=True):
        assert degrees_between(turn(*found), itself @ turn(*wanted)) < 0.01


@METHODS
def test_place_and_size_are_those_of_the_template(made_up, motion, canonical):
    pose = head_pose(moving(made_up, motion), sigma=0, canonical=canonical)
    vertices, template = pose_template()
    anchor = template[np.isin(vertices, [50, 280, 168])].mean(axis=0)
    factor = 120 / 1.160
    if canonical == "official":
        eyes = zip(sorted(EYE_LEFT), sorted(EYE_RIGHT), strict=True)
        factor = 120 / np.mean([abs(made_up[a, 0] - made_up[b, 0]) for a, b in eyes])
    for row, angles, scale, shift in zip(pose, *motion.values(), strict=True):
        # The constants of the code have three decimals.
        np.testing.assert_allclose(
            row[3:6], scale * anchor @ turn(*angles) + shift, atol=1e-3 * scale
        )
        assert row[6] * scale == pytest.approx(factor, rel=1e-6)


def test_signs_are_as_the_docstring_says(photographed):
    """Turned with plain pictures in mind: where do nose and eyes go?"""
    upright = flip_depth(photographed)
    upright = upright - upright.mean(axis=0)
    rest = head_pose((upright * [1, 1, -1])[None], sigma=0)[0]
    nose, left, right = NOSE_TIP, 33, 263

    def moved(axis: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
        u, v = [k for k in range(3) if k != axis]
        points = upright.copy()
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        points[:, u], points[:, v] = (
            c * upright[:, u] - s * upright[:, v],
            s * upright[:, u] + c * upright[:, v],
        )
        return points - upright, head_pose((points * [1, 1, -1])[None], sigma=0)[0] - rest

    for angle in (-10, 10):
        step, change = moved(1, angle)
        assert np.sign(change[0]) == -np.sign(step[nose, 0])  # nose to the left: yaw > 0
        assert abs(abs(change[0]) - 10) < 1.5
        step, change = moved(0, angle)
        assert np.sign(change[1]) == np.sign(step[nose, 1])  # nose down: pitch > 0
        assert abs(abs(change[1]) - 10) < 1.5
        step, change = moved(2, angle)
        assert np.sign(change[2]) == np.sign(step[left, 1] - step[right, 1])
        assert abs(abs(change[2]) - 10) < 1.5


def test_angles_do_not_jump_over_time(made_up):
    """A head that rolls over twice, with frames missing at the turn."""
    roll = np.linspace(0, 720, 100)
    motion = {
        "angles": np.stack([np.zeros(100), np.zeros(100), roll], axis=1),
        "scale": np.full(100, 90.0),
        "shift": np.zeros((100, 3)),
    }
    points = moving(made_up, motion)
    points[24:28] = np.nan
    pose = head_pose(points, sigma=0)
    known = np.isfinite(pose[:, 2])
    np.testing.assert_allclose(pose[known, 2], roll[known], atol=1e-6)
    smoothed = head_pose(points, sigma=1.0)
    np.testing.assert_allclose(smoothed[4:20, 2], roll[4:20], atol=1e-6)


@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_frames_without_a_face_have_no_pose(made_up, sigma):
    points = nodding(made_up)
    whole = head_pose(points, sigma=sigma)
    points[[0, 20, 21, 59]] = np.nan
    pose = head_pose(points, sigma=sigma)
    missing = np.isnan(pose).all(axis=1)
    assert np.flatnonzero(missing).tolist() == [0, 20, 21, 59]
    assert np.isfinite(pose[~missing]).all()
    np.testing.assert_allclose(pose[5:15], whole[5:15], atol=1e-9)


def test_a_clip_without_any_face_has_no_pose():
    assert np.isnan(head_pose(np.full((5, N_POINTS, 3), np.nan))).all()


def test_smoothing_lowers_noise_but_not_motion(made_up):
    """Gaussian of one frame on white noise leaves 0.53 of it."""
    still, noisy = nodding(made_up, noise=0.0), nodding(made_up, noise=1.0)
    rough, smooth = (head_pose(noisy, sigma=s) - head_pose(still, sigma=s) for s in (0.0, 1.0))
    assert (smooth.std(axis=0) < 0.7 * rough.std(axis=0)).all()
    bent = head_pose(still, sigma=1.0) - head_pose(still, sigma=0.0)
    assert np.abs(bent[5:-5, :3]).max() < 0.5  # degrees


def test_smoothing_does_not_cross_a_cut(made_up):
    """Two still shots with different poses stay as they are."""
    shots = nodding(made_up, noise=0)[[3, 40]].repeat(20, axis=0)
    sharp = head_pose(shots, sigma=0)
    assert np.abs(sharp[0, :3] - sharp[-1, :3]).min() > 3
    labels = np.repeat([0, 1], 20)
    np.testing.assert_allclose(head_pose(shots, sigma=2, segments=labels), sharp, atol=1e-9)
    assert np.abs(head_pose(shots, sigma=2) - sharp)[18:22, :3].max() > 1


# -- canonical space -------------------------------------------------------------------------------


def test_the_face_center_is_that_of_the_specification():
    assert face_center(512, 512).tolist() == [256, 232, 128]
    assert face_center(768, 768).tolist() == [384, 349, 192]
    assert face_center(640, 360).tolist() == [320, 163, 160]


@METHODS
@pytest.mark.parametrize("sigma", [0.0, 1.0, 3.0])
def test_canonicalising_inverts_exactly(made_up, canonical, sigma):
    landmarks = nodding(made_up)
    pose = head_pose(landmarks, sigma=sigma, canonical=canonical)
    center = face_center(512, 512)
    points = flip_depth(landmarks)
    there = canonicalize(points, pose, center)
    assert np.abs(decanonicalize(there, pose, center) - points).max() < 1e-9
    # As stored: everything float32.
    stored = [a.astype(np.float32) for a in (there, pose, center)]
    assert np.abs(decanonicalize(*stored) - points).max() < 1e-3


@METHODS
def test_the_canonical_face_does_not_move(made_up, motion, canonical):
    points = moving(made_up, motion)
    pose = head_pose(points, sigma=0, canonical=canonical)
    still = canonicalize(flip_depth(points), pose, face_center(512, 512))
    assert np.ptp(still, axis=0).max() < 1e-9
    vertices, template = pose_template()
    anchor = still[0, [50, 280, 168]].mean(axis=0)
    np.testing.assert_allclose(anchor, [256, 232, 128], atol=0.05)
    # Upright, straight, not mirrored: a scaled template.
    size = pose[0, 6] * motion["scale"][0]
    expected = template * size
    found = still[0, vertices]
    np.testing.assert_allclose(
        found - found.mean(axis=0), expected - expected.mean(axis=0), atol=1e-9
    )


@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_the_official_space_is_that_of_the_released_code(photographed, sigma):
    """The official code, written down step by step, on a real face in motion."""
    head = (flip_depth(photographed) - flip_depth(photographed).mean(axis=0)) / 60
    landmarks = nodding(head)
    pose = head_pose(landmarks, sigma=sigma, canonical="official")
    found = canonicalize(flip_depth(landmarks), pose, face_center(512, 512))
    left_eye = [249, 263, 362, 373, 374, 380, 381, 382, 384, 385, 386, 387, 388, 390, 398, 466]
    right_eye = [7, 33, 133, 144, 145, 153, 154, 155, 157, 158, 159, 160, 161, 163, 173, 246]
    for t in (0, 7, 30):
        v = [np.array([x, y, -z]) for x, y, z in landmarks[t]]
        if sigma:  # anchor and scale are smoothed too: take the stored ones
            c, k = pose[t, 3:6], pose[t, 6]
        else:
            c = (v[50] + v[280] + v[168]) / 3
            np.testing.assert_allclose(pose[t, 3:6], c, atol=1e-9)
        rotation = turn(*pose[t, :3])
        vc = [rotation @ (point - c) for point in v]
        if not sigma:
            widths = [abs(vc[a][0] - vc[b][0]) for a, b in zip(left_eye, right_eye, strict=True)]
            k = 120 / np.mean(widths)
            assert pose[t, 6] == pytest.approx(k, rel=1e-12)
        canonical = [point * k + np.array([256, 232, 128]) for point in vc]
        np.testing.assert_allclose(found[t], canonical, atol=1e-9)
        back = [rotation.T @ ((point - np.array([256, 232, 128])) / k) + c for point in canonical]
        np.testing.assert_allclose(decanonicalize(found, pose, face_center(512, 512))[t], back)


def test_an_official_canonical_face_has_the_eye_distance_and_place_it_should(photographed):
    head = (flip_depth(photographed) - flip_depth(photographed).mean(axis=0)) / 60
    landmarks = nodding(head, noise=0.0)
    pose = head_pose(landmarks, sigma=0, canonical="official")
    still = canonicalize(flip_depth(landmarks), pose, face_center(512, 512))
    left, right = still[:, list(EYE_LEFT)].mean(axis=1), still[:, list(EYE_RIGHT)].mean(axis=1)
    np.testing.assert_allclose((right - left)[:, 0], 120, atol=1e-9)
    anchor = still[:, [50, 280, 168]].mean(axis=1)
    np.testing.assert_allclose(anchor, [[256, 232, 128]] * 60, atol=1e-9)
