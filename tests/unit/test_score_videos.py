"""``--evaluate_videos``: pairs by name, says what is left out, one row per folder."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from talkingface.cli import main


@pytest.fixture
def folders(tmp_path, tiny_synthetic) -> tuple[Path, Path]:
    """Three real videos, and two of them made by somebody else's tool."""
    clips = sorted((tiny_synthetic / "dataset/Synthetic-tiny/data").rglob("*.mp4"))[:3]
    real, made = tmp_path / "real", tmp_path / "other tool"
    for number, clip in enumerate(clips):
        (real / "sub").mkdir(parents=True, exist_ok=True)
        made.mkdir(exist_ok=True)
        shutil.copy(clip, real / "sub" / f"clip {number}.mp4")
        if number < 2:
            shutil.copy(clips[(number + 1) % 2], made / f"clip {number}.mp4")
    return made, real


def score(root: Path, made: object, real: object, *more: str) -> int:
    return main(
        [f"--evaluate_videos={made}", f"--reference={real}", "--metrics=[PSNR, LMD]"]
        + [f"--output={root / 'out'}", "--no-show_progress", *more]
    )


def test_videos_are_paired_by_name_and_scored(root, folders, capsys):
    made, real = folders
    assert score(root, made, real) == 0
    out = capsys.readouterr().out
    assert "1 video(s) left out, each is missing: sub/clip 2" in out
    rows = list(csv.DictReader((root / "out/metrics.csv").open(encoding="utf-8")))
    assert [(r["row"], r["clip"]) for r in rows] == [
        ("other tool", "sub/clip 0"),
        ("other tool", "sub/clip 1"),
        ("real video", "sub/clip 0"),
        ("real video", "sub/clip 1"),
    ]
    assert float(rows[2]["LMD"]) == 0.0 < float(rows[0]["LMD"])
    written = json.loads((root / "out/metrics.json").read_text("utf-8"))
    assert "LMD" in written["definitions"]
    assert written["unpaired"] == {"other tool": {"no_reference": [], "no_video": ["sub/clip 2"]}}


@pytest.mark.parametrize("metric", ["LPIPS", "FID", "CSIM", "NIQE"])
def test_a_metric_that_was_named_but_lacks_its_weights_is_an_error_before_any_work(
    root, folders, capsys, metric
):
    made, real = folders
    args = [f"--evaluate_videos={made}", f"--reference={real}", f"--metrics=PSNR,{metric}"]
    assert main([*args, f"--output={root / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert metric in error and "checkpoints/" in error and "PSNR" not in error
    assert not (root / "out").exists()


def test_metrics_that_nobody_named_are_skipped_without_their_weights(root, folders, capsys):
    made, real = folders
    args = [f"--evaluate_videos={made}", f"--reference={real}", f"--output={root / 'out'}"]
    assert main([*args, "--no-show_progress"]) == 0
    output = capsys.readouterr().out
    assert "NIQE needs the statistics" in output
    assert "LSE_C" in output and "needs a SyncNet" not in output  # the one of the zoo


def test_several_folders_are_several_rows_over_the_same_clips(root, folders, tmp_path):
    made, real = folders
    second = Path(shutil.copytree(made, tmp_path / "second"))
    (second / "clip 1.mp4").unlink()
    assert score(root, f"{made},{second}", real) == 0
    rows = json.loads((root / "out/metrics.json").read_text("utf-8"))["rows"]
    assert set(rows) == {"other tool", "second", "real video"}
    assert {row["LMD"]["n"] for row in rows.values()} == {1}


def test_two_files_need_not_have_the_same_name(root, folders):
    made, real = folders
    assert score(root, made / "clip 0.mp4", real / "sub" / "clip 2.mp4") == 0


@pytest.mark.parametrize("case", ["no reference", "nothing there", "no partner", "empty"])
def test_what_cannot_be_scored_is_explained(root, folders, tmp_path, capsys, case):
    made, real = folders
    empty = tmp_path / "empty"
    empty.mkdir()
    if case == "no reference":
        assert main([f"--evaluate_videos={made}"]) == 2
        assert "--reference" in capsys.readouterr().err
    elif case == "nothing there":
        assert score(root, tmp_path / "nowhere", real) == 2
        assert "does not exist" in capsys.readouterr().err
    elif case == "empty":
        assert score(root, empty, real) == 2
        assert "no video in" in capsys.readouterr().err
    else:
        shutil.move(made / "clip 0.mp4", made / "x.mp4")
        shutil.move(made / "clip 1.mp4", made / "y.mp4")
        assert score(root, made, real) == 3
        assert "No video has a partner" in capsys.readouterr().err


def test_the_tables_are_not_written_into_a_folder_of_videos(talking_clip, tmp_path):
    """Also a link to it; a metrics.json of the user may lie there."""
    from talkingface.errors import ConfigError
    from talkingface.quick_start.score_videos import score_videos

    theirs, real, link = tmp_path / "theirs", tmp_path / "real", tmp_path / "link"
    for folder in (theirs, real):
        folder.mkdir()
        (folder / "a.mp4").write_bytes(talking_clip.read_bytes())
    link.symlink_to(theirs)
    for output in (theirs, real, link):
        options = {"evaluate_videos": str(theirs), "reference": str(real), "output": str(output)}
        with pytest.raises(ConfigError, match="would replace"):
            score_videos(options, {"metrics": ["L1"]})
