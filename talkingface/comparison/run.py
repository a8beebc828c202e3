"""``--benchmark``: generate, score and compare videos of the same clips; can be resumed."""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from talkingface import __version__
from talkingface.comparison.cost import Cost, measure_network
from talkingface.comparison.entries import (
    Competitor,
    Material,
    dataset_name,
    find_entries,
    find_material,
    titled,
)
from talkingface.comparison.plans import TimedGenerator, plan_rows
from talkingface.comparison.report import Comparison, report, write_results
from talkingface.comparison.stats import summarize
from talkingface.comparison.tables import console_lines, write_tables
from talkingface.data.clips import Clip
from talkingface.errors import ConfigError, DataError, EnvironmentProblem, TalkingFaceError
from talkingface.evaluator.base_metric import require_weights
from talkingface.evaluator.clip import ClipPair
from talkingface.evaluator.evaluator import Evaluator, Row
from talkingface.evaluator.pairing import split_list
from talkingface.evaluator.report import reasons_text
from talkingface.evaluator.scores import ScoreRecord
from talkingface.quick_start.rows import COPY, Generator, VideoRow, clip_state, file_state
from talkingface.quick_start.score_videos import STANDARD
from talkingface.registry import get_registry
from talkingface.utils.logs import progress, setup_logging
from talkingface.utils.paths import (
    read_json,
    refuse_to_replace,
    remove_stale,
    resolve,
    shown,
    write_json,
)

log = logging.getLogger(__name__)


def benchmark(
    options: Mapping[str, str], config: Mapping[str, Any], config_files: Sequence[str] = ()
) -> int:
    """Run the action; returns the exit status."""
    compare(options, config, config_files)
    return 0


def compare(
    options: Mapping[str, str], config: Mapping[str, Any], config_files: Sequence[str] = ()
) -> Path:
    """Score all models on the clips of all datasets; returns the folder of the results.

    Options: ``models`` (:func:`find_entries`), ``datasets`` (registered names or folders of real
    videos), ``baseline`` (title of the row that the others are tested against; default: the first
    model or, with one model only, copy reference), ``output`` (folder). The same command again
    continues where it stopped.

    Raises:
        ConfigError: an option is missing, or its value does not exist.
        WeightsError: the weights of a metric that the user chose are missing.
    """
    config = dict(config)
    for key in ("models", "datasets"):
        if not options.get(key):
            raise ConfigError(f"--benchmark needs --{key}=A,B (see --help)")
    chosen = "metrics" in config
    known = get_registry(config.get("plugin_path")).entries("metric")
    config.setdefault("metrics", [name for name in STANDARD if name in known])
    setup_logging(str(config.get("log_level", "info")))
    folder = _folder(options, config)
    given = (*split_list(options["models"]), *split_list(options["datasets"]))
    refuse_to_replace(folder, [Path(titled(part)[1]).expanduser() for part in given])
    # Check all datasets and models before any slow work.
    comparisons: list[Comparison] = []
    for part in split_list(options["datasets"]):
        dataset = dataset_name(titled(part)[1], config)
        entries = find_entries(split_list(options["models"]), dataset, config, config_files)
        material = find_material(part, entries, config, config_files)
        if material.name.casefold() in {c.material.name.casefold() for c in comparisons}:
            raise ConfigError(
                f"--datasets: two are called '{material.name}'; write Title={part} for one of them"
            )
        comparisons.append(_planned(material, entries, options.get("baseline"), chosen, folder))
    remove_stale(folder, "**/*")
    log.info("benchmark in %s", shown(folder))
    for comparison in comparisons:
        _compare(comparison, folder / "videos" / _slug(comparison.material.name))
    decimals = comparisons[0].material.cfg.metric_decimal_place
    data = report(comparisons)
    write_tables(folder, data, decimals)
    for line in console_lines(data, decimals):
        log.info("%s", line)
    for comparison in comparisons:
        for line in reasons_text(comparison.rows):
            log.info("  note: %s: %s", comparison.material.name, line)
    write_results(folder, data, comparisons)
    log.info("open %s", shown(folder / "benchmark.html"))
    return folder


def _folder(options: Mapping[str, str], config: Mapping[str, Any]) -> Path:
    """``--output``, else a folder with a hash of the command in its name, so that it can resume."""
    if options.get("output"):
        return resolve(Path(options["output"]).expanduser())
    command = json.dumps([sorted(options.items()), sorted(config.items(), key=str)], default=str)
    name = f"benchmark-{hashlib.sha256(command.encode()).hexdigest()[:8]}"
    return resolve(str(config.get("results_dir", "results"))) / name


# -- rows ------------------------------------------------------------------------------------------


def _planned(
    material: Material,
    entries: list[Competitor],
    baseline: str | None,
    need_weights: bool,
    folder: Path,
) -> Comparison:
    """Rows and metrics of a dataset, checked.

    Args:
        need_weights: missing weights of a metric are an error.
    """
    evaluator = Evaluator(material.cfg)
    if need_weights:
        require_weights(evaluator.metrics)
    evaluator.definitions()  # this fixes the SyncNet file: one trained later is not used
    plans = plan_rows(material, entries, folder / "references" / _slug(material.name))
    titles = [plan.title for plan in plans]
    if repeated := [title for title in titles if titles.count(title) > 1]:
        raise ConfigError(
            f"--models: '{repeated[0]}' is the name of a baseline; write another Title="
        )
    if baseline is None:
        systems = [plan.title for plan in plans if plan.kind in ("model", "videos")]
        baseline = COPY if len(systems) < 2 and COPY in titles else systems[0]
    elif baseline not in titles:
        raise ConfigError(f"--baseline: there is no row '{baseline}'; rows: {', '.join(titles)}")
    return Comparison(material, plans, evaluator, baseline)


def _slug(text: str) -> str:
    """A folder name; a text whose characters must be replaced gets a hash, so that names differ."""
    plain = re.sub(r"[^\w.-]+", "_", text).strip("_.")
    if plain == text:
        return plain
    return f"{plain or 'row'}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


# -- work ------------------------------------------------------------------------------------------


def _compare(comparison: Comparison, folder: Path) -> None:
    """Generate and score all rows of a dataset."""
    material, evaluator, plans = comparison.material, comparison.evaluator, comparison.plans
    clips, show = material.clips, material.cfg.show_progress
    diverse = any(metric.name == "Div" for metric in evaluator.metrics)
    total = len(plans) * len(clips)
    with progress(total=total, unit="video", desc=material.name, show=show) as bar:
        for plan in plans:
            row_folder = folder / _slug(plan.title)
            rendered = _generate(plan, clips, row_folder, diverse, bar)
            if plan.generator:
                comparison.costs[plan.title] = _cost(plan, clips, rendered, row_folder)
    definitions = evaluator.definitions()
    by_id = {clip.id: clip for clip in clips}

    def row(plan: VideoRow) -> Row:
        def state(name: str) -> list[Any]:
            states = file_state(plan.videos[name]), clip_state(by_id[name])
            return [__version__, definitions, *states]

        record = ScoreRecord(folder / _slug(plan.title) / "scores.json", state)
        return Row(plan.title, {clip.id: partial(_pair, plan, clip) for clip in clips}, record)

    comparison.rows = evaluator.run([row(plan) for plan in plans], desc="scoring")
    comparison.summary = summarize(
        comparison.rows, evaluator.outputs, baseline=comparison.baseline, real=comparison.real
    )


def _pair(plan: VideoRow, clip: Clip) -> ClipPair:
    """The finished video of a clip with the real one."""
    if clip.id not in plan.videos:
        raise DataError(plan.failures.get(clip.id, f"no video of this clip in {plan.detail}"))
    real = plan.reference(clip)
    samples = plan.samples.get(clip.id, ())
    return ClipPair(
        clip.id, plan.videos[clip.id], real.path, cache_generated=True, audio=real.audio,
        samples=samples,
    )  # fmt: skip


def _generate(
    plan: VideoRow, clips: list[Clip], folder: Path, diverse: bool, bar: Any
) -> list[dict[str, Any]]:
    """Write the missing videos of a row; returns the figures for :meth:`.Cost.add_times`."""
    if plan.make is None:
        bar.update(len(clips))
        return []
    record = folder / "videos.json"
    stored = read_json(record)
    entries: dict[str, dict[str, Any]] = {}
    for clip in clips:
        path, state = folder / f"{clip.id}.mp4", plan.state(clip)
        old = stored.get(clip.id, {})
        missing = old.get("state") != state or not path.exists()
        try:
            timing = plan.make(clip, path) if missing else old["figures"]
            figures = timing if isinstance(timing, dict) else {}
            entries[clip.id] = {"state": state, "figures": figures}
            plan.videos[clip.id] = path
            if diverse and plan.generator:
                plan.samples[clip.id] = _samples(plan.generator, clip, path, missing)
        except EnvironmentProblem:
            raise
        except TalkingFaceError as error:  # the same command again tries it again
            plan.failures[clip.id] = f"not generated: {error}"
        if missing:
            write_json(record, {**stored, **entries})
        bar.update()
    return [entry["figures"] for entry in entries.values() if entry["figures"]]


def _samples(generator: Generator, clip: Clip, path: Path, is_new: bool) -> tuple[Path, ...]:
    """Videos with other seeds, for the metric Div; existing ones are used for an old video."""
    existing = sorted(path.parent.glob(f"{glob.escape(path.stem)}.seed*{path.suffix}"))
    return tuple(existing) if existing and not is_new else generator.samples(clip, path)


def _cost(plan: VideoRow, clips: list[Clip], rendered: list[dict[str, Any]], folder: Path) -> Cost:
    """The cost of a model; its parameters and operations are counted once and stored."""
    generator = plan.generator
    assert isinstance(generator, TimedGenerator)
    record = folder / "cost.json"
    stored = read_json(record)
    if generator.cost is None and stored.get("state") == generator.state:
        generator.cost = Cost(**stored["cost"])
    elif generator.cost is None:
        clip = next((clip for clip in clips if clip.id in plan.videos), clips[0])
        generator.cost = measure_network(generator.pipeline, clip)
    write_json(record, {"state": generator.state, "cost": asdict(generator.cost)})
    generator.cost.add_times(rendered)
    return generator.cost
