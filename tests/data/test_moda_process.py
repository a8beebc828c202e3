"""Preparation for MODA: canonical faces that turn back exactly, short clips, foreign layouts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import CONVERT, run_command, tool
from torch.utils.data import default_collate

from talkingface.config.config import load_config
from talkingface.data.dataprocess.engine import prepare_clips
from talkingface.data.dataprocess.moda.drawing import draw_condition, mouth_mask
from talkingface.data.dataprocess.moda.files import (
    FEATURES,
    SOUND,
    TEMPLATE,
    Features,
    Template,
    posed,
    posed_torso,
)
from talkingface.data.dataprocess.moda.moda_process import (
    MODAPicturesProcess,
    MODAProcess,
    face_crop,
)
from talkingface.data.dataprocess.moda.sound import SoundFeatures
from talkingface.data.dataset.moda.moda_dataset import spec_augmented, stretched
from talkingface.data.dataset.moda.moda_renderer_dataset import reference_frames
from talkingface.data.face.topology import FACE_OVAL, MODA_EYES, MODA_MOUTH
from talkingface.data.filelists import read_filelist
from talkingface.data.media.audio import load_audio
from talkingface.errors import DataError
from talkingface.pipeline.build import build_dataset, build_process


def config(project: Path, model: str = "MODA", **overrides):
    place = {"root": str(project / "dataset" / "Synthetic-tiny"), "device": "cpu"}
    return load_config(
        model,
        "Synthetic",
        preset="tiny",
        overrides={**place, "num_workers": 0, "process_workers": 1, **overrides},
    )


@pytest.fixture(scope="module")
def project(tiny_synthetic, tmp_path_factory) -> Path:
    """A copy of its own, in which files may be spoilt."""
    target = tmp_path_factory.mktemp("moda")
    shutil.copytree(tiny_synthetic, target, dirs_exist_ok=True)
    return target


@pytest.fixture(scope="module")
def process(project) -> MODAProcess:
    process = build_process(config(project))
    prepare_clips(process, show_progress=False)
    return process


@pytest.fixture(scope="module")
def names(process) -> list[str]:
    return [name for split in ("train", "val", "test") for name in read_filelist(
        process.cfg.filelist(split))]  # fmt: skip


@pytest.fixture(scope="module")
def clip(process, names) -> Features:
    return process.features(names[0])


def test_the_canonical_face_turns_back_into_the_landmarks(clip):
    made = posed(clip, clip.vertices, clip.headpose)
    exact = list(MODA_MOUTH + MODA_EYES)  # the others are smoothed
    assert np.abs(made - clip.landmarks)[:, exact].max() < 1e-3
    assert np.abs(made - clip.landmarks).mean() < 1.0
    assert clip.vertices.dtype == np.float32 and clip.vertices.shape == (len(clip), 478, 3)
    assert clip.face_center.tolist() == [256, 232, 128] and clip.image_size == 512
    eyes = [clip.vertices[:, list(half), 0].mean() for half in (MODA_EYES[4:20], MODA_EYES[34:50])]
    assert abs(abs(eyes[0] - eyes[1]) - clip.eye_dist) < 12


def test_the_torso_is_there_and_lies_where_the_shoulders_are(clip):
    assert clip.torso.shape == (len(clip), 18, 3) and clip.torso_valid.any()
    points = posed_torso(clip, clip.torso, clip.headpose)
    side = points[:, :9] if clip.torso_valid[0] else points[:, 9:]
    chin = clip.landmarks[:, 152, 1]
    assert side[..., 1].max(axis=1).mean() > chin.mean() - 20 and (side[..., 1] < 560).all()
    lonely = Features(**{**vars(clip), "torso_valid": np.array([False, True])})
    assert np.isnan(posed_torso(lonely, clip.torso, clip.headpose)[:, :9]).all()


def test_sound_and_picture_have_the_same_length(process, names, clip):
    wave = load_audio(process.prepared.output_dirs(names[0])[0] / SOUND, 16000)
    assert abs(len(wave) / 16000 - len(clip) / clip.fps) < 0.01


def test_shoulders_in_the_space_of_the_picture(project, names):
    cfg = config(project, **{"prep.torso_space": "image"})
    process = MODAProcess(cfg)
    # Another setting is another preparation; here of one clip, beside the folder of the others.
    clip = next(c for c in process.corpus.to_prepare() if c.id == names[0])
    out = project / "image_space"
    out.mkdir()
    process.process_clip(clip, out)
    image = Features.read(out / FEATURES)
    head = MODAProcess(config(project)).features(names[0])
    one = posed_torso(image, image.torso, image.headpose)
    two = posed_torso(head, head.torso, head.headpose)
    assert np.nanmax(np.abs(one - two)) < 1e-2


def test_the_crop_is_a_square_inside_the_picture():
    points = np.zeros((3, 478, 2)) + (300, 200)
    points[:, list(FACE_OVAL)] += np.random.default_rng(0).uniform(-60, 60, (3, 36, 2))
    x0, y0, x1, y1 = face_crop(points, (640, 480), 2.2)
    assert x1 - x0 == y1 - y0 and 0 <= x0 and 0 <= y0 and x1 <= 640 and y1 <= 480
    assert abs((x0 + x1) / 2 - 300) < 10 and 240 < x1 - x0 < 270
    assert face_crop(points, (360, 288), 5.0)[3] == 288


def test_offsets_are_those_of_the_template(project, process, names, clip):
    template = process.template(names[0])
    parts = template.offsets(clip)
    assert {key: value.shape[1] for key, value in parts.items()} == {
        "lips": 120, "eyes": 180, "head": 7, "torso": 54,
    }  # fmt: skip
    assert all(abs(value.mean(axis=0)).max() < 1e-2 for value in parts.values())
    mouth = template.mesh[list(MODA_MOUTH)].reshape(-1) + parts["lips"]
    assert np.allclose(mouth, clip.lips, atol=1e-3)
    same = MODAProcess(config(project, **{"person.name": "one"}))  # both people are one
    shared = same.template(names[0], "subject")
    assert np.allclose(shared.headpose, template.headpose)
    assert not np.allclose(shared.mesh, template.mesh)


def test_short_clips_are_filled_up_and_masked(project, process):
    data = build_dataset(process.cfg, "train")
    long = build_dataset(config(project, **{"data.window": 300}), "train")
    assert len(long) == len(long.clips)
    item = long[0]
    count = len(long.clips[0])
    assert item["valid"].sum() == count < 300 and not item["lips"][count:].any()
    batch = default_collate([data[(3, 0)], data[(3, 1)]])
    assert batch["lips"].shape == (2, 40, 120)
    again = data[(3, 0)]
    assert all(np.array_equal(again[key], data[(3, 0)][key]) for key in again)
    assert not np.array_equal(again["lips"], data[(4, 0)]["lips"])


def test_units_are_the_spread_of_the_training_data(process):
    data = build_dataset(process.cfg, "train")
    stats = data.statistics()
    lips = np.concatenate([c.offsets["lips"] for c in data.clips])
    assert stats["lips"] == pytest.approx(float(lips.std()), rel=0.02)
    assert len(stats["head"]) == 7 and len(stats["torso"]) == 3


def test_augmentation_keeps_shapes_and_covers_copies_alike():
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(30, 48)).astype(np.float32)  # 4 rows of 12 bands
    sound = np.concatenate([np.roll(plain, 1, 0), plain, np.roll(plain, -1, 0)], axis=1)
    made = spec_augmented(sound, 12, 1, np.random.default_rng(3))
    assert made.shape == sound.shape and not np.allclose(made, sound)
    middle, after = made.reshape(30, 3, 48)[:, 1], made.reshape(30, 3, 48)[:, 2]
    assert np.allclose(middle[1:29], after[:28])
    fast, parts, seen = stretched(sound, {"lips": plain}, np.ones(30, np.float32), 0.8)
    assert len(fast) == len(parts["lips"]) == len(seen) == 24


def test_the_condition_image_shows_lines_where_the_mesh_is(clip):
    mesh = posed(clip, clip.vertices, clip.headpose)
    torso = posed_torso(clip, clip.torso, clip.headpose)
    image = draw_condition(mesh[0], torso[0], 256)
    assert image.shape == (256, 256, 3) and image.dtype == np.uint8
    inside = mouth_mask(mesh[0], 256).astype(bool)
    assert 0.005 < inside.mean() < 0.2 and image[inside].any()
    # MediaPipe's left eye, at the picture's right, is green; the other one is red.
    for eye, channel in (((263, 362), 1), ((33, 133), 0)):
        at = (mesh[0, list(eye), :2].mean(axis=0) / 2).astype(int)
        part = image[at[1] - 8 : at[1] + 8, at[0] - 14 : at[0] + 14].reshape(-1, 3).astype(int)
        other = 1 - channel
        assert (part[:, channel] - part[:, other]).max() > 150
        assert (part[:, other] - part[:, channel]).max() < 50
    far = draw_condition(mesh[0] * 1e4, None, 64)
    assert far.shape == (64, 64, 3)


def test_reference_frames_go_from_closed_to_open(clip):
    gap = clip.vertices[:, 14, 1] - clip.vertices[:, 13, 1]
    frames = reference_frames(clip, 3)
    assert (np.diff(gap[frames]) >= 0).all() and len(set(frames.tolist())) == 3
    rank = int((gap < gap[reference_frames(clip, 1)[0]]).sum())
    assert abs(rank - len(gap) / 2) <= 1


def test_pictures_are_made_on_demand(project, process, names):
    pictures = MODAPicturesProcess(config(project, "MODARenderer"))
    assert pictures.folder == process.folder
    report = prepare_clips(pictures, show_progress=False)
    assert report.fresh == 0  # features are shared
    reader = pictures.pictures(names[0])
    assert len(reader) == len(process.features(names[0])) and reader[3].shape == (512, 512, 3)


def test_any_video_or_still_can_be_a_source(project, process, tmp_path):
    import cv2

    from talkingface.data.media.reader import read_frames

    video = sorted((project / "dataset" / "Synthetic-tiny" / "data").rglob("*.mp4"))[0]
    still = tmp_path / "still.png"
    cv2.imwrite(str(still), next(read_frames(video))[..., ::-1])
    pictures = MODAPicturesProcess(config(project, "MODARenderer"))
    out = tmp_path / "out"
    out.mkdir()
    pictures.prepare_source(still, out)
    features = Features.read(out / FEATURES)
    assert len(features) == 1 and np.isfinite(features.vertices).all()
    assert np.isfinite(Template.read(out / TEMPLATE).std).all()


def test_a_source_is_prepared_again_when_settings_or_the_video_changed(
    project, process, names, tmp_path, monkeypatch
):
    import torch

    from talkingface.components.models import build_model
    from talkingface.data.clips import discover_clips
    from talkingface.pipeline.moda.moda import MODARendererPipeline

    cfg = config(project, "MODARenderer")
    pipeline = MODARendererPipeline(cfg, build_model(cfg).eval(), torch.device("cpu"))
    clip = next(c for c in discover_clips(cfg.data_dir, cfg.clips) if c.id == names[0])
    assert pipeline.prepare(clip.path).folder == process.prepared.output_dirs(names[0])[0]
    changed = {**pipeline.process.prepared.fingerprint(clip), "inputs": [["other.mp4", 1, 1]]}
    monkeypatch.setattr(pipeline.process.prepared, "fingerprint", lambda *_: changed)
    assert ".sources" in str(pipeline.prepare(clip.path).folder)
    other = config(project, "MODARenderer", **{"prep.torso_space": "image"})
    pipeline = MODARendererPipeline(other, build_model(other).eval(), torch.device("cpu"))
    made = pipeline.prepare(clip.path)
    assert ".sources" in str(made.folder) and made.features.torso_space == "image"


def test_clips_of_another_rate_are_refused(project, process, names):
    faster = MODAProcess(config(project, fps=30))
    with pytest.raises(DataError, match="--fps=25"):
        faster.features(names[0])


def test_damaged_files_are_named(tmp_path, clip):
    path = tmp_path / FEATURES
    with pytest.raises(DataError, match="is missing"):
        Features.read(path)
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DataError, match=FEATURES):
        Features.read(path)
    np.savez(path, version=99)
    with pytest.raises(DataError, match="another version"):
        Features.read(path)


@pytest.mark.parametrize("count", [1, 40])
def test_sound_features_of_an_untrained_wav2vec2(count):
    pytest.importorskip("transformers")
    from talkingface.data.dataprocess.moda.moda_process import sound_features
    from talkingface.model.audio_driven_talkingface.moda.moda_config import MODAConfig

    cfg = MODAConfig(audio_encoder={"kind": "wav2vec2", "weights": "random", "layers": 1})
    features = sound_features(cfg, None)
    wave = np.random.default_rng(0).normal(size=640 * count).astype(np.float32)
    made = features(wave, count, 25.0)
    assert made.shape == (count, 768) and np.isfinite(made).all()
    assert np.isfinite(features(np.zeros_like(wave), count, 25.0)).all()
    assert np.allclose(sound_features(cfg, None)(wave, count, 25.0), made, atol=1e-5)
    assert features.id != SoundFeatures("mel").id


# -- the released layout -------------------------------------------------------------------------


def original_tree(folder: Path, clip: Features, wave: np.ndarray, shares: bool) -> None:
    """A clip as the released preparation would store it, at 768 px and 25 frames/s."""
    from talkingface.data.media.audio import save_wav

    folder.mkdir(parents=True)
    vertices = clip.vertices - clip.face_center + np.array([384, 349, 192])
    flat = posed_torso(clip, clip.torso, clip.headpose).reshape(-1, 2, 9, 2)
    np.savez(
        folder / "feature.npz",
        Vertices=vertices / 768 if shares else vertices,
        Headposes=clip.headpose[:, :3],
        Transposes=clip.headpose[:, 3:6] * 1.5,
        Scales=clip.headpose[:, 6] / 1.5,
        Shoulders=np.nan_to_num(flat / 512 if shares else flat * 1.5),
    )
    save_wav(folder / "audio.wav", wave, 16000)


@pytest.mark.parametrize("shares", [True, False])
def test_the_released_layout_is_read(tmp_path, process, names, clip, shares):
    wave = load_audio(process.prepared.output_dirs(names[0])[0] / SOUND, 16000)
    original_tree(tmp_path / "a", clip, wave, shares)
    made = tool("official.moda").convert_clip(tmp_path / "a", tmp_path / "b", 25.0)
    again = Features.read(tmp_path / "b" / FEATURES)
    assert np.allclose(again.vertices, clip.vertices, atol=1e-2)
    assert np.allclose(again.headpose, clip.headpose, atol=1e-2)
    one = posed_torso(again, again.torso, again.headpose)
    two = posed_torso(clip, clip.torso, clip.headpose)
    both = np.isfinite(one) & np.isfinite(two)
    assert both.any() and np.abs(one - two)[both].max() < 0.05
    assert len(made) == len(clip)
    with pytest.raises(DataError, match="--fps"):
        tool("official.moda").convert_clip(tmp_path / "a", tmp_path / "c", 60.0)
    content = dict(np.load(tmp_path / "a" / "feature.npz"))
    np.savez(tmp_path / "a" / "feature.npz", **{**content, "Shoulders": content["Shoulders"][:9]})
    with pytest.raises(DataError, match="Shoulders"):
        tool("official.moda").convert_clip(tmp_path / "a", tmp_path / "d", 25.0)


def test_converted_pieces_of_a_recording_stay_together(tmp_path):
    convert = tool("convert")
    names = [f"{who}_{i:03d}" for who in ("RD_Radio1", "WDA_X", "WRA_Y") for i in range(5)]
    convert._lists(tmp_path, names, tmp_path)
    train, val = (read_filelist(tmp_path / "filelist" / f"{s}.txt") for s in ("train", "val"))
    assert sorted(train + val) == sorted(names) and val
    assert not {convert._source_of(n) for n in train} & {convert._source_of(n) for n in val}
    (tmp_path / "train.txt").write_text("processed/RD_Radio1_000\n./WDA_X_001\n")
    (tmp_path / "val.txt").write_text("WRA_Y_002\n")
    convert._lists(tmp_path, names, tmp_path)
    assert read_filelist(tmp_path / "filelist/train.txt") == ["RD_Radio1_000", "WDA_X_001"]
    convert._lists(tmp_path, ["alone"], tmp_path / "nothing")
    assert read_filelist(tmp_path / "filelist/test.txt") == ["alone"]


@pytest.mark.slow
def test_a_converted_tree_is_a_dataset_to_train_on(tmp_path, process, names):
    tree = tmp_path / "hdtf processed"
    for number, name in enumerate(names[:3]):
        wave = load_audio(process.prepared.output_dirs(name)[0] / SOUND, 16000)
        original_tree(tree / f"person_{number:03d}", process.features(name), wave, number == 1)
    (tree / "person_002" / "audio.wav").unlink()  # a damaged one must not stop the others
    env = {"TALKINGFACE_ROOT": str(tmp_path)}
    command = [str(tree), "--dataset=old", "--fps=25"]
    done = run_command(command, tmp_path, env=env, script=CONVERT)
    assert done.returncode == 0, done.stderr
    assert "1 clip(s) are left out" in done.stderr + done.stdout
    done = run_command(
        ["--model=MODA", "--dataset=old", "--preset=tiny", "--stages=train,evaluate",
         "--epochs=1", "--device=cpu", "--num_workers=0"], tmp_path, env=env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = json.loads(next(tmp_path.glob("results/MODA/old/*/metrics.json")).read_text())
    assert "shuffled audio" in metrics["rows"]
