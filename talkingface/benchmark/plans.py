"""The rows of a comparison: what makes their videos, and when these are out of date."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.benchmark.cost import Cost, measure_network, peak_memory, timed
from talkingface.benchmark.entries import (
    Competitor,
    Material,
    file_state,
    seen_in_training,
    videos_for,
)
from talkingface.data.clips import Clip
from talkingface.errors import StageError
from talkingface.pipeline.base import Pipeline
from talkingface.quick_start.evaluation import (
    REPLACEMENTS,
    ROW_TITLES,
    mismatched_clip,
    reencode,
    render_like,
    shuffled_waves,
)
from talkingface.trainer.runtime import choose_device

REAL, COPY = ROW_TITLES["real"], ROW_TITLES["copy_reference"]
Maker = Callable[[Clip, Path], dict[str, Any] | None]


class Generator:
    """A trained model that is loaded when its first video is made."""

    def __init__(self, entry: Competitor, scratch: Path) -> None:
        assert entry.cfg and entry.checkpoint
        self.entry, self.cfg, self.checkpoint = entry, entry.cfg, entry.checkpoint
        self.cost: Cost | None = None
        self.known: set[Path] = set()
        self.scratch = scratch  # for references

    @cached_property
    def state(self) -> str:
        """Changes when the same source and sound would give another video."""
        from talkingface.components.store import ComponentStore

        infer = json.dumps(self.cfg.to_dict().get("infer", {}), sort_keys=True, default=str)
        device = choose_device(self.cfg.device).type
        files = [self.checkpoint, *ComponentStore(self.cfg).inference_files(self.checkpoint)]
        return f"{' '.join(map(file_state, files))} {self.cfg.hash} {infer} {device}"

    @property
    def kind(self) -> type[Pipeline]:
        return self.cfg.registry.resolve(self.cfg.model_entry, "pipeline")

    @cached_property
    def pipeline(self) -> Pipeline:
        from talkingface.components.models import build_model, load_model_weights
        from talkingface.pipeline.build import build_pipeline
        from talkingface.utils.seeding import seed_everything

        seed_everything(self.cfg.seed, self.cfg.reproducibility)
        model = build_model(self.cfg)
        load_model_weights(model, self.checkpoint, self.cfg.trust_checkpoint)
        return build_pipeline(self.cfg, model.eval(), choose_device(self.cfg.device))

    def reference(self, clip: Clip) -> Clip:
        """What its videos are compared with."""
        if self.kind.reference is Pipeline.reference:
            return clip
        folder = self.scratch / self.entry.title.replace(" ", "_").replace("/", "_")
        return self.pipeline.reference(clip, folder)

    def render(
        self, clip: Clip, path: Path, audio: np.ndarray | None = None, baseline: str | None = None
    ) -> dict[str, Any]:
        if clip.path not in self.known:  # the faces of a source are found once, for all rows
            self.pipeline.prepare(clip.path)
            self.known.add(clip.path)
        if self.cost is None:  # before the first video, so that it warms up the networks
            self.cost = measure_network(self.pipeline, clip)
        with peak_memory(self.pipeline.device) as peak:
            done = render_like(
                self.pipeline, self.cfg, clip, path, audio, baseline, real=self.reference(clip)
            )
        return timed(done, peak[0] if peak else None)


@dataclass
class Plan:
    """One row of one dataset.

    Attributes:
        make: writes a clip's video and tells what it cost; None when ``videos`` are finished.
        state: of a clip; changes when its video would.
        samples: further videos of a clip with other seeds.
        reference: what a clip's video is compared with.
    """

    title: str
    kind: str  # model | baseline | real | videos
    detail: str
    make: Maker | None = None
    state: Callable[[Clip], str] = lambda clip: ""
    videos: dict[str, Path] = field(default_factory=dict)
    samples: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    generator: Generator | None = None
    failures: dict[str, str] = field(default_factory=dict)
    reference: Callable[[Clip], Clip] = lambda clip: clip


def plan_rows(material: Material, entries: list[Competitor], scratch: Path) -> list[Plan]:
    """Rows in the order of the table: systems, trivial baselines, the real video.

    Args:
        scratch: folder for references that differ from the clips.
    """
    chosen, clips = material.cfg.baselines, material.clips
    waves = shuffled_waves(clips)
    generators = [Generator(entry, scratch) for entry in entries if entry.cfg]
    plans: list[Plan] = []
    for entry in entries:
        if not entry.cfg:
            videos = videos_for(entry, clips)
            if not videos:
                raise StageError(
                    f"{entry.title}: no video has the name of a clip of {material.name} "
                    f"({', '.join(sorted(entry.videos)[:3])} against {clips[0].id}, ...)"
                )
            plans.append(Plan(entry.title, "videos", entry.detail, videos=videos))
    for place, generator in enumerate(generators):
        entry = generator.entry
        if seen := seen_in_training(entry, clips):
            entry.warnings.append(f"trained on {seen} of these {len(clips)} clips")
        own = Plan(
            entry.title,
            "model",
            entry.detail,
            lambda clip, path, g=generator: g.render(clip, path),
            lambda clip, g=generator: f"{g.state} {clip_state(clip)}",
            warnings=entry.warnings,
            generator=generator,
            reference=generator.reference,
        )
        plans.insert(place, own)
    if "shuffled_audio" in chosen:
        plans += [
            Plan(
                f"{generator.entry.title}, {ROW_TITLES['shuffled_audio']}",
                "baseline",
                "the same with the sound of another clip",
                lambda clip, path, g=generator: g.render(clip, path, waves[clip.id]()),
                lambda clip, g=generator: (
                    f"{g.state} {clip_state(clip)} "
                    f"{clip_state(mismatched_clip(clips, clips.index(clip)))}"
                ),
                reference=generator.reference,
            )
            for generator in generators
        ]
    for name, meaning in REPLACEMENTS.items():
        owner = next((g for g in generators if name in g.kind.baselines), None)
        if owner and name in chosen:
            plans.append(
                Plan(
                    ROW_TITLES[name],
                    "baseline",
                    meaning.format(model=owner.entry.title),
                    lambda clip, path, g=owner, n=name: g.render(clip, path, None, n),
                    lambda clip, g=owner, n=name: f"{g.state} {clip_state(clip)} {n}",
                    reference=owner.reference,
                )
            )
    if "real" in chosen and generators:
        first = generators[0]
        cfg = first.cfg
        detail = f"through the same encoder (crf {cfg.infer.crf}, {cfg.fps:g} frames/s)"
        plans.append(
            Plan(
                REAL,
                "real",
                detail,
                lambda clip, path: reencode(cfg, first.reference(clip), path),
                lambda clip: f"{detail} {clip_state(clip)}",
                reference=first.reference,
            )
        )
    elif "real" in chosen:
        videos = {clip.id: clip.path for clip in clips}
        plans.append(Plan("real video", "real", "the reference itself", videos=videos))
    return plans


def clip_state(clip: Clip) -> str:
    return f"{clip.id} {file_state(clip.path)} {file_state(clip.audio)}"
