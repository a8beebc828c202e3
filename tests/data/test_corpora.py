"""Corpora: their names tell speaker, source and sound, and no source is on two sides of a split."""

from __future__ import annotations

import logging
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY, tool

from talkingface.cli import main
from talkingface.config.config import load_config
from talkingface.config.schema import ClipsSection
from talkingface.data.clips import (
    SPLITS,
    Clip,
    Corpus,
    discover_clips,
    split_clips,
    split_names,
)
from talkingface.data.filelists import read_filelist, write_filelist
from talkingface.errors import ConfigError, StageError
from talkingface.registry import get_registry

SHARES = (0.8, 0.1, 0.1)
DATASETS = get_registry().names("dataset")
MOTION = ["GQS883", "PXB184", "RLW104", "SyntheticDyad", "TXB805"]


@pytest.fixture
def messages():
    """Log lines of the data code, also when a run before switched the propagation off."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("talkingface")
    level = logger.level
    logger.setLevel(logging.DEBUG)  # by the method: loggers remember what is enabled
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


def rules(dataset: str, **more) -> ClipsSection:
    return load_config("HyperLipsBase", dataset, overrides=more).clips


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def facts(clips: list[Clip], folder: Path) -> dict[str, tuple[str, str, str]]:
    return {c.id: (c.speaker, c.source, c.audio.relative_to(folder).as_posix()) for c in clips}


# -- names -----------------------------------------------------------------------------------------

# corpus: files of the official layout (and of others), and per clip: speaker, source, sound
LAYOUTS = {
    "GRID": (
        "s1/bbaf2n.mpg s1/video/mpg_6000/bbaf2n.mpg s2/bbaf2n.mpg s34.mpg_vcd/s34/pwijzp.mpg "
        "audio_25k/s1/bbaf2n.wav odd/lwbsza.mpg lrbg1a.mpg",
        {
            "s1/bbaf2n": ("s1", "s1/bbaf2n", "audio_25k/s1/bbaf2n.wav"),
            "s1/video/mpg_6000/bbaf2n": ("s1", "s1/bbaf2n", "audio_25k/s1/bbaf2n.wav"),
            "s2/bbaf2n": ("s2", "s2/bbaf2n", "s2/bbaf2n.mpg"),
            "s34.mpg_vcd/s34/pwijzp": ("s34", "s34/pwijzp", "s34.mpg_vcd/s34/pwijzp.mpg"),
            "odd/lwbsza": ("odd", "odd/lwbsza", "odd/lwbsza.mpg"),
            "lrbg1a": ("one", "lrbg1a", "lrbg1a.mpg"),
        },
    ),
    "MEAD": (
        "M003/video/front/angry/level_1/001.mp4 M003/video/front/angry/level_1/002.mp4 "
        "M003/video/left_30/angry/level_1/001.mp4 W009/video/front/neutral/level_1/001.mp4 "
        "M003/audio/angry/level_1/001.m4a flat/M003_front_angry_level_1_001.mp4",
        {
            "M003/video/front/angry/level_1/001": (
                *("M003", "M003/angry/1/001", "M003/audio/angry/level_1/001.m4a"),
            ),
            "M003/video/front/angry/level_1/002": (
                *("M003", "M003/angry/1/002", "M003/video/front/angry/level_1/002.mp4"),
            ),
            "W009/video/front/neutral/level_1/001": (
                *("W009", "W009/neutral/1/001", "W009/video/front/neutral/level_1/001.mp4"),
            ),
            "flat/M003_front_angry_level_1_001": (
                *("M003", "M003/angry/1/001", "M003/audio/angry/level_1/001.m4a"),
            ),
        },
    ),
    "LRS2": (
        "6330311066473698535/00011.mp4 6330311066473698535/00012.mp4 6330311066473698535/00011.txt "
        "5535415699068794046/00001.mp4",
        {
            "6330311066473698535/00011": (
                *("6330311066473698535",) * 2,
                "6330311066473698535/00011.mp4",
            ),
            "6330311066473698535/00012": (
                *("6330311066473698535",) * 2,
                "6330311066473698535/00012.mp4",
            ),
            "5535415699068794046/00001": (
                *("5535415699068794046",) * 2,
                "5535415699068794046/00001.mp4",
            ),
        },
    ),
    "HDTF": (
        "WDA_EdMarkey0_000.mp4 WDA_EdMarkey0_001.mp4 WDA_EdMarkey1_000.mp4 RD_Radio10_000.mp4 "
        "RD_Radio1_000.mp4 sub/RD_Radio10_0_clip_0.mp4",
        {
            "WDA_EdMarkey0_000": ("EdMarkey", "WDA_EdMarkey0", "WDA_EdMarkey0_000.mp4"),
            "WDA_EdMarkey0_001": ("EdMarkey", "WDA_EdMarkey0", "WDA_EdMarkey0_001.mp4"),
            "WDA_EdMarkey1_000": ("EdMarkey", "WDA_EdMarkey1", "WDA_EdMarkey1_000.mp4"),
            "RD_Radio10_000": ("RD_Radio10", "RD_Radio10", "RD_Radio10_000.mp4"),
            "RD_Radio1_000": ("RD_Radio1", "RD_Radio1", "RD_Radio1_000.mp4"),
            "sub/RD_Radio10_0_clip_0": (
                *("RD_Radio10", "RD_Radio10", "sub/RD_Radio10_0_clip_0.mp4"),
            ),
        },
    ),
    "VoxCeleb2": (
        "dev/mp4/id00012/21Uxsk56VDQ/00001.mp4 dev/mp4/id00012/21Uxsk56VDQ/00002.mp4 "
        "dev/aac/id00012/21Uxsk56VDQ/00001.m4a test/mp4/id00017/01dfn2spqyE/00001.mp4 "
        "id00018#_0abcdefgh-#00001.mp4",
        {
            "dev/mp4/id00012/21Uxsk56VDQ/00001": (
                *("id00012", "21Uxsk56VDQ", "dev/aac/id00012/21Uxsk56VDQ/00001.m4a"),
            ),
            "dev/mp4/id00012/21Uxsk56VDQ/00002": (
                *("id00012", "21Uxsk56VDQ", "dev/mp4/id00012/21Uxsk56VDQ/00002.mp4"),
            ),
            "test/mp4/id00017/01dfn2spqyE/00001": (
                *("id00017", "01dfn2spqyE", "test/mp4/id00017/01dfn2spqyE/00001.mp4"),
            ),
            "id00018#_0abcdefgh-#00001": (
                *("id00018", "_0abcdefgh-", "id00018#_0abcdefgh-#00001.mp4"),
            ),
        },
    ),
    "CREMA-D": (
        "VideoFlash/1001_DFA_ANG_XX.flv VideoFlash/1002_DFA_ANG_XX.flv "
        "AudioWAV/1001_DFA_ANG_XX.wav",
        {
            "VideoFlash/1001_DFA_ANG_XX": (
                *("1001", "1001_DFA_ANG_XX", "AudioWAV/1001_DFA_ANG_XX.wav"),
            ),
            "VideoFlash/1002_DFA_ANG_XX": (
                *("1002", "1002_DFA_ANG_XX", "VideoFlash/1002_DFA_ANG_XX.flv"),
            ),
        },
    ),
    "RAVDESS": (
        "Actor_01/01-01-03-01-01-01-01.mp4 Actor_01/02-01-03-01-01-01-01.mp4 "
        "Actor_24/01-02-03-01-01-01-24.mp4",
        {
            "Actor_01/01-01-03-01-01-01-01": (
                *("01", "01-03-01-01-01-01", "Actor_01/01-01-03-01-01-01-01.mp4"),
            ),
            "Actor_24/01-02-03-01-01-01-24": (
                *("24", "02-03-01-01-01-24", "Actor_24/01-02-03-01-01-01-24.mp4"),
            ),
        },
    ),
    "LSP": (
        "May/May_0000.mp4 May/May_0001.mp4 Obama1_000.mp4 Obama2.mp4",
        {
            "May/May_0000": ("May", "May", "May/May_0000.mp4"),
            "May/May_0001": ("May", "May", "May/May_0001.mp4"),
            "Obama1_000": ("Obama", "Obama1", "Obama1_000.mp4"),
            "Obama2": ("Obama", "Obama2", "Obama2.mp4"),
        },
    ),
}


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_the_official_layout_tells_speaker_source_and_sound(dataset, tmp_path, messages):
    names, expected = LAYOUTS[dataset]
    touch(tmp_path, *names.split())
    assert facts(discover_clips(tmp_path, rules(dataset)), tmp_path) == expected
    assert not [line for line in messages if "match no clips.pattern" in line]


def test_what_is_left_out_is_counted_and_can_be_had(tmp_path, messages):
    touch(tmp_path, *LAYOUTS["MEAD"][0].split())
    discover_clips(tmp_path, rules("MEAD"))
    assert [line for line in messages if "1 name(s) match clips.exclude" in line]
    clips = discover_clips(tmp_path, rules("MEAD", **{"clips.exclude": None}))
    sources = {c.id: c.source for c in clips}
    assert sources["M003/video/left_30/angry/level_1/001"] == "M003/angry/1/001"  # same take


def test_names_that_no_pattern_knows_are_used_by_the_general_rule_and_counted(tmp_path, messages):
    touch(tmp_path, "s1/bbaf2n.mpg", "odd/take_000.mp4", "odd/take_001.mp4")
    found = {c.id: (c.speaker, c.source) for c in discover_clips(tmp_path, rules("GRID"))}
    assert found["odd/take_000"] == found["odd/take_001"] == ("odd", "odd/take")
    assert len([line for line in messages if "2 name(s) match no clips.pattern" in line]) == 1
    messages.clear()
    discover_clips(tmp_path, rules("GRID"), quiet=True)
    assert messages == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("talk_000", "talk"),
        ("talk-03", "talk"),
        ("RD_Radio10_0_clip_0", "RD_Radio10"),
        ("video_id00001", "video_id"),
        ("person/abc/00017", "person/abc"),
        ("lecture_part2", "lecture"),
        ("a b (1)", "a b"),
        ("unk_032621/clip_032621", "unk_032621"),
        ("id0/id0_012", "id0/id0"),
        ("bbaf2n", "bbaf2n"),
        ("take1", "take1"),
        ("0001", "0001"),
        ("s33/ex1_800ms", "s33/ex1_800ms"),
    ],
)
def test_without_a_pattern_a_trailing_piece_number_is_not_part_of_the_source(
    name, source, tmp_path
):
    touch(tmp_path, f"{name}.mp4")
    [clip] = discover_clips(tmp_path)
    assert clip.source == source
    assert clip.speaker == (name.rpartition("/")[0] or source)


def test_groups_of_same_source_are_joined_over_ids_and_sources(tmp_path, messages):
    touch(tmp_path, "a_0.mp4", "a_1.mp4", "b_0.mp4", "c_0.mp4", "d_0.mp4")
    section = ClipsSection(same_source=[["a", "b_0"], ["c", "b"], ["gone", "a_1"]])
    sources = {c.id: c.source for c in discover_clips(tmp_path, section)}
    assert len({sources[n] for n in ("a_0", "a_1", "b_0", "c_0")}) == 1
    assert sources["d_0"] == "d"
    assert any("e.g. gone" in line for line in messages)


def test_sound_beside_the_video_is_used_when_it_is_asked_for(tmp_path):
    touch(tmp_path, "s1/bbaf2n.mpg", "s1/bbaf2n.wav")
    asked = rules("GRID").model_copy(update={"audio": ["audio_25k/{id}.wav", "{id}.wav"]})
    assert discover_clips(tmp_path, asked)[0].audio.name == "bbaf2n.wav"


# -- real samples ----------------------------------------------------------------------------------


def real(shared: Path, dataset: str) -> tuple[Path, dict[str, Clip]]:
    folder = shared / "real" / dataset.lower()
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder, {clip.id: clip for clip in discover_clips(folder, rules(dataset))}


def test_grid_real(shared):
    _, clips = real(shared, "GRID")
    assert len({c.source for c in clips.values() if c.id.startswith("s1/")}) == 880
    assert clips["s1/bbaf2n"].speaker == clips["s1_original_mpeg1/bbaf2n"].speaker == "s1"
    assert clips["s1/bbaf2n"].source == clips["s1_original_mpeg1/bbaf2n"].source == "s1/bbaf2n"
    assert clips["s33/ex1_800ms"].source != clips["s33/ex1_1600ms"].source
    assert len({c.speaker for c in clips.values()}) == 12  # s1 stands in two folders


def test_mead_real(shared):
    _, clips = real(shared, "MEAD")
    assert {c.id: (c.speaker, c.source) for c in clips.values()} == {
        "M003/M003-002": ("M003", "M003/002"),
        "M003/M003-028": ("M003", "M003/028"),
        "M030/M030_sad_3_001": ("M030", "M030/sad/3/001"),
    }


def test_hdtf_real(shared):
    _, clips = real(shared, "HDTF")
    assert {c.source for c in clips.values()} == {
        *("RD_Radio10", "RD_Radio34", "WDA_EdMarkey0", "WDA_AlexandriaOcasioCortez"),
        "edtalk_pose_source2/pose_source2",
    }


def test_voxceleb2_real(shared):
    _, clips = real(shared, "VoxCeleb2")
    assert len(clips) == 6
    assert all(c.source == c.speaker == c.id.split("/")[0] for c in clips.values())


@pytest.mark.parametrize("dataset", ["GRID", "MEAD", "HDTF", "VoxCeleb2"])
def test_real_samples_have_picture_and_sound_and_are_split_without_a_leak(shared, dataset):
    from talkingface.data.media.probe import probe

    _, clips = real(shared, dataset)
    for clip in list(clips.values())[:4]:
        assert probe(clip.path).has_video and probe(clip.audio).has_audio
    by = load_config("HyperLipsBase", dataset).split_by
    parts = split_names(clips.values(), SHARES, 1, by)
    assert sorted(sum(parts.values(), [])) == sorted(clips)
    assert parts["train"] and parts["test"]
    assert_apart(parts, {c.id: c.source for c in clips.values()})


# -- splits ----------------------------------------------------------------------------------------


def assert_apart(parts: dict[str, list[str]], unit_of: dict[str, str]) -> None:
    sides: dict[str, str] = {}
    for split, names in parts.items():
        for name in names:
            assert sides.setdefault(unit_of[name], split) == split, (unit_of[name], name)


@pytest.mark.parametrize("by", ["source", "speaker", "folder"])
def test_no_source_and_no_speaker_is_ever_on_two_sides(by):
    for seed in range(150):
        rng = random.Random(seed)
        clips = []
        for speaker in range(rng.randint(3, 9)):
            for video in range(rng.randint(1, 4)):
                # Some footage is known under two speakers, e.g. an interview of both.
                source = "shared" if rng.random() < 0.03 else f"v{speaker}_{video}"
                for piece in range(rng.randint(1, 5)):
                    clip_id = f"{rng.choice('xyz')}{speaker}/{video}_{piece:03d}"
                    path = Path(clip_id)
                    clips.append(Clip(clip_id, path, path, f"s{speaker}", source))
        clips = list({clip.id: clip for clip in clips}.values())
        rng.shuffle(clips)
        cut = rng.uniform(0, 0.4), rng.uniform(0, 0.4)
        shares = (1 - sum(cut), *cut)
        parts = split_names(clips, shares, seed, by)
        assert sorted(sum(parts.values(), [])) == sorted(clip.id for clip in clips)
        assert all(parts.values())
        assert_apart(parts, {c.id: c.source for c in clips})
        if by == "speaker" and len({c.speaker for c in clips if c.source != "shared"}) > 5:
            assert_apart(parts, {c.id: c.speaker for c in clips})
        assert parts == split_names(reversed(clips), shares, seed, by)  # the order is no matter


def test_random_names_on_disk_are_split_without_a_leak(tmp_path):
    for seed in range(20):
        rng = random.Random(seed)
        folder = tmp_path / str(seed)
        videos = [f"p{rng.randint(0, 5)}/take{v}" for v in range(8)]
        unit = {}
        for video in videos:
            form = rng.choice(["{}_{:03d}", "{}-{:02d}", "{}_0_clip_{}", "{}/{:05d}", "{}_part{}"])
            unit |= {form.format(video, piece): video for piece in range(rng.randint(1, 6))}
        touch(folder, *(f"{name}.mp4" for name in unit))
        clips = discover_clips(folder)
        assert len(clips) == len(unit)
        assert_apart(split_names(clips, SHARES, seed), unit)


def pieces(**videos: int) -> list[Clip]:
    return [
        Clip(f"{name}_{i}", Path(name), Path(name), name[0], name)
        for name, count in videos.items()
        for i in range(count)
    ]


def test_too_few_speakers_fall_back_to_sources_with_a_warning(messages):
    clips = pieces(a1=4, a2=3, b1=2, b2=5)
    parts = split_names(clips, SHARES, 1, "speaker")
    assert_apart(parts, {c.id: c.source for c in clips})
    assert all(parts.values())
    assert "only 2 speaker(s) for 3 splits" in messages[0]


def test_too_few_sources_are_split_by_time_with_a_warning(messages):
    parts = split_names(pieces(a=12, b=2), (0.7, 0.1, 0.2), 1)
    assert parts["train"] == [*(f"a_{i}" for i in range(9)), "b_0", "b_1"]
    assert (parts["val"], parts["test"]) == (["a_9"], ["a_10", "a_11"])  # 10 comes after 9
    assert "split by time" in messages[0] and "--split_by=clip" in messages[0]


def test_two_whole_videos_train_and_test():
    assert split_names(pieces(a=1, b=2), SHARES, 1) == {
        **{"train": ["b_0", "b_1"], "val": [], "test": ["a_0"]}
    }


def test_one_short_video_cannot_be_split():
    with pytest.raises(StageError, match="too few"):
        split_names(pieces(a=2), SHARES, 1)
    assert split_names(pieces(a=2), (1, 0, 0), 1)["train"] == ["a_0", "a_1"]


def test_split_by_time_divides_every_source(messages):
    parts = split_names(pieces(a=10, b=5), SHARES, 1, "time")
    assert parts["test"] == ["a_9", "b_4"] and parts["val"] == ["a_8", "b_3"]


def test_split_by_clip_parts_pieces_and_says_so(messages):
    parts = split_names(pieces(a=10), SHARES, 1, "clip")
    assert [len(parts[s]) for s in SPLITS] == [8, 1, 1]
    assert "pieces of one source video" in messages[0]


def test_grid_lists_are_those_of_earlier_versions(shared):
    """The published figures were measured on this split: seed 2023, clips drawn one by one."""
    from talkingface.utils.seeding import item_rng

    clips = discover_clips(shared / "real/grid/s1", rules("GRID"))
    names = sorted(clip.id for clip in clips)
    order = [names[i] for i in item_rng(2023, "split").permutation(len(names))]
    parts = split_names(clips, SHARES, 2023, "source")
    assert parts["test"] == sorted(order[-88:]) and parts["train"] == sorted(order[:704])


def test_the_lists_of_a_run_follow_the_dataset(tmp_path):
    names = [f"Actor_{a:02d}/01-01-0{e}-01-01-01-{a:02d}.mp4" for a in range(1, 9) for e in (1, 2)]
    touch(tmp_path / "data", *names)
    cfg = load_config("HyperLipsBase", "RAVDESS", overrides={"root": str(tmp_path)})
    clips = discover_clips(cfg.data_dir, cfg.clips)
    Corpus(cfg).write_lists(clips)
    parts = {s: read_filelist(cfg.filelist(s)) for s in SPLITS}
    assert_apart(parts, {c.id: c.speaker for c in clips})
    assert [c.id for c in split_clips(cfg, "test")] == parts["test"]


def test_official_lists_are_read_as_they_are(tmp_path):
    touch(tmp_path / "main", *LAYOUTS["LRS2"][0].split())
    (tmp_path / "test.txt").write_text("6330311066473698535/00011 NF\n")
    settings = {"data_root": str(tmp_path / "main"), "test_filelist": str(tmp_path / "test.txt")}
    cfg = load_config("HyperLipsBase", "LRS2", overrides=settings)
    assert [clip.id for clip in split_clips(cfg, "test")] == ["6330311066473698535/00011"]


# -- YAML and configuration ------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_corpus_is_documented(dataset):
    entry = get_registry().entry("dataset", dataset)
    text = (REPOSITORY / "docs/datasets.md").read_text("utf-8")
    assert re.search(rf"^\| .*\b{dataset}\b", text, re.M), f"{dataset} stands in no table"
    assert entry.meta.get("kind", "video") == ("motion" if dataset in MOTION else "video")
    if not dataset.startswith("Synthetic"):
        assert set(entry.meta["about"]) == {"layout", "size", "citation"}
        assert "http" in entry.meta["origin"]


@pytest.mark.parametrize("dataset", [d for d in DATASETS if d not in MOTION])
def test_print_config_shows_the_rules_of_every_corpus(dataset, capsys):
    assert main(["--model=HyperLipsBase", f"--dataset={dataset}", "--print_config"]) == 0
    out = capsys.readouterr().out
    assert f"# HyperLipsBase @ {dataset}" in out and "clips.pattern" in out


@pytest.mark.parametrize("typed", ["crema-d", "CREMA_D", "CREMAD"])
def test_a_name_with_a_dash_is_found_in_any_spelling(typed):
    assert load_config("HyperLipsBase", typed).dataset == "CREMA-D"


@pytest.mark.parametrize("dataset", MOTION)
def test_a_corpus_without_video_is_refused_by_models_of_video(dataset, capsys):
    assert main(["--model=HyperLipsBase", f"--dataset={dataset}"]) == 2
    err = capsys.readouterr().err
    assert "the corpus has no videos, only motion data" in err and "GRID" in err
    assert main(["--list"]) == 0
    pairs = capsys.readouterr().out.split("Supported pairs")[1].split("Metrics")[0]
    able = {line.split()[0] for line in pairs.splitlines() if re.search(rf"\b{dataset}\b", line)}
    assert able == {"A2P", "A2PFace", "A2PGuide", "A2PGuideVQ", "A2PLip", "A2PPose"}


@pytest.mark.usefixtures("tracker")
def test_an_empty_folder_is_answered_with_origin_and_layout(root, capsys):
    assert main(["--model=HyperLipsBase", "--dataset=RAVDESS", "--stages=preprocess"]) == 3
    err = capsys.readouterr().err
    assert "zenodo.org/records/1188976" in err and "data/Actor_01/01-01" in err


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"clips.pattern": "(s\\d+"}, ("clips.pattern", "no regular expression", "(s\\d+")),
        ({"clips.exclude": "*"}, ("clips.exclude", "regular expression")),
        (
            {"clips.source": "{speakr}/{clip}"},
            ("clips.source", "'speakr'", "(?P<speakr>", "speaker"),
        ),
        ({"clips.audio": ["{id"]}, ("clips.audio",)),
        ({"clips.same_source": [["one"]]}, ("clips.same_source",)),
        ({"split_by": "video"}, ("split_by", "'source'")),
        ({"clips.patern": "x"}, ("clips.patern", "clips.pattern")),
    ],
)
def test_wrong_rules_are_refused_with_key_and_reason(settings, words):
    with pytest.raises(ConfigError) as caught:
        load_config("HyperLipsBase", "GRID", overrides=settings)
    text = str(caught.value).replace("is not a regular", "no regular")
    assert all(word in text for word in words), text


def test_the_five_lines_of_the_documentation_describe_a_corpus(root, tmp_path):
    text = (REPOSITORY / "docs/datasets.md").read_text("utf-8")
    block = re.search(r"```yaml\n(.*?)```", text, re.S).group(1)
    assert len(block.splitlines()) == 5 and yaml.safe_load(block)["split_by"] == "speaker"
    path = root / "properties/dataset/local/MyCorpus.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(block)
    touch(tmp_path, "anna/session2_017.mp4", "anna/session2_018.mp4", "ben/session1_000.mp4")
    cfg = load_config("HyperLipsBase", "MyCorpus")
    found = [(c.speaker, c.source) for c in discover_clips(tmp_path, cfg.clips)]
    assert found == [("anna", "anna/session2")] * 2 + [("ben", "ben/session1")]


@pytest.mark.slow
def test_a_dry_run_goes_through_with_real_clips_of_a_corpus(shared, run_cli, tmp_path):
    pytest.importorskip("mediapipe")
    names = [path for path in sorted((shared / "real/grid").glob("s*/*.mp[g4]"))][::300]
    for path in names:
        (tmp_path / "data" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "data" / path.parent.name)
    args = ["--model=HyperLipsBase", "--preset=tiny", "--dry_run", f"--data_root={tmp_path}/data"]
    done = run_cli([*args, "--dataset=GRID", f"--root={tmp_path}"], timeout=300)
    assert done.returncode == 0, done.stderr
    assert sum(len(read_filelist(tmp_path / f"filelist/{s}.txt")) for s in SPLITS) == len(names)


# -- HDTF from its lists ---------------------------------------------------------------------------

LISTS = {
    "WRA_video_url": "Ann https://v.example/1\nBob https://v.example/2\nCy https://v.example/3\n"
    "Dee https://v.example/4\nEve https://v.example/5\n\nLone\n",
    "WRA_annotion_time": "Ann.mp4 0:01-0:03 0:03-0:02 0:04-0:06\nBob.mp4 0:00-1:02:03\n"
    "Cy.mp4 0:00-0:01\nDee.mp4 0:00-0:01\nEve.mp4 0:00-0:01\nEve.mp4 0:00-0:02\n"
    "Zoe.mp4 0:00-0:01\n",
    "WRA_crop_wh": "Ann_0.mp4 10 40 20 40\nAnn_1.mp4 0 40 0 40\nAnn_2.mp4 0 40 0 40\n"
    "Bob_0.mp4 0 64 0 64\nDee_0.mp4 0 64 x 64\nCy_0.mp4 0 64 0 64\nEve_0.mp4 0 64 0 64\n",
    "WRA_resolution": "Ann.mp4 96\nBob.mp4 720p\nCy.mp4 720 1080\nDee.mp4 720\nEve.mp4 720\n",
}


@pytest.fixture
def annotations(tmp_path) -> Path:
    folder = tmp_path / "HDTF_dataset"
    folder.mkdir()
    for name, text in LISTS.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.fixture
def raw(tmp_path) -> Path:
    """A download in the place where yt-dlp would put it: 7 s, grey that counts the frames."""
    from talkingface.data.media.writer import VideoWriter

    wave = np.repeat(np.arange(7, dtype=np.float32) / 10, 16000)
    with VideoWriter(tmp_path / "raw/WRA_Ann.mp4", 25, audio=(wave, 16000), crf=10) as writer:
        for index in range(175):
            writer.write(np.full((96, 128, 3), 20 + index, np.uint8))
    return tmp_path / "raw"


def hdtf(annotations: Path, raw: Path, *more: str) -> int:
    out = raw.parent / "data"
    return tool("hdtf").main(
        [f"--annotations={annotations}", f"--out={out}", f"--raw={raw}", *more]
    )


def test_the_lists_are_read_and_every_bad_line_is_named(annotations):
    videos, problems = tool("hdtf").read_annotations(annotations)
    ann, bob = videos
    assert (ann.name, ann.url, ann.height) == ("WRA_Ann", "https://v.example/1", 96)
    assert ann.pieces == [
        tool("hdtf").Piece("WRA_Ann_000", 1, 3, (10, 20, 40, 40)),
        tool("hdtf").Piece("WRA_Ann_002", 4, 6, (0, 0, 40, 40)),
    ]
    assert (bob.height, bob.pieces[0].end) == (720, 3723)
    text = "\n".join(problems)
    for line in (
        "WRA_annotion_time.txt:1: '0:03-0:02' is no interval",
        "WRA_resolution.txt:3: one height",
        "WRA_crop_wh.txt:5: no crop",
        "WRA_annotion_time.txt:6: 'Eve' contradicts WRA_annotion_time.txt:5",
        "WRA_video_url.txt:5: WRA_Eve has no (clear) line",
        "WRA_annotion_time.txt:7: WRA_Zoe has no (clear) address",
        "WRA_video_url.txt:7: nothing stands after 'Lone'",
    ):
        assert line in text, (line, text)


def test_a_downloaded_video_is_cut_where_the_lists_say(annotations, raw):
    from talkingface.data.media.audio import load_audio
    from talkingface.data.media.reader import read_frames

    assert hdtf(annotations, raw, "--only=*_Ann") == 0
    files = sorted(path.name for path in (raw.parent / "data").iterdir())
    assert files == ["WRA_Ann_000.mp4", "WRA_Ann_002.mp4"]
    frames = list(read_frames(raw.parent / "data/WRA_Ann_002.mp4"))
    assert len(frames) == 50 and frames[0].shape == (40, 40, 3)
    assert [f.mean() for f in frames[::49]] == pytest.approx([120, 169], abs=2)  # frames 100, 149
    wave = load_audio(raw.parent / "data/WRA_Ann_002.mp4")
    assert np.median(wave[4000:12000]) == pytest.approx(0.4, abs=0.02)


def test_a_crop_follows_the_size_of_the_file(annotations, raw):
    from talkingface.data.media.probe import probe

    path = annotations / "WRA_resolution.txt"
    path.write_text(path.read_text().replace("Ann.mp4 96", "Ann.mp4 48"))
    crops = annotations / "WRA_crop_wh.txt"
    text = crops.read_text().replace("Ann_0.mp4 10 40 20 40", "Ann_0.mp4 10 40 8 40")
    crops.write_text(text.replace("Ann_2.mp4 0 40 0 40", "Ann_2.mp4 40 40 0 40"))
    assert hdtf(annotations, raw, "--only=*_Ann") == 0
    info = probe(raw.parent / "data/WRA_Ann_000.mp4")
    assert (info.width, info.height) == (80, 80)
    assert not (raw.parent / "data/WRA_Ann_002.mp4").exists()  # 40 + 40 of 64 columns: left out


def test_a_second_call_keeps_what_exists_and_makes_what_is_missing(annotations, raw):
    out = raw.parent / "data"
    assert hdtf(annotations, raw, "--only=*_Ann") == 0
    before = (out / "WRA_Ann_000.mp4").stat().st_mtime_ns
    (out / "WRA_Ann_002.mp4").unlink()
    assert hdtf(annotations, raw, "--only=*_Ann") == 0
    assert (out / "WRA_Ann_000.mp4").stat().st_mtime_ns == before
    assert (out / "WRA_Ann_002.mp4").exists()
    shutil.rmtree(raw)  # complete: the download is not needed again
    assert hdtf(annotations, raw, "--only=*_Ann") == 0


class FakeDownloader:
    """Stands in for yt-dlp: one address is gone, the other gives picture and sound apart."""

    class utils:
        class DownloadError(Exception):
            pass

    def __init__(self, source: Path) -> None:
        self.source, self.calls = source, []

    def YoutubeDL(self, options):
        self.options = options
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def download(self, urls):
        from talkingface.data.media.audio import load_audio, save_wav

        self.calls += urls
        if urls == ["https://v.example/2"]:
            raise self.utils.DownloadError("ERROR: video unavailable")
        path = Path(self.options["outtmpl"].replace(".%(ext)s", ".mp4").replace("%%", "%"))
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.source, path)
        save_wav(path.with_suffix(".wav"), load_audio(self.source), 16000)


def test_what_cannot_be_downloaded_never_stops_the_rest(annotations, raw, monkeypatch, capsys):
    source = Path(shutil.copy(raw / "WRA_Ann.mp4", raw.parent / "elsewhere.mp4"))
    shutil.rmtree(raw)
    fake = FakeDownloader(source)
    monkeypatch.setattr(tool("hdtf"), "require", lambda *a, **k: fake)
    urls = annotations / "WRA_video_url.txt"
    urls.write_text("".join(sorted(urls.read_text().splitlines(keepends=True), reverse=True)))
    assert hdtf(annotations, raw) == 0
    out = capsys.readouterr().out
    assert fake.calls == ["https://v.example/2", "https://v.example/1"]  # the failure came first
    assert "WRA_Bob  video unavailable" in out and "2 of 3 clips" in out
    assert "height=96" in fake.options["format"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("Ann.mp4 0:05-0:20", "ends before 20 s"),
        ("Ann.mp4 0:30-0:31", "WRA_Ann_000"),
    ],
)
def test_not_one_clip_is_exit_status_3_and_leaves_no_file(annotations, raw, damage, reason, capsys):
    path = annotations / "WRA_annotion_time.txt"
    path.write_text(re.sub(r"Ann.mp4.*", damage, path.read_text()))
    assert hdtf(annotations, raw, "--only=*_Ann") == 3
    out, err = capsys.readouterr()
    assert reason in out and "No clip could be made" in err
    assert list((raw.parent / "data").glob("*")) == []


def test_a_dry_run_of_the_command_tells_the_plan_and_writes_nothing(annotations, tmp_path):
    command = [sys.executable, "tools/hdtf.py", f"--annotations={annotations}"]
    command += [f"--out={tmp_path}/data", "--dry_run"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "2 videos, 3 clips" in done.stdout and "https://v.example/2" in done.stdout
    assert "WRA_resolution.txt:3: one height" in done.stdout
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("what", ["no folder", "a list is missing", "no such name"])
def test_lists_that_cannot_be_used_are_exit_status_2(annotations, raw, what, capsys):
    if what == "a list is missing":
        (annotations / "WRA_resolution.txt").unlink()
    folder = annotations / "gone" if what == "no folder" else annotations
    assert hdtf(folder, raw, "--only=RD_*") == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_without_yt_dlp_the_extra_is_named(annotations, raw, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "yt_dlp", None)
    assert hdtf(annotations, raw) == 2
    assert "pip install -e '.[hdtf]'" in capsys.readouterr().err
    assert 'hdtf = ["yt-dlp"]' in (REPOSITORY / "pyproject.toml").read_text("utf-8")


@pytest.mark.parametrize("name", ['he said "yes"', "a\tb", "#1", "a b", "plain/x_1", '"'])
def test_every_name_comes_back_from_a_list(tmp_path, name):
    write_filelist(tmp_path / "list.txt", [name, "other"])
    assert read_filelist(tmp_path / "list.txt") == [name, "other"]


def test_a_name_that_is_no_text_is_left_out_with_a_warning(tmp_path, caplog):
    try:
        (tmp_path / b"caf\xe9.mp4".decode("utf-8", "surrogateescape")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system refuses such names")
    (tmp_path / "good.mp4").write_bytes(b"x")
    assert [clip.id for clip in discover_clips(tmp_path)] == ["good"]
