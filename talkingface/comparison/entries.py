"""Inputs of a comparison: models, runs, weights and folders of videos, and the clips."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkingface.components.models import config_of_checkpoint
from talkingface.components.runs import named_weights
from talkingface.components.zoo import is_in_zoo
from talkingface.config.config import load_config
from talkingface.data.clips import Clip, make_clip, split_clips
from talkingface.data.face.scan import content_hash
from talkingface.errors import ConfigError, DataError, StageError, TalkingFaceError
from talkingface.evaluator.pairing import find_videos, pair_videos
from talkingface.quick_start.evaluation import usable_clips
from talkingface.quick_start.infer import configure
from talkingface.registry import Registry, get_registry
from talkingface.utils.paths import shown

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)


@dataclass
class Competitor:
    """One item of ``--models``, for one dataset.

    Attributes:
        title: title of its row.
        detail: name of its run, weights or folder.
        cfg, checkpoint: settings and weights of a model; None for a folder of videos. A model that
            generates untrained, or joins trained parts, has no checkpoint.
        videos: videos of a folder, by name.
        warnings: warnings for the tables, e.g. on the training data.
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

    @property
    def trained_here(self) -> bool:
        """Whether the weights are a checkpoint of a run, not a file from elsewhere."""
        return self.checkpoint is not None and self.checkpoint.suffix == ".ckpt"


@dataclass
class Material:
    """The clips of one dataset, the same for all rows.

    Attributes:
        cfg: settings of the dataset and of the metrics.
        facts: texts on the origin of the clips, for the tables.
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
    """Find models, runs and folders of videos.

    Args:
        parts: each a model's name (its newest run on the dataset, else on any), a run id, run
            folder or checkpoint, or a folder of videos; optionally with ``Title=`` before it. The
            title of official weights must be the name of their model.
        dataset: registered name; None for a folder of real videos.

    Raises:
        ConfigError: a part does not exist, or two rows would have one title.
    """
    registry = get_registry(config.get("plugin_path"))
    entries: list[Competitor] = []
    models = {name.lower() for name in registry.names("model")}
    for part in parts:
        title, what = titled(part)
        entry = None if what.lower() in models else _videos(title, what)
        entry = entry or _model(registry, title, what, dataset, config, config_files)
        taken = {other.title.casefold() for other in entries}
        repeated = entry.checkpoint in [other.checkpoint for other in entries]
        if entry.title.casefold() in taken and entry.checkpoint and not (title or repeated):
            entry.title = f"{entry.title} ({_run_id(entry.checkpoint)})"
        if entry.title.casefold() in taken:
            raise ConfigError(
                f"--models: two rows are called '{entry.title}'; write Title={what} for one of them"
            )
        entries.append(entry)
    return entries


def titled(part: str) -> tuple[str, str]:
    """Split ``Title=what``; the name of an existing path is not split."""
    title, equals, what = part.partition("=")
    if not equals or Path(part).expanduser().exists():
        return "", part
    return title.strip(), what.strip()


def dataset_name(what: str, config: Mapping[str, Any]) -> str | None:
    """The registered name of a dataset in any spelling; None for a folder.

    Raises:
        ConfigError: there is no such dataset or folder.
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
            cfg, checkpoint = configure(options, settings, files)  # trained on another dataset
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
    entry = Competitor(title or cfg.model, "", cfg, checkpoint)
    if checkpoint is None:
        entry.detail = "no training of its own"
    elif entry.trained_here:
        entry.detail = f"{_run_id(checkpoint)}, trained on {cfg.dataset}"
        if dataset and cfg.dataset != dataset:
            entry.warnings.append(f"trained on {cfg.dataset}, not on {dataset}")
    elif is_in_zoo(checkpoint):
        entry.detail = f"zoo/{checkpoint.parent.name}"
    else:
        entry.detail = f"{_run_id(checkpoint)}, given weights"
    return entry


def _run_id(checkpoint: Path) -> str:
    of_run = checkpoint.parent.name == "checkpoints" and checkpoint.suffix == ".ckpt"
    return checkpoint.parent.parent.name if of_run else checkpoint.name


# Settings that a benchmark takes from its command, not from the run that gives the test split.
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
    """The test split of a dataset, with the settings of the first run on it, or a folder of real
    videos.

    Raises:
        ConfigError: there is no such dataset or folder.
        StageError: the test split has no usable clip.
    """
    title, what = titled(part)
    dataset = dataset_name(what, config)
    options: dict[str, Any] = {"config_files": config_files, "cli": config}
    if dataset is None:
        path = Path(what).expanduser()
        cfg = load_config("SyncNet", "Synthetic", **options)
        videos = find_videos("datasets", what)
        clips = [make_clip(file, clip_id) for clip_id, file in videos.items()]
        facts = [f"all videos in the folder {path.resolve().name}"]
        return Material(title or path.resolve().name, cfg, clips[: cfg.eval_clips], facts)
    models = [entry for entry in entries if entry.cfg and entry.cfg.dataset == dataset]
    run = next((entry for entry in models if entry.trained_here), None)
    if run is None:
        cfg = load_config(models[0].cfg.model if models else "SyncNet", dataset, **options)
    else:
        stored = {k: v for k, v in run.cfg.to_dict().items() if k not in _OF_EVALUATION}
        cfg = load_config(run.cfg.model, dataset, base=stored, **options)
    clips = usable_clips(cfg, "test")[: cfg.eval_clips]
    if not clips:
        raise StageError(
            f"The test split of {dataset} has no usable clip ({cfg.filelist('test')}); prepare it "
            f"with --model=... --dataset={dataset} --stages=preprocess"
        )
    return Material(title or dataset, cfg, clips, [f"test split of {dataset}"])


def seen_in_training(entry: Competitor, clips: list[Clip]) -> int:
    """Number of clips whose content is also in the train split of the entry's run."""
    if entry.cfg is None or not entry.trained_here:
        return 0
    try:
        trained = [
            clip.path for cfg in _trained_with(entry.cfg) for clip in split_clips(cfg, "train")
        ]
    except TalkingFaceError as error:
        log.debug("%s: the train split is not known: %s", entry.title, error)
        return 0
    sizes: dict[int, list[Path]] = {}
    for path in trained:
        if path.is_file():
            sizes.setdefault(path.stat().st_size, []).append(path)
    return sum(
        any(
            content_hash(clip.path) == content_hash(other)
            for other in sizes.get(clip.path.stat().st_size, [])
        )
        for clip in clips
    )


def _trained_with(cfg: Config) -> Iterator[Config]:
    """Settings of a run, and of the runs whose weights it started from (``init``)."""
    yield cfg
    path = named_weights(cfg, cfg.init) if cfg.init else None
    stored = config_of_checkpoint(path) if path is not None and path.is_file() else None
    if stored is not None:
        yield from _trained_with(load_config(stored["model"], stored["dataset"], base=stored))


def videos_for(entry: Competitor, clips: list[Clip]) -> dict[str, Path]:
    """Videos of a folder by clip id; videos and clips without a partner are logged."""
    pairs = pair_videos(entry.title, entry.videos, {clip.id: clip.path for clip in clips})
    return {name: video for name, (video, _) in pairs.items()}
