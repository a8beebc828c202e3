"""The stages of a run: preprocess, train, evaluate."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from talkingface.components.models import build_model, load_model_weights, start_from
from talkingface.components.runs import named_weights
from talkingface.components.store import ComponentStore
from talkingface.config.config import Config
from talkingface.config.merge import flatten
from talkingface.data.dataprocess.engine import prepare_clips
from talkingface.data.dataset.base import build_loader
from talkingface.data.filelists import read_filelist
from talkingface.data.media.limits import set_limits
from talkingface.errors import ConfigError, StageError
from talkingface.model.abilities import Initializes
from talkingface.model.component import component_sources
from talkingface.model.weights import extra_state, load_checkpoint, load_extra_state
from talkingface.pipeline.build import build_dataset, build_process
from talkingface.quick_start import next_steps, preflight
from talkingface.quick_start.prerequisites import require_same_components, train_prerequisites
from talkingface.quick_start.run_dir import RunDir, find_runs, new_run, open_run, run_of_checkpoint
from talkingface.quick_start.training_data import FILE, changes, training_data
from talkingface.trainer.checkpoint import export_weights, plain_values, save_checkpoint
from talkingface.trainer.loggers import RunLogger
from talkingface.trainer.runtime import Runtime, choose_device, launched_rank
from talkingface.trainer.trainer import Trainer
from talkingface.utils.env import check_torchvision, require
from talkingface.utils.locks import file_lock
from talkingface.utils.logs import close_run_files, setup_logging
from talkingface.utils.paths import read_json, remove_stale, shown, write_json, write_text
from talkingface.utils.seeding import seed_everything
from talkingface.utils.suggest import did_you_mean
from talkingface.utils.system import git_state, versions
from talkingface.utils.weights import sha256_of, zip_damage

log = logging.getLogger(__name__)


@dataclass
class RunResult:
    """The result of a run.

    Attributes:
        run_dir: folder with configuration, checkpoints and weights.
        checkpoint: the best checkpoint.
        best_valid_score: best value of ``valid_metric``, None without training.
        test_result: mean of each metric of the model on the test split.
    """

    run_dir: Path
    checkpoint: Path | None = None
    best_valid_score: float | None = None
    valid_metric: str = "loss"
    test_result: dict[str, float] = field(default_factory=dict)


def active_stages(cfg: Config) -> list[str]:
    """Stages that run, in order: ``stages`` without those that the old switches ``need_preprocess``
    and ``train`` remove."""
    switches = {"preprocess": cfg.need_preprocess, "train": cfg.train, "evaluate": True}
    stages = [stage for stage, on in switches.items() if on and stage in cfg.stages]
    # A stored config.yaml holds 'stages' too; only stages from the same source as the file matter.
    if cfg.evaluate_model_file and not cfg.set_with("stages", "evaluate_model_file"):
        stages = ["evaluate"]
    return ["preprocess"] if cfg.shard else stages


def fitting_preset(cfg: Config) -> str | None:
    """The preset ``cpu`` for a training on a CPU for which none was chosen."""
    chosen = cfg.preset is not None or "preset" in cfg.provenance
    if chosen or "train" not in active_stages(cfg) or "cpu" not in cfg.model_entry.presets:
        return None
    return "cpu" if choose_device(cfg.device).type == "cpu" else None


def run_config(cfg: Config, *, dry_run: bool = False, command: Sequence[str] = ()) -> RunResult:
    """Run the stages of a configuration; see :func:`talkingface.run`."""
    check_torchvision()
    setup_logging(cfg.log_level if launched_rank() == 0 else "error")
    set_limits(cfg.media)
    try:
        if dry_run:
            from talkingface.quick_start.dry_run import dry_run as try_once

            return try_once(cfg)
        result, run = run_stages(cfg, command)
        if run is not None:
            _finish(cfg, run, result)
        return result
    finally:
        close_run_files()


def run_stages(cfg: Config, command: Sequence[str]) -> tuple[RunResult, RunDir | None]:
    """Run the stages; returns the result and, in the process of rank 0, the run's folders."""
    stages = active_stages(cfg)
    is_zero = launched_rank() == 0
    if is_zero:
        log.info(
            "%s on %s%s: %s",
            cfg.model,
            cfg.dataset,
            f", preset {cfg.preset}" if cfg.preset else "",
            ", ".join(stages) or "nothing to do",
        )
        for note in cfg.notes:
            log.warning("%s", note)
        preflight.check(cfg, stages)
        train_prerequisites(cfg, stages, command)
        if "train" in stages and (checkpoint := resume_from(cfg)):
            require_same_components(cfg, checkpoint)
        if "preprocess" in stages:
            preprocess(cfg)
    if not {"train", "evaluate"} & set(stages):
        return RunResult(cfg.dataset_root), None
    runtime = Runtime(cfg)
    try:
        return _train_and_evaluate(cfg, stages, runtime, command)
    finally:
        runtime.close()


def _train_and_evaluate(
    cfg: Config, stages: list[str], runtime: Runtime, command: Sequence[str]
) -> tuple[RunResult, RunDir | None]:
    """Run the stages that need a network, in every process."""
    seed_everything(cfg.seed, cfg.reproducibility)
    run, resumed = _choose_run(cfg, stages, runtime)
    with _sole_training(run) if runtime.is_zero and "train" in stages else nullcontext():
        return _run_network_stages(cfg, stages, runtime, command, run, resumed)


@contextmanager
def _sole_training(run: RunDir) -> Iterator[None]:
    """Hold the lock of a run, and remove what killed processes have left in the runs beside it."""
    busy = (
        f"The run {run.id} is being trained by another process. Wait for its end, or start a new "
        "run with --resume=false."
    )
    with file_lock(run.root / ".lock", busy=busy):
        for folder in (run.root.parent, run.results.parent, run.log_file.parent):
            remove_stale(folder, "**/*")
        write_text(run.root.parent / "latest.txt", run.id + "\n")
        yield


def _run_network_stages(
    cfg: Config,
    stages: list[str],
    runtime: Runtime,
    command: Sequence[str],
    run: RunDir,
    resumed: Path | None,
) -> tuple[RunResult, RunDir | None]:
    if runtime.is_zero:
        setup_logging(cfg.log_level, (run.log_file, run.root / "train.log"))
        log.info(
            "device %s%s, run folder %s",
            runtime.device,
            f" x {runtime.world_size}" if runtime.world_size > 1 else "",
            shown(run.root),
        )
    result = RunResult(run.root, valid_metric=cfg.valid_metric)
    given = cfg.evaluate_model_file
    checkpoint = named_weights(cfg, given) if given else run.best
    if "train" in stages:
        if runtime.is_zero:
            _describe(cfg, run, command, runtime.device)
        result.best_valid_score = train(cfg, runtime, run, resumed)
        checkpoint = run.best
    if cfg.saved or "train" not in stages:
        result.checkpoint = checkpoint
    if "evaluate" in stages and runtime.is_zero:
        result.test_result = evaluate(cfg, runtime, run, checkpoint)
    runtime.barrier()
    return result, run if runtime.is_zero else None


def preprocess(cfg: Config) -> None:
    """Make the raw clips if the dataset has a source for them; prepare clips for the model."""
    if cfg.dataset_entry.target("source"):
        source = cfg.registry.resolve(cfg.dataset_entry, "source").from_config(cfg)
        source.ensure(show_progress=cfg.show_progress)
    if cfg.model_entry.target("dataprocess"):
        report = prepare_clips(build_process(cfg), show_progress=cfg.show_progress)
        log.info("data: %s", report.describe())


def _choose_run(cfg: Config, stages: list[str], runtime: Runtime) -> tuple[RunDir, Path | None]:
    """The run folder and, when resuming, the checkpoint; rank 0 sends its choice to all."""
    run_id, resumed = None, None
    if runtime.is_zero:
        run, resumed = _find_run(cfg, stages)
        run_id = run.id
    run_id, resumed = runtime.broadcast((run_id, resumed))
    return open_run(cfg, run_id), resumed


def resume_from(cfg: Config) -> Path | None:
    """The checkpoint that training continues from; None for a new run."""
    if cfg.resume in (False, "false", None, ""):
        return None
    if cfg.resume in (True, "true", "auto"):
        now = training_data(cfg)
        for run in find_runs(cfg):
            before = read_json(run.root / FILE)
            if now and before and (difference := changes(before, now)):
                log.warning(
                    "%s is not continued: its training clips differ: %s", run.id, difference
                )
                continue
            for path in filter(Path.exists, (run.last, run.checkpoints / "previous.ckpt")):
                damage = zip_damage(path)
                if not damage:
                    return path
                log.warning("%s is damaged (%s); an older checkpoint is used", path, damage)
        return None
    return cfg.weights_path(str(cfg.resume))


def _find_run(cfg: Config, stages: list[str]) -> tuple[RunDir, Path | None]:
    if "train" not in stages:
        if cfg.evaluate_model_file:
            path = named_weights(cfg, cfg.evaluate_model_file)
            return run_of_checkpoint(cfg, path) or new_run(cfg), None
        runs = [run for run in find_runs(cfg) if run.best.exists()]
        if not runs:
            raise ConfigError(
                f"There is no trained run of {cfg.model} on {cfg.dataset} with these settings. "
                "Train first, or name a checkpoint with --evaluate_model_file=PATH."
            )
        return runs[0], None
    path = resume_from(cfg)
    if path is None:
        if cfg.resume not in (False, "false", None, ""):
            log.info("resume=auto: no earlier run with these settings, starting a new one")
        return new_run(cfg), None
    run = run_of_checkpoint(cfg, path)
    if run is not None and run.id in {r.id for r in find_runs(cfg)}:
        return run, path
    log.info("resuming %s with other settings: a new run folder is used", path)
    return new_run(cfg), path


def _describe(cfg: Config, run: RunDir, command: Sequence[str], device: Any) -> None:
    """Write settings and provenance to repeat the run, with those of earlier starts before a
    resume."""
    write_text(run.root / "config.yaml", cfg.to_yaml())
    write_json(run.root / FILE, training_data(cfg))
    path = run.root / "provenance.json"
    earlier = []
    if path.exists():
        previous = json.loads(path.read_text("utf-8"))
        earlier = [*previous.pop("earlier", []), previous]
    write_json(
        path,
        {
            "earlier": earlier,
            "device": str(device),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "command": list(command),
            "config_hash": cfg.hash,
            "init": _init_file(cfg),
            "provenance": cfg.provenance,
            "seed": cfg.seed,
            "git": git_state(),
            "versions": versions(),
        },
    )


def _init_file(cfg: Config) -> dict[str, str] | None:
    """Path and SHA-256 of the weights that training starts from."""
    path = named_weights(cfg, cfg.init) if cfg.init else None
    known = path is not None and path.is_file()
    return {"path": str(path), "sha256": sha256_of(path)} if known else None


def train(cfg: Config, runtime: Runtime, run: RunDir, resume_from: Path | None) -> float | None:
    """Train and export the best weights; returns the best validation score."""
    if not cfg.model_entry.target("dataset"):
        _assemble(cfg, run)
        return None
    train_set = build_dataset(cfg, "train")
    valid_set = _validation_set(cfg)
    if runtime.is_zero:
        for name, data in (("train", train_set), ("val", valid_set)):
            if data is not None:
                summary = ", ".join(f"{value} {key}" for key, value in data.summary().items())
                log.info("%-5s %s", name, summary)
    pin = runtime.device.type == "cuda"
    options = {"rank": runtime.rank, "world": runtime.world_size, "pin": pin}
    train_loader = build_loader(train_set, cfg, train=True, **options)
    valid_loader = build_loader(valid_set, cfg, train=False, **options) if valid_set else None
    _check_batch(train_set)

    model = build_model(cfg)
    resumed = load_checkpoint(resume_from) if resume_from is not None else None
    ComponentStore(cfg).attach_for_training(model, resumed)
    if resumed is None:
        if model.statistics is not None:
            model.statistics.fit(train_set)
        if isinstance(model, Initializes):
            model.initialize(train_set)
        if cfg.init:
            start = named_weights(cfg, cfg.init)
            start_from(model, start, cfg.trust_checkpoint)
            log.info("training starts from %s (--init=none: untrained)", shown(start))
    else:
        load_extra_state(model, resumed["other_parameter"])
        if model.statistics is not None:
            model.statistics.check_resume(train_set)
    zero = runtime.is_zero
    if zero:
        counts = [
            f"{name} {sum(p.numel() for p in network.parameters()):,}"
            for name, network in model.networks().items()
        ]
        log.info("parameters: %s", ", ".join(counts))
        log.debug("%s", model)
    logger = RunLogger(
        run.tensorboard if zero else None,
        run.root / "metrics.jsonl" if zero else None,
        wandb_run=_wandb(cfg, run) if zero else None,
    )
    logger.settings(flatten(cfg.to_dict()))
    trainer_cls = Trainer
    if cfg.model_entry.target("trainer"):
        trainer_cls = cfg.registry.resolve(cfg.model_entry, "trainer")
    trainer = trainer_cls(cfg, model, runtime, run.checkpoints, logger, scorer=_scorer(cfg, run))
    if resume_from is not None:
        same_run = resume_from.parent == run.checkpoints
        trainer.resume_checkpoint(resume_from, same_run=same_run)
        if same_run and zero:
            logger.rewind(resumed["global_step"] - resumed["progress"]["validation_due"])
    try:
        outcome = trainer.fit(train_loader, valid_loader)
    finally:
        logger.close()
    if zero:
        best = ""
        if outcome.best_score is not None:
            best = f"; best {cfg.valid_metric} {outcome.best_score:.4f} at step {outcome.best_step}"
        log.info(
            "training ended: %s; %d steps, %d epochs, %.1f min%s",
            outcome.reason,
            outcome.steps,
            outcome.epochs,
            outcome.seconds / 60,
            best,
        )
        if cfg.saved:
            _export(cfg, run, model, outcome)
    return outcome.best_score


def _assemble(cfg: Config, run: RunDir) -> None:
    """Save the checkpoint of a model that only joins trained models: the files of its parts."""
    model = build_model(cfg)
    ComponentStore(cfg).attach_for_training(model)
    if launched_rank() == 0:
        state = {
            "model_name": cfg.model,
            "dataset_name": cfg.dataset,
            "config": cfg.to_yaml(),
            "config_hash": cfg.hash,
            "global_step": 0,
            "state_dict": {},
            "ema_state_dict": None,
            "other_parameter": extra_state(model),
            "frozen_weights": component_sources(model.components),
        }
        save_checkpoint(run.best, state)
        log.info("%s: joined from %d parts", cfg.model, len(model.components))


def _validation_set(cfg: Config) -> Any:
    """The dataset of the val split; None, with a warning, without usable clips or validation."""
    if cfg.eval_step == 0 or not read_filelist(cfg.filelist("val")):
        log.warning("no validation: the val split is empty or eval_step is 0")
        return None
    try:
        return build_dataset(cfg, "val")
    except StageError as error:
        log.warning("no validation: %s", error)
        return None


def _check_batch(data: Any) -> None:
    """Raise a ConfigError when the first item lacks a key of the dataset's ``batch_spec``."""
    item, dataset_cls = data[0], type(data)
    missing = [key for key in getattr(dataset_cls, "batch_spec", {}) if key not in item]
    if missing:
        raise ConfigError(f"{dataset_cls.__name__}: items lack {missing}, named in its batch_spec")


def _scorer(cfg: Config, run: RunDir) -> Any:
    name = cfg.valid_metric
    if name == "loss" or name.startswith("loss/"):
        return None
    from talkingface.evaluator.evaluator import Evaluator
    from talkingface.quick_start.evaluation import make_scorer

    outputs = Evaluator(cfg).outputs
    if name not in outputs:
        raise ConfigError(
            f"valid_metric={name}: choose loss, loss/<part>, or an output of the metrics "
            f"({', '.join(outputs)}).{did_you_mean(name, outputs)}"
        )
    return make_scorer(cfg, name, outputs, run.root / "validation_videos")


def _wandb(cfg: Config, run: RunDir) -> Any:
    if not cfg.log_wandb:
        return None
    wandb = require("wandb", why="log_wandb", extra="wandb")
    return wandb.init(project="talkingface", name=run.id, config=cfg.to_dict(), dir=str(run.root))


def _export(cfg: Config, run: RunDir, model: Any, outcome: Any) -> None:
    """Export the weights of the best checkpoint under the official names, for other programs."""
    load_model_weights(model, run.best)
    export_weights(
        run.root,
        model.network.state_dict(),
        {
            "model": cfg.model,
            "network": model.main_network,
            "config_hash": cfg.hash,
            "trained_on": cfg.dataset,
            "data_licence": cfg.dataset_entry.meta.get("licence"),
            "best": {
                "metric": cfg.valid_metric,
                "value": outcome.best_score,
                "step": outcome.best_step,
            },
            "steps": outcome.steps,
            "minutes": outcome.seconds / 60,
            "format": "safetensors; names of the official state_dict",
            "other_parameter": plain_values(extra_state(model)),
        },
    )


def evaluate(cfg: Config, runtime: Runtime, run: RunDir, checkpoint: Path) -> dict[str, float]:
    """Score a checkpoint on the test split."""
    from talkingface.quick_start.evaluation import evaluate_model

    if not checkpoint.exists():
        raise ConfigError(f"There is no checkpoint {checkpoint} (saved: {cfg.saved}) to evaluate.")
    seed_everything(cfg.seed, cfg.reproducibility)
    model = build_model(cfg)
    load_model_weights(model, checkpoint, cfg.trust_checkpoint)
    model.eval()
    return evaluate_model(cfg, model, runtime, run)


def _finish(cfg: Config, run: RunDir, result: RunResult) -> None:
    clean = {k: v if math.isfinite(v) else None for k, v in result.test_result.items()}
    path = run.root / "summary.json"
    if run.root.exists():
        summary = json.loads(path.read_text("utf-8")) if path.exists() else {}
        summary.update(valid_metric=result.valid_metric, checkpoint=str(result.checkpoint or ""))
        # The results of an earlier command stay when this one skipped their stage.
        if result.best_valid_score is not None or "best_valid_score" not in summary:
            summary["best_valid_score"] = result.best_valid_score
        if clean or "test_result" not in summary:
            summary["test_result"] = clean
        write_json(path, summary)
    next_steps.show(cfg, run, result.checkpoint)
