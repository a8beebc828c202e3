"""Evaluation of models that generate motion: values per clip, FD of sets, files, previews."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.data.media.audio import save_wav
from talkingface.evaluator.evaluator import Evaluator, Row
from talkingface.evaluator.metrics.motion_distribution import MotionDistribution
from talkingface.evaluator.motion_files import MotionResults
from talkingface.evaluator.motion_preview import write_preview
from talkingface.evaluator.motion_sample import REAL, MeasuredValues, MotionSample
from talkingface.model.abilities import ClipResult, HasResultNotes
from talkingface.quick_start.results import publish
from talkingface.quick_start.rows import mismatched_clip
from talkingface.utils.logs import progress

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.quick_start.run_dir import RunDir

log = logging.getLogger(__name__)


def evaluate_motions(
    cfg: Config, model: Any, data: Any, run: RunDir, losses: Mapping[str, float]
) -> dict[str, float]:
    """Evaluate a model that implements :class:`EvaluatesClips` on whole test clips.

    Args:
        data: dataset of the test split with ``whole_clips()``.
        losses: losses of the test split, written to ``metrics.json`` too.

    Returns:
        The model's mean of each output.
    """
    clips = list(data.whole_clips())[: cfg.eval_clips]
    bar = progress(clips, unit="clip", desc="evaluation", show=cfg.show_progress, leave=False)
    results = {
        clip.id: model.evaluate_clip(clip, mismatched_clip(clips, number))
        for number, clip in enumerate(bar)
    }
    titles = dict.fromkeys(title for result in results.values() for title in _rows_of(result))
    evaluator = _evaluator(cfg, model, list(results.values()))
    rows = [
        Row(title, {name: partial(MotionSample.of, name, title, r) for name, r in results.items()})
        for title in titles
    ]
    scored = evaluator.run(rows)
    notes = model.result_notes(list(results.values())) if isinstance(model, HasResultNotes) else {}
    entries = {
        "clips": list(results),
        "definitions": evaluator.definitions(),
        "losses": dict(losses),
        "not_applicable": evaluator.not_applicable,
        **notes,
    }
    means = publish(cfg, run, scored, evaluator.outputs, entries)
    for key, spec in evaluator.outputs.items():
        log.info("  %s: %s", key, spec["unit"])
    for key, value in notes.items():
        log.info("  %s: %s", key, value)
    _write(cfg, run.results, clips, results, notes)
    return means


def _rows_of(result: ClipResult) -> list[str]:
    return [*result.values, *(row for rows in result.motions.values() for row in rows)]


def _parts_of(results: Sequence[ClipResult]) -> list[str]:
    """Parts of the motion, e.g. face or body, that all clips also have as recorded motion."""
    parts = dict.fromkeys(part for result in results for part in result.motions)
    return [p for p in parts if all(REAL in result.motions.get(p, ()) for result in results)]


def _evaluator(cfg: Config, model: Any, results: Sequence[ClipResult]) -> Evaluator:
    """Metrics of motions; metrics of sets of motions only if the model returns motions."""
    # Without outputs that no clip has, e.g. the lip opening of codes without a face model.
    measured = {
        key: spec
        for key, spec in model.clip_outputs.items()
        if any(key in values for result in results for values in result.values.values())
    }
    evaluator = Evaluator(cfg, takes="motion", first=[MeasuredValues(measured)])
    parts = _parts_of(results)
    for metric in [m for m in evaluator.metrics if isinstance(m, MotionDistribution)]:
        if parts:
            metric.of_parts(parts)
        else:
            evaluator.metrics.remove(metric)
            evaluator.not_applicable[metric.name] = f"{cfg.model} returns no sets of motions"
    return evaluator


def _sampling(cfg: Config) -> dict[str, Any]:
    """The configured settings of the sampler."""
    return next((cfg[key].model_dump() for key in ("sampler", "sampling") if key in cfg), {})


def _write(
    cfg: Config,
    folder: Path,
    clips: Sequence[Any],
    results: Mapping[str, ClipResult],
    notes: Mapping[str, str],
) -> None:
    """Write ``<part>.npz``, ``<part>_results.npy`` (layout of audio2photoreal), and previews of the
    model with their audio.

    Args:
        notes: further entries of the ``.npz`` files.
    """
    parts = _parts_of(list(results.values()))
    if not parts:
        return
    first = clips[0]
    sounds = [clip.stats.natural_sound(clip.sound) for clip in clips]
    rate = round(len(first.sound) / len(first) * first.fps)
    previews = [folder / "previews" / clip.id.replace("@", "_") for clip in clips[: cfg.n_preview]]
    for path, sound in zip(previews, sounds, strict=False):
        save_wav(path.with_name(f"{path.name}.wav"), sound, rate)
    for part in parts:
        motions = [results[clip.id].motions for clip in clips]
        generated = [rows[part][cfg.model] for rows in motions]
        real = [rows[part][REAL][0] for rows in motions]
        key_rows = [rows.get(f"{part}_keys") for rows in motions]
        keys = [rows[cfg.model] for rows in key_rows if rows is not None]
        # The files have the mean face in frames without a face, as in training.
        filled = [
            np.where(np.isnan(motion), clip.stats.units(part)[0].reshape(-1), motion)
            for motion, clip in zip(real, clips, strict=True)
        ]
        details = {
            "fps": first.fps,
            "sample_rate": rate,
            "scene": np.array([clip.scene for clip in clips]),
            "start": np.array([clip.start for clip in clips]),
            "valid": np.array([float(clip.valid.mean()) for clip in clips]),
            "model": cfg.model,
            "seed": cfg.seed,
            "sampling": json.dumps(_sampling(cfg)),
            **notes,
        }
        saved = MotionResults(generated, filled, sounds, keys, details)
        saved.save(folder / f"{part}.npz")
        if _sampling(cfg).get("results_npy", True):
            saved.save_original(folder / f"{part}_results.npy")
        for number, path in enumerate(previews):
            write_preview(
                path.with_name(f"{path.name}_{part}"),
                generated[number][0],
                sounds[number],
                rate,
                clips[number].fps,
                real=real[number],
                keys=keys[number][0] if keys else None,
                key_step=results[first.id].details.get("key_step", 1),
                kind=part,
            )
