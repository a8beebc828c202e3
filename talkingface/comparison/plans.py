"""The rows of a benchmark: models that write videos, finished videos, and baselines."""

from __future__ import annotations

import json
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from talkingface.comparison.cost import Cost, measure_network, peak_memory
from talkingface.comparison.entries import Competitor, Material, seen_in_training, videos_for
from talkingface.components.store import ComponentStore
from talkingface.config.config import Config, load_config
from talkingface.config.schema import DatasetConfig
from talkingface.data.clips import Clip
from talkingface.errors import StageError
from talkingface.quick_start.infer import load_pipeline
from talkingface.quick_start.rows import Generator, VideoRow, baseline_rows, file_state, model_row
from talkingface.trainer.runtime import choose_device


class TimedGenerator(Generator):
    """A generator that measures time and memory of its videos.

    Attributes:
        cost: parameters and operations; None before the first video.
    """

    def __init__(self, entry: Competitor, material: Material, folder: Path) -> None:
        name = entry.title.replace(" ", "_").replace("/", "_")
        cfg = _on_clips_of(material.cfg, entry.cfg)
        load = partial(load_pipeline, cfg, entry.checkpoint)
        super().__init__(cfg, entry.title, load, folder / name)
        self.checkpoint = entry.checkpoint
        self.cost: Cost | None = None
        self._prepared: set[Path] = set()

    @cached_property
    def state(self) -> str:
        infer = json.dumps(self.cfg.to_dict().get("infer", {}), sort_keys=True, default=str)
        device = choose_device(self.cfg.device).type
        own = [self.checkpoint] if self.checkpoint else []
        files = [*own, *ComponentStore(self.cfg).inference_files(self.checkpoint)]
        # The folder: other clips in it may give the mouths.
        states = " ".join(map(file_state, files))
        return f"{states} {self.cfg.hash} {infer} {device} {self.cfg.processed_dir}"

    def render_timed(self, clip: Clip, path: Path) -> dict[str, Any]:
        """Write a clip's video; returns the entries of :meth:`.Cost.add_times`.

        The time is without the face tracking of the source.
        """
        if clip.path not in self._prepared:
            self.pipeline.prepare(clip.path)
            self._prepared.add(clip.path)
        if self.cost is None:  # before the first video, so that it warms up the networks
            self.cost = measure_network(self.pipeline, clip)
        with peak_memory(self.pipeline.device) as peak:
            rendered = self.render(clip, path)
        return {
            "frames": rendered.frames,
            "seconds": rendered.seconds_taken,
            "video_seconds": rendered.seconds_of_video,
            "peak_mb": peak[0] if peak else None,
        }


def _on_clips_of(dataset: Config, model: Config) -> Config:
    """The settings of a model with the folders of a dataset, whose other clips it may use."""
    if not model.registry.supports(model.model_entry, dataset.dataset_entry):
        return model
    folders = {key: dataset[key] for key in DatasetConfig.model_fields}
    base = {**model.to_dict(), **folders, "preset": None}
    return load_config(model.model, dataset.dataset, base=base)


def plan_rows(material: Material, entries: list[Competitor], folder: Path) -> list[VideoRow]:
    """Rows in the order of the table: models, folders of videos, trivial baselines, the real video.

    Args:
        folder: folder of reference videos that pipelines make.
    """
    baselines, clips = material.cfg.baselines, material.clips
    rows, video_rows, generators = [], [], []
    for entry in entries:
        if entry.cfg:
            generator = TimedGenerator(entry, material, folder)
            generators.append(generator)
            if count := seen_in_training(entry, clips):
                entry.warnings.append(f"trained on {count} of these {len(clips)} clips")
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
        video_rows.append(VideoRow(entry.title, "videos", entry.detail, videos=videos))
    rows += video_rows + baseline_rows(generators, clips, baselines, named=True)
    if "real" in baselines and not generators:
        videos = {clip.id: clip.path for clip in clips}
        rows.append(VideoRow("real video", "real", "the reference itself", videos=videos))
    return rows
