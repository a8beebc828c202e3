"""The results of a benchmark as plain data, and the page that shows them."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from talkingface import __version__
from talkingface.benchmark.cost import Cost
from talkingface.benchmark.entries import Material
from talkingface.errors import TalkingFaceError
from talkingface.evaluator.evaluator import Evaluator, RowResult
from talkingface.evaluator.report import result_data
from talkingface.quick_start.rows import VideoRow


@dataclass
class Comparison:
    """Everything about one dataset that the tables show."""

    material: Material
    plans: list[VideoRow]
    evaluator: Evaluator
    baseline: str
    rows: list[RowResult] = field(default_factory=list)
    summary: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)

    @property
    def real(self) -> str | None:
        return next((plan.title for plan in self.plans if plan.kind == "real"), None)


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


def report(comparisons: Sequence[Comparison]) -> dict[str, Any]:
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
    header = {
        "name": found.material.name,
        "clips": [clip.id for clip in clips],
        "definitions": found.evaluator.definitions(),
        "not_applicable": found.evaluator.not_applicable,
        "baseline": found.baseline,
        "real": found.real,
        "facts": facts,
        "previews": [],
    }
    return result_data(found.rows, found.summary, found.evaluator.outputs, header)


def write_results(folder: Path, data: dict[str, Any], comparisons: list[Comparison]) -> None:
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
                    part["remarks"].append(f"{plan.title}, {clip.id}: cannot be shown: {error}")
                    continue
                videos.append({"row": plan.title, "src": source})
            part["previews"].append({"clip": clip.id, "videos": videos})
    write_page(folder / "benchmark.html", data)
