"""Scenes of audio2photoreal: loader cases, units, windows; ordinary videos; files of results."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from talkingface.config.config import load_config
from talkingface.data.dataprocess.a2p.a2p_process import A2PProcess
from talkingface.data.dataprocess.a2p.files import (
    Stats,
    find_scenes,
    learn_stats,
    read_sound,
    wrapped,
)
from talkingface.data.dataprocess.a2p.skeleton import Skeleton
from talkingface.data.dataprocess.engine import prepare_clips
from talkingface.data.dataset.a2p.a2p_dataset import (
    A2PFaceDataset,
    A2PGuideVQDataset,
    A2PLipDataset,
    A2PPoseDataset,
)
from talkingface.data.face.topology import INNER_LIP_BOTTOM, INNER_LIP_TOP, LIPS
from talkingface.data.filelists import read_filelist
from talkingface.data.media.audio import load_audio, load_dyad, save_wav
from talkingface.errors import DataError, StageError
from talkingface.evaluator.motion_files import MotionResults
from talkingface.evaluator.motion_preview import bones, curves, lips, write_preview

soundfile = pytest.importorskip("soundfile")


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    """The smallest SyntheticDyad: 7 usable scenes and one without any valid face."""
    root = tmp_path_factory.mktemp("dyad")
    cfg = load_config("A2PFace", "SyntheticDyad", preset="tiny", overrides={"root": str(root)})
    cfg.registry.resolve(cfg.dataset_entry, "source").from_config(cfg).ensure(show_progress=False)
    return root / "data"


@pytest.fixture
def person(scenes, tmp_path):
    """``person(name, **keys)`` -> configuration and process of a copy of the scenes, unprepared."""
    folder = tmp_path / "data"
    shutil.copytree(scenes, folder)

    def make(dataset: str = "SyntheticDyad", model: str = "A2PFace", **keys):
        preset = "tiny"
        over = {"root": str(tmp_path), "process_workers": 1, "show_progress": False, **keys}
        cfg = load_config(model, dataset, preset=preset, overrides=over)
        return cfg, A2PProcess(cfg)

    make.folder = folder
    return make


def prepare(process: A2PProcess) -> dict[str, str]:
    """Run; reasons of what is not usable."""
    report = prepare_clips(process, show_progress=False)
    return {n: m.get("reason", "") for n, m in report.markers.items() if m["status"] != "ok"}


def change(path: Path, function) -> None:
    np.save(path, function(np.load(path)))


# -- scenes ---------------------------------------------------------------------------------------


def test_the_synthetic_set_has_exactly_the_released_layout(scenes):
    assert [clip.id for clip in find_scenes(scenes)] == [f"scene{n:02d}" for n in range(1, 9)]
    lengths = set()
    for clip in find_scenes(scenes):
        pose = np.load(scenes / f"{clip.id}_body_pose.npy")
        face = np.load(scenes / f"{clip.id}_face_expression.npy")
        missing = np.load(scenes / f"{clip.id}_missing_face_frames.npy")
        info = soundfile.info(str(clip.audio))
        lengths.add(len(pose))
        assert pose.shape == (len(pose), 104) and face.shape == (len(pose), 256)
        assert (info.samplerate, info.channels) == (48000, 2)
        assert info.frames == 1600 * len(pose)
        assert missing.dtype.kind == "i" and len(pose) >= 61
        assert (len(missing) == len(pose)) == (clip.id == "scene03")
    assert len(lengths) > 1
    assert any(len(np.load(p)) == 0 for p in scenes.glob("*_missing_face_frames.npy"))


def test_the_synthetic_set_is_the_same_each_time_and_is_not_made_twice(scenes, person):
    cfg, _ = person()
    source = cfg.registry.resolve(cfg.dataset_entry, "source").from_config(cfg)
    path = person.folder / "scene05_audio.wav"
    stamp = path.stat().st_mtime_ns
    source.ensure(show_progress=False)
    assert path.stat().st_mtime_ns == stamp
    path.unlink()  # as after a kill: this scene is not complete
    source.ensure(show_progress=False)
    assert path.read_bytes() == (scenes / path.name).read_bytes()


def test_scenes_of_other_settings_and_files_of_the_user_are_kept(person, tmp_path):
    mine = person.folder / "scene_of_mine.npy"
    mine.write_bytes(b"mine")
    cfg, _ = person(**{"dyad.seed": 5})
    before = sorted(path.name for path in person.folder.iterdir())
    with pytest.raises(DataError, match="scenes of other settings.*--root"):
        cfg.registry.resolve(cfg.dataset_entry, "source").from_config(cfg).ensure(False)
    assert sorted(path.name for path in person.folder.iterdir()) == before


def test_the_split_is_the_official_one_and_scenes_without_faces_are_skipped(person):
    cfg, process = person()
    assert prepare(process) == {"scene03": "no valid face code in any frame"}
    names = {split: read_filelist(cfg.filelist(split)) for split in ("train", "val", "test")}
    assert names == {
        "train": ["scene01"],
        "val": ["scene02", "scene04"],
        "test": ["scene05", "scene06", "scene07", "scene08"],
    }


def test_too_few_scenes_name_the_least_number(person):
    for path in person.folder.glob("scene08*"):
        path.unlink()
    with pytest.raises(StageError, match="6 usable scene.*at least 7"):
        prepare(person()[1])


def test_a_folder_without_scenes_says_where_they_come_from(tmp_path):
    cfg = load_config("A2PFace", "PXB184", overrides={"root": str(tmp_path)})
    with pytest.raises(StageError, match=r"releases/download.*data_stats\.pth only"):
        A2PProcess(cfg).corpus.to_prepare()


def test_scenes_that_were_unpacked_beside_the_data_folder_are_found(person):
    cfg, process = person(data_root=str(person.folder / "nowhere"), root=str(person.folder))
    assert process.corpus.source == person.folder
    assert len(process.corpus.to_prepare()) == 8


def wrong_rate(folder: Path) -> None:
    wave, _ = soundfile.read(folder / "scene01_audio.wav")
    soundfile.write(folder / "scene01_audio.wav", wave, 44100)


def one_channel(folder: Path) -> None:
    wave, rate = soundfile.read(folder / "scene01_audio.wav")
    soundfile.write(folder / "scene01_audio.wav", wave[:, 0], rate)


def short_sound(folder: Path) -> None:
    wave, rate = soundfile.read(folder / "scene01_audio.wav")
    soundfile.write(folder / "scene01_audio.wav", wave[:-1], rate)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (wrong_rate, r"scene01_audio.wav has 44100 samples per second; 48000"),
        (one_channel, r"scene01_audio.wav has 1 channel\(s\); 2 are needed"),
        (short_sound, r"but \d+ frames need \d+ \(1600 per frame\)"),
        (lambda f: (f / "scene01_audio.wav").unlink(), r"scene01_audio.wav is missing"),
        (
            lambda f: change(f / "scene01_body_pose.npy", lambda a: a[:-1]),
            r"has \d+ frames, scene0",
        ),
        (lambda f: change(f / "scene01_body_pose.npy", lambda a: a[:, :103]), r"\(T, 104\)"),
        (lambda f: change(f / "scene01_face_expression.npy", lambda a: a * np.nan), "not finite"),
        (lambda f: np.save(f / "scene01_missing_face_frames.npy", np.array([500])), "names frame"),
        (lambda f: np.save(f / "scene01_missing_face_frames.npy", np.array([0.5])), "not integers"),
        (lambda f: (f / "scene01_body_pose.npy").write_bytes(b"x"), "is damaged"),
    ],
)
def test_a_scene_with_a_defect_is_left_out_with_the_reason(person, damage, reason):
    import re

    extra = person.folder
    for path in extra.glob("scene08*"):  # one scene more, since one is lost
        shutil.copy(path, path.with_name(path.name.replace("scene08", "scene09")))
    damage(extra)
    found = prepare(person()[1])
    assert set(found) == {"scene01", "scene03"}
    assert re.search(reason, found["scene01"]), found


def test_an_empty_list_of_missing_frames_may_hold_floats(person):
    np.save(person.folder / "scene01_missing_face_frames.npy", np.array([]))
    assert "scene01" not in prepare(person()[1])


# -- units ----------------------------------------------------------------------------------------


def test_units_are_those_of_valid_training_frames(person):
    np.save(person.folder / "scene01_missing_face_frames.npy", np.array([0, 1, 2]))
    change(person.folder / "scene01_face_expression.npy", lambda a: np.r_[a[:3] * 0 + 99, a[3:]])
    _, process = person()
    prepare(process)
    code = np.load(person.folder / "scene01_face_expression.npy")[3:]
    stats = process.load_stats()
    np.testing.assert_allclose(stats.code_mean, code.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(stats.code_std, np.maximum(code.std(axis=0), 1e-4), rtol=1e-3)
    wave = soundfile.read(person.folder / "scene01_audio.wav")[0]
    assert stats.audio_std_flat == pytest.approx(np.sqrt(wave.var(axis=0).mean()), rel=1e-3)
    sound = stats.sound(wave.astype(np.float32))
    assert sound.std(axis=0).mean() == pytest.approx(1, abs=0.3)
    np.testing.assert_allclose(stats.natural_sound(sound), wave, atol=1e-5)


def test_released_statistics_are_read_without_running_code(person):
    rng = np.random.default_rng(0)
    content = {
        "pose_mean": rng.normal(size=(1, 104)),
        "pose_std": rng.uniform(0.1, 1, (1, 104)),
        "code_mean": rng.normal(size=(1, 256)),
        "code_std": rng.uniform(0.1, 1, (1, 256)),
        "audio_mean": np.zeros(2, np.float32),
        "audio_std_flat": np.array([0.0139], np.float32),
        "audio_std": np.ones(2),
        "facekp_mean": np.zeros((274, 3)),
    }
    path = person.folder / "data_stats.pth"
    torch.save(content, path)
    _, process = person()
    prepare(process)
    assert process.load_stats().code_mean == pytest.approx(content["code_mean"].ravel(), rel=1e-6)
    assert process.load_stats().pose_std.shape == (104,)
    torch.save({"code_mean": Path("x")}, path)  # any other object is refused
    with pytest.raises(DataError, match="cannot be read"):
        Stats.read(path)
    torch.save({"code_mean": np.zeros(3)}, path)
    with pytest.raises(DataError, match="audio_mean"):
        Stats.read(path)


def test_the_yaw_of_two_persons_is_taken_into_one_turn(person):
    pose = np.zeros((3, 104), np.float32)
    pose[:, 3] = [-0.5, 0.5, 7.0]
    assert wrapped(pose)[:, 3] == pytest.approx([2 * np.pi - 0.5, 0.5, 7 - 2 * np.pi], abs=1e-6)
    cfg, process = person("PXB184", data_root=str(person.folder))
    assert process.wraps and not person()[1].wraps
    change(person.folder / "scene01_body_pose.npy", lambda a: a - 2 * np.pi * np.eye(104)[3])
    prepare(process)
    data = A2PPoseDataset(cfg, "train")
    mean, std = data.stats.units("pose")
    made = data.motion(0, "pose", 0, 5)[:, 3] * std[3] + mean[3]
    assert (made >= 0).all() and (made < 2 * np.pi).all()


# -- windows --------------------------------------------------------------------------------------


def test_scenes_of_unequal_length_give_windows_of_all(person):
    cfg, process = person(**{"data.windows_per_scene": 40})
    prepare(process)
    data = A2PFaceDataset(cfg, "val")
    lengths = [len(missing) for missing in data.missing]
    assert len(set(lengths)) == 2 and {number for number, _ in data.index} == {0, 1}
    train = A2PFaceDataset(cfg, "train")
    inside = [int(train[0, i]["inside"].sum()) for i in range(len(train))]
    assert min(inside) >= 40 and max(inside) <= 60 and len(set(inside)) > 5
    item = train[3, 7]
    assert all(np.array_equal(item[key], train[3, 7][key]) for key in item)
    assert not np.array_equal(item["motion"], train[4, 7]["motion"])
    count = int(item["inside"].sum())
    assert not item["motion"][count:].any() and not item["audio"][count * 1600 :].any()


def test_windows_hold_the_sound_of_their_frames(person):
    cfg, process = person(**{"data.add_padding": False})
    prepare(process)
    data = A2PFaceDataset(cfg, "val")
    wave = soundfile.read(data.scenes[1].sound, dtype="float32")[0]
    number = next(i for i, entry in enumerate(data.index) if entry == (1, 0))
    found = data.stats.natural_sound(data[0, number]["audio"])
    np.testing.assert_allclose(found, wave[: 60 * 1600], atol=1e-6)
    np.testing.assert_allclose(read_sound(data.scenes[1].sound, 500, 20), wave[500:520])


def test_missing_faces_become_the_mean_face_and_do_not_count(person):
    np.save(person.folder / "scene02_missing_face_frames.npy", np.array([1, 5]))
    cfg, process = person()
    prepare(process)
    item = A2PFaceDataset(cfg, "val")[0]
    assert np.flatnonzero(item["valid"] == 0).tolist() == [1, 5]
    assert not item["motion"][[1, 5]].any() and item["motion"][0].any()
    # A body has no missing faces.
    pose = person(model="A2PPose")[0]
    assert A2PPoseDataset(pose, "val")[0]["valid"].all()


def test_a_last_full_window_is_used_except_as_released(person):
    for legacy, starts in ((False, [0, 30, 60]), (True, [0, 30])):
        cfg, process = person(
            **{"data.max_seq_length": 30, "data.legacy_chunking": legacy, "lips.block": 30}
        )
        prepare(process)
        assert A2PFaceDataset(cfg, "test").starts(90) == starts


def test_key_poses_are_those_of_the_window(person):
    cfg, process = person(model="A2PGuideVQ")
    prepare(process)
    data = A2PGuideVQDataset(cfg, "val")
    item = data[0]
    assert set(item) == {"keyframes", "key_valid"} and item["keyframes"].shape == (6, 104)
    np.testing.assert_array_equal(item["keyframes"], data.motion(0, "pose", 0, 60)[::10])


def test_the_partners_recordings_have_the_channels_exchanged(person, tmp_path, monkeypatch):
    monkeypatch.setenv("TALKINGFACE_ROOT", str(tmp_path / "project"))
    for name in ("PXB184", "RLW104"):
        shutil.copytree(person.folder, tmp_path / "project/dataset" / name / "data")
        over = {"process_workers": 1, "show_progress": False}
        cfg = load_config("A2PFace", name, preset="tiny", overrides=over)
        prepare(A2PProcess(cfg))
    cfg = load_config(
        "A2PFace", "PXB184", preset="tiny", overrides={**over, "data.flip_person": True}
    )
    data = A2PFaceDataset(cfg, "test")
    assert all("RLW104" in str(scene.sound) for scene in data.scenes)
    wave = soundfile.read(data.scenes[0].sound, dtype="float32")[0]
    found = data.stats.natural_sound(data[0]["audio"])
    np.testing.assert_allclose(found, wave[: len(found), ::-1], atol=1e-6)
    assert "PXB184" in str(A2PFaceDataset(cfg, "val").scenes[0].sound)


def test_released_data_has_no_lips_and_the_error_says_what_to_do(person):
    for path in person.folder.glob("*_lip_vertices.npy"):
        path.unlink()
    cfg, process = person(model="A2PLip")
    prepare(process)
    with pytest.raises(StageError, match=r"no lip points.*--lip_cond=none"):
        A2PLipDataset(cfg, "train")
    assert len(A2PFaceDataset(person()[0], "train"))  # the face does not need them


# -- ordinary videos ------------------------------------------------------------------------------


def test_videos_become_scenes_of_the_same_layout(tiny_synthetic, tmp_path):
    root = tmp_path / "videos"
    shutil.copytree(tiny_synthetic / "dataset/Synthetic-tiny", root)
    over = {
        "root": str(root), "process_workers": 1, "show_progress": False, "codes.n": 6,
        "data.max_seq_length": 45, "lips.block": 45,
    }  # fmt: skip
    cfg = load_config("A2PFace", "Synthetic", preset="tiny", overrides=over)
    process = A2PProcess(cfg)
    assert prepare(process) == {}
    name = read_filelist(cfg.filelist("train"))[0]
    files = process.scene_files(name)
    codes, wave = np.load(files.face), soundfile.read(files.sound)[0]
    assert codes.shape == (len(codes), 6) and len(wave) == 1600 * len(codes)
    assert not wave[:, 1].any() and wave[:, 0].any()  # no partner: silence, no copy
    assert np.abs(codes.mean(axis=0)).max() < 0.1 * codes.std()  # what a face is at rest is left
    points = np.load(files.lips)
    assert points.shape == (len(codes), 40, 3)
    # The lips that the codes mean move with the lips of the clip.
    truth = np.load(root / "data" / f"{name}.truth.npz")["mouth_opening"]
    below, above = (LIPS.index(point) for point in (INNER_LIP_BOTTOM, INNER_LIP_TOP))
    gap = points[:, below, 1] - points[:, above, 1]  # y points down
    there = np.interp(np.arange(len(gap)) / 30, np.arange(len(truth)) / 25, truth)
    assert np.corrcoef(gap, there)[0, 1] > 0.9
    assert A2PFaceDataset(cfg, "train")[0]["motion"].shape == (45, 6)
    # A second run changes nothing; other numbers of codes are other files.
    stamp = files.face.stat().st_mtime_ns
    prepare(A2PProcess(cfg))
    assert files.face.stat().st_mtime_ns == stamp


# -- sound and results ----------------------------------------------------------------------------


def test_two_voices_are_kept_apart_and_one_in_stereo_is_one(tmp_path):
    rng = np.random.default_rng(0)
    two = rng.normal(0, 0.1, (4800, 2)).astype(np.float32)
    save_wav(tmp_path / "two.wav", two, 48000)
    np.testing.assert_allclose(load_dyad(tmp_path / "two.wav", 48000), two, atol=1e-4)
    assert not load_dyad(tmp_path / "two.wav", 48000, "mono")[:, 1].any()
    assert load_dyad(tmp_path / "two.wav", 16000).shape == (1600, 2)
    save_wav(tmp_path / "one.wav", np.repeat(two[:, :1], 2, axis=1), 48000)
    save_wav(tmp_path / "mono.wav", two[:, 0], 48000)
    for name in ("one.wav", "mono.wav"):
        found = load_dyad(tmp_path / name, 48000)
        np.testing.assert_allclose(found[:, 0], load_audio(tmp_path / name, 48000))
        assert not found[:, 1].any()


def some_results() -> MotionResults:
    rng = np.random.default_rng(0)
    motions = [rng.normal(size=(3, count, 4)) for count in (8, 5)]
    return MotionResults(
        motions,
        [m[0] for m in motions],
        [rng.normal(size=(count * 1600, 2)) for count in (8, 5)],
        [rng.normal(size=(3, 2, 4)) for _ in motions],
        {"fps": 30, "scene": np.array(["a", "b"])},
    )


def test_results_have_the_original_layout(tmp_path):
    own = some_results()
    own.save_original(tmp_path / "results.npy")
    made = np.load(tmp_path / "results.npy", allow_pickle=True).item()
    assert made["motions"].shape == (6, 4, 1, 8) and made["gt"].shape == (6, 4, 1, 8)
    assert made["audio"].shape == (6, 12800, 2) and made["keyframes"].shape == (6, 2, 4)
    assert made["lengths"].tolist() == [8, 5] * 3
    for repeat in range(3):
        for sound in range(2):
            entry = made["motions"][repeat * 2 + sound, :, 0].T
            count = made["lengths"][repeat * 2 + sound]
            np.testing.assert_allclose(entry[:count], own.motions[sound][repeat], rtol=1e-6)
            assert not entry[count:].any()
            keys = made["keyframes"][repeat * 2 + sound]
            np.testing.assert_allclose(keys, own.keys[sound][repeat], rtol=1e-6)


def test_results_of_ours_hold_no_objects(tmp_path):
    some_results().save(tmp_path / "face.npz")
    with np.load(tmp_path / "face.npz", allow_pickle=False) as made:
        assert made["motions"].shape == (3, 2, 8, 4) and made["gt"].shape == (2, 8, 4)
        assert made["keyframes"].shape == (3, 2, 2, 4)
        assert made["lengths"].tolist() == [8, 5] and made["scene"].tolist() == ["a", "b"]


@pytest.mark.parametrize("kind", ["face", "pose"])
def test_curves_show_motion_and_say_what_they_are_not(kind, tmp_path):
    rng = np.random.default_rng(0)
    made = rng.normal(size=(45, 104)).cumsum(axis=0)
    real = made + 1
    real[10:14] = np.nan
    sound = rng.normal(0, 0.1, (45 * 1600, 2)).astype(np.float32)
    keys = made[::15] if kind == "pose" else None
    picture, columns = curves(made, sound, 30, real=real, keys=keys, key_step=15, kind=kind)
    assert picture.dtype == np.uint8 and picture.std() > 20
    assert 0 < columns[0] < columns[1] < picture.shape[1]
    write_preview(tmp_path / "p", made, sound, 48000, 30, kind=kind)
    from talkingface.data.media.probe import probe

    info = probe(tmp_path / "p.mp4")
    assert info.has_audio and info.duration == pytest.approx(1.5, abs=0.1)
    assert (tmp_path / "p.png").is_file()


def test_lips_are_drawn_where_they_are():
    points = np.zeros((4, 3, 3))
    points[:, 0, 0], points[:, 1, 0] = -1, 1
    points[2, 2, 1] = 1  # one moves down
    frames = list(lips(points, np.zeros((4 * 1600, 2)) + 0.1, side=100))
    assert frames[0].shape == (100, 200, 3)
    moved = np.argwhere(np.abs(frames[2][:, :100].astype(int) - frames[0][:, :100]).sum(-1) > 0)
    assert moved[:, 0].max() > 70  # rows grow downwards


def test_a_skeleton_follows_the_written_formula(tmp_path):
    """Two bones along x; the second turns by a quarter about z."""
    count, params = 2, 104
    transform = np.zeros((7 * count, params + 1))
    transform[7 * 1 + 5, 10] = 1  # parameter 10: rz of the second
    transform[7 * 0 + 0, 0] = 1  # parameter 0: tx of the first
    skeleton = Skeleton(
        parents=np.array([-1, 0]), offsets=np.array([[0.0, 0, 0], [1.0, 0, 0]]),
        turns=np.tile([0, 0, 0, 1.0], (2, 1)), transform=transform, base=np.zeros(14),
        scales=np.zeros(1), size=2.0,
    )  # fmt: skip
    three = Skeleton(
        parents=np.array([-1, 0, 1]), offsets=np.array([[0.0, 0, 0], [1, 0, 0], [1, 0, 0]]),
        turns=np.tile([0, 0, 0, 1.0], (3, 1)), transform=np.pad(transform, ((0, 7), (0, 0))),
        base=np.zeros(21), scales=np.zeros(1), size=2.0,
    )  # fmt: skip
    pose = np.zeros((1, 104))
    pose[0, 0], pose[0, 10] = 0.5, np.pi / 2
    np.testing.assert_allclose(skeleton.joints(pose)[0], [[1, 0, 0], [3, 0, 0]], atol=1e-9)
    np.testing.assert_allclose(three.joints(pose)[0][2], [3, 2, 0], atol=1e-9)
    frame = next(bones(three.joints(pose), three.parents, side=64))
    assert frame.shape == (64, 128, 3) and (frame < 255).any()
    with pytest.raises(DataError, match=r"static_assets\.pt"):
        Skeleton.read(tmp_path / "none.pt")


def test_learnt_statistics_of_bodies_and_lips(scenes):
    from talkingface.data.dataprocess.a2p.files import SceneFiles

    files = [SceneFiles.of_folder(scenes, name) for name in ("scene01", "scene02")]
    stats = learn_stats(files)
    poses = np.concatenate([np.load(f.pose) for f in files])
    np.testing.assert_allclose(stats.pose_mean, poses.mean(axis=0), rtol=1e-4, atol=1e-5)
    assert stats.lips_mean.shape == (40, 3) and stats.lips_std.shape == (1,)
