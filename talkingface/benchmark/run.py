"""``--benchmark``: generate, score and compare on exactly the same clips; can be resumed."""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import math
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from talkingface import __version__
from talkingface.benchmark.cost import Cost, measure_network
from talkingface.benchmark.entries import (
    Competitor,
    Material,
    dataset_name,
    file_state,
    find_entries,
    find_material,
    titled,
)
from talkingface.benchmark.plans import COPY, Generator, Plan, clip_state, plan_rows
from talkingface.benchmark.stats import summarize
from talkingface.benchmark.tables import console_lines, write_tables
from talkingface.data.clips import Clip
from talkingface.errors import ConfigError, EnvironmentProblem, TalkingFaceError
from talkingface.evaluator.base_metric import require_weights
from talkingface.evaluator.clip import ClipPair
from talkingface.evaluator.evaluator import Evaluator, RowResult, row_remarks
from talkingface.evaluator.pairing import split_list
from talkingface.evaluator.report import clean, reasons_text
from talkingface.quick_start.evaluation import (
    further_samples,
)
from talkingface.quick_start.score_videos import STANDARD
from talkingface.registry import get_registry
from talkingface.utils.logs import progress, setup_logging
from talkingface.utils.paths import resolve, shown, write_json

log = logging.getLogger(__name__)


@dataclass
class Comparison:
    """Everything about one dataset that the tables show."""

    material: Material
    plans: list[Plan]
    evaluator: Evaluator
    baseline: str
    rows: list[RowResult] = field(default_factory=list)
    summary: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)

    @property
    def real(self) -> str | None:
        return next((plan.title for plan in self.plans if plan.kind == "real"), None)


def benchmark(
    options: Mapping[str, str], config: Mapping[str, Any], config_files: Sequence[str] = ()
) -> int:
    """Run the action; returns the exit status.

    Options: ``models`` (:func:`find_entries`), ``datasets`` (registered names or folders of real
    videos), ``baseline`` (title of the row that the others are tested against; default: the first
    model or, when there is but one, copy reference), ``output`` (folder). The same command again
    goes on where it was stopped.

    Raises:
        ConfigError: an option is missing or names nothing.
        WeightsError: a metric that was named lacks its weights.
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
    # All that can be wrong is found before any work.
    comparisons: list[Comparison] = []
    for part in split_list(options["datasets"]):
        dataset = dataset_name(titled(part)[1], config)
        entries = find_entries(split_list(options["models"]), dataset, config, config_files)
        material = find_material(part, entries, config, config_files)
        if material.name.casefold() in {c.material.name.casefold() for c in comparisons}:
            raise ConfigError(
                f"--datasets: two are called '{material.name}'; write Title={part} for one of them"
            )
        comparisons.append(_planned(material, entries, options.get("baseline"), named, folder))
    log.info("benchmark in %s", shown(folder))
    for found in comparisons:
        _compare(found, folder / "videos" / _slug(found.material.name))
    decimals = comparisons[0].material.cfg.metric_decimal_place
    data = report(comparisons)
    write_tables(folder, data, decimals)
    for line in console_lines(data, decimals):
        log.info("%s", line)
    for found in comparisons:
        for line in reasons_text(found.rows):
            log.info("  note: %s: %s", found.material.name, line)
    _write_page(folder, data, comparisons)
    log.info("open %s", shown(folder / "benchmark.html"))
    return 0


def _folder(options: Mapping[str, str], config: Mapping[str, Any]) -> Path:
    """``--output``, else a folder whose name belongs to the command: repeated, it goes on there."""
    if options.get("output"):
        return resolve(Path(options["output"]).expanduser())
    asked = json.dumps([sorted(options.items()), sorted(config.items(), key=str)], default=str)
    name = f"benchmark-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"
    return resolve(str(config.get("results_dir", "results"))) / name


# -- rows ------------------------------------------------------------------------------------------


def _planned(
    material: Material,
    entries: list[Competitor],
    baseline: str | None,
    named: bool,
    folder: Path,
) -> Comparison:
    """Rows and metrics of a dataset, checked."""
    evaluator = Evaluator(material.cfg)
    if named:
        require_weights(evaluator.metrics)
    evaluator.definitions()  # from here on no newer SyncNet is taken
    plans = plan_rows(material, entries, folder / "references" / _slug(material.name))
    titles = [plan.title for plan in plans]
    if twice := [title for title in titles if titles.count(title) > 1]:
        raise ConfigError(f"--models: '{twice[0]}' is the name of a baseline; write another Title=")
    if baseline is None:
        systems = [plan.title for plan in plans if plan.kind in ("model", "videos")]
        baseline = COPY if len(systems) < 2 and COPY in titles else systems[0]
    elif baseline not in titles:
        raise ConfigError(f"--baseline: there is no row '{baseline}'; rows: {', '.join(titles)}")
    return Comparison(material, plans, evaluator, baseline)


def _slug(text: str) -> str:
    """A folder name; texts that lose something get a checksum, so that no two share a folder."""
    plain = re.sub(r"[^\w.-]+", "_", text).strip("_.")
    if plain == text:
        return plain
    return f"{plain or 'row'}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


# -- work ------------------------------------------------------------------------------------------


def _compare(found: Comparison, place: Path) -> None:
    """Generate and score all rows of a dataset."""
    clips, evaluator = found.material.clips, found.evaluator
    count = len(found.plans) * len(clips)
    show = found.material.cfg.show_progress
    with progress(total=2 * count, unit="video", desc=found.material.name, show=show) as bar:
        diverse = any(metric.name == "Div" for metric in evaluator.metrics)
        for plan in found.plans:
            made = _generate(plan, clips, place / _slug(plan.title), diverse, bar)
            if plan.generator:
                cost = _cost(plan, clips, made, place / _slug(plan.title))
                found.costs[plan.title] = cost
        for plan in found.plans:
            folder = place / _slug(plan.title)
            found.rows.append(_score(plan, clips, folder, evaluator, bar))
    found.summary = summarize(
        found.rows, evaluator.outputs, baseline=found.baseline, real=found.real
    )


def _generate(
    plan: Plan, clips: list[Clip], folder: Path, diverse: bool, bar: Any
) -> list[dict[str, Any]]:
    """Make the missing videos of a row; figures of all that exist."""
    if plan.make is None:
        bar.update(len(clips))
        return []
    record = folder / "videos.json"
    kept = _read_record(record)
    made: dict[str, dict[str, Any]] = {}
    for clip in clips:
        path, state = folder / f"{clip.id}.mp4", plan.state(clip)
        old = kept.get(clip.id, {})
        fresh = old.get("state") != state or not path.exists()
        try:
            figures = (plan.make(clip, path) or {}) if fresh else old["figures"]
            made[clip.id] = {"state": state, "figures": figures}
            plan.videos[clip.id] = path
            if diverse and plan.generator:
                plan.samples[clip.id] = _samples(plan.generator, clip, path, fresh)
        except EnvironmentProblem:
            raise
        except TalkingFaceError as error:  # tried again when the command is repeated
            plan.failures[clip.id] = f"not generated: {error}"
        if fresh:
            write_json(record, {**kept, **made})
        bar.update()
    return [item["figures"] for item in made.values() if item["figures"]]


def _samples(generator: Generator, clip: Clip, path: Path, fresh: bool) -> tuple[Path, ...]:
    """Videos with other seeds, for Div; those of an earlier start are taken over."""
    known = sorted(path.parent.glob(f"{glob.escape(path.stem)}.seed*{path.suffix}"))
    if known and not fresh:
        return tuple(known)
    return further_samples(generator.cfg, generator.pipeline, clip, path)


def _read_record(path: Path) -> dict[str, Any]:
    """What an earlier start of the command finished, by clip."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _cost(plan: Plan, clips: list[Clip], made: list[dict[str, Any]], folder: Path) -> Cost:
    """Parameters and operations are counted once per model and dataset, and kept."""
    generator = plan.generator
    assert generator is not None
    record, kept = folder / "cost.json", _read_record(folder / "cost.json")
    if generator.cost is None and kept.get("state") == generator.state:
        generator.cost = Cost(**kept["cost"])
    elif generator.cost is None:
        clip = next((clip for clip in clips if clip.id in plan.videos), clips[0])
        generator.cost = measure_network(generator.pipeline, clip)
    write_json(record, {"state": generator.state, "cost": generator.cost.as_dict()})
    generator.cost.add_times(made)
    return generator.cost


def _score(
    plan: Plan, clips: list[Clip], folder: Path, evaluator: Evaluator, bar: Any
) -> RowResult:
    """Score a row; finished clips of an interrupted benchmark are taken over."""
    row = RowResult(plan.title)
    record = folder / "scores.json"
    # What is pooled over clips cannot be taken over clip by clip.
    kept = {} if any(metric.pools for metric in evaluator.metrics) else _read_record(record)
    definitions = evaluator.definitions()
    for clip in clips:
        path = plan.videos.get(clip.id)
        if path is None:
            reason = plan.failures.get(clip.id, f"no video of this clip in {plan.detail}")
            row.values[clip.id] = {key: math.nan for key in evaluator.outputs}
            row.reasons.update({(clip.id, key): reason for key in evaluator.outputs})
            row.notes[clip.id] = []
            bar.update()
            continue
        state = [__version__, definitions, file_state(path), clip_state(clip)]
        if kept.get(clip.id, {}).get("state") == state:
            _restore(row, clip.id, kept[clip.id])
        else:
            real = plan.reference(clip)
            pair = ClipPair(clip.id, path, real.path, cache_generated=True, audio=real.audio)
            pair.samples = plan.samples.get(clip.id, ())
            evaluator.score_clip(pair, row)
            kept[clip.id] = {
                "state": state,
                "values": clean(row.values[clip.id]),
                "reasons": {k: r for (c, k), r in row.reasons.items() if c == clip.id},
                "notes": row.notes[clip.id],
                "facts": row.facts.get(clip.id, {}),
            }
            write_json(record, kept)
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


def report(comparisons: list[Comparison]) -> dict[str, Any]:
    """All that the tables and the page show, as plain data."""
    from talkingface.utils.system import cpu_count

    outputs: dict[str, Any] = {}
    rows: dict[str, Any] = {}
    for found in comparisons:
        outputs.update(_described(found.evaluator))
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
            f"{title} ({found.material.name})" if len(comparisons) > 1 else title: cost.as_dict()
            for found in comparisons
            for title, cost in found.costs.items()
        },
    }


def _quoted(word: str) -> str:
    own = Path(word).stem in ("run_talkingface", "talkingface")
    return shlex.quote(Path(word).name if own else word)


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
            videos = []
            for plan in found.plans:
                if clip.id not in plan.videos:
                    continue
                try:
                    source = embedded_video(plan.videos[clip.id], clip)
                except TalkingFaceError as error:
                    part["notes"].append(f"{plan.title}, {clip.id}: cannot be shown: {error}")
                    continue
                videos.append({"row": plan.title, "src": source})
            part["previews"].append({"clip": clip.id, "videos": videos})
    write_page(folder / "benchmark.html", data)
