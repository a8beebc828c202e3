"""The evaluation stage: generate the test split and trivial baselines, score all alike."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from talkingface.data.clips import Clip, split_clips
from talkingface.data.media.audio import load_audio
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import count_frames, read_frames
from talkingface.data.media.writer import VideoWriter
from talkingface.errors import EnvironmentProblem, StageError, TalkingFaceError
from talkingface.evaluator.clip import ClipPair
from talkingface.evaluator.evaluator import Evaluator, RowResult, aggregate
from talkingface.evaluator.report import (
    append_leaderboard,
    console_table,
    reasons_text,
    write_metrics,
)
from talkingface.pipeline.base import SAMPLE_RATE, Pipeline, Rendered
from talkingface.pipeline.build import build_pipeline, build_process
from talkingface.quick_start.motions import PooledMotions
from talkingface.quick_start.previews import write_preview
from talkingface.quick_start.run_dir import RunDir
from talkingface.utils.logs import progress
from talkingface.utils.paths import resolve, shown

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.model.abstract_talkingface import AbstractTalkingFace

log = logging.getLogger(__name__)

ROW_TITLES = {
    "real": "real video (re-encoded)",
    "copy_reference": "copy reference",
    "shuffled_audio": "shuffled audio",
    "first_stage": "first stage enlarged",
    "warped": "warped reference",
    "other_driver": "driven by another clip",
}

# What a pipeline may put in place of its model, and how it is described.
REPLACEMENTS = {
    "first_stage": "the stage before {model} alone, enlarged",
    "copy_reference": "the reference picture instead of the network of {model}",
    "warped": "the reference picture moved by the flow of {model}, not drawn anew",
    "other_driver": "{model} driven by another clip",
}

SAMPLE_SEEDS = (1, 2, 3, 4)  # of the further samples for Div; every other video has seed 0

Maker = Callable[[Clip, Path], object]
Sampler = Callable[[Clip, Path], tuple[Path, ...]]


def usable_clips(cfg: Config, split: str) -> list[Clip]:
    """Clips of a split that the preparation found usable; all when it was not run."""
    clips = split_clips(cfg, split)
    if cfg.model_entry.target("dataprocess"):
        process = build_process(cfg)
        prepared = [clip.id for clip in clips if process.read_marker(clip.id)]
        _, bad = process.select(prepared, any_settings=True)
        if bad:
            log.warning(
                "%d clip(s) of the %s split are unusable and left out: %s",
                len(bad),
                split,
                "; ".join(f"{name}: {reason}" for name, reason in list(bad.items())[:5]),
            )
        clips = [clip for clip in clips if clip.id not in bad]
    return clips


def shuffled_waves(clips: list[Clip]) -> dict[str, Callable[[], np.ndarray]]:
    """For each clip the sound of another one, repeated or cut to the own length.

    A single clip gets its own sound, moved by half its length.
    """

    def other(index: int) -> np.ndarray:
        own = load_audio(clips[index].audio, SAMPLE_RATE)
        if len(clips) == 1:
            return np.roll(own, len(own) // 2)
        return np.resize(load_audio(mismatched_clip(clips, index).audio, SAMPLE_RATE), len(own))

    return {clip.id: (lambda i=index: other(i)) for index, clip in enumerate(clips)}


def mismatched_clip(clips: list[Clip], index: int) -> Clip:
    """Whose sound a clip gets: from half the list away, since neighbours of a corpus often are the
    same sentence in another mood or take."""
    return clips[(index + max(1, len(clips) // 2)) % len(clips)]


def makers(
    cfg: Config, pipeline: Pipeline, clips: list[Clip], real: dict[str, Clip]
) -> dict[str, Maker]:
    """Row title -> function that writes a clip's video. The model's own row comes first.

    Args:
        real: reference of each clip, see :meth:`~talkingface.pipeline.base.Pipeline.reference`.
    """
    waves = shuffled_waves([real[clip.id] for clip in clips])

    def dub(
        clip: Clip, path: Path, audio: np.ndarray | None = None, baseline: str | None = None
    ) -> None:
        render_like(pipeline, cfg, clip, path, audio, baseline, real=real[clip.id])

    rows: dict[str, Maker] = {cfg.model: dub}
    if "shuffled_audio" in cfg.baselines:
        rows[ROW_TITLES["shuffled_audio"]] = lambda clip, path: dub(clip, path, waves[clip.id]())
    for name in REPLACEMENTS:
        if name in cfg.baselines and name in pipeline.baselines:
            rows[ROW_TITLES[name]] = partial(_replaced, dub, name)
    if "real" in cfg.baselines:
        rows[ROW_TITLES["real"]] = lambda clip, path: reencode(cfg, real[clip.id], path)
    return rows


def _references(
    cfg: Config, pipeline: Pipeline, clips: list[Clip], folder: Path
) -> dict[str, Clip]:
    """Reference of each clip; clips without one are left out for all rows, and named.

    Raises:
        StageError: no clip has one.
    """
    real, problems = {}, []
    for clip in clips:
        try:
            real[clip.id] = pipeline.reference(clip, folder)
        except EnvironmentProblem:
            raise
        except TalkingFaceError as error:
            problems.append(f"{clip.id}: {error}")
    if problems:
        log.warning("%d clip(s) are not evaluated: %s", len(problems), "; ".join(problems[:5]))
    if not real:
        raise StageError(f"No clip of {cfg.dataset} can be evaluated: {'; '.join(problems[:3])}")
    return real


def _replaced(dub: Callable[..., None], baseline: str, clip: Clip, path: Path) -> None:
    dub(clip, path, None, baseline)


def reencode(cfg: Config, clip: Clip, path: Path) -> None:
    """The real video through the same encoder: the row shows what the file format alone costs."""
    has_audio = probe(clip.audio).has_audio
    sound = (load_audio(clip.audio, SAMPLE_RATE), SAMPLE_RATE) if has_audio else None
    with VideoWriter(path, cfg.fps, audio=sound, crf=cfg.infer.crf) as writer:
        for frame in read_frames(clip.path, fps=cfg.fps):
            writer.write(frame)


def render_like(
    pipeline: Pipeline,
    cfg: Config,
    clip: Clip,
    path: Path,
    audio: np.ndarray | None = None,
    baseline: str | None = None,
    seed: int = 0,
    real: Clip | None = None,
) -> Rendered:
    """A video with as many frames as the real clip: no row may win by leaving frames out.

    Args:
        audio: mono 16 kHz samples; None: the clip's own sound.
        real: the reference, where it is not the clip itself.
    """
    real = real or clip
    frames = count_frames(real.path, cfg.fps)
    audio = real.audio if audio is None else audio
    return pipeline.render(clip.path, audio, path, frames=frames, baseline=baseline, seed=seed)


def further_samples(
    cfg: Config, pipeline: Pipeline, clip: Clip, path: Path, real: Clip | None = None
) -> tuple[Path, ...]:
    """Videos of the clip's sound with other seeds, beside the clip's own video.

    They are the own video itself when the model is deterministic: nothing else would come out.
    """
    if not pipeline.stochastic:
        return (path,) * len(SAMPLE_SEEDS)
    paths = [path.with_suffix(f".seed{seed}{path.suffix}") for seed in SAMPLE_SEEDS]
    for seed, target in zip(SAMPLE_SEEDS, paths, strict=True):
        render_like(pipeline, cfg, clip, target, seed=seed, real=real)
    return tuple(paths)


def evaluate_videos(cfg: Config, pipeline: Pipeline, run: RunDir) -> dict[str, float]:
    """Evaluate on the test split.

    Returns:
        The model's mean per output.

    Raises:
        StageError: no test clip could be generated.
    """
    clips = usable_clips(cfg, "test")[: cfg.eval_clips]
    if not clips:
        raise StageError(
            f"The test split of {cfg.dataset} has no usable clip ({cfg.filelist('test')})."
        )
    evaluator = Evaluator(cfg)
    rows: list[RowResult] = []
    real = _references(cfg, pipeline, clips, run.results / "reference")
    clips = [clip for clip in clips if clip.id in real]
    names = makers(cfg, pipeline, clips, real)
    more = _sampler(cfg, pipeline, evaluator, real)
    bar = progress(
        total=len(names) * len(clips),
        unit="video",
        desc="evaluation",
        show=cfg.show_progress,
        leave=False,
    )
    folders: dict[str, Path] = {}
    with bar:
        for title, make in names.items():
            folder = run.results / "videos" / title.replace(" ", "_")
            folders[title] = folder
            row = RowResult(title)
            rows.append(row)
            for number, clip in enumerate(clips, 1):
                path = folder / f"{clip.id}.mp4"
                own = more if title == cfg.model else None
                _score(evaluator, make, clip, path, row, own, real[clip.id])
                bar.update()
                if bar.disable and number % 25 == 0:
                    log.info("evaluation, %s: %d of %d clips", title, number, len(clips))
            evaluator.finish_row(row)
    table = aggregate(rows, evaluator.outputs)
    header = {
        "model": cfg.model,
        "dataset": cfg.dataset,
        "run_id": run.id,
        "config_hash": cfg.hash[:12],
        "preset": cfg.preset or "",
    }
    write_metrics(
        run.results,
        rows,
        table,
        evaluator.outputs,
        {
            **header,
            "split": "test",
            "clips": [clip.id for clip in clips],
            "definitions": evaluator.definitions(),
        },
    )
    append_leaderboard(resolve(cfg.results_dir) / "leaderboard.csv", header, table)
    for clip in clips[: cfg.n_preview]:
        write_preview(
            run.results / "previews" / f"{clip.id.replace('/', '_')}.mp4",
            {title: folders[title] / f"{clip.id}.mp4" for title in names},
            real[clip.id],
            cfg.fps,
        )
    log.info(
        "\nTest split of %s, mean over %d clips:\n%s",
        cfg.dataset,
        len(clips),
        console_table(table, evaluator.outputs, cfg.metric_decimal_place),
    )
    _log_media(cfg, run, real[clips[0].id], folders[cfg.model])
    for line in reasons_text(rows):
        log.info("  note: %s", line)
    log.info("videos, previews and tables: %s", shown(run.results))
    return {key: values["mean"] for key, values in table[cfg.model].items()}


def _log_media(cfg: Config, run: RunDir, clip: Clip, folder: Path) -> None:
    """The first test clip for TensorBoard: its sound, and real and generated frames."""
    from talkingface.trainer.loggers import RunLogger

    pair = ClipPair(clip.id, folder / f"{clip.id}.mp4", clip.path)
    if not pair.generated.exists() or not run.tensorboard.exists():
        return
    logger = RunLogger(run.tensorboard, None)
    logger.audio("test/sound", load_audio(clip.audio, SAMPLE_RATE), SAMPLE_RATE, 0)
    step = max(1, round(cfg.fps / 5))  # five pictures per second, ten seconds at most
    side_by_side = (np.concatenate([g, r], axis=1) for i, g, r in pair.frames() if i % step == 0)
    logger.animation("test/generated_and_real", list(islice(side_by_side, 50)), 0)
    logger.close()


def _sampler(
    cfg: Config,
    pipeline: Pipeline,
    evaluator: Evaluator,
    real: dict[str, Clip] | None = None,
) -> Sampler | None:
    """Makes further samples where a metric asks for them."""
    if not any(metric.name == "Div" for metric in evaluator.metrics):
        return None
    real = real or {}
    return lambda clip, path: further_samples(cfg, pipeline, clip, path, real.get(clip.id))


def _score(
    evaluator: Evaluator,
    make: Maker,
    clip: Clip,
    path: Path,
    row: RowResult,
    more: Sampler | None = None,
    real: Clip | None = None,
) -> None:
    """Generate and score one clip; a clip that fails is recorded, never averaged away."""
    real = real or clip
    pair = ClipPair(clip.id, path, real.path, audio=real.audio)
    try:
        make(clip, path)
    except EnvironmentProblem:
        raise
    except TalkingFaceError as error:
        reason = f"not generated: {error}"
        row.values[clip.id] = {key: float("nan") for key in evaluator.outputs}
        row.reasons.update({(clip.id, key): reason for key in evaluator.outputs})
        row.notes[clip.id] = []
        return
    try:
        pair.samples = more(clip, path) if more else ()
    except EnvironmentProblem:
        raise
    except TalkingFaceError as error:  # only Div is lost
        pair.notes.append(f"further samples were not generated: {error}")
    evaluator.score_clip(pair, row)


def make_scorer(cfg: Config, metric: str, outputs: dict[str, Any], scratch: Path) -> Any:
    """Scores the model on the first validation clips, for a ``valid_metric`` such as PSNR_mouth."""
    from talkingface.trainer.trainer import Scorer

    clips = usable_clips(cfg, "val")[: cfg.eval_clips or 4]

    def score(model: Any) -> dict[str, float]:
        device = next(model.network.parameters()).device
        pipeline = build_pipeline(cfg, model, device)
        owner = next(m for m in cfg.metrics if metric in _outputs_of(cfg, m))
        evaluator = Evaluator(cfg, [owner])
        row = RowResult("validation")
        real = _references(cfg, pipeline, clips, scratch / "reference")
        more = _sampler(cfg, pipeline, evaluator, real)
        try:
            for clip in filter(lambda clip: clip.id in real, clips):
                _score(
                    evaluator,
                    lambda c, p: render_like(pipeline, cfg, c, p, real=real[c.id]),
                    clip,
                    scratch / f"{clip.id}.mp4",
                    row,
                    more,
                    real[clip.id],
                )
            evaluator.finish_row(row)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        values = aggregate([row], evaluator.outputs)["validation"]
        return {key: item["mean"] for key, item in values.items()}

    return Scorer(score, outputs[metric].get("direction") == "up")


def _outputs_of(cfg: Config, metric: str) -> dict[str, Any]:
    return cfg.registry.entry("metric", metric).meta.get("outputs") or {}


def evaluate_motion(
    cfg: Config, model: AbstractTalkingFace, data: Any, run: RunDir, losses: dict[str, float]
) -> dict[str, float]:
    """Measures of whole test clips, for models that generate motion and no video.

    Args:
        data: dataset of the test split with ``whole_clips()``.
        losses: of the test split, kept beside the measures.

    Returns:
        The model's mean per output.
    """
    clips = list(data.whole_clips())[: cfg.eval_clips]
    model.eval()  # the losses were taken by a trainer, which leaves networks as in training
    rows: dict[str, RowResult] = {}
    pooled = PooledMotions(cfg)
    bar = progress(clips, unit="clip", desc="evaluation", show=cfg.show_progress, leave=False)
    for number, clip in enumerate(bar):
        other = clips[(number + max(1, len(clips) // 2)) % len(clips)]
        motions = model.generate_motions(clip, other)
        if motions:
            measured = model.evaluate_motions(clip, motions)
            pooled.add(clip, motions)
        else:
            measured = model.evaluate_clip(clip, other)
        for title, values in measured.items():
            row = rows.setdefault(title, RowResult(title))
            row.values[clip.id], row.notes[clip.id] = values, []
            for key in model.clip_outputs:
                if not np.isfinite(values.get(key, np.nan)):
                    row.reasons[clip.id, key] = "not defined for this row"
    # What no clip of the data has is left out, e.g. the lip opening of codes without a face model.
    outputs = {
        key: dict(spec)
        for key, spec in model.clip_outputs.items()
        if any(key in values for row in rows.values() for values in row.values.values())
    }
    pooled.drop_unused()
    outputs.update(pooled.score(rows))
    table = aggregate(list(rows.values()), outputs)
    header = {
        "model": cfg.model,
        "dataset": cfg.dataset,
        "run_id": run.id,
        "config_hash": cfg.hash[:12],
        "preset": cfg.preset or "",
    }
    facts = {
        "split": "test",
        "clips": [clip.id for clip in clips],
        "losses": losses,
        "not_applicable": pooled.not_applicable,
        **model.result_notes(),
    }
    write_metrics(run.results, list(rows.values()), table, outputs, {**header, **facts})
    append_leaderboard(resolve(cfg.results_dir) / "leaderboard.csv", header, table)
    log.info(
        "\nTest split of %s, mean over %d clips:\n%s",
        cfg.dataset,
        len(clips),
        console_table(table, outputs, cfg.metric_decimal_place),
    )
    for key, spec in outputs.items():
        log.info("  %s: %s", key, spec["unit"])
    for name, reason in pooled.not_applicable.items():
        log.info("  %s: not applicable: %s", name, reason)
    for key, value in model.result_notes().items():
        log.info("  %s: %s", key, value)
    pooled.write(run.results, clips, model.result_notes())
    return {**losses, **{key: item["mean"] for key, item in table[cfg.model].items()}}


@torch.no_grad()
def evaluate_losses(cfg: Config, trainer: Any, loader: Any, run: RunDir) -> dict[str, float]:
    """Test losses, for models that generate no video."""
    from talkingface.utils.paths import write_json

    losses = trainer.evaluate(loader)
    run.results.mkdir(parents=True, exist_ok=True)
    write_json(
        run.results / "metrics.json",
        {
            "model": cfg.model,
            "dataset": cfg.dataset,
            "run_id": run.id,
            "split": "test",
            "config_hash": cfg.hash[:12],
            "rows": {cfg.model: losses},
        },
    )
    text = ", ".join(f"{k} {v:.{cfg.metric_decimal_place}f}" for k, v in losses.items())
    log.info("test split of %s: %s", cfg.dataset, text)
    return losses
