"""Metrics of landmarks, motion and identity against closed forms (official code)."""

from __future__ import annotations

import math
import re
import wave
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from trainkit import hyperlips_config

import talkingface
from talkingface.data.face.portrait import EYES, eye_aspect_ratio
from talkingface.data.face.pose import flip_depth
from talkingface.data.face.topology import (
    EYE_CORNERS_LEFT,
    EYE_CORNERS_RIGHT,
    EYE_LEFT,
    EYE_RIGHT,
    FACE_OVAL,
    LIPS,
    LIPS_INNER,
    LIPS_OUTER,
    N_POINTS,
    pose_template,
)
from talkingface.data.media.reader import read_frames
from talkingface.data.media.writer import VideoWriter, write_image
from talkingface.errors import ConfigError
from talkingface.evaluator.clip import ClipPair
from talkingface.evaluator.evaluator import Evaluator, RowResult
from talkingface.evaluator.metrics import diversity as diversity_module
from talkingface.evaluator.metrics.beat import (
    audio_beats,
    beat_align,
    motion_beats,
    onset_peaks,
)
from talkingface.evaluator.metrics.blink import blinks
from talkingface.evaluator.metrics.diversity import diversity, pairwise_distance
from talkingface.evaluator.metrics.identity import POINTS, SIDE, TEMPLATE, align_face, load_embedder
from talkingface.evaluator.metrics.landmark_distance import FACE
from talkingface.evaluator.metrics.motion import NOSE_BRIDGE, mean_difference, motion_statistics
from talkingface.evaluator.metrics.motion_distribution import (
    motion_frechet,
    pair_diversity,
    pooled,
    sample_variance,
    time_variance,
)
from talkingface.evaluator.metrics.mouth_area import overlap, polygon_areas
from talkingface.evaluator.metrics.pose_stats import angle_distance
from talkingface.evaluator.motion_sample import MotionSample
from talkingface.evaluator.report import console_table
from talkingface.utils.hashes import sha256_of

POINT_METRICS = ["LMD", "LMD_v", "FLMD", "FLMD_v", "MA", "jitter", "blink", "pose", "BeatAlign",
                 "expression"]  # fmt: skip


def score(
    name: str,
    generated: np.ndarray,
    real: np.ndarray,
    fps: float = 25.0,
    sound: Path | None = None,
    **params,
) -> tuple[dict[str, float], dict[str, str], list[str]]:
    """Values, reasons and notes for given landmarks."""
    pair = ClipPair("clip", Path("generated.mp4"), Path("real.mp4"))
    pair.generated_landmarks, pair.real_landmarks = generated, real
    pair.fps, pair.sound, pair.n_frames = fps, sound, min(len(generated), len(real))
    metric = talkingface.create_metric(name, **params)
    metric.start(pair)
    values = metric.finish(pair)
    assert list(values) == list(metric.outputs)
    assert {type(value) for value in values.values()} == {float}
    assert set(metric.reasons) >= {key for key, value in values.items() if math.isnan(value)}
    return values, metric.reasons, pair.notes


def template_face() -> np.ndarray:
    """(478,3): the rigid template, the other points around it; open eyes and lips."""
    rng = np.random.default_rng(0)
    vertices, template = pose_template()
    points = rng.normal(0, 0.3, (N_POINTS, 3))
    points[vertices] = template
    return points


def head(angles: np.ndarray, place: np.ndarray | None = None, scale: float = 100.0) -> np.ndarray:
    """Landmarks (T,478,3) of a rigid head with yaw, pitch and roll (T,3) in degrees."""
    angles = np.asarray(angles, np.float64)
    turns = Rotation.from_euler("xyz", angles[:, [1, 0, 2]], degrees=True).as_matrix()
    points = scale * template_face() @ turns  # the transpose: these rotations take the pose out
    place = np.zeros((len(angles), 3)) if place is None else place
    return flip_depth(points + place[:, None] + [300, 300, 0])


def nodding(frames: int = 60, period: float = 15.0, size: float = 8.0) -> np.ndarray:
    """Angles (T,3) of a head that swings about all three axes."""
    swing = np.sin(2 * np.pi * np.arange(frames) / period)
    return np.stack([size * swing, 0.5 * size * swing, 0.2 * size * swing], axis=1)


def click_track(path: Path, seconds: list[float], length: float = 4.0) -> Path:
    samples = np.zeros(int(length * 16000))
    for time in seconds:
        start = round(time * 16000)
        burst = np.random.default_rng(0).normal(0, 0.3, 1600) * np.exp(-np.arange(1600) / 400)
        samples[start : start + 1600] += burst
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def clicks(tmp_path_factory) -> Path:
    return click_track(tmp_path_factory.mktemp("sound") / "clicks.wav", [0.4, 1.0, 1.6, 2.2])


# -- rules of all metrics of points ----------------------------------------------------------------


@pytest.mark.parametrize("name", POINT_METRICS)
def test_a_face_compared_with_itself_is_perfect(name, clicks):
    face = head(nodding())
    values, _, notes = score(name, face, face, sound=clicks)
    for key, value in values.items():
        if key.endswith("_ratio") or key.startswith("MA"):
            assert value == pytest.approx(1.0), key
        elif "LMD" in key or key == "ARD":
            assert value == pytest.approx(0.0, abs=1e-9), key
    assert notes == []


@pytest.mark.parametrize("name", POINT_METRICS)
@pytest.mark.parametrize("frames", [0, 1, 2])
def test_hardly_any_frames_give_values_or_reasons(name, frames, clicks):
    face = head(nodding(frames))
    score(name, face, face, sound=clicks)  # checks that each nan has its reason


@pytest.mark.parametrize("name", POINT_METRICS)
def test_less_than_half_of_the_faces_give_nan_with_the_share(name, clicks):
    face = head(nodding())
    lost = face.copy()
    lost[:33] = np.nan
    values, reasons, _ = score(name, lost, face, sound=clicks)
    assert all(math.isnan(value) for value in values.values())
    assert all("only 45% of the frames" in reason for reason in reasons.values())


@pytest.mark.parametrize("name", ["LMD", "LMD_v", "FLMD", "FLMD_v", "MA"])
def test_comparisons_need_a_face_in_both_videos(name):
    face = head(nodding())
    lost = face.copy()
    lost[:33] = np.nan
    _, reasons, _ = score(name, face, lost)
    assert "in both videos in only 45% of the frames" in reasons[name]


@pytest.mark.parametrize("name", POINT_METRICS)
def test_a_few_missing_frames_are_left_out_and_noted(name, clicks):
    face = talking(60) if name == "expression" else head(nodding())  # a rigid face says nothing
    lost = face.copy()
    lost[10:20] = np.nan
    values, _, notes = score(name, lost, face, sound=clicks)
    assert any(math.isfinite(value) for value in values.values())
    assert notes[0] == f"{name}: faces in 83% of the frames"


@pytest.mark.parametrize("name", POINT_METRICS)
def test_the_definition_names_the_detector_and_its_mode(name):
    text = talkingface.create_metric(name).definition()
    assert text.startswith(f"{name}[facelandmarker") and ",static" in text and text.endswith("]")


@pytest.mark.parametrize("name", ["LMD", "LMD_v", "FLMD", "FLMD_v", "MA"])
def test_more_noise_is_always_worse(name):
    real = head(nodding())
    noise = np.random.default_rng(1).normal(0, 1, real.shape)
    values = [score(name, real + s * noise, real)[0][name] for s in (0, 0.5, 1, 2, 4)]
    assert values == sorted(values, reverse=name == "MA") and len(set(values)) == 5


def test_more_noise_means_more_jitter_and_a_larger_angle_error():
    real = talking(60, size=8.0)
    real[::2, list(LIPS[:20]), 0] += 2.0  # the centred lips move, too
    noise = np.random.default_rng(1).normal(0, 1, real.shape)
    for name, keys in (
        ("jitter", ["jitter", "jerk", "head_jitter", "lip_jitter", "jitter_ratio"]),
        ("pose", ["ARD"]),
    ):
        steps = [score(name, real + s * noise, real)[0] for s in (0, 1, 2, 4)]
        for key in keys:
            values = [step[key] for step in steps]
            assert values == sorted(values) and len(set(values)) == 4, key


# -- FLMD ------------------------------------------------------------------------------------------


def test_the_points_of_the_face_are_oval_brows_eyes_nose_and_lips():
    assert len(FACE) == len(set(FACE)) == 36 + 20 + 32 + 14 + 40
    assert {*FACE_OVAL, *EYE_LEFT, *EYE_RIGHT, *LIPS} < set(FACE)


def test_flmd_of_one_displaced_point_is_known():
    real = head(nodding(8))
    moved = real.copy()
    moved[:, FACE_OVAL[0], 0] += 7.0
    n = len(FACE)
    values, _, _ = score("FLMD", moved, real)
    assert values["FLMD"] == pytest.approx(7.0 * 2 * (n - 1) / n**2)
    assert score("FLMD", moved, real, align="none")[0]["FLMD"] == pytest.approx(7.0 / n)
    assert score("LMD", moved, real)[0]["LMD"] == 0


def test_the_velocity_of_a_drifting_face_is_its_speed_only_without_alignment():
    real = head(nodding(10))
    drifting = real + np.arange(10)[:, None, None] * np.array([0.6, 0.8, 0])
    for name in ("LMD_v", "FLMD_v"):
        assert score(name, drifting, real, align="none")[0][name] == pytest.approx(1.0)
        assert score(name, drifting, real)[0][name] == pytest.approx(0.0, abs=1e-9)


def test_velocities_can_be_summed_too():
    real = head(nodding(10))
    drifting = real + np.arange(10)[:, None, None] * np.array([0.6, 0.8, 0])
    for name, count in (("LMD_v", 40), ("FLMD_v", len(FACE))):
        values, _, _ = score(name, drifting, real, align="none", reduce="sum")
        assert values[name] == pytest.approx(count)
    with pytest.raises(ConfigError, match="choose mean or sum"):
        score("LMD", real, real, reduce="median")


def test_a_face_without_extent_has_no_relative_distance():
    flat = np.full((4, N_POINTS, 3), 7.0)
    values, reasons, _ = score("LMD", flat, flat)
    assert values["LMD"] == 0 and math.isnan(values["LMD_norm"]) and "LMD_norm" in reasons


# -- MA --------------------------------------------------------------------------------------------


def box(x: float, y: float, width: float, height: float) -> np.ndarray:
    return np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], float)


@pytest.mark.parametrize(
    ("first", "second", "areas"),
    [
        (box(0, 0, 4, 3), box(0, 0, 4, 3), (12, 12, 12)),
        (box(0, 0, 4, 3), box(1, 0, 4, 3), (12, 12, 9)),
        (box(0, 0, 4, 3), box(0.25, 0.5, 4, 3), (12, 12, 3.75 * 2.5)),
        (box(0, 0, 4, 3), box(9, 0, 2, 3), (12, 6, 0)),
        (box(0, 0, 4, 3), box(1, 1, 1, 1), (12, 1, 1)),
        (box(0, 0, 1, 1), np.array([[0, 0], [1, 0], [0, 1.0]]), (1, 0.5, 0.5)),
        # a concave polygon: its hull would have area 12
        (np.array([[0, 0], [2, 2], [4, 0], [4, 3], [0, 3.0]]), box(0, 0, 4, 3), (8, 12, 8)),
        # crossing itself in the middle: two triangles
        (np.array([[0, 0], [2, 2], [2, 0], [0, 2.0]]), box(0, 0, 2, 2), (2, 4, 2)),
        (np.zeros((5, 2)), np.zeros((5, 2)), (0, 0, 0)),
        (np.array([[0, 0], [3, 3], [0, 0.0]]), box(0, 0, 2, 2), (0, 4, 0)),
    ],
)
def test_areas_of_polygons_and_of_what_they_share(first, second, areas):
    assert polygon_areas(first, second) == pytest.approx(areas, abs=1e-9)
    moved = [p + [100.3, 50.7] for p in (first, second)]
    assert polygon_areas(*moved) == pytest.approx(areas, abs=1e-9)
    one, two, both = areas
    assert polygon_areas(second[::-1], first) == pytest.approx((two, one, both), abs=1e-9)


def test_areas_of_ellipses_are_those_of_their_corners():
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = 20 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for height in (1, 0.3, 0.05):
        flat = circle * [1, height]
        expected = 20 * 20 * height * 20 * np.sin(2 * np.pi / 40)
        assert polygon_areas(flat, flat) == pytest.approx([expected] * 3, rel=1e-9)
        assert overlap(flat, flat)[0] == pytest.approx(1.0, abs=1e-12)


def test_the_overlap_agrees_with_a_finely_filled_picture():
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    for _ in range(10):
        rings = [
            np.stack([np.cos(angle) * 30, np.sin(angle) * 12], axis=1)
            * rng.uniform(0.7, 1.3, (20, 1))
            + rng.uniform(38, 44, 2)
            for _ in range(2)
        ]
        filled = []
        for ring in rings:
            canvas = np.zeros((90 * 16, 90 * 16), np.uint8)
            cv2.fillPoly(canvas, [np.rint(ring * 16).astype(np.int32)], 1)
            filled.append(canvas.astype(bool))
        expected = (filled[0] & filled[1]).sum() / (filled[0] | filled[1]).sum()
        assert overlap(*rings)[0] == pytest.approx(expected, abs=0.005)


def test_nothing_over_nothing_is_one_and_nothing_over_something_zero():
    line, square = np.repeat([[0, 0], [5, 5.0]], 2, axis=0), box(0, 0, 5, 5)
    assert overlap(line, line)[0] == 1.0
    assert overlap(line, square)[0] == overlap(square, line)[0] == 0.0


def ring(count: int, width: float, height: float) -> np.ndarray:
    """Corners along the border of a centred rectangle, in order."""
    share = np.arange(count) / (count / 4)
    side, along = share.astype(int), share % 1
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]) * [width / 2, height / 2]
    return corners[side] + along[:, None] * (corners[side + 1] - corners[side])


def mouth(width: float, height: float, opening: float, frames: int = 4) -> np.ndarray:
    """Faces whose lips are two rectangles around (300, 400)."""
    face = head(np.zeros((frames, 3)))
    face[:, list(LIPS_OUTER), :2] = ring(20, width, height) + [300, 400]
    face[:, list(LIPS_INNER), :2] = ring(20, width - 8, opening) + [300, 400]
    return face


def test_the_overlap_of_a_shifted_mouth_is_known():
    real = mouth(40, 20, 6)
    moved = real.copy()
    moved[:, list(LIPS), 0] += 8
    values, _, _ = score("MA", moved, real)
    assert values["MA"] == pytest.approx(32 / 48, abs=1e-3)
    assert values["MA_inner"] == pytest.approx(24 / 40, abs=1e-3)
    values, _, _ = score("MA", moved, real, align="centroid")
    assert values == pytest.approx({"MA": 1, "MA_inner": 1})


def test_a_mouth_half_as_open_overlaps_by_half():
    values, _, _ = score("MA", mouth(40, 20, 4), mouth(40, 20, 8))
    assert values == pytest.approx({"MA": 1, "MA_inner": 0.5}, abs=1e-3)


def test_a_mouth_seen_from_another_place_needs_alignment():
    real = mouth(40, 20, 6)
    moved = 1.5 * real + [30, -20, 0]
    assert score("MA", moved, real)[0]["MA"] < 0.5
    values, _, _ = score("MA", moved, real, align="procrustes")
    assert values == pytest.approx({"MA": 1, "MA_inner": 1})


def test_frames_with_a_closed_real_mouth_do_not_count_inside():
    real = np.concatenate([mouth(40, 20, 6), mouth(40, 20, 0.5)])
    generated = np.concatenate([mouth(40, 20, 3), mouth(40, 20, 0)])
    values, _, _ = score("MA", generated, real)
    assert values["MA_inner"] == pytest.approx(0.5, abs=1e-3)
    values, reasons, _ = score("MA", real, mouth(40, 20, 0.5, 8))
    assert math.isnan(values["MA_inner"]) and "never opens" in reasons["MA_inner"]
    assert values["MA"] == pytest.approx(1)
    # 32 x 0.5 px are 16 px2
    values, _, _ = score("MA", real, mouth(40, 20, 0.5, 8), min_area=10)
    assert values["MA_inner"] < 0.6


# -- jitter ----------------------------------------------------------------------------------------


def test_differences_of_polynomials_are_their_coefficients():
    time = np.arange(12.0)[:, None, None]
    direction = np.array([0.6, 0.8]) * np.ones((5, 2))
    assert mean_difference(3 * time * direction, 1) == pytest.approx(3)
    assert mean_difference(3 * time * direction, 2) == pytest.approx(0, abs=1e-9)
    assert mean_difference(time**2 * direction, 2) == pytest.approx(2)
    assert mean_difference(time**3 * direction, 3) == pytest.approx(6)


def test_differences_never_bridge_a_gap():
    points = np.zeros((12, 3, 2))
    points[6:] = 100
    points[5] = np.nan
    for order in (1, 2, 3):
        assert mean_difference(points, order) == 0
    points[3:9:3] = np.nan  # leaves no four frames in a row at the jump
    assert math.isnan(mean_difference(points[:8], 3))


def test_a_nodding_head_has_no_lip_jitter_and_moving_lips_no_head_jitter():
    sway = np.random.default_rng(0).normal(0, 3, (20, 1, 2))
    face = np.repeat(head(np.zeros((1, 3))), 20, axis=0)
    swaying = face.copy()
    swaying[..., :2] += sway
    values = motion_statistics(swaying)
    assert values["lip_jitter"] == pytest.approx(0, abs=1e-9)
    assert values["head_jitter"] == pytest.approx(values["jitter"]) != 0
    talking = face.copy()
    talking[:, list(LIPS), :2] *= 1 + 0.01 * sway[:, :, :1]
    values = motion_statistics(talking)
    assert values["head_jitter"] == 0 and values["lip_jitter"] > 0.1
    assert not set(NOSE_BRIDGE) & set(LIPS)


def test_jitter_is_given_per_eye_distance_and_relative_to_the_real_one():
    real = head(np.zeros((20, 3)))
    for points in (EYE_CORNERS_LEFT, EYE_CORNERS_RIGHT):
        real[:, list(points), 1] = 200
    real[:, list(EYE_CORNERS_LEFT), 0], real[:, list(EYE_CORNERS_RIGHT), 0] = 260, 340
    shake = np.where(np.arange(20) % 2, 1.0, -1.0)[:, None]
    real[..., 0] += shake
    wild = real.copy()
    wild[..., 0] += shake
    values, _, _ = score("jitter", wild, real)
    assert values["speed"] == pytest.approx(4)
    assert values["jitter"] == pytest.approx(8)
    assert values["jerk"] == pytest.approx(16)
    assert values["jitter_norm"] == pytest.approx(100 * 8 / 80)
    assert values["jitter_ratio"] == values["head_jitter_ratio"] == pytest.approx(2)


def test_a_still_face_is_matched_by_a_still_face_only():
    still, moving = head(np.zeros((10, 3))), head(nodding(10))
    values, _, _ = score("jitter", still, still)
    assert values["jitter_ratio"] == 1 and values["jitter"] == 0
    values, reasons, _ = score("jitter", moving, still)
    assert math.isnan(values["jitter_ratio"]) and values["jitter"] > 0
    assert "does not move" in reasons["jitter_ratio"]
    assert score("jitter", still, moving)[0]["jitter_ratio"] == 0


def test_goals_that_are_the_real_video_are_marked_in_the_table():
    outputs = talkingface.create_metric("jitter").outputs
    table = {"row": {key: {"mean": 1.0, "n": 1} for key in outputs}}
    assert "lip_jitter →R" in console_table(table, outputs, 2)


def test_without_a_real_face_only_the_ratio_is_lost():
    moving = head(nodding(10))
    values, reasons, _ = score("jitter", moving, np.full_like(moving, np.nan))
    assert values["jitter"] > 0 and math.isnan(values["jitter_ratio"])
    assert "in the real video in only 0%" in reasons["jitter_ratio"]
    assert set(reasons) == {"jitter_ratio", "head_jitter_ratio", "lip_jitter_ratio"}


# -- blink -----------------------------------------------------------------------------------------


def eyes(openness: np.ndarray) -> np.ndarray:
    """Faces whose eyes are 30 px wide and ``30 * openness`` px high, so that the ratio is known."""
    face = head(np.zeros((len(openness), 3)))
    for left, ids in zip((200, 370), EYES, strict=True):
        x = left + np.array([0, 10, 20, 30, 20, 10.0])
        y = 200 + 15 * np.asarray(openness)[:, None] * np.array([0, -1, -1, 0, 1, 1])
        face[:, list(ids), 0], face[:, list(ids), 1] = x, y
    return face


def test_the_eye_aspect_ratio_is_height_over_width():
    openness = np.array([0.3, 0.1, 0.0])
    assert eye_aspect_ratio(eyes(openness)) == pytest.approx(openness)


def blinking(closed: list[tuple[int, int]], frames: int = 150) -> np.ndarray:
    openness = np.full(frames, 0.3)
    for start, stop in closed:
        openness[start:stop] = 0.05
    return eyes(openness)


def test_runs_of_two_frames_to_a_second_are_blinks():
    # one frame is noise, 26 frames are closed eyes
    face = blinking([(10, 11), (20, 22), (40, 44), (60, 86), (100, 125)])
    values, _, _ = score("blink", face, face)
    assert values["blink_rate"] == pytest.approx(60 * 3 / (150 / 25))
    assert values["blink_dur"] == pytest.approx((2 + 4 + 25) / 3 / 25)


def test_the_shortest_blink_is_a_time():
    ratio = np.full(100, 0.3)
    ratio[10:13] = ratio[50:54] = 0.1
    assert blinks(ratio, 25, 0.2) == [3 / 25, 4 / 25]
    assert blinks(ratio, 50, 0.2) == [4 / 50]
    assert blinks(ratio, 12, 0.2) == [3 / 12, 4 / 12]


def test_narrow_eyes_are_not_taken_for_closed_ones():
    narrow = np.full(100, 0.18)
    narrow[40:43] = 0.03
    face = eyes(narrow)
    assert score("blink", face, face)[0]["blink_rate"] == pytest.approx(15)
    values, reasons, _ = score("blink", face, face, adaptive=False, threshold=0.2)
    assert values["blink_rate"] == 0  # closed all the time
    assert math.isnan(values["blink_dur"]) and reasons["blink_dur"] == "no blink"


def test_missing_frames_end_a_blink_and_are_no_time():
    face = blinking([(20, 26)], 100)
    face[22:24] = np.nan
    face[90:] = np.nan
    values, _, _ = score("blink", face, face)
    assert values["blink_rate"] == pytest.approx(60 * 25 * 2 / 88)
    assert values["blink_dur"] == pytest.approx(2 / 25)


# -- pose ------------------------------------------------------------------------------------------


def test_deviations_of_the_pose_are_those_of_the_angles():
    rng = np.random.default_rng(0)
    angles = rng.normal(0, [9, 6, 3], (200, 3))
    values, _, _ = score("pose", head(angles), head(angles))
    keys = ["pose_std_yaw", "pose_std_pitch", "pose_std_roll"]
    assert [values[key] for key in keys] == pytest.approx(angles.std(axis=0), rel=1e-6)
    assert values["Div_pose"] == pytest.approx(angles.std(axis=0).mean(), rel=1e-6)
    assert values["pose_std_shift"] < 20  # the anchor lies beside the axis of rotation


def test_the_place_is_measured_in_eye_distances():
    place = np.zeros((50, 3))
    place[:, 0] = np.where(np.arange(50) % 2, 30, -30)
    place[:, 1] = np.where(np.arange(50) % 2, 40, -40)
    for scale in (50.0, 200.0):
        face = head(np.zeros((50, 3)), place * scale / 100, scale)
        values, _, _ = score("pose", face, face)
        assert values["pose_std_shift"] == pytest.approx(100 * 50 / 116, rel=0.01)
        assert values["Div_pose"] == pytest.approx(0, abs=1e-6)


def test_ard_is_the_mean_angle_error():
    real = nodding()
    values, _, _ = score("pose", head(real + [6, 3, -3]), head(real))
    assert values["ARD"] == pytest.approx(4, rel=1e-6)


def test_angles_differ_by_at_most_half_a_turn():
    assert angle_distance(np.array([179, -350, 10]), np.array([-179, 5, 10])).tolist() == [2, 5, 0]


def test_one_frame_has_an_angle_error_but_no_deviation():
    values, reasons, _ = score("pose", head([[5, 0, 0]]), head([[0, 0, 0]]))
    assert values["ARD"] == pytest.approx(5 / 3)
    assert math.isnan(values["Div_pose"]) and "two frames" in reasons["Div_pose"]


def test_the_angle_error_needs_faces_in_both_videos():
    lost = head(nodding())
    lost[:40] = np.nan
    values, reasons, _ = score("pose", head(nodding()), lost)
    assert values["Div_pose"] > 0 and math.isnan(values["ARD"])
    assert reasons == {"ARD": "a face was found in both videos in only 33% of the frames"}


# -- BeatAlign -------------------------------------------------------------------------------------


# -- expression ------------------------------------------------------------------------------------


def talking(frames: int = 40, size: float = 4.0) -> np.ndarray:
    """A nodding head whose lips go down and up."""
    opened = size * (1 + np.sin(np.arange(frames)))
    angles = nodding(frames)
    rigid = head(np.zeros((frames, 3)))
    rigid[:, list(LIPS), 1] += opened[:, None]
    turns = Rotation.from_euler("xyz", angles[:, [1, 0, 2]], degrees=True).as_matrix()
    return (rigid - 300) @ turns + 300


def test_the_expression_error_counts_what_pose_place_and_size_leave():
    real = talking()
    moved = 1.7 * real @ Rotation.from_euler("z", 20, degrees=True).as_matrix() + 40
    assert score("expression", moved, real)[0]["expression_error"] == pytest.approx(0, abs=1e-4)


def test_a_face_that_stays_at_the_mean_is_one_deviation_away():
    real = talking()
    turns = Rotation.from_euler("xyz", nodding(40)[:, [1, 0, 2]], degrees=True).as_matrix()
    mean = 4.0 * (1 + np.sin(np.arange(40))).mean()
    flat = head(np.zeros((40, 3)))
    flat[:, list(LIPS), 1] += mean
    still = (flat - 300) @ turns + 300
    assert score("expression", still, real)[0]["expression_error"] == pytest.approx(1, abs=0.01)
    # An opening that is wrong all the time counts, unless only changes are compared.
    flat[:, list(LIPS), 1] += 5.0
    wrong = (flat - 300) @ turns + 300
    assert score("expression", wrong, real)[0]["expression_error"] > 1.5
    centred = score("expression", wrong, real, centre=True)[0]
    assert centred["expression_error"] == pytest.approx(1, abs=0.01)


def test_a_real_face_without_any_expression_gives_no_error_and_says_why():
    face = head(nodding())
    values, reasons, _ = score("expression", face, face)
    assert math.isnan(values["expression_error"]) and "does not move" in reasons["expression_error"]


def test_beat_align_is_a_bell_around_the_nearest_beat():
    heard = np.array([10.0, 40.0])
    assert beat_align(heard, heard) == 1
    assert beat_align(np.array([13.0]), heard) == pytest.approx(math.exp(-0.5))
    assert beat_align(np.array([10.0, 34.0]), heard) == pytest.approx((1 + math.exp(-2)) / 2)
    assert beat_align(np.array([16.0]), heard, sigma=6) == pytest.approx(math.exp(-0.5))
    assert math.isnan(beat_align(np.zeros(0), heard)) and math.isnan(beat_align(heard, np.zeros(0)))


def test_a_swinging_head_comes_to_rest_at_its_turning_points():
    beats = motion_beats(nodding(60, period=20))  # turns at 5, 15, 25...
    assert beats == pytest.approx([5, 15, 25, 35, 45, 55], abs=0.5)


def test_motion_beats_do_not_come_from_gaps():
    angles = nodding(60, period=20)
    angles[24:26] = np.nan  # the head comes to rest unseen
    assert motion_beats(angles) == pytest.approx([5, 15, 35, 45, 55], abs=0.5)
    assert len(motion_beats(np.zeros((60, 3)))) == 0
    assert len(motion_beats(np.full((60, 3), np.nan))) == 0


def test_motion_does_not_bridge_scene_cuts(monkeypatch, clicks):
    """The same motion twice, the second time elsewhere."""
    shots = np.concatenate([head(nodding()), head(nodding(), np.full((60, 3), 40.0))])
    bridged = score("jitter", shots, shots)[0]
    shot = score("jitter", shots[:60], shots[:60])[0]
    angles = np.concatenate([nodding(), nodding() + [30, 0, 0]])
    beats = motion_beats(nodding())
    monkeypatch.setattr(ClipPair, "cuts", np.array([60]))
    cut = score("jitter", shots, shots)[0]
    for key in ("speed", "jitter", "jerk", "head_jitter"):
        assert cut[key] == pytest.approx(shot[key], rel=1e-6) and cut[key] < bridged[key]
    assert motion_beats(angles, [60]) == pytest.approx([*beats, *beats + 60], abs=0.5)
    assert math.isfinite(score("BeatAlign", shots, shots, sound=clicks)[0]["BeatAlign"])


def test_a_pause_in_a_fast_turn_is_no_beat():
    speed = np.full(60, 10.0)
    speed[15] = 6.0  # slower, but above the median of the whole
    speed[25:] = 1.0
    speed[45] = 0.2
    angles = np.cumsum(speed)[:, None] * [1.0, 0, 0]
    assert motion_beats(angles) == pytest.approx([44.5])


def test_a_rise_over_several_frames_is_one_onset():
    time = np.arange(3 * 16000) / 16000
    tones = ((300, 1.0), (1500, 1.05), (3000, 2.0))
    wave = sum(np.sin(2 * np.pi * pitch * time) * (time > start) for pitch, start in tones)
    # librosa's own settings give 25, 26, 27, 50, 51 and 75, the end of the sound
    assert audio_beats(wave.astype(np.float32)).tolist() == [25, 50]


def test_onsets_are_found_within_a_frame_and_once_each(clicks):
    from talkingface.data.media.audio import load_audio

    beats = audio_beats(load_audio(clicks, 16000))
    assert beats == pytest.approx([10, 25, 40, 55], abs=1)
    assert len(audio_beats(np.zeros(16000, np.float32))) == 0


def test_a_head_in_time_with_the_sound_scores_higher_than_one_out_of_time(clicks):
    time = np.arange(70)
    values = []
    for delay in (0, 3, 7.5):  # the beats are 15 frames apart, at 10, 25...
        angles = np.cos(np.pi * (time - 10 - delay) / 15)[:, None] * [8.0, 4.0, 1.0]
        values.append(score("BeatAlign", head(angles), head(angles), sound=clicks)[0]["BeatAlign"])
    assert values[0] > 0.8 > values[1] > values[2]
    assert values[2] < 0.2


@pytest.mark.slow
def test_frame_rates_do_not_change_the_beats(clicks):
    values = []
    for fps in (25, 50):
        time = np.arange(70 * fps // 25) * 25 / fps
        angles = np.cos(np.pi * (time - 13) / 15)[:, None] * [8.0, 4.0, 1.0]
        face = head(angles)
        values.append(score("BeatAlign", face, face, fps=fps, sound=clicks)[0]["BeatAlign"])
    assert values[0] == pytest.approx(values[1], abs=0.1)


@pytest.mark.slow
def test_over_audio_asks_for_each_onset(clicks):
    angles = nodding(70, period=140)  # turns at 35 only
    for over in ("motion", "audio"):
        values, _, _ = score("BeatAlign", head(angles), head(angles), sound=clicks, over=over)
        expected = {"motion": math.exp(-25 / 18), "audio": 0.25 * math.exp(-25 / 18)}[over]
        assert values["BeatAlign"] == pytest.approx(expected, abs=0.12)
    with pytest.raises(ConfigError, match="motion or audio"):
        score("BeatAlign", head(angles), head(angles), sound=clicks, over="both")


@pytest.mark.parametrize("sound", ["none", "silent", "still"])
def test_without_beats_there_is_no_alignment(sound, clicks, tmp_path):
    angles = np.zeros((60, 3)) if sound == "still" else nodding()
    file = {
        "none": None,
        "silent": click_track(tmp_path / "silent.wav", []),
        "still": clicks,
    }[sound]
    values, reasons, _ = score("BeatAlign", head(angles), head(angles), sound=file)
    assert math.isnan(values["BeatAlign"]) and "beat" in reasons["BeatAlign"]


# -- CSIM ------------------------------------------------------------------------------------------


def field(number: int, value: int | bytes | str) -> bytes:
    """One entry of a protobuf message: there is no package here that writes ONNX."""

    def varint(n: int) -> bytes:
        return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def tiny_onnx(path: Path) -> Path:
    """Means of 28 x 28 px as a network: (1,3,112,112) -> (1,48)."""

    def attribute(name: str) -> bytes:
        return field(5, field(1, name) + field(8, 28) + field(8, 28) + field(20, 7))

    def tensor(name: str, shape: tuple[int, ...]) -> bytes:
        sizes = b"".join(field(1, field(1, n)) for n in shape)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, sizes)))

    pool = field(1, "x") + field(2, "p") + field(4, "AveragePool")
    pool += attribute("kernel_shape") + attribute("strides")
    flat = field(1, "p") + field(2, "y") + field(4, "Flatten")
    graph = field(1, pool) + field(1, flat) + field(2, "tiny")
    graph += field(11, tensor("x", (1, 3, SIDE, SIDE))) + field(12, tensor("y", (1, 48)))
    path.write_bytes(field(1, 6) + field(7, graph) + field(8, field(1, "") + field(2, 11)))
    return path


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("networks")
    script = torch.jit.script(torch.nn.Sequential(torch.nn.AvgPool2d(28), torch.nn.Flatten()))
    script.save(str(folder / "tiny.pt"))
    return {"onnx": tiny_onnx(folder / "tiny.onnx"), "pt": folder / "tiny.pt"}


def trusted(params: dict) -> str | None:
    """SHA-256 of the TorchScript file of a test."""
    path = params.get("weights")
    return sha256_of(Path(path)) if path and path.endswith(".pt") else None


def csim(generated: Path, real: Path, **params) -> RowResult:
    row = RowResult("row")
    cfg = hyperlips_config(metric_params={"CSIM": params}, trust_checkpoint=trusted(params))
    Evaluator(cfg, ["CSIM"]).score_clip(ClipPair("clip", generated, real), row)
    return row


def rewrite(source: Path, path: Path, change, frames: int = 12) -> Path:
    with VideoWriter(path, 25, crf=4) as writer:
        for _, frame in zip(range(frames), read_frames(source, fps=25), strict=False):
            writer.write(change(frame))
    return path


def test_the_five_points_land_on_the_template():
    frame = np.zeros((300, 300, 3), np.uint8)
    points = np.full((N_POINTS, 3), 50.0)
    turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    points[list(POINTS), :2] = 1.7 * TEMPLATE @ turn.T + [90.0, 20.0]
    for x, y in points[list(POINTS), :2]:
        # a spot around the point; MediaPipe counts from the border of a pixel
        cv2.circle(frame, (round((x - 0.5) * 16), round((y - 0.5) * 16)), 64, (255,) * 3, -1, 0, 4)
    face = align_face(frame, points)
    assert face.shape == (SIDE, SIDE, 3) and face.dtype == np.uint8
    for x, y in TEMPLATE:
        x0, y0 = int(x) - 4, int(y) - 4
        spot = face[y0 : y0 + 10, x0 : x0 + 10, 0].astype(float)
        rows, columns = np.mgrid[:10, :10]
        centre = [(spot * grid).sum() / spot.sum() for grid in (columns, rows)]
        assert np.add(centre, [x0, y0]) == pytest.approx([x, y], abs=0.3)


@pytest.mark.parametrize("kind", ["onnx", "pt"])
def test_networks_see_numbers_from_minus_1_to_1(networks, kind):
    embed = load_embedder(networks[kind], 0.0, sha256_of(networks[kind]))
    black, white = (embed(np.full((SIDE, SIDE, 3), value, np.uint8)) for value in (0, 255))
    assert white == pytest.approx(np.full(48, 48**-0.5), abs=1e-6)
    assert black == pytest.approx(-white, abs=1e-6)


@pytest.mark.parametrize("kind", ["onnx", "pt"])
def test_a_video_has_its_own_identity(talking_clip, networks, kind):
    row = csim(talking_clip, talking_clip, weights=str(networks[kind]))
    assert row.values["clip"]["CSIM_real"] == pytest.approx(1, abs=1e-6)
    assert 0.8 < row.values["clip"]["CSIM"] < 1
    assert row.reasons == {}


def test_both_kinds_of_files_give_the_same_values_and_a_stride_changes_them(
    talking_clip, networks, tmp_path
):
    dark = rewrite(talking_clip, tmp_path / "dark.mp4", lambda frame: frame // 4 * 3)
    real = rewrite(talking_clip, tmp_path / "real.mp4", lambda frame: frame)
    options = [(path, 5) for path in networks.values()] + [(networks["pt"], 1)]
    onnx, script, every = (
        csim(dark, real, weights=str(path), stride=n).values["clip"] for path, n in options
    )
    assert onnx == pytest.approx(script, abs=1e-6)
    assert every == pytest.approx(script, abs=0.05) and every != script


def test_the_more_a_face_changes_the_lower_the_similarity(talking_clip, networks, tmp_path):
    real = rewrite(talking_clip, tmp_path / "real.mp4", lambda frame: frame)
    values = []
    for step in (0, 30, 60, 90):
        tint = np.array([0, step, 0])
        path = rewrite(
            talking_clip,
            tmp_path / f"{step}.mp4",
            lambda frame, t=tint: np.clip(frame.astype(int) - t, 0, 255).astype(np.uint8),
        )
        values.append(csim(path, real, weights=str(networks["pt"])).values["clip"])
    for key in ("CSIM", "CSIM_real"):
        similarities = [v[key] for v in values]
        assert similarities == sorted(similarities, reverse=True) and len(set(similarities)) == 4
        assert math.isfinite(sum(similarities))


def test_the_source_may_be_another_video_or_a_picture(talking_clip, networks, tmp_path):
    """A source that shows the tinted face is nearer to a tinted video than the real one is."""

    def tint(frame: np.ndarray) -> np.ndarray:
        return np.clip(frame.astype(int) - [0, 60, 0], 0, 255).astype(np.uint8)

    tinted = rewrite(talking_clip, tmp_path / "tinted.mp4", tint)
    real = rewrite(talking_clip, tmp_path / "real.mp4", lambda frame: frame)
    write_image(tmp_path / "face.png", next(read_frames(tinted)))
    write_image(tmp_path / "grey.png", np.full((90, 90, 3), 99, np.uint8))
    late = tmp_path / "late.mp4"  # the first face is in the third frame
    with VideoWriter(late, 25, crf=4) as writer:
        for index, frame in enumerate(read_frames(tinted, fps=25)):
            writer.write(frame if index > 1 else np.full_like(frame, 128))
    evaluator = Evaluator(
        hyperlips_config(
            metric_params={"CSIM": {"weights": str(networks["pt"])}},
            trust_checkpoint=sha256_of(networks["pt"]),
        ),
        ["CSIM"],
    )
    results = {}
    for source in (None, tinted, tmp_path / "face.png", late, tmp_path / "grey.png"):
        row = RowResult("row")
        evaluator.score_clip(ClipPair("clip", tinted, real, source=source), row)
        results[source and source.name] = row.values["clip"]
    for name in ("tinted.mp4", "face.png", "late.mp4"):
        assert results[name]["CSIM"] > results[None]["CSIM"] + 0.05
        assert results[name]["CSIM_real"] == results[None]["CSIM_real"]
    assert math.isnan(results["grey.png"]["CSIM"])
    assert row.reasons["clip", "CSIM"] == "no face was found in grey.png"


def test_without_weights_the_reason_says_what_to_put_where(talking_clip, tmp_path):
    for params in ({}, {"weights": str(tmp_path / "none.onnx")}):
        row = csim(talking_clip, talking_clip, **params)
        assert all(math.isnan(value) for value in row.values["clip"].values())
        for text in ("ArcFace", "checkpoints/", "arcface.onnx", "metric_params.CSIM.weights"):
            assert text in row.reasons["clip", "CSIM"]


@pytest.mark.parametrize("name", ["broken.onnx", "broken.pt"])
def test_a_file_that_is_no_network_is_named(talking_clip, tmp_path, name):
    (tmp_path / name).write_bytes(b"no network" * 100)
    row = csim(talking_clip, talking_clip, weights=str(tmp_path / name))
    assert (
        name in row.reasons["clip", "CSIM"] and "cannot be read as" in row.reasons["clip", "CSIM"]
    )


def test_the_definition_names_the_network_not_its_folder(networks):
    metric = talkingface.create_metric("CSIM", weights=str(networks["pt"]))
    assert re.fullmatch(r"CSIM\[network=tiny\.pt:[0-9a-f]{8},stride=5,r2\]", metric.definition())
    assert talkingface.create_metric("CSIM").definition() == "CSIM[network=none,stride=5,r2]"


def test_videos_without_a_face_have_no_identity(talking_clip, networks, tmp_path):
    blank = rewrite(talking_clip, tmp_path / "blank.mp4", lambda frame: np.full_like(frame, 90))
    face = rewrite(talking_clip, tmp_path / "face.mp4", lambda frame: frame)
    for generated, real, reason in (
        (blank, face, "in the generated video in only 0%"),
        (face, blank, "no face was found in the real video"),
    ):
        row = csim(generated, real, weights=str(networks["pt"]))
        assert math.isnan(row.values["clip"]["CSIM"])
        assert reason in row.reasons["clip", "CSIM"]


# -- Div -------------------------------------------------------------------------------------------


def test_the_distance_of_pairs_is_their_mean_length():
    samples = np.zeros((3, 4, 2))
    samples[1] = [3, 4]
    assert pairwise_distance(samples) == pytest.approx((5 + 0 + 5) / 3)
    assert pairwise_distance(np.repeat(samples[:1], 5, axis=0)) == 0


def test_independent_samples_differ_by_the_root_of_twice_the_dimension():
    samples = np.random.default_rng(0).normal(0, 1, (5, 4000, 6))
    # mean length of a 6-d normal vector of deviation sqrt 2: 2 gamma(3.5) / gamma(3)
    expected = 2 * math.gamma(3.5) / math.gamma(3)
    assert pairwise_distance(samples) == pytest.approx(expected, rel=0.01)
    assert expected == pytest.approx(math.sqrt(12), rel=0.05)


def test_a_deterministic_model_has_no_diversity():
    face = head(nodding())
    assert diversity([face] * 5, head(nodding(size=3))) == {"Div_H": 0, "Div_E": 0, "Div_M": 0}


def test_other_head_poses_are_diversity_of_the_head_only():
    real = head(nodding())
    samples = [head(nodding(period=period)) for period in (15, 20, 30)]
    lips = real.copy()
    lips[:, list(LIPS), 1] += np.random.default_rng(0).normal(0, 3, (60, 1))
    values = diversity(samples, lips)
    assert values["Div_H"] > 1
    assert values["Div_M"] == pytest.approx(0, abs=1e-6)


def test_each_angle_is_measured_in_its_own_deviation():
    angles = nodding()  # yaw, pitch and roll swing by 8, 4 and 1.6 degrees
    # So that what the anchor moves with the angles, being off their axis, does not count.
    place = np.random.default_rng(0).normal(0, 500, (60, 3))
    real = head(angles, place)
    for axis in range(3):
        moved = angles.copy()
        moved[:, axis] += 2 * angles[:, axis].std()
        values = diversity([real, head(moved, place)], real)
        assert values["Div_H"] == pytest.approx(2, rel=0.01)


def test_other_lips_are_diversity_of_the_lips_in_units_of_the_real_ones():
    rng = np.random.default_rng(0)
    values = []
    for size in (1.0, 2.0):
        faces = []
        for _ in range(4):
            face = head(np.zeros((200, 3)))
            face[:, list(LIPS), 1] += rng.normal(0, size, (200, 1))
            faces.append(face)
        # two independent normal numbers differ by 2 / sqrt pi deviations on average; the scale is
        # over all 80 coordinates, of which only the 40 heights move
        result = diversity(faces[:3], faces[3])
        assert result["Div_M"] == pytest.approx(2 / math.sqrt(math.pi) * math.sqrt(80), rel=0.1)
        assert result["Div_H"] == result["Div_E"] == 0
        values.append(result["Div_M"])


def test_one_sample_is_not_enough(talking_clip):
    row = RowResult("row")
    Evaluator(hyperlips_config(), ["Div"]).score_clip(
        ClipPair("clip", talking_clip, talking_clip), row
    )
    assert all(math.isnan(value) for value in row.values["clip"].values())
    assert row.reasons["clip", "Div_H"] == "needs several samples of one sound"


def test_a_deterministic_model_needs_no_samples_for_its_zero():
    path = Path("generated.mp4")
    pair = ClipPair("clip", path, Path("real.mp4"), samples=(path,) * 4)
    metric = talkingface.create_metric("Div")
    metric.start(pair)
    assert metric.finish(pair) == {"Div_H": 0, "Div_E": 0, "Div_M": 0}
    assert "deterministic" in pair.notes[0]


def test_samples_come_from_further_videos(talking_clip, tmp_path):
    flipped = rewrite(talking_clip, tmp_path / "g.mp4", lambda f: f[:, ::-1].copy(), 75)
    results = []
    for others in ((talking_clip,), (flipped, talking_clip)):
        row = RowResult("row")
        pair = ClipPair("clip", talking_clip, talking_clip, samples=others)
        Evaluator(hyperlips_config(), ["Div"]).score_clip(pair, row)
        results.append(row.values["clip"])
    assert results[0] == {"Div_H": 0, "Div_E": 0, "Div_M": 0}
    assert results[1]["Div_H"] > 0.1


def test_diversity_leaves_out_frames_without_a_face(monkeypatch):
    real = head(nodding())
    other = head(nodding(period=20))
    gaps, lost = other.copy(), other.copy()
    gaps[5:10] = np.nan
    lost[5:50] = np.nan
    pair = ClipPair("clip", Path("g"), Path("r"), samples=(Path("h"),))
    pair.real_landmarks = real
    metric = talkingface.create_metric("Div")
    for sample, defined in ((gaps, True), (lost, False)):
        samples = [real, sample]
        monkeypatch.setattr(diversity_module, "sample_landmarks", lambda clip, s=samples: s)
        metric.start(pair)
        assert math.isfinite(metric.finish(pair)["Div_H"]) == defined
    assert "all samples in only 25%" in metric.reasons["Div_H"]


# -- FD --------------------------------------------------------------------------------------------


def normal(mean: float, std: float, count: int = 4000, seed: int = 0, size: int = 3) -> np.ndarray:
    return mean + std * np.random.default_rng(seed).normal(0, 1, (count, size))


def test_the_distance_of_gaussians_is_that_of_the_formula():
    real = [normal(0, 1, 200_000)]
    # C = s^2 I: |m|^2 + D (s1 - s2)^2
    assert motion_frechet([normal(2, 1.5, 200_000, 1)], real) == pytest.approx(
        3 * 4 + 3 * 0.25, rel=0.02
    )
    assert motion_frechet(real, real) == pytest.approx(0, abs=1e-9)
    shifted = [real[0] + [1.0, 2.0, 2.0]]
    assert motion_frechet(shifted, real) == pytest.approx(9, rel=1e-6)
    assert motion_frechet(shifted, real, order=1) == pytest.approx(0, abs=1e-9)


def test_velocities_of_a_drift_are_told_apart():
    real = [normal(0, 1, 300)]
    drifting = [real[0] + 0.5 * np.arange(300)[:, None]]
    assert motion_frechet(drifting, real, order=1) == pytest.approx(3 * 0.25, rel=1e-6)


def test_differences_bridge_neither_gaps_nor_motions():
    motion = np.arange(10.0)[:, None] * [1.0, 1.0]
    motion[6:] += 100
    motion[5] = np.nan
    steps = pooled([motion, motion + 1000], order=1)
    assert steps.shape == (14, 2) and (steps == 1).all()
    assert pooled([motion]).shape == (9, 2)


def test_the_distance_of_pairs_has_its_expected_value():
    # two normal numbers in three dimensions: 2 sqrt 2 * sqrt(2 / pi)
    expected = 4 / math.sqrt(math.pi)
    assert pair_diversity([normal(0, 1, 20_000)]) == pytest.approx(expected, rel=0.02)
    assert pair_diversity([normal(0, 3, 20_000)]) == pytest.approx(3 * expected, rel=0.02)
    assert pair_diversity([np.ones((9, 2))]) == 0


def test_partners_differ_unless_the_released_script_is_followed():
    corners = [np.array([[0.0], [1.0]])]
    assert {pair_diversity(corners, seed=seed) for seed in range(20)} == {1.0}
    values = {pair_diversity(corners, pairs=2, seed=seed, released=True) for seed in range(20)}
    assert values == {0.0, 1.0}
    assert math.isnan(pair_diversity([normal(0, 1, 500)], pairs=1000, released=True))
    assert math.isfinite(pair_diversity([normal(0, 1, 500)], pairs=1000))
    assert pair_diversity([normal(0, 1)], seed=1) == pair_diversity([normal(0, 1)], seed=1)


def test_variances_over_time_and_over_samples():
    still, moving = np.zeros((100, 2)), normal(0, 2, 100, size=2)
    assert time_variance([still, moving]) == pytest.approx(moving.var(axis=0).mean() / 2)
    assert time_variance([moving], order=1) == pytest.approx(np.diff(moving, axis=0).var(0).mean())
    assert sample_variance([np.stack([moving] * 5)]) == pytest.approx(0, abs=1e-12)
    assert sample_variance([np.stack([moving, moving + 2])]) == pytest.approx(1)
    repeats = np.stack([moving, moving + 2])
    repeats[0, 10] = np.nan
    assert sample_variance([repeats]) == pytest.approx(1)
    assert math.isnan(sample_variance([moving[None]]))


def set_values(metric, generated: list[np.ndarray], real: list[np.ndarray]) -> dict[str, float]:
    for number, pair in enumerate(zip(generated, real, strict=False)):
        metric.finish(MotionSample(f"clip{number}", {}, {"": pair}))
    return metric.pool()[0]


def test_a_set_of_motions_is_scored_with_names_directions_and_reasons():
    metric = talkingface.create_metric("FD")
    rng = np.random.default_rng(0)
    real = [rng.normal(0, 1, (count, 4)) for count in (30, 50)]
    own = set_values(metric, real, real)
    assert list(own) == list(metric.outputs)
    assert own["FD_g"] == pytest.approx(0, abs=1e-9) == own["FD_k"]
    assert metric.reasons == {"div_sample": "needs several samples of one sound"}
    shifted = set_values(metric, [r + [1.0, 2.0, 2.0, 0.0] for r in real], real)
    assert shifted["FD_g"] == pytest.approx(9) and shifted["FD_k"] == pytest.approx(0, abs=1e-9)
    assert shifted["div_time_vel"] == pytest.approx(2 * shifted["div_time"], rel=0.1)
    repeats = [np.stack([r, r + rng.normal(0, 0.1, r.shape)]) for r in real]
    noisier = [np.stack([r, r + rng.normal(0, 1.0, r.shape)]) for r in real]
    small, large = (set_values(metric, some, real) for some in (repeats, noisier))
    assert metric.reasons == {}
    for key in ("FD_g", "FD_k", "div_sample", "div_pair", "div_time", "div_time_vel"):
        assert 0 <= small[key] < large[key], key


def test_motions_without_frames_are_nan_with_a_reason():
    metric = talkingface.create_metric("FD")
    empty, one = np.full((5, 3), np.nan), np.ones((1, 3))
    for generated in ([empty], [one], [np.zeros((0, 3))]):
        values = set_values(metric, generated, [normal(0, 1, 50)])
        assert all(math.isnan(values[key]) == (key in metric.reasons) for key in metric.outputs)
        assert math.isnan(values["FD_g"]) and math.isnan(values["div_pair"])


def test_videos_have_no_motion_distribution():
    evaluator = Evaluator(hyperlips_config(), ["FD", "PSNR"])
    assert [metric.name for metric in evaluator.metrics] == ["PSNR"]
    assert "not videos" in evaluator.not_applicable["FD"]


def test_a_motion_of_two_parts_has_outputs_of_each():
    metric = talkingface.create_metric("FD")
    metric.of_parts(["face", "pose"])
    motions = {part: (np.zeros((20, 3)), np.zeros((20, 3))) for part in ("face", "pose")}
    metric.finish(MotionSample("clip", {}, motions))
    values, _ = metric.pool()
    assert set(values) == set(metric.outputs) and "pose FD_g" in values


# -- real pictures ---------------------------------------------------------------------------------


def evaluate(generated: Path, real: Path) -> RowResult:
    row = RowResult("row")
    names = [*POINT_METRICS, "Div", "CSIM", "FD"]
    Evaluator(hyperlips_config(), names).score_clip(ClipPair("clip", generated, real), row)
    for key, value in row.values["clip"].items():
        assert math.isfinite(value) or row.reasons["clip", key], key
    return row


def test_a_talking_clip_has_plausible_motion(talking_clip):
    values = evaluate(talking_clip, talking_clip).values["clip"]
    assert values["LMD"] == values["FLMD"] == values["ARD"] == 0
    assert values["MA"] == values["MA_inner"] == values["jitter_ratio"] == pytest.approx(1)
    assert 0 < values["lip_jitter"] and 0 < values["jitter"] < 10
    assert 0 <= values["Div_pose"] < 20


def two_faces(frame: np.ndarray) -> np.ndarray:
    small = cv2.resize(frame[:, ::-1], (160, 160))
    return np.concatenate([frame, cv2.copyMakeBorder(small, 96, 0, 0, 0, 0)], axis=1)


@pytest.mark.parametrize(
    ("change", "shows_a_face"),
    [
        (lambda f: np.repeat(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2), True),
        (two_faces, True),
        (lambda frame: frame[:251, :253], True),
        (lambda frame: np.full_like(frame, 128), False),
    ],
    ids=["grey", "two faces", "odd size", "no face"],
)
@pytest.mark.parametrize("frames", [1, 12])
def test_awkward_videos_give_values_or_reasons(
    talking_clip, tmp_path, change, shows_a_face, frames
):
    real = rewrite(talking_clip, tmp_path / "r.mp4", change, frames)
    values = evaluate(real, real).values["clip"]
    assert math.isfinite(values["LMD"]) == math.isfinite(values["ARD"]) == shows_a_face
    assert math.isfinite(values["jitter"]) == (shows_a_face and frames > 2)


def test_the_larger_of_two_faces_is_measured(talking_clip, tmp_path):
    one = rewrite(talking_clip, tmp_path / "one.mp4", lambda frame: frame)
    two = rewrite(talking_clip, tmp_path / "two.mp4", two_faces)
    first, second = (evaluate(path, path).values["clip"] for path in (one, two))
    assert second["lip_jitter"] == pytest.approx(first["lip_jitter"], rel=0.5)


def side_by_side(left: float, right: float):
    """Two faces of given sizes, the right one turned around."""

    def change(frame: np.ndarray) -> np.ndarray:
        parts = []
        for picture, share in ((frame, left), (frame[:, ::-1], right)):
            small = cv2.resize(picture, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
            below, beside = 256 - small.shape[0], 256 - small.shape[1]
            parts.append(cv2.copyMakeBorder(small, 0, below, 0, beside, cv2.BORDER_REPLICATE))
        return np.concatenate(parts, axis=1)

    return change


def test_both_videos_follow_the_same_of_two_persons(talking_clip, tmp_path):
    """In the generated video the other person is the larger one."""
    real = rewrite(talking_clip, tmp_path / "r.mp4", side_by_side(1.0, 0.85))
    generated = rewrite(talking_clip, tmp_path / "g.mp4", side_by_side(0.85, 1.0))
    pair = ClipPair("clip", generated, real)
    left = [np.nanmedian(p[..., 0]) < 256 for p in (pair.real_landmarks, pair.generated_landmarks)]
    assert left == [True, True]
    assert pair.notes == [
        "2 faces in the real video; measured are the larger and longer visible one and the face at "
        "the same place in the generated video"
    ]
    alone = ClipPair("clip", rewrite(talking_clip, tmp_path / "o.mp4", side_by_side(1, 0.1)), real)
    assert np.nanmedian(alone.generated_landmarks[..., 0]) < 256


def test_a_generated_video_of_another_size_keeps_its_pose(talking_clip, tmp_path):
    large = rewrite(talking_clip, tmp_path / "g.mp4", lambda f: cv2.resize(f, (512, 512)))
    real = rewrite(talking_clip, tmp_path / "r.mp4", lambda f: f)
    values = evaluate(large, real).values["clip"]
    assert values["ARD"] < 1.0
    assert values["jitter_ratio"] == pytest.approx(1, abs=0.5)
    pair = ClipPair("clip", large, real)
    depths = [np.ptp(p[..., 2]) for p in (pair.generated_landmarks, pair.real_landmarks)]
    assert depths[0] == pytest.approx(depths[1], rel=0.1)


def test_onset_peaks_are_those_of_librosa():
    """Values of librosa 0.11, peak_pick(x, 1, 2, 2, 3, 0.07, 0); see there why it is not called."""
    strength = np.random.default_rng(7).random(40)
    expected = [1, 5, 7, 16, 19, 22, 25, 27, 34, 38]
    assert onset_peaks(strength).tolist() == expected
    assert onset_peaks(np.zeros(0)).tolist() == [] and onset_peaks(np.ones(1)).tolist() == []
