"""What is compared: registered models, finished runs, weight files and folders of videos."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkingface.config.config import load_config
from talkingface.data.clips import Clip, make_clip, split_clips
from talkingface.data.face.scan import content_hash
from talkingface.errors import ConfigError, DataError, StageError, TalkingFaceError
from talkingface.evaluator.pairing import find_videos, pair_videos
from talkingface.quick_start.infer import configure
from talkingface.registry import Registry, get_registry
from talkingface.utils.paths import shown

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)


@dataclass
class Competitor:
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


def find_entries(
    parts: list[str],
    dataset: str | None,
    config: Mapping[str, Any],
    config_files: Sequence[str] = (),
) -> list[Competitor]:
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
    entries: list[Competitor] = []
    for part in parts:
        title, what = titled(part)
        models = {name.lower() for name in registry.names("model")}
        entry = None if what.lower() in models else _videos(title, what)
        entry = entry or _model(registry, title, what, dataset, config, config_files)
        taken = {other.title.casefold() for other in entries}
        again = any(entry.checkpoint and entry.checkpoint == other.checkpoint for other in entries)
        if entry.title.casefold() in taken and entry.checkpoint and not (title or again):
            entry.title = f"{entry.title} ({_run_id(entry.checkpoint)})"
        if entry.title.casefold() in taken:
            raise ConfigError(
                f"--models: two rows are called '{entry.title}'; write Title={what} for one of them"
            )
        entries.append(entry)
    return entries


def titled(part: str) -> tuple[str, str]:
    """``Title=what`` in parts; a path that exists is no title, whatever it holds."""
    title, equals, what = part.partition("=")
    if not equals or Path(part).expanduser().exists():
        return "", part
    return title.strip(), what.strip()


def dataset_name(what: str, config: Mapping[str, Any]) -> str | None:
    """The registered name of a dataset in any spelling, None for a folder.

    Raises:
        ConfigError: neither.
    """
    registry = get_registry(config.get("plugin_path"))
    known = {name.lower() for name in registry.names("dataset")}
    if what.lower() not in known and Path(what).expanduser().is_dir():
        return None
    return registry.entry("dataset", what).name


def _videos(title: str, what: str) -> Competitor | None:
    path = Path(what).expanduser()
    if not path.is_dir() or (path / "checkpoints").is_dir():
        return None
    name = title or path.resolve().name
    return Competitor(name, f"videos in {shown(path)}", videos=find_videos("models", what))


def _model(
    registry: Registry,
    title: str,
    what: str,
    dataset: str | None,
    config: Mapping[str, Any],
    config_files: Sequence[str],
) -> Competitor:
    known = {name.lower(): name for name in registry.names("model")}
    named = known.get(what.lower())
    options: dict[str, str] = {} if named else {"checkpoint": what}
    settings = {k: v for k, v in config.items() if k not in ("model", "dataset")}
    settings["model"] = named or known.get(title.lower())
    files = list(config_files)
    try:
        try:
            cfg, checkpoint = configure(options, {**settings, "dataset": dataset}, files)
        except ConfigError:
            if not (named and dataset):
                raise
            cfg, checkpoint = configure(options, settings, files)  # trained on something else
    except (ConfigError, DataError) as error:
        raise ConfigError(
            f"--models: '{what}' is neither a trained model, nor a run, nor a folder of videos. "
            f"{error}"
        ) from error
    if cfg.model_entry.target("test_dataset"):
        raise ConfigError(
            f"{cfg.model} generates motion; --benchmark compares videos. Its motion is compared by "
            f"--model={cfg.model} --dataset=... --stages=evaluate (metric FD)"
        )
    if not cfg.model_entry.target("pipeline"):
        raise ConfigError(f"--models: {cfg.model} generates no videos")
    trained = f"trained on {cfg.dataset}" if checkpoint.suffix == ".ckpt" else "given weights"
    warnings = []
    if dataset and checkpoint.suffix == ".ckpt" and cfg.dataset != dataset:
        warnings.append(f"{trained}, not on {dataset}")
    detail = f"{_run_id(checkpoint)}, {trained}"
    return Competitor(title or cfg.model, detail, cfg, checkpoint, warnings=warnings)


def _run_id(checkpoint: Path) -> str:
    own = checkpoint.parent.name == "checkpoints" and checkpoint.suffix == ".ckpt"
    return checkpoint.parent.parent.name if own else checkpoint.name


# What a run says about its own evaluation; a benchmark is asked for by its command alone.
_OF_EVALUATION = {
    *("metrics", "metric_params", "baselines", "eval_clips", "n_preview", "metric_decimal_place"),
    *("model", "dataset", "preset", "resume", "evaluate_model_file", "show_progress", "log_level"),
}


def find_material(
    part: str,
    entries: list[Competitor],
    config: Mapping[str, Any],
    config_files: Sequence[str] = (),
) -> Material:
    """The test split of a dataset as the first run on it divided it, or a folder of real videos.

    Raises:
        ConfigError: no such dataset or folder.
        StageError: it has no usable clip.
    """
    from talkingface.quick_start.evaluation import usable_clips

    title, what = titled(part)
    dataset = dataset_name(what, config)
    options: dict[str, Any] = {"config_files": config_files, "cli": config}
    if dataset is None:
        path = Path(what).expanduser()
        cfg = load_config("SyncNet", "Synthetic", **options)
        found = find_videos("datasets", what)
        clips = [make_clip(file, clip_id) for clip_id, file in found.items()]
        facts = [f"all videos in the folder {path.resolve().name}"]
        return Material(title or path.resolve().name, cfg, clips[: cfg.eval_clips], facts)
    own = next((e.cfg for e in entries if e.cfg and e.cfg.dataset == dataset), None)
    if own is None:
        cfg = load_config("SyncNet", dataset, **options)
    else:
        stored = {k: v for k, v in own.to_dict().items() if k not in _OF_EVALUATION}
        cfg = load_config(own.model, dataset, base=stored, **options)
    clips = usable_clips(cfg, "test")[: cfg.eval_clips]
    if not clips:
        raise StageError(
            f"The test split of {dataset} has no usable clip ({cfg.filelist('test')}); prepare it "
            f"with --model=... --dataset={dataset} --stages=preprocess"
        )
    return Material(title or dataset, cfg, clips, [f"test split of {dataset}"])


def seen_in_training(entry: Competitor, clips: list[Clip]) -> int:
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


def videos_for(entry: Competitor, clips: list[Clip]) -> dict[str, Path]:
    """Videos of a folder by the id of the clip that they belong to; what has none is reported."""
    pairs = pair_videos(entry.title, entry.videos, {clip.id: clip.path for clip in clips})
    return {name: made for name, (made, _) in pairs.items()}
