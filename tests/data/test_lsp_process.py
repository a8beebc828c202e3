"""Preparation for Live Speech Portraits: the person's files, their frames, and what reads them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import CONVERT, run_command, tool

from talkingface.config.config import load_config
from talkingface.data.dataprocess.engine import prepare_clips
from talkingface.data.dataprocess.lsp import files
from talkingface.data.dataprocess.lsp.lsp_process import LSPProcess
from talkingface.data.dataprocess.lsp.motion import MOUTH25, pose_vectors
from talkingface.data.dataprocess.lsp.person import apply_window
from talkingface.data.dataprocess.lsp.window import Window
from talkingface.data.dataset.lsp.lsp_face_dataset import Feature2FaceDataset, load_face_clip
from talkingface.data.filelists import read_filelist
from talkingface.data.media.apc_mel import apc_id
from talkingface.data.media.audio import load_audio
from talkingface.data.media.pictures import PictureReader
from talkingface.errors import DataError, StageError
from talkingface.pipeline.build import build_dataset, build_process


@pytest.fixture(scope="module")
def project(tiny_synthetic, tmp_path_factory) -> Path:
    """A copy of its own, in which people may be spoilt. All four clips show the first person."""
    target = tmp_path_factory.mktemp("lsp")
    shutil.copytree(tiny_synthetic, target, dirs_exist_ok=True)
    data = target / "dataset" / "Synthetic-tiny" / "data"
    for path in (data / "p00").iterdir():
        shutil.copy(path, data / "p01" / path.name.replace("p00", "p01"))
    return target


def config(project: Path, model: str = "Feature2Face", **overrides):
    place = {"root": str(project / "dataset" / "Synthetic-tiny"), "device": "cpu"}
    return load_config(
        model,
        "Synthetic",
        preset="tiny",
        overrides={**place, "num_workers": 0, "process_workers": 1, **overrides},
    )


@pytest.fixture(scope="module")
def process(project) -> LSPProcess:
    process = LSPProcess(config(project, **{"person.name": "one"}))
    prepare_clips(process, show_progress=False)
    return process


@pytest.fixture(scope="module")
def clips(process) -> list[files.ClipFiles]:
    markers = sorted((process.folder / ".status").rglob("*.json"))
    names = [json.loads(path.read_text())["clip"] for path in markers]
    return [files.ClipFiles(process.prepared.output_dirs(name)[0]) for name in names]


@pytest.fixture(scope="module")
def person(process) -> files.Person:
    return files.Person(process.folder / "one")


def test_every_file_has_its_name_shape_and_type(clips):
    for clip in clips:
        count = len(clip)
        assert count == 180  # 3 s at 60 Hz
        for name, shape in (
            (files.POINTS_3D, (count, 73, 3)),
            (files.POINTS_2D, (count, 73, 2)),
            (files.SHOULDERS, (count, 18, 2)),
            (files.SHOULDERS_3D, (count, 18, 3)),
            (files.CAMERA, (3, 3)),
        ):
            values = np.load(clip.folder / name)
            assert values.shape == shape and values.dtype == np.float32, name
        fit = np.load(clip.folder / files.FIT)
        shapes = {key: fit[key].shape for key in fit.files}
        assert shapes == {
            "pts_3d": (count, 73, 3),
            "rot_angles": (count, 3),
            "trans": (count, 3, 1),
        }
        assert np.abs(fit["rot_angles"][:, 0]).min() > 90  # a face that looks at the camera
        window = np.load(clip.folder / files.WINDOW_FILE)
        assert set(window.files) == {"scale", "xc", "yc"} and window["xc"].dtype.kind == "i"
        assert clip.scale == 90
        assert cv2.imread(str(clip.folder / files.EXAMPLE)).shape == (256, 256, 3)
        assert len(load_audio(clip.sound_path)) == 3 * 16000


def test_the_points_project_onto_the_detected_ones(clips, process, project):
    from talkingface.data.face.topology import LSP73
    from talkingface.data.face.tracking import track_face

    for clip in clips:
        assert files.verify_files(clip)["projection_error"] < 1e-3
        video = process.cfg.data_dir / f"{clip.manifest['clip']}.mp4"
        track = track_face(video, fps=25, options=process.cfg.face)
        detected = clip.window.points(track.landmarks[:, list(LSP73), :2])
        assert np.abs(clip.landmarks[::12] - detected[::5]).max() < 0.01  # times of both rates


def test_pictures_are_source_frames_and_each_motion_frame_has_one(clips):
    h5py = pytest.importorskip("h5py")
    for clip in clips:
        with h5py.File(clip.pictures_path) as file:
            assert list(file) == [clip.name] and file[clip.name].shape == (75,)
        reader = PictureReader(clip.pictures_path)
        rows = reader.rows()
        assert rows.shape == (180,) and rows[0] == 0 and rows[-1] == 74
        assert reader[74].shape == (256, 256, 3)


def test_the_person_is_made_of_training_clips_in_one_window(person, clips, process):
    training = read_filelist(process.cfg.filelist("train"))
    assert person.listed("train") == training
    own = [clip for clip in clips if clip.manifest["clip"] in training]
    mean = np.concatenate([clip.points for clip in own]).mean(axis=0)
    np.testing.assert_allclose(person.mean_points, mean, atol=1e-5)
    assert len({clip.window for clip in clips}) == 1
    assert len(person.points) == sum(map(len, own))
    assert files.verify_files(person)["projection_error"] < 1e-3
    assert person.candidates(64).shape == (64, 64, 12)
    for number in range(4):
        picture = person.folder / files.CANDIDATES / f"normalized_full_{number}.jpg"
        assert cv2.imread(str(picture)).shape == (512, 512, 3)


def test_the_candidates_are_two_mouths_and_two_turns(person):
    opened, closed, *_ = np.split(person.candidates(512), 4, axis=-1)
    assert np.abs(opened[300:420].astype(int) - closed[300:420]).mean() > 1
    assert len({person.candidates(64)[..., 3 * i : 3 * i + 3].tobytes() for i in range(4)}) >= 3


def test_a_second_run_makes_nothing_anew_and_another_split_does(process, person):
    path = person.folder / files.MEAN_POINTS
    before = path.stat().st_mtime_ns
    assert prepare_clips(process, show_progress=False).fresh == 0
    assert path.stat().st_mtime_ns == before
    lists = {s: process.cfg.filelist(s) for s in ("train", "val")}
    texts = {s: p.read_text() for s, p in lists.items()}
    try:
        lists["train"].write_text(texts["train"] + texts["val"])
        prepare_clips(process, show_progress=False)
        assert path.stat().st_mtime_ns != before
    finally:
        for split, p in lists.items():
            p.write_text(texts[split])
        prepare_clips(process, show_progress=False)


def test_another_window_moves_points_camera_and_shoulders_together(clips, tmp_path):
    shutil.copytree(clips[0].folder, tmp_path / "clip")
    before = files.ClipFiles(tmp_path / "clip")
    old = before.landmarks.copy(), before.shoulders.copy(), before.window
    apply_window(before.folder, Window(old[2].scale * 2, 2 * old[2].xc, 2 * old[2].yc))
    after = files.ClipFiles(before.folder)
    np.testing.assert_allclose(after.landmarks - 256, 2 * (old[0] - 256), atol=0.02)
    np.testing.assert_allclose(after.shoulders - 256, 2 * (old[1] - 256), atol=0.02)
    assert files.verify_files(after)["projection_error"] < 1e-3


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: files.save_array(f / files.POINTS_2D, np.zeros((180, 73, 2))), "miss the 2-D"),
        (lambda f: files.save_array(f / files.CAMERA, np.full((3, 3), np.nan)), "NaN"),
        (lambda f: files.save_array(f / files.POINTS_3D, np.zeros((7, 73, 3))), "shape"),
        (lambda f: (f / files.FIT).write_bytes(b"no"), "damaged"),
        (lambda f: (f / files.SCALE).unlink(), "id_scale.mat is missing"),
    ],
)
def test_verify_finds_what_is_wrong(clips, tmp_path, spoil, message):
    shutil.copytree(clips[0].folder, tmp_path / "clip")
    spoil(tmp_path / "clip")
    with pytest.raises(DataError, match=message):
        files.verify_files(files.ClipFiles(tmp_path / "clip"))


def test_the_verify_command_lists_all_faults(person, tmp_path):
    shutil.copytree(person.folder, tmp_path / "person")
    done = run_command([str(tmp_path), "--check"], tmp_path, script=CONVERT)
    assert done.returncode == 0 and "5 of 5 folders are right" in done.stdout
    for clip in sorted((tmp_path / "person" / "clips").iterdir())[:2]:
        (clip / files.SCALE).unlink()
    done = run_command([str(tmp_path), "--check"], tmp_path, script=CONVERT)
    assert done.returncode == 3 and done.stderr.count("id_scale.mat is missing") == 2


def test_official_trees_there_and_back(person, clips, tmp_path):
    assert tool("official.lsp").convert_person(person.folder, tmp_path / "official") == "our files"
    training = tmp_path / "official" / "training" / "one"
    assert (
        tool("official.lsp").convert_person(training, tmp_path / "ours") == "official training tree"
    )
    back = files.Person(tmp_path / "ours")
    for clip in clips:
        again = back.clip(clip.manifest["clip"])
        for key in ("points", "angles", "trans", "landmarks", "camera"):
            np.testing.assert_array_equal(getattr(again, key), getattr(clip, key))
        # One picture per motion frame, as the official loader wants it.
        reader = PictureReader(again.pictures_path)
        assert len(reader) == len(clip)
        first = PictureReader(clip.pictures_path)
        np.testing.assert_array_equal(reader[179], first[74])
    loaded = load_face_clip(back.clip(clips[0].manifest["clip"]).folder, 64)
    assert loaded.landmarks.shape == (180, 73, 2)
    inference = tmp_path / "official" / "inference" / "one"
    assert (
        tool("official.lsp").convert_person(inference, tmp_path / "two")
        == "official inference tree"
    )
    np.testing.assert_array_equal(files.Person(tmp_path / "two").points, person.points)
    with pytest.raises(DataError, match="no person of Live Speech Portraits"):
        tool("official.lsp").convert_person(tmp_path, tmp_path / "three")


# -- what is trained -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def motion(project, process, tiny_apc):
    more = {"person.name": "one", "weights.apc": str(tiny_apc)}
    process = build_process(config(project, "Audio2Feature", **more))
    prepare_clips(process, show_progress=False)
    return lambda model, **extra: config(project, model, **{**more, **extra})


def test_features_are_named_by_the_network_and_kept(motion, clips, person, tiny_apc, tmp_path):
    name = apc_id(tiny_apc)
    for clip in clips:
        assert np.load(clip.features_path(name)).shape == (360, 32)
    assert np.load(person.folder / files.DATABASE).shape == (360 * len(person.listed("train")), 32)
    other = tmp_path / "other.ckpt"
    other.write_bytes(tiny_apc.read_bytes() + b"\0")
    assert apc_id(other) != name


def test_items_hold_the_sound_and_motion_of_the_same_frames(motion, person):
    data = build_dataset(motion("Audio2Feature"), "train")
    entry = data.index[1]
    item, clip = data[1], data.clips[entry[0]]
    files_of = person.clip(clip.id)
    moved = files_of.points[entry[1] + 7, MOUTH25] - person.mean_points[list(MOUTH25)]
    np.testing.assert_allclose(item["target"][7], moved.ravel(), atol=1e-6)
    speech = np.load(files_of.features_path(data.process.apc))
    np.testing.assert_array_equal(item["audio"][7], speech[2 * (entry[1] + 7) :][:2].ravel())


def test_a_pose_follows_its_history_and_hears_a_quarter_of_a_second_ahead(motion, person):
    data = build_dataset(motion("Audio2Headpose"), "train")
    number = len(data.index) - 1
    clip, start = data.clips[data.index[number][0]], data.index[number][1]
    item, field = data[number], data.field
    files_of = person.clip(clip.id)
    pose = pose_vectors(files_of.angles, files_of.trans, files_of.trans.mean(0))
    assert len(item["history"]) == field + len(item["target"]) - 1
    np.testing.assert_array_equal(item["target"], pose[start : start + 40])
    # The last history row of the first target is the frame before it.
    np.testing.assert_array_equal(item["history"][field - 1], pose[start - 1])
    np.testing.assert_array_equal(item["audio"][field - 1], clip.speech[start + 15])
    first = data[0]  # a history from before the clip stands still
    np.testing.assert_array_equal(first["history"][:field, 6:], 0)
    np.testing.assert_array_equal(
        first["history"][:field, :6], pose_of(person, data)[:1].repeat(field, 0)
    )


def pose_of(person, data):
    files_of = person.clip(data.clips[data.index[0][0]].id)
    return pose_vectors(files_of.angles, files_of.trans, files_of.trans.mean(0))[:, :6]


def test_clips_too_short_for_an_item_are_named_with_what_is_needed(motion):
    long = motion("Audio2Feature", **{"data.seq_len": 240})
    with pytest.raises(StageError, match=r"180 motion frames \(3.0 s\), but an item needs 240"):
        build_dataset(long, "train")
    strict = motion("Audio2Headpose", **{"data.short_clips": "error", "model_params.layers": 7})
    with pytest.raises(StageError, match="but an item needs 183"):
        build_dataset(strict, "train")


def test_face_items_show_the_same_instant_in_lines_and_picture(process, clips):
    data = Feature2FaceDataset(process.cfg, "train")
    item = data[10]
    for key, channels in (("feature_map", 1), ("cand_image", 12), ("tgt_image", 3)):
        assert item[key].shape == (channels, 64, 64)
    assert set(np.unique(item["feature_map"])) == {0, 1}
    lit = (item["tgt_image"].mean(0) > -0.9)[item["feature_map"][0] > 0]
    assert lit.mean() > 0.9  # the lines lie on the person, not on the black border
    assert 0 < item["weight_mask"].mean() < 0.3


@pytest.mark.slow
def test_a_converted_training_tree_is_a_dataset_to_train_on(person, tmp_path):
    tool("official.lsp").convert_person(person.folder, tmp_path / "official")
    tree = tmp_path / "official" / "training" / "one"
    project = tmp_path / "project"
    project.mkdir()
    done = run_command([str(tree), "--dataset=may"], project, script=CONVERT)
    assert done.returncode == 0, done.stderr
    done = run_command(
        ["--model=Feature2Face", "--dataset=may", "--preset=tiny", "--stages=train",
         "--device=cpu", "--max_steps=2", "--num_workers=0"],
        project,
    )  # fmt: skip
    assert done.returncode == 0 and "training ended" in done.stdout, done.stderr


def test_two_set_ups_get_two_windows_and_the_person_the_more_frequent_one(clips, tmp_path):
    from talkingface.data.dataprocess.lsp.person import _build

    names = []
    for number, clip in enumerate([clips[0], clips[1], clips[2]]):
        name = f"c{number}"
        names.append(name)
        target = tmp_path / "p" / "clips" / name
        shutil.copytree(clip.folder, target)
        for path in target.glob(f"{clip.name}*"):
            path.rename(target / path.name.replace(clip.name, name))
        facts = clip.manifest
        if number == 1:  # the camera was moved
            facts = {**facts, "own_window": [facts["own_window"][0], 600, 300]}
        files.write_manifest(target, facts)
    import h5py

    for name in names:  # the data set inside is named like the file
        with h5py.File(tmp_path / "p" / "clips" / name / f"{name}.h5", "r+") as file:
            file.move(next(iter(file)), name)
    for order in (names, names[::-1]):
        _build(tmp_path / "p", names, {"train": order, "val": []}, 300.0)
        one = files.Person(tmp_path / "p")
        assert files.verify_files(one)["projection_error"] < 1e-3
        assert one.manifest["clips_with_other_window"] == ["c1"]
        assert one.clip("c1").window.xc == 600
        assert len(one.points) == 2 * len(clips[0])


def test_a_kill_between_the_files_of_a_window_is_noticed(process, clips, person):
    clip = clips[0]
    (clip.folder / files.WINDOW_FILE).unlink()  # written last, so it is what a kill leaves out
    files.save_array(clip.folder / files.POINTS_2D, np.zeros((len(clip), 73, 2)))
    (person.folder / ".made_of.json").unlink()
    prepare_clips(process, show_progress=False)
    assert files.verify_files(files.ClipFiles(clip.folder))["projection_error"] < 1e-3


def test_sound_that_ends_before_the_picture_ends_both(project, process, clips, tmp_path):
    from talkingface.data.clips import make_clip
    from talkingface.data.media.reader import read_frames
    from talkingface.data.media.writer import VideoWriter

    source = sorted((project / "dataset").rglob("data/**/*.mp4"))[0]
    video = tmp_path / "short sound.mp4"
    wave = load_audio(source)[: 16000 + 800]
    with VideoWriter(video, 25, audio=(wave, 16000)) as writer:
        for frame in read_frames(source, fps=25):
            writer.write(frame)
    out = tmp_path / "short__sound"
    out.mkdir()
    made = process.process_clip(make_clip(video, "short sound"), out)
    clip = files.ClipFiles(out)
    assert made["person"] == "one" and 60 <= len(clip) <= 64
    pictures = clip.manifest["frames"]
    assert (pictures - 1) / 25 <= (len(clip) - 1) / 60 < pictures / 25
