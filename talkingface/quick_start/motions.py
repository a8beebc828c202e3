"""Motions of a test split: pooled metrics, files, previews."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.data.media.audio import save_stereo
from talkingface.evaluator.base_metric import build_metric
from talkingface.evaluator.evaluator import RowResult
from talkingface.evaluator.motion_files import MotionResults
from talkingface.evaluator.motion_preview import write_preview
from talkingface.utils.paths import shown

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)

REAL = "real"


def _masked(made: np.ndarray, real: np.ndarray) -> np.ndarray:
    """(N,T,C) with NaN where the real motion (T,C) has some."""
    return np.where(np.isnan(real).any(axis=1)[:, None], np.nan, made)


class PooledMotions:
    """Collects what :meth:`generate_motions` gives, scores it as a whole and writes it.

    Attributes:
        not_applicable: metric -> why it says nothing of motions.
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.parts: dict[str, dict[str, list[np.ndarray]]] = {}
        self.clips: list[str] = []
        self.not_applicable: dict[str, str] = {}
        self.metrics: list[Any] = []
        for name in cfg.metrics:
            entry = cfg.registry.entry("metric", name)
            if "motion" in (entry.meta.get("needs") or ()):
                metric = build_metric(cfg.registry, name, cfg.metric_params.get(name), cfg)
                self.metrics.append(metric)
            else:
                self.not_applicable[name] = f"{cfg.model} generates motion; there are no pictures"

    def add(self, clip: Any, motions: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        self.clips.append(clip.id)
        for part, rows in motions.items():
            for row, values in rows.items():
                self.parts.setdefault(part, {}).setdefault(row, []).append(values)

    def drop_unused(self) -> None:
        """Metrics of motions say nothing of a model that gave none."""
        if not self.parts:
            reason = f"{self.cfg.model} gives no motions that could be compared as a set"
            self.not_applicable.update({metric.name: reason for metric in self.metrics})
            self.metrics = []

    def score(self, rows: Mapping[str, RowResult]) -> dict[str, dict[str, Any]]:
        """Pooled values into the rows; the outputs with their descriptions."""
        outputs: dict[str, dict[str, Any]] = {}
        scored = {part: motions for part, motions in self.parts.items() if REAL in motions}
        for metric in self.metrics:
            for part, motions in scored.items():
                head = f"{part} " if len(scored) > 1 else ""
                outputs.update({f"{head}{k}": dict(spec) for k, spec in metric.outputs.items()})
                real = [values[0] for values in motions[REAL]]
                for row, made in motions.items():
                    result = metric.score(list(map(_masked, made, real)), real)
                    for key, value in result.items():
                        name, target = f"{head}{key}", rows[row]
                        target.pooled[name] = value
                        target.pooled_clips[name] = list(self.clips)
                        if math.isnan(value):
                            target.reasons["", name] = metric.reasons.get(key, "undefined")
        return outputs

    def _sampling(self) -> dict[str, Any]:
        """How the motions were sampled, as configured."""
        for key in ("sampler", "sampling"):
            if key in self.cfg:
                return self.cfg[key].model_dump()
        return {}

    def write(self, folder: Path, clips: list[Any], facts: Mapping[str, str]) -> None:
        """``<part>.npz``, ``<part>_results.npy`` (original layout), previews of the model and their
        sounds.

        Args:
            facts: what a reader must know, kept in the files.
        """
        if not self.clips:
            return
        first = clips[0]
        sounds = [clip.stats.natural_sound(clip.sound) for clip in clips]
        rate = round(len(first.sound) / len(first) * first.fps)
        for clip, sound in list(zip(clips, sounds, strict=True))[: self.cfg.n_preview]:
            path = folder / "previews" / f"{clip.id.replace('@', '_')}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_stereo(path, sound, rate)
        for part, motions in self.parts.items():
            if REAL not in motions:
                continue
            made = motions[self.cfg.model]
            keys = (self.parts.get(f"{part}_keys") or {}).get(self.cfg.model, [])
            real = [values[0] for values in motions[REAL]]
            # In files a missing face is the mean face, as in training.
            filled = [
                np.where(np.isnan(motion), clip.stats.units(part)[0].reshape(-1), motion)
                for motion, clip in zip(real, clips, strict=True)
            ]
            results = MotionResults(
                made,
                filled,
                sounds,
                keys,
                {
                    "fps": first.fps,
                    "sample_rate": rate,
                    "scene": np.array([clip.scene for clip in clips]),
                    "start": np.array([clip.start for clip in clips]),
                    "valid": np.array([float(clip.valid.mean()) for clip in clips]),
                    "model": self.cfg.model,
                    "seed": self.cfg.seed,
                    "sampling": json.dumps(self._sampling()),
                    **facts,
                },
            )
            results.save(folder / f"{part}.npz")
            if self._sampling().get("results_npy", True):
                results.save_original(folder / f"{part}_results.npy")
            for number, clip in enumerate(clips[: self.cfg.n_preview]):
                write_preview(
                    folder / "previews" / f"{clip.id.replace('@', '_')}_{part}",
                    made[number][0],
                    sounds[number],
                    rate,
                    clip.fps,
                    real=real[number],
                    keys=keys[number][0] if keys else None,
                    key_step=self.cfg.data.guide_step,
                    kind=part,
                )
        log.info("motions, previews and tables: %s", shown(folder))
