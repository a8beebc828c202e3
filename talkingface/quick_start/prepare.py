"""``--prepare``: make a dataset from videos of a person.

Each video is cut into short clips at 25 frames/s. With three or more videos all clips of a video
are in one split; with fewer, the beginning of every video is for training and its end for testing.
The same command adds further videos later and writes the clip lists again.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from talkingface.config.config import load_config
from talkingface.data.clips import Clip, make_clip, split_names
from talkingface.data.dataprocess.engine import prepare_clips
from talkingface.data.dataprocess.report import ProcessReport
from talkingface.data.face.scan import content_hash
from talkingface.data.filelists import read_filelist, write_filelists
from talkingface.data.media.audio import load_audio
from talkingface.data.media.files import VIDEO_SUFFIXES
from talkingface.data.media.limits import set_limits
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import count_frames, read_frames
from talkingface.data.media.writer import VideoWriter
from talkingface.errors import ConfigError, DataError, StageError
from talkingface.quick_start.next_steps import train_command
from talkingface.registry import get_registry, refresh
from talkingface.utils.logs import progress, setup_logging
from talkingface.utils.paths import project_root, read_json, shown, write_json, write_text
from talkingface.utils.suggest import did_you_mean

log = logging.getLogger(__name__)

FPS = 25
RATE = 16000
_SOURCE = ".source.json"  # in the folder of each video: hash of the video and how it was cut
ENOUGH_SECONDS = (60.0, 180.0)  # of one person: for a first network, for a good one
ENOUGH_TEST_CLIPS = 5  # for means that are not those of one or two sentences
MIN_CLIP_SECONDS = 1.0  # a shorter remainder at the end of a video is not used
_YAML = """\
# Made by --prepare; edit freely. Keys: --explain=<key>.
name: {name}
summary: {count} clips from {sources}
licence: yours to know
origin: python run_talkingface.py --prepare --dataset={name} --videos=...
root: {root}
"""


def prepare_videos(options: Mapping[str, str], config: Mapping[str, Any]) -> int:
    """Make ``dataset/<name>/`` and its YAML, then prepare it for a model; returns the exit status.

    Options: ``videos`` (comma-separated files or folders). Keys: ``dataset`` (new name),
    ``model`` (default HyperLipsBase), ``segment_seconds`` (default 6), any configuration key.
    """
    config = dict(config)
    name, model = config.pop("dataset", None), config.pop("model", "HyperLipsBase")
    seconds = float(config.pop("segment_seconds", 6.0))
    setup_logging(str(config.get("log_level", "info")))
    if not name:
        raise ConfigError("--prepare needs --dataset=<new name>")
    if not str(name).replace("_", "").replace("-", "").isalnum() or not str(name)[0].isalpha():
        raise ConfigError(f"--dataset={name}: use letters, digits, '_' and '-', a letter first")
    if seconds < MIN_CLIP_SECONDS:
        raise ConfigError(f"--segment_seconds={seconds}: at least {MIN_CLIP_SECONDS}")
    registry = get_registry(config.get("plugin_path"))
    yaml = registry.own_datasets / f"{name}.yaml"
    existing = [e for n, e in registry.entries("dataset").items() if n.lower() == str(name).lower()]
    if existing and existing[0].path.resolve() != yaml.resolve():
        raise ConfigError(f"--dataset={name}: {existing[0].path} already describes that dataset")
    videos = list_videos(options.get("videos"))
    root = project_root() / "dataset" / str(name)
    plan = load_config(model, "Synthetic", cli=config)  # raises on wrong settings before any work
    set_limits(plan.media)
    pieces, problems = cut_videos(videos, root / "data", seconds)
    pieces = {**earlier_pieces(root / "data"), **pieces}
    if not pieces:
        reasons = "\n  ".join(f"{path.name}: {reason}" for path, reason in problems.items())
        raise StageError(f"None of the {len(videos)} videos can be used:\n  {reasons}")
    write_splits(pieces, root / "filelist", plan.make_split, plan.seed)
    total = sum(len(names) for names in pieces.values())
    sources = f"{len(pieces)} video(s)"
    text = _YAML.format(name=name, count=total, sources=sources, root=relative_root(root))
    if yaml.exists():  # with the user's changes, if any
        text = re.sub(
            r"(?m)^summary: \d+ clips from .*$", text.splitlines()[2], yaml.read_text("utf-8")
        )
    write_text(yaml, text)
    refresh()
    log.info("%d clips in %s, described by %s", total, shown(root), shown(yaml))
    for path, reason in problems.items():
        log.warning("not used: %s: %s", path.name, reason)
    cfg = load_config(model, str(name), cli=config)
    from talkingface.pipeline.build import build_process

    process = build_process(cfg)
    report = prepare_clips(process, show_progress=cfg.show_progress)
    log.info("data: %s", report.describe())
    log.info("%s", verdict(report, read_filelist(cfg.filelist("test"))))
    log.info("train it:  %s", train_command(cfg))
    return 0


def verdict(report: ProcessReport, test: list[str]) -> str:
    """Whether the recordings suffice, in a sentence.

    Args:
        test: names of the test clips.
    """
    good = {name: report.markers[name] for name in report.of("ok")}
    seconds = sum(marker["seconds"] for marker in good.values())
    tested = len(set(test) & set(good))
    text = f"{seconds:.0f} s in {len(good)} clips, {tested} of them for testing: "
    if seconds < ENOUGH_SECONDS[0]:
        return text + (
            "enough to copy mouths (VideoRewrite), little for a network; record 3 to 5 minutes "
            "(docs/preparation.md)"
        )
    if tested < ENOUGH_TEST_CLIPS:
        return text + "enough for a network, but few for a table; 3 to 5 minutes give a better one"
    if seconds < ENOUGH_SECONDS[1]:
        return text + "enough for a network; more is better, up to about 5 minutes"
    return text + "enough for a network and a table"


def relative_root(root: Path) -> str:
    """A folder for the key ``root`` of a YAML: relative to the project folder if it is below."""
    try:
        return root.relative_to(project_root()).as_posix()
    except ValueError:
        return root.as_posix()


def list_videos(argument: str | None) -> list[Path]:
    """Files of a comma-separated list; a folder stands for all videos in it. A single name may
    contain commas."""
    if not argument:
        raise ConfigError("--prepare needs --videos=a.mp4,b.mp4 (or a folder)")
    parts = [argument] if Path(argument).expanduser().exists() else argument.split(",")
    videos: list[Path] = []
    for part in parts:
        path = Path(part.strip()).expanduser()
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES)
            files = [p for p in files if not p.name.startswith(".")]
            if not files:
                raise DataError(f"--videos: no video in the folder {path}")
            videos += files
        elif path.is_file():
            videos.append(path)
        else:
            hint = did_you_mean(path.name, [p.name for p in path.parent.glob("*")])
            raise DataError(f"--videos: {path} does not exist.{hint}")
    return list(dict.fromkeys(videos))


def cut_videos(
    videos: list[Path], target: Path, seconds: float
) -> tuple[dict[str, list[str]], dict[Path, str]]:
    """Cut videos into clips; clips of an earlier call are kept unless the video has changed.

    Returns:
        Clip ids per video, and the reason for each video that cannot be used.
    """
    pieces: dict[str, list[str]] = {}
    problems: dict[Path, str] = {}
    taken: set[Path] = set()
    for video in progress(videos, desc="cutting", unit="video"):
        stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in video.stem) or "video"
        try:
            content = content_hash(video)
            folder = _folder_of(video, content, target, stem, taken)
            taken.add(folder)
            source = {"content": content, "segment_seconds": seconds, "fps": FPS}
            _remove_other_cut(folder, source)
            pieces[folder.name] = _cut(video, folder, folder.name, seconds)
            marker = {**source, "path": str(video.resolve()), "clips": pieces[folder.name]}
            write_json(folder / _SOURCE, marker)
        except DataError as error:
            problems[video] = str(error)
    return pieces, problems


def _folder_of(video: Path, content: str, target: Path, stem: str, taken: set[Path]) -> Path:
    """The folder for the clips of a video: that of an earlier call, or a new one.

    A folder without our marker, or with the clips of another video, is never used.
    """
    number, folder = 1, target / stem
    while folder in taken or not _usable(folder, video, content):
        number, folder = number + 1, target / f"{stem}_{number + 1}"
    return folder


def _usable(folder: Path, video: Path, content: str) -> bool:
    if not (folder.exists() or folder.is_symlink()):
        return True
    marker = read_marker(folder)
    same = str(video.resolve()) == marker.get("path", str(video.resolve()))
    if marker and (same or marker["content"] == content):
        return True
    log.warning("%s is not the folder of %s's clips; another name is used", folder, video.name)
    return False


def read_marker(folder: Path) -> dict[str, Any]:
    """The marker of a folder of clips; empty when there is none or it is damaged."""
    marker = read_json(folder / _SOURCE)
    return marker if "content" in marker else {}


def _remove_other_cut(folder: Path, source: dict[str, Any]) -> None:
    """Remove the clips of this folder that were cut from another version or with another length.

    Only files with the names of our clips are removed.
    """
    known = read_marker(folder)
    if {key: known.get(key) for key in source} != source:
        write_json(folder / _SOURCE, {**known, "content": "", "clips": None})  # in case of a kill
        for clip in folder.iterdir():
            if re.fullmatch(re.escape(folder.name) + r"_\d{4,}\.mp4", clip.name):
                clip.unlink()
    write_json(folder / _SOURCE, {**known, **source, "clips": None})  # None: not complete yet


def earlier_pieces(target: Path) -> dict[str, list[str]]:
    """Clips of the videos that earlier calls cut completely."""
    folders = sorted(marker.parent for marker in target.glob(f"*/{_SOURCE}"))
    known = {folder.name: read_marker(folder).get("clips") for folder in folders}
    return {name: clips for name, clips in known.items() if clips}


def _cut(video: Path, folder: Path, stem: str, seconds: float) -> list[str]:
    """Write the clips of one video; audio and video of a clip start at the same time."""
    info = probe(video)
    clip = make_clip(video)
    if not info.has_video:
        raise DataError(f"no picture in {video.name}")
    beside = video.with_suffix(".wav")
    if clip.audio != video:
        log.info("%s has no sound; that of %s is used", video.name, beside.name)
    elif not info.has_audio:
        raise DataError(f"no audio track in {video.name} (a .wav of the same name would do)")
    elif beside.is_file():
        log.warning("%s has sound; %s beside it is not used", video.name, beside.name)
    wave = load_audio(clip.audio, RATE)
    total, per_clip = count_frames(video, FPS), round(seconds * FPS)
    counts = [per_clip] * (total // per_clip)
    if total % per_clip >= MIN_CLIP_SECONDS * FPS:
        counts.append(total % per_clip)
    if not counts:
        raise DataError(f"{video.name} is shorter than {MIN_CLIP_SECONDS:g} s")
    sound_frames = len(wave) * FPS // RATE
    if sound_frames < sum(counts):  # clips after the end of the audio are not made
        counts = [n for i, n in enumerate(counts) if i * per_clip + n <= sound_frames + FPS // 5]
        if not counts:
            raise DataError(f"the sound of {video.name} ends after {len(wave) / RATE:.1f} s")
    names = [f"{stem}_{number:04d}" for number in range(len(counts))]
    frames = read_frames(video, fps=FPS)
    for number, (name, count) in enumerate(zip(names, counts, strict=True)):
        piece = islice(frames, count)
        path = folder / f"{name}.mp4"
        if path.exists():
            for _ in piece:
                pass
            continue
        start = number * per_clip * RATE // FPS
        sound = wave[start : start + count * RATE // FPS]
        with VideoWriter(path, FPS, audio=(sound, RATE), crf=16) as writer:
            for frame in piece:
                writer.write(frame)
    return [f"{stem}/{name}" for name in names]


def write_splits(
    pieces: Mapping[str, list[str]], folder: Path, shares: tuple[float, float, float], seed: int
) -> None:
    """Write the clip lists of the three splits; see :func:`split_names`.

    Args:
        pieces: clip ids of each video.
    """
    clips = [
        Clip(name, Path(name), Path(name), source=video)
        for video, names in pieces.items()
        for name in names
    ]
    parts = split_names(clips, shares, seed)
    write_filelists({folder / f"{split}.txt": names for split, names in parts.items()})
