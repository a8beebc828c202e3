"""Find videos in folders and pair generated with real ones."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from unicodedata import normalize

from talkingface.data.media.files import VIDEO_SUFFIXES, walk
from talkingface.errors import ConfigError

log = logging.getLogger(__name__)


def split_list(text: str) -> list[str]:
    """Split ``A,B`` or ``[A, B]`` at the commas; the name of an existing path is not split."""
    text = text.strip()
    if Path(text).expanduser().exists():
        return [text]
    return [part.strip() for part in text.strip("[]").split(",") if part.strip()]


def find_videos(option: str, text: str) -> dict[str, Path]:
    """Videos by id: the path below the folder without suffix, or the stem of a single file.

    Args:
        option: name of the command-line option, for messages.

    Raises:
        ConfigError: no such path, or no video in it.
    """
    path = Path(text.strip()).expanduser()
    if path.is_file():
        return {path.stem: path}
    if not path.is_dir():
        raise ConfigError(f"--{option}: {path} does not exist")
    videos: dict[str, Path] = {}
    for file in walk(path):
        if file.suffix.lower() not in VIDEO_SUFFIXES:
            continue
        name = normalize("NFC", file.relative_to(path).with_suffix("").as_posix())
        if name in videos:
            log.warning("%s is left out: %s has the same name", file, videos[name].name)
        else:
            videos[name] = file
    if not videos:
        raise ConfigError(f"--{option}: no video in {path}")
    return videos


def pair_videos(
    title: str, generated: Mapping[str, Path], reference: Mapping[str, Path]
) -> dict[str, tuple[Path, Path]]:
    """Pair videos by id, the others by a unique file name; videos without a partner are logged.

    Returns:
        id of the reference -> generated and reference video.
    """
    by_name: dict[str, list[str]] = {}
    for name in reference:
        by_name.setdefault(name.rpartition("/")[2], []).append(name)
    pairs = {name: (path, reference[name]) for name, path in generated.items() if name in reference}
    unpaired = []
    for name, path in generated.items():
        if name in reference:
            continue
        same = by_name.get(name.rpartition("/")[2], [])
        if len(same) == 1 and same[0] not in pairs:
            pairs[same[0]] = (path, reference[same[0]])
        else:
            unpaired.append(name)
    missing = sorted(set(reference) - set(pairs))
    for what, names in (("has no reference", unpaired), ("is missing", missing)):
        if names:
            log.warning(
                "%s: %d video(s) left out, each %s: %s%s", title, len(names), what,
                ", ".join(names[:5]), ", ..." if len(names) > 5 else "",
            )  # fmt: skip
    return dict(sorted(pairs.items()))
