"""The Synthetic dataset: lists, shipped clips, repeatability, and its truth against the tracker."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mediapipe")
pytest.importorskip("av")

from talkingface.config.config import load_config
from talkingface.data.face.scan import scan_video
from talkingface.data.face.tracking import find_persons, meshes
from talkingface.data.media.audio import load_audio
from talkingface.data.synthetic import source as module
from talkingface.data.synthetic.align import Phone
from talkingface.data.synthetic.config import SyntheticSection
from talkingface.data.synthetic.mouth import mouth_track
from talkingface.data.synthetic.people import AMPLITUDE
from talkingface.data.synthetic.source import SHIPPED, SUFFIXES, SyntheticSource
from talkingface.data.synthetic.voices import recordings
from talkingface.errors import ConfigError, DataError, EnvironmentProblem

SMALL = SyntheticSection(persons=2, clips_per_person=2, seconds=1, size=128, masks=False)
VOWELS = ("AA", "AE", "AH", "AO", "EH", "ER", "IH", "IY", "UH", "UW", "AY", "AW", "EY", "OW", "OY")


def tiny() -> SyntheticSection:
    return load_config("HyperLipsBase", "Synthetic", preset="tiny").synthetic


def contents(root: Path) -> dict[str, bytes]:
    files = (p for p in (root / "data").rglob("*") if p.is_file())
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in files}


def stamps(root: Path) -> dict[str, int]:
    return {str(p.relative_to(root)): p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSource:
    source = SyntheticSource(tmp_path_factory.mktemp("合成 data"), SMALL)
    source.ensure(show_progress=False)
    return source


# -- lists -----------------------------------------------------------------------------------------


def test_lists_keep_persons_and_sentences_apart():
    lists = SyntheticSource(Path("unused"), SyntheticSection()).lists()
    assert {name: len(clips) for name, clips in lists.items()} == {
        "train": 60, "val": 10, "test": 10, "test_persons": 16,
    }  # fmt: skip
    names = sum(lists.values(), [])
    assert len(set(names)) == 96
    people = {name: {clip[:3] for clip in clips} for name, clips in lists.items()}
    assert people["test_persons"] == {"p05", "p11", "p17", "p23"}
    assert not people["train"] & people["test_persons"]
    assert people["val"] | people["test"] == people["train"]
    plans = {p.name: p.part for p in SyntheticSource(Path("unused"), SyntheticSection()).plans()}
    assert {plans[clip] for clip in lists["train"]} == {"train"}
    assert {plans[clip] for clip in names if clip not in lists["train"]} == {"test"}


def test_a_clip_and_its_list_do_not_depend_on_how_many_there_are():
    sources = [
        SyntheticSource(Path("unused"), options)
        for options in (SyntheticSection(persons=6), SyntheticSection(clips_per_person=9))
    ]
    small, large = ({p.name: (p.settings_hash, p.part) for p in s.plans()} for s in sources)
    assert len(small) == 24 and all(large[name] == small[name] for name in small)
    small, large = (s.lists() for s in sources)
    assert all(set(small[name]) <= set(large[name]) for name in small)


def test_other_recordings_are_other_clips(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.wav").write_bytes(b"sound")
        (tmp_path / f"{name}.txt").write_text(f"text {name}")
    source = SyntheticSource(tmp_path, SMALL.model_copy(update={"voices": str(tmp_path)}))
    before = source.plans()[0].settings_hash
    (tmp_path / "a.txt").write_text("another text")
    recordings.cache_clear()
    assert source.plans()[0].settings_hash != before


# -- making ----------------------------------------------------------------------------------------


def test_the_smallest_set_has_clips_and_lists(dataset):
    lists = {p.stem: p.read_text().split() for p in (dataset.root / "filelist").iterdir()}
    assert lists == {
        "train": ["p00/p00_000", "p01/p01_000"], "val": ["p00/p00_001"], "test": ["p01/p01_001"],
    }  # fmt: skip
    assert set(contents(dataset.root)) == {
        f"data/{name}{suffix}" for clips in lists.values() for name in clips for suffix in SUFFIXES
    }
    with np.load(dataset.root / "data/p00/p00_000.truth.npz") as truth:
        assert truth["landmarks"].shape == (25, 68, 2) and "labels" not in truth.files


def test_the_number_of_processes_changes_no_byte(dataset, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("talkingface.utils.logs.PLAIN_SECONDS", -1)
    parallel = SyntheticSource(tmp_path, SMALL, workers=2)
    with caplog.at_level("INFO", "talkingface"):
        parallel.ensure(show_progress="auto")
    assert any("rendering: " in line for line in caplog.messages)  # without a terminal
    assert contents(tmp_path) == contents(dataset.root)


def test_rerun_does_nothing_and_repairs_only_what_is_missing(dataset):
    before, whole = stamps(dataset.root), contents(dataset.root)
    SyntheticSource(dataset.root, SMALL).ensure(show_progress=False)
    assert stamps(dataset.root) == before
    # Killed between picture and truth: the clip is not finished and comes back the same.
    name = dataset.plans()[2].name
    (dataset.root / "data" / f"{name}.truth.json").unlink()
    (dataset.root / "data" / f"{name}.truth.npz").write_bytes(b"half")
    dataset.ensure(show_progress=False)
    assert contents(dataset.root) == whole
    touched = {key for key, value in stamps(dataset.root).items() if before[key] != value}
    assert touched == {f"data/{name}{s}" for s in SUFFIXES}


def test_other_settings_are_rendered_anew_and_the_first_ones_again(dataset, tmp_path):
    shutil.copytree(dataset.root, tmp_path, dirs_exist_ok=True)
    SyntheticSource(tmp_path, SMALL.model_copy(update={"seed": 5})).ensure(show_progress=False)
    first, then = contents(dataset.root), contents(tmp_path)
    assert set(then) == set(first) and all(then[name] != first[name] for name in first)
    SyntheticSource(tmp_path, SMALL).ensure(show_progress=False)
    assert contents(tmp_path) == first


def test_a_list_that_the_user_changed_is_kept(tmp_path):
    half = tiny().model_copy(update={"persons": 2})
    SyntheticSource(tmp_path, half).ensure(show_progress=False)
    path = tmp_path / "filelist/train.txt"
    path.write_text("p00/p00_000\n")
    SyntheticSource(tmp_path, half).ensure(show_progress=False)
    assert path.read_text() == "p00/p00_000\n"
    SyntheticSource(tmp_path, tiny()).ensure(show_progress=False)  # other persons, other lists
    assert len(path.read_text().split()) == 5
    SyntheticSource(tmp_path, half).ensure(show_progress=False)
    assert not (tmp_path / "filelist/test_persons.txt").exists()


def test_how_long_it_takes_is_told_in_advance(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(module, "render_clip", lambda root, plan: None)
    monkeypatch.setattr(module, "frame_seconds", lambda plan: 0.1)
    SyntheticSource(tmp_path, SyntheticSection()).ensure(show_progress=False)
    # 96 clips x (1.5 s + 150 frames x 0.115 s)
    assert "rendering 96 clips of 6 s in" in caplog.text and "about 30 minutes" in caplog.text


def test_two_first_runs_at_once_render_each_clip_once(tmp_path, monkeypatch):
    pytest.importorskip("fcntl")  # elsewhere there are no locks
    rendered = []

    def render(root, plan):
        rendered.append(plan.name)
        time.sleep(0.02)
        for suffix in SUFFIXES:
            path = plan.path(root, suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"settings_hash": plan.settings_hash}))

    monkeypatch.setattr(module, "render_clip", render)
    monkeypatch.setattr(module, "frame_seconds", lambda plan: 0.1)
    source = SyntheticSource(tmp_path, SyntheticSection())
    with ThreadPoolExecutor(2) as pool:
        for run in [pool.submit(source.ensure, show_progress=False) for _ in range(2)]:
            run.result()
    assert len(rendered) == len(set(rendered)) == 96


# -- the shipped clips -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tracked() -> dict[str, dict]:
    """Truth and landmarks of the shipped clips."""
    found = {}
    for video in sorted(SHIPPED.rglob("*.mp4")):
        scan = scan_video(video, fps=25.0, tracking=True)
        base = str(video.with_suffix(""))
        with np.load(f"{base}.truth.npz") as file:
            truth = {name: file[name] for name in file.files}
        info = json.loads(Path(f"{base}.truth.json").read_text("utf-8"))
        mesh = meshes(scan, find_persons(scan, fps=25.0)[0])
        found[video.stem] = {"mesh": mesh, "truth": truth, "info": info, "video": video}
    return found


def test_the_preset_tiny_needs_no_rendering(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "render_clip", None)
    source = SyntheticSource(tmp_path, tiny())
    source.ensure(show_progress=False)
    assert contents(tmp_path) == contents(SHIPPED)
    assert sum(p.stat().st_size for p in SHIPPED.rglob("*") if p.is_file()) < 4_000_000
    # Half of it, as the tests of models use it.
    half = tiny().model_copy(update={"persons": 2})
    SyntheticSource(tmp_path / "half", half).ensure(show_progress=False)
    assert len(list((tmp_path / "half/data").rglob("*.mp4"))) == 4


def test_the_shipped_clips_are_what_the_renderer_makes(tmp_path):
    """Pictures, not bytes, which may differ between machines; the sound needs hibari."""
    from talkingface.data.media.reader import read_frames
    from talkingface.data.synthetic.body import Scene, build_body
    from talkingface.data.synthetic.person import Person
    from talkingface.data.synthetic.renderer import Pose, Renderer

    for name in ("p01/p01_000", "p03/p03_001"):
        base = SHIPPED / "data" / name
        info = json.loads(Path(f"{base}.truth.json").read_text("utf-8"))
        scene = Scene(**{**info["scene"], "wall": tuple(map(tuple, info["scene"]["wall"]))})
        renderer = Renderer(build_body(Person.draw(info["person"]["seed"]), scene), 256)
        with np.load(f"{base}.truth.npz") as truth:
            i = int(truth["opening"].argmax())
            pose = Pose(*(truth[k][i] for k in ("weights", "pose", "shift", "gaze", "tongue")))
        made = renderer.frame(pose).astype(float)
        shown = list(read_frames(f"{base}.mp4"))[i].astype(float)
        assert np.abs(made - shown).mean() < 4, name


def test_mediapipe_finds_the_face_and_measures_the_true_opening(tracked):
    seen = np.concatenate([np.isfinite(c["mesh"]).all((1, 2)) for c in tracked.values()])
    assert seen.mean() >= 0.995
    r = []
    for clip in tracked.values():
        mesh, truth = clip["mesh"], clip["truth"]["mouth_opening"]
        gap = np.linalg.norm(mesh[:, 13] - mesh[:, 14], axis=1)
        r.append(correlation(gap, truth))
        assert best_lag(gap, truth, 3) == 0
    assert np.mean(r) > 0.9 and min(r) > 0.8


def test_the_shipped_mouths_are_those_of_the_present_model(tracked):
    for clip in tracked.values():
        phones, truth = [Phone(*p) for p in clip["info"]["phones"]], clip["truth"]["opening"]
        track = mouth_track(phones, len(truth), 25).opening
        size = np.random.default_rng([6, clip["info"]["person"]["seed"]]).uniform(*AMPLITUDE)
        assert np.abs(track * size - truth).max() < 0.12  # cm


def test_pose_truth_has_the_stated_signs(tracked):
    for clip in tracked.values():
        mesh, pose = clip["mesh"], clip["truth"]["pose"]
        across = mesh[:, 263] - mesh[:, 33]
        roll = np.degrees(np.arctan2(across[:, 1], across[:, 0]))
        assert np.ptp(pose[:, 2]) < 2 or correlation(roll, pose[:, 2]) < -0.6
        turn = (mesh[:, 1] - (mesh[:, 234] + mesh[:, 454]) / 2)[:, 0]
        assert np.ptp(pose[:, 1]) < 2 or correlation(turn, pose[:, 1]) > 0.8


def test_lips_touch_at_bilabials(tracked):
    closures = 0
    for clip in tracked.values():
        for name, start, end in clip["info"]["phones"]:
            frame = round((start + end) / 2 * 25 - 0.5)
            if name in ("P", "B", "M") and frame < len(clip["truth"]["opening"]):
                assert clip["truth"]["opening"][frame] < 0.12  # cm
                closures += 1
    assert closures > 15


def test_sound_and_phones_have_no_offset(tracked):
    """Loudness of the decoded sound against the vowels of the truth, in steps of 10 ms."""
    loud, vowel = [], []
    for clip in tracked.values():
        sound = load_audio(clip["video"])[: 3 * 16000]
        rms = np.sqrt((sound[: len(sound) // 160 * 160].reshape(-1, 160) ** 2).mean(1))
        steps = np.arange(len(rms)) * 0.01 + 0.005
        is_vowel = np.zeros(len(steps))
        for name, start, end in clip["info"]["phones"]:
            if name in VOWELS:
                is_vowel[(steps >= start) & (steps < end)] = 1
        loud.append(rms)
        vowel.append(is_vowel)
    assert abs(best_lag(np.concatenate(loud), np.concatenate(vowel), 15)) <= 2  # 20 ms


def test_no_sentence_of_another_list_is_in_training(tracked):
    lists = SyntheticSource(Path("unused"), tiny()).lists()
    said = {
        name: {s.strip() for c in clips for s in re.split(r"(?<=[.!?])", text_of(tracked, c))}
        for name, clips in lists.items()
    }
    assert not (said["train"] & (said["val"] | said["test"] | said["test_persons"])) - {""}


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def best_lag(late: np.ndarray, reference: np.ndarray, reach: int) -> int:
    """Samples by which ``late`` comes after ``reference``."""
    cut = slice(reach, len(reference) - reach)
    score = {
        lag: correlation(np.roll(late, -lag)[cut], reference[cut])
        for lag in range(-reach, reach + 1)
    }
    return max(score, key=score.get)


def text_of(tracked: dict, clip: str) -> str:
    return tracked[clip.split("/")[1]]["info"]["text"]


# -- wrong input and the former set ----------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", ["persons=1", "clips_per_person=1", "seconds=0", "size=255", "fps=0", "light=dark"]
)
def test_wrong_settings_are_explained(wrong):
    key, value = wrong.split("=")
    with pytest.raises(ConfigError, match=f"synthetic.{key}"):
        load_config("HyperLipsBase", "Synthetic", cli={f"synthetic.{key}": value})


def test_a_root_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="file"):
        SyntheticSource(tmp_path / "file", SMALL).ensure(show_progress=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root ignores file permissions")
def test_a_root_that_is_locked(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(EnvironmentProblem, match="locked"):
        SyntheticSource(tmp_path / "locked" / "in", SMALL).ensure(show_progress=False)


def test_data_of_the_former_set_get_one_line_and_are_kept(tmp_path, caplog):
    old = tmp_path / "data/id0/id0_000.mp4"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    (tmp_path / "synthetic.json").write_text('{"synthetic": true, "settings": {"version": 2}}')
    half = tiny().model_copy(update={"persons": 2})
    for _ in range(2):  # the second time there is nothing to say
        SyntheticSource(tmp_path, half).ensure(show_progress=False)
    assert caplog.text.count("former Synthetic set") == 1 and old.read_bytes() == b"old"


def test_runs_of_the_former_set_get_one_line():
    cfg = load_config(
        "HyperLipsBase", "Synthetic", base={"synthetic": {"clips": 48, "identities": 4}}
    )
    assert cfg.synthetic.clips_per_person == 4
    assert sum("former Synthetic set" in note for note in cfg.notes) == 1
    with pytest.raises(ConfigError, match="unknown key 'synthetic.clips'.*clips_per_person"):
        load_config("HyperLipsBase", "Synthetic", cli={"synthetic.clips": 48})


def test_a_data_root_is_refused(tmp_path):
    cfg = load_config("HyperLipsBase", "Synthetic", cli={"data_root": str(tmp_path)})
    with pytest.raises(DataError, match="--root"):
        SyntheticSource.from_config(cfg)
