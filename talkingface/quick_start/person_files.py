"""``--verify`` and ``--convert``: files of LSP people, clips of MODA and HeadGAN."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from talkingface.data.clips import write_filelist
from talkingface.data.dataprocess.headgan import convert as headgan
from talkingface.data.dataprocess.headgan.headgan_process import HeadGANProcess, PersonMasks
from talkingface.data.dataprocess.lsp import files
from talkingface.data.dataprocess.lsp.convert import convert_person
from talkingface.data.dataprocess.lsp.lsp_process import LSPProcess
from talkingface.data.dataprocess.moda.convert import convert_clip, is_original, original_clips
from talkingface.data.dataprocess.moda.moda_process import MODAProcess
from talkingface.data.dataprocess.prepared import IMPORTED
from talkingface.errors import ConfigError, DataError, StageError
from talkingface.quick_start.prepare import relative_root
from talkingface.registry import refresh
from talkingface.utils.logs import progress, setup_logging
from talkingface.utils.paths import program, project_root, shown, write_json, write_text
from talkingface.utils.seeding import item_rng

log = logging.getLogger(__name__)


def _folder(options: Mapping[str, str], key: str) -> Path:
    folder = Path(options[key]).expanduser()
    if not folder.is_dir():
        raise DataError(f"--{key}={folder}: there is no such folder")
    return folder


def verify_command(options: Mapping[str, str], config: Mapping[str, Any]) -> int:
    """Check every folder with motion files below ``--verify``; returns the exit status.

    Raises:
        StageError: lists the errors of all wrong folders.
    """
    setup_logging(str(config.get("log_level", "info")))
    root = _folder(options, "verify")
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
        log.debug("%s: %s", folder, checks)
    log.info(
        "%s: %d of %d folders are right; largest projection error %.5f px (limit %.2f px)",
        shown(root), len(folders) - len(errors), len(folders), worst, files.MAX_PROJECTION_ERROR,
    )  # fmt: skip
    if errors:
        raise StageError("\n  ".join([f"{len(errors)} of {len(folders)} folders:", *errors]))
    return 0


def convert_command(options: Mapping[str, str], config: Mapping[str, Any]) -> int:
    """Convert files of a person (LSP) or clips (MODA, HeadGAN); returns the exit status."""
    setup_logging(str(config.get("log_level", "info")))
    source = _folder(options, "convert")
    name = config.get("dataset")
    if bool(options.get("output")) == bool(name):
        raise ConfigError("--convert needs --output=<new folder> or --dataset=<new name>")
    root = project_root() / "dataset" / str(name)
    if headgan.is_official(source):
        if not name:
            raise ConfigError("--convert of a HeadGAN tree needs --dataset=<new name>")
        return _convert_headgan(source, root, str(name), config)
    if is_original(source):
        place = None if name else Path(options["output"]).expanduser()
        return _convert_moda(source, place, root, str(name), float(config.get("fps") or 30))
    home = root / "preprocessed_data" / LSPProcess.id
    target = home / source.name if name else Path(options["output"]).expanduser()
    if target.exists() and any(target.iterdir()):
        raise ConfigError(f"--output={target} is not empty; choose a new folder")
    try:
        kind = convert_person(source, target)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    log.info("%s (%s) converted into %s", shown(source), kind, shown(target))
    if name:
        if "training" not in kind:
            raise ConfigError(f"--dataset={name}: a dataset can only be made of a training tree")
        _register(str(name), root, home, files.Person(target))
    return 0


def _convert_moda(source: Path, target: Path | None, root: Path, name: str, fps: float) -> int:
    """Convert clip folders of MODA's released preparation; a warning lists damaged ones.

    Args:
        target: folder of the clips; None: make the dataset ``name`` in the folder ``root``.

    Raises:
        StageError: no clip could be converted.
    """
    home = target or root / "preprocessed_data" / MODAProcess.id
    if home.exists() and any(home.iterdir()):
        raise ConfigError(f"{home} is not empty; choose a new folder")
    done, errors = [], []
    for folder in original_clips(source):
        clip_id = folder.relative_to(source).as_posix() if folder != source else source.name
        try:
            features = convert_clip(folder, home / clip_id, fps)
        except (DataError, ValueError, IndexError) as error:
            shutil.rmtree(home / clip_id, ignore_errors=True)
            text = str(error)
            errors.append(text if str(folder) in text else f"{folder}: {text}")
            continue
        done.append(clip_id)
        if target is None:
            person = _source_of(clip_id).replace("/", "_")
            _mark(home, clip_id, person, len(features), len(features) / fps)
    if errors:
        log.warning("%d clip(s) are left out:\n  %s", len(errors), "\n  ".join(errors[:5]))
    if not done:
        raise StageError(f"no clip below {source} could be converted")
    log.info("%d clips of MODA's preparation converted into %s", len(done), shown(home))
    if target is None:
        _lists(root, done, source)
        _describe(name, root, "clips, converted from MODA's released preparation; no videos")
        arguments = f"--model=MODA --dataset={name} --fps={fps:g} --stages=train,evaluate"
        log.info("train it:  %s %s", program(), arguments)
    return 0


def _convert_headgan(source: Path, root: Path, name: str, config: Mapping[str, Any]) -> int:
    """Make a dataset of the tree of HeadGAN's released code; a warning lists damaged clips.

    Raises:
        StageError: no clip could be converted.
    """
    home = root / "preprocessed_data" / HeadGANProcess.id
    if home.exists() and any(home.iterdir()):
        raise ConfigError(f"{home} is not empty; choose a new dataset name")
    clips = headgan.official_clips(source)
    lists: dict[str, list[str]] = {split: [] for split in headgan.SPLITS}
    errors = []
    with PersonMasks() as masks:
        for split, folder in progress(clips, unit="clip", show=config.get("show_progress", "auto")):
            clip_id = f"{split}/{folder.name}"
            try:
                count = headgan.convert_clip(source, split, folder.name, home / clip_id, masks)
            except DataError as error:
                shutil.rmtree(home / clip_id, ignore_errors=True)
                errors.append(str(error))
                continue
            lists[split].append(clip_id)
            _mark(home, clip_id, headgan.person_of(folder.name), count, count / 25)
    if errors:
        log.warning("%d clip(s) are left out:\n  %s", len(errors), "\n  ".join(errors[:5]))
    if not any(lists.values()):
        raise StageError(f"no clip below {source} could be converted")
    for split, listed in _official_lists(lists["train"], lists["test"]).items():
        write_filelist(root / "filelist" / f"{split}.txt", listed)
    log.info("%d clips of HeadGAN's tree converted into %s", len(clips) - len(errors), shown(home))
    _describe(name, root, "clips, converted from HeadGAN's released preparation; no videos")
    log.info("train it:  %s --model=HeadGAN --dataset=%s --stages=train", program(), name)
    return 0


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
    for split, listed in {"train": train, "val": val, "test": val}.items():
        write_filelist(root / "filelist" / f"{split}.txt", listed)


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
        f"summary: {summary}",
        "licence: that of the tree",
        "origin: python run_talkingface.py --convert=...",
        f"root: {relative_root(root)}",
    )
    write_text(own, "\n".join(lines) + "\n")
    refresh()


def _register(name: str, root: Path, home: Path, person: files.Person) -> None:
    """Make a dataset of a converted training tree: markers, clip lists and a YAML, no videos."""
    names = {split: person.listed(split) for split in ("train", "val")}
    for clip_id in dict.fromkeys(name for listed in names.values() for name in listed):
        clip = person.clip(clip_id)
        _mark(home, clip_id, person.name, int(clip.manifest["frames"]), len(clip) / 60)
    for split, listed in {**names, "test": names["val"]}.items():
        write_filelist(root / "filelist" / f"{split}.txt", listed)
    summary = f"files of {person.name}, converted from the official training tree; no videos"
    _describe(name, root, summary)
    log.info("train it:  %s --model=Feature2Face --dataset=%s --stages=train", program(), name)
