"""Measures of clips against known answers, the limits, and what ``quality.drop`` leaves out."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from preparekit import config, list_clips, prepare
from scipy.signal import butter, sosfilt

from talkingface.config.schema import QualitySection
from talkingface.data.dataprocess.face_crops import FaceCropProcess
from talkingface.data.dataset.hyperlips.hyperlipsbase_dataset import HyperLipsBaseDataset
from talkingface.data.face.topology import CHIN, FOREHEAD, NOSE_TIP
from talkingface.data.face.tracking import track_face
from talkingface.data.filelists import read_filelist
from talkingface.data.media.audio import load_audio
from talkingface.data.quality import (
    RATE,
    av_offset,
    measure,
    mouth_opening,
    speech_frames,
    violations,
)
from talkingface.errors import ConfigError, StageError
from talkingface.quick_start.evaluation import usable_clips

LIMITS = QualitySection()
FPS = 25


# -- sound against picture, made up ----------------------------------------------------------------


def talk(
    early_ms: float = 0, seconds: float = 6, fps: float = FPS, seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks of a mouth that opens for each syllable, and noise of the vowel band with it.

    Args:
        early_ms: by how much every burst of noise precedes its opening.
    """
    rng = np.random.default_rng(seed)
    syllables = np.cumsum(rng.uniform(0.22, 0.5, 40)) + 0.2
    syllables = syllables[syllables < seconds - 0.4]

    def openness(times: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * ((times[:, None] - syllables) / 0.06) ** 2).sum(axis=1)

    opened = openness((np.arange(round(seconds * fps)) + 0.5) / fps)
    marks = np.zeros((len(opened), 478, 3), np.float32)
    for index, height in ((FOREHEAD, 0), (NOSE_TIP, 60), (0, 85), (17, 95), (CHIN, 120)):
        marks[:, index, 1] = height + {17: 10, CHIN: 6}.get(index, 0) * opened
    times = np.arange(round(seconds * RATE)) / RATE
    band = butter(4, (500, 1200), btype="bandpass", fs=RATE, output="sos")
    voice = sosfilt(band, rng.normal(0, 0.2, len(times))) * openness(times + early_ms / 1000)
    return marks, (voice + rng.normal(0, 0.001, len(times))).astype(np.float32)


@pytest.mark.parametrize("early_ms", [-200, -120, -40, 0, 40, 120, 200])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_known_shift_of_the_sound_is_found_with_its_sign(early_ms, seed):
    offset, confidence = av_offset(*talk(early_ms, seed=seed), FPS)
    assert offset == pytest.approx(early_ms, abs=10)
    assert confidence > 0.5


def test_the_offset_does_not_depend_on_the_frame_rate():
    assert av_offset(*talk(120, fps=30), 30)[0] == pytest.approx(120, abs=10)


def test_a_part_without_a_face_does_not_disturb_the_estimate():
    marks, wave = talk(-80)
    marks[40:70] = np.nan
    offset, confidence = av_offset(marks, wave, FPS)
    assert offset == pytest.approx(-80, abs=20) and confidence > 0.4


def test_longer_clips_are_surer():
    confidences = [av_offset(*talk(seconds=seconds), FPS)[1] for seconds in (2, 6, 14)]
    assert confidences == sorted(confidences) and confidences[-1] > 1.5 * confidences[0]


def no_sound(marks, wave):
    return marks, np.zeros_like(wave)


def no_face(marks, wave):
    return np.full_like(marks, np.nan), wave


def still_mouth(marks, wave):
    return np.repeat(marks[:1], len(marks), axis=0), wave


def few_frames(marks, wave):
    return marks[:21], wave


def little_sound(marks, wave):
    return marks, wave[: round(0.85 * RATE)]


def hardly_a_face(marks, wave):
    marks[14:] = np.nan
    return marks, wave


@pytest.mark.parametrize(
    "change", [no_sound, no_face, still_mouth, few_frames, little_sound, hardly_a_face]
)
def test_without_enough_to_compare_nothing_is_said(change):
    offset, confidence = av_offset(*change(*talk()), FPS)
    assert math.isnan(offset) and confidence == 0


def white_noise(n, seed):
    return np.random.default_rng(seed).normal(0, 0.1, n)


def steady_tone(n, seed):
    return 0.1 * np.sin(2 * np.pi * (400 + 200 * seed) * np.arange(n) / RATE)


@pytest.mark.parametrize("make", [white_noise, steady_tone])
@pytest.mark.parametrize("seed", range(4))
def test_a_steady_sound_gives_no_estimate_that_would_be_judged(make, seed):
    marks, wave = talk()
    offset, confidence = av_offset(marks, make(len(wave), seed).astype(np.float32), FPS)
    assert confidence < 0.7 * LIMITS.min_av_confidence
    measures = {"av_offset_ms": None if math.isnan(offset) else 500, "av_confidence": confidence}
    assert violations(measures, LIMITS) == {}


@pytest.mark.parametrize("early_ms", [-660, -640, 640, 660])
def test_a_shift_just_outside_the_search_is_not_taken_for_one_inside(early_ms):
    offset, confidence = av_offset(*talk(early_ms), FPS)
    assert math.isnan(offset) and confidence == 0


def test_lip_height_is_measured_in_shares_of_the_face():
    marks, _ = talk()
    small = marks.copy()
    small[..., :2] *= 0.3
    small[5] = np.nan
    opening = mouth_opening(marks)
    assert opening.min() == pytest.approx(10 / 120, abs=0.002)
    np.testing.assert_allclose(np.delete(mouth_opening(small), 5), np.delete(opening, 5), rtol=0.01)
    assert np.isnan(mouth_opening(small)[5])


# -- speech ----------------------------------------------------------------------------------------


def bursts(on: float, off: float, count: int = 8, hiss: float = 0.0005) -> np.ndarray:
    tone = 0.3 * np.sin(2 * np.pi * 300 * np.arange(round(on * RATE)) / RATE)
    wave = np.tile(np.concatenate([tone, np.zeros(round(off * RATE))]), count)
    return wave + np.random.default_rng(0).normal(0, hiss, len(wave))


@pytest.mark.parametrize("on, off", [(0.5, 0.5), (1.0, 0.5), (0.5, 2.0), (0.3, 0.6), (2.0, 1.0)])
def test_bursts_are_heard_as_long_as_they_last(on, off):
    found = speech_frames(bursts(on, off)).mean()
    # The level is smoothed over a few hundredths of a second, which lengthens every burst.
    assert on / (on + off) <= found <= (on + 0.14) / (on + off)


def test_the_frames_of_a_burst_are_the_right_ones():
    found = speech_frames(bursts(0.5, 0.5, count=4))
    for start in range(0, 400, 100):
        assert found[start : start + 50].all()
        assert not found[start + 60 : start + 90].any()


@pytest.mark.parametrize("loudness", [1e-5, 0.01, 0.3])
def test_steady_noise_of_any_loudness_is_no_speech(loudness):
    noise = np.random.default_rng(1).normal(0, loudness, 3 * RATE)
    assert speech_frames(noise).mean() < 0.01


def test_speech_is_found_in_noise_and_at_low_level():
    assert speech_frames(bursts(0.5, 0.5, hiss=0.01)).mean() == pytest.approx(0.55, abs=0.07)
    assert speech_frames(0.02 * bursts(0.5, 0.5)).mean() == pytest.approx(0.55, abs=0.07)


@pytest.mark.parametrize("samples", [0, 100, 160, 16000])
def test_silence_is_no_speech(samples):
    assert speech_frames(np.zeros(samples)).sum() == 0
    assert len(speech_frames(np.zeros(samples))) == samples // 160


# -- real clips ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured() -> Callable[[Path], dict]:
    """Measures of a file, taken once; faces stay cached for the runs below."""
    pytest.importorskip("mediapipe")
    options = config(Path("x"), Path("x")).face
    known: dict[Path, dict] = {}

    def take(path: Path) -> dict:
        if path not in known:
            track = track_face(path, fps=FPS, options=options)
            known[path] = measure(track, load_audio(path, rate=RATE), FPS)
        return known[path]

    return take


@pytest.mark.parametrize(
    "name, expected",
    [
        ("av_offset_audio_early_200ms.mp4", 200),
        ("av_offset_audio_late_200ms.mp4", -200),
        ("av_offset_audio_late_400ms_start_time.mp4", -376),  # the file only says so
    ],
)
def test_shifted_sound_is_found_in_real_clips(hard_cases, measured, name, expected):
    measures = measured(hard_cases / name)
    assert measures["av_offset_ms"] == pytest.approx(expected, abs=60)
    side = "early" if expected > 0 else "late"
    assert side in violations(measures, LIMITS)["max_av_offset_ms"]


def test_a_frozen_picture_breaks_all_limits_of_motion(hard_cases, measured):
    measures = measured(hard_cases / "frozen_face_with_speech.mp4")
    assert measures["longest_still_s"] > 2.8 and measures["repeated"] > 0.95
    assert measures["speech_ratio"] > 0.4
    broken = violations(measures, LIMITS)
    assert set(broken) == {"max_still_seconds", "max_repeated", "min_mouth_motion"}
    assert broken["max_still_seconds"] == "frozen picture for 2.9 s"


def test_a_silent_track_is_measured_as_such(hard_cases, measured):
    measures = measured(hard_cases / "silent_audio_track.mp4")
    assert measures["speech_ratio"] == 0 and measures["loudness_db"] == -100
    assert measures["av_offset_ms"] is None and measures["av_confidence"] == 0
    assert set(violations(measures, LIMITS)) == {"min_speech_ratio", "min_loudness_db"}


LENGTH = "max_length_difference", "sound_minus_picture_s"


@pytest.mark.parametrize(
    "name, key, figure, low, high",
    [
        ("mouth_occluded_1s_2s.mp4", "max_mouth_hidden", "mouth_hidden", 0.2, 0.36),
        ("two_faces_left_speaks.mp4", "max_persons", "persons", 2, 2),
        pytest.param(
            *("two_faces_split_screen.mp4", "max_persons", "persons", 2, 2), marks=pytest.mark.slow
        ),
        ("tiny_face_80x64.mp4", "min_face_height", "face_height", 25, 35),
        ("variable_fps.mp4", "max_repeated", "repeated", 0.3, 0.4),  # 49 of 75 frames are new
        ("cutaway_without_face_3s_5s.mp4", "max_gap_seconds", "longest_gap_s", 1.9, 2.1),
        ("cutaway_without_face_3s_5s.mp4", "max_cuts", "cuts", 2, 3),
        (
            "audio_shorter_than_video.mp4",
            "max_length_difference",
            "sound_minus_picture_s",
            -1.3,
            -1,
        ),
        ("audio_longer_than_video.mp4", "max_length_difference", "sound_minus_picture_s", 1.9, 2.1),
    ],
)
def test_what_was_done_to_a_clip_is_found(hard_cases, measured, name, key, figure, low, high):
    measures = measured(hard_cases / name)
    assert low <= measures[figure] <= high
    assert key in violations(measures, LIMITS)


GOOD = (
    *(
        f"s1/{name}.mp4"
        for name in "bbaf2n bgan5s lbwy6n lray7a pbav3s prap6p sban2n srah5s".split()
    ),
    *("s30/bwwy5n.mpg", "s33/bwwy3s.mpg", "unk_bbab8n/bbab8n.mpg", "s2/pwij3p.mpg"),
)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_clip_breaks_no_limit(shared, measured, name):
    measures = measured(shared / "real" / "grid" / name)
    assert set(violations(measures, LIMITS)) <= {"max_av_offset_ms"}
    assert measures["face_ratio"] == 1 and measures["persons"] == 1
    assert all(value is None or isinstance(value, (int, float)) for value in measures.values())


def test_most_good_clips_are_found_in_sync(shared, measured):
    found = [measured(shared / "real" / "grid" / name) for name in GOOD]
    sure = [m["av_offset_ms"] for m in found if m["av_confidence"] >= LIMITS.min_av_confidence]
    assert len(sure) >= 4
    assert np.median(np.abs(sure)) < 60 and np.sum(np.abs(sure) > 120) <= 1


# -- limits ----------------------------------------------------------------------------------------

FINE = {
    "face_ratio": 1.0,
    "longest_gap_s": 0.0,
    "cuts": 0,
    "persons": 1,
    "face_height": 130.0,
    "sharpness": 80.0,
    **{"yaw_min": -5.0, "yaw_max": 5.0, "pitch_min": -5.0, "pitch_max": 5.0},
    "mouth_motion": 2.0,
    "mouth_hidden": 0.0,
    "repeated": 0.01,
    "longest_still_s": 0.04,
    "speech_ratio": 0.7,
    "clipped": 0.0,
    "sound_minus_picture_s": -0.02,
    "av_offset_ms": 20.0,
    "av_confidence": 0.6,
}
BREACHES = [
    ("max_av_offset_ms", {"av_offset_ms": 300.0}, "sound 300 ms early"),
    ("max_av_offset_ms", {"av_offset_ms": -121.0}, "sound 121 ms late"),
    ("min_face_height", {"face_height": 49.0}, "face only 49 px high"),
    ("min_sharpness", {"sharpness": 19.0}, "blurred (sharpness 19)"),
    ("max_yaw", {"yaw_min": -51.0}, "head turned by -51 degrees"),
    ("max_yaw", {"yaw_max": 70.0, "yaw_min": -60.0}, "head turned by 70 degrees"),
    ("max_pitch", {"pitch_max": 41.0}, "head nods by 41 degrees"),
    ("min_mouth_motion", {"mouth_motion": 0.5}, "the mouth hardly moves (0.50 %)"),
    ("max_mouth_hidden", {"mouth_hidden": 0.25}, "mouth covered in 25% of the frames"),
    ("max_repeated", {"repeated": 0.5}, "50% repeated pictures"),
    ("max_still_seconds", {"longest_still_s": 1.5}, "frozen picture for 1.5 s"),
    ("max_gap_seconds", {"longest_gap_s": 2.0}, "no face for 2.0 s"),
    ("max_cuts", {"cuts": 2}, "2 scene cut(s)"),
    ("max_persons", {"persons": 3}, "3 persons in view"),
    ("min_speech_ratio", {"speech_ratio": 0.1}, "only 10% of the time is speech"),
    ("min_loudness_db", {"loudness_db": -61.0}, "almost silent (-61 dB)"),
    ("min_bandwidth_hz", {"bandwidth_hz": 3875.0}, "no frequencies above 3875 Hz"),
    ("max_clipped", {"clipped": 0.02}, "sound overdriven in 2.0% of the samples"),
    (
        *("max_length_difference", {"sound_minus_picture_s": -0.75}),
        "sound and picture differ in length by -0.75 s",
    ),
]


def test_a_good_clip_breaks_nothing_and_nothing_is_needed():
    assert violations(FINE, LIMITS) == {}
    assert violations({}, LIMITS) == {}
    assert violations(dict.fromkeys(FINE), LIMITS) == {}  # nothing could be measured


@pytest.mark.parametrize("key, change, text", BREACHES)
def test_a_broken_limit_is_named_with_what_was_measured(key, change, text):
    assert violations({**FINE, **change}, LIMITS) == {key: text}


@pytest.mark.parametrize("key, change", [breach[:2] for breach in BREACHES])
def test_null_switches_a_limit_off(key, change):
    assert violations({**FINE, **change}, QualitySection(**{key: None})) == {}


def test_every_limit_can_be_broken():
    keys = {key for key in QualitySection.model_fields if key[:4] in ("max_", "min_")}
    assert {key for key, _, _ in BREACHES} == keys - {"min_av_confidence"}


def test_a_value_at_the_limit_is_good():
    at = {"cuts": 0, "persons": 1, "clipped": 0.01, "face_height": 50.0, "av_offset_ms": -120.0}
    assert violations({**FINE, **at, "yaw_min": -50.0}, LIMITS) == {}


def test_an_unsure_offset_is_not_judged():
    unsure = {**FINE, "av_offset_ms": 300.0, "av_confidence": 0.14}
    assert violations(unsure, LIMITS) == {}
    assert set(violations(unsure, QualitySection(min_av_confidence=0.1))) == {"max_av_offset_ms"}
    assert violations({**unsure, "av_confidence": None}, LIMITS) == {}


@pytest.mark.parametrize("drop", ["max_cut", "cuts", "min_av_confidence", "max_cuts,nothing"])
def test_an_unknown_limit_to_drop_by_is_a_config_error_that_names_the_known(drop):
    with pytest.raises(ConfigError, match="is not a limit; known: max_av_offset_ms, .*max_cuts"):
        config(Path("x"), Path("x"), **{"quality.drop": drop})


def test_drop_takes_a_list_a_line_or_all():
    def drop(value):
        return config(Path("x"), Path("x"), **{"quality.drop": value}).quality.drop

    assert drop("max_cuts, max_yaw") == drop(["max_cuts", "max_yaw"]) == ["max_cuts", "max_yaw"]
    assert drop([]) == []
    assert set(drop("all")) == {key for key, _, _ in BREACHES}


# -- quality.drop ----------------------------------------------------------------------------------

FROZEN = "frozen_face_with_speech"
DROP = {"quality.drop": ["max_still_seconds"]}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, shared, hard_cases, measured) -> Path:
    """A dataset of three good clips and a frozen one, without lists."""
    root = tmp_path_factory.mktemp("mixed")
    (root / "data").mkdir()
    shutil.copy(hard_cases / f"{FROZEN}.mp4", root / "data")
    for name in GOOD[:3]:
        measured(shared / "real" / "grid" / name)
        shutil.copy(shared / "real" / "grid" / name, root / "data")
    prepare(root, root / "data")
    shutil.rmtree(root / "filelist")
    return root


@pytest.fixture
def dataset(tmp_path, mixed) -> Path:
    return Path(shutil.copytree(mixed, tmp_path / "mixed"))


def listed(root: Path) -> list[str]:
    paths = sorted((root / "filelist").glob("*.txt"))
    return sorted(name for path in paths for name in read_filelist(path))


def test_a_clip_outside_a_limit_is_kept_and_listed_by_default(dataset):
    report = prepare(dataset, dataset / "data")
    assert report.fresh == 0 and report.dropped == set() and set(report.flags) >= {FROZEN}
    assert FROZEN in listed(dataset) and len(listed(dataset)) == 4


def test_dropped_clips_are_in_no_list_but_in_the_report(dataset):
    report = prepare(dataset, dataset / "data", **DROP)
    assert report.fresh == 0 and report.dropped == {FROZEN}
    assert len(listed(dataset)) == 3 and FROZEN not in listed(dataset)
    assert f"outside quality.max_still_seconds: 1 ({FROZEN}: frozen picture" in report.describe()
    assert "1 left out (quality.drop)" in report.describe()


def test_dropped_clips_are_not_trained_on_and_the_reason_is_known(dataset):
    list_clips(dataset, FROZEN, "bbaf2n", "bgan5s")
    everything = HyperLipsBaseDataset(config(dataset, dataset / "data"), "train")
    assert [clip.id for clip in everything.clips] == [FROZEN, "bbaf2n", "bgan5s"]
    some = HyperLipsBaseDataset(config(dataset, dataset / "data", **DROP), "train")
    assert [clip.id for clip in some.clips] == ["bbaf2n", "bgan5s"]
    assert some.unusable == {FROZEN: "left out by quality.drop: frozen picture for 2.9 s"}
    assert some.summary()["unusable"] == 1


def test_dropped_clips_are_not_tested_and_it_is_said(dataset, caplog, monkeypatch):
    list_clips(dataset, FROZEN, "bbaf2n")  # the test split is the first of these
    monkeypatch.setattr(logging.getLogger("talkingface"), "propagate", True)
    cfg = config(dataset, dataset / "data")
    assert [clip.id for clip in usable_clips(cfg, "test")] == [FROZEN]
    assert "left out" not in caplog.text
    cfg = config(dataset, dataset / "data", **DROP)
    assert usable_clips(cfg, "test") == []
    assert "1 clip(s) of the test split are unusable and left out" in caplog.text
    assert f"{FROZEN}: left out by quality.drop: frozen picture for 2.9 s" in caplog.text


def test_select_names_every_broken_limit_that_drops_a_clip(dataset):
    process = FaceCropProcess(config(dataset, dataset / "data", **{"quality.drop": "all"}))
    good, bad = process.prepared.select(["bgan5s", FROZEN, "no such clip"])
    assert good == ["bgan5s"]
    assert set(bad) == {FROZEN, "no such clip"} and bad["no such clip"] == "not prepared"
    assert all(text in bad[FROZEN] for text in ("hardly moves", "repeated pictures", "frozen"))


def test_clips_of_other_settings_are_not_trained_on_but_may_be_tested(dataset):
    smaller = {"data.max_crop": 64}
    process = FaceCropProcess(config(dataset, dataset / "data", **smaller))
    assert process.prepared.select(["bgan5s"])[0] == []
    assert "prepared with other settings" in process.prepared.select(["bgan5s"])[1]["bgan5s"]
    assert process.prepared.select(["bgan5s"], any_settings=True) == (["bgan5s"], {})


def test_dropping_all_clips_is_an_error_that_says_so(dataset):
    too_high = {"quality.min_sharpness": 10**6, "quality.drop": "min_sharpness"}
    with pytest.raises(StageError, match="quality.drop leaves out all usable clips") as error:
        prepare(dataset, dataset / "data", **too_high)
    assert "outside quality.min_sharpness: 4" in str(error.value)
    assert listed(dataset) == []
