"""VideoRewrite's parts: shapes without pose, regression, search, warping, colours, blending."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from talkingface.data.face.align import CROP_POINTS
from talkingface.data.face.blend import match_light, mix, seamless, soft_polygon
from talkingface.data.face.mouth_shapes import SHAPE_SIZE, HeadFrame, ShapeSpace, opening
from talkingface.data.face.topology import CHIN, LIPS, LIPS_OUTER, STABLE
from talkingface.data.face.warp import warped
from talkingface.data.media.mel import ROW_SIZE, sound_rows, wav2lip_mel
from talkingface.data.media.voice import pauses, rest_weights
from talkingface.pipeline.retrieval.bank import MouthBank, Patch, _Part
from talkingface.pipeline.retrieval.regression import KernelRidge
from talkingface.pipeline.retrieval.retriever import MouthRetriever, PresentFace, RetrievalOptions
from talkingface.pipeline.retrieval.selection import best_sequence

RNG = np.random.default_rng(5)
LIP_ROWS = [CROP_POINTS.index(point) for point in LIPS]
LOWER_LIP = [CROP_POINTS.index(p) for p in (14, 17, 87, 317, 84, 314)]


def head(count: int, gap: np.ndarray | float = 0.0, turn: float = 8.0) -> np.ndarray:
    """Points (count,K,3) in px of a random face that turns, with its lower lip ``gap`` px lower."""
    face = np.random.default_rng(1).normal(0, (40, 50, 20), (len(CROP_POINTS), 3))
    face[CROP_POINTS.index(33)], face[CROP_POINTS.index(263)] = (-45, -20, 0), (45, -20, 0)
    face[CROP_POINTS.index(10)], face[CROP_POINTS.index(2)] = (0, -80, 0), (0, 15, 0)
    points = np.repeat(face[None], count, axis=0)
    points[:, LOWER_LIP, 1] += np.broadcast_to(gap, count)[:, None]
    angles = turn * np.sin(np.arange(count)[:, None] / 5 + (0, 1, 2))
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    return points @ rotation.swapaxes(1, 2) + (100, 110, 0) + np.arange(count)[:, None, None] * 0.1


# -- shapes ----------------------------------------------------------------------------------------


def test_shapes_follow_the_mouth_and_not_the_head():
    gap = 6 * (1 + np.sin(np.arange(40) / 3))
    points = head(40, gap)
    shapes = HeadFrame.of(points).shapes(points)
    assert shapes.shape == (40, SHAPE_SIZE, 3)
    found = shapes[:, LIPS.index(14), 1] - shapes[0, LIPS.index(14), 1]
    np.testing.assert_allclose(found, (gap - gap[0]) / 90, atol=0.004)
    still = np.delete(shapes, [LIPS.index(p) for p in (14, 17, 87, 317, 84, 314)], axis=1)
    assert np.abs(still - still[0]).max() < 0.01


def test_head_coordinates_do_not_depend_on_the_first_frame():
    points = head(40, 5.0, turn=20.0)
    a, b = HeadFrame.of(points), HeadFrame.of(points[::-1])
    np.testing.assert_allclose(a.stable, b.stable, atol=0.02)
    np.testing.assert_allclose(a.shapes(points), b.shapes(points), atol=0.02)
    eyes = a.stable[STABLE.index(263)] - a.stable[STABLE.index(33)]
    np.testing.assert_allclose(eyes, (1, 0, 0), atol=1e-6)


def test_a_pose_places_the_shapes_where_the_points_were():
    points = head(20, 5.0)
    frame = HeadFrame.of(points)
    shapes, poses = frame.shapes(points), frame.poses(points)
    for k in (0, 7, 19):
        np.testing.assert_allclose(poses.place(k, shapes[k, :-1]), points[k, LIP_ROWS, :2])
        chin = points[k, CROP_POINTS.index(CHIN), :2]
        np.testing.assert_allclose(poses.place(k, shapes[k, -1:])[0], chin)


def test_the_unit_is_the_distance_of_the_eye_corners():
    small, large = (HeadFrame.of(head(8) * size).stable for size in (1, 3))
    np.testing.assert_allclose(small, large)


def test_principal_components_keep_what_varies():
    shapes = HeadFrame.of(head(30)).shapes(head(30, 10 * RNG.random(30)))
    space = ShapeSpace.of(shapes)
    np.testing.assert_allclose(space.decode(space.encode(shapes)), shapes, atol=1e-3)
    assert (np.diff(space.spread) <= 0).all()
    assert opening(shapes).std() > 0.01


# -- sound -----------------------------------------------------------------------------------------


def test_sound_rows_are_the_columns_around_each_frame_without_the_channel():
    mel = RNG.normal(0, 1, (80, 240)).astype(np.float32)
    rows = sound_rows(mel, 75, 25.0)
    assert rows.shape == (75, ROW_SIZE)
    np.testing.assert_allclose(sound_rows(mel + 2, 75, 25.0), rows, atol=1e-5)
    around = rows.reshape(75, 9, 80)
    centre = around[:, 4]
    np.testing.assert_allclose(centre[10] - centre[20], mel[:, 32] - mel[:, 64], atol=1e-5)
    np.testing.assert_allclose(around[0, 0], around[0, 4])  # before the beginning
    np.testing.assert_allclose(around[10, 5] - around[10, 4], mel[:, 35] - mel[:, 32], atol=1e-5)


def test_silence_around_a_sound_does_not_change_its_rows():
    mel = wav2lip_mel(RNG.normal(0, 0.1, 48000).astype(np.float32))
    silent = np.full((80, 400), -4, np.float32)
    rows = sound_rows(np.concatenate([mel, silent], 1), 60, 25.0)
    assert np.abs(rows - sound_rows(mel, 60, 25.0)).max() < 0.05


def test_kernel_ridge_learns_a_relation_that_is_not_linear():
    rows = RNG.normal(0, 1, (600, ROW_SIZE)) * (np.arange(ROW_SIZE) < 3)
    targets = np.stack([np.sin(2 * rows[:, 0]), rows[:, 1] * rows[:, 2]], axis=1)
    none = np.zeros((600, 0))
    fit = KernelRidge.fit(rows[:500], none[:500], targets[:500])
    found = fit(rows[500:], none[500:])
    for k in range(2):
        assert np.corrcoef(found[:, k], targets[500:, k])[0, 1] > 0.8


def test_kernel_ridge_uses_the_output_of_a_network():
    rows, guess = RNG.normal(0, 1, (300, ROW_SIZE)), RNG.normal(0, 10, (300, 2))
    targets = guess @ [[1.0], [0.5]]
    fit = KernelRidge.fit(rows[:250], guess[:250], targets[:250])
    found = fit(rows[250:], guess[250:])
    assert np.corrcoef(found[:, 0], targets[250:, 0])[0, 1] > 0.9


# -- search ----------------------------------------------------------------------------------------


def test_the_search_finds_the_cheapest_sequence():
    local, codes = RNG.random((5, 6)), RNG.normal(0, 1, (6, 2))
    follows = np.array([True, True, False, True, True, False])

    def cost(path: tuple[int, ...]) -> float:
        total = sum(local[t, k] for t, k in enumerate(path))
        for a, b in itertools.pairwise(path):
            if not (follows[a] and b == a + 1):
                total += 0.2 + ((codes[a] - codes[b]) ** 2).sum()
        return total

    best = min(itertools.product(range(6), repeat=5), key=cost)
    assert tuple(best_sequence(local, codes, follows, jump=0.2)) == best


def test_forbidden_frames_are_not_chosen_and_sequences_are_continued():
    local = np.zeros((8, 20))
    local[:, 5:9] = np.inf
    path = best_sequence(local, np.zeros((20, 1)), np.arange(20) < 19, jump=1.0, candidates=3)
    assert not ({*path.tolist()} & {5, 6, 7, 8})
    assert (np.diff(path) == 1).sum() >= 6


# -- pictures --------------------------------------------------------------------------------------


def test_a_warp_moves_control_points_and_what_is_between_them():
    image = cv2.resize(RNG.integers(0, 256, (12, 12, 3), np.uint8), (120, 120))
    source = np.array([(10, 10), (110, 10), (10, 110), (110, 110), (60, 60.0)])
    assert np.array_equal(warped(image, source, source, (0, 0, 120, 120)), image)
    moved = warped(image, source + (7, -3), source, (20, 20, 100, 100))
    np.testing.assert_allclose(moved, image[23:103, 13:93], atol=3)
    target = source.copy()
    target[4] += (12, 5)
    bent = warped(image, target, source, (0, 0, 120, 120))
    assert np.abs(bent[65, 72].astype(int) - image[60, 60]).max() < 12
    assert np.abs(bent[10, 10].astype(int) - image[10, 10]).max() < 12


def test_the_light_of_a_picture_is_matched_with_its_side_and_colour():
    target = np.clip(RNG.normal((150, 110, 90), (14, 10, 8), (60, 60, 3)), 0, 255).astype(np.uint8)
    side = np.linspace(0.6, 1.0, 60)[None, :, None] * (0.9, 1.0, 1.1)
    lit = np.clip(target * side, 0, 255).astype(np.uint8)
    ring = np.ones((60, 60), bool)
    ring[20:40, 20:40] = False
    found = match_light(lit, target, ring).astype(float)
    before, after = (np.abs(p - target)[20:40, 20:40].mean() for p in (lit.astype(float), found))
    assert after < before / 8
    assert match_light(lit, target, np.zeros((60, 60), bool)) is lit


def test_the_gain_of_a_match_is_limited():
    black, white = np.full((40, 40, 3), 20, np.uint8), np.full((40, 40, 3), 250, np.uint8)
    assert match_light(black, white, np.ones((40, 40), bool)).max() < 60


def test_a_soft_polygon_is_one_inside_and_falls_outside():
    square = np.array([(30, 30), (50, 30), (50, 50), (30, 50)])
    weights = soft_polygon(square, (10, 10, 80, 80), reach=2, border=10)
    assert weights.shape == (70, 70)
    assert (weights[20:40, 20:40] == 1).all()
    assert weights[30, 43] < 1 and weights[30, 55] == 0
    assert (np.diff(weights[30, 40:]) <= 0).all()


def test_gradient_blending_takes_the_border_from_the_picture():
    image, over = np.full((60, 60, 3), 80, np.uint8), np.full((60, 60, 3), 200, np.uint8)
    over[28:32, 28:32] = 230
    weights = np.zeros((60, 60), np.float32)
    weights[15:45, 15:45] = 1
    found = seamless(image, over, weights)
    assert np.abs(found[15:45, 15].astype(int) - 80).max() < 6
    assert found[30, 30, 0] - found[30, 20, 0] > 15
    assert (mix(image, over, weights)[20, 20] == 200).all()
    assert np.array_equal(seamless(image, over, weights * 0), image)


def test_a_mouth_placed_where_it_was_changes_almost_nothing():
    points, picture = face_picture()
    frame = HeadFrame.of(points[None].repeat(3, 0))
    poses, shape = frame.poses(points[None]), frame.shapes(points[None])[0]
    face = PresentFace(points[None, :, :2], poses, shape[None])
    patch = Patch(picture, points[:, :2])
    same = face.with_mouth(picture, 0, shape, patch, "feather")
    assert np.abs(same.astype(int) - picture).mean() < 1
    open_shape = shape.copy()
    lower = [LIPS.index(p) for p in (14, 17, 87, 317, 84, 314)]
    open_shape[[*lower, -1], 1] += 0.15
    opened = face.with_mouth(picture, 0, open_shape, patch, "feather")
    changed = np.abs(opened.astype(int) - picture).max(-1) > 12
    rows = np.flatnonzero(changed.any(1))
    assert changed.sum() > 200
    assert rows.min() > points[CROP_POINTS.index(4), 1]  # below the tip of the nose


def face_picture() -> tuple[np.ndarray, np.ndarray]:
    """Points (K,3) of a face in the plane and a smooth picture of it."""
    from talkingface.data.face.topology import pose_template

    index, template = pose_template()
    known = dict(zip(index.tolist(), template, strict=True))
    rng = np.random.default_rng(3)
    points = np.array([known.get(p, (0, 0, 0)) for p in CROP_POINTS]) * 60
    missing = [k for k, p in enumerate(CROP_POINTS) if p not in known]
    angle = 2 * np.pi * np.arange(len(missing)) / len(missing)
    points[missing, :2] = 75 * np.stack([np.sin(angle), -np.cos(angle)], 1)
    lips = np.linspace(0, 2 * np.pi, len(LIPS_OUTER), endpoint=False)
    ring = np.stack([np.cos(lips), np.sin(lips)], 1)
    for part, (width, height) in enumerate([(26, 10), (18, 3)]):
        rows = LIP_ROWS[part * 20 : (part + 1) * 20]
        points[rows, :2] = ring * (width, height) + (0, 35)
    picture = cv2.resize(rng.integers(60, 200, (10, 10, 3), np.uint8), (200, 200))
    return points + (100, 95, 0), picture


# -- what may be used ------------------------------------------------------------------------------


def bank_of(count: int, own: bool) -> MouthBank:
    points = head(count, 6 * (1 + np.sin(np.arange(count) / 3)))
    rows = RNG.normal(0, 1, (count, ROW_SIZE))
    blank = Patch(np.zeros((4, 4, 3), np.uint8), points[0, :, :2])
    part = _Part(np.arange(count), points, rows, lambda inside: ((int(k), blank) for k in inside))
    return MouthBank([part], own=own)


@pytest.mark.parametrize("own", [True, False])
def test_the_true_mouths_are_not_used_when_a_video_gets_its_own_sound(monkeypatch, own):
    bank = bank_of(100, own)
    monkeypatch.setattr(
        "talkingface.pipeline.retrieval.retriever.sound_rows", lambda mel, n, fps: bank.rows[:n]
    )
    retriever = MouthRetriever(25.0, RetrievalOptions())
    rotation = np.repeat(np.eye(3)[None], 100, 0)
    wave, order = np.zeros(64000, np.float32), np.arange(100)
    _, sequence = retriever.plan(bank, wave, order, rotation, np.zeros(100))
    distance = np.abs(sequence - order)
    if own:
        assert distance.min() > 12  # half a second
    else:
        assert distance.min() <= 12


def test_pictures_of_a_bank_are_found_by_index_and_long_ones_are_thinned():
    bank = bank_of(60, own=False)
    assert sorted(bank.patches([3, 59, 3])) == [3, 59]
    assert bank.follows.sum() == 59 and not bank.follows[-1]


def test_a_long_bank_keeps_whole_seconds(monkeypatch):
    monkeypatch.setattr("talkingface.pipeline.retrieval.bank.MAX_FRAMES", 100)
    bank = bank_of(220, own=False)
    assert len(bank) <= 100
    assert bank.numbers.tolist()[:26] == [*range(25), 75]
    assert [*bank.patches([25])] == [25]
    short = [bank_of(30, own=False)._parts[0] for _ in range(8)]  # the ends are not always left out
    numbers = MouthBank(short, own=False).numbers
    assert numbers.max() == 29 and numbers.min() == 0


# -- pauses ----------------------------------------------------------------------------------------


def speech_with_a_pause() -> np.ndarray:
    """One second of noise, one of near silence, one of noise."""
    wave = RNG.normal(0, 0.2, 48000).astype(np.float32)
    wave[16000:32000] *= 0.001
    return wave


def test_pauses_are_found_by_the_level(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ((start, stop),) = pauses(speech_with_a_pause())
    assert start == pytest.approx(1, abs=0.03) and stop == pytest.approx(2, abs=0.03)
    assert pauses(np.zeros(16000, np.float32)) == [(0.0, 1.0)]
    assert pauses(RNG.normal(0, 0.2, 16000).astype(np.float32)) == []
    assert pauses(np.zeros(0, np.float32)) == []


def test_a_held_vowel_is_no_pause(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    time = np.arange(32000) / 16000
    fading = np.sin(2 * np.pi * 180 * time) * np.linspace(0.5, 0.15, 32000)
    assert pauses(fading.astype(np.float32)) == []


def test_pauses_in_noise_are_found_by_the_level(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    wave = speech_with_a_pause() + RNG.normal(0, 0.01, 48000).astype(np.float32)
    ((start, stop),) = pauses(wave)
    assert start == pytest.approx(1, abs=0.05) and stop == pytest.approx(2, abs=0.05)


def test_silero_finds_the_pause_and_leaves_the_threads_alone():
    pytest.importorskip("silero_vad")
    import torch

    before = torch.get_num_threads()
    found = pauses(np.zeros(32000, np.float32))
    assert found == [(0.0, 2.0)] and torch.get_num_threads() == before


def test_the_mouth_rests_within_an_eighth_of_a_second(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    weights = rest_weights(speech_with_a_pause(), 75, 25.0)
    assert (weights[:26] < 0.3).all()
    assert (weights[28:48] == 1).all()  # 0.12 s are three frames
    assert (weights[50:74] == 0).all()
    assert (rest_weights(np.zeros(16000, np.float32), 25, 25.0) == 1).all()
