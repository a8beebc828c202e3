"""Checks before any slow work; all problems are listed at once."""

from __future__ import annotations

import importlib.util
import inspect
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from talkingface.components.runs import named_weights
from talkingface.data.clips import SPLITS, discover_clips, no_clips_message
from talkingface.errors import (
    ConfigError,
    DataError,
    EnvironmentProblem,
    StageError,
    TalkingFaceError,
)
from talkingface.utils.env import BUILT_FOR_TORCH, require
from talkingface.utils.paths import resolve

if TYPE_CHECKING:
    from talkingface.config.config import Config

MIN_FREE_BYTES = 300 * 2**20  # checkpoints and videos of the smallest preset need about this much


def existing_parent(path: Path) -> Path:
    """The folder itself or the nearest one above that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def check(cfg: Config, stages: Collection[str]) -> None:
    """Raise one error that lists everything that would stop the run later.

    Args:
        stages: those that the run goes through.

    Raises:
        EnvironmentProblem, DataError or StageError: of the first kind found, with all messages.
    """
    problems: list[TalkingFaceError] = []
    problems += _packages(cfg, stages)
    if not problems:
        problems += _classes(cfg)
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
                "saved=false keeps no checkpoint that could be evaluated: add "
                "--stages=preprocess,train, or leave 'saved' on"
            )
        )
    if not problems:
        return
    if len(problems) == 1:
        raise problems[0]
    text = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(problems, 1))
    raise type(problems[0])(f"{len(problems)} problems:\n{text}")


def _packages(cfg: Config, stages: Collection[str]) -> list[TalkingFaceError]:
    found = []
    for entry in (cfg.model_entry, cfg.dataset_entry):
        for package in entry.meta.get("needs") or ():
            # Landmarks and video files are needed to prepare and to evaluate, not to train.
            if set(stages) <= {"train"} and package in ("mediapipe", "av"):
                continue
            try:
                if package in BUILT_FOR_TORCH or importlib.util.find_spec(package) is None:
                    require(package, why=entry.name)
            except EnvironmentProblem as problem:
                found.append(problem)
    return found


def _classes(cfg: Config) -> list[TalkingFaceError]:
    """What the classes of a model need from its configuration, network and batches."""
    entry, found = cfg.model_entry, []
    for role in ("dataprocess", "dataset", "test_dataset", "pipeline"):
        if not entry.target(role):
            continue
        kind = cfg.registry.resolve(entry, role)
        missing = sorted({key for key in getattr(kind, "needs_config", ()) if key not in cfg})
        if missing:
            models = (cfg.registry.entry("model", n) for n in cfg.registry.names("model"))
            configs = {
                other.target("config")
                for other in models
                if other.target(role) == entry.target(role) and other.target("config")
            }
            remedy = f"config: {' or '.join(sorted(configs))}" if configs else "a config class"
            found.append(
                ConfigError(
                    f"{kind.__name__} needs the keys {', '.join(missing)}, which {cfg.model} does "
                    f"not have. Add {remedy} to the classes in {entry.path}, or set the keys there."
                )
            )
    if found or not entry.target("model"):
        return found
    model_cls = cfg.registry.resolve(entry, "model")
    if entry.target("dataset"):
        dataset_cls = cfg.registry.resolve(entry, "dataset")
        absent = [key for key in model_cls.batch_keys if key not in dataset_cls.batch_spec]
        if absent:
            found.append(
                ConfigError(
                    f"{model_cls.__name__} reads {', '.join(absent)} from batches; those of "
                    f"{dataset_cls.__name__} hold {', '.join(dataset_cls.batch_spec)}."
                )
            )
    own = not model_cls.__module__.startswith("talkingface.")  # the toolkit's are tested
    if own:
        from talkingface.components.models import build_model, check_model_class

        try:
            check_model_class(model_cls)
        except ConfigError as error:
            return [*found, error]
    if own and entry.target("pipeline"):
        pipeline_cls = cfg.registry.resolve(entry, "pipeline")
        if "show_progress" not in inspect.signature(pipeline_cls.prepare).parameters:
            found.append(
                ConfigError(
                    f"{pipeline_cls.__name__}.prepare takes (source, *, show_progress=False) "
                    "(docs/extending.md)."
                )
            )
        network = build_model(cfg).network if pipeline_cls.needs_network else None
        lacking = [name for name in pipeline_cls.needs_network if not hasattr(network, name)]
        if lacking:
            found.append(
                ConfigError(
                    f"{pipeline_cls.__name__} calls {', '.join(lacking)} of the network, which "
                    f"{type(network).__name__} does not have (docs/extending.md)."
                )
            )
    return found


def _folders(cfg: Config, stages: Collection[str]) -> list[TalkingFaceError]:
    found: list[TalkingFaceError] = []
    folders = {
        resolve(cfg.checkpoint_dir),
        resolve(cfg.results_dir),
        resolve(cfg.log_dir),
        resolve(cfg.tensorboard_dir),
    }
    if "preprocess" in stages:
        folders.add(cfg.processed_dir)
    for folder in sorted(folders):
        parent = existing_parent(folder)
        if not os.access(parent, os.W_OK):
            found.append(
                EnvironmentProblem(
                    f"No permission to write below {parent}. Make it writable, or set "
                    "TALKINGFACE_ROOT or the folder's own key to another place."
                )
            )
            continue
        free = shutil.disk_usage(parent).free
        if free < MIN_FREE_BYTES:
            found.append(
                EnvironmentProblem(
                    f"Only {free // 2**20} MiB are free for {folder}; at least "
                    f"{MIN_FREE_BYTES // 2**20} MiB are needed. Free some space, or set "
                    "TALKINGFACE_ROOT to another disk."
                )
            )
    # One disk is reported once.
    unique = {str(problem).split(" for ")[0]: problem for problem in found}
    return list(unique.values())


def _data(cfg: Config, stages: Collection[str]) -> list[TalkingFaceError]:
    found: list[TalkingFaceError] = []
    if cfg.dataset_entry.target("source"):
        return found  # the dataset makes its own files
    lists = {split: cfg.filelist(split) for split in SPLITS}
    if "preprocess" in stages:
        if cfg.model_entry.target("dataprocess"):
            from talkingface.pipeline.build import build_process

            process = build_process(cfg)
            if not process.corpus.clips():
                found.append(StageError(process.corpus.no_clips_message()))
        elif not discover_clips(cfg.data_dir, cfg.clips, quiet=True):
            found.append(StageError(no_clips_message(cfg)))
    else:
        needed = {"train": ("train", "val"), "evaluate": ("test",)}
        for split in dict.fromkeys(s for stage in stages for s in needed.get(stage, ())):
            if not lists[split].exists():
                found.append(
                    DataError(f"The clip list {lists[split]} does not exist; preprocess makes it.")
                )
    for path in lists.values():
        if path.exists() and path.stat().st_size == 0 and path != lists["val"]:
            found.append(StageError(f"The clip list {path} is empty; delete it to have it remade."))
    return found


def _metrics(cfg: Config) -> list[TalkingFaceError]:
    """Metrics that cannot be built would otherwise end the run after the training.

    One that lacks its weights is skipped then, unless the user named it.
    """
    from talkingface.evaluator.base_metric import build_metric, require_weights

    named = cfg.chosen("metrics")
    entry = cfg.model_entry
    motion = bool(entry.target("test_dataset")) or not entry.target("pipeline")
    found = []
    for name in cfg.metrics:
        try:
            needs = cfg.registry.entry("metric", name).meta.get("needs") or ()
            if motion and "motion" not in needs:
                continue  # reported as not applicable
            metric = build_metric(cfg.registry, name, cfg.metric_params.get(name), cfg)
            if named:
                require_weights([metric])
        except TalkingFaceError as error:
            found.append(error)
    return found


def _weights(cfg: Config, stages: Collection[str]) -> list[TalkingFaceError]:
    found: list[TalkingFaceError] = []
    wanted = {"evaluate_model_file": cfg.evaluate_model_file}
    if isinstance(cfg.resume, str) and cfg.resume != "auto":
        wanted["resume"] = cfg.resume
    weights = getattr(cfg, "weights", None) if "weights" in cfg else None
    if weights is not None and "train" in stages:
        named = weights.model_dump()
        wanted.update({f"weights.{k}": v for k, v in named.items() if v not in (None, "auto")})
    for key, value in wanted.items():
        component = key.startswith("weights.")  # may be a run id as well
        path = named_weights(cfg, value) if component and value else cfg.weights_path(value or "-")
        if value and not path.is_file():
            kind = "there is no such file or run" if component else "the file does not exist"
            found.append(
                DataError(
                    f"{key}={value}: {kind} (looked in {resolve(value)} and "
                    f"{resolve(cfg.weights_dir)})."
                )
            )
    return found
