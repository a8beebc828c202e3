"""``--benchmark``: generate, score and compare on exactly the same clips; can be resumed."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from talkingface import __version__
from talkingface.benchmark.cost import Cost, measure_network, peak_memory, timed
from talkingface.benchmark.entries import (
    Entry,
    Material,
    file_state,
    find_entries,
    find_material,
    seen_in_training,
    split_list,
    videos_for,
)
from talkingface.benchmark.stats import summarize
from talkingface.benchmark.tables import console_lines, write_tables
from talkingface.data.clips import Clip
from talkingface.errors import ConfigError, EnvironmentProblem, StageError, TalkingFaceError
from talkingface.evaluator.base_metric import require_weights
from talkingface.evaluator.clip import ClipPair
from talkingface.evaluator.evaluator import Evaluator, RowResult, row_remarks
from talkingface.evaluator.report import clean, reasons_text
from talkingface.pipeline.base import Pipeline
from talkingface.quick_start.evaluation import ROW_TITLES, reencode, render_like, shuffled_waves
from talkingface.quick_start.score_videos import STANDARD
from talkingface.registry import get_registry
from talkingface.utils.logs import progress, setup_logging
from talkingface.utils.paths import resolve, shown, write_json

log = logging.getLogger(__name__)

REAL, COPY = ROW_TITLES["real"], ROW_TITLES["copy_reference"]
Maker = Callable[[Clip, Path], dict[str, Any] | None]


@dataclass
class Plan:
    """One row of one dataset.

    Attributes:
        make: writes a clip's video and tells what it cost; None when ``videos`` are finished.
        state: changes when the videos would.
    """

    title: str
    kind: str  # model | baseline | real | videos
    detail: str
    state: str
    make: Maker | None = None
    videos: dict[str, Path] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    entry: Entry | None = None


@dataclass
class Comparison:
    """Everything about one dataset that the tables show."""

    material: Material
    plans: list[Plan]
    rows: list[RowResult]
    summary: dict[str, dict[str, dict[str, Any]]]
    outputs: dict[str, dict[str, Any]]
    baseline: str | None
    costs: dict[str, Cost]

    @property
    def real(self) -> str | None:
        return next((plan.title for plan in self.plans if plan.kind == "real"), None)


class _Generator:
    """A trained model that is loaded when its first video is made."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.known: set[Path] = set()

    @cached_property
    def pipeline(self) -> Pipeline:
        from talkingface.quick_start.helpers import build_model, build_pipeline, load_model_weights
        from talkingface.trainer.runtime import choose_device
        from talkingface.utils.seeding import seed_everything

        cfg = self.entry.cfg
        seed_everything(cfg.seed, cfg.reproducibility)
        model = build_model(cfg)
        load_model_weights(model, self.entry.checkpoint, cfg.trust_checkpoint)
        return build_pipeline(cfg, model.eval(), choose_device(cfg.device))

    def render(
        self, clip: Clip, path: Path, audio: Path | np.ndarray, baseline: str | None = None
    ) -> dict[str, Any]:
        if clip.path not in self.known:  # the faces of a source are found once, for all rows
            self.pipeline.prepare(clip.path)
            self.known.add(clip.path)
        with peak_memory(self.pipeline.device) as peak:
            done = render_like(self.pipeline, self.entry.cfg, clip, path, audio, baseline)
        return timed(done, peak[0] if peak else None)


def benchmark(
    options: Mapping[str, str], config: Mapping[str, Any], config_files: list[str]
) -> int:
    """Run the action; returns the exit status.

    Options: ``models`` (:func:`find_entries`), ``datasets`` (registered names or folders of real
    videos), ``baseline`` (title of the row that the others are tested against; default: the first
    model or, when there is but one, copy reference), ``output`` (folder). The same command again
    goes on where it was stopped.

    Raises:
        ConfigError: an option is missing or names nothing.
    """
    config = dict(config)
    for key in ("models", "datasets"):
        if not options.get(key):
            raise ConfigError(f"--benchmark needs --{key}=A,B (see --help)")
    named = "metrics" in config
    known = get_registry(config.get("plugin_path")).entries("metric")
    config.setdefault("metrics", [name for name in STANDARD if name in known])
    setup_logging(str(config.get("log_level", "info")))
    folder = _folder(options, config)
    log.info("benchmark in %s", shown(folder))
    comparisons: list[Comparison] = []
    names = split_list(options["datasets"])
    for name in names:
        registered = not Path(name).expanduser().is_dir()
        parts = split_list(options["models"])
        canonical = _dataset_name(name, config) if registered else None
        entries = find_entries(parts, canonical, config)
        material = find_material(name, entries, config)
        if named:
            require_weights(Evaluator(material.cfg, config["metrics"]).metrics)
        found = compare(material, entries, folder, options.get("baseline"), config)
        comparisons.append(found)
        _pin_judge(config, found)
    data = report(comparisons, options, config)
    write_tables(folder, data, comparisons[0].material.cfg.metric_decimal_place)
    _write_page(folder, data, comparisons)
    for line in console_lines(data, comparisons[0].material.cfg.metric_decimal_place):
        log.info("%s", line)
    for found in comparisons:
        for line in reasons_text(found.rows):
            log.info("  note: %s: %s", found.material.name, line)
    log.info("open %s", shown(folder / "benchmark.html"))
    return 0


def _dataset_name(name: str, config: Mapping[str, Any]) -> str:
    return get_registry(config.get("plugin_path")).entry("dataset", name).name


def _folder(options: Mapping[str, str], config: Mapping[str, Any]) -> Path:
    """``--output``, else a folder whose name belongs to the command: repeated, it goes on there."""
    if options.get("output"):
        return resolve(Path(options["output"]).expanduser())
    asked = json.dumps([sorted(options.items()), sorted(config.items(), key=str)], default=str)
    name = f"benchmark-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"
    return resolve(str(config.get("results_dir", "results"))) / name


def _pin_judge(config: dict[str, Any], found: Comparison) -> None:
    """Later datasets are judged by the SyncNet of the first, even if a newer one appears."""
    for metric in Evaluator(found.material.cfg).metrics:
        path = getattr(metric, "path", None)
        if metric.name == "LSE" and path is not None:
            params = dict(config.get("metric_params") or {})
            params["LSE"] = {**params.get("LSE", {}), "weights": str(path)}
            config["metric_params"] = params


# -- one dataset -----------------------------------------------------------------------------------


def compare(
    material: Material,
    entries: list[Entry],
    folder: Path,
    baseline: str | None,
    config: Mapping[str, Any],
) -> Comparison:
    """Generate and score all rows of a dataset."""
    evaluator = Evaluator(material.cfg, config.get("metrics"))
    generators = {entry.title: _Generator(entry) for entry in entries if entry.cfg}
    plans = plan_rows(material, entries, generators)
    titles = [plan.title for plan in plans]
    if baseline is None:
        others = [plan.title for plan in plans if plan.kind != "real"]
        baseline = COPY if len(entries) < 2 and COPY in titles else others[0]
    elif baseline not in titles:
        raise ConfigError(f"--baseline: there is no row '{baseline}'; rows: {', '.join(titles)}")
    place = folder / "videos" / _slug(material.name)
    costs: dict[str, Cost] = {}
    rows = []
    count = len(plans) * len(material.clips)
    show = material.cfg.show_progress
    with progress(total=2 * count, unit="video", desc=material.name, show=show) as bar:
        for plan in plans:
            made = _generate(plan, material.clips, place / _slug(plan.title), bar)
            if plan.kind == "model":
                costs[plan.title] = _cost(generators[plan.title], material, made, place)
        definitions = evaluator.definitions()
        for plan in plans:
            rows.append(_score(plan, material.clips, place, evaluator, definitions, bar))
    real = next((plan.title for plan in plans if plan.kind == "real"), None)
    summary = summarize(rows, evaluator.outputs, baseline=baseline, real=real)
    return Comparison(material, plans, rows, summary, _described(evaluator), baseline, costs)


def plan_rows(
    material: Material, entries: list[Entry], generators: Mapping[str, _Generator]
) -> list[Plan]:
    """Rows in the order of the table: systems, trivial baselines, the real video."""
    cfg, clips = material.cfg, material.clips
    waves = shuffled_waves(clips)
    plans: list[Plan] = []
    baselines: list[Plan] = []
    for entry in entries:
        if not entry.cfg:
            videos = videos_for(entry, clips)
            if not videos:
                raise StageError(
                    f"{entry.title}: no video has the name of a clip of {material.name} "
                    f"({', '.join(sorted(entry.videos)[:3])} against {clips[0].id}, ...)"
                )
            plans.append(Plan(entry.title, "videos", entry.detail, "", None, videos, entry=entry))
            continue
        generator, title = generators[entry.title], entry.title
        seen = seen_in_training(entry, clips)
        if seen:
            entry.warnings.append(f"trained on {seen} of these {len(clips)} clips")
        state = f"{file_state(entry.checkpoint)} {entry.cfg.hash} {_infer_settings(entry)}"
        # Default arguments bind the loop's values.
        own: Maker = lambda clip, path, g=generator: g.render(clip, path, clip.audio)  # noqa: E731
        plans.append(
            Plan(title, "model", entry.detail, state, own, warnings=entry.warnings, entry=entry)
        )
        if "shuffled_audio" in cfg.baselines:
            other: Maker = lambda clip, path, g=generator: g.render(  # noqa: E731
                clip, path, waves[clip.id]()
            )
            name = f"{title}, {ROW_TITLES['shuffled_audio']}"
            detail = "the same with the sound of another clip"
            baselines.append(Plan(name, "baseline", detail, state + " shuffled", other))
    first = next((g for g in generators.values() if _copies(g)), None)
    if first and "copy_reference" in cfg.baselines:
        copy: Maker = lambda clip, path: first.render(  # noqa: E731
            clip, path, clip.audio, "copy_reference"
        )
        baselines.append(
            Plan(COPY, "baseline", "the reference picture instead of a model", "", copy)
        )
    if "real" in cfg.baselines:
        if generators:
            real: Maker = lambda clip, path: reencode(cfg, clip, path)  # noqa: E731
            detail = f"through the same encoder (crf {cfg.infer.crf}, {cfg.fps:g} frames/s)"
            baselines.append(Plan(REAL, "real", detail, detail, real))
        else:
            videos = {clip.id: clip.path for clip in clips}
            baselines.append(Plan("real video", "real", "the reference itself", "", None, videos))
    return plans + baselines


def _copies(generator: _Generator) -> bool:
    entry = generator.entry.cfg.model_entry
    pipeline = generator.entry.cfg.registry.resolve(entry, "pipeline")
    return "copy_reference" in pipeline.baselines


def _infer_settings(entry: Entry) -> str:
    return json.dumps(entry.cfg.to_dict().get("infer", {}), sort_keys=True, default=str)


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text).strip("_") or "_"


def _generate(plan: Plan, clips: list[Clip], place: Path, bar: Any) -> dict[str, Any]:
    """Make the missing videos of a row; figures per clip, or the reason why there is none."""
    if plan.make is None:
        bar.update(len(clips))
        return {}
    record = place / "videos.json"
    made = _read_record(record, plan.state)
    for clip in clips:
        path = place / f"{clip.id}.mp4"
        key = clip.id
        if key not in made or ("failed" not in made[key] and not path.exists()):
            try:
                made[key] = plan.make(clip, path) or {}
            except EnvironmentProblem:
                raise
            except TalkingFaceError as error:
                made[key] = {"failed": f"not generated: {error}"}
            _write_record(record, plan.state, made)
        if "failed" not in made[key]:
            plan.videos[clip.id] = path
        bar.update()
    return made


def _read_record(path: Path, state: str) -> dict[str, Any]:
    """Finished work, if it was done with the same settings."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content["clips"] if content.get("state") == state else {}


def _write_record(path: Path, state: str, clips: Mapping[str, Any]) -> None:
    write_json(path, {"state": state, "clips": clips})


def _cost(generator: _Generator, material: Material, made: Mapping[str, Any], place: Path) -> Cost:
    """Counted once per model and dataset, and kept."""
    record = place / _slug(generator.entry.title) / "cost.json"
    state = file_state(generator.entry.checkpoint)
    kept = _read_record(record, state)
    if kept:
        cost = Cost(**kept)
    else:
        cost = measure_network(generator.pipeline, material.clips[0])
        _write_record(record, state, cost.as_dict())
    cost.add_times([item for item in made.values() if item.get("frames")])
    return cost


def _score(
    plan: Plan,
    clips: list[Clip],
    place: Path,
    evaluator: Evaluator,
    definitions: Mapping[str, str],
    bar: Any,
) -> RowResult:
    """Score a row; finished clips of an interrupted benchmark are taken over."""
    row = RowResult(plan.title)
    record = place / _slug(plan.title) / "scores.json"
    # What is pooled over clips cannot be taken over clip by clip.
    pooled = any(metric.pools for metric in evaluator.metrics)
    state = json.dumps([__version__, definitions, plan.state], sort_keys=True)
    kept = {} if pooled else _read_record(record, state)
    for clip in clips:
        path = plan.videos.get(clip.id)
        if path is None:
            reason = f"no video of this clip in {plan.detail}"
            made = _read_record(place / _slug(plan.title) / "videos.json", plan.state)
            reason = made.get(clip.id, {}).get("failed", reason)
            row.values[clip.id] = {key: math.nan for key in evaluator.outputs}
            row.reasons.update({(clip.id, key): reason for key in evaluator.outputs})
            row.notes[clip.id] = []
        elif kept.get(clip.id, {}).get("files") == [file_state(path), file_state(clip.path)]:
            _restore(row, clip.id, kept[clip.id])
        else:
            pair = ClipPair(clip.id, path, clip.path, cache_generated=True, audio=clip.audio)
            evaluator.score_clip(pair, row)
            kept[clip.id] = {
                "files": [file_state(path), file_state(clip.path)],
                "values": clean(row.values[clip.id]),
                "reasons": {k: r for (c, k), r in row.reasons.items() if c == clip.id},
                "notes": row.notes[clip.id],
                "facts": row.facts.get(clip.id, {}),
            }
            _write_record(record, state, kept)
        bar.update()
    evaluator.finish_row(row)
    return row


def _restore(row: RowResult, clip: str, kept: Mapping[str, Any]) -> None:
    row.values[clip] = {k: math.nan if v is None else v for k, v in kept["values"].items()}
    row.reasons.update({(clip, k): reason for k, reason in kept["reasons"].items()})
    row.notes[clip] = list(kept["notes"])
    if kept["facts"]:
        row.facts[clip] = kept["facts"]


def _described(evaluator: Evaluator) -> dict[str, dict[str, Any]]:
    return {
        key: {
            "direction": spec.get("direction", ""),
            "unit": spec.get("unit", ""),
            "metric": metric.name,
            "definition": metric.definition(),
            "summary": metric.entry.summary,
        }
        for metric in evaluator.metrics
        for key, spec in metric.outputs.items()
    }


# -- report ----------------------------------------------------------------------------------------


def report(
    comparisons: list[Comparison], options: Mapping[str, str], config: Mapping[str, Any]
) -> dict[str, Any]:
    """All that the tables and the page show, as plain data."""
    from talkingface.utils.system import cpu_count

    outputs: dict[str, Any] = {}
    rows: dict[str, Any] = {}
    for found in comparisons:
        outputs.update(found.outputs)
        for plan in found.plans:
            place = rows.setdefault(
                plan.title, {"kind": plan.kind, "detail": plan.detail, "warnings": []}
            )
            if plan.detail not in place["detail"]:
                place["detail"] += f"; {plan.detail}"
            place["warnings"] += [
                f"{found.material.name}: {text}"
                for text in plan.warnings
                if f"{found.material.name}: {text}" not in place["warnings"]
            ]
    return {
        "title": "Benchmark",
        "created": time.strftime("%Y-%m-%d %H:%M"),
        "command": " ".join(_quoted(word) for word in ["python", *sys.argv]),
        "version": __version__,
        "hardware": f"{cpu_count()} CPU cores",
        "rows": rows,
        "outputs": outputs,
        "datasets": [_dataset(found) for found in comparisons],
        "cost": {
            title: cost.as_dict()
            for found in reversed(comparisons)
            for title, cost in found.costs.items()
        },
    }


def _quoted(word: str) -> str:
    import shlex

    return shlex.quote(Path(word).name if word.endswith("run_talkingface.py") else word)


def _dataset(found: Comparison) -> dict[str, Any]:
    clips = found.material.clips
    frames = {c: f["frames"] for row in found.rows for c, f in row.facts.items()}
    sizes = sorted({f["size"] for row in found.rows for f in row.facts.values()})
    facts = [*found.material.facts, f"{len(clips)} clips, {sum(frames.values())} frames"]
    facts.append(
        "pictures of " + ", ".join(sizes[:4]) + (" px and other sizes" if len(sizes) > 4 else " px")
    )
    return {
        "name": found.material.name,
        "clips": [clip.id for clip in clips],
        "rows": [row.name for row in found.rows],
        "baseline": found.baseline,
        "real": found.real,
        "facts": facts,
        "summary": found.summary,
        "values": {row.name: row.values for row in found.rows},
        "undefined": [
            {"row": row.name, "clip": clip, "key": key, "reason": reason}
            for row in found.rows
            for (clip, key), reason in sorted(row.reasons.items())
        ],
        "notes": row_remarks(found.rows)
        + [
            f"{row.name}, {clip}: {note}"
            for row in found.rows
            for clip, notes in row.notes.items()
            for note in notes
        ],
        "previews": [],
    }


def _write_page(folder: Path, data: dict[str, Any], comparisons: list[Comparison]) -> None:
    """The page holds the first clips' videos itself, small, so that one file can be sent away."""
    from talkingface.benchmark.page import write_page
    from talkingface.benchmark.previews import embedded_video

    for part, found in zip(data["datasets"], comparisons, strict=True):
        for clip in found.material.clips[: found.material.cfg.n_preview]:
            videos = [
                {"row": plan.title, "src": embedded_video(plan.videos[clip.id], clip)}
                for plan in found.plans
                if clip.id in plan.videos
            ]
            part["previews"].append({"clip": clip.id, "videos": videos})
    write_page(folder / "benchmark.html", data)
