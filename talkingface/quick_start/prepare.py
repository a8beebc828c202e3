"""``--prepare``: make a dataset from videos of a person.

Each video is cut into short clips at 25 frames/s. With three or more videos all clips of a video
are in one split; with fewer, the beginning of every video is for training and its end for testing.
The same command adds further videos later and writes the clip lists again.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from talkingface.config.config import load_config
from talkingface.data.clips import VIDEO_SUFFIXES, Clip, make_clip, split_names, write_filelist
from talkingface.data.dataprocess.engine import prepare_clips
from talkingface.data.face.scan import content_hash
from talkingface.data.media.audio import load_audio
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import count_frames, read_frames
from talkingface.data.media.writer import VideoWriter
from talkingface.errors import ConfigError, DataError, StageError
from talkingface.registry import get_registry, refresh
from talkingface.utils.logs import progress, setup_logging
from talkingface.utils.paths import program, project_root, shown, write_json, write_text
from talkingface.utils.suggest import did_you_mean

log = logging.getLogger(__name__)

FPS = 25
RATE = 16000
_SOURCE = ".source.json"  # in the folder of each video: hash of the video and how it was cut
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
    pieces, problems = cut_videos(videos, root / "data", seconds)
    pieces = {**earlier_pieces(root / "data"), **pieces}
    if not pieces:
        reasons = "\n  ".join(f"{path.name}: {reason}" for path, reason in problems.items())
        raise StageError(f"None of the {len(videos)} videos can be used:\n  {reasons}")
    write_splits(pieces, root / "filelist", plan.make_split, plan.seed)
    count = sum(len(names) for names in pieces.values())
    sources = f"{len(pieces)} video(s)"
    text = _YAML.format(name=name, count=count, sources=sources, root=relative_root(root))
    write_text(yaml, text)
    refresh()
    log.info("%d clips in %s, described by %s", count, shown(root), shown(yaml))
    for path, reason in problems.items():
        log.warning("not used: %s: %s", path.name, reason)
    cfg = load_config(model, str(name), cli=config)
    from talkingface.pipeline.build import build_process

    process = build_process(cfg)
    log.info("data: %s", prepare_clips(process, show_progress=cfg.show_progress).describe())
    log.info("train it:  %s --model=%s --dataset=%s", program(), cfg.model, name)
    return 0


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
    stems: dict[str, Path] = {}
    for video in progress(videos, desc="cutting", unit="video"):
        stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in video.stem) or "video"
        while stems.setdefault(stem, video) != video:
            stem += "_"
        try:
            source = {"content": content_hash(video), "segment_seconds": seconds, "fps": FPS}
            _remove_other_cut(target / stem, source)
            pieces[stem] = _cut(video, target / stem, stem, seconds)
            write_json(target / stem / _SOURCE, {**source, "clips": pieces[stem]})
        except DataError as error:
            problems[video] = str(error)
    return pieces, problems


def _remove_other_cut(folder: Path, source: dict[str, Any]) -> None:
    """Remove clips that were cut from another video or with another length."""
    marker = folder / _SOURCE
    if folder.exists():
        known = json.loads(marker.read_text("utf-8")) if marker.exists() else {}
        if {key: known.get(key) for key in source} != source:
            shutil.rmtree(folder)
    write_json(marker, {**source, "clips": None})  # None: not complete yet


def earlier_pieces(target: Path) -> dict[str, list[str]]:
    """Clips of the videos that earlier calls cut completely."""
    pieces = {}
    for marker in sorted(target.glob(f"*/{_SOURCE}")):
        if names := json.loads(marker.read_text("utf-8")).get("clips"):
            pieces[marker.parent.name] = names
    return pieces


def _cut(video: Path, folder: Path, stem: str, seconds: float) -> list[str]:
    """Write the clips of one video; audio and video of a clip start at the same time."""
    info = probe(video)
    clip = make_clip(video)
    if not info.has_video:
        raise DataError(f"no picture in {video.name}")
    if clip.audio == video and not info.has_audio:
        raise DataError(f"no audio track in {video.name} (a .wav of the same name would do)")
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
    for split, names in split_names(clips, shares, seed).items():
        write_filelist(folder / f"{split}.txt", names)
