"""What is compared: registered models, finished runs, weight files and folders of videos."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkingface.config.config import load_config
from talkingface.data.clips import Clip, split_clips
from talkingface.data.face.scan import content_hash
from talkingface.errors import ConfigError, DataError, TalkingFaceError
from talkingface.evaluator.pairing import find_videos, pair_videos
from talkingface.quick_start.infer import configure
from talkingface.registry import Registry, get_registry
from talkingface.utils.paths import shown

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)


@dataclass
class Entry:
    """One part of ``--models``, for one dataset.

    Attributes:
        title: name of its row.
        detail: which run, weights or folder.
        cfg, checkpoint: of a model; None for a folder of videos.
        videos: of a folder, by name.
        warnings: what a reader of the table must know.
    """

    title: str
    detail: str
    cfg: Config | None = None
    checkpoint: Path | None = None
    videos: Mapping[str, Path] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return "model" if self.cfg else "videos"


@dataclass
class Material:
    """The clips of one dataset, the same for all rows.

    Attributes:
        cfg: settings of the dataset and of the metrics.
        facts: where the clips come from, for people.
    """

    name: str
    cfg: Config
    clips: list[Clip]
    facts: list[str]


def split_list(text: str) -> list[str]:
    """``A,B`` or ``[A, B]`` in parts; a path that exists is one part, whatever it holds."""
    text = text.strip()
    if Path(text).expanduser().exists():
        return [text]
    return [part.strip() for part in text.strip("[]").split(",") if part.strip()]


def find_entries(parts: list[str], dataset: str | None, config: Mapping[str, Any]) -> list[Entry]:
    """Models, runs and folders of videos by name.

    Args:
        parts: each a model's name (its newest run on the dataset, else on any), a run id, run
            folder or checkpoint, or a folder of videos; with ``Title=`` before it if wanted. The
            title of an official weight file names its model.
        dataset: registered name; None for a folder of real videos.

    Raises:
        ConfigError: a part names nothing, or two rows would have one title.
    """
    registry = get_registry(config.get("plugin_path"))
    entries: list[Entry] = []
    for part in parts:
        given, equals, what = part.partition("=")
        title, what = (given, what) if equals else ("", part)
        entry = _videos(title, what) or _model(registry, title, what, dataset, config)
        taken = {other.title for other in entries}
        again = any(entry.checkpoint and entry.checkpoint == other.checkpoint for other in entries)
        if entry.title in taken and entry.checkpoint and not again:
            entry.title = f"{entry.title} ({_run_id(entry.checkpoint)})"
        if entry.title in taken:
            raise ConfigError(
                f"--models: two rows are called '{entry.title}'; write Title={what} for one of them"
            )
        entries.append(entry)
    return entries


def _videos(title: str, what: str) -> Entry | None:
    path = Path(what).expanduser()
    if not path.is_dir() or (path / "checkpoints").is_dir():
        return None
    return Entry(title or path.name, f"videos in {shown(path)}", videos=find_videos("models", what))


def _model(
    registry: Registry, title: str, what: str, dataset: str | None, config: Mapping[str, Any]
) -> Entry:
    known = {name.lower(): name for name in registry.names("model")}
    named = known.get(what.lower())
    options: dict[str, str] = {} if named else {"checkpoint": what}
    settings = {k: v for k, v in config.items() if k not in ("model", "dataset")}
    settings["model"] = named or known.get(title.lower())
    try:
        try:
            cfg, checkpoint = configure(options, {**settings, "dataset": dataset}, [])
        except ConfigError:
            if not (named and dataset):
                raise
            cfg, checkpoint = configure(options, settings, [])  # trained on something else
    except (ConfigError, DataError) as error:
        raise ConfigError(
            f"--models: '{what}' is neither a trained model, nor a run, nor a folder of videos. "
            f"{error}"
        ) from error
    if not cfg.model_entry.target("pipeline"):
        raise ConfigError(f"--models: {cfg.model} generates no videos")
    trained = f"trained on {cfg.dataset}" if checkpoint.suffix == ".ckpt" else "given weights"
    detail = f"{_run_id(checkpoint)}, {trained}"
    warnings = []
    if dataset and checkpoint.suffix == ".ckpt" and cfg.dataset != dataset:
        warnings.append(f"{trained}, not on {dataset}")
    return Entry(title or cfg.model, detail, cfg, checkpoint, warnings=warnings)


def _run_id(checkpoint: Path) -> str:
    own = checkpoint.parent.name == "checkpoints" and checkpoint.suffix == ".ckpt"
    return checkpoint.parent.parent.name if own else checkpoint.name


def find_material(name: str, entries: list[Entry], config: Mapping[str, Any]) -> Material:
    """The test split of a dataset as the first run on it divided it, or a folder of real videos.

    Raises:
        ConfigError: no such dataset or folder.
        StageError: it has no usable clip.
    """
    from talkingface.errors import StageError
    from talkingface.quick_start.evaluation import usable_clips

    path = Path(name).expanduser()
    registry = get_registry(config.get("plugin_path"))
    registered = {known.lower(): known for known in registry.names("dataset")}
    if name.lower() not in registered and path.is_dir():
        cfg = load_config("SyncNet", "Synthetic", cli=config)
        found = find_videos("datasets", name)
        clips = [Clip(clip_id, file, file) for clip_id, file in found.items()]
        facts = [f"all videos in {shown(path)}"]
        return Material(path.name, cfg, clips[: cfg.eval_clips], facts)
    dataset = registry.entry("dataset", name).name
    own = next((e.cfg for e in entries if e.cfg and e.cfg.dataset == dataset), None)
    cfg = own or load_config("SyncNet", dataset, cli=config)
    clips = usable_clips(cfg, "test")[: cfg.eval_clips]
    if not clips:
        raise StageError(
            f"The test split of {dataset} has no usable clip ({cfg.filelist('test')}); prepare it "
            f"with --model=... --dataset={dataset} --stages=preprocess"
        )
    return Material(dataset, cfg, clips, [f"test split ({shown(cfg.filelist('test'))})"])


def seen_in_training(entry: Entry, clips: list[Clip]) -> int:
    """How many of the clips, by content, lie in the train split of the entry's run."""
    if entry.cfg is None or entry.checkpoint is None or entry.checkpoint.suffix != ".ckpt":
        return 0
    try:
        trained = [clip.path for clip in split_clips(entry.cfg, "train")]
    except TalkingFaceError as error:
        log.debug("%s: the train split is not known: %s", entry.title, error)
        return 0
    sizes: dict[int, list[Path]] = {}
    for path in trained:
        if path.is_file():
            sizes.setdefault(path.stat().st_size, []).append(path)
    seen = 0
    for clip in clips:
        others = sizes.get(clip.path.stat().st_size, [])
        seen += any(content_hash(clip.path) == content_hash(other) for other in others)
    return seen


def videos_for(entry: Entry, clips: list[Clip]) -> dict[str, Path]:
    """Videos of a folder by the id of the clip that they belong to; what has none is reported."""
    pairs = pair_videos(entry.title, entry.videos, {clip.id: clip.path for clip in clips})
    return {name: made for name, (made, _) in pairs.items()}


def file_state(path: Path) -> str:
    """Size and date of a file: enough to see that it changed."""
    info = path.stat()
    return f"{info.st_size}-{info.st_mtime_ns}"
