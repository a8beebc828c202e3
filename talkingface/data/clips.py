"""Raw clips of a dataset and the lists that split them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from talkingface.errors import DataError, StageError
from talkingface.utils.paths import is_temporary, shown, write_text

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Clip:
    """One raw clip.

    Attributes:
        id: path below the data folder without extension, with ``/``; also its name in lists.
        path: the video file.
        audio: file with the sound: the video itself, or a ``.wav`` of the same name beside it.
    """

    id: str
    path: Path
    audio: Path


def discover_clips(data_dir: Path) -> list[Clip]:
    """All videos below a folder, sorted by id. Two files of one name: the first is taken."""
    clips: dict[str, Clip] = {}
    if not data_dir.is_dir():
        return []
    for path in sorted(data_dir.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(data_dir).parts)
        hidden = hidden or is_temporary(path)
        if hidden or path.suffix.lower() not in VIDEO_SUFFIXES or not path.is_file():
            continue
        clip = make_clip(path, path.relative_to(data_dir).with_suffix("").as_posix())
        if clip.id in clips:
            log.warning(
                "two files share the clip name '%s': %s is used, %s is not",
                clip.id,
                clips[clip.id].path.name,
                path.name,
            )
            continue
        clips[clip.id] = clip
    return list(clips.values())


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
        if line[0] == '"' and line.count('"') >= 2:
            name = line[1 : line.index('"', 1)]
        else:
            name = line.split()[0]
        names.append(name.replace("\\", "/"))
    return list(dict.fromkeys(names))


def write_filelist(path: Path, names: Iterable[str]) -> None:
    """Write a list atomically; names with blanks or a leading ``#`` are quoted."""
    lines = [f'"{name}"' if " " in name or name[:1] == "#" else name for name in names]
    write_text(path, "".join(line + "\n" for line in lines))


def split_names(
    names: list[str], shares: tuple[float, float, float], seed: int, by: str = "clip"
) -> dict[str, list[str]]:
    """Divide clips at random, repeatably; val and test get at least one unit when there are three.

    Args:
        by: ``folder`` keeps all clips of a folder (a speaker) on one side.
    """
    from talkingface.utils.seeding import item_rng

    units: dict[str, list[str]] = {}
    for name in sorted(names):
        key = name.rpartition("/")[0] if by == "folder" else name
        units.setdefault(key, []).append(name)
    keys = list(units)
    order = [keys[i] for i in item_rng(seed, "split").permutation(len(keys))]
    counts = [round(share * len(order)) for share in shares]
    if len(order) >= 3:
        for index in (1, 2):
            if shares[index] > 0:
                counts[index] = max(counts[index], 1)
    counts[0] = max(len(order) - counts[1] - counts[2], min(1, len(order)))
    result, start = {}, 0
    for split, count in zip(SPLITS, counts, strict=True):
        chosen = order[start : start + count]
        result[split] = sorted(name for key in chosen for name in units[key])
        start += count
    return result


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
    """Write the three lists when none exists; existing ones are never touched."""
    if have_filelists(cfg):
        return
    paths = {split: cfg.filelist(split) for split in SPLITS}
    if not clips:
        raise StageError(no_clips_message(cfg))
    parts = split_names([c.id for c in clips], cfg.make_split, cfg.seed, cfg.split_by)
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
    origin = cfg.dataset_entry.meta.get("origin")
    text = (
        f"No video was found below {cfg.data_dir}. Put the clips of {cfg.dataset} there "
        f"(any depth; {', '.join(VIDEO_SUFFIXES[:5])}...), or set --data_root=<folder>."
    )
    return text + (f" How to get them: {origin}" if origin else "")


def split_clips(cfg: Config, split: str) -> list[Clip]:
    """Raw clips of a split. Listed clips that do not exist are reported, not looped over."""
    by_id = {clip.id: clip for clip in discover_clips(cfg.data_dir)}
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
