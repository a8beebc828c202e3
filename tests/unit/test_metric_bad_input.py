"""Every metric of videos on bad input: a finite value, or nan with a reason; never an exception."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from trainkit import hyperlips_config

from talkingface.data.media.audio import load_audio
from talkingface.data.media.reader import read_frames
from talkingface.data.media.writer import VideoWriter
from talkingface.evaluator.clip import ClipPair
from talkingface.evaluator.evaluator import Evaluator, RowResult
from talkingface.evaluator.metrics import perceptual
from talkingface.model.audio_driven_talkingface.syncnet.syncnet_networks import SyncNet
from talkingface.model.losses.perceptual import LPIPS_TAPS
from talkingface.registry import get_registry
from talkingface.utils.hashes import sha256_of

# All that look at videos; the others need arrays of motion.
VIDEO_METRICS = [
    name
    for name, entry in sorted(get_registry().entries("metric").items())
    if "motion" not in (entry.meta.get("inputs") or [])
]
# What a metric measures on the face of the generated or the real video; without one it is nan.
FACE_ONLY = {
    "BeatAlign", "CSIM", "CSIM_real", "Div_H", "Div_E", "Div_M", "FLMD", "FLMD_norm", "FLMD_v",
    "FLMD_v_norm", "LMD", "LMD_norm", "LMD_v", "LMD_v_norm", "LSE_D", "LSE_C", "AV_offset", "MA",
    "AV_offset_abs",
    "MA_inner", "PSNR_face", "PSNR_mouth", "SSIM_face", "SSIM_mouth", "flicker", "blink_rate",
    "blink_dur", "speed", "jitter", "jerk", "head_jitter", "lip_jitter", "speed_norm",
    "jitter_norm", "jerk_norm", "head_jitter_norm", "lip_jitter_norm", "jitter_ratio",
    "head_jitter_ratio", "lip_jitter_ratio", "pose_std_yaw", "pose_std_pitch", "pose_std_roll",
    "pose_std_shift", "Div_pose", "ARD",
}  # fmt: skip
NEED_WEIGHTS = ("CSIM", "FID", "LPIPS", "LSE", "NIQE")
NEED_SOUND = {"BeatAlign", "LSE_D", "LSE_C", "AV_offset", "AV_offset_abs"}
FRAMES, SIDE = 25, 144
Change = Callable[[list[np.ndarray]], list[np.ndarray]]


def same(frames: list[np.ndarray]) -> list[np.ndarray]:
    return frames


def without_faces(share: float) -> Change:
    """Grey frames at the end instead of so many of the pictures."""

    def change(frames: list[np.ndarray]) -> list[np.ndarray]:
        kept = round(len(frames) * (1 - share))
        return frames[:kept] + [np.full_like(f, 128) for f in frames[kept:]]

    return change


def two_faces(left: float, right: float) -> Change:
    """The face and its mirror image beside it, each on a picture of its own size."""

    def one(frame: np.ndarray) -> np.ndarray:
        parts = []
        for picture, share in ((frame, left), (frame[:, ::-1], right)):
            side = round(SIDE * share)
            small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
            gap = SIDE - side
            parts.append(cv2.copyMakeBorder(small, 0, gap, 0, gap, cv2.BORDER_REPLICATE))
        return np.concatenate(parts, axis=1)

    return lambda frames: [one(frame) for frame in frames]


def sized(width: int, height: int) -> Change:
    return lambda frames: [
        cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames
    ]


def grey(frames: list[np.ndarray]) -> list[np.ndarray]:
    return [np.repeat(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2) for f in frames]


def at_30(frames: list[np.ndarray]) -> list[np.ndarray]:
    count = len(frames) * 6 // 5
    return [frames[round(i * 25 / 30)] for i in range(count) if round(i * 25 / 30) < len(frames)]


@dataclass(frozen=True)
class Case:
    """How the real and the generated video come from the talking clip.

    Attributes:
        sound: ``speech``, ``silence`` or ``none``, of both videos.
        weights: whether the networks' files are there.
    """

    real: Change = same
    generated: Change | None = None  # None: the change of the real one
    fps: float = 25
    sound: str = "speech"
    weights: bool = True


CASES = {
    "good": Case(),
    "face missing in 40 % of the real frames": Case(without_faces(0.4), same),
    "face missing in 40 % of the generated frames": Case(same, without_faces(0.4)),
    "face missing in 80 % of both": Case(without_faces(0.8)),
    "no face": Case(without_faces(1)),
    "no face in the generated video": Case(same, without_faces(1)),
    "two faces": Case(two_faces(1, 0.9), two_faces(0.9, 1)),
    "grey": Case(grey),
    "odd size": Case(sized(97, 131)),
    "silent sound": Case(sound="silence"),
    "no sound": Case(sound="none"),
    "one frame": Case(lambda frames: frames[:1]),
    "more than 10 % shorter": Case(same, lambda frames: frames[:-5]),
    "2 frames shorter": Case(same, lambda frames: frames[:-2]),
    "another size": Case(same, sized(96, 96)),
    "another rate": Case(same, at_30, fps=30),
    "missing weights": Case(weights=False),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, dict[str, object]]:
    """Settings of the metrics that need files, with small networks of random weights."""
    from torchvision import models

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    example = torch.zeros(1, 3, 112, 112)
    torch.jit.trace(nn.Sequential(nn.AvgPool2d(14), nn.Flatten()), example).save(
        str(folder / "face.pt")
    )
    backbone = models.alexnet(weights=None)
    torch.save(backbone.state_dict(), folder / "alex.pth")
    layers = [backbone.features[i - 1].out_channels for i in LPIPS_TAPS["alex"]]
    heads = {f"lin{i}.model.1.weight": torch.rand(1, n, 1, 1) for i, n in enumerate(layers)}
    torch.save(heads, folder / "heads.pth")
    torch.save(SyncNet().state_dict(), folder / "syncnet_v2.model")
    rng = np.random.default_rng(0)
    np.savez(
        folder / "niqe.npz",
        mu_pris_param=rng.uniform(0, 1, (1, 36)),
        cov_pris_param=np.eye(36),
    )
    return {
        "CSIM": {"weights": str(folder / "face.pt")},
        "LPIPS": {"weights": str(folder / "alex.pth"), "heads": str(folder / "heads.pth")},
        "LSE": {"weights": str(folder / "syncnet_v2.model")},
        "NIQE": {"params": str(folder / "niqe.npz")},
    }


@pytest.fixture(scope="module")
def frames(talking_clip) -> list[np.ndarray]:
    first = islice(read_frames(talking_clip, fps=25), FRAMES)
    return [cv2.resize(f, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for f in first]


def write(path: Path, frames: list[np.ndarray], fps: float, sound: np.ndarray | None) -> Path:
    audio = None if sound is None else (sound[: round(len(frames) / fps * 16000)], 16000)
    with VideoWriter(path, fps, audio=audio, crf=10) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@pytest.fixture(scope="module")
def result(talking_clip, frames, weights, tmp_path_factory) -> Callable[[str], tuple]:
    """``result("no face")`` -> row and evaluator; each case is scored once by all metrics."""
    speech = load_audio(talking_clip, 16000)
    sounds = {"speech": speech, "silence": np.zeros_like(speech), "none": None}
    # 16 features instead of 2048, of which eigenvalues take seconds.
    features = lambda x: nn.functional.adaptive_avg_pool2d(x[:, 1:2], 4).flatten(1)  # noqa: E731

    @cache
    def score(name: str) -> tuple[RowResult, Evaluator]:
        case, folder = CASES[name], tmp_path_factory.mktemp("case")
        cfg = hyperlips_config(
            metric_params=weights if case.weights else {},
            trust_checkpoint=sha256_of(Path(weights["CSIM"]["weights"])),
            weights_dir=str(folder),
            checkpoint_dir=str(folder),
        )
        sound = sounds[case.sound]
        real = write(folder / "real.mp4", case.real(frames), 25, sound)
        blurred = [cv2.GaussianBlur(frame, (0, 0), 1) for frame in frames]
        made = (case.generated or case.real)(blurred)
        generated = write(folder / "generated.mp4", made, case.fps, sound)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(perceptual, "FEATURES", 16)
            patch.setenv("TORCH_HOME", str(folder))
            evaluator = Evaluator(cfg, VIDEO_METRICS)
            if case.weights:
                fid = next(metric for metric in evaluator.metrics if metric.name == "FID")
                fid.missing, fid._network = lambda: None, features
            row = RowResult("row")
            evaluator.score_clip(ClipPair("clip", generated, real, samples=(real,)), row)
            evaluator.finish_row(row)
        return row, evaluator

    return score


def values_of(result, case: str, metric: str) -> tuple[dict[str, float], RowResult]:
    """Values of a metric in a case, pooled ones too."""
    row, evaluator = result(case)
    keys = next(m.outputs for m in evaluator.metrics if m.name == metric)
    return {key: row.pooled.get(key, row.values["clip"][key]) for key in keys}, row


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "metric",
    # The libraries of BeatAlign take a quarter of a minute to start.
    [pytest.param(m, marks=pytest.mark.slow) if m == "BeatAlign" else m for m in VIDEO_METRICS],
)
def test_bad_input_gives_values_or_reasons(result, metric, case):
    values, row = values_of(result, case, metric)
    assert values
    for key, value in values.items():
        assert type(value) is float and not math.isinf(value), key
        reason = row.reasons.get(("clip", key), row.reasons.get(("", key), ""))
        if math.isnan(value):
            assert reason, f"{key} is nan without a reason"
            assert "Error:" not in reason and "rror" not in reason.split(":")[0], (key, reason)
        else:
            assert not reason, f"{key} has a value and the reason {reason}"


@pytest.mark.parametrize("case", [c for c in CASES if "no face" in c or "80 %" in c])
def test_without_a_face_nothing_that_needs_one_has_a_number(result, case):
    row, _ = result(case)
    of_the_real_face = {"PSNR_face", "PSNR_mouth", "SSIM_face", "SSIM_mouth", "flicker"}
    lost = FACE_ONLY - (of_the_real_face if "generated" in case else set())
    values = row.values["clip"]
    assert {key for key in lost if math.isfinite(values[key])} == set()
    assert {k for k in lost if "face" not in row.reasons["clip", k]} == set()
    assert all(math.isfinite(values[key]) for key in ("PSNR", "SSIM", "LPIPS", "TCM"))


@pytest.mark.parametrize("case", [c for c in CASES if "40 %" in c])
def test_frames_without_a_face_are_left_out_not_counted_as_something(result, case, frames):
    """The other frames alone, 15 of 25, give about the same."""
    row, _ = result(case)
    good, _ = result("good")
    for key in ("LMD", "LMD_norm", "FLMD", "MA", "LMD_v", "ARD"):
        here, there = row.values["clip"][key], good.values["clip"][key]
        assert here == pytest.approx(there, rel=0.6, abs=0.02), key
    assert "LMD: faces in 60% of the frames" in row.notes["clip"]


def test_two_persons_are_not_mixed_up(result):
    """The larger face of the one video is the smaller one of the other."""
    row, _ = result("two faces")
    assert any("2 faces in the real video" in note for note in row.notes["clip"])
    # Of different persons the whole width of a picture, 144 px, would lie between.
    assert row.values["clip"]["LMD"] < 5 and row.values["clip"]["ARD"] < 15
    assert "2 faces" not in "".join(result("good")[0].notes["clip"])


@pytest.mark.parametrize("case", ["silent sound", "no sound"])
def test_without_a_sound_only_what_listens_is_lost(result, case):
    row, _ = result(case)
    good, _ = result("good")
    lost = {k for k, v in row.values["clip"].items() if math.isnan(v)}
    before = {k for k, v in good.values["clip"].items() if math.isnan(v)}
    only_of_silence = {"LipLeak", "LipLeak_input"}
    assert lost == (before | NEED_SOUND) - (only_of_silence if case == "silent sound" else set())


def test_only_metrics_of_networks_are_lost_without_weights(result):
    row, evaluator = result("missing weights")
    for metric in evaluator.metrics:
        for key in metric.outputs:
            if metric.name in NEED_WEIGHTS and metric.name != "LSE":  # the zoo has one
                assert math.isnan(row.values["clip"][key])
                assert "checkpoints" in row.reasons["clip", key], key
    values = row.values["clip"]
    assert all(math.isfinite(values[k]) for k in ("LMD", "PSNR_face", "TCM", "jitter", "ARD"))


def test_one_frame_has_no_motion(result):
    row, _ = result("one frame")
    moving = ("LMD_v", "FLMD_v", "speed", "jitter", "TCM", "BeatAlign", "LSE_D", "Div_pose")
    for key in (*moving, "Div_H", "Div_M", "blink_rate", "E_ratio", "flicker"):
        assert math.isnan(row.values["clip"][key]), key
    assert all(math.isfinite(row.values["clip"][key]) for key in ("LMD", "PSNR", "MA", "ARD"))


def test_lengths_that_differ_too_much_are_the_reason_everywhere(result):
    row, _ = result("more than 10 % shorter")
    assert {key for key, value in row.values["clip"].items() if math.isfinite(value)} == set()
    assert all("20 frames and the real one 25" in reason for reason in row.reasons.values())


def test_what_was_adjusted_is_noted(result):
    for case, words in (
        ("another size", "resized to 144x144"),
        ("another rate", "frame rates 30.000 (generated) and 25.000 (real)"),
    ):
        assert any(words in note for note in result(case)[0].notes["clip"]), case
        assert result(case)[0].values["clip"]["PSNR"] > 20, case
