"""Raw clips of a dataset and the lists that split them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from talkingface.config.schema import ClipsSection
from talkingface.errors import DataError, StageError
from talkingface.utils.paths import is_temporary, shown, write_text

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv")
SPLITS = ("train", "val", "test")
# What follows the name of the video in the name of a piece: _000, -03, /00001, _0_clip_0, _part2,
# " (1)", and numbers of five or more digits without a separator.
_PIECE = re.compile(
    r"(?:[-_./# ]\d+[-_.# ]+|[-_./# ]+)(?:clip|part|piece|seg(?:ment)?|chunk)[-_ ]?\d+$"
    r"|[-_./# (]+\d+\)?$|(?<=\D)\d{5,}$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Clip:
    """One raw clip.

    Attributes:
        id: path below the data folder without extension, with ``/``; also its name in lists.
        path: the video file.
        audio: file with the sound: the video itself, a ``.wav`` of the same name beside it, or
            what ``clips.audio`` of the dataset names.
        speaker: who talks, as far as the names tell.
        source: the recording that this clip is (a piece of).
    """

    id: str
    path: Path
    audio: Path
    speaker: str = ""
    source: str = ""


def discover_clips(
    data_dir: Path, rules: ClipsSection | None = None, *, quiet: bool = False
) -> list[Clip]:
    """All videos below a folder, sorted by id. Two files of one name: the first is taken.

    Args:
        rules: the section ``clips`` of a dataset: how it names its files.
        quiet: log nothing, e.g. because the same folder was read before.
    """
    clips: dict[str, Clip] = {}
    if not data_dir.is_dir():
        return []
    rules = rules or ClipsSection()
    excluded, unmatched = [], []
    for path in sorted(data_dir.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(data_dir).parts)
        hidden = hidden or is_temporary(path)
        if hidden or path.suffix.lower() not in VIDEO_SUFFIXES or not path.is_file():
            continue
        if not _is_text(path.name):
            log.warning("%r has a name that cannot be written to lists; rename it", str(path))
            continue
        clip = make_clip(path, path.relative_to(data_dir).with_suffix("").as_posix())
        if rules.exclude and re.fullmatch(rules.exclude, clip.id):
            excluded.append(clip.id)
            continue
        if clip.id in clips:
            if not quiet:
                log.warning(
                    "two files share the clip name '%s': %s is used, %s is not",
                    clip.id,
                    clips[clip.id].path.name,
                    path.name,
                )
            continue
        names = _names_in(clip.id, rules)
        if names is None:
            unmatched.append(clip.id)
        clips[clip.id] = _described(clip, names, rules, data_dir)
    # A name of same_source is a clip's id or already a source.
    origin = {clip.id: clip.source for clip in clips.values()}
    groups = [[origin.get(name, name) for name in group] for group in rules.same_source]
    merged = merger(groups)
    unknown = {n for group in groups for n in group} - set(origin.values())
    for what, names in (
        ("match clips.exclude and are not used", excluded),
        ("match no clips.pattern: the general rule gives their speaker and source", unmatched),
        ("of clips.same_source are neither a clip nor a source here", sorted(unknown)),
    ):
        if names and not quiet:
            log.info("%s: %d name(s) %s, e.g. %s", shown(data_dir), len(names), what, names[0])
    return [replace(clip, source=merged(clip.source)) for clip in clips.values()]


def _is_text(name: str) -> bool:
    """Whether a file name can stand in a list: valid UTF-8 without line breaks."""
    try:
        return bool(name.encode("utf-8")) and len(name.splitlines()) == 1
    except UnicodeEncodeError:
        return False


def _names_in(clip_id: str, rules: ClipsSection) -> Mapping[str, str] | None:
    """What the first matching pattern finds in an id; None when there are patterns in vain."""
    for pattern in rules.pattern:
        if match := re.fullmatch(pattern, clip_id):
            return {key: text for key, text in match.groupdict().items() if text is not None}
    return None if rules.pattern else {}


def _described(
    clip: Clip, names: Mapping[str, str] | None, rules: ClipsSection, data_dir: Path
) -> Clip:
    """The clip with speaker, source and sound, by the templates or else by the general rule."""
    folder, _, name = clip.id.rpartition("/")
    values = {"id": clip.id, "folder": folder, "name": name, **(names or {})}

    def filled(templates: Iterable[str]) -> Iterator[str]:
        for template in templates if names is not None else ():
            try:
                yield template.format_map(values)
            except KeyError:  # this kind of name does not hold it
                continue

    source = next(filled(rules.source), _PIECE.sub("", clip.id) or clip.id)
    sounds = (data_dir / path for path in filled(rules.audio))
    return replace(
        clip,
        audio=next((path for path in sounds if path.is_file()), clip.audio),
        speaker=next(filled(rules.speaker), folder or source),
        source=source,
    )


def merger(groups: Iterable[Collection[str]]) -> Callable[[str], str]:
    """A function that gives names one and the same answer when groups connect them."""
    parents: dict[str, str] = {}

    def find(name: str) -> str:
        while name in parents:
            name = parents[name]
        return name

    for first, *others in groups:
        for other in others:
            a, b = find(first), find(other)
            if a != b:
                parents[b] = a
    return find


def make_clip(path: Path, clip_id: str | None = None) -> Clip:
    """A clip of a file; a ``.wav`` of the same name beside it replaces a missing sound track."""
    sidecar = path.with_suffix(".wav")
    return Clip(clip_id or path.stem, path, sidecar if sidecar.exists() else path)


def read_filelist(path: Path) -> list[str]:
    """Clip ids of a list: one per line, text after the first blank is ignored, ``#`` comments.

    A clip id that itself holds blanks is written in quotes.

    Raises:
        DataError: the list does not exist or is not UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"The clip list {path} does not exist.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The clip list {path} cannot be read: {error}") from error
    names = []
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        quoted = re.match(r'"((?:[^"]|"")+)"', line)
        name = quoted[1].replace('""', '"') if quoted else line.split()[0]
        names.append(name.replace("\\", "/"))
    return list(dict.fromkeys(names))


def write_filelist(path: Path, names: Iterable[str]) -> None:
    """Write a list atomically; names with blanks, quotes or a leading ``#`` are quoted."""

    def quoted(name: str) -> str:
        return f'"{name.replace(chr(34), 2 * chr(34))}"'

    plain = re.compile(r'[^\s"#][^\s"]*')
    lines = [name if plain.fullmatch(name) else quoted(name) for name in names]
    write_text(path, "".join(line + "\n" for line in lines))


def split_names(
    clips: Iterable[Clip], shares: tuple[float, float, float], seed: int, by: str = "source"
) -> dict[str, list[str]]:
    """Divide clips into train, val and test at random, repeatably; every share gets something.

    Args:
        by: unit that is never divided, see ``split_by``. Source videos stay whole except with
            ``clip`` and ``time``. With fewer speakers or folders than splits the source video
            becomes the unit; with fewer source videos, too, they are split by time.

    Raises:
        StageError: too few clips for a split by time.
    """
    from talkingface.utils.seeding import item_rng

    clips = sorted(clips, key=lambda clip: clip.id)
    wanted = sum(share > 0 for share in shares)
    units = _units(clips, by)
    if by in ("speaker", "folder") and len(units) < wanted:
        log.warning(
            "only %d %s(s) for %d splits: split by source video instead. The test clips show "
            "people that are trained on; scores say nothing about strangers.",
            *(len(units), by, wanted),
        )
        units = _units(clips, "source")
    elif by == "clip" and len(_units(clips, "source")) < len(clips):
        log.warning("split_by=clip: pieces of one source video may be trained on and tested")
    if by == "time" or len(units) < wanted:
        return _split_by_time(units, shares)
    order = [units[i] for i in item_rng(seed, "split").permutation(len(units))]
    dealt = _deal(order, shares)
    return {split: sorted(name for unit in dealt[split] for name in unit) for split in SPLITS}


def _units(clips: list[Clip], by: str) -> list[list[str]]:
    """Clip ids that stay together, in the order of the first id of each."""

    def labels(clip: Clip) -> list[str]:
        source = f"source {clip.source or clip.id}"
        if by == "clip":
            return [clip.id]
        if by == "folder":
            return [f"folder {clip.id.rpartition('/')[0]}", source]
        return [f"speaker {clip.speaker}", source] if by == "speaker" and clip.speaker else [source]

    unit_of = merger(labels(clip) for clip in clips)
    units: dict[str, list[str]] = {}
    for clip in clips:
        units.setdefault(unit_of(labels(clip)[0]), []).append(clip.id)
    return list(units.values())


def _deal(items: list, shares: tuple[float, float, float]) -> dict[str, list]:
    """Items in order: every share above 0 gets at least one, the largest share gets the rest."""
    counts = [max(round(share * len(items)), int(share > 0)) for share in shares]
    while sum(counts) > len(items):
        counts[counts.index(max(counts))] -= 1
    counts[shares.index(max(shares))] += len(items) - sum(counts)
    rest = iter(items)
    return {split: list(islice(rest, n)) for split, n in zip(SPLITS, counts, strict=True)}


def _split_by_time(
    units: list[list[str]], shares: tuple[float, float, float]
) -> dict[str, list[str]]:
    """The beginning of every source video trains, its end tests; too short ones only train."""
    parts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for names in units:
        if len(names) < sum(share > 0 for share in shares):
            parts["train"] += names
            continue
        for split, chosen in _deal(sorted(names, key=_in_time), shares).items():
            parts[split] += chosen
    if shares[2] and not parts["test"] and len(units) == 2:
        log.warning("two short source videos: one trains, the other tests, none validates")
        train, test = sorted(units, key=len, reverse=True)
        return {"train": train, "val": [], "test": test}
    if shares[2] and not parts["test"]:
        raise StageError(
            f"{len(parts['train'])} clip(s) of {len(units)} source video(s) are too few for a "
            "train, val and test split by time. Give a longer video, cut it into shorter pieces "
            "(--prepare, with a smaller --segment_seconds), or set --split_by or --make_split."
        )
    log.warning(
        "%d source video(s) are split by time: the beginning trains and the end of the same "
        "recording tests, so scores say nothing about other recordings. If the clips are "
        "recordings of their own: --split_by=clip, or describe their names with clips.pattern.",
        len(units),
    )
    return parts


def _in_time(name: str) -> list[str | int]:
    """Sort key by which piece 10 comes after piece 9."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def have_filelists(cfg: Config) -> bool:
    """True when the three lists exist, False when none does.

    Raises:
        DataError: some exist and some do not.
    """
    paths = [cfg.filelist(split) for split in SPLITS]
    existing = [path for path in paths if path.exists()]
    missing = [str(path) for path in paths if not path.exists()]
    if existing and missing:
        raise DataError(
            f"{existing[0]} exists but {', '.join(missing)} does not. Write the missing list, "
            "or delete all three to have them made."
        )
    return bool(existing)


def ensure_filelists(cfg: Config, clips: list[Clip]) -> None:
    """Write the three lists when none exists; existing ones are never touched.

    Raises:
        StageError: too few clips, and a later stage of the run needs the lists.
    """
    if have_filelists(cfg):
        return
    paths = {split: cfg.filelist(split) for split in SPLITS}
    if not clips:
        raise StageError(no_clips_message(cfg))
    try:
        parts = split_names(clips, cfg.make_split, cfg.seed, cfg.split_by)
    except StageError as error:
        if {"train", "evaluate"} & set(cfg.stages):
            raise
        log.warning("no lists are written: %s", error)  # the prepared files are good nevertheless
        return
    for split, path in paths.items():
        write_filelist(path, parts[split])
    log.info(
        "split %d clips by %s: %s (lists in %s)",
        len(clips),
        cfg.split_by,
        ", ".join(f"{len(parts[s])} {s}" for s in SPLITS),
        shown(paths["train"].parent),
    )


def no_clips_message(cfg: Config) -> str:
    """What to do when a dataset's data folder is empty."""
    text = (
        f"No video was found below {cfg.data_dir}. Put the clips of {cfg.dataset} there "
        f"(any depth; {', '.join(VIDEO_SUFFIXES[:5])}...), or set --data_root=<folder>."
    )
    meta = cfg.dataset_entry.meta
    origin, layout = meta.get("origin"), (meta.get("about") or {}).get("layout")
    text += f" How to get them: {origin}" if origin else ""
    return text + (f" Usual layout: {layout}" if layout else "")


def split_clips(cfg: Config, split: str, clips: Iterable[Clip] | None = None) -> list[Clip]:
    """Raw clips of a split. Listed clips that do not exist are reported, not looped over.

    Args:
        clips: those of the data folder when they are known; reading it again takes time.
    """
    clips = discover_clips(cfg.data_dir, cfg.clips, quiet=True) if clips is None else clips
    by_id = {clip.id: clip for clip in clips}
    names = read_filelist(cfg.filelist(split))
    # Lines of the original projects may carry an extension or the processor's folder.
    found, missing = [], []
    for name in names:
        stem = name.rsplit(".", 1)[0] if name.lower().endswith(VIDEO_SUFFIXES) else name
        clip = by_id.get(name) or by_id.get(stem)
        found.append(clip) if clip else missing.append(name)
    if missing:
        log.warning(
            "%d of %d clips of %s do not exist, e.g. %s",
            len(missing),
            len(names),
            shown(cfg.filelist(split)),
            ", ".join(missing[:3]),
        )
    return found
