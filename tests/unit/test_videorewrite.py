"""VideoRewrite: frames, mouths and which pixels change; dubbing without a trained network."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_command

from talkingface.components.models import build_model
from talkingface.config.config import load_config
from talkingface.data.face.align import CROP_POINTS
from talkingface.data.face.mouth_shapes import HeadFrame, opening
from talkingface.data.face.tracking import track_face, video_landmarks
from talkingface.data.media.audio import load_audio, save_wav
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import read_frames
from talkingface.data.media.writer import VideoWriter, write_video
from talkingface.errors import DataError
from talkingface.pipeline.rewrite.videorewrite import VideoRewritePipeline

torch.set_num_threads(1)


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.setenv("TALKINGFACE_ROOT", str(tmp_path))

    def pipeline(**settings) -> VideoRewritePipeline:
        overrides = {key.replace("__", "."): value for key, value in settings.items()}
        overrides.setdefault("device", "cpu")
        cfg = load_config("VideoRewrite", "Synthetic", overrides=overrides)
        return VideoRewritePipeline(cfg, build_model(cfg).eval(), torch.device("cpu"))

    return pipeline


@pytest.fixture(scope="module")
def face(talking_clip, tmp_path_factory) -> Path:
    """The clip under another name, so that it does not belong to the dataset."""
    path = tmp_path_factory.mktemp("face") / "me.mp4"
    path.write_bytes(talking_clip.read_bytes())
    return path


@pytest.fixture(scope="module")
def speech(talking_clip) -> np.ndarray:
    return load_audio(talking_clip, 16000)


def openings(path: Path) -> np.ndarray:
    points = video_landmarks(path, fps=25, tracking=False)[:, CROP_POINTS]
    return opening(HeadFrame.of(points).shapes(points))


def test_the_person_says_another_sound_with_own_mouths(make, face, speech, tmp_path):
    """Only the lower face changes, and it changes with the sound."""
    pipeline = make()
    identity = pipeline.prepare(face)
    originals = list(read_frames(face, fps=25))
    half = len(speech) // 2
    frames = list(pipeline.generate(identity, np.roll(speech, half)))
    assert len(frames) == round(len(speech) / 640)
    nose = identity.track.landmarks[:, 168, 1].astype(int)  # between the eyes
    for frame, original, row in zip(frames, originals, nose, strict=False):
        assert np.array_equal(frame[:row], original[:row])
        assert (frame[row:] != original[row:]).any()
    write_video(tmp_path / "out.mp4", frames, 25, crf=10)
    made, real = openings(tmp_path / "out.mp4"), openings(face)
    size = min(len(made), len(real))
    shifted = np.roll(real[:size], size // 2)
    assert np.corrcoef(made[:size], shifted)[0, 1] > np.corrcoef(made[:size], real[:size])[0, 1]


def test_silence_closes_the_mouth_unless_it_is_kept(make, face, speech, tmp_path):
    quiet = np.zeros_like(speech)
    for silence in ("close", "keep"):
        pipeline = make(infer__silence=silence)
        pipeline.render(face, quiet, tmp_path / f"{silence}.mp4")
    real = openings(face)
    closed, kept = (openings(tmp_path / f"{name}.mp4") for name in ("close", "keep"))
    assert closed[4:].max() < real.max() / 4
    assert kept.std() < real.std()


def test_the_first_mouth_stays_in_the_baseline(make, face, speech, tmp_path):
    pipeline = make()
    pipeline.render(face, speech, tmp_path / "still.mp4", baseline="copy_reference")
    assert openings(tmp_path / "still.mp4").std() < openings(face).std() / 3
    with pytest.raises(DataError, match="no baseline 'first_stage'"):
        next(pipeline.generate(pipeline.prepare(face), speech, baseline="first_stage"))


def test_frames_without_a_face_stay_and_the_change_fades(make, face, speech):
    pipeline = make()
    identity = pipeline.prepare(face)
    strength = np.ones_like(identity.strength)
    strength[10:20], strength[9] = 0, 0.25
    hidden = dataclasses.replace(identity, strength=strength)
    frames = list(pipeline.generate(hidden, speech))
    whole = list(pipeline.generate(identity, speech))
    originals = list(read_frames(face, fps=25))
    assert all(np.array_equal(frames[k], originals[k]) for k in range(10, 20))
    assert np.array_equal(frames[5], whole[5])
    change, full = (np.abs(f[9].astype(int) - originals[9]).sum() for f in (frames, whole))
    assert 0.1 < change / full < 0.4


def test_a_source_without_sound_is_refused_with_the_reason(make, face, tmp_path):
    write_video(tmp_path / "mute.mp4", read_frames(face, fps=25), 25)
    pipeline = make()
    with pytest.raises(DataError, match="mute.mp4 has no sound, and no other clip"):
        list(pipeline.generate(pipeline.prepare(tmp_path / "mute.mp4"), np.zeros(16000)))


def test_a_clip_of_the_dataset_takes_mouths_of_other_clips(make, tiny_synthetic, monkeypatch):
    """The tiny set has two clips of each person; those of other persons are not used."""
    from talkingface.data.dataprocess.engine import prepare_clips
    from talkingface.pipeline.build import build_process

    root = str(tiny_synthetic / "dataset" / "Synthetic-tiny")
    pipeline = make(root=root)
    cfg = pipeline.cfg
    prepare_clips(build_process(cfg), show_progress=False)
    clips = sorted((Path(root) / "data").rglob("*.mp4"))
    bank = pipeline.mouth_bank(pipeline.prepare(clips[0]))
    assert not bank.own
    frames = round(probe(clips[1]).duration * 25)
    assert abs(len(bank) - frames) <= 2


def test_infer_needs_no_training_and_finishes_the_video(face, tmp_path):
    """At 30 frames/s with a stereo sound: rate, length and sound track are kept."""
    source = tmp_path / "thirty.mp4"
    sound = (load_audio(face, 16000), 16000)
    with VideoWriter(source, 30, audio=sound) as writer:
        for frame in read_frames(face, fps=30):
            writer.write(frame)
    wave = load_audio(face, 16000)[8000:36160]
    save_wav(tmp_path / "a.wav", wave, 16000)
    args = ["--infer", "--model=VideoRewrite", "--device=cpu", f"--source={source}"]
    done = run_command(
        [*args, f"--audio={tmp_path / 'a.wav'}", f"--output={tmp_path / 'o.mp4'}"], tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "without a trained network" in done.stdout + done.stderr
    info = probe(tmp_path / "o.mp4")
    assert info.fps == pytest.approx(30)
    assert info.duration == pytest.approx(len(wave) / 16000, abs=1 / 30)
    assert len(list(read_frames(tmp_path / "o.mp4"))) == round(len(wave) / 16000 * 30)
    done = run_command([*args, f"--audio={tmp_path / 'a.wav'}", "--output=o.avi"], tmp_path)
    assert done.returncode != 0 and "unknown suffix '.avi'" in done.stderr


def test_hyperlips_tracks_only_the_frames_that_a_sound_needs(face, monkeypatch, tmp_path):
    from trainkit import hyperlips_config

    from talkingface.pipeline import dubbing
    from talkingface.pipeline.hyperlips.dubbing import DubbingPipeline

    seen = []

    def watched(*args, **options):
        seen.append(options["first"])
        return track_face(*args, **options)

    monkeypatch.setattr(dubbing, "track_face", watched)
    cfg = hyperlips_config()
    pipeline = DubbingPipeline(cfg, build_model(cfg).eval(), torch.device("cpu"))
    wave = np.zeros(16000, np.float32)
    rendered = pipeline.render(face, wave, tmp_path / "a.mp4")
    assert seen == [50] and rendered.frames == 25  # as long as the sound
    whole = pipeline.prepare(face)
    assert seen[1] is None and len(whole.track) > 50
    first = pipeline.prepare(face, seconds=1.0)
    np.testing.assert_allclose(first.track.landmarks, whole.track.landmarks[:50])
