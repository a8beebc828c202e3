"""The stage evaluate: the result table of the test split.

A model is evaluated by its videos, by its motions, or, when it generates neither, by its losses.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.components.store import ComponentStore
from talkingface.data.clips import Clip, split_clips
from talkingface.data.dataset.base import build_loader
from talkingface.data.media.audio import load_audio
from talkingface.errors import EnvironmentProblem, StageError, TalkingFaceError
from talkingface.evaluator.clip import ClipPair
from talkingface.evaluator.evaluator import Evaluator, Row, RowResult, aggregate
from talkingface.model.abilities import EvaluatesClips
from talkingface.pipeline.base import SAMPLE_RATE, Pipeline
from talkingface.pipeline.build import build_dataset, build_pipeline, build_process
from talkingface.quick_start.next_steps import OVERVIEW
from talkingface.quick_start.overview import write_overview
from talkingface.quick_start.previews import write_preview
from talkingface.quick_start.results import publish
from talkingface.quick_start.rows import Generator, baseline_rows, model_row, video_pair
from talkingface.quick_start.run_dir import RunDir
from talkingface.trainer.loggers import RunLogger
from talkingface.trainer.validation import Scorer, mean_losses

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.model.abstract_talkingface import AbstractTalkingFace
    from talkingface.quick_start.rows import VideoRow
    from talkingface.trainer.runtime import Runtime

log = logging.getLogger(__name__)


def evaluate_model(
    cfg: Config, model: AbstractTalkingFace, runtime: Runtime, run: RunDir
) -> dict[str, float]:
    """Evaluate a model with loaded weights on the test split.

    Returns:
        The model's mean of each output.
    """
    joined = cfg.model_entry.target("test_dataset")
    if not joined and cfg.metrics:
        pipeline = build_pipeline(cfg, model, runtime.device)
        if pipeline is not None:
            return evaluate_videos(cfg, pipeline, run)
    store = ComponentStore(cfg)
    store.attach_for_inference(model)
    networks = (model, *(part.network for part in model.components.values()))
    for network in networks:
        network.to(runtime.device)
    data = build_dataset(store.as_trained(model), "test", "test_dataset" if joined else "dataset")
    for network in networks:
        if (statistics := getattr(network, "statistics", None)) is not None:
            statistics.check_test(data)
    losses: dict[str, float] = {}
    if not joined:
        loader = build_loader(data, cfg, train=False)
        show = cfg.show_progress
        losses = mean_losses(model, loader, runtime, show_progress=show, alone=True) or {}
        model.eval()
    if isinstance(model, EvaluatesClips):
        from talkingface.quick_start.motions import evaluate_motions

        return {**losses, **evaluate_motions(cfg, model, data, run, losses)}
    clips = [clip.id for clip in split_clips(cfg, "test") if clip.id not in data.unusable]
    row = RowResult(cfg.model, pooled=losses, pooled_clips=dict.fromkeys(losses, clips))
    outputs = {key: {"direction": "down" if key == "loss" else "", "unit": ""} for key in losses}
    return publish(cfg, run, [row], outputs, {"clips": clips}, leaderboard=False)


def usable_clips(cfg: Config, split: str) -> list[Clip]:
    """Clips of a split without those that the preparation marked as unusable."""
    clips = split_clips(cfg, split)
    if cfg.model_entry.target("dataprocess"):
        process = build_process(cfg)
        prepared = [clip.id for clip in clips if process.prepared.read_marker(clip.id)]
        _, bad = process.prepared.select(prepared, any_settings=True)
        if bad:
            log.warning(
                "%d clip(s) of the %s split are unusable and left out: %s",
                len(bad),
                split,
                "; ".join(f"{name}: {reason}" for name, reason in list(bad.items())[:5]),
            )
        clips = [clip for clip in clips if clip.id not in bad]
    return clips


def evaluate_videos(cfg: Config, pipeline: Pipeline, run: RunDir) -> dict[str, float]:
    """Evaluate the videos of a model, of trivial baselines, and the real videos.

    Raises:
        StageError: no test clip is usable.
    """
    clips = usable_clips(cfg, "test")[: cfg.eval_clips]
    if not clips:
        raise StageError(
            f"The test split of {cfg.dataset} has no usable clip ({cfg.filelist('test')})."
        )
    generator = Generator(cfg, cfg.model, lambda: pipeline, run.results / "reference")
    clips = _with_reference(cfg, generator, clips)
    rows = [model_row(generator)]
    rows += baseline_rows([generator], clips, cfg.baselines, named=False)
    evaluator = Evaluator(cfg)
    videos = run.results / "videos"
    folders = {row.title: videos / row.title.replace(" ", "_") for row in rows}
    results = evaluator.run([_to_row(evaluator, row, clips, folders[row.title]) for row in rows])
    entries = {
        "clips": [clip.id for clip in clips],
        "definitions": evaluator.definitions(),
        "not_applicable": evaluator.not_applicable,
    }
    means = publish(cfg, run, results, evaluator.outputs, entries)
    for clip in clips[: cfg.n_preview]:
        write_preview(
            run.results / "previews" / f"{clip.id.replace('/', '_')}.mp4",
            {title: folder / f"{clip.id}.mp4" for title, folder in folders.items()},
            generator.reference(clip),
            cfg.fps,
        )
    first = clips[0]
    shown_videos = {title: folder / f"{first.id}.mp4" for title, folder in folders.items()}
    write_overview(run.results / OVERVIEW, shown_videos, generator.reference(first).path, cfg.fps)
    _log_media(cfg, run, generator.reference(clips[0]), folders[cfg.model])
    return means


def _to_row(evaluator: Evaluator, row: VideoRow, clips: list[Clip], folder: Path) -> Row:
    """A row of videos that the evaluator writes below a folder."""
    diverse = any(metric.name == "Div" for metric in evaluator.metrics)
    samples = {
        clip.id: partial(video_pair, row, clip, folder / f"{clip.id}.mp4", diverse)
        for clip in clips
    }
    return Row(row.title, samples)


def _with_reference(cfg: Config, generator: Generator, clips: list[Clip]) -> list[Clip]:
    """Clips that have a reference; a warning lists the others.

    Raises:
        StageError: no clip has a reference.
    """
    usable, problems = [], []
    for clip in clips:
        try:
            generator.reference(clip)
            usable.append(clip)
        except EnvironmentProblem:
            raise
        except TalkingFaceError as error:
            problems.append(f"{clip.id}: {error}")
    if problems:
        log.warning("%d clip(s) are not evaluated: %s", len(problems), "; ".join(problems[:5]))
    if not usable:
        raise StageError(f"No clip of {cfg.dataset} can be evaluated: {'; '.join(problems[:3])}")
    return usable


def _log_media(cfg: Config, run: RunDir, clip: Clip, folder: Path) -> None:
    """Send a test clip to TensorBoard: its audio, and generated frames beside the real ones."""
    pair = ClipPair(clip.id, folder / f"{clip.id}.mp4", clip.path)
    if not pair.generated.exists() or not run.tensorboard.exists():
        return
    logger = RunLogger(run.tensorboard, None)
    logger.audio("test/sound", load_audio(clip.audio, SAMPLE_RATE), SAMPLE_RATE, 0)
    step = max(1, round(cfg.fps / 5))  # five frames per second; at most 50 frames, ten seconds
    side_by_side = (np.concatenate([g, r], axis=1) for i, g, r in pair.frames() if i % step == 0)
    logger.animation("test/generated_and_real", list(islice(side_by_side, 50)), 0)
    logger.close()


def make_scorer(cfg: Config, metric: str, outputs: Mapping[str, Any], scratch: Path) -> Any:
    """A scorer of the videos of the first validation clips by an output such as PSNR_mouth.

    Args:
        scratch: folder of the videos; removed after each validation.
    """
    clips = usable_clips(cfg, "val")[: cfg.eval_clips or 4]
    owner = next(m.name for m in Evaluator(cfg).metrics if metric in m.outputs)

    def score(model: AbstractTalkingFace) -> dict[str, float]:
        pipeline = build_pipeline(cfg, model, next(model.network.parameters()).device)
        generator = Generator(cfg, "validation", lambda: pipeline, scratch / "reference")
        evaluator, row = Evaluator(cfg, [owner]), model_row(generator)
        try:
            usable = _with_reference(cfg, generator, clips)
            rows = [_to_row(evaluator, row, usable, scratch)]
            results = evaluator.run(rows, desc="validation videos")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        values = aggregate(results, evaluator.outputs)[row.title]
        return {key: item["mean"] for key, item in values.items()}

    return Scorer(score, outputs[metric].get("direction") == "up")
