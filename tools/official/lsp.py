"""Converts person folders from and to the two layouts of the official code.

Official training tree: ``<person>/{mean_pts3d.npy, train_list.txt, val_list.txt, <clip>/...}``;
official inference tree: all files of the person in one folder.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from talkingface.data.dataprocess.lsp import files
from talkingface.data.dataprocess.lsp.drawing import WINDOW
from talkingface.data.dataprocess.lsp.person import shoulder_sides
from talkingface.data.media.images import read_image
from talkingface.data.media.pictures import PictureReader, write_pictures
from talkingface.data.media.writer import write_image
from talkingface.errors import DataError
from talkingface.utils.paths import write_text

_PERSON = (
    *(files.MEAN_POINTS, files.FIT, files.POINTS_3D, files.POINTS_2D, files.SCALE, files.CAMERA),
    *(files.WINDOW_FILE, files.SHOULDERS, files.SHOULDERS_3D, files.DATABASE, files.EXAMPLE),
)
_CLIP = (
    *(files.FIT, files.POINTS_3D, files.POINTS_2D, files.SCALE, files.CAMERA, files.WINDOW_FILE),
    *(files.SHOULDERS, files.SHOULDERS_3D, files.EXAMPLE),
)


def convert_person(source: Path, target: Path) -> str:
    """Convert one person.

    Args:
        source: prepared person, official training tree, or official inference tree.
        target: new folder. A prepared person becomes both official trees, in
            ``training/<person>`` and ``inference/<person>``.

    Returns:
        Layout of ``source``.

    Raises:
        DataError: the layout is unknown, or files are missing or contradict each other.
    """
    if (source / "clips").is_dir():
        _to_training(files.Person(source), target / "training" / source.name)
        _copy(source, target / "inference" / source.name, _PERSON)
        return "our files"
    if (source / files.FIT).is_file():
        _from_inference(source, target)
        return "official inference tree"
    clips = sorted(path.parent for path in source.glob(f"*/{files.FIT}"))
    if not clips or not (source / files.MEAN_POINTS).is_file():
        raise DataError(
            f"{source} is no person of Live Speech Portraits: it needs {files.FIT} (inference), "
            f"{files.MEAN_POINTS} and folders with {files.FIT} (training), or a folder clips (ours)"
        )
    _from_training(source, clips, target)
    return "official training tree"


def _copy(source: Path, target: Path, names: tuple[str, ...]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (source / name).is_file():
            shutil.copy2(source / name, target / name)
    if (source / files.CANDIDATES).is_dir():
        shutil.copytree(source / files.CANDIDATES, target / files.CANDIDATES, dirs_exist_ok=True)


def _to_training(person: files.Person, target: Path) -> None:
    """Pictures are repeated to one per motion frame, as the official loader expects."""
    _copy(person.folder, target, (files.MEAN_POINTS,))
    shutil.rmtree(target / files.CANDIDATES, ignore_errors=True)
    for folder in sorted((person.folder / "clips").iterdir()):
        clip, home = files.ClipFiles(folder), target / folder.name
        _copy(folder, home, _CLIP)
        shutil.copytree(person.folder / files.CANDIDATES, home / files.CANDIDATES)
        for path in (*folder.glob("*.wav"), *folder.glob("*_APC_feature_*.npy")):
            shutil.copy2(path, home / path.name)
        reader = PictureReader(clip.pictures_path)
        rows, pictures = reader.rows(), reader.encoded()
        repeated = (pictures[row] for row in rows)
        write_pictures(home / f"{clip.name}.h5", repeated, np.arange(len(rows)))
    for split in ("train", "val"):
        names = [name.replace("/", "__") for name in person.listed(split)]
        write_text(target / f"{split}_list.txt", "".join(f"{name}\n" for name in names))


def _from_inference(source: Path, target: Path) -> None:
    """Copy and check the files, whose names are the same, and compute missing ones."""
    _copy(source, target, _PERSON)
    person = files.Person(target)
    if not (target / files.MEAN_POINTS).is_file():
        files.save_array(target / files.MEAN_POINTS, person.points.mean(axis=0))
    errors = files.verify_files(person, official=True)
    if not (target / files.POINTS_2D).is_file():
        files.save_array(target / files.POINTS_2D, person.projection())
    person.candidates(WINDOW)
    files.write_manifest(target, {"person": target.name, "origin": "official", **errors})


def _from_training(source: Path, clips: list[Path], target: Path) -> None:
    _copy(source, target, (files.MEAN_POINTS, files.CAMERA, files.SCALE, files.EXAMPLE))
    for folder in clips:
        home = target / "clips" / folder.name
        _copy(folder, home, _CLIP)
        for path in (*folder.glob("*.wav"), *folder.glob("*.h5"), *folder.glob("*.npy")):
            if not (home / path.name).exists():
                shutil.copy2(path, home / path.name)
        clip = files.ClipFiles(home)
        for name in (files.CAMERA, files.SCALE):  # official: in the folder of the person
            if not (home / name).is_file() and (source / name).is_file():
                shutil.copy2(source / name, home / name)
        complete = (home / files.CAMERA).is_file() and (home / files.SCALE).is_file()
        errors = files.verify_files(clip, official=True) if complete else {}
        frames = len(PictureReader(clip.pictures_path)) if clip.pictures_path.is_file() else 0
        manifest = {"clip": folder.name, "fps": 60.0, "start": 0, "frames": frames}
        files.write_manifest(home, {**manifest, "motion_frames": len(clip), **errors})
    names = [folder.name for folder in clips]
    for split in ("train", "val"):
        path = source / f"{split}_list.txt"
        listed = path.read_text("utf-8").split("\n") if path.is_file() else names
        listed = [name.strip() for name in listed if name.strip()]
        unknown = sorted(set(listed) - set(names))
        if unknown:
            raise DataError(f"{path} lists clips that do not exist: {', '.join(unknown[:5])}")
        write_text(target / f"{split}_list.txt", "".join(f"{name}\n" for name in listed))
    training = [files.ClipFiles(target / "clips" / n) for n in files.Person(target).listed("train")]
    files.save_motion(target, training, np.ones(2, bool))
    first = training[0]
    for name in (files.CAMERA, files.SCALE, files.WINDOW_FILE, files.EXAMPLE):
        if not (target / name).is_file() and (first.folder / name).is_file():
            shutil.copy2(first.folder / name, target / name)
    _candidates(training, target)
    manifest = {"person": target.name, "origin": "official training tree"}
    sides = shoulder_sides(training)
    files.write_manifest(target, {**manifest, "shoulder_sides": sides.tolist()})


def _candidates(clips: list[files.ClipFiles], target: Path) -> None:
    """Copy the normalised pictures of a clip, or crop its source frames ``full_{j}.jpg``."""
    for clip in clips:
        folder = clip.folder / files.CANDIDATES
        if (folder / "normalized_full_3.jpg").is_file():
            shutil.copytree(folder, target / files.CANDIDATES, dirs_exist_ok=True)
            return
        if (folder / "full_3.jpg").is_file():
            (target / files.CANDIDATES).mkdir()
            for j in range(4):
                picture = clip.window.cut(read_image(folder / f"full_{j}.jpg"))
                write_image(target / files.CANDIDATES / f"normalized_full_{j}.jpg", picture)
            return
    raise DataError(f"{target.name}: no clip has candidates/normalized_full_0.jpg or full_0.jpg")
