"""Converts the dataset tree of HeadGAN's released code (michaildoukas/headGAN) to prepared clips.

Its files are ``<train|test>/{images,nmfcs,landmarks70,audio_features}/<name>[_<part>]/<frame>``
and reference frames in ``images_fs/<name>`` and ``nmfcs_fs/<name>``. PNCC pictures and voice are
copied: the tree was drawn with a licensed face model, which the conversion does not need.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from talkingface.data.dataprocess.headgan.files import (
    MASKS,
    OFFICIAL,
    PICTURES,
    PNCC,
    REFERENCE_PNCC,
    REFERENCES,
)
from talkingface.data.media.images import read_image
from talkingface.data.media.pictures import encode_png, write_pictures
from talkingface.data.npz import save_npz
from talkingface.errors import DataError

SPLITS = ("train", "test")
_PART = re.compile(r"_\d{6}$")
_MOUTH = slice(48, 68)  # of the 70 landmarks; the last two are pupils, which upstream includes


def is_official(folder: Path) -> bool:
    """Whether a folder is a dataset tree of the released code."""
    return any((folder / split / "nmfcs").is_dir() for split in SPLITS)


def official_clips(folder: Path) -> list[tuple[str, Path]]:
    """Split and picture folder of each clip."""
    return [
        (split, clip)
        for split in SPLITS
        for clip in sorted((folder / split / "images").glob("*"))
        if clip.is_dir()
    ]


def person_of(clip: str) -> str:
    """Identity of a clip: its name without the number of the part; names may contain ``_``."""
    return _PART.sub("", clip)


def convert_clip(
    root: Path,
    split: str,
    clip: str,
    target: Path,
    segment: Callable[[np.ndarray], np.ndarray] | None,
) -> int:
    """Convert one clip.

    Args:
        root: folder of the tree.
        target: new folder.
        segment: (H,W,3) uint8 -> (H,W) uint8 mask of the person; None: no masks.

    Returns:
        Number of frames.

    Raises:
        DataError: files are missing or do not fit together.
    """
    tree, person = root / split, person_of(clip)
    frames = _numbered(tree / "images" / clip, ".png")
    if not frames:
        raise DataError(f"{tree / 'images' / clip} holds no .png")
    stems = [frame.stem for frame in frames]
    shape = read_image(frames[0]).shape
    if shape[0] != shape[1]:
        raise DataError(f"{frames[0]} is {shape[1]}x{shape[0]}; squares are needed")
    nmfcs = _matching(tree / "nmfcs" / clip, stems, ".png")
    voices = [_numbers(p).ravel() for p in _matching(tree / "audio_features" / clip, stems, ".txt")]
    if len({len(v) for v in voices}) != 1:
        raise DataError(f"{tree / 'audio_features' / clip}: files of different lengths")
    landmarks = _matching(tree / "landmarks70" / clip, stems, ".txt")
    mouths = [np.median(_landmarks(path)[_MOUTH], axis=0) for path in landmarks]
    target.mkdir(parents=True, exist_ok=True)
    write_pictures(target / PICTURES, _bytes(frames))
    write_pictures(target / PNCC, _bytes(nmfcs))
    if segment is not None:
        masks = (encode_png(segment(read_image(frame))) for frame in frames)
        write_pictures(target / MASKS, masks)
    # Looked up by the identity's name. Upstream pairs sorted lists, which gives wrong identities if
    # one name is the beginning of another.
    references = _numbered(tree / "images_fs" / person, ".png")
    if references:
        drawn = _matching(tree / "nmfcs_fs" / person, [r.stem for r in references], ".png")
        write_pictures(target / REFERENCES, _bytes(references))
        write_pictures(target / REFERENCE_PNCC, _bytes(drawn))
    voice = np.stack(voices).astype(np.float32)
    content = {"voice": voice, "mouth": np.stack(mouths), "person": person, "size": shape[0]}
    save_npz(target / OFFICIAL, content)
    return len(frames)


def _numbered(folder: Path, suffix: str) -> list[Path]:
    return sorted(path for path in folder.glob(f"*{suffix}") if path.stem.isdigit())


def _matching(folder: Path, stems: list[str], suffix: str) -> list[Path]:
    paths = [folder / f"{stem}{suffix}" for stem in stems]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DataError(f"{len(missing)} of {len(paths)} files are missing, e.g. {missing[0]}")
    return paths


def _bytes(paths: list[Path]) -> Iterator[bytes]:
    return (path.read_bytes() for path in paths)


def _landmarks(path: Path) -> np.ndarray:
    values = _numbers(path)
    if values.shape != (70, 2):
        raise DataError(f"{path} has the shape {values.shape}; (70, 2) is needed")
    return values


def _numbers(path: Path) -> np.ndarray:
    try:
        return np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
