"""Shards, dying workers, kills at the worst moment, bad datasets, scene cuts: the whole engine."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import re
import shutil
import signal
import threading
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
    settings,
    stamps,
    start,
    tree,
)

from talkingface.data.clips import Clip
from talkingface.data.dataprocess.base import ProcessReport
from talkingface.data.dataprocess.engine import prepare_clips
from talkingface.data.dataprocess.executors import parse_shard
from talkingface.data.dataprocess.prepared import PreparedClips
from talkingface.data.dataset.hyperlips.hyperlipsbase_dataset import HyperLipsBaseDataset
from talkingface.data.filelists import read_filelist
from talkingface.data.media.audio import load_audio
from talkingface.data.media.reader import read_frames
from talkingface.data.media.writer import VideoWriter
from talkingface.data.synthetic.source import SHIPPED
from talkingface.errors import ConfigError, EnvironmentProblem, StageError
from talkingface.utils.locks import file_lock
from talkingface.utils.paths import is_temporary, write_json, write_text

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def clips(tiny_synthetic: Path) -> Path:
    return tiny_synthetic / "dataset" / "Synthetic-tiny" / "data"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, clips) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    prepare(root, clips)
    return root


def lists(root: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (root / "filelist").glob("*.txt")}


def temporary_folders(root: Path) -> list[Path]:
    return list((root / "preprocessed_data").rglob(".*.tmp*"))


# -- shards ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3)))[1::2])
def test_shards_in_any_order_give_what_one_run_gives(tmp_path, clips, undisturbed, order):
    for done, number in enumerate(order, 1):
        before = stamps(tmp_path)
        report = prepare(tmp_path, clips, shard=f"{number}/3")
        assert report.fresh == (2 if number == 1 else 1)  # of four clips
        assert report.pending == 4 - len(report.markers)
        assert (report.pending == 0) == (done == 3)
        last = {"imgs/report.html", "imgs/report.csv"}
        assert (last <= set(tree(tmp_path))) == (done == 3)
        assert len(lists(tmp_path)) == (3 if done == 3 else 0)
        assert before.items() <= stamps(tmp_path).items()  # nobody else's clip was touched
    assert tree(tmp_path) == tree(undisturbed)
    assert lists(tmp_path) == lists(undisturbed)


def test_two_shards_at_once_give_what_one_run_gives(tmp_path, session_root, clips, undisturbed):
    runs = [start(session_root, tmp_path, clips, shard=f"{number}/2") for number in (1, 2)]
    for process in runs:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        assert "(2 processed now)" in output
    assert tree(tmp_path) == tree(undisturbed)
    assert lists(tmp_path) == lists(undisturbed)


def in_thread(*args: object, **more: object) -> threading.Thread:
    thread = threading.Thread(target=count, args=args, kwargs=more, daemon=True)
    thread.start()
    return thread


def test_a_shard_waits_for_no_other_shard_but_for_its_own_twin(tmp_path):
    clips = names_as_clips(tmp_path, *"abcd")
    status = tmp_path / "preprocessed_data" / "counting" / ".status"
    with file_lock(status / ".lock", shared=True), file_lock(status / ".lock-2-2"):
        twin = in_thread(tmp_path, clips, shard="2/2")
        other = in_thread(tmp_path, clips, shard="1/2")
        other.join(20)
        assert not other.is_alive() and twin.is_alive()
        assert sorted(path.stem for path in status.glob("*.json")) == ["a", "c"]
    twin.join(20)
    assert sorted(path.stem for path in status.glob("*.json")) == ["a", "b", "c", "d"]


def test_a_run_without_shards_waits_for_all_of_them(tmp_path):
    clips = names_as_clips(tmp_path, *"abcd")
    status = tmp_path / "preprocessed_data" / "counting" / ".status"
    with file_lock(status / ".lock", shared=True):  # some shard is at work
        whole = in_thread(tmp_path, clips)
        whole.join(0.5)
        assert whole.is_alive() and not list(status.glob("*.json"))
    whole.join(20)
    assert len(list(status.glob("*.json"))) == 4


def test_a_shard_that_is_run_again_does_nothing(tmp_path):
    clips = names_as_clips(tmp_path, *"abcde")
    for shard in ("1/2", "2/2"):
        count(tmp_path, clips, shard=shard)
    before = stamps(tmp_path)
    assert [count(tmp_path, clips, shard=f"{n}/2").fresh for n in (1, 2)] == [0, 0]
    assert stamps(tmp_path) == before


def test_more_shards_than_clips_are_no_problem(tmp_path):
    clips = names_as_clips(tmp_path, *"abc")
    reports = [count(tmp_path, clips, shard=f"{number}/5") for number in range(1, 6)]
    assert [report.fresh for report in reports] == [1, 1, 1, 0, 0]
    assert sorted(reports[-1].markers) == ["a", "b", "c"]


def test_clips_of_other_settings_are_pending_until_their_shard_ran(tmp_path, clips):
    prepare(tmp_path, clips)
    smaller = {"data.max_crop": 64}
    report = prepare(tmp_path, clips, shard="1/2", **smaller)
    assert (report.fresh, report.pending, len(report.markers)) == (2, 2, 2)
    assert "2 clips are still to be prepared by other shards" in report.describe()
    assert prepare(tmp_path, clips, shard="2/2", **smaller).pending == 0


def test_the_last_shard_judges_the_whole_dataset(tmp_path):
    clips = names_as_clips(tmp_path, "skip1", "good1", "skip2", "skip3")
    count(tmp_path, clips, shard="1/2")  # of these two, one is bad
    with pytest.raises(StageError, match="3 of 4 clips"):
        count(tmp_path, clips, shard="2/2")
    assert lists(tmp_path) == {}


@pytest.mark.parametrize("shard", ["0/3", "4/3", "a/b", "1/0", "1", "-1/2", "1/2/3", "", "1.0/2"])
def test_a_wrong_shard_is_a_config_error(tmp_path, shard):
    with pytest.raises(ConfigError, match="shard"):
        config(tmp_path, tmp_path, shard=shard)


def test_a_shard_is_read_as_part_and_whole():
    assert [parse_shard(text) for text in (None, "1/1", "7/12")] == [(1, 1), (1, 1), (7, 12)]


@pytest.mark.parametrize("shard", ["0/3", "4/3", "a/b"])
def test_a_wrong_shard_ends_with_exit_status_2(run_cli, shard):
    done = run_cli(["--model=HyperLipsBase", "--dataset=MEAD", f"--shard={shard}"])
    assert done.returncode == 2
    assert "shard" in done.stderr and "Traceback" not in done.stderr


# -- kills and dying workers -----------------------------------------------------------------------


class Drawing(Counting):
    """Also writes an array, and something in the place of a sheet."""

    def process_clip(self, clip: Clip, out: Path):
        np.save(out / "length.npy", np.arange(len(clip.id)))
        write_text(self.prepared.sheet_path(clip.id), f"picture of {clip.id}")
        return super().process_clip(clip, out)


def draw(root: Path, clips: Path) -> ProcessReport:
    cfg = config(root, clips, stages=["preprocess"])
    return prepare_clips(Drawing(cfg), workers=1, show_progress=False)


def die_writing(victim: str, *args: Path) -> None:
    """Prepare, and die when the file ``victim`` is complete but does not bear its name yet."""
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if Path(target).name == victim:
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)

    os.replace = replace
    draw(*args)


@pytest.mark.parametrize("victim", ["report.html", "report.csv", "b.json", "c.jpg"])
def test_a_kill_while_a_file_is_written_leaves_the_old_one_or_the_new_one(tmp_path, victim):
    clips = names_as_clips(tmp_path, "a")
    draw(tmp_path, clips)
    before = tree(tmp_path)
    names_as_clips(tmp_path, "b", "c")
    process = multiprocessing.get_context("fork").Process(
        target=die_writing, args=(victim, tmp_path, clips)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    after = tree(tmp_path)
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed == ({"counting/report.csv"} if victim == "report.html" else set())
    prepared = tmp_path / "preprocessed_data"
    (left,) = [path for path in prepared.rglob("*") if is_temporary(path) and path.is_file()]
    assert left.name.startswith(victim)
    draw(tmp_path, clips)
    assert not [path for path in prepared.rglob("*") if is_temporary(path)]
    draw(tmp_path / "reference", clips)
    assert tree(tmp_path) == tree(tmp_path / "reference")


class InParts(Counting):
    """A layout with the clip's folder below each of two parts, as stage 2 of HyperLips has it."""

    def __init__(self, cfg):
        super().__init__(cfg)
        self.prepared = PreparedClips(self, ("PICTURES", "NUMBERS"))

    def process_clip(self, clip: Clip, out: Path):
        for part in self.prepared.parts:
            (out / part).mkdir()
        (out / "PICTURES" / "0.jpg").write_text(clip.id)
        (out / "NUMBERS" / "n.txt").write_text(str(len(clip.id)))
        result = super().process_clip(clip, out)
        (out / "length.txt").unlink()
        return result


def in_parts(root: Path, clips: Path, workers: int = 1) -> ProcessReport:
    process = InParts(config(root, clips, stages=["preprocess"]))
    return prepare_clips(process, workers=workers, show_progress=False)


def test_a_layout_in_parts_holds_each_clip_once_per_part_and_nothing_of_bad_ones(tmp_path):
    clips = names_as_clips(tmp_path, "a/x", "y", "skip me", "key")
    report = in_parts(tmp_path, clips)
    files = {p.relative_to(report.folder).as_posix() for p in report.folder.rglob("*.*")}
    assert {f for f in files if f.startswith(("PICTURES", "NUMBERS"))} == {
        *("PICTURES/a/x/0.jpg", "PICTURES/y/0.jpg", "NUMBERS/a/x/n.txt", "NUMBERS/y/n.txt")
    }
    assert temporary_folders(tmp_path) == []
    assert in_parts(tmp_path, clips).fresh <= 1  # an unforeseen failure is tried again, no other


def test_a_clip_in_parts_is_made_again_when_one_of_its_parts_is_gone(tmp_path):
    clips = names_as_clips(tmp_path, "x", "y")
    folder = in_parts(tmp_path, clips).folder
    shutil.rmtree(folder / "NUMBERS" / "x")
    assert in_parts(tmp_path, clips).fresh == 1
    assert (folder / "NUMBERS" / "x" / "n.txt").is_file()


def die_between_parts(*args: Path) -> None:
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if Path(target).parent.name == "NUMBERS":
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)

    os.replace = replace
    in_parts(*args)


def test_a_kill_between_two_parts_leaves_a_clip_that_is_made_again(tmp_path):
    clips = names_as_clips(tmp_path, "x")
    process = multiprocessing.get_context("fork").Process(
        target=die_between_parts, args=(tmp_path, clips)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert in_parts(tmp_path, clips).fresh == 1
    assert temporary_folders(tmp_path) == []


DEATHS = ("a/kill [1]", "b once", "once c", *(f"good{number:02}" for number in range(9)))


@pytest.fixture(scope="module")
def deaths(tmp_path_factory) -> tuple[Path, ProcessReport]:
    """Two workers; one clip always kills its process, two others only the first time."""
    root = tmp_path_factory.mktemp("deaths")
    return root, count(root, names_as_clips(root, *DEATHS), workers=2)


def test_a_clip_that_kills_its_worker_costs_no_other_clip(deaths):
    _, report = deaths
    assert report.of("failed") == ["a/kill [1]"]
    assert "process died" in report.markers["a/kill [1]"]["reason"]
    assert sorted(report.of("ok")) == sorted(DEATHS[1:])
    assert all((report.folder / name / "length.txt").is_file() for name in DEATHS[1:])


def test_a_dead_worker_leaves_no_temporary_folder(deaths):
    root, report = deaths
    assert temporary_folders(root) == []
    assert not (report.folder / "a" / "kill [1]").exists()


def test_a_clip_that_killed_its_worker_is_tried_again_and_no_other(deaths, tmp_path):
    root = shutil.copytree(deaths[0], tmp_path / "copy")
    raw = root / "data" / "a" / "kill [1].mp4"
    raw.rename(raw.with_name("cured.mp4"))
    names_as_clips(root, "a/once again")
    list_clips(root, "a/cured", "a/once again", *DEATHS[1:])
    assert count(root, root / "data", workers=2).fresh == 2


def test_a_dead_clip_gives_up_what_an_earlier_version_of_it_gave(tmp_path, monkeypatch):
    clips = names_as_clips(tmp_path, "kill", "good1", "good2", "good3")
    old = tmp_path / "preprocessed_data" / "counting" / "kill"
    old.mkdir(parents=True)
    (old / "length.txt").write_text("of an earlier version")
    marker = {"clip": "kill", "status": "ok", "fingerprint": {}, "frames": 1, "seconds": 1.0}
    write_json(old.parent / ".status" / "kill.json", marker)
    report = count(tmp_path, clips, workers=2)
    assert report.of("failed") == ["kill"]
    assert not old.exists()


# -- files of the user, and damaged ones ---------------------------------------------------------


def test_a_folder_that_is_not_ours_is_never_replaced(tmp_path):
    clips = names_as_clips(tmp_path, "a", "b", "c")
    mine = tmp_path / "preprocessed_data" / "counting" / "b" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    with pytest.raises(EnvironmentProblem, match="b would be replaced.*not made by this toolkit"):
        count(tmp_path, clips)
    assert mine.read_text() == "precious"


@pytest.mark.parametrize("damage", ["empty", "cut", "missing", "flipped"])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    clips = names_as_clips(tmp_path, "a", "b", "c", "d")
    draw(tmp_path, clips)
    reference = tree(tmp_path)
    path = tmp_path / "preprocessed_data" / "counting" / "b" / "length.npy"
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        flipped = data[:-1] + bytes([data[-1] ^ 1])
        path.write_bytes({"empty": b"", "cut": data[:-3], "flipped": flipped}[damage])
    assert draw(tmp_path, clips).fresh == 1
    assert tree(tmp_path) == reference
    assert draw(tmp_path, clips).fresh == 0


def test_a_linked_folder_loses_its_link_and_not_its_content(tmp_path):
    clips = names_as_clips(tmp_path, "a", "b", "c", "d")
    draw(tmp_path, clips)
    folder = tmp_path / "preprocessed_data" / "counting" / "b"
    elsewhere = folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(elsewhere)
    assert draw(tmp_path, clips).fresh == 0
    (elsewhere / "length.npy").write_bytes(b"")
    assert draw(tmp_path, clips).fresh == 1
    assert not folder.is_symlink() and (elsewhere / "length.npy").read_bytes() == b""


# -- bad datasets and what is said -----------------------------------------------------------------


@pytest.mark.slow
def test_a_mostly_bad_dataset_ends_with_status_3_reasons_and_a_report(
    tmp_path, session_root, clips, run_cli
):
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(clips / "p00" / "p00_000.mp4", data / "good.mp4")
    for number in range(3):
        (data / f"text{number}.mp4").write_text(f"this is not video {number}")
    (data / "nothing.mp4").touch()
    args = [f"--{key}={value}" for key, value in settings(tmp_path, data).items()]
    cached = {"TALKINGFACE_ROOT": str(session_root)}
    done = run_cli(["--model=HyperLipsBase", "--dataset=MEAD", *args], env=cached)
    assert done.returncode == 3, done.stderr
    assert "4 of 5 clips of MEAD are unusable (max_failed_ratio = 0.5)" in done.stderr
    assert re.search(r"not usable, Not a media file\b.*: 3 \(text0, text1, text2\)", done.stderr)
    assert "Traceback" not in done.stderr
    folder = tmp_path / "preprocessed_data" / "imgs"
    for name in ("report.html", "report.csv"):
        text = (folder / name).read_text("utf-8")
        assert all(clip in text for clip in ("good", "text0", "text1", "text2", "nothing")), name
    assert not (tmp_path / "filelist").exists()


def test_a_shard_run_stops_after_preparing_and_says_what_is_missing(
    tmp_path, session_root, clips, run_cli
):
    """One bad clip among good ones does no harm either."""
    data = Path(shutil.copytree(clips, tmp_path / "data"))
    (data / "bad.mp4").write_text("this is not a video")
    args = [f"--{key}={value}" for key, value in settings(tmp_path, data).items()]
    done = run_cli(
        ["--model=HyperLipsBase", "--dataset=MEAD", "--shard=1/2", *args],
        env={"TALKINGFACE_ROOT": str(session_root)},
    )
    assert done.returncode == 0, done.stderr
    assert "2 of 3 clips usable" in done.stdout
    assert "not usable, Not a media file" in done.stdout and "(bad)" in done.stdout
    assert "2 clips are still to be prepared by other shards" in done.stdout
    assert not list(session_root.glob("saved/HyperLipsBase/MEAD/*"))  # it did not train
    text = prepare(tmp_path, data, shard="2/2").describe()
    assert text.startswith("4 of 5 clips usable")
    assert "still to be prepared" not in text and "report.html" in text
    listed = [read_filelist(tmp_path / "filelist" / f"{split}.txt") for split in SPLITS]
    assert sorted(sum(listed, [])) == [f"p0{n}/p0{n}_00{i}" for n in (0, 1) for i in (0, 1)]


@pytest.fixture
def package_log(caplog, monkeypatch):
    """The package's own log; it does not reach the root logger after a command ran."""
    package = logging.getLogger("talkingface")
    monkeypatch.setattr(package, "propagate", False)
    package.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, logger="talkingface"):
        yield caplog
    package.removeHandler(caplog.handler)


def test_long_preparations_tell_how_far_they_are_without_a_terminal(tmp_path, package_log):
    names = [f"{number:03}{'skip' if number % 10 == 0 else ''}" for number in range(250)]
    report = count(tmp_path, names_as_clips(tmp_path, *names, "key"))
    lines = [m for m in package_log.messages if m.startswith("prepared ")]
    pattern = r"prepared (\d+) of 251 clips, (\d+) frames/s, (\d+) unusable \(wanted \3\)"
    found = [re.fullmatch(pattern, line) for line in lines]
    assert [(m[1], m[3]) for m in found] == [("100", "10"), ("200", "20")], lines
    assert all(0 < int(m[2]) < 10**6 for m in found)
    text = report.describe()
    assert text.startswith("225 of 251 clips usable, 675 frames, 225 s (251 processed now)\n")
    assert "not usable, wanted: 25 (000skip, 010skip, 020skip, ...)" in text
    assert "not usable, unexpected KeyError: 1 (key)" in text


def test_reasons_that_begin_alike_name_their_own_clips():
    report = ProcessReport(Path("imgs"))
    for name, reason in (("a", "no sound: x"), ("b", "no sound in the file"), ("c", "no sound: y")):
        marker = {"status": "skipped", "reason": reason, "frames": 0, "seconds": 0.0}
        report.markers[name] = marker
    assert "not usable, no sound: 2 (a, c)\n" in report.describe()
    assert "not usable, no sound in the file: 1 (b)\n" in report.describe()


# -- pictures, cuts and segments -------------------------------------------------------------------

CUT = 24


@pytest.fixture(scope="module")
def cut_report(tmp_path_factory) -> tuple[Path, Path, ProcessReport]:
    """Clips with a hard cut in the middle, made of Synthetic ones, and one that loses the face."""
    root = tmp_path_factory.mktemp("cuts")
    source = SHIPPED / "data/p02/p02_000.mp4"
    one = list(read_frames(source, fps=25))
    other = list(read_frames(SHIPPED / "data/p04/p04_000.mp4", fps=25))
    dark = [np.roll(frame // 2, (10, -30), (0, 1)) for frame in one[CUT : 2 * CUT]]
    wave = load_audio(source, 16000)
    contents = {
        "one_person": one[:CUT] + dark,
        "two_persons": one[: CUT + 6] + other[:CUT],
        "lost": one[:12] + [np.full_like(one[0], 90)] * 30,
    }
    (root / "data").mkdir()
    for name, frames in contents.items():
        sound = wave[: len(frames) * 640] * 0.9
        with VideoWriter(root / "data" / f"{name}.mp4", 25, audio=(sound, 16000)) as writer:
            for frame in frames:
                writer.write(frame)
    list_clips(root, *contents)
    return root, root / "data", prepare(root, root / "data")


def test_a_cut_begins_a_new_segment_and_a_missing_person_has_none(cut_report):
    _, _, report = cut_report
    segments, found = {}, {}
    for name in ("one_person", "two_persons"):
        with np.load(report.folder / name / "face.npz") as data:
            segments[name], found[name] = data["segments"].tolist(), data["found"].tolist()
    assert segments["one_person"] == [0] * CUT + [1] * CUT
    assert all(found["one_person"])
    assert segments["two_persons"] == [0] * (CUT + 6) + [-1] * CUT
    assert found["two_persons"] == [True] * (CUT + 6) + [False] * CUT
    assert report.flags["one_person"]["max_cuts"] == "1 scene cut(s)"
    assert set(report.flags["two_persons"]) >= {"max_cuts", "max_persons"}


def test_no_training_window_crosses_a_cut(cut_report):
    root, data, _ = cut_report
    dataset = HyperLipsBaseDataset(config(root, data), "train")
    starts = {clip.id: clip.starts.tolist() for clip in dataset.clips}
    length = dataset.length
    # The first frame has no mel of the frame before; the mels end before the last windows.
    first = list(range(1, CUT - length + 1))
    assert starts["one_person"][: len(first)] == first
    rest = starts["one_person"][len(first) :]
    assert rest and rest == list(range(CUT, CUT + len(rest)))
    assert max(starts["two_persons"]) == CUT + 6 - length
    assert dataset.unusable["lost"].startswith("face lost")


@pytest.mark.parametrize("name", ["one_person", "two_persons", "lost"])
def test_usable_clips_and_those_that_lose_the_face_get_a_sheet(cut_report, name):
    _, _, report = cut_report
    marker = report.markers[name]
    reason = "face lost: found in 29% of the frames" if name == "lost" else None
    assert (marker["status"], marker.get("reason")) == ("skipped" if reason else "ok", reason)
    image = cv2.imread(str(report.folder / ".report" / f"{name}.jpg")).astype(int)
    assert image.shape == (230, 900, 3)
    blue, green, red = (image[..., channel] for channel in range(3))
    frames, cut = {"one_person": (48, 24), "two_persons": (54, 30), "lost": (42, 12)}[name]
    columns = np.flatnonzero((blue - red > 60)[150:].sum(axis=0) > 40)  # JPEG blurs colours
    assert len(columns) and np.abs(columns - cut / frames * 900).max() <= 2
    curve = np.flatnonzero((red - blue > 40)[150:].any(axis=0))
    assert curve.min() < 30 and curve.max() > (850 if name == "one_person" else 200)
    assert name == "one_person" or curve.max() < cut / frames * 900
    mesh = [
        ((green - np.maximum(red, blue))[:150, x : x + 150] > 60).sum() for x in range(0, 900, 150)
    ]
    faces = {"one_person": 6, "two_persons": 3, "lost": 2}[name]
    assert min(mesh[:faces]) > 150 and max(mesh[faces:], default=0) < 30, mesh


def test_no_sheet_is_left_of_a_clip_that_turned_bad(tmp_path, clips):
    data = Path(shutil.copytree(clips, tmp_path / "data"))
    list_clips(tmp_path, "p00/p00_000", "p01/p01_000")
    first = prepare(tmp_path, data)
    sheet = first.folder / ".report" / "p00" / "p00_000.jpg"
    assert sheet.exists()
    (data / "p00" / "p00_000.mp4").write_text("this is not a video")
    assert prepare(tmp_path, data).of("skipped") == ["p00/p00_000"]
    assert not sheet.exists()
    assert str(sheet.name) not in (first.folder / "report.html").read_text("utf-8")
