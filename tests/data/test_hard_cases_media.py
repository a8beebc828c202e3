"""The awkward files of the shared data: a right result or a message, never a stack trace."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from talkingface.data.media.audio import load_audio
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import count_frames, read_frames
from talkingface.errors import DataError

av = pytest.importorskip("av")
SHARED = Path(os.environ.get("TALKINGFACE_SHARED", Path(__file__).parents[2].parent / "shared"))
HARD = SHARED / "data" / "hard_cases"
GRID = SHARED / "data" / "real" / "grid"
pytestmark = pytest.mark.skipif(not HARD.is_dir(), reason=f"no hard cases in {HARD}")

# file: (frames as stored, frames at 25 per second, seconds of sound or None)
GOOD = {
    "audio_5_1.mp4": (75, 75, 2.98),
    "audio_first_stream_8khz.mp4": (75, 75, 2.98),
    "audio_longer_than_video.mp4": (75, 75, 4.98),
    "audio_shorter_than_video.mp4": (75, 75, 1.8),
    "av_offset_audio_late_400ms_start_time.mp4": (75, 75, 3.38),
    "fps23976.mp4": (72, 75, 2.98),
    "fps60_duplicated.mp4": (180, 75, 2.98),
    "frozen_face_with_speech.mp4": (74, 74, 2.96),
    "grayscale.mp4": (75, 75, 2.98),
    "grid_first_12_frames_garbage.mpg": (75, 75, 2.98),
    "grid_first_12_frames_garbage_b.mpg": (75, 75, 2.98),
    "hevc_10bit.mp4": (75, 75, 3.0),
    "name with spaces, #hash & 中文.mp4": (75, 75, 2.98),
    "no_audio_track.mp4": (100, 100, None),
    "odd_size_351x287.mkv": (75, 75, 2.98),
    "one_frame.mp4": (1, 1, None),
    "partial_file_fewer_frames_than_header.mp4": (110, 111, 4.4),
    "rotated_metadata_90.mp4": (75, 75, 3.0),
    "scene_cuts_face_often_absent.mp4": (275, 229, 9.15),
    "silent_audio_track.mp4": (75, 75, 2.98),
    "tiny_face_80x64.mp4": (75, 75, 2.98),
    "truncated.mpg": (41, 41, 1.52),
    "truncated_faststart.mp4": (37, 37, 1.49),
    "two_audio_tracks.mp4": (75, 75, 2.98),
    "variable_fps.mp4": (49, 75, 2.98),
    "very_short_5_frames.mp4": (5, 5, 0.14),
}
BROKEN = {
    "empty_file.mp4": "empty",
    "git_lfs_pointer.mp4": "git lfs pull",
    "text_renamed.mp4": "Not a media file",
    "truncated_no_moov.mp4": "moov",
}


@pytest.mark.parametrize("name", sorted(GOOD))
def test_counts_sizes_and_sound(name):
    native, constant, seconds = GOOD[name]
    info = probe(HARD / name)
    frames = 0
    for frame in read_frames(HARD / name):
        frames += 1
        assert frame.shape == (info.height, info.width, 3) and frame.dtype == np.uint8
    assert (frames, count_frames(HARD / name, 25)) == (native, constant)
    assert info.has_audio == (seconds is not None)
    if seconds is None:
        with pytest.raises(DataError, match="no audio track"):
            load_audio(HARD / name)
    else:
        assert len(load_audio(HARD / name)) / 16000 == pytest.approx(seconds, abs=0.03)


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_unusable_files_are_explained(name):
    for action in (probe, read_frames, load_audio, count_frames):
        with pytest.raises(DataError, match=BROKEN[name]) as caught:
            action(HARD / name)
        assert name in str(caught.value)


def test_every_file_is_handled():
    for path in sorted(HARD.iterdir()):
        for action in (lambda p: next(read_frames(p, 25)), load_audio):
            try:
                action(path)
            except DataError as error:
                assert path.name in str(error)


def test_sound_without_picture():
    path = HARD / "audio_only.mov"
    assert not probe(path).has_video
    with pytest.raises(DataError, match="no video track"):
        read_frames(path)
    assert len(load_audio(path)) == 101053


def test_late_sound_keeps_its_start_time():
    plain = load_audio(HARD / "audio_longer_than_video.mp4")
    late = load_audio(HARD / "av_offset_audio_late_400ms_start_time.mp4")
    assert np.abs(late[: int(0.37 * 16000)]).max() < 1e-6
    cross = np.correlate(late[:40000], plain[:24000], "valid")
    assert int(cross.argmax()) / 16000 == pytest.approx(0.4, abs=0.03)
    with av.open(str(HARD / "av_offset_audio_late_400ms_start_time.mp4")) as container:
        track = container.streams.audio[0]
        seconds = float(track.duration * track.time_base)
    assert len(late) - seconds * 16000 == pytest.approx(0.376 * 16000, abs=2)


def test_rotation_is_upright():
    path = next((SHARED / "data" / "real" / "hdtf").glob("WDA_EdMarkey*/*.mp4"), None)
    if path is None:
        pytest.skip("the upright original is not there")
    upright = next(read_frames(path)).astype(float)
    turned = next(read_frames(HARD / "rotated_metadata_90.mp4")).astype(float)
    errors = [np.abs(np.rot90(turned, k) - upright).mean() for k in range(4)]
    assert int(np.argmin(errors)) == 0 and errors[0] < 0.5 * min(errors[1:])


@pytest.mark.parametrize("name", ["fps60_duplicated.mp4", "fps23976.mp4", "variable_fps.mp4"])
def test_other_rates_show_the_same_moments(name):
    """At 25 per second the frames equal those of the 25 fps original at the same time."""
    reference = [f[::4, ::4].mean(axis=2) for f in read_frames(HARD / "grayscale.mp4")]
    converted = [f[::4, ::4].mean(axis=2) for f in read_frames(HARD / name, 25)]
    limit = 2 if name == "variable_fps.mp4" else 1  # 120 ms steps: half of it is 1.5 frames
    for index in range(8, 64, 4):
        errors = [np.abs(converted[index] - other).mean() for other in reference]
        # In still moments neighbours look alike: the right time need only be about as good.
        assert min(errors[index - limit : index + limit + 1]) <= 1.05 * min(errors) + 0.02


DAMAGED = [
    "corrupt_bytes.mp4",
    "partial_file_fewer_frames_than_header.mp4",
    "truncated_faststart.mp4",
]


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_reported_with_counts(name, caplog):
    with caplog.at_level(logging.WARNING):
        frames = count_frames(HARD / name)
    assert frames >= 25
    assert f"{frames} frames decoded" in caplog.text and name in caplog.text


def test_whole_files_are_not_called_damaged(caplog):
    with caplog.at_level(logging.WARNING):
        for name in (
            "variable_fps.mp4",
            "fps23976.mp4",
            "hevc_10bit.mp4",
            "odd_size_351x287.mkv",
            "scene_cuts_face_often_absent.mp4",
            "one_frame.mp4",
        ):
            count_frames(HARD / name)
    assert "damaged" not in caplog.text


def test_second_track_is_named(caplog):
    with caplog.at_level(logging.WARNING):
        load_audio(HARD / "two_audio_tracks.mp4")
    assert "2 audio tracks; using number 1" in caplog.text


def test_grid_clips():
    for path in sorted((GRID / "s1").glob("*.mp4"))[:6]:
        assert count_frames(path) == count_frames(path, 25) == 75
        assert len(load_audio(path)) == 47649  # 131330 samples at 44.1 kHz
    for path in sorted((GRID / "s1_original_mpeg1").glob("*.mpg")):
        assert count_frames(path, 25) == 75
