"""``--prepare``: repeated calls, other lengths and further videos never mix old and new clips."""

from __future__ import annotations

import numpy as np
import pytest

from talkingface.config.schema import ClipsSection
from talkingface.data.clips import discover_clips, make_clip
from talkingface.data.filelists import read_filelist
from talkingface.data.media.audio import save_wav
from talkingface.data.media.reader import count_frames
from talkingface.data.media.writer import VideoWriter
from talkingface.errors import StageError
from talkingface.quick_start.prepare import cut_videos, earlier_pieces, list_videos, write_splits


@pytest.fixture
def video(tmp_path):
    """``video(name, seconds, shade)`` writes a grey video with a tone."""

    def write(name, seconds, shade=90):
        wave = 0.1 * np.sin(np.arange(round(seconds * 16000)) / 10).astype(np.float32)
        with VideoWriter(tmp_path / name, 25, audio=(wave, 16000)) as writer:
            for index in range(round(seconds * 25)):
                writer.write(np.full((64, 64, 3), (shade + index) % 256, np.uint8))
        return tmp_path / name

    return write


def frames_in(folder):
    return {path.stem: count_frames(path) for path in sorted(folder.rglob("*.mp4"))}


def test_a_video_becomes_pieces_of_the_wanted_length(video, tmp_path):
    pieces, problems = cut_videos([video("a.mp4", 7.4)], tmp_path / "data", 2)
    assert problems == {} and pieces == {"a": [f"a/a_{i:04d}" for i in range(4)]}
    assert list(frames_in(tmp_path / "data").values()) == [50, 50, 50, 35]


def test_a_rest_below_one_second_is_dropped(video, tmp_path):
    cut_videos([video("a.mp4", 4.6)], tmp_path / "data", 2)
    assert list(frames_in(tmp_path / "data").values()) == [50, 50]


def test_another_length_cuts_anew_and_leaves_no_old_piece(video, tmp_path):
    source = video("a.mp4", 8)
    cut_videos([source], tmp_path / "data", 2)
    pieces, _ = cut_videos([source], tmp_path / "data", 4)
    assert frames_in(tmp_path / "data") == {"a_0000": 100, "a_0001": 100}
    assert pieces == {"a": ["a/a_0000", "a/a_0001"]}


def test_a_replaced_video_of_the_same_name_is_cut_anew(video, tmp_path):
    cut_videos([video("a.mp4", 6)], tmp_path / "data", 2)
    cut_videos([video("a.mp4", 4, shade=10)], tmp_path / "data", 2)
    assert frames_in(tmp_path / "data") == {"a_0000": 50, "a_0001": 50}


def test_an_unchanged_video_is_not_cut_again(video, tmp_path):
    source = video("a.mp4", 4)
    cut_videos([source], tmp_path / "data", 2)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*.mp4")}
    cut_videos([source], tmp_path / "data", 2)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*.mp4")} == before


def test_a_further_video_joins_the_earlier_ones(video, tmp_path):
    cut_videos([video("a.mp4", 4)], tmp_path / "data", 2)
    cut_videos([video("b.mp4", 4)], tmp_path / "data", 2)
    assert sorted(earlier_pieces(tmp_path / "data")) == ["a", "b"]


def test_a_bad_video_is_left_out_with_its_reason(video, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    pieces, problems = cut_videos([broken, video("a.mp4", 4)], tmp_path / "data", 2)
    assert list(pieces) == ["a"]
    assert "broken.mp4" in problems[broken]


def test_one_video_is_split_in_time_its_end_tests(tmp_path):
    names = [f"a/a_{i:04d}" for i in range(10)]
    write_splits({"a": names}, tmp_path, (0.8, 0.1, 0.1), 1)
    assert read_filelist(tmp_path / "train.txt") == names[:8]
    assert read_filelist(tmp_path / "val.txt") == names[8:9]
    assert read_filelist(tmp_path / "test.txt") == names[9:]


def test_the_shares_are_those_that_were_asked_for(tmp_path):
    names = [f"a/a_{i:04d}" for i in range(10)]
    write_splits({"a": names}, tmp_path, (0.5, 0.2, 0.3), 1)
    sizes = [len(read_filelist(tmp_path / f"{s}.txt")) for s in ("train", "val", "test")]
    assert sizes == [5, 2, 3]


def test_with_three_videos_no_video_is_on_two_sides(tmp_path):
    pieces = {v: [f"{v}/{v}_{i}" for i in range(4)] for v in "abcd"}
    write_splits(pieces, tmp_path, (0.8, 0.1, 0.1), 1)
    sides = {}
    for split in ("train", "val", "test"):
        for name in read_filelist(tmp_path / f"{split}.txt"):
            assert sides.setdefault(name.split("/")[0], split) == split
    assert set(sides.values()) == {"train", "val", "test"}


def test_too_few_pieces_for_a_split_are_refused(tmp_path):
    with pytest.raises(StageError, match="too few.*segment_seconds"):
        write_splits({"a": ["a/a_0000", "a/a_0001"]}, tmp_path, (0.8, 0.1, 0.1), 1)


def test_a_name_with_a_comma_is_one_video(video, tmp_path):
    source = video("a, b.mp4", 1)
    assert list_videos(str(source)) == [source]


def test_files_of_the_user_are_never_removed(video, tmp_path):
    """A video inside the folder that its clips would get, beside another file."""
    folder = tmp_path / "data" / "me"
    folder.mkdir(parents=True)
    source = video("me.mp4", 2).rename(folder / "me.mp4")
    (folder / "precious.txt").write_text("mine")
    before = source.read_bytes()
    pieces, problems = cut_videos([source], tmp_path / "data", 2)
    assert pieces == {"me_2": ["me_2/me_2_0000"]} and problems == {}
    assert source.read_bytes() == before and (folder / "precious.txt").read_text() == "mine"
    assert sorted(p.name for p in folder.iterdir()) == ["me.mp4", "precious.txt"]
    (tmp_path / "data" / "me_2" / "notes.txt").write_text("mine")  # in a folder of ours
    cut_videos([source], tmp_path / "data", 1)
    assert (tmp_path / "data" / "me_2" / "notes.txt").exists()
    assert list(frames_in(tmp_path / "data" / "me_2").values()) == [25, 25]


def test_another_video_of_the_same_name_gets_a_folder_of_its_own(video, tmp_path):
    cut_videos([video("a.mp4", 4)], tmp_path / "data", 2)
    (tmp_path / "other").mkdir()
    other = video("a.mp4", 2, shade=10).rename(tmp_path / "other" / "a.mp4")
    pieces, _ = cut_videos([other], tmp_path / "data", 2)
    assert pieces == {"a_2": ["a_2/a_2_0000"]}
    assert sorted(earlier_pieces(tmp_path / "data")) == ["a", "a_2"]


def test_a_damaged_marker_is_not_a_marker_of_ours(video, tmp_path):
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / ".source.json").write_text('{"content": ')
    pieces, problems = cut_videos([video("a.mp4", 2)], tmp_path / "data", 2)
    assert list(pieces) == ["a_2"] and not problems
    assert list(earlier_pieces(tmp_path / "data")) == ["a_2"]


def test_lists_changed_by_hand_are_kept_beside_the_new_ones(tmp_path):
    pieces = {v: [f"{v}/{v}_{i}" for i in range(4)] for v in "abc"}
    write_splits(pieces, tmp_path, (0.8, 0.1, 0.1), 1)
    write_splits({**pieces, "d": ["d/d_0"]}, tmp_path, (0.8, 0.1, 0.1), 1)
    assert not list(tmp_path.glob("*.old*"))
    (tmp_path / "train.txt").write_text("a/a_1\n")
    write_splits(pieces, tmp_path, (0.8, 0.1, 0.1), 1)
    assert (tmp_path / "train.txt.old").read_text() == "a/a_1\n"
    assert len(read_filelist(tmp_path / "train.txt")) > 1


@pytest.mark.parametrize("written", [0, 1, 2])
def test_lists_of_a_killed_process_are_completed_by_the_next(tmp_path, monkeypatch, written):
    calls = []

    def killed(path, text):
        calls.append(path)
        if len(calls) > written:
            raise KeyboardInterrupt
        path.write_text(text)

    monkeypatch.setattr("talkingface.data.filelists.write_text", killed)
    pieces = {v: [f"{v}/{v}_{i}" for i in range(4)] for v in "abc"}
    with pytest.raises(KeyboardInterrupt):
        write_splits(pieces, tmp_path, (0.8, 0.1, 0.1), 1)
    monkeypatch.undo()
    names = [n for s in ("test", "val", "train") for n in read_filelist(tmp_path / f"{s}.txt")]
    assert sorted(names) == sorted(n for names in pieces.values() for n in names)


def test_a_sound_beside_a_video_never_replaces_its_own(video, tmp_path, caplog):
    source = video("a.mp4", 2)
    save_wav(tmp_path / "a.wav", np.zeros(32000, np.float32), 16000)
    assert make_clip(source).audio == source
    assert discover_clips(tmp_path)[0].audio == source
    assert "so the .wav beside them is not used" in caplog.text
    asked = discover_clips(tmp_path, ClipsSection(audio=["{id}.wav"]))
    assert asked[0].audio == tmp_path / "a.wav"
    with VideoWriter(tmp_path / "b.mp4", 25) as writer:
        writer.write(np.zeros((64, 64, 3), np.uint8))
    save_wav(tmp_path / "b.wav", np.zeros(16000, np.float32), 16000)
    assert make_clip(tmp_path / "b.mp4").audio == tmp_path / "b.wav"
    cut_videos([source], tmp_path / "data", 2)
    assert "a.wav beside it is not used" in caplog.text
