"""Checks before any slow work; one error lists all problems."""

from __future__ import annotations

import importlib.util
import inspect
import os
import shutil
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from talkingface.components.models import build_model, check_model_class, start_from
from talkingface.components.runs import named_weights
from talkingface.data.clips import SPLITS, discover_clips, no_clips_message
from talkingface.errors import (
    ConfigError,
    DataError,
    EnvironmentProblem,
    StageError,
    TalkingFaceError,
    WeightsError,
)
from talkingface.evaluator.base_metric import build_metric, require_weights
from talkingface.pipeline.build import build_process
from talkingface.trainer.runtime import choose_device
from talkingface.utils.env import BUILT_FOR_TORCH, require
from talkingface.utils.paths import resolve
from talkingface.utils.suggest import did_you_mean

if TYPE_CHECKING:
    from talkingface.config.config import Config

MIN_FREE_BYTES = 300 * 2**20  # approximate size of checkpoints and videos of the smallest preset


def check(cfg: Config, stages: Collection[str]) -> None:
    """Raise one error that lists everything that would stop the run later.

    Args:
        stages: stages of the run.

    Raises:
        TalkingFaceError: an error of the first problem's class, with all messages.
    """
    problems = list(_packages(cfg, stages))
    for part in (_classes, _network):
        if not problems:
            problems += part(cfg)
    problems += _device(cfg, stages)
    problems += _folders(cfg, stages)
    problems += _data(cfg, stages)
    problems += _weights(cfg, stages)
    if cfg.model_entry.target("config"):
        own = cfg.registry.resolve(cfg.model_entry, "config")
        problems += [EnvironmentProblem(text) for text in own.missing(cfg)]
    problems += _metrics(cfg) if "evaluate" in stages else []
    if not cfg.saved and {"train", "evaluate"} <= set(stages):
        problems.append(
            ConfigError(
                "saved=false keeps no checkpoint for the stage evaluate: add "
                "--stages=preprocess,train, or set saved=true"
            )
        )
    if len(problems) == 1:
        raise problems[0]
    if problems:
        text = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(problems, 1))
        raise type(problems[0])(f"{len(problems)} problems:\n{text}")


def _packages(cfg: Config, stages: Collection[str]) -> Iterator[TalkingFaceError]:
    """Packages in ``needs`` of the model's and the dataset's YAML that cannot be imported."""
    for entry in (cfg.model_entry, cfg.dataset_entry):
        for package in entry.meta.get("needs") or ():
            # Training, and the evaluation of losses and motions, neither detect landmarks nor
            # read videos.
            prepared = set(stages) <= {"train"} or (
                "preprocess" not in stages and not cfg.model_entry.target("pipeline")
            )
            if prepared and package in ("mediapipe", "av"):
                continue
            try:
                if package in BUILT_FOR_TORCH or importlib.util.find_spec(package) is None:
                    require(package, why=entry.name)
            except EnvironmentProblem as problem:
                yield problem


def _classes(cfg: Config) -> Iterator[TalkingFaceError]:
    """Configuration keys that a model's classes need and lack, and unknown baselines."""
    entry = cfg.model_entry
    for role in ("dataprocess", "dataset", "test_dataset", "pipeline"):
        if not entry.target(role):
            continue
        kind = cfg.registry.resolve(entry, role)
        for name in ("needs_config", "needs_network", "baselines"):
            if isinstance(getattr(kind, name, ()), str):
                text = f"{kind.__name__}.{name} must be a tuple of names, with a comma: ('name',)"
                yield ConfigError(text)
                return
        rows = cfg.schema.model_fields["baselines"].default
        for name in set(getattr(kind, "baselines", ())) - set(rows):
            text = f"{kind.__name__}.baselines: unknown row '{name}'.{did_you_mean(name, rows)}"
            yield ConfigError(text)
        needed = {key for base in kind.__mro__ for key in vars(base).get("needs_config", ())}
        missing = sorted(key for key in needed if key not in cfg)
        if missing:
            models = (cfg.registry.entry("model", n) for n in cfg.registry.names("model"))
            configs = {
                other.target("config")
                for other in models
                if other.target(role) == entry.target(role) and other.target("config")
            }
            remedy = f"config: {' or '.join(sorted(configs))}" if configs else "a config class"
            how = f"Add {remedy} to the classes in {entry.path}, or set the keys there."
            if entry.target("config"):
                how = f"Add the keys to {entry.target('config')}."
            text = f"{kind.__name__} needs the keys {', '.join(missing)}, which {cfg.model} does"
            yield ConfigError(f"{text} not have. {how}")


def _network(cfg: Config) -> Iterator[TalkingFaceError]:
    """Batch keys and network methods that a model's classes need and lack."""
    entry = cfg.model_entry
    if not entry.target("model"):
        return
    model_cls = cfg.registry.resolve(entry, "model")
    if entry.target("dataset"):
        dataset_cls = cfg.registry.resolve(entry, "dataset")
        absent = [key for key in model_cls.batch_keys if key not in dataset_cls.batch_spec]
        if absent:
            yield ConfigError(
                f"{model_cls.__name__} reads {', '.join(absent)} from batches; those of "
                f"{dataset_cls.__name__} have {', '.join(dataset_cls.batch_spec)}."
            )
    if model_cls.__module__.startswith("talkingface."):  # tests cover the toolkit's models
        return
    try:
        check_model_class(model_cls)
    except ConfigError as error:
        yield error
        return
    if entry.target("pipeline"):
        pipeline_cls = cfg.registry.resolve(entry, "pipeline")
        if "show_progress" not in inspect.signature(pipeline_cls.prepare).parameters:
            yield ConfigError(
                f"{pipeline_cls.__name__}.prepare must have the arguments (source, *, "
                "show_progress=False) (docs/extending.md)."
            )
        network = build_model(cfg).network if pipeline_cls.needs_network else None
        lacking = [name for name in pipeline_cls.needs_network if not hasattr(network, name)]
        if lacking:
            yield ConfigError(
                f"{pipeline_cls.__name__} calls {', '.join(lacking)} of the network, which "
                f"{type(network).__name__} does not have (docs/extending.md)."
            )


def _device(cfg: Config, stages: Collection[str]) -> Iterator[TalkingFaceError]:
    """A device that this machine does not have."""
    if {"train", "evaluate"} & set(stages):
        try:
            choose_device(cfg.device)
        except EnvironmentProblem as problem:
            yield problem


def _folders(cfg: Config, stages: Collection[str]) -> list[TalkingFaceError]:
    """Folders of the run that are not writable or have too little free space."""
    keys = (cfg.checkpoint_dir, cfg.results_dir, cfg.log_dir, cfg.tensorboard_dir)
    folders = {resolve(key) for key in keys}
    if "preprocess" in stages:
        folders.add(cfg.processed_dir)
    problems: dict[str, TalkingFaceError] = {}  # keyed by cause: one error for each disk
    for folder in sorted(folders):
        parent = next(path for path in (folder, *folder.parents) if path.exists())
        if not os.access(parent, os.W_OK):
            problems[str(parent)] = EnvironmentProblem(
                f"No permission to write below {parent}. Make it writable, or set "
                "TALKINGFACE_ROOT or the folder's own key to another place."
            )
        elif (free := shutil.disk_usage(parent).free) < MIN_FREE_BYTES:
            problems[str(free // 2**20)] = EnvironmentProblem(
                f"Only {free // 2**20} MiB are free for {folder}; at least "
                f"{MIN_FREE_BYTES // 2**20} MiB are needed. Free some space, or set "
                "TALKINGFACE_ROOT to another disk."
            )
    return list(problems.values())


def _data(cfg: Config, stages: Collection[str]) -> Iterator[TalkingFaceError]:
    """Missing raw clips, and clip lists that are missing or empty."""
    if cfg.dataset_entry.target("source"):
        return  # the dataset makes its own files
    lists = {split: cfg.filelist(split) for split in SPLITS}
    if "preprocess" in stages:
        if cfg.model_entry.target("dataprocess"):
            corpus = build_process(cfg).corpus
            if not corpus.clips():
                yield StageError(corpus.no_clips_message())
        elif not discover_clips(cfg.data_dir, cfg.clips, quiet=True):
            yield StageError(no_clips_message(cfg))
    else:
        needed = {"train": ("train", "val"), "evaluate": ("test",)}
        for split in dict.fromkeys(s for stage in stages for s in needed.get(stage, ())):
            if not lists[split].exists():
                yield DataError(
                    f"The clip list {lists[split]} does not exist; the stage preprocess writes it."
                )
    for path in lists.values():
        if path.exists() and path.stat().st_size == 0 and path != lists["val"]:
            yield StageError(f"The clip list {path} is empty; delete it to make it again.")


def _metrics(cfg: Config) -> Iterator[TalkingFaceError]:
    """Metrics that cannot be built, which would otherwise end the run after the training.

    The evaluation skips a metric without its weights, unless the user chose the metrics.
    """
    entry = cfg.model_entry
    motion = bool(entry.target("test_dataset")) or not entry.target("pipeline")
    for name in cfg.metrics:
        try:
            metric = build_metric(cfg.registry, name, cfg.metric_params.get(name), cfg)
            if cfg.chosen("metrics") and metric.takes == ("motion" if motion else "video"):
                require_weights([metric])  # the others are reported as not applicable
        except TalkingFaceError as error:
            yield error


def _weights(cfg: Config, stages: Collection[str]) -> Iterator[TalkingFaceError]:
    """Checkpoints and weights that the configuration names and that do not exist."""
    wanted = {"evaluate_model_file": cfg.evaluate_model_file}
    if "train" in stages and cfg.resume in (False, "false", None, ""):
        wanted["init"] = cfg.init
    if isinstance(cfg.resume, str) and cfg.resume != "auto":
        wanted["resume"] = cfg.resume
    weights, components = cfg.get("weights"), cfg.schema.components(cfg)
    if weights is not None and "train" in stages:
        wanted.update({f"weights.{name}": value for name, value in weights})
    for key, value in wanted.items():
        named = key != "resume"  # a run id or an entry of the zoo is accepted too
        component = key.startswith("weights.")
        if not value or (component and value == "auto"):
            continue
        model = getattr(components.get(key.removeprefix("weights.")), "model", None)
        try:
            path = named_weights(cfg, value, model) if named else cfg.weights_path(value)
            if key == "init" and path.is_file():
                start_from(build_model(cfg), path, cfg.trust_checkpoint)
        except (ConfigError, WeightsError) as error:
            yield error
            continue
        if not path.is_file():
            kind = "there is no such file or run" if named else "the file does not exist"
            yield DataError(
                f"{key}={value}: {kind} (looked in {resolve(value)} and "
                f"{resolve(cfg.weights_dir)})."
            )
