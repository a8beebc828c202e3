"""Raw clips of a dataset and their division into lists."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import normalize

from talkingface.config.schema import ClipsSection
from talkingface.data.filelists import finish_writing, read_filelist, write_filelists
from talkingface.data.media.files import VIDEO_SUFFIXES, walk
from talkingface.data.media.probe import probe
from talkingface.errors import DataError, StageError
from talkingface.utils.locks import file_lock
from talkingface.utils.paths import is_stale, is_temporary, project_root, shown

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)

MAX_NAME_BYTES = 200  # file systems allow 255, and markers and temporary files need a suffix
SPLITS = ("train", "val", "test")
# Suffix of a piece after the name of its source video: _000, -03, /00001, _0_clip_0, _part2,
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
        audio: file with the sound: the video itself; the file that ``clips.audio`` of the dataset
            names; or, for a video without sound, a ``.wav`` of the same name beside it.
        speaker: the person who talks, derived from the names.
        source: the recording that this clip is, or was cut from.
    """

    id: str
    path: Path
    audio: Path
    speaker: str = ""
    source: str = ""


def discover_clips(
    data_dir: Path, rules: ClipsSection | None = None, *, quiet: bool = False
) -> list[Clip]:
    """All videos below a folder, sorted by id. Of two files with one id the first is used.

    Args:
        rules: the section ``clips`` of a dataset, which describes its file names.
        quiet: log no file that is skipped, e.g. because the same folder was read before.
    """
    clips: dict[str, Clip] = {}
    if not data_dir.is_dir():
        return []
    rules = rules or ClipsSection()
    excluded, unmatched, beside, unused = [], [], [], []
    for path in walk(data_dir):
        relative = path.relative_to(data_dir)
        if is_temporary(path):
            if is_stale(path) and project_root() in path.resolve().parents:
                path.unlink()  # of a process that was killed while it wrote a clip
            continue
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            continue
        if len(path.stem.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES:
            log.warning("%s is left out: its name is too long; rename it", path)
            continue
        if not _is_text(path.name):
            log.warning("%r has a name that cannot be written to lists; rename it", str(path))
            continue
        # Names from macOS may be decomposed: one spelling in lists, folders and comparisons.
        clip = make_clip(path, normalize("NFC", relative.with_suffix("").as_posix()))
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
        sound = path.with_suffix(".wav")
        if sound.is_file():
            (beside if clips[clip.id].audio == sound else unused).append(clip.id)
    # A name in same_source is the id of a clip, or a source.
    origin = {clip.id: clip.source for clip in clips.values()}
    groups = [[origin.get(name, name) for name in group] for group in rules.same_source]
    merged = merger(groups)
    unknown = {n for group in groups for n in group} - set(origin.values())
    for what, names in (
        ("match clips.exclude and are not used", excluded),
        ("match no clips.pattern and get speaker and source by the general rule", unmatched),
        ("of clips.same_source are neither a clip nor a source", sorted(unknown)),
        ("get their sound from the .wav beside them", beside),
    ):
        if names and not quiet:
            log.info("%s: %d name(s) %s, e.g. %s", shown(data_dir), len(names), what, names[0])
    if unused and not quiet:
        log.warning(
            "%d video(s) have sound, so the .wav beside them is not used, e.g. %s.wav; "
            "--clips.audio='{id}.wav' uses it",
            len(unused),
            unused[0],
        )
    return [replace(clip, source=merged(clip.source)) for clip in clips.values()]


def _is_text(name: str) -> bool:
    """Whether a file name can be written to a list: valid UTF-8 without line breaks."""
    try:
        return bool(name.encode("utf-8")) and len(name.splitlines()) == 1
    except UnicodeEncodeError:
        return False


def _names_in(clip_id: str, rules: ClipsSection) -> Mapping[str, str] | None:
    """Groups of the first pattern that matches an id; None when patterns exist but none matches."""
    for pattern in rules.pattern:
        if match := re.fullmatch(pattern, clip_id):
            return {key: text for key, text in match.groupdict().items() if text is not None}
    return None if rules.pattern else {}


def _described(
    clip: Clip, names: Mapping[str, str] | None, rules: ClipsSection, data_dir: Path
) -> Clip:
    """The clip with speaker, source and sound from the templates, or else by the general rule."""
    folder, _, name = clip.id.rpartition("/")
    values = {"id": clip.id, "folder": folder, "name": name, **(names or {})}

    def filled(templates: Iterable[str]) -> Iterator[str]:
        for template in templates if names is not None else ():
            try:
                yield template.format_map(values)
            except KeyError:  # a group that this name does not have
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
    """A function that maps all names of connected groups to one of them (union-find)."""
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
    """The clip of a video file; without sound it gets that of a ``.wav`` beside it, if any."""
    beside = path.with_suffix(".wav")
    return Clip(
        clip_id or path.stem, path, beside if beside.is_file() and _lacks_sound(path) else path
    )


def _lacks_sound(path: Path) -> bool:
    try:
        return not probe(path).has_audio
    except DataError:  # reported when the clip is prepared
        return False


def split_names(
    clips: Iterable[Clip], shares: tuple[float, float, float], seed: int, by: str = "source"
) -> dict[str, list[str]]:
    """Divide clips into train, val and test at random, repeatably; no share stays empty.

    Args:
        by: unit that is never divided, see ``split_by``. Source videos stay whole except with
            ``clip`` and ``time``. With fewer speakers or folders than splits, the source video
            becomes the unit. With fewer source videos than splits, they are split by time.

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
            "people of the training clips, so the scores do not hold for unseen people.",
            *(len(units), by, wanted),
        )
        units = _units(clips, "source")
    elif by == "clip" and len(_units(clips, "source")) < len(clips):
        log.warning("split_by=clip: training and test may contain pieces of one source video")
    if by == "time" or len(units) < wanted:
        return _split_by_time(units, shares)
    order = [units[i] for i in item_rng(seed, "split").permutation(len(units))]
    dealt = _deal(order, shares)
    return {split: sorted(name for unit in dealt[split] for name in unit) for split in SPLITS}


def _units(clips: list[Clip], by: str) -> list[list[str]]:
    """Groups of clip ids that stay together, in the order of their first ids."""

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
    """Divide items in order: every share above 0 gets at least one, the largest gets the rest."""
    counts = [max(round(share * len(items)), int(share > 0)) for share in shares]
    while sum(counts) > len(items):
        counts[counts.index(max(counts))] -= 1
    counts[shares.index(max(shares))] += len(items) - sum(counts)
    rest = iter(items)
    return {split: list(islice(rest, n)) for split, n in zip(SPLITS, counts, strict=True)}


def _split_by_time(
    units: list[list[str]], shares: tuple[float, float, float]
) -> dict[str, list[str]]:
    """Train on the beginning of every source video and test on its end; short ones only train."""
    parts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for names in units:
        if len(names) < sum(share > 0 for share in shares):
            parts["train"] += names
            continue
        for split, chosen in _deal(sorted(names, key=_in_time), shares).items():
            parts[split] += chosen
    if shares[2] and not parts["test"] and len(units) == 2:
        log.warning("two short source videos: one for training, one for test, none for validation")
        train, test = sorted(units, key=len, reverse=True)
        return {"train": train, "val": [], "test": test}
    if shares[2] and not parts["test"]:
        raise StageError(
            f"{len(parts['train'])} clip(s) of {len(units)} source video(s) are too few for a "
            "train, val and test split by time. Give a longer video, cut it into shorter pieces "
            "(--prepare, with a smaller --segment_seconds), or set --split_by or --make_split."
        )
    log.warning(
        "%d source video(s) are split by time: training uses the beginning and the test uses the "
        "end of the same recording, so the scores do not hold for other recordings. If each clip "
        "is a separate recording: --split_by=clip, or describe their names with clips.pattern.",
        len(units),
    )
    return parts


def _in_time(name: str) -> list[str | int]:
    """Sort key that puts piece 10 after piece 9."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def have_filelists(cfg: Config) -> bool:
    """True when the three lists exist, False when none does.

    Raises:
        DataError: some exist and some do not.
    """
    paths = [cfg.filelist(split) for split in SPLITS]
    finish_writing(paths[0].parent)
    existing = [path for path in paths if path.exists()]
    missing = [str(path) for path in paths if not path.exists()]
    if existing and missing:
        raise DataError(
            f"{existing[0]} exists but {', '.join(missing)} does not. Write the missing list, "
            "or delete all three; they are then written anew."
        )
    return bool(existing)


def no_clips_message(cfg: Config) -> str:
    """Error text with the remedy for an empty data folder."""
    text = (
        f"No video was found below {cfg.data_dir}. Put the clips of {cfg.dataset} there "
        f"(any depth; {', '.join(VIDEO_SUFFIXES[:5])}...), or set --data_root=<folder>."
    )
    meta = cfg.dataset_entry.meta
    origin, layout = meta.get("origin"), (meta.get("about") or {}).get("layout")
    text += f" How to get them: {origin}" if origin else ""
    return text + (f" Usual layout: {layout}" if layout else "")


def split_clips(cfg: Config, split: str, clips: Iterable[Clip] | None = None) -> list[Clip]:
    """Raw clips of a split. A warning counts the listed clips that do not exist.

    Args:
        clips: all clips of the data folder if they are known; None reads the folder.
    """
    clips = discover_clips(cfg.data_dir, cfg.clips, quiet=True) if clips is None else clips
    by_id = {clip.id: clip for clip in clips}
    names = [normalize("NFC", name) for name in read_filelist(cfg.filelist(split))]
    # Names in the official lists may have a file extension.
    existing, missing = [], []
    for name in names:
        stem = name.rsplit(".", 1)[0] if name.lower().endswith(VIDEO_SUFFIXES) else name
        clip = by_id.get(name) or by_id.get(stem)
        existing.append(clip) if clip else missing.append(name)
    if missing:
        log.warning(
            "%d of %d clips of %s do not exist, e.g. %s",
            len(missing),
            len(names),
            shown(cfg.filelist(split)),
            ", ".join(missing[:3]),
        )
    return existing


class Corpus:
    """Video files in the data folder of a dataset."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg

    def clips(self) -> list[Clip]:
        """All clips of the data folder."""
        return discover_clips(self.cfg.data_dir, self.cfg.clips, quiet=True)

    def files_of(self, clip: Clip) -> list[Path]:
        """Files of a clip; when one changes, the clip is prepared again."""
        return list(dict.fromkeys((clip.path, clip.audio)))

    def no_clips_message(self) -> str:
        """Error text with the remedy for an empty data folder."""
        return no_clips_message(self.cfg)

    def write_lists(self, clips: list[Clip]) -> None:
        """Divide usable clips into the three lists, unless they exist.

        Raises:
            StageError: too few clips, and a later stage of the run needs the lists.
        """
        cfg = self.cfg
        if have_filelists(cfg):
            return
        try:
            parts = split_names(clips, cfg.make_split, cfg.seed, cfg.split_by)
        except StageError as error:
            if {"train", "evaluate"} & set(cfg.stages):
                raise
            log.warning("no lists are written: %s", error)  # the prepared files are still valid
            return
        write_filelists({cfg.filelist(split): names for split, names in parts.items()})
        log.info(
            "split %d clips by %s: %s (lists in %s)",
            len(clips),
            cfg.split_by,
            ", ".join(f"{len(parts[s])} {s}" for s in SPLITS),
            shown(cfg.filelist("train").parent),
        )

    def to_prepare(self, lock: Path | None = None) -> list[Clip]:
        """Clips of the three lists, or all clips when there are no lists yet.

        Args:
            lock: lock file of the run that writes the lists; None does not wait for it.

        Raises:
            StageError: there are no clips.
        """
        clips = discover_clips(self.cfg.data_dir, self.cfg.clips)
        if not clips:
            raise StageError(self.no_clips_message())
        written = sum(self.cfg.filelist(split).exists() for split in SPLITS)
        if lock is not None and 0 < written < len(SPLITS):
            with file_lock(lock):  # another run may be writing them
                pass
        if not have_filelists(self.cfg):
            return clips
        listed: dict[str, Clip] = {}
        for split in SPLITS:
            listed.update({clip.id: clip for clip in split_clips(self.cfg, split, clips)})
        folder = self.cfg.filelist("train").parent
        if not listed:
            raise StageError(f"None of the clips in {folder} exists.")
        others = {name for path in folder.glob("test*.txt") for name in read_filelist(path)}
        left = [clip.id for clip in clips if clip.id not in listed and clip.id not in others]
        if left:
            log.info(
                "%d clips of %s are in no list of %s and are not prepared",
                len(left),
                shown(self.cfg.data_dir),
                shown(folder),
            )
        return list(listed.values())
