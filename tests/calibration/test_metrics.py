"""Metrics against closed forms, scikit-image and the figures of the metrics specification."""

from __future__ import annotations

import math
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from skimage import data as pictures
from skimage.filters import gaussian
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from trainkit import hyperlips_config

import talkingface
from talkingface.data.face.topology import EYE_CORNERS_LEFT, EYE_CORNERS_RIGHT, LIPS, N_POINTS
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import count_frames, read_frames
from talkingface.data.media.writer import VideoWriter
from talkingface.errors import ConfigError, DataError
from talkingface.evaluator import clip as clip_module
from talkingface.evaluator.base_metric import Metric
from talkingface.evaluator.clip import ClipPair
from talkingface.evaluator.evaluator import Evaluator, RowResult, aggregate, row_remarks
from talkingface.evaluator.metrics.image_quality import PSNR_CAP, psnr, ssim_map
from talkingface.evaluator.metrics.landmark_distance import (
    RIGID,
    Faces,
    aligned_parts,
    landmark_distance,
    velocity_distance,
)
from talkingface.registry import Entry

ASTRONAUT = pictures.astronaut()


def blurred(sigma: float) -> np.ndarray:
    return np.rint(gaussian(ASTRONAUT, sigma, channel_axis=-1, preserve_range=True)).astype(
        np.uint8
    )


def noisy(sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, ASTRONAUT.shape)
    return np.clip(np.rint(ASTRONAUT + noise), 0, 255).astype(np.uint8)


def ssim(first: np.ndarray, second: np.ndarray, kind: str = "gaussian11") -> float:
    border = 5 if kind == "gaussian11" else 3
    return float(
        ssim_map(first, second, kind)[border:-border, border:-border].mean(dtype=np.float64)
    )


# -- PSNR and SSIM ---------------------------------------------------------------------------------

# Table of metrics spec, section 6: Gaussian blur of 1.5 px and noise of deviation 15.
PUBLISHED = {"blurred": (blurred(1.5), 0.8646, 0.8753), "noisy": (noisy(15), 0.4937, 0.5171)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_ssim_gives_the_published_figures_of_the_astronaut(name):
    picture, wang, uniform = PUBLISHED[name]
    assert ssim(picture, ASTRONAUT) == pytest.approx(wang, abs=1e-3)
    assert ssim(picture, ASTRONAUT, "uniform7") == pytest.approx(uniform, abs=1e-3)


@pytest.mark.parametrize("picture", [blurred(1.5), noisy(15), 255 - ASTRONAUT], ids=["b", "n", "i"])
def test_ssim_agrees_with_scikit_image(picture):
    options = {"data_range": 255, "channel_axis": -1}
    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = structural_similarity(picture, ASTRONAUT, **options, **wang)
    assert ssim(picture, ASTRONAUT) == pytest.approx(expected, abs=1e-6)
    expected = structural_similarity(picture, ASTRONAUT, **options)
    assert ssim(picture, ASTRONAUT, "uniform7") == pytest.approx(expected, abs=1e-6)


def test_ssim_of_grey_pictures_agrees_with_scikit_image():
    one, two = (cv2.cvtColor(i, cv2.COLOR_RGB2GRAY) for i in (noisy(15), ASTRONAUT))
    expected = structural_similarity(
        one, two, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(one, two) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("sigma", [1, 5, 40])
def test_psnr_agrees_with_scikit_image(sigma):
    expected = peak_signal_noise_ratio(ASTRONAUT, noisy(sigma))
    assert psnr(noisy(sigma), ASTRONAUT) == pytest.approx(expected, abs=1e-9)


def test_psnr_of_a_known_error_is_exact():
    """A constant error of 1 gives 20 log10 255; in uint8 arithmetic 0 - 1 would be 255."""
    zero, one = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4, 3), np.uint8)
    assert psnr(zero, one) == psnr(one, zero) == pytest.approx(20 * math.log10(255))


def test_l1_is_the_mean_absolute_difference_of_each_region(monkeypatch):
    metric = talkingface.create_metric("L1")
    clip = ClipPair("c", Path("a.mp4"), Path("b.mp4"))
    clip.n_frames = 2
    boxes = {"full": (0, 0, 4, 4), "face": (0, 0, 2, 4)}
    monkeypatch.setattr(metric, "boxes", lambda _clip, _index: boxes)
    real = np.full((4, 4, 3), 100, np.uint8)
    made = real.copy()
    made[:, :2] -= 10
    metric.start(clip)
    for index in range(2):
        metric.update(clip, index, made, real)
    values = metric.finish(clip)
    assert values["L1"] == pytest.approx(5) and values["L1_face"] == pytest.approx(10)
    assert math.isnan(values["L1_mouth"]) and metric.reasons["L1_mouth"]


def test_equal_pictures_have_psnr_100_and_ssim_1():
    assert psnr(ASTRONAUT, ASTRONAUT) == PSNR_CAP == 100.0
    assert ssim(ASTRONAUT, ASTRONAUT) == 1


@pytest.mark.parametrize("worsen", [blurred, noisy])
def test_more_blur_or_noise_is_always_worse(worsen):
    steps = [worsen(sigma) for sigma in (0.7, 1.5, 3.0, 6.0)]
    for score in (psnr, ssim):
        values = [score(step, ASTRONAUT) for step in steps]
        assert values == sorted(values, reverse=True) and len(set(values)) == 4


# -- LMD: closed forms of section 3.2 --------------------------------------------------------------


def points(count: int = 20, frames: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 100, (frames, count, 2))


def aligned(generated, real, align: str, rigid=(0.0, 0.0)) -> tuple[np.ndarray, np.ndarray]:
    """(T,K,2) points of both faces, as their first K lip points, aligned.

    Args:
        rigid: (T,9,2) rigid points of both faces.
    """
    faces = Faces(None, *np.zeros((2, len(real), N_POINTS, 3)), np.ones(len(real), bool))
    lips = LIPS[: real.shape[1]]
    faces.generated[:, list(RIGID), :2], faces.real[:, list(RIGID), :2] = rigid
    faces.generated[:, list(lips), :2], faces.real[:, list(lips), :2] = generated, real
    return aligned_parts(faces, lips, align)


def distance(generated: np.ndarray, real: np.ndarray, align: str, reduce: str = "mean") -> float:
    return float(landmark_distance(*aligned(generated, real, align), reduce).mean())


def test_one_point_of_twenty_displaced_by_d_gives_a_twentieth_of_it_without_alignment():
    real, d = points(), 7.0
    moved = real.copy()
    moved[:, 3, 0] += d
    assert distance(moved, real, "none") == pytest.approx(d / 20)


def test_one_point_of_twenty_displaced_by_d_gives_0_095_d_with_centroid_alignment():
    real, d = points(), 7.0
    moved = real.copy()
    moved[:, 3, 1] += d
    assert distance(moved, real, "centroid") == pytest.approx(0.095 * d)


def test_a_translation_counts_only_without_alignment():
    real = points()
    moved = real + [3.0, 4.0]
    assert distance(moved, real, "none") == pytest.approx(5.0)
    assert distance(moved, real, "centroid") == pytest.approx(0.0, abs=1e-9)


def test_the_sum_is_the_mean_times_the_number_of_points():
    real, other = points(seed=1), points(seed=2)
    mean, total = (distance(other, real, "none", reduce) for reduce in ("mean", "sum"))
    assert total == pytest.approx(20 * mean)


def test_scaling_the_lips_by_s_gives_the_mean_radius_times_s_minus_1():
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    circle = 50 + 10 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)[None]
    assert distance(50 + 1.3 * (circle - 50), circle, "centroid") == pytest.approx(3.0)


def test_procrustes_removes_the_pose_but_not_the_lips():
    real, rigid = points(), points(len(RIGID), seed=3)
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])

    def pose(values: np.ndarray) -> np.ndarray:
        return 1.2 * values @ turn.T + [30.0, -10.0]

    parts = aligned(pose(real), real, "procrustes", (pose(rigid), rigid))
    assert landmark_distance(*parts).max() < 1e-9
    opened = real.copy()
    opened[:, 3, 1] += 7.0
    parts = aligned(pose(opened), real, "procrustes", (pose(rigid), rigid))
    assert landmark_distance(*parts).mean() == pytest.approx(7.0 / 20)


def test_the_velocity_of_a_drift_is_its_speed():
    real = points(frames=10)
    drifting = real + np.arange(10)[:, None, None] * np.array([0.6, 0.8])
    valid = np.ones(10, bool)
    assert velocity_distance(drifting, real, valid) == pytest.approx(np.ones(9))
    assert velocity_distance(real + [9.0, 9.0], real, valid) == pytest.approx(np.zeros(9))


def test_velocities_never_bridge_a_missing_frame():
    real = points(frames=10)
    jumping = real.copy()
    jumping[5:] += 50.0  # a jump right behind a gap is not a velocity
    valid = np.ones(10, bool)
    valid[4] = False
    values = velocity_distance(jumping, real, valid)
    assert len(values) == 7
    assert values.max() < 1e-9


# -- LMD as a metric -------------------------------------------------------------------------------


def mesh(frames: int = 20, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).uniform(50, 150, (N_POINTS, 3))
    points[list(EYE_CORNERS_LEFT), :2] = [[60, 80], [80, 80]]  # eye centres 80 px apart
    points[list(EYE_CORNERS_RIGHT), :2] = [[140, 80], [160, 80]]
    return np.repeat(points[None], frames, axis=0)


def score(name: str, generated: np.ndarray, real: np.ndarray, **params) -> tuple[dict, dict, list]:
    """Values, reasons and notes for precomputed landmarks."""
    pair = ClipPair("clip", Path("generated.mp4"), Path("real.mp4"))
    pair.generated_landmarks, pair.real_landmarks = generated, real
    metric = talkingface.create_metric(name, **params)
    metric.start(pair)
    return metric.finish(pair), metric.reasons, pair.notes


def test_lmd_of_one_displaced_lip_point_is_known():
    real = mesh()
    moved = real.copy()
    moved[:, LIPS[0], 1] += 8.0
    count = len(LIPS)
    values, _, _ = score("LMD", moved, real)
    expected = 8.0 * 2 * (count - 1) / count**2  # for 20 points this is 0.095 d
    assert values["LMD"] == pytest.approx(expected)
    assert values["LMD_norm"] == pytest.approx(100 * expected / 80)
    values, _, _ = score("LMD", moved, real, align="none")
    assert values["LMD"] == pytest.approx(8.0 / count)


def test_points_off_the_lips_and_the_depth_do_not_count():
    real = mesh()
    moved = real.copy()
    others = [i for i in range(N_POINTS) if i not in LIPS]
    moved[:, others] += 5
    moved[..., 2] += 30
    assert score("LMD", moved, real, align="none")[0]["LMD"] == 0


def test_lmd_can_be_given_per_mouth_width():
    real = mesh()
    real[:, 61, :2], real[:, 291, :2] = [90, 130], [130, 130]
    moved = real + [3.0, 4.0, 0.0]
    values, _, _ = score("LMD", moved, real, align="none", norm="mouth_width")
    assert values["LMD_norm"] == pytest.approx(100 * 5 / 40)


def test_frames_without_a_face_are_left_out_and_reported():
    real = mesh()
    moved = real + [3.0, 4.0, 0.0]
    moved[[2, 3, 9]] = np.nan
    values, _, notes = score("LMD", moved, real, align="none")
    assert values["LMD"] == pytest.approx(5.0)
    assert notes == ["LMD: faces in 85% of the frames"]


def test_too_few_faces_give_nan_with_a_reason_never_zero():
    real, lost = mesh(), mesh()
    lost[:11] = np.nan
    values, reasons, _ = score("LMD", lost, real)
    assert math.isnan(values["LMD"]) and math.isnan(values["LMD_norm"])
    assert "only 45% of the frames" in reasons["LMD"]


def test_a_single_frame_has_no_velocity():
    values, reasons, _ = score("LMD_v", mesh(1), mesh(1))
    assert math.isnan(values["LMD_v"])
    assert "consecutive" in reasons["LMD_v"]


def test_a_delay_makes_landmark_metrics_worse(talking_clip):
    from talkingface.data.face.tracking import video_landmarks

    real = video_landmarks(talking_clip, fps=25, tracking=False)
    for name in ("LMD", "LMD_v"):
        values = [score(name, np.roll(real, shift, axis=0), real)[0][name] for shift in (0, 1, 2)]
        assert values[0] == 0 and values[1] > 0.1 and values[2] > values[1], name


@pytest.mark.parametrize("wrong", [{"align": "magic"}, {"norm": "nose"}])
def test_a_wrong_setting_is_refused(wrong):
    with pytest.raises(ConfigError, match="choose"):
        score("LMD", mesh(), mesh(), **wrong)


def test_the_definition_names_detector_and_alignment():
    text = talkingface.create_metric("LMD", align="none").definition()
    assert text.startswith("LMD[facelandmarker40,static") and "align=none" in text


# -- pairs of videos -------------------------------------------------------------------------------


def video(path: Path, frames: int = 30, size: int = 64, fps: float = 25, seed: int = 0) -> Path:
    """Smooth moving texture without a face."""
    rng = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (200, 200, 3)).astype(np.uint8), (0, 0), 3)
    with VideoWriter(path, fps, crf=1) as writer:
        for index in range(frames):
            writer.write(cv2.resize(texture[index : index + 100, :100], (size, size)))
    return path


def evaluate(generated: Path, real: Path, metrics: tuple[str, ...] = ("PSNR", "SSIM")) -> RowResult:
    row = RowResult("row")
    Evaluator(hyperlips_config(), metrics).score_clip(ClipPair("clip", generated, real), row)
    return row


def test_a_video_compared_with_itself_is_perfect(talking_clip):
    row = evaluate(talking_clip, talking_clip, ("PSNR", "SSIM", "LMD", "LMD_v"))
    values = row.values["clip"]
    assert {k: v for k, v in values.items() if "PSNR" in k} == {
        "PSNR": 100.0,
        "PSNR_face": 100.0,
        "PSNR_mouth": 100.0,
    }
    assert [values[k] for k in ("SSIM", "SSIM_face", "SSIM_mouth")] == pytest.approx([1, 1, 1])
    assert [v for k, v in values.items() if "LMD" in k] == [0, 0, 0, 0]
    assert row.reasons == {} and row.notes["clip"] == []


def test_the_mouth_suffers_most_where_only_the_mouth_differs(talking_clip, tmp_path):
    frames = list(read_frames(talking_clip, fps=25))[:12]
    pair = ClipPair("x", talking_clip, talking_clip)
    with VideoWriter(tmp_path / "r.mp4", 25, crf=4) as real:
        for frame in frames:
            real.write(frame)
    with VideoWriter(tmp_path / "g.mp4", 25, crf=4) as generated:
        for index, frame in enumerate(frames):
            x0, y0, x1, y1 = pair.region("mouth", index)
            frame = frame.copy()
            frame[y0:y1, x0:x1] = cv2.GaussianBlur(frame[y0:y1, x0:x1], (0, 0), 3)
            generated.write(frame)
    values = evaluate(tmp_path / "g.mp4", tmp_path / "r.mp4").values["clip"]
    for name in ("PSNR", "SSIM"):
        assert values[f"{name}_mouth"] < values[f"{name}_face"] < values[name]


def test_regions_are_nested_boxes_of_the_real_face(talking_clip):
    pair = ClipPair("x", talking_clip, talking_clip)
    full, face, mouth = (pair.region(name, 5) for name in ("full", "face", "mouth"))
    assert full == (0, 0, 256, 256)
    for inner, outer in ((face, full), (mouth, face)):
        assert outer[0] <= inner[0] < inner[2] <= outer[2]
        assert outer[1] <= inner[1] < inner[3] <= outer[3]


@pytest.mark.usefixtures("tracker")
def test_without_a_face_whole_frames_are_scored_and_the_rest_is_nan_with_a_reason(tmp_path):
    real = video(tmp_path / "r.mp4")
    row = evaluate(real, real, ("PSNR", "LMD"))
    values = row.values["clip"]
    assert values["PSNR"] == 100
    for key in ("PSNR_face", "PSNR_mouth", "LMD"):
        assert math.isnan(values[key])
        assert "face" in row.reasons["clip", key]


def test_a_region_seen_in_less_than_half_of_the_frames_is_not_scored(talking_clip, tmp_path):
    path = tmp_path / "r.mp4"
    with VideoWriter(path, 25, crf=10) as writer:
        for index, frame in zip(range(20), read_frames(talking_clip), strict=False):
            writer.write(frame if index < 8 else np.full_like(frame, 90))
    row = evaluate(path, path, ("PSNR",))
    assert row.values["clip"]["PSNR"] == 100
    assert math.isnan(row.values["clip"]["PSNR_face"])
    assert "real video in only 40%" in row.reasons["clip", "PSNR_face"]


@pytest.mark.usefixtures("tracker")
def test_another_size_is_resized_to_the_real_one_and_noted(tmp_path):
    real = video(tmp_path / "r.mp4", size=64)
    large = video(tmp_path / "g.mp4", size=128)
    row = evaluate(large, real)
    assert row.values["clip"]["PSNR"] > 25
    assert row.notes["clip"] == ["generated frames 128x128 resized to 64x64"]


def test_the_padding_of_odd_sides_is_cut_off_not_scaled(talking_clip, tmp_path):
    """H.264 makes 97x131 to 98x132; landmarks of both must lie at the same place."""
    frames = [
        cv2.resize(f, (97, 131)) for _, f in zip(range(4), read_frames(talking_clip), strict=False)
    ]
    real = tmp_path / "real.mkv"
    with av.open(str(real), "w") as container:
        stream = container.add_stream("ffv1", 25, width=97, height=131, pix_fmt="bgr0")
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    generated = tmp_path / "g.mp4"
    with VideoWriter(generated, 25, crf=1) as writer:
        for frame in frames:
            writer.write(frame)
    pair = ClipPair("c", generated, real)
    assert pair.size == (97, 131) and probe(generated).width == 98
    assert not pair.resized
    own = pair.generated_meshes(25)
    assert np.array_equal(pair.generated_landmarks, own, equal_nan=True)
    assert all(g.shape == (131, 97, 3) for _, g, _ in pair.frames())
    assert pair.notes == []


@pytest.mark.parametrize("name", ["LMD_v", "FLMD_v"])
def test_velocities_do_not_bridge_scene_cuts(name, monkeypatch):
    real = np.cumsum(np.random.default_rng(0).normal(0, 1, (20, N_POINTS, 3)), axis=0) + 100
    generated = real + np.random.default_rng(1).normal(0, 1, real.shape)
    whole = score(name, generated, real, align="none")[0][name]
    jumping = generated.copy()
    jumping[12:] += 50.0  # the new shot is shown elsewhere
    monkeypatch.setattr(ClipPair, "cuts", np.array([12]))
    value = score(name, jumping, real, align="none")[0][name]
    assert value == pytest.approx(score(name, generated, real, align="none")[0][name], rel=1e-9)
    assert value == pytest.approx(whole, rel=0.1) and value != whole


def test_cuts_are_those_of_the_real_video_at_the_pairs_rate(talking_clip, tmp_path, monkeypatch):
    frames = [f for _, f in zip(range(20), read_frames(talking_clip), strict=False)]
    path = tmp_path / "cut.mp4"
    with VideoWriter(path, 25, crf=8) as writer:
        for index, frame in enumerate(frames):
            writer.write(frame if index < 9 else 255 - frame[:, ::-1])
    pair = ClipPair("c", path, path)
    assert pair.cuts.tolist() == [9]
    assert ClipPair("c", talking_clip, talking_clip).cuts.tolist() == []
    # Neither landmarks nor cuts decode again what the pair has scanned.
    monkeypatch.setattr(clip_module, "scan_video", lambda *_, **__: pytest.fail("scanned twice"))
    assert len(pair.real_landmarks) == 20 and pair.cuts.tolist() == [9]
    assert ClipPair("c", Path("no.mp4"), Path("no.mp4")).cuts.tolist() == []


@pytest.mark.parametrize(("frames", "note"), [(30, False), (28, False), (27, True)])
def test_the_shorter_length_counts_and_more_than_two_frames_are_noted(tmp_path, frames, note):
    real = video(tmp_path / "r.mp4", frames=30)
    pair = ClipPair("c", video(tmp_path / "g.mp4", frames=frames), real)
    assert len(list(pair.frames())) == pair.n_frames == frames
    assert bool(pair.notes) == note


def test_lengths_more_than_a_tenth_apart_are_not_compared(tmp_path):
    real = video(tmp_path / "r.mp4", frames=30)
    row = evaluate(video(tmp_path / "g.mp4", frames=26), real)
    assert all(math.isnan(v) for v in row.values["clip"].values())
    assert "26 frames and the real one 30" in row.reasons["clip", "PSNR"]


def test_another_frame_rate_is_compared_at_25_and_noted(tmp_path):
    real = video(tmp_path / "r.mp4", frames=30, fps=25)
    pair = ClipPair("c", video(tmp_path / "g.mp4", frames=36, fps=30), real)
    assert pair.n_frames in (29, 30)
    assert "frame rates 30.000 (generated) and 25.000 (real)" in pair.notes[0]


def test_frames_are_paired_by_index(tmp_path):
    real = video(tmp_path / "r.mp4")
    for index, generated, frame in ClipPair("c", real, real).frames():
        assert np.array_equal(generated, frame), index


def test_a_missing_or_damaged_video_is_a_reason_not_an_exception(tmp_path):
    real = video(tmp_path / "r.mp4")
    (tmp_path / "bad.mp4").write_bytes(real.read_bytes()[:500])
    for bad in (tmp_path / "bad.mp4", tmp_path / "missing.mp4"):
        row = evaluate(bad, real, ("PSNR", "LMD"))
        assert all(math.isnan(value) for value in row.values["clip"].values())
        assert all(len(reason) > 10 for reason in row.reasons.values())


class Broken(Metric):
    """Fails in the middle of a clip."""

    def update(self, clip, index, generated, real):
        if index == 3:
            raise ZeroDivisionError("division by zero")

    def finish(self, clip):
        return {"Broken": 1.0}


@pytest.mark.usefixtures("tracker")
def test_a_failing_metric_costs_only_its_own_values(tmp_path):
    evaluator = Evaluator(hyperlips_config(), ["PSNR"])
    entry = Entry("metric", "Broken", Path(), {"outputs": {"Broken": {}}}, {}, {})
    evaluator.metrics.insert(0, Broken(entry, {}))
    row = RowResult("row")
    real = video(tmp_path / "r.mp4")
    evaluator.score_clip(ClipPair("clip", real, real), row)
    assert math.isnan(row.values["clip"]["Broken"])
    assert row.reasons["clip", "Broken"] == "ZeroDivisionError: division by zero"
    assert row.values["clip"]["PSNR"] == 100


def test_an_error_that_nobody_foresaw_while_decoding_is_a_reason(tmp_path, monkeypatch):
    real = video(tmp_path / "r.mp4")
    monkeypatch.setattr(ClipPair, "frames", lambda self: iter([1 / 0]))
    row = evaluate(real, real, ("PSNR",))
    assert row.reasons["clip", "PSNR"] == "ZeroDivisionError: division by zero"


@pytest.mark.usefixtures("tracker")
def test_scores_do_not_depend_on_the_clips_before(tmp_path):
    pairs = [
        ClipPair(
            f"c{i}", video(tmp_path / f"g{i}.mp4", seed=i), video(tmp_path / f"r{i}.mp4", seed=9)
        )
        for i in range(3)
    ]
    results = []
    for order in (pairs, pairs[::-1]):
        evaluator, row = Evaluator(hyperlips_config(), ["PSNR", "SSIM"]), RowResult("row")
        for pair in order:
            evaluator.score_clip(ClipPair(pair.name, pair.generated, pair.real), row)
        results.append({name: row.values[name]["SSIM"] for name in sorted(row.values)})
    assert results[0] == results[1]
    assert len(set(results[0].values())) == 3


def test_a_pair_without_common_frames_is_refused():
    pair = ClipPair("c", Path("g"), Path("r"))
    pair.lengths = (0, 10)
    with pytest.raises(DataError, match="no frame"):
        _ = pair.n_frames


# -- aggregation -----------------------------------------------------------------------------------


def row(name: str, **values: float) -> RowResult:
    return RowResult(name, {clip: {"M": value} for clip, value in values.items()})


def test_all_rows_are_averaged_over_the_clips_that_all_have():
    nan = math.nan
    table = aggregate([row("a", c1=1.0, c2=2.0, c3=6.0), row("b", c1=10.0, c2=nan, c3=30.0)], ["M"])
    assert table["a"]["M"]["mean"] == 3.5
    assert table["b"]["M"]["mean"] == 20.0
    assert table["a"]["M"]["n"] == table["b"]["M"]["n"] == 2
    assert table["a"]["M"]["std"] == pytest.approx(np.std([1, 6], ddof=1))


def test_a_row_without_any_value_does_not_empty_the_table():
    table = aggregate([row("a", c1=1.0, c2=3.0), row("b", c1=math.nan, c2=math.nan)], ["M"])
    assert table["a"]["M"] == {"mean": 2.0, "std": pytest.approx(math.sqrt(2)), "n": 2}
    assert math.isnan(table["b"]["M"]["mean"]) and table["b"]["M"]["n"] == 0


def test_one_clip_has_no_deviation():
    assert math.isnan(aggregate([row("a", c1=1.0)], ["M"])["a"]["M"]["std"])


def test_clips_weigh_equally_and_results_are_plain_numbers():
    table = aggregate([row("a", c1=np.float64(1.0), c2=2.0)], ["M"])
    assert {type(value) for value in table["a"]["M"].values()} == {float, int}


def test_rows_of_different_picture_sizes_are_told():
    def row(name: str, native: str) -> RowResult:
        return RowResult(name, facts={"a": {"frames": 1, "size": "64x64", "native": native}})

    (line,) = row_remarks([row("small", "32x32"), row("full", "64x64")])
    assert "small 32x32, full 64x64" in line and "NIQE" in line
    assert row_remarks([row("one", "64x64"), row("two", "64x64")]) == []


def test_two_videos_of_one_rate_that_is_not_25_are_compared_at_25_too(tmp_path, talking_clip):
    """px/frame at 50 frames/s is half of that at 25: rows of both rates would not compare."""
    fast = tmp_path / "fast.mp4"
    with VideoWriter(fast, 50) as writer:
        for frame in read_frames(talking_clip, fps=50):
            writer.write(frame)
    pair = ClipPair("a", fast, fast)
    assert pair.fps == 25 and "50.000" in pair.notes[0]
    assert pair.n_frames == count_frames(talking_clip, 25)
