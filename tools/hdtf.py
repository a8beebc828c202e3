"""HDTF from its official lists: ``python tools/hdtf.py --annotations=DIR --out=DIR``.

The corpus is a set of lists (https://github.com/MRzzm/HDTF, folder ``HDTF_dataset``) of addresses,
times and crops of public videos. Each video is downloaded at the height that its crops refer to and
cut into ``<subset>_<name>_<number>.mp4``. What exists is kept, so that a second call goes on;
videos that are gone or contradict themselves are listed at the end and never stop the others.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from talkingface.data.clips import VIDEO_SUFFIXES
from talkingface.data.media.audio import load_audio
from talkingface.data.media.files import exact_fps
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import read_frames
from talkingface.data.media.writer import VideoWriter
from talkingface.errors import DataError, EnvironmentProblem, StageError, TalkingFaceError
from talkingface.utils.env import require
from talkingface.utils.logs import progress, setup_logging
from talkingface.utils.paths import shown

log = logging.getLogger("talkingface.hdtf")  # below the package: it shares its handlers

SUBSETS = ("RD", "WDA", "WRA")
LISTS = ("video_url", "annotion_time", "crop_wh", "resolution")  # "annotion": the official name
RATE = 16000  # Hz, the input of the models; the raw files keep the rest
_INTERVAL = re.compile(r"((?:\d+:)?\d+:\d+)-((?:\d+:)?\d+:\d+)")

Rows = dict[str, tuple[str, list[str]]]  # name -> "file:line" and the words after the name


class Piece(NamedTuple):
    """One interval in seconds and its crop: x, y, width, height in pixels."""

    name: str
    start: int
    end: int
    crop: tuple[int, int, int, int]


class Video(NamedTuple):
    """One address, with the picture height that the crops refer to."""

    name: str
    url: str
    height: int
    pieces: list[Piece]


def read_annotations(folder: Path) -> tuple[list[Video], list[str]]:
    """The usable videos of the official lists, and a line on everything that is not usable.

    Raises:
        DataError: no subset is there, or one lacks some of its four lists.
    """
    videos: list[Video] = []
    problems: list[str] = []
    subsets = [s for s in SUBSETS if any(folder.glob(f"{s}_*.txt"))]
    if not subsets:
        raise DataError(
            f"No list such as RD_video_url.txt in {folder}. Give the folder HDTF_dataset of "
            "https://github.com/MRzzm/HDTF with --annotations=DIR."
        )
    for subset in subsets:
        lists = {kind: _read_rows(folder / f"{subset}_{kind}.txt", problems) for kind in LISTS}
        for name, (place, _) in lists["annotion_time"].items():
            if name not in lists["video_url"]:
                problems.append(f"{place}: {subset}_{name} has no (clear) address")
        for name in lists["video_url"]:
            try:
                videos.append(_video(subset, name, lists, problems))
            except DataError as error:
                problems.append(str(error))
    return videos, problems


def _read_rows(path: Path, problems: list[str]) -> Rows:
    """Lines of a list by their first word; contradictory ones are reported and left out."""
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"The list {path} cannot be read: {error.strerror}.") from error
    rows: Rows = {}
    twice = set()
    for number, line in enumerate(lines, 1):
        name, *words = line.split() or [""]
        place, name = f"{path.name}:{number}", name.removesuffix(".mp4")
        if name and not words:
            problems.append(f"{place}: nothing stands after '{name}'")
        elif name and rows.setdefault(name, (place, words))[1] != words:
            problems.append(f"{place}: '{name}' contradicts {rows[name][0]}")
            twice.add(name)
    return {name: row for name, row in rows.items() if name not in twice}


def _video(subset: str, name: str, lists: dict[str, Rows], problems: list[str]) -> Video:
    place, (url, *_) = lists["video_url"][name]
    for kind in ("annotion_time", "resolution"):
        if name not in lists[kind]:
            raise DataError(f"{place}: {subset}_{name} has no (clear) line in {subset}_{kind}.txt")
    at, size = lists["resolution"][name]
    height = size[0].removesuffix("p")
    if len(size) != 1 or not height.isdecimal() or not int(height):
        raise DataError(f"{at}: one height in pixels is needed, found '{' '.join(size)}'")
    at, intervals = lists["annotion_time"][name]
    pieces = []
    for number, text in enumerate(intervals):  # broken ones keep their number
        found = _INTERVAL.fullmatch(text)
        start, end = map(_seconds, found.groups()) if found else (0, 0)
        where, crop = lists["crop_wh"].get(f"{name}_{number}", (at, []))
        if end <= start:
            problems.append(f"{at}: '{text}' is no interval such as 0:30-1:00")
        elif len(crop) != 4 or not all(word.isdecimal() for word in crop):
            problems.append(f"{where}: no crop 'x width y height' of {subset}_{name}_{number}")
        else:
            x, width, y, tall = map(int, crop)
            pieces.append(Piece(f"{subset}_{name}_{number:03d}", start, end, (x, y, width, tall)))
    if not pieces:
        raise DataError(f"{place}: {subset}_{name} has no usable interval")
    return Video(f"{subset}_{name}", url, int(height), pieces)


def _seconds(text: str) -> int:
    return sum(int(part) * 60**power for power, part in enumerate(reversed(text.split(":"))))


def find_raw(name: str, raw: Path) -> tuple[Path, Path] | None:
    """Picture and sound file of a downloaded video; None while one of them is missing."""
    files = [raw / f"{name}{suffix}" for suffix in (*VIDEO_SUFFIXES, ".m4a", ".wav")]
    files = [path for path in files if path.is_file()]
    if not files or files[0].suffix in (".m4a", ".wav"):
        return None
    sound = files[-1]  # the picture itself when there is no other file
    return (files[0], sound) if sound != files[0] or probe(sound).has_audio else None


def download(video: Video, raw: Path) -> None:
    """Fetch picture and sound as two files, so that no other program has to join them.

    Raises:
        DataError: the video is gone, private, or not offered at the annotated height.
        EnvironmentProblem: yt-dlp is missing.
    """
    yt_dlp = require("yt_dlp", why="The HDTF download", extra="hdtf")
    quiet = log.getChild("yt_dlp")
    quiet.setLevel(logging.CRITICAL)  # its errors come back as reasons in the final table
    options = {
        "format": f"bestvideo[height={video.height}][ext=mp4],bestaudio[ext=m4a]",
        "outtmpl": str(raw / video.name).replace("%", "%%") + ".%(ext)s",
        "logger": quiet,
        "noprogress": True,
        "noplaylist": True,
    }
    try:
        with yt_dlp.YoutubeDL(options) as fetch:
            fetch.download([video.url])
    except yt_dlp.utils.DownloadError as error:
        raise DataError(str(error).removeprefix("ERROR: ")) from error


def cut(video: Video, pieces: list[Piece], raw: Path, out: Path, failed: dict[str, str]) -> None:
    """Write pieces of a downloaded video; ``failed`` gets the reason of each that cannot be cut."""
    files = find_raw(video.name, raw)
    if files is None:
        raise DataError(f"{raw} holds no {video.name}.mp4 with sound")
    wave = load_audio(files[1], RATE)
    for piece in pieces:
        try:
            _cut_piece(files[0], wave, video.height, piece, out / f"{piece.name}.mp4")
        except DataError as error:
            failed[piece.name] = str(error)


def _cut_piece(picture: Path, wave: np.ndarray, height: int, piece: Piece, path: Path) -> None:
    info = probe(picture)
    fps = exact_fps(info.fps or 25)
    # The file may have another size than the one in which the crop was drawn.
    x, y, width, tall = (round(side * info.height / height) for side in piece.crop)
    if min(width, tall) < 2 or x + width > info.width + 2 or y + tall > info.height + 2:
        raise DataError(f"the crop {piece.crop} at height {height} leaves the picture")
    first, last = round(piece.start * fps), round(piece.end * fps)
    sound = wave[round(first / fps * RATE) : round(last / fps * RATE)]
    with VideoWriter(path, fps, audio=(sound, RATE), crf=16) as writer:
        for frame in read_frames(picture, fps, start=piece.start, end=piece.end):
            writer.write(frame[y : y + tall, x : x + width])
        if min(writer.frames_written, len(sound) * fps / RATE) < last - first - fps:
            raise DataError(f"picture or sound ends before {piece.end} s")


def make(annotations: Path, out: Path, raw: Path, only: str = "*", dry_run: bool = False) -> None:
    """Download and cut what is missing, then say what could not be had and why.

    Raises:
        DataError: no lists, or no video that ``only`` matches.
        StageError: not one clip exists in the end.
    """
    videos, problems = read_annotations(annotations)
    for line in problems:
        log.warning("%s", line)
    videos = [video for video in videos if fnmatch(video.name, only)]
    if not videos:
        raise DataError(f"No usable video in {annotations} has a name like '{only}'.")
    all_pieces = [piece for video in videos for piece in video.pieces]
    hours = sum(piece.end - piece.start for piece in all_pieces) / 3600
    log.info("%d videos, %d clips, %.1f h", len(videos), len(all_pieces), hours)
    failed: dict[str, str] = {}
    for video in progress(videos, desc="HDTF", unit="video", show=False if dry_run else "auto"):
        missing = [piece for piece in video.pieces if not (out / f"{piece.name}.mp4").exists()]
        if dry_run:
            log.info("%s: %d clip(s) missing, %s", video.name, len(missing), video.url)
            continue
        try:
            if missing and find_raw(video.name, raw) is None:
                download(video, raw)
            if missing:
                cut(video, missing, raw, out, failed)
        except EnvironmentProblem:  # the machine, not the video
            raise
        except TalkingFaceError as error:
            failed[video.name] = str(error)
    if dry_run:
        return
    for name, reason in failed.items():
        log.warning("%-*s  %s", max(map(len, failed)), name, reason)
    have = sum((out / f"{piece.name}.mp4").exists() for piece in all_pieces)
    log.info("%d of %d clips in %s, %d failures", have, len(all_pieces), shown(out), len(failed))
    if not have:
        raise StageError(f"No clip could be made in {out}; the reasons stand above.")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser("python tools/hdtf.py", allow_abbrev=False)
    parser.add_argument("--annotations", type=Path, required=True, help="folder HDTF_dataset")
    parser.add_argument("--out", type=Path, required=True, help="clips, e.g. dataset/HDTF/data")
    parser.add_argument("--raw", type=Path, help="downloads; default: <out>/../raw")
    parser.add_argument("--only", default="*", help="names, e.g. WRA_* or RD_Radio1")
    parser.add_argument("--dry_run", action="store_true", help="read the lists and stop")
    args = parser.parse_args(argv)
    setup_logging("info")
    raw = args.raw or args.out.resolve().parent / "raw"
    try:
        make(args.annotations, args.out, raw, args.only, args.dry_run)
    except TalkingFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped: the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
