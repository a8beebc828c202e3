"""SyncNet: official names and numbers, scores with known answers, and the metric built on it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from talkingface.config.config import load_config
from talkingface.data.face.boxes import syncnet_crop
from talkingface.data.media.mfcc import syncnet_mfcc, warped_mfcc
from talkingface.errors import WeightsError
from talkingface.evaluator.base_metric import build_metric
from talkingface.evaluator.clip import ClipPair
from talkingface.evaluator.metrics.syncnet import sync_score
from talkingface.model.audio_driven_talkingface.syncnet.syncnet import SyncNetModel, distances
from talkingface.model.audio_driven_talkingface.syncnet.syncnet_networks import (
    SyncNet,
    audio_windows,
)
from talkingface.model.weights import load_into


@pytest.fixture(scope="module")
def small() -> SyncNet:
    torch.manual_seed(0)
    return SyncNet(0.125, 96, 64).eval()


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, int(16000 * seconds)).astype(np.float32)


# -- sound -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 399, 400, 401, 16000, 48077])
def test_mfcc_equal_those_of_python_speech_features(samples):
    reference = pytest.importorskip("python_speech_features")
    wave = noise(3.1)[:samples]
    pcm = np.rint(wave.astype(np.float64) * 32768)
    expected = reference.mfcc(pcm, 16000).T
    made = syncnet_mfcc(wave)
    assert made.shape == expected.shape and made.dtype == np.float32
    np.testing.assert_allclose(made, expected, atol=2e-5)


def test_silence_has_finite_coefficients():
    assert np.isfinite(syncnet_mfcc(np.zeros(1600, np.float32))).all()


def test_the_sound_of_frame_v_begins_at_column_4v():
    mfcc = torch.arange(13 * 60).reshape(13, 60).float()
    windows = audio_windows(mfcc, 5)
    assert windows.shape == (5, 1, 13, 20)
    assert torch.equal(windows[3, 0], mfcc[:, 12:32])


# -- network ---------------------------------------------------------------------------------------


def test_the_official_network_has_its_size_and_names():
    network = SyncNet()
    assert sum(p.numel() for p in network.parameters()) == 13_631_616
    names = [name for name in network.state_dict() if not name.endswith("num_batches_tracked")]
    assert len(names) == 88
    shapes = {name: tuple(network.state_dict()[name].shape) for name in names}
    assert shapes["netcnnaud.18.weight"] == (512, 256, 5, 4)
    assert shapes["netcnnlip.0.weight"] == (96, 3, 5, 7, 7)
    assert shapes["netcnnlip.18.weight"] == (512, 256, 1, 6, 6)
    assert shapes["netfcaud.3.weight"] == shapes["netfclip.3.weight"] == (1024, 512)


def test_a_whole_track_gives_what_the_loop_over_windows_gives(small):
    frames = torch.rand(2, 3, 11, 96, 96) * 255
    with torch.no_grad():
        track = small.lip_track(frames)
        loop = torch.stack([small.forward_lip(frames[:, :, v : v + 5]) for v in range(7)], 1)
    assert track.shape == (2, 7, 64)
    torch.testing.assert_close(track, loop, atol=1e-5, rtol=1e-5)


@pytest.fixture
def official_file(tmp_path) -> Path:
    path = tmp_path / "syncnet_v2.model"
    state = SyncNet().state_dict()
    # As the published file: written before PyTorch counted batches.
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, path)
    return path


def test_an_official_file_loads_by_name_and_strictly(official_file):
    model = SyncNetModel(load_config("SyncNet", "Synthetic"))
    load_into(model, official_file)
    state = torch.load(official_file)
    torch.testing.assert_close(model.network.netfclip[3].bias, state["netfclip.3.bias"])
    del state["netcnnlip.4.weight"]
    torch.save(state, official_file)
    with pytest.raises(WeightsError, match="1 of 102 missing: netcnnlip.4"):
        load_into(model, official_file)


def test_a_network_for_too_small_pictures_is_refused():
    with pytest.raises(ValueError, match="too small"):
        SyncNet(0.1, 48)


# -- training --------------------------------------------------------------------------------------


def losses(kind: str, lips: torch.Tensor, sounds: torch.Tensor, **more) -> dict[str, float]:
    overrides = {f"loss.{key}": value for key, value in {"kind": kind, **more}.items()}
    cfg = load_config("SyncNet", "Synthetic", preset="tiny", overrides=overrides)
    made = SyncNetModel(cfg).calculate_loss({}, "main", {"lips": lips, "sounds": sounds})
    return {name: float(value) for name, value in made.items()}


def test_the_contrastive_loss_is_that_of_the_paper():
    rng = torch.Generator().manual_seed(1)
    lips, sounds = (torch.randn(2, 4, 3, generator=rng) for _ in range(2))
    right, wrong = [], []
    for item in range(2):
        for i in range(4):
            for j in range(4):
                d = float(torch.linalg.norm(lips[item, i] - sounds[item, j] + 1e-6))
                if i == j:
                    right.append(d**2)
                elif abs(i - j) >= 2:
                    wrong.append(max(3.0 - d, 0) ** 2)
    expected = (np.mean(right) + np.mean(wrong)) / 2
    made = losses("contrastive", lips, sounds, margin=3.0, min_shift=2)
    assert made["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["contrastive", "cosine", "matching"])
def test_every_objective_prefers_the_right_pairs(kind):
    points = torch.eye(12)[None] * 10
    good = losses(kind, points, points)
    bad = losses(kind, points, points.roll(3, dims=1))
    assert good["loss"] < bad["loss"]
    assert good["accuracy"] == 1.0 and bad["accuracy"] == 0.0
    assert good["right_distance"] < good["wrong_distance"]


def test_near_sounds_that_are_no_wrong_pair_do_not_count():
    points = torch.randn(1, 10, 8, generator=torch.Generator().manual_seed(2))
    assert losses("matching", points, points, min_shift=10)["loss"] == pytest.approx(0, abs=1e-6)


# -- score -----------------------------------------------------------------------------------------


def test_the_score_is_that_of_the_official_code():
    rng = np.random.default_rng(3)
    lips, sounds = rng.normal(size=(2, 40, 16)).astype(np.float32)
    padded = torch.nn.functional.pad(torch.from_numpy(sounds), (0, 0, 15, 15))
    table = torch.stack(
        [
            torch.nn.functional.pairwise_distance(
                torch.from_numpy(lips[[v]]).repeat(31, 1), padded[v : v + 31]
            )
            for v in range(40)
        ]
    )
    curve = table.mean(0)
    made = sync_score.score(lips, sounds)
    np.testing.assert_allclose(made.curve, curve.numpy(), rtol=1e-5)
    assert made.distance == pytest.approx(float(curve.min()), rel=1e-5)
    assert made.confidence == pytest.approx(float(curve.median() - curve.min()), rel=1e-4)
    assert made.offset == 15 - int(curve.argmin())


@pytest.mark.parametrize("shift", [-10, -1, 0, 4, 10])
@pytest.mark.parametrize("pad", ["zero", "valid"])
def test_a_known_shift_is_found_with_its_sign(shift, pad):
    """Sound that comes ``shift`` frames later than the picture is late: a negative offset."""
    points = np.random.default_rng(4).normal(size=(80, 16)) * 3
    lips = points[20:60]
    sounds = points[20 - shift : 60 - shift]
    assert sync_score.score(lips, sounds, pad=pad).offset == -shift


@pytest.mark.parametrize("size", [1, 7, 32])
def test_the_size_of_the_chunks_changes_nothing(small, monkeypatch, size):
    frames = np.random.default_rng(5).integers(0, 255, (45, 96, 96, 3), dtype=np.uint8)
    whole = sync_score.lip_features(small, frames)
    monkeypatch.setattr(sync_score, "_CHUNK", size)
    np.testing.assert_allclose(sync_score.lip_features(small, frames), whole, atol=1e-5)
    assert whole.shape == (41, 64)


@pytest.mark.parametrize("count", [0, 3, 4, 5, 6])
def test_short_clips_have_few_windows_or_none(small, count):
    frames = np.zeros((count, 96, 96, 3), np.uint8)
    assert len(sync_score.lip_features(small, frames)) == max(0, count - 4)
    # 0.2 s make 19 columns of MFCC, one too few for a window.
    assert len(sync_score.sound_features(small, noise(0.04 * count))) == max(0, count - 5)


def test_the_crop_is_that_of_the_official_pipeline():
    frame = np.zeros((300, 400, 3), np.uint8)
    frame[:, :, 0] = np.arange(400)[None] % 256
    frame[:, :, 1] = np.arange(300)[:, None] % 256
    # Half side 50: columns 200 -+ 70, rows 150 - 50 to 150 + 90.
    crop = syncnet_crop(frame, np.array([160, 100, 240, 200]), 140)
    np.testing.assert_array_equal(crop, frame[100:240, 130:270])
    outside = syncnet_crop(frame, np.array([-40, 100, 40, 200]), 140)
    assert (outside[:, :70] == 110).all() and not (outside[:, 71:] == 110).all()


# -- metric ----------------------------------------------------------------------------------------


def lse(root: Path, **params):
    cfg = load_config("SyncNet", "Synthetic")
    return build_metric(cfg.registry, "LSE", params, cfg)


def test_the_network_of_the_zoo_is_the_last_choice(root, talking_clip, official_file):
    metric = lse(root)
    assert metric.network_name.startswith("zoo/SyncNet:") and metric.missing() is None
    values = metric.finish(ClipPair("a", talking_clip, talking_clip))
    assert all(math.isfinite(v) for v in values.values())
    assert lse(root, weights="zoo").path == metric.path
    assert lse(root, weights=str(official_file)).network_name == "syncnet_v2.model"


def test_without_a_network_the_metric_says_how_to_get_one(root, talking_clip, monkeypatch):
    monkeypatch.setattr("talkingface.components.zoo.ZOO", root / "empty")
    metric = lse(root)
    with pytest.raises(WeightsError, match="checkpoints.*--model=SyncNet"):
        metric.start(ClipPair("a", talking_clip, talking_clip))
    assert "network=none" in metric.definition()


def test_the_metric_gives_numbers_and_names_its_network(root, talking_clip, official_file):
    metric = lse(root, weights=str(official_file))
    values = metric.finish(ClipPair("a", talking_clip, talking_clip))
    assert set(values) == {"LSE_D", "LSE_C", "AV_offset", "AV_offset_abs"}
    assert values["AV_offset_abs"] == abs(values["AV_offset"])
    assert all(math.isfinite(v) for v in values.values())
    assert "network=syncnet_v2.model" in metric.definition()
    again = lse(root, weights=str(official_file), crop="none")
    assert again.finish(ClipPair("a", talking_clip, talking_clip))["LSE_D"] != values["LSE_D"]


@pytest.mark.usefixtures("tracker")
def test_a_video_without_a_face_or_sound_has_a_reason(root, tmp_path, noise_video, official_file):
    faceless = noise_video(tmp_path / "noise.mp4")
    metric = lse(root, weights=str(official_file))
    assert math.isnan(metric.finish(ClipPair("a", faceless, faceless))["LSE_C"])
    assert "face" in metric.reasons["LSE_C"]
    silent = noise_video(tmp_path / "silent.mp4", sound=False)
    assert math.isnan(metric.finish(ClipPair("a", silent, silent))["LSE_C"])
    assert "sound" in metric.reasons["LSE_C"]


def test_missing_weights_are_named(root, talking_clip):
    metric = lse(root, weights="nowhere.pth")
    assert "nowhere.pth does not exist" in metric.missing()
    with pytest.raises(WeightsError, match="nowhere.pth does not exist"):
        metric.start(ClipPair("a", talking_clip, talking_clip))


def test_distances_are_those_of_the_score():
    a, b = torch.randn(1, 5, 8), torch.randn(1, 6, 8)
    expected = torch.nn.functional.pairwise_distance(a[0, 2:3], b[0, 4:5])
    torch.testing.assert_close(distances(a, b)[0, 2, 4], expected[0], rtol=1e-4, atol=1e-4)


def test_a_shorter_vocal_tract_moves_the_formants():
    """A wave played 1.1 times as fast has formants 1.1 times as high."""
    from scipy.signal import lfilter, resample_poly

    rng = np.random.default_rng(0)
    wave = rng.standard_normal(32000)
    for hertz in (700, 1200, 2600):  # resonances of a vowel
        pole = 0.97 * np.exp(2j * np.pi * hertz / 16000)
        wave = lfilter([1], [1, -2 * pole.real, abs(pole) ** 2], wave)
    wave *= 0.2 / np.abs(wave).max()
    slow, fast = (syncnet_mfcc(part).mean(1) for part in (wave, resample_poly(wave, 10, 11)))
    moved = warped_mfcc(syncnet_mfcc(wave), 1.1).mean(1)
    before, after = (np.abs(part - fast)[1:].mean() for part in (slow, moved))
    assert after < 0.5 * before, (before, after)
    np.testing.assert_allclose(warped_mfcc(syncnet_mfcc(wave), 1.0), syncnet_mfcc(wave), atol=1e-3)
