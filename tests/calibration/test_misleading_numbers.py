"""Values that would mislead: copied frames, black bars, still faces, cuts, short or dull sound."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import talkingface
from talkingface.data.face.topology import LIPS
from talkingface.data.quality import bandwidth, loudness, sound_flaw
from talkingface.evaluator.clip import ClipPair
from talkingface.evaluator.metrics.diversity import diversity
from talkingface.evaluator.metrics.landmark_distance import Faces, shot_numbers
from talkingface.evaluator.metrics.syncnet import lse as lse_module
from talkingface.evaluator.report import console_table

RNG = np.random.default_rng(0)


def pair_of(frames: list[np.ndarray]) -> ClipPair:
    """A clip that is not on disk, without a face."""
    pair = ClipPair("clip", Path("generated.mp4"), Path("real.mp4"))
    height, width = frames[0].shape[:2]
    pair.n_frames, pair.size = len(frames), (width, height)
    pair.region = lambda region, index: (0, 0, width, height) if region == "full" else None
    return pair


def score(metric, generated: list[np.ndarray], real: list[np.ndarray] | None = None):
    """Values and notes of one clip."""
    pair = pair_of(real or generated)
    metric.start(pair)
    for index, frames in enumerate(zip(generated, real or generated, strict=True)):
        metric.update(pair, index, *frames)
    return metric.finish(pair), pair.notes


def moving(count: int = 12) -> list[np.ndarray]:
    """A texture that moves by two pixels a frame, with camera noise."""
    texture = RNG.integers(0, 256, (17, 40, 3)).repeat(8, 0).repeat(8, 1)
    frames = (texture[:128, 2 * k : 2 * k + 128] for k in range(count))
    return [np.clip(f + RNG.normal(0, 2, f.shape), 0, 255).astype(np.uint8) for f in frames]


# -- sampling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["NIQE", "CPBD", "CSIM"])
def test_one_frame_of_each_group_is_measured_at_changing_places(name):
    stride = 5
    metric = talkingface.create_metric(name, stride=stride)
    assert metric.definition().endswith("r2]")
    chosen = [k for k in range(100 * stride) if metric.sampled(k)]
    assert [k // stride for k in chosen] == list(range(100))
    # Whatever the period of key frames or copies: each phase gets its share.
    for period in (2, 4, 5, 10, 12, 25):
        phases = np.bincount(np.array(chosen) % period, minlength=period)
        assert phases.min() > 0.3 * len(chosen) / period, (period, phases)
    every = talkingface.create_metric(name, stride=1)
    assert all(every.sampled(k) for k in range(20))


# -- black bars ------------------------------------------------------------------------------------


def test_black_bars_are_named_with_their_size():
    barred = [frame.copy() for frame in moving()]
    for frame in barred:
        frame[:16], frame[-8:] = RNG.integers(0, 4, 3), 0  # of a compressed video
    metric = talkingface.create_metric("CPBD", stride=1)
    _, notes = score(metric, barred)
    assert [note for note in notes if "black bars (top 16 px, bottom 8 px)" in note]
    assert not score(metric, moving())[1]
    # Something bright moves into the bar once: it belongs to the picture.
    barred[7][3, 60:70] = 255
    assert "black bars (top 3 px, bottom 8 px)" in score(metric, barred)[1][0]


# -- copied frames ---------------------------------------------------------------------------------


def test_frames_that_the_real_video_repeats_do_not_count():
    frames = moving(7)
    doubled = [frame for frame in frames for _ in range(2)]
    metric = talkingface.create_metric("TCM")
    plain, _ = score(metric, frames)
    values, notes = score(metric, doubled)
    assert values["E_O"] == pytest.approx(plain["E_O"], rel=0.2)  # not half of it
    assert "TCM: the real video repeats 7 of 13 frames; they are left out" in notes


def test_frames_that_only_the_generated_video_repeats_count_and_are_noted():
    real = moving(14)
    doubled = [real[k - k % 2] for k in range(14)]
    values, notes = score(talkingface.create_metric("TCM"), doubled, real)
    assert values["TCM"] < 0.7
    assert any("the generated video repeats 7 of 13 frames" in note for note in notes)


# -- still faces and cuts --------------------------------------------------------------------------


def faces_of(points: np.ndarray, cuts: list[int] = ()) -> Faces:
    clip = SimpleNamespace(cuts=np.array(cuts, int), notes=[], fps=25.0)
    return Faces(clip, points, points, np.ones(len(points), bool))


def test_the_unit_of_div_is_never_smaller_than_the_noise_of_the_tracker():
    from test_motion_metrics import head, nodding

    still = head(np.zeros((60, 3))) + RNG.normal(0, 0.02, (60, 478, 3))
    samples = [head(nodding(period=period)) for period in (15, 20)]
    values = diversity(samples, still)
    assert all(math.isnan(values[key]) for key in ("Div_H", "Div_M"))
    assert diversity([still, still], still) == {"Div_H": 0, "Div_E": 0, "Div_M": 0}


def test_a_cut_is_no_motion_of_the_head():
    from test_motion_metrics import head, nodding

    angles = nodding(60, size=2.0)
    angles[30:, 0] += 25  # the second camera looks from the side
    metric = talkingface.create_metric("pose")
    seen = metric.values(faces_of(head(angles), [30]))
    within = metric.values(faces_of(head(nodding(60, size=2.0))))
    assert seen["pose_std_yaw"] == pytest.approx(within["pose_std_yaw"], rel=0.05)
    assert metric.values(faces_of(head(angles)))["pose_std_yaw"] > 5 * seen["pose_std_yaw"]
    # The unit of Div, too.
    real, samples = head(angles), [head(nodding(60, period=p, size=2.0)) for p in (15, 20)]
    for points in (real, *samples):
        points[:, list(LIPS), 1] += RNG.normal(0, 3, (60, 1))
    shot = shot_numbers(SimpleNamespace(cuts=np.array([30])), np.ones(60, bool))
    assert diversity(samples, real, shot)["Div_H"] > 1.2 * diversity(samples, real)["Div_H"]


# -- sound -----------------------------------------------------------------------------------------


def test_a_band_limited_or_almost_silent_sound_is_noted():
    noise = RNG.normal(0, 0.1, 32000).astype(np.float32)
    spectrum = np.fft.rfft(noise)
    spectrum[len(spectrum) * 38 // 80 :] = 0
    telephone = np.fft.irfft(spectrum).astype(np.float32)
    assert bandwidth(noise) > 7900 and bandwidth(telephone) == pytest.approx(3800, abs=100)
    assert loudness(noise) == pytest.approx(-20, abs=0.1)
    assert sound_flaw(noise) is None
    assert sound_flaw(telephone) == "the sound has no frequencies above 3.9 kHz (telephone?)"
    assert sound_flaw(noise / 1000) == "the sound is almost silent (-80 dB)"
    assert math.isnan(bandwidth(np.zeros(100))) and sound_flaw(np.zeros(0, np.float32)) is None


def lse_of(monkeypatch, sound_seconds: float, frames: int = 50, flaw: str | None = None):
    """LSE of a clip of 25 frames/s with random embeddings; values, reasons and notes."""
    video = Path(__file__)
    clip = SimpleNamespace(
        generated=video, real=video, sound=video, n_frames=frames, fps=25.0, notes=[]
    )
    samples = round(16000 * sound_seconds)
    sounds = RNG.normal(0, 1, (max(samples // 640 - 4, 0), 8)).astype(np.float32)
    monkeypatch.setattr(lse_module, "probe", lambda path: SimpleNamespace(has_audio=True))
    monkeypatch.setattr(lse_module, "_network", lambda *_: SimpleNamespace(image_size=8))
    monkeypatch.setattr(lse_module, "_sound", lambda *_: (sounds, samples, flaw))
    monkeypatch.setattr(lse_module, "read_frames", lambda *_, **__: iter(range(frames)))
    monkeypatch.setattr(lse_module, "crops", lambda *_: None)
    lips = RNG.normal(0, 1, (frames - 4, 8)).astype(np.float32)
    monkeypatch.setattr(lse_module, "lip_features", lambda *_: lips)
    metric = talkingface.create_metric("LSE", weights=str(video), crop="none")
    return metric.finish(clip), metric.reasons, clip.notes


def test_a_sound_that_is_shorter_than_the_video_has_no_lse(monkeypatch):
    values, reasons, _ = lse_of(monkeypatch, sound_seconds=1.0, frames=100)
    assert all(math.isnan(value) for value in values.values())
    assert "the sound has 1.0 s and the video 4.0 s" in reasons["LSE_C"]
    values, _, notes = lse_of(monkeypatch, sound_seconds=3.9, frames=100)
    assert math.isfinite(values["LSE_C"]) and not any("fewer" in note for note in notes)
    assert values["AV_offset_abs"] == abs(values["AV_offset"])


def test_lse_of_short_clips_and_of_a_band_limited_sound_is_noted(monkeypatch):
    _, _, notes = lse_of(monkeypatch, sound_seconds=1.0, frames=25, flaw="like a telephone's")
    assert any("LSE_C is too high" in note for note in notes)
    assert "LSE: like a telephone's" in notes


def test_short_clips_have_a_larger_lse_c(monkeypatch):
    """Of unrelated lips and sounds: the bias that the note describes."""
    short, long = (
        np.mean([lse_of(monkeypatch, n / 25, n)[0]["LSE_C"] for _ in range(40)]) for n in (30, 200)
    )
    assert short > 1.3 * long


def test_the_table_shows_how_far_offsets_differ_between_clips():
    outputs = {
        "AV_offset": {"direction": "zero", "spread": True},
        "AV_offset_abs": {"direction": "down"},
    }
    cell = {"mean": 0.0, "std": 4.2, "n": 2}
    table = console_table({"a": {key: cell for key in outputs}}, outputs, 1)
    assert "0.0 ± 4.2" in table and table.count("±") == 1
