"""Preparation of clips: complete or redone, equal in any order, never stopped by one clip."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from preparekit import (
    Counting,
    config,
    count,
    list_clips,
    names_as_clips,
    prepare,
    stamps,
    start,
    tree,
)

from talkingface.data.dataprocess.base import ProcessReport
from talkingface.data.dataprocess.engine import prepare_clips
from talkingface.data.dataprocess.face_crops import FaceCropProcess
from talkingface.data.filelists import read_filelist
from talkingface.data.media.audio import load_audio
from talkingface.data.media.mel import wav2lip_mel
from talkingface.data.media.reader import read_frames
from talkingface.errors import EnvironmentProblem, StageError


@pytest.fixture(scope="module")
def clips(tiny_synthetic: Path) -> Path:
    return tiny_synthetic / "dataset" / "Synthetic-tiny" / "data"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, clips) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    report = prepare(root, clips)
    assert len(report.of("ok")) == len(report.markers) == 4
    return root


def test_a_clip_becomes_crops_sound_and_mel(undisturbed, clips):
    name = "p00/p00_000"
    folder = undisturbed / "preprocessed_data" / "imgs" / name
    with np.load(folder / "face.npz") as data:
        boxes, found = data["boxes"], data["found"]
    frames = list(read_frames(clips / f"{name}.mp4", fps=25))
    assert len(boxes) == len(found) == len(frames)
    numbers = sorted(int(path.stem) for path in folder.glob("*.jpg"))
    assert numbers == np.flatnonzero(found).tolist()
    x0, y0, x1, y1 = np.round(boxes[7]).astype(int)
    stored = cv2.imread(str(folder / "7.jpg"))[..., ::-1]
    expected = frames[7][y0:y1, x0:x1]
    assert stored.shape == expected.shape
    assert np.abs(stored.astype(int) - expected).mean() < 4  # JPEG
    wave = load_audio(folder / "audio.wav", 16000)
    assert len(wave) == pytest.approx(len(frames) * 640, abs=1100)
    np.testing.assert_allclose(np.load(folder / "mel.npy"), wav2lip_mel(wave), atol=0.05)  # 16 bit


def test_a_killed_preparation_goes_on_to_the_same_bytes(tmp_path, clips, undisturbed):
    root = tmp_path / "killed"
    process = start(tmp_path, root, clips)
    folder = root / "preprocessed_data" / "imgs"
    deadline = time.monotonic() + 90
    while True:  # wait until one clip is done and another one is begun
        markers = (p for p in folder.glob(".status/*/*.json") if ".tmp" not in p.name)
        done = [p for p in markers if '"status": "ok"' in p.read_text("utf-8")]
        begun = [p for p in folder.glob("*/.*.tmp*") if len(list(p.glob("*.jpg"))) > 5]
        if done and begun:
            break
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    left = set(tree(root))
    assert any(".tmp" in name for name in left), "the kill came too late to test anything"
    report = prepare(root, clips)
    assert 0 < report.fresh < 4
    made = tree(root)
    assert {"imgs/report.html", "imgs/report.csv", "imgs/.report/p00/p00_000.jpg"} <= set(made)
    assert made == tree(undisturbed)


def test_two_preparations_at_once_do_not_disturb_each_other(tmp_path, clips, undisturbed):
    root = tmp_path / "both"
    processes = [start(tmp_path, root, clips) for _ in range(2)]
    made = []
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        made.append(int(re.search(r"\((\d) processed now\)", output)[1]))
    assert sorted(made) == [0, 4]  # the second one waited and found everything done
    assert tree(root) == tree(undisturbed)


@pytest.mark.parametrize("workers", [2, 3])
def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path, clips, undisturbed, workers):
    prepare(tmp_path, clips, workers=workers)
    assert tree(tmp_path) == tree(undisturbed)


def test_a_second_run_does_nothing(undisturbed, clips):
    before = stamps(undisturbed)
    report = prepare(undisturbed, clips)
    assert report.fresh == 0
    assert stamps(undisturbed) == before


@pytest.fixture
def prepared(tmp_path, undisturbed, clips) -> Path:
    """A copy of the prepared data that a test may damage."""
    return Path(shutil.copytree(undisturbed, tmp_path / "copy"))


def test_a_changed_setting_redoes_the_clips(prepared, clips):
    report = prepare(prepared, clips, **{"data.max_crop": 64})
    assert report.fresh == 4
    image = cv2.imread(str(next((prepared / "preprocessed_data").rglob("7.jpg"))))
    assert max(image.shape[:2]) == 64


def test_a_setting_that_does_not_touch_the_files_redoes_nothing(prepared, clips):
    assert prepare(prepared, clips, batch_size=3, epochs=7).fresh == 0


def test_a_new_version_of_the_processor_redoes_the_clips(prepared, clips, monkeypatch):
    monkeypatch.setattr(FaceCropProcess, "version", FaceCropProcess.version + 1)
    process = FaceCropProcess(config(prepared, clips))
    assert not any(process.prepared.is_current(clip) for clip in process.corpus.to_prepare())


def test_clips_of_another_face_tracker_are_refused_and_made_again(prepared, clips, monkeypatch):
    """Data prepared with the tracker before, e.g. by an earlier version of the toolkit."""
    process = FaceCropProcess(config(prepared, clips))
    names = sorted(process.prepared.report_on(process.corpus.to_prepare()).of("ok"))
    assert process.prepared.select(names) == (names, {})
    monkeypatch.setattr("talkingface.data.dataprocess.video.TRACKER", "another")
    good, refused = process.prepared.select(names)
    assert not good and set(refused) == set(names)
    assert set(refused.values()) == {"prepared with other settings; run the stage preprocess"}
    assert prepare(prepared, clips).fresh == len(names)
    assert process.prepared.select(names)[0] == names


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: shutil.rmtree(folder / "p00" / "p00_000"),
        lambda folder: (folder / ".status" / "p00" / "p00_000.json").write_text('{"clip": '),
    ],
    ids=["folder", "half a marker"],
)
def test_what_is_missing_or_damaged_is_made_again(prepared, undisturbed, clips, damage):
    damage(prepared / "preprocessed_data" / "imgs")
    assert prepare(prepared, clips).fresh == 1
    assert tree(prepared) == tree(undisturbed)


def test_a_folder_whose_marker_was_deleted_is_not_replaced(prepared, clips):
    """It may be the user's: only a marker shows that the toolkit has made it."""
    (prepared / "preprocessed_data" / "imgs" / ".status" / "p00" / "p00_000.json").unlink()
    with pytest.raises(EnvironmentProblem, match="not made by this toolkit. Move it away"):
        prepare(prepared, clips)


def test_a_replaced_clip_is_made_again_and_no_other(tmp_path, clips):
    own = Path(shutil.copytree(clips, tmp_path / "data"))
    prepare(tmp_path, own)
    first = own / "p00" / "p00_000.mp4"
    shutil.copy(own / "p01" / "p01_000.mp4", first)
    os.utime(first, (1, 1))
    assert prepare(tmp_path, own).fresh == 1


# -- bad clips -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, clips, noise_video) -> Path:
    """Two good clips, one that is cut off, one that is text, one without a face."""
    folder = tmp_path_factory.mktemp("mixed")
    good = sorted(clips.rglob("*.mp4"))[:2]
    for index, path in enumerate(good):
        shutil.copy(path, folder / f"good{index}.mp4")
    (folder / "cut_off.mp4").write_bytes(good[0].read_bytes()[:3000])
    (folder / "text.mp4").write_text("this is not a video")
    noise_video(folder / "noise.mp4", frames=30)
    return folder


@pytest.fixture(scope="module")
def mixed_report(tmp_path_factory, mixed) -> ProcessReport:
    return prepare(tmp_path_factory.mktemp("out"), mixed, max_failed_ratio=0.7)


def test_bad_clips_are_skipped_and_the_others_prepared(mixed_report):
    assert mixed_report.of("ok") == ["good0", "good1"]
    assert mixed_report.of("skipped") == ["cut_off", "noise", "text"]


def test_a_skipped_clip_leaves_a_reason_and_no_files(mixed_report):
    for name in ("cut_off", "noise", "text"):
        assert len(mixed_report.markers[name]["reason"]) > 10
        assert not (mixed_report.folder / name).exists()
    assert mixed_report.markers["noise"]["reason"].startswith("no face")
    assert list(mixed_report.folder.glob(".*.tmp*")) == []


def test_the_report_counts_reasons_and_names_clips(mixed_report):
    text = mixed_report.describe()
    assert text.startswith("2 of 5 clips usable")
    assert "no face found: 1 (noise)" in text
    assert sum(mixed_report.reasons().values()) == 3


def test_more_bad_clips_than_allowed_are_an_error_with_the_reasons(tmp_path, mixed):
    with pytest.raises(StageError) as error:
        prepare(tmp_path, mixed, max_failed_ratio=0.5)
    assert error.value.exit_code == 3
    assert "3 of 5 clips of MEAD are unusable (max_failed_ratio = 0.5)" in str(error.value)
    assert "no face found" in str(error.value)


def test_a_bad_clip_is_not_tried_again_until_it_changes(tmp_path, mixed):
    own = Path(shutil.copytree(mixed, tmp_path / "data"))
    list_clips(tmp_path, *(path.stem for path in own.iterdir()))
    assert prepare(tmp_path, own, max_failed_ratio=0.7).fresh == 5
    assert prepare(tmp_path, own, max_failed_ratio=0.7).fresh == 0
    shutil.copy(own / "good0.mp4", own / "text.mp4")
    report = prepare(tmp_path, own, max_failed_ratio=0.7)
    assert (report.fresh, report.of("ok")) == (1, ["good0", "good1", "text"])


# -- the engine with other processors --------------------------------------------------------------


def test_no_exception_of_one_clip_stops_the_others(tmp_path):
    clips = names_as_clips(tmp_path, "opencv", "key", "skip", "good1", "good2", "a b/点.c")
    report = count(tmp_path, clips)
    statuses = {name: marker["status"] for name, marker in report.markers.items()}
    assert statuses == {
        "a b/点.c": "ok",
        "good1": "ok",
        "good2": "ok",
        "key": "failed",
        "opencv": "failed",
        "skip": "skipped",
    }
    assert "matrix is empty" in report.markers["opencv"]["reason"]
    assert (report.folder / "a b/点.c" / "length.txt").read_text() == "7"
    assert not (report.folder / "opencv").exists()


def test_unexpected_failures_are_tried_again_and_skipped_clips_are_not(tmp_path):
    clips = names_as_clips(tmp_path, "key", "skip", "good1", "good2")
    list_clips(tmp_path, "key", "skip", "good1", "good2")
    process = Counting(config(tmp_path, clips))
    prepare_clips(process, workers=1, show_progress=False)
    again = [
        clip.id for clip in process.corpus.to_prepare() if not process.prepared.is_current(clip)
    ]
    assert again == ["key"]


def test_lists_are_made_of_usable_clips_only(tmp_path):
    clips = names_as_clips(tmp_path, "key", "skip", "good1", "good2", "good3")
    count(tmp_path, clips)
    splits = [read_filelist(tmp_path / "filelist" / f"{s}.txt") for s in ("train", "val", "test")]
    assert [len(names) for names in splits] == [1, 1, 1]
    assert sorted(sum(splits, [])) == ["good1", "good2", "good3"]


def test_existing_lists_are_never_changed(tmp_path):
    clips = names_as_clips(tmp_path, "skip", "good1", "good2", "good3")
    list_clips(tmp_path, "good1", "skip")
    before = {p.name: p.read_text() for p in (tmp_path / "filelist").iterdir()}
    report = count(tmp_path, clips)
    assert sorted(report.markers) == ["good1", "skip"]
    assert {p.name: p.read_text() for p in (tmp_path / "filelist").iterdir()} == before


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_stops_the_run(tmp_path, workers):
    clips = names_as_clips(tmp_path, "a", "disk", "c")
    with pytest.raises(EnvironmentProblem, match="disk or quota full"):
        count(tmp_path, clips, workers)


def test_markers_say_what_was_read(tmp_path):
    clips = names_as_clips(tmp_path, "a", "b", "c")
    process = Counting(config(tmp_path, clips))
    prepare_clips(process, workers=1, show_progress=False)
    marker = json.loads((process.folder / ".status" / "a.json").read_text())
    name, size, _ = marker["fingerprint"]["inputs"][0]
    assert (name, size, marker["status"], marker["frames"]) == ("a.mp4", 1, "ok", 3)


def test_copied_clips_are_not_prepared_again_and_changed_ones_are(tmp_path):
    clips = names_as_clips(tmp_path, "a", "b")
    process = Counting(config(tmp_path, clips))
    prepare_clips(process, workers=1, show_progress=False)
    for path in clips.glob("*.mp4"):  # as after a copy
        os.utime(path, (1e9, 1e9))
    assert prepare_clips(process, workers=1, show_progress=False).fresh == 0
    marker = json.loads((process.folder / ".status" / "a.json").read_text())
    assert marker["times"] == [1_000_000_000]  # so that it need not be read next time
    (clips / "a.mp4").write_bytes(b"Z")  # the same size
    os.utime(clips / "a.mp4", (2e9, 2e9))
    assert prepare_clips(process, workers=1, show_progress=False).fresh == 1
    # A marker of version 0.1.0 has the time in the place of the hash.
    marker["fingerprint"]["inputs"][0][2] = 2_000_000_000
    del marker["times"]
    (process.folder / ".status" / "a.json").write_text(json.dumps(marker))
    assert prepare_clips(process, workers=1, show_progress=False).fresh == 0


def test_a_file_that_could_not_be_read_is_tried_again(tmp_path, monkeypatch):
    """A new permission changes neither its size nor its time."""
    from talkingface.data.dataprocess import prepared

    process = Counting(config(tmp_path, names_as_clips(tmp_path, "a", "b", "c")))

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(prepared, "sha256_of", refuse)
        assert prepare_clips(process, workers=1, show_progress=False).fresh == 3
        assert prepare_clips(process, workers=1, show_progress=False).fresh == 0
    assert prepare_clips(process, workers=1, show_progress=False).fresh == 3


def test_a_root_that_already_names_the_processor_is_accepted(tmp_path):
    cfg = config(tmp_path, tmp_path, preprocessed_root=str(tmp_path / "processed" / "imgs"))
    assert FaceCropProcess(cfg).folder == tmp_path / "processed" / "imgs"
