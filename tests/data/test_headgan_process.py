"""Preparation for HeadGAN on real faces, its dataset, the modes of generation, the importer."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import CONVERT, run_command
from scipy.spatial.transform import Rotation

from talkingface.data.dataprocess.engine import prepare_clips

pytest.importorskip("mediapipe")

from talkingface.components.models import build_model
from talkingface.config.config import load_config
from talkingface.data.clips import discover_clips
from talkingface.data.dataprocess.headgan.headgan_process import (
    HeadGANProcess,
    fit,
    require_coverage,
    square,
)
from talkingface.data.dataset.headgan.headgan_dataset import HeadGANDataset
from talkingface.data.face.points import Points
from talkingface.data.face.topology import CHIN, FOREHEAD, NOSE_TIP
from talkingface.data.filelists import write_filelist
from talkingface.data.media.audio import load_audio
from talkingface.data.media.reader import count_frames
from talkingface.errors import ConfigError, DataError
from talkingface.pipeline.build import build_pipeline


@pytest.fixture(scope="module")
def root(tiny_synthetic, tmp_path_factory) -> Path:
    """A copy of the small Synthetic set, prepared for HeadGAN: 2 training clips, 1, 1."""
    target = tmp_path_factory.mktemp("headgan") / "Synthetic-tiny"
    shutil.copytree(tiny_synthetic / "dataset" / "Synthetic-tiny", target)
    prepare_clips(HeadGANProcess(settings(target)), show_progress=False)
    return target


def settings(root: Path, **keys):
    base = {"root": str(root), "device": "cpu", "process_workers": 1, "num_workers": 0}
    return load_config("HeadGAN", "Synthetic", preset="tiny", overrides={**base, **keys})


@pytest.fixture(scope="module")
def process(root) -> HeadGANProcess:
    return HeadGANProcess(settings(root))


@pytest.fixture(scope="module")
def data(root) -> HeadGANDataset:
    return HeadGANDataset(settings(root), "train")


@pytest.fixture(scope="module")
def model(root, data):
    torch.manual_seed(0)
    built = build_model(settings(root)).eval()
    built.statistics.fit(data)
    return built


def angles(rotation: np.ndarray) -> np.ndarray:
    """(T,3) yaw, pitch and roll in degrees of (T,3,3); the inverse of ``turned``."""
    return Rotation.from_matrix(rotation).as_euler("YXZ", degrees=True) * (1, 1, -1)


def test_the_fitted_face_lies_on_the_tracked_one(process, data):
    model = process.face_model
    for clip in data.clips:
        geometry = process.geometry(clip.id)
        tracked = process.points(clip.id).landmarks[:, model.vertices]
        apart = (model.placed(geometry)[:, model.corresponding] - tracked)[..., :2]
        assert np.sqrt(np.square(apart).sum(-1).mean(1)).mean() < 0.5  # px of 256
        assert np.allclose(np.linalg.det(geometry.rotation), 1)
        assert np.abs(angles(geometry.rotation)).max() < 45


def test_the_face_model_knows_the_training_clips_only(process):
    names = process.training_clips
    assert len(names) == 2 and f"{len(names)} clips" in process.face_model.sources
    colours = process.face_model.pncc
    # Nose tip, chin and forehead of a real face.
    for vertex, wanted in ((NOSE_TIP, (0.5, 0.53, 0.02)), (CHIN, (0.5, 1.0, 0.35)),
                           (FOREHEAD, (0.5, 0.0, 0.35))):  # fmt: skip
        assert np.abs(colours[vertex] - wanted).max() < 0.12


def test_pictures_drawn_before_and_drawn_now_are_the_same(root, data):
    fresh = HeadGANDataset(settings(root, **{"data.cache_pncc": False}), "train")
    for clip in fresh.clips:
        clip.geometry, clip.drawn = fresh.process.geometry(clip.id), None
    for frame in (0, 7):
        one = data.pncc(data.clips[0], frame)
        assert np.array_equal(one, fresh.pncc(fresh.clips[0], frame))
        covered = (one.sum(axis=0) > 0.01).mean()
        assert 0.1 < covered < 0.6 and one.min() == 0


def test_the_first_frame_is_its_own_history_and_the_current_one_comes_last(root):
    data = HeadGANDataset(settings(root), "val")
    first, third = data[0], data[2]
    assert np.array_equal(first["pncc"][:3], first["pncc"][6:])
    assert np.array_equal(third["pncc"][:3], first["pncc"][6:])
    assert not np.array_equal(third["pncc"][6:], first["pncc"][6:])


def test_epochs_grow_and_items_come_from_their_chunk(data):
    assert data.epoch_length(0) == 6 * len(data.index)
    assert data.epoch_length(4) == data.span * len(data.index)
    for epoch in (0, 4):
        for position in range(data.epoch_length(epoch)):
            clip, frame = data.entry(epoch, position)
            assert 0 <= frame < data.clips[clip].length
    frames = [data.entry(0, p)[1] for p in range(6)]
    assert frames == list(range(frames[0], frames[0] + 6))
    assert [data.entry(0, p) for p in range(6)] == [data.entry(0, p) for p in range(6)]


def test_people_are_where_the_face_is(data):
    item = data[0]
    face = item["pncc"][6:].sum(axis=0) > 0.01
    assert item["mask_union"][0][face].mean() > 0.8 > item["mask_union"].mean()
    x, y = item["mouth_center"]
    assert 16 < x < 48 and 24 < y < 56


def test_voice_of_another_size_is_refused(root, data):
    with pytest.raises(DataError, match="voice values per frame|stored voice|run the stage"):
        clip = data.process.prepared.output_dirs(data.clips[0].id)[0]
        data.process.voice.vectors(np.zeros((3, 84)), np.zeros((3, 26)))
        assert clip


def test_beyond_the_border_pixels_are_repeated_and_the_aspect_is_kept():
    frame = np.zeros((60, 80, 3), np.uint8)
    frame[:, 0] = 200
    cut = square(frame, (-20, -10, 60, 70), 80)
    assert cut.shape == (80, 80, 3) and (cut[:, :20] == 200).all() and (cut[:, 22:] == 0).all()


def test_an_empty_drawing_is_refused():
    with pytest.raises(DataError, match="covers 0.0%"):
        require_coverage(np.zeros((64, 64, 3), np.uint8))


def test_a_face_outside_the_middle_is_refused_without_cropping(root, talking_clip, tmp_path):
    """With prep.crop=false a wide picture with the face at its border has no usable square."""
    av = pytest.importorskip("av")
    from talkingface.data.media.reader import read_frames
    from talkingface.data.media.writer import VideoWriter

    assert av
    wide = tmp_path / "wide.mp4"
    with VideoWriter(wide, 25, audio=(load_audio(talking_clip, 16000), 16000)) as writer:
        for frame in read_frames(talking_clip, fps=25):
            writer.write(np.concatenate([frame, np.repeat(frame[:, -1:], 400, 1)], axis=1))
    process = HeadGANProcess(settings(root, **{"prep.crop": False}))
    (tmp_path / "out").mkdir()
    with pytest.raises(Exception, match="centred"):
        process.prepare_source(wide, tmp_path / "out")


def pipeline_of(model, root, **keys):
    cfg = settings(root, **keys)
    model.cfg = cfg
    return build_pipeline(cfg, model, torch.device("cpu"))


CLIP_MODES = {
    "self": {},
    "cross": {"infer.mode": "cross"},
    "frontalize": {"infer.mode": "frontalize"},
    "edit_expression": {"infer.mode": "edit_expression", "infer.edit.expression": {"smile": 2.0}},
    "edit_pose": {"infer.mode": "edit_pose", "infer.edit.yaw": 15.0},
}


@pytest.mark.parametrize("mode", CLIP_MODES)
def test_every_mode_gives_as_many_frames_as_asked_with_sound(mode, model, root, tmp_path):
    clips = discover_clips(root / "data", model.cfg.clips, quiet=True)
    pipeline = pipeline_of(model, root, **CLIP_MODES[mode], **{"infer.side_by_side": True})
    driver = clips[-1].path if mode == "cross" else None
    target = tmp_path / "out.mp4"
    sound = pipeline.own_sound(clips[0].path, driver)
    done = pipeline.render(clips[0].path, sound, target, driver=driver)
    assert done.frames == count_frames(target) == 75
    assert len(load_audio(target, 16000)) == pytest.approx(3 * 16000, abs=1600)
    identity = pipeline.prepare(clips[0].path)
    if driver is not None:
        identity = pipeline.with_driver(identity, driver)
    first = next(iter(pipeline.generate(identity, sound)))
    assert first.shape == (64, 5 * 64, 3) and first.dtype == np.uint8


def test_the_geometry_of_the_modes_is_what_they_say(model, root):
    clips = discover_clips(root / "data", model.cfg.clips, quiet=True)
    wave = np.zeros(2 * 16000, np.float32)

    def motion(driver=None, baseline=None, **keys):
        pipeline = pipeline_of(model, root, **keys)
        own = pipeline.prepare(clips[0].path)
        if driver is not None:
            own = pipeline.with_driver(own, driver)
        return own, pipeline.motion(own, wave, 20, baseline), pipeline

    own, frontal, _ = motion(**{"infer.mode": "frontalize"})
    assert np.abs(angles(frontal.rotation)).max() < 1e-6
    assert np.array_equal(frontal.expression, own.geometry.expression[:20])
    _, turned, _ = motion(**{"infer.mode": "edit_pose", "infer.edit.yaw": 15.0})
    gained = angles(turned.rotation) - angles(own.geometry.rotation[:20])
    assert np.abs(gained[:, 0] - 15).max() < 2
    own, crossed, pipeline = motion(clips[-1].path, **{"infer.mode": "cross"})
    other = pipeline.prepare(clips[-1].path).geometry
    assert np.array_equal(crossed.neutral, own.geometry.neutral)
    assert np.array_equal(crossed.rotation, other.rotation[:20])
    assert crossed.scale.mean() == pytest.approx(own.geometry.scale[own.reference], rel=0.02)
    _, moved, _ = motion(baseline="other_driver")
    assert not np.array_equal(moved.rotation, own.geometry.rotation[:20])


def test_a_still_picture_is_turned_there_and_back(model, root, tmp_path):
    from talkingface.data.media.reader import read_frames
    from talkingface.data.media.writer import write_image

    clip = discover_clips(root / "data", model.cfg.clips, quiet=True)[0]
    picture = tmp_path / "me.png"
    write_image(picture, next(iter(read_frames(clip.path, fps=25))))
    pipeline = pipeline_of(
        model, root, **{"infer.mode": "edit_pose", "infer.edit.yaw": 20.0, "infer.edit.seconds": 1}
    )
    sound = pipeline.own_sound(picture)
    own = pipeline.prepare(picture)
    yaw = angles(pipeline.motion(own, sound, pipeline.frame_count(own, sound)).rotation)[:, 0]
    assert len(yaw) == 25 and yaw[0] == pytest.approx(yaw[-1]) and yaw.max() - yaw[0] > 18


def test_modes_say_what_they_miss(model, root):
    clip = discover_clips(root / "data", model.cfg.clips, quiet=True)[0].path
    with pytest.raises(ConfigError, match="--driver"):
        pipeline_of(model, root, **{"infer.mode": "cross"}).own_sound(clip)
    with pytest.raises(ConfigError, match="reference_frame=900"):
        pipeline_of(model, root, **{"infer.reference_frame": 900}).prepare(clip)


def test_what_was_learnt_travels_with_the_checkpoint(model, root):
    import json

    from talkingface.trainer.checkpoint import plain_values

    fresh = build_model(settings(root))
    fresh.statistics.load(model.statistics.state())
    assert fresh.statistics.model.id == model.statistics.model.id
    assert fresh.statistics.voice.id == model.statistics.voice.id
    exported = json.loads(json.dumps(plain_values(model.statistics.state())))
    again = build_model(settings(root))
    again.statistics.load(exported)
    assert again.statistics.model.id == model.statistics.model.id
    assert again.statistics.voice.id == model.statistics.voice.id


def official_tree(folder: Path, names: list[str], frames: int = 4) -> Path:
    """A tree as the released preparation writes it; each identity has a grey of its own."""
    import cv2

    for index, name in enumerate(names):
        for part in range(2):
            clip = f"{name}_{part:06d}"
            for number in range(frames):
                for kind in ("images", "nmfcs"):
                    picture = np.full((64, 64, 3), 20 + 40 * index, np.uint8)
                    path = folder / "train" / kind / clip / f"{number:06d}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(path), picture)
                for kind, values in (
                    ("landmarks70", np.full((70, 2), 30.0)),
                    ("audio_features", np.full(300, index + 0.5)),
                ):
                    path = folder / "train" / kind / clip / f"{number:06d}.txt"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    np.savetxt(path, values)
        for kind in ("images_fs", "nmfcs_fs"):
            for number in range(8):
                path = folder / "train" / kind / name / f"{number:06d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), np.full((64, 64, 3), 20 + 40 * index, np.uint8))
    return folder


def test_the_official_tree_becomes_a_dataset_that_pairs_by_name(tmp_path):
    """id1 and id10 sort differently with and without a part number: upstream mixes them up."""
    names = ["id10", "id1", "a", "a-b", "with_underscore"]
    tree = official_tree(tmp_path / "tree", names)
    (tree / "train" / "audio_features" / "a_000000" / "000002.txt").unlink()
    done = run_command([str(tree), "--dataset=official"], tmp_path, script=CONVERT)
    assert done.returncode == 0, done.stderr
    assert "1 clip(s) are left out" in done.stdout + done.stderr
    cfg = load_config(
        "HeadGAN",
        "Synthetic",
        preset="tiny",
        overrides={"root": str(tmp_path / "dataset" / "official"), "data.chunk": 4},
    )
    seen = set()
    for split in ("train", "val", "test"):
        data = HeadGANDataset(cfg, split)
        for position in range(data.epoch_length(0)):
            item = data[position]
            clip = data.clips[data.entry(0, position)[0]]
            assert (item["ref_image"] == item["tgt_image"]).all(), clip.id
            assert item["audio"][0] == names.index(clip.person) + 0.5
            seen.add(clip.person)
    assert seen == set(names)


def test_points_of_another_version_are_refused(tmp_path):
    np.savez(tmp_path / "points.npz", version=0)
    with pytest.raises(DataError, match="another version"):
        Points.read(tmp_path / "points.npz")


def test_a_clip_is_fitted_the_same_again(process):
    name = process.training_clips[0]
    again = fit(process.face_model, process.points(name), "residual")
    assert np.array_equal(again.expression, process.geometry(name).expression)


def test_lists_of_one_clip_are_enough(root, tmp_path):
    """The video of one person, cut once: what the benchmark of learning does."""
    clips = discover_clips(root / "data", settings(root).clips, quiet=True)
    for split in ("train", "val", "test"):
        write_filelist(tmp_path / "filelist" / f"{split}.txt", [clips[0].id])
    cfg = settings(tmp_path, data_root=str(root / "data"))
    report = prepare_clips(HeadGANProcess(cfg), show_progress=False)
    assert report.of("ok") == [clips[0].id]
    assert HeadGANProcess(cfg).face_model.n_id == 0


def test_a_clip_without_sound_still_shows_how_a_face_moves(root, talking_clip, tmp_path):
    """Its voice is the mean of the training; Audio2Exp, which would learn from it, leaves it."""
    from talkingface.data.dataset.headgan.audio2exp_dataset import Audio2ExpDataset
    from talkingface.data.media.reader import read_frames
    from talkingface.data.media.writer import VideoWriter

    clips = tmp_path / "clips"
    shutil.copytree(root / "data", clips)
    mute = clips / "mute.mp4"
    with VideoWriter(mute, 25) as writer:
        for frame in read_frames(talking_clip, fps=25):
            writer.write(frame)
    known = [clip.id for clip in discover_clips(clips, settings(root).clips, quiet=True)]
    for split in ("train", "val", "test"):
        write_filelist(tmp_path / "filelist" / f"{split}.txt", known)
    cfg = settings(tmp_path, data_root=str(clips))
    report = prepare_clips(HeadGANProcess(cfg), show_progress=False)
    assert "mute" in report.of("ok") and "no sound" in report.markers["mute"]["warnings"][0]
    speech = load_config(
        "Audio2Exp",
        "Synthetic",
        preset="tiny",
        overrides={"root": str(tmp_path), "data_root": str(clips), "device": "cpu"},
    )
    data = Audio2ExpDataset(speech, "train")
    assert "mute" in data.unusable and all(clip.id != "mute" for clip in data.clips)


def test_a_resumed_run_refuses_training_clips_that_give_another_face_model(model, root, process):
    from talkingface.errors import StageError

    model.statistics.check_resume(SimpleNamespace(process=process))
    other = HeadGANProcess(settings(root, **{"geometry.n_exp": 5}))
    with pytest.raises(StageError, match="start a new run"):
        model.statistics.check_resume(SimpleNamespace(process=other))


def test_the_end_of_a_sound_is_the_end_of_the_pictures(model, root):
    """Silence that is put behind a sound must not be heard in its last frames."""
    name = HeadGANProcess(settings(root)).training_clips[0]
    process = HeadGANProcess(settings(root))
    wave, stored = (
        process.wave(name),
        process.voice.read(process.prepared.output_dirs(name)[0]),
    )
    count = len(stored)
    longer = np.pad(wave[: round(count * 640)], (0, 8000))
    heard = model.statistics.voice_vectors(model.statistics.voice, longer, 25, count)
    wanted = model.statistics.scaled(torch.from_numpy(stored)).numpy()
    assert np.abs(heard - wanted).max() < 1e-3


def test_nothing_to_hear_is_the_mean_of_the_training(model):
    heard = model.statistics.voice_vectors(
        model.statistics.voice, np.zeros(16000, np.float32), 25, 10
    )
    assert np.allclose(heard, np.array(model.statistics.mean, np.float32))


def test_a_network_just_trained_can_be_made_fast(model, data):
    from talkingface.model.fuse import optimize_for_inference

    net = build_model(model.cfg).network.train()
    item = {key: torch.from_numpy(np.array(value))[None] for key, value in data[0].items()}
    keys = ("pncc", "ref_pncc", "ref_image", "audio")
    net(*(item[key] for key in keys)).image.sum().backward()
    assert optimize_for_inference(net) is not net
