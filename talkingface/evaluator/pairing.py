"""Videos in folders, and which of them belong together."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from talkingface.data.clips import VIDEO_SUFFIXES
from talkingface.errors import ConfigError

log = logging.getLogger(__name__)


def split_list(text: str) -> list[str]:
    """``A,B`` or ``[A, B]`` in parts; a path that exists is one part, whatever it holds."""
    text = text.strip()
    if Path(text).expanduser().exists():
        return [text]
    return [part.strip() for part in text.strip("[]").split(",") if part.strip()]


def find_videos(option: str, text: str) -> dict[str, Path]:
    """Videos by their path below the folder without suffix; of a single file by its stem.

    Args:
        option: of the command line, for messages.

    Raises:
        ConfigError: nothing there.
    """
    path = Path(text.strip()).expanduser()
    if path.is_file():
        return {path.stem: path}
    if not path.is_dir():
        raise ConfigError(f"--{option}: {path} does not exist")
    found: dict[str, Path] = {}
    for file in sorted(path.rglob("*")):
        if file.suffix.lower() not in VIDEO_SUFFIXES or not file.is_file():
            continue
        name = file.relative_to(path).with_suffix("").as_posix()
        if name in found:
            log.warning("%s is left out: %s has the same name", file, found[name].name)
        else:
            found[name] = file
    if not found:
        raise ConfigError(f"--{option}: no video in {path}")
    return found


def pair_videos(
    title: str, made: Mapping[str, Path], reference: Mapping[str, Path]
) -> dict[str, tuple[Path, Path]]:
    """Partners by path, the others by a file name that occurs once; what has none is reported."""
    by_name: dict[str, list[str]] = {}
    for name in reference:
        by_name.setdefault(name.rpartition("/")[2], []).append(name)
    pairs = {name: (path, reference[name]) for name, path in made.items() if name in reference}
    alone = []
    for name, path in made.items():
        if name in reference:
            continue
        same = by_name.get(name.rpartition("/")[2], [])
        if len(same) == 1 and same[0] not in pairs:
            pairs[same[0]] = (path, reference[same[0]])
        else:
            alone.append(name)
    missing = sorted(set(reference) - set(pairs))
    for what, names in (("has no reference", alone), ("is missing", missing)):
        if names:
            log.warning(
                "%s: %d video(s) left out, each %s: %s%s", title, len(names), what,
                ", ".join(names[:5]), ", ..." if len(names) > 5 else "",
            )  # fmt: skip
    return dict(sorted(pairs.items()))
