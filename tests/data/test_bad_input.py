"""Bad input: what is wrong, where it is and how to go on, with the promised exit status."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import run_command

from talkingface.cli import main
from talkingface.data.dataprocess.engine import prepare_clips
from talkingface.errors import EnvironmentProblem
from talkingface.utils.paths import explain_os_errors, write_text

pytest.importorskip("av")
pytest.importorskip("mediapipe")

from talkingface.data.media.reader import read_frames
from talkingface.data.media.writer import VideoWriter

PREPARE = ["--model=HyperLipsBase", "--preset=tiny", "--stages=preprocess", "--process_workers=1"]

# clip: (status of its marker, words of the reason)
TABLE = {
    "no face": ("skipped", ("no face",)),
    "no sound": ("skipped", ("no audio track", ".wav")),
    "three frames": ("skipped", ("too short", "3 frames")),
    "truncated": ("skipped", ("truncated.mp4",)),
    "empty": ("skipped", ("empty",)),
    "text": ("skipped", ("text.mp4",)),
    "好 clip's #1.take.2": ("ok", ()),
    "with wav": ("ok", ()),
}


def make_bad(folder: Path, name: str, clip: Path, noise_video) -> Path:
    path = folder / f"{name}.mp4"
    frames = list(read_frames(clip, fps=25))
    if name == "no face":
        noise_video(path)
    elif name == "no sound":
        with VideoWriter(path, 25) as writer:
            for frame in frames[:30]:
                writer.write(frame)
    elif name == "with wav":  # no sound track, but a sound file beside it
        (folder / "elsewhere").mkdir()
        make_bad(folder / "elsewhere", "no sound", clip, noise_video).rename(path)
        (folder / "elsewhere").rmdir()
        rng = np.random.default_rng(3)
        from talkingface.data.media.audio import save_wav

        save_wav(folder / "with wav.wav", rng.normal(0, 0.1, 30 * 640).astype(np.float32), 16000)
    elif name == "three frames":
        with VideoWriter(path, 25, audio=(np.zeros(1920, np.float32) + 0.1, 16000)) as writer:
            for frame in frames[:3]:
                writer.write(frame)
    elif name == "truncated":
        path.write_bytes(clip.read_bytes()[:700])
    elif name == "empty":
        path.write_bytes(b"")
    elif name == "text":
        path.write_text("This is not a video.\n" * 40)
    else:
        shutil.copy(clip, path)
    return path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, talking_clip, noise_video):
    """A project in an odd place whose only dataset holds every kind of clip; prepared once."""
    root = tmp_path_factory.mktemp("坏 data's & more")
    folder = root / "dataset/MEAD/data/a speaker"
    folder.mkdir(parents=True)
    for name in TABLE:
        make_bad(folder, name, talking_clip, noise_video)
    done = run_command([*PREPARE, "--dataset=MEAD", "--max_failed_ratio=0.9"], root)
    return root, done


@pytest.mark.parametrize(("clip", "expected"), TABLE.items(), ids=list(TABLE))
def test_one_bad_clip_is_skipped_with_its_reason_and_the_others_are_used(prepared, clip, expected):
    root, done = prepared
    assert done.returncode == 0, done.stderr
    folder = root / "dataset/MEAD/preprocessed_data/imgs"
    marker = json.loads((folder / f".status/a speaker/{clip}.json").read_text("utf-8"))
    status, words = expected
    assert marker["status"] == status, marker
    assert all(word in marker["reason"] for word in words), marker["reason"]
    assert (folder / f"a speaker/{clip}").is_dir() == (status == "ok")


def test_the_report_counts_the_usable_clips_and_names_the_others(prepared):
    _, done = prepared
    text = done.stdout + done.stderr
    assert "2 of 8 clips usable" in text
    for name in ("no face", "three frames", "truncated"):
        assert f"a speaker/{name}" in text
    assert "Traceback" not in text and "unexpected" not in text


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no face", "no face"),
        ("no sound", "no sound"),
        ("three frames", "too short"),
        ("truncated", "moov"),
        ("text", "Not a media file"),
    ],
)
def test_a_dataset_of_only_bad_clips_exits_3_with_the_reason(
    root, capsys, talking_clip, noise_video, name, reason
):
    folder = root / "dataset/MEAD/data"
    folder.mkdir(parents=True)
    make_bad(folder, name, talking_clip, noise_video)
    assert main([*PREPARE, "--dataset=MEAD"]) == 3
    err = capsys.readouterr().err
    assert "1 of 1 clips of MEAD are unusable" in err and "max_failed_ratio" in err
    assert reason in err and f"({name})" in err and "report.html" in err


@pytest.mark.parametrize("stages", ["preprocess", "preprocess,train,evaluate"])
def test_an_empty_data_folder_exits_3_and_says_where_clips_belong(root, run_cli, stages):
    folder = root / "dataset/MEAD/data"
    folder.mkdir(parents=True)
    done = run_cli(["--model=HyperLipsBase", "--dataset=MEAD", f"--stages={stages}"], timeout=60)
    assert done.returncode == 3
    assert f"No video was found below {folder}" in done.stderr
    assert "--data_root" in done.stderr and "MEAD.html" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_data_folder_that_does_not_exist_exits_3_too(root, capsys):
    assert main([*PREPARE, "--dataset=MEAD", "--data_root=nowhere"]) == 3
    assert str(root / "nowhere") in capsys.readouterr().err


def test_training_without_preparation_names_the_stage_that_is_missing(root, capsys):
    assert main(["--model=HyperLipsBase", "--dataset=MEAD", "--stages=train"]) == 2
    err = capsys.readouterr().err
    assert "train.txt does not exist" in err and "preprocess" in err
    assert err.count("does not exist") == 2  # train and val are listed at once


def test_an_empty_list_exits_3_and_is_named(root, capsys, talking_clip):
    folder = root / "dataset/MEAD"
    (folder / "data").mkdir(parents=True)
    (folder / "filelist").mkdir()
    shutil.copy(talking_clip, folder / "data/a.mp4")
    for split in ("train", "val", "test"):
        (folder / "filelist" / f"{split}.txt").write_text("" if split == "train" else "a\n")
    assert main([*PREPARE, "--dataset=MEAD"]) == 3
    assert f"{folder / 'filelist/train.txt'} is empty" in capsys.readouterr().err


def test_a_list_of_clips_that_do_not_exist_exits_3(root, capsys, talking_clip):
    folder = root / "dataset/MEAD"
    (folder / "data").mkdir(parents=True)
    (folder / "filelist").mkdir()
    shutil.copy(talking_clip, folder / "data/a.mp4")
    for split in ("train", "val", "test"):
        (folder / "filelist" / f"{split}.txt").write_text("gone\n")
    assert main([*PREPARE, "--dataset=MEAD"]) == 3
    assert str(folder / "filelist") in capsys.readouterr().err


def test_one_missing_list_is_never_made_up(root, capsys, talking_clip):
    folder = root / "dataset/MEAD"
    (folder / "data").mkdir(parents=True)
    (folder / "filelist").mkdir()
    shutil.copy(talking_clip, folder / "data/a.mp4")
    (folder / "filelist/train.txt").write_text("a\n")
    assert main([*PREPARE, "--dataset=MEAD"]) == 2
    err = capsys.readouterr().err
    assert "val.txt" in err and "test.txt" in err and "delete all three" in err


HARD = {
    "no_face_hands_only.mp4": "no face",
    "no_audio_track.mp4": "no audio track",
    "very_short_5_frames.mp4": "too short",
    "one_frame.mp4": "one_frame.mp4",
    "empty_file.mp4": "empty",
    "git_lfs_pointer.mp4": "git_lfs_pointer.mp4",
    "truncated_no_moov.mp4": "truncated_no_moov.mp4",
    "text_renamed.mp4": "text_renamed.mp4",
    "audio_only.mov": "no picture",
    "silent_audio_track.mp4": "silent",
}


@pytest.fixture(scope="module")
def hard_report(tmp_path_factory, hard_cases, talking_clip):
    root = tmp_path_factory.mktemp("hard")
    folder = root / "dataset/MEAD/data"
    folder.mkdir(parents=True)
    for name in HARD:
        shutil.copy(hard_cases / name, folder / name)
    shutil.copy(talking_clip, folder / "good.mp4")
    done = run_command(
        ["--model=HyperLipsBase", "--dataset=MEAD", "--preset=tiny", "--stages=preprocess",
         "--max_failed_ratio=0.95"],
        root,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return root / "dataset/MEAD/preprocessed_data/imgs/.status"


@pytest.mark.parametrize(("name", "word"), HARD.items())
def test_a_real_awkward_file_is_skipped_with_a_reason_that_fits(hard_report, name, word):
    marker = json.loads((hard_report / f"{Path(name).stem}.json").read_text("utf-8"))
    assert marker["status"] == "skipped", marker
    assert word in marker["reason"] or (word == name and len(marker["reason"]) > 10)


# -- disks and permissions ------------------------------------------------------------------------

_MS_RDONLY, _MS_REMOUNT = 1, 32  # of <sys/mount.h>


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A RAM disk of that size on a folder; needs root on Linux, else the test is skipped."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root on Linux")
    folder.mkdir(parents=True, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={size}".encode()
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, options) != 0:
        pytest.skip(f"a RAM disk cannot be mounted: {os.strerror(ctypes.get_errno())}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a mounted RAM disk read-only: unlike file modes, that binds root too."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _MS_REMOUNT | _MS_RDONLY
    assert libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, None) == 0
    yield


def test_too_little_free_disk_exits_2_before_any_work(root, run_cli):
    with small_disk(root / "dataset", "8m"):
        done = run_cli(["--model=HyperLipsBase", "--dataset=Synthetic", "--preset=tiny"])
        assert done.returncode == 2
        assert "MiB are free" in done.stderr and "TALKINGFACE_ROOT" in done.stderr
        assert str(root / "dataset") in done.stderr
        assert not any((root / "dataset").rglob("*.mp4"))


def test_a_disk_that_fills_up_is_explained_and_leaves_no_part(root, talking_clip):
    with small_disk(root / "disk", "64k") as disk:
        with pytest.raises(EnvironmentProblem, match="(?i)disk.*full.*Free some space") as caught:
            write_text(disk / "long.txt", "x" * 200_000)
        assert str(disk / "long.txt") in str(caught.value)
        with pytest.raises(EnvironmentProblem, match="full"):
            rng = np.random.default_rng(0)
            with VideoWriter(disk / "long.mp4", 25, crf=0) as writer:
                for _ in range(50):
                    writer.write(rng.integers(0, 255, (128, 128, 3), dtype=np.uint8))
        assert list(disk.iterdir()) == []


def test_a_preparation_on_a_full_disk_stops_with_a_reason_and_goes_on_later(root, talking_clip):
    from talkingface.config.config import load_config

    data = root / "dataset/MEAD/data"
    data.mkdir(parents=True)
    for number in range(3):
        shutil.copy(talking_clip, data / f"clip{number}.mp4")
    cfg = load_config("HyperLipsBase", "MEAD", preset="tiny")
    process = cfg.registry.resolve(cfg.model_entry, "dataprocess")(cfg)
    with small_disk(root / "dataset/MEAD/preprocessed_data", "900k") as disk:
        with pytest.raises(EnvironmentProblem, match="full.*Free some space") as caught:
            prepare_clips(process, workers=1)
        assert caught.value.exit_code == 2
        finished = {path.stem for path in (process.folder / ".status").glob("*.json")}
        assert finished < {"clip0", "clip1", "clip2"}
        for clip in ("clip0", "clip1", "clip2"):  # whole or not there at all
            assert (process.folder / clip).is_dir() == (clip in finished)
        subprocess.run(["mount", "-o", "remount,size=32m", str(disk)], check=True)
        report = prepare_clips(process, workers=1)
    assert len(report.of("ok")) == 3
    assert report.fresh == 3 - len(finished)


def test_raw_clips_on_a_read_only_disk_are_prepared_elsewhere(root, talking_clip, capsys):
    with small_disk(root / "dataset/MEAD/data", "8m") as data:
        for number in range(3):
            shutil.copy(talking_clip, data / f"clip{number}.mp4")
        with read_only(data):
            assert main([*PREPARE, "--dataset=MEAD"]) == 0
            assert "3 of 3 clips usable" in capsys.readouterr().out
            assert len(list(data.iterdir())) == 3


def test_a_read_only_project_exits_2_and_says_what_to_set(root, run_cli, talking_clip):
    with small_disk(root / "disk", "8m") as disk:
        data = disk / "dataset/MEAD/data"
        data.mkdir(parents=True)
        shutil.copy(talking_clip, data / "clip.mp4")
        with read_only(disk):
            done = run_cli(
                ["--model=HyperLipsBase", "--dataset=MEAD"], env={"TALKINGFACE_ROOT": str(disk)}
            )
    assert done.returncode == 2, done.stderr
    assert "No permission to write" in done.stderr and "TALKINGFACE_ROOT" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_write_permission_is_explained(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root ignores file permissions")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    with pytest.raises(EnvironmentProblem, match="no permission"):
        write_text(locked / "a.txt", "x")


def test_a_file_where_a_folder_should_be_is_explained(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(EnvironmentProblem, match="file/below"):
        with explain_os_errors(tmp_path / "file/below"):
            (tmp_path / "file/below").mkdir()


# -- generation -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def speak(tiny_base, tone_wav, talking_clip):
    """``speak(audio=..., source=...)`` -> exit status of --infer with a trained tiny model."""

    def call(out: Path, **given: Path | str) -> int:
        files = {"audio": tone_wav, "source": talking_clip, **given}
        words = [f"--{key}={value}" for key, value in files.items()]
        return main(
            ["--infer", f"--checkpoint={tiny_base}", "--device=cpu", f"--output={out}", *words]
        )

    return call


@pytest.mark.parametrize("name", ["no face", "truncated", "empty", "text"])
def test_a_source_that_cannot_be_used_exits_2_and_is_named(
    speak, tmp_path, capsys, talking_clip, noise_video, name
):
    source = make_bad(tmp_path, name, talking_clip, noise_video)
    assert speak(tmp_path / "out.mp4", source=source) == 2
    err = capsys.readouterr().err
    assert source.name in err and TABLE[name][1][0] in err.lower()
    assert "Traceback" not in err
    assert not (tmp_path / "out.mp4").exists()


def test_a_sound_without_an_audio_track_exits_2_and_is_named(
    speak, tmp_path, capsys, talking_clip, noise_video
):
    sound = make_bad(tmp_path, "no sound", talking_clip, noise_video)
    assert speak(tmp_path / "out.mp4", audio=sound) == 2
    err = capsys.readouterr().err
    assert "no sound.mp4" in err and "audio" in err


@pytest.mark.parametrize("key", ["audio", "source", "checkpoint"])
def test_an_input_of_infer_that_does_not_exist_exits_2_and_is_named(
    tmp_path, capsys, tone_wav, talking_clip, tiny_base, key
):
    gone = tmp_path / "gone away.x"
    files = {"audio": tone_wav, "source": talking_clip, "checkpoint": tiny_base, key: gone}
    assert main(["--infer", *(f"--{name}={path}" for name, path in files.items())]) == 2
    err = capsys.readouterr().err
    assert f"--{key}" in err and "gone away.x" in err


def test_a_device_that_is_not_there_exits_2_and_says_what_to_set(root, capsys):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    words = ["--model=SyncExpert", "--dataset=Synthetic", "--preset=tiny", "--device=cuda"]
    assert main([*words, "--synthetic.persons=2"]) == 2
    err = capsys.readouterr().err
    assert "cuda" in err and "--device" in err
