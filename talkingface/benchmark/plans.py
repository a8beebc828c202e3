"""The rows of a benchmark: models that write videos, finished videos, and baselines."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from talkingface.benchmark.cost import Cost, measure_network, peak_memory, timed
from talkingface.benchmark.entries import Competitor, Material, seen_in_training, videos_for
from talkingface.data.clips import Clip
from talkingface.errors import StageError
from talkingface.pipeline.base import Pipeline
from talkingface.quick_start.rows import (
    Generator,
    VideoRow,
    baseline_rows,
    file_state,
    model_row,
)
from talkingface.trainer.runtime import choose_device


class TimedGenerator(Generator):
    """A competitor whose videos are timed.

    Attributes:
        cost: parameters and operations; None before the first video.
    """

    def __init__(self, entry: Competitor, folder: Path) -> None:
        assert entry.cfg and entry.checkpoint
        name = entry.title.replace(" ", "_").replace("/", "_")
        super().__init__(entry.cfg, entry.title, self._load_pipeline, folder / name)
        self.checkpoint = entry.checkpoint
        self.cost: Cost | None = None
        self._known: set[Path] = set()

    def _load_pipeline(self) -> Pipeline:
        from talkingface.components.models import build_model, load_model_weights
        from talkingface.pipeline.build import build_pipeline
        from talkingface.utils.seeding import seed_everything

        seed_everything(self.cfg.seed, self.cfg.reproducibility)
        model = build_model(self.cfg)
        load_model_weights(model, self.checkpoint, self.cfg.trust_checkpoint)
        return build_pipeline(self.cfg, model.eval(), choose_device(self.cfg.device))

    @cached_property
    def state(self) -> str:
        from talkingface.components.store import ComponentStore

        infer = json.dumps(self.cfg.to_dict().get("infer", {}), sort_keys=True, default=str)
        device = choose_device(self.cfg.device).type
        files = [self.checkpoint, *ComponentStore(self.cfg).inference_files(self.checkpoint)]
        return f"{' '.join(map(file_state, files))} {self.cfg.hash} {infer} {device}"

    def render_timed(self, clip: Clip, path: Path) -> dict[str, Any]:
        """Write a clip's video; times and memory, without the face track of the source."""
        if clip.path not in self._known:
            self.pipeline.prepare(clip.path)
            self._known.add(clip.path)
        if self.cost is None:  # before the first video, so that it warms up the networks
            self.cost = measure_network(self.pipeline, clip)
        with peak_memory(self.pipeline.device) as peak:
            done = self.render(clip, path)
        return timed(done, peak[0] if peak else None)


def plan_rows(material: Material, entries: list[Competitor], folder: Path) -> list[VideoRow]:
    """Rows in the order of the table: models, folders of videos, trivial baselines, the real video.

    Args:
        folder: for references that differ from the clips.
    """
    baselines, clips = material.cfg.baselines, material.clips
    rows, finished, generators = [], [], []
    for entry in entries:
        if entry.cfg:
            generator = TimedGenerator(entry, folder)
            generators.append(generator)
            if seen := seen_in_training(entry, clips):
                entry.warnings.append(f"trained on {seen} of these {len(clips)} clips")
            row = model_row(generator, entry.detail, entry.warnings)
            row.make = generator.render_timed
            rows.append(row)
            continue
        videos = videos_for(entry, clips)
        if not videos:
            raise StageError(
                f"{entry.title}: no video has the name of a clip of {material.name} "
                f"({', '.join(sorted(entry.videos)[:3])} against {clips[0].id}, ...)"
            )
        finished.append(VideoRow(entry.title, "videos", entry.detail, videos=videos))
    rows += finished + baseline_rows(generators, clips, baselines, named=True)
    if "real" in baselines and not generators:
        videos = {clip.id: clip.path for clip in clips}
        rows.append(VideoRow("real video", "real", "the reference itself", videos=videos))
    return rows
