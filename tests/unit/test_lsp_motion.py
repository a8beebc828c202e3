"""Motion of Live Speech Portraits: projection, post-processing, generation whole and in chunks."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from talkingface.data.dataprocess.lsp import motion
from talkingface.data.dataprocess.lsp.drawing import draw_feature_map
from talkingface.data.dataprocess.lsp.window import Window
from talkingface.data.media.apc_mel import apc_mel, frame_count, mel_rows, row_start
from talkingface.model.audio_driven_talkingface.lsp.lsp_config import LSPInfer
from talkingface.model.audio_driven_talkingface.lsp.lsp_motion_networks import (
    Audio2FeatureNet,
    Audio2HeadposeNet,
    PoseGenerator,
    gaussian_nll,
)
from talkingface.model.layers.apc_networks import APCEncoder
from talkingface.model.layers.manifold import ManifoldProjection
from talkingface.pipeline.lsp.lsp_motion import PersonMotion, SpeechMotion
from talkingface.pipeline.lsp.portrait import LiveSession
from talkingface.quick_start.live import in_chunks

RNG = np.random.default_rng(0)


# -- front end -------------------------------------------------------------------------------------


def test_mel_of_silence_is_zero_and_rows_follow_the_motion_clock():
    assert not apc_mel(np.zeros(16000, np.float32)).any()
    assert apc_mel(np.zeros(8000, np.float32)).shape == (60, 80)
    assert [int(row_start(i)) for i in range(5)] == [0, 133, 266, 400, 533]
    assert apc_mel(np.zeros(100, np.float32)).shape == (0, 80)


def test_mel_rows_of_a_part_equal_those_of_the_whole():
    wave = RNG.normal(0, 0.1, 16000).astype(np.float32)
    whole = apc_mel(wave)
    origin = int(row_start(40))
    np.testing.assert_allclose(mel_rows(wave[origin:], 40, 30, origin), whole[40:70], atol=1e-6)


# -- manifold --------------------------------------------------------------------------------------


def test_a_row_of_the_database_is_its_own_projection():
    database = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    manifold = ManifoldProjection(database, 10)
    weights = manifold.weights(database, manifold.nearest(database))
    torch.testing.assert_close(weights.sum(1), torch.ones(50, dtype=weights.dtype))
    torch.testing.assert_close(manifold(database), database, atol=1e-4, rtol=0)


def test_equal_rows_few_rows_and_percent():
    repeated = torch.ones(30, 8)
    assert torch.isfinite(ManifoldProjection(repeated, 10)(torch.randn(5, 8))).all()
    features = torch.randn(4, 8)
    few = ManifoldProjection(torch.randn(3, 8), 10)
    assert few.neighbours == 3 and few(features).shape == (4, 8)
    assert torch.equal(ManifoldProjection(torch.randn(20, 8), percent=0.0)(features), features)
    with pytest.raises(ValueError, match="database"):
        ManifoldProjection(torch.zeros(0, 8))


def test_the_projection_lies_nearer_to_the_manifold():
    """Points of a circle in 16 dimensions; noise off the plane is taken out."""
    angle = torch.linspace(0, 6.28, 400)
    plane = torch.randn(2, 16, generator=torch.Generator().manual_seed(1))
    circle = torch.stack([angle.cos(), angle.sin()], 1) @ plane
    noisy = circle[::7] + 0.3 * torch.randn(58, 16, generator=torch.Generator().manual_seed(2))
    projected = ManifoldProjection(circle, 10)(noisy)

    def off(x):
        return torch.cdist(x, circle).min(1).values.mean()

    assert off(projected) < 0.5 * off(noisy)


# -- head pose -------------------------------------------------------------------------------------


def naive_poses(network, audio, ahead):
    """The official way: the whole network over its whole field for every frame, sigma 0."""
    field = network.receptive_field
    padded = torch.cat([audio[:1].expand(field - 1, -1), audio])
    history = torch.zeros(field, network.ndim)
    made = []
    for i in range(len(audio) - ahead):
        heard = padded[i + ahead : i + ahead + field]
        params = network(history[None], heard[None])
        made.append(network.sample(params[:, 0], 0.0, None)[0])
        history = torch.cat([history[1:], made[-1][None]])
    return torch.stack(made)


@torch.no_grad()
@pytest.mark.parametrize(("blocks", "residual"), [(1, False), (2, False), (2, True)])
def test_incremental_generation_equals_the_plain_one(blocks, residual):
    torch.manual_seed(0)
    network = Audio2HeadposeNet(8, 16, 4, blocks, 8, 12, residual=residual).eval()
    for parameter in network.parameters():
        parameter.mul_(2 if residual else 5)  # otherwise everything is almost zero
    audio = torch.randn(60, 16)
    fast = list(PoseGenerator(network, sigma=0.0, ahead=5).generate(audio))
    torch.testing.assert_close(
        torch.stack(fast), naive_poses(network, audio, 5), atol=1e-5, rtol=1e-5
    )


def test_poses_can_be_seeded_and_drawn_in_parts():
    network = Audio2HeadposeNet(8, 16, 3, 1, 8, 12).eval()
    audio = torch.randn(40, 16)

    def draw(seed, *parts):
        generator = PoseGenerator(network, sigma=0.3, ahead=4, seed=seed)
        return torch.stack([p for part in parts for p in generator.generate(part)])

    whole = draw(1, audio)
    assert len(whole) == 36
    torch.testing.assert_close(draw(1, audio[:3], audio[3:10], audio[10:]), whole)
    assert not torch.allclose(draw(2, audio), whole)


def test_a_head_of_drawn_changes_does_not_wander_off():
    """Two minutes of a network that adds noise to the pose before it."""

    def reach(return_frames: float) -> float:
        torch.manual_seed(0)
        network = Audio2HeadposeNet(
            8, 16, 3, 1, 8, 12, residual=True, return_frames=return_frames
        ).eval()
        drawn = PoseGenerator(network, sigma=0.3, ahead=0).generate(torch.zeros(7200, 16))
        return float(torch.stack(list(drawn))[3600:, :6].abs().max())

    assert reach(480.0) < 4 * 0.3 * (480 / 2) ** 0.5 * 1.5  # an AR(1) process and its drift
    assert reach(0.0) > 2 * reach(480.0)


def test_the_likelihood_is_that_of_a_mixture():
    from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

    params, target = torch.randn(2, 3, 2 * (1 + 2 * 4)), torch.randn(2, 3, 4)
    means = params[..., 2:10].unflatten(-1, (2, 4))
    sigma = torch.exp(-params[..., 10:].unflatten(-1, (2, 4)))
    parts = Independent(Normal(means, sigma), 1)
    expected = MixtureSameFamily(Categorical(logits=params[..., :2]), parts).log_prob(target)
    found = gaussian_nll(params, target, ncenter=2, sigma_min=1e-3)
    torch.testing.assert_close(found, -expected.mean() / 4)


# -- mouth -----------------------------------------------------------------------------------------


def test_close_small_scales_each_frame_on_its_own():
    moves = np.zeros((3, 73, 3))
    moves[0, list(motion.UPPER_LIP), 1], moves[0, list(motion.LOWER_LIP), 1] = 0.1, -0.1
    moves[2] = -moves[0]
    made = motion.amplify_mouth(moves, "CloseSmall", (2, 2, 2, 0.5, 0.5, 0.5))
    np.testing.assert_allclose(made[0], 2 * moves[0])
    np.testing.assert_allclose(made[1], 0)
    np.testing.assert_allclose(made[2], 0.5 * moves[2])


def test_lips_that_cross_are_parted_and_others_left_alone():
    points = RNG.normal(0, 0.01, (4, 73, 3))
    points[:, [63, 62, 61], 1] = 0.1
    points[:, [58, 59, 60], 1] = -0.1
    points[2, [58, 59, 60], 1] = 0.3
    made = motion.repair_lips(points)
    np.testing.assert_array_equal(made[[0, 1, 3]], points[[0, 1, 3]])
    np.testing.assert_allclose(made[2, [63, 62, 61], 1], made[2, [58, 59, 60], 1])
    np.testing.assert_array_equal(motion.repair_lips(made[:2]), made[:2])


def test_wrong_amplifiers_are_refused_with_what_is_possible():
    with pytest.raises(ValueError, match="LowerMore takes 6 factors"):
        LSPInfer(motion={"mouth_amp": ["LowerMore", 1, 2]})
    with pytest.raises(ValueError, match="unknown; choose from XY"):
        LSPInfer(motion={"mouth_amp": ["Louder", 1]})


def test_pose_vectors_are_centred_and_differ_by_the_velocity():
    angles = np.array([[179.0, 1, 2], [-179.0, 1, 2], [178.0, 0, 2]])
    pose = motion.pose_vectors(angles, np.ones((3, 3)), np.array([1.0, 0, 0]))
    np.testing.assert_allclose(pose[:, 0], [-1, 1, -2])
    np.testing.assert_allclose(pose[:, 3:6], [[0, 1, 1]] * 3)
    np.testing.assert_allclose(pose[:, 6], [0, 2, -3])


# -- window and drawing ----------------------------------------------------------------------------


def _detail(picture: np.ndarray) -> float:
    return float(np.abs(np.diff(picture.astype(float), axis=0)).mean())


@pytest.mark.parametrize("scale", [0.4, 0.8, 1.0, 1.7])
def test_the_window_is_that_of_the_official_arithmetic(scale):
    """Resize all and crop around the centre; the source continues blurred where it ends."""
    import cv2

    source = cv2.GaussianBlur(RNG.integers(0, 255, (480, 640, 3), np.uint8), (0, 0), 6)
    window = Window(scale, round(330 * scale), round(200 * scale))
    width, height = int(640 * scale), int(480 * scale)
    resized = cv2.resize(source, (width, height), interpolation=cv2.INTER_AREA)
    canvas = np.zeros((512, 512, 3), np.uint8)
    top, bottom, left, right = window.bounds((640, 480))
    x, y = window.xc - 256, window.yc - 256
    part = resized[max(0, y) : window.yc + 256, max(0, x) : window.xc + 256]
    canvas[top : 512 - bottom, left : 512 - right] = part
    made = window.cut(source)
    inside = (slice(top + 3, 509 - bottom), slice(left + 3, 509 - right))
    assert np.abs(made[inside].astype(int) - canvas[inside]).mean() < 1.5
    if left > 4:  # the surround continues the picture, without detail
        edge, beside = made[:, left], made[:, left - 1]
        assert np.abs(edge.astype(float) - beside).mean() < 12
        assert made[:, : left - 2].min(axis=(0, 2)).min() > 20
        assert _detail(made[:, : left - 2]) < 0.3 * _detail(made[inside])
    corner = window.points(np.array([[330.0, 200.0]]))
    assert np.abs(corner - 256).max() <= 1


def test_points_and_camera_of_the_window_agree():
    window = Window(1.3, 400, 300)
    focal, centre = 700.0, np.array([320.0, 240.0])
    camera = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])
    points = RNG.normal(0, 50, (5, 3)) + (0, 0, 900)
    in_source = motion.project_camera(points, camera)
    np.testing.assert_allclose(
        window.points(in_source), motion.project_camera(points, window.camera(focal, centre))
    )


def test_maps_of_other_sizes_and_without_shoulders():
    landmarks = RNG.uniform(100, 400, (73, 2))
    assert draw_feature_map(landmarks, None, 64).shape == (64, 64)
    half = np.full((18, 2), np.nan)
    half[:9] = np.linspace((10, 500), (100, 450), 9)
    alone = draw_feature_map(landmarks)
    assert draw_feature_map(landmarks, half).sum() > alone.sum()
    before = half.copy()
    draw_feature_map(landmarks + 1e6, half)  # far outside, and nothing is changed in place
    np.testing.assert_array_equal(half, before)


# -- at once and in chunks -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def speech() -> SpeechMotion:
    torch.manual_seed(3)
    networks = APCEncoder(80, 8, 2), Audio2FeatureNet(8, 8, 1), Audio2HeadposeNet(8, 8, 3, 1, 8, 8)
    for network in networks:
        network.eval().requires_grad_(False)
        for parameter in network.parameters():
            parameter.mul_(3)
    points = RNG.normal(0, 0.3, (80, 73, 3))
    person = PersonMotion(
        mean_points=points.mean(0),
        rest=points.mean(0),
        eyes=points[10:, motion.EYES],
        mean_trans=np.array([0.0, 0, 900]),
        shoulders=RNG.normal(0, 50, (18, 3)) + (0, 100, 900),
        shoulder_trans=np.array([0.0, 0, 900]),
        scale=90.0,
        camera=np.array([[700.0, 0, 256], [0, 700, 256], [0, 0, 1]]),
    )
    manifold = ManifoldProjection(torch.rand(40, 8), 5)
    options = LSPInfer(motion={"causal": True, "mouth_amp": ["delta", 1.5]})
    return SpeechMotion(*networks, (18, 15), manifold, person, options, 0.3)


def voice(seconds: float) -> np.ndarray:
    return np.random.default_rng(5).normal(0, 0.1, round(16000 * seconds)).astype(np.float32)


@pytest.mark.parametrize("chunk", [37, 1600, 16000])
def test_motion_in_chunks_equals_motion_at_once(speech, chunk):
    wave = voice(1.21)
    whole = speech.generate(wave, seed=4)
    stream = speech.stream(seed=4)
    parts = [stream.push(part) for part in in_chunks(wave, chunk)]
    parts.append(stream.finish())
    assert len(whole) == frame_count(len(wave)) == sum(map(len, parts))
    for key in ("landmarks", "shoulders", "points", "pose"):
        joined = np.concatenate([getattr(part, key) for part in parts])
        np.testing.assert_allclose(joined, getattr(whole, key), atol=1e-3)


def test_a_frame_comes_after_its_look_ahead_and_no_later(speech):
    stream, given = speech.stream(), 0
    for number, part in enumerate(in_chunks(voice(2.0), 160), 1):
        given += len(stream.push(part))
        heard = number * 0.01
        due = int((heard - 0.3 - 0.025) * 60)
        assert max(0, due - 1) <= given <= max(0, due + 1)


def test_no_sound_and_very_short_sound(speech):
    stream = speech.stream()
    assert len(stream.push(np.zeros(0, np.float32))) == len(stream.finish()) == 0
    assert len(speech.generate(voice(0.01))) == 0
    short = speech.generate(voice(0.05))
    stream = speech.stream()
    assert len(stream.push(voice(0.05))) == 0
    np.testing.assert_allclose(stream.finish().landmarks, short.landmarks, atol=1e-3)


@pytest.mark.parametrize("fps", [25, 30, 60])
def test_live_pictures_are_those_of_the_whole_sound(speech, fps):
    """The points that are drawn; painting them is the same function."""
    from talkingface.data.dataset.lsp.lsp_face_dataset import at_rate

    def painted(person, landmarks, shoulders, baseline):
        return [np.concatenate([a, b]) for a, b in zip(landmarks, shoulders, strict=True)]

    pipeline = SimpleNamespace(
        speech=lambda person: speech, frames_of=painted, cfg=SimpleNamespace(fps=fps)
    )
    wave = voice(1.5)
    session = LiveSession(pipeline, None, seed=2)
    live = [f for part in in_chunks(wave, 1600) for f in session.push(part)]
    live += session.finish()
    motion_at_once = speech.generate(wave, seed=2)
    count = round(1.5 * fps)
    expected = np.concatenate(
        [at_rate(v, fps, count) for v in (motion_at_once.landmarks, motion_at_once.shoulders)], 1
    )
    np.testing.assert_allclose(np.array(live), expected, atol=1e-3)


def test_the_jaw_moves_only_where_it_is_asked_to(speech):
    wave = voice(0.5)
    still = speech.generate(wave).points[:, 4:11]
    assert np.ptp(still, axis=0).max() == 0
    speech.options.motion.use_pred_jaw = True
    try:
        assert np.ptp(speech.generate(wave).points[:, 4:11], axis=0).max() > 0
    finally:
        speech.options.motion.use_pred_jaw = False


def test_without_padding_the_head_ends_earlier(speech):
    speech.options.pad_headpose = False
    try:
        assert len(speech.generate(voice(1.0))) == 60 - 15
    finally:
        speech.options.pad_headpose = True
