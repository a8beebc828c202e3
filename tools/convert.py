"""Convert prepared data of the original codes to the layouts of this toolkit.

    python tools/convert.py <person> --output=<folder>   Live Speech Portraits, and back
    python tools/convert.py <folder> --dataset=<name>    LSP training tree, MODA or HeadGAN clips
    python tools/convert.py <folder> --check             check the files of LSP people

The layout is recognised by its files. ``--dataset`` makes a dataset to train on, without videos.
"""

from __future__ import annotations

import argparse
import logging
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from official import headgan, lsp, moda

from talkingface.data.dataprocess.headgan.headgan_process import HeadGANProcess, PersonMasks
from talkingface.data.dataprocess.lsp import files
from talkingface.data.dataprocess.lsp.lsp_process import LSPProcess
from talkingface.data.dataprocess.moda.moda_process import MODAProcess
from talkingface.data.dataprocess.prepared import IMPORTED
from talkingface.data.filelists import write_filelists
from talkingface.errors import ConfigError, DataError, StageError, TalkingFaceError
from talkingface.quick_start.prepare import relative_root
from talkingface.registry import refresh
from talkingface.utils.logs import progress, setup_logging
from talkingface.utils.paths import project_root, shown, write_json, write_text
from talkingface.utils.seeding import item_rng

log = logging.getLogger("talkingface.convert")  # below the package: it shares its handlers

TRAIN = "train it:  python run_talkingface.py --model=%s --dataset=%s --stages=%s"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser("python tools/convert.py", allow_abbrev=False)
    parser.add_argument(
        "source", type=Path, help="folder of the original code, or of an LSP person"
    )
    parser.add_argument("--output", type=Path, help="new folder for the converted files")
    parser.add_argument("--dataset", help="name of a new dataset made of the converted files")
    parser.add_argument("--fps", type=float, default=30.0, help="frame rate of MODA's preparation")
    parser.add_argument("--check", action="store_true", help="check files of LSP people only")
    args = parser.parse_args(argv)
    setup_logging("info")
    try:
        if not args.source.is_dir():
            raise DataError(f"{args.source}: there is no such folder")
        if args.check:
            check(args.source)
        else:
            convert(args.source, args.output, args.dataset, args.fps)
    except TalkingFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def check(root: Path) -> None:
    """Check every folder with motion files of Live Speech Portraits below ``root``.

    Raises:
        StageError: lists the errors of all wrong folders.
    """
    folders = sorted(path.parent for path in root.rglob(files.FIT))
    if not folders:
        raise DataError(f"{root}: no folder below it contains {files.FIT}")
    errors, worst = [], 0.0
    for folder in folders:
        try:
            checks = files.verify_files(files.MotionFiles(folder))
        except DataError as error:
            errors.append(str(error))
            continue
        worst = max(worst, checks.get("projection_error", 0.0))
    log.info(
        "%s: %d of %d folders are right; largest projection error %.5f px (limit %.2f px)",
        shown(root), len(folders) - len(errors), len(folders), worst, files.MAX_PROJECTION_ERROR,
    )  # fmt: skip
    if errors:
        raise StageError("\n  ".join([f"{len(errors)} of {len(folders)} folders:", *errors]))


def convert(source: Path, output: Path | None, name: str | None, fps: float = 30.0) -> None:
    """Convert a person (LSP) or clips (MODA, HeadGAN).

    Args:
        output: new folder of the files, or None to make a dataset.
        name: name of the new dataset, or None.
        fps: frame rate of MODA's preparation, which is not stored in its files.

    Raises:
        ConfigError: both or neither of ``output`` and ``name``; the target is not empty.
        DataError, StageError: the files are damaged or of no known layout.
    """
    if bool(output) == bool(name):
        raise ConfigError("give either --output=<new folder> or --dataset=<new name>")
    root = project_root() / "dataset" / str(name)
    if headgan.is_official(source):
        if not name:
            raise ConfigError("a HeadGAN tree needs --dataset=<new name>")
        _convert_headgan(source, root, name)
    elif moda.is_original(source):
        _convert_moda(source, output, root, str(name), fps)
    else:
        _convert_person(source, output, root, str(name))


def _empty(folder: Path) -> Path:
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty; choose a new folder or dataset name")
    return folder


def _convert_person(source: Path, output: Path | None, root: Path, name: str) -> None:
    home = root / "preprocessed_data" / LSPProcess.id
    target = _empty(output or home / source.name)
    try:
        kind = lsp.convert_person(source, target)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    log.info("%s (%s) converted into %s", shown(source), kind, shown(target))
    if output:
        return
    if "training" not in kind:
        raise ConfigError(f"--dataset={name}: a dataset can only be made of a training tree")
    person = files.Person(target)
    names = {split: person.listed(split) for split in ("train", "val")}
    for clip_id in dict.fromkeys(name for listed in names.values() for name in listed):
        clip = person.clip(clip_id)
        _mark(home, clip_id, person.name, int(clip.manifest["frames"]), len(clip) / 60)
    _write_lists(root, {**names, "test": names["val"]})
    _describe(name, root, f"files of {person.name}, converted from the official training tree")
    log.info(TRAIN, "Feature2Face", name, "train")


def _convert_moda(source: Path, output: Path | None, root: Path, name: str, fps: float) -> None:
    home = _empty(output or root / "preprocessed_data" / MODAProcess.id)
    folders = {
        folder.relative_to(source).as_posix() if folder != source else source.name: folder
        for folder in moda.original_clips(source)
    }

    def one(clip_id: str) -> None:
        features = moda.convert_clip(folders[clip_id], home / clip_id, fps)
        if not output:
            person = _source_of(clip_id).replace("/", "_")
            _mark(home, clip_id, person, len(features), len(features) / fps)

    done = _convert_each(source, home, list(folders), one)
    if not output:
        _lists(root, done, source)
        _describe(name, root, "clips, converted from MODA's released preparation")
        log.info(TRAIN + " --fps=%g", "MODA", name, "train,evaluate", fps)


def _convert_headgan(source: Path, root: Path, name: str) -> None:
    home = _empty(root / "preprocessed_data" / HeadGANProcess.id)
    clips = [f"{split}/{folder.name}" for split, folder in headgan.official_clips(source)]
    with PersonMasks() as masks:

        def one(clip_id: str) -> None:
            split, clip = clip_id.split("/")
            count = headgan.convert_clip(source, split, clip, home / clip_id, masks)
            _mark(home, clip_id, headgan.person_of(clip), count, count / 25)

        done = _convert_each(source, home, clips, one)
    split = {s: [clip for clip in done if clip.startswith(f"{s}/")] for s in headgan.SPLITS}
    _write_lists(root, _official_lists(split["train"], split["test"]))
    _describe(name, root, "clips, converted from HeadGAN's released preparation")
    log.info(TRAIN, "HeadGAN", name, "train")


def _convert_each(
    source: Path, home: Path, clips: list[str], one: Callable[[str], None]
) -> list[str]:
    """Convert clips one by one; a warning lists those that are damaged.

    Returns:
        Converted clips.

    Raises:
        StageError: no clip could be converted.
    """
    done, errors = [], []
    for clip_id in progress(clips, unit="clip"):
        try:
            one(clip_id)
            done.append(clip_id)
        except (DataError, ValueError, IndexError) as error:
            shutil.rmtree(home / clip_id, ignore_errors=True)
            errors.append(f"{clip_id}: {error}")
    if errors:
        log.warning("%d clip(s) are left out:\n  %s", len(errors), "\n  ".join(errors[:5]))
    if not done:
        raise StageError(f"no clip below {source} could be converted")
    log.info("%d of %d clips converted into %s", len(done), len(clips), shown(home))
    return done


def _official_lists(train: list[str], test: list[str]) -> dict[str, list[str]]:
    """The splits of the tree; a tenth of the training people is held out for validation, and a
    tenth for the test if the tree has no test split."""

    def hold_out(names: list[str]) -> tuple[list[str], list[str]]:
        people = {name: headgan.person_of(Path(name).name) for name in names}
        return _hold_out(people, sorted(set(people.values()), reverse=True), "person")

    if not train:
        train, test = test, []
    if not test:
        train, test = hold_out(train)
    train, val = hold_out(train)
    return {"train": train, "val": val, "test": test}


def _hold_out(
    units: Mapping[str, str], order: Sequence[str], kind: str
) -> tuple[list[str], list[str]]:
    """Training and held-out clips: the first tenth of the units (at least one) is held out; of a
    single unit the last tenth of the clips (at least one).

    Args:
        units: clip -> its unit, a person or a recording.
        order: units in order of choice.
        kind: word for a unit in a warning.
    """
    names, chosen = list(units), set(order[: max(1, len(order) // 10)])
    held = [name for name in names if units[name] in chosen]
    if len(order) == 1:
        held = names[-max(1, len(names) // 10) :]
        log.warning("all clips are of one %s; the last ones are held out", kind)
    rest = [name for name in names if name not in held]
    if not rest:
        log.warning("there is one clip: training and test use it, so the scores prove nothing")
    return rest or held, held


def _source_of(clip_id: str) -> str:
    """The recording that a clip was cut from: its name without the last number."""
    return re.sub(r"[-_]\d+$", "", clip_id) or clip_id


def _lists(root: Path, names: list[str], source: Path) -> None:
    """Write the clip lists: from train.txt and val.txt of the tree if both contain its clips, else
    with a tenth of the recordings held out. The test list equals the validation list."""
    train, val = (_listed(source / f"{split}.txt", names) for split in ("train", "val"))
    if not (train and val):
        recordings = sorted({_source_of(name) for name in names})
        order = [recordings[i] for i in item_rng(2023, "convert").permutation(len(recordings))]
        train, val = _hold_out({name: _source_of(name) for name in names}, order, "recording")
    _write_lists(root, {"train": train, "val": val, "test": val})


def _write_lists(root: Path, lists: Mapping[str, list[str]]) -> None:
    write_filelists({root / "filelist" / f"{split}.txt": listed for split, listed in lists.items()})


def _listed(path: Path, names: list[str]) -> list[str]:
    """Clips in a list of the released preparation, whose lines may begin with any folder."""
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    wanted = [line.strip().strip("./") for line in lines]
    listed = [n for line in wanted for n in names if line == n or line.endswith(f"/{n}")]
    return list(dict.fromkeys(listed))


def _mark(home: Path, clip_id: str, person: str, frames: int, seconds: float) -> None:
    """Write the marker of a clip that was prepared elsewhere."""
    marker = {
        "clip": clip_id,
        "status": "ok",
        "person": person,
        "frames": frames,
        "seconds": seconds,
        "fingerprint": {"processor": IMPORTED, "inputs": []},
    }
    write_json(home / ".status" / f"{clip_id}.json", marker)


def _describe(name: str, root: Path, summary: str) -> None:
    """Write the YAML of a dataset without videos."""
    own = project_root() / "properties" / "dataset" / "local" / f"{name}.yaml"
    lines = (
        f"name: {name}",
        f"summary: {summary}; no videos",
        "licence: that of the tree",
        "origin: python tools/convert.py",
        f"root: {relative_root(root)}",
    )
    write_text(own, "\n".join(lines) + "\n")
    refresh()


if __name__ == "__main__":
    sys.exit(main())
