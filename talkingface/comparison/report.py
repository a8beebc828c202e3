"""The results of a benchmark as plain data, and its page."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from talkingface import __version__
from talkingface.comparison.cost import Cost
from talkingface.comparison.entries import Material
from talkingface.comparison.page import write_page
from talkingface.comparison.previews import embedded_video
from talkingface.errors import TalkingFaceError
from talkingface.evaluator.evaluator import Evaluator, RowResult
from talkingface.evaluator.report import result_data
from talkingface.quick_start.rows import VideoRow
from talkingface.utils.system import cpu_count


@dataclass
class Comparison:
    """Rows, scores and costs of one dataset.

    Attributes:
        baseline: title of the row that the others are tested against.
        rows: scores of the rows.
        summary: row -> output -> statistics, see :func:`.stats.summarize`.
        costs: title of a model's row -> its cost.
    """

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
    """All contents of the tables and the page, as plain data."""
    outputs: dict[str, Any] = {}
    rows: dict[str, Any] = {}
    for comparison in comparisons:
        outputs.update(_described(comparison.evaluator))
        for plan in comparison.plans:
            row = rows.setdefault(
                plan.title, {"kind": plan.kind, "detail": plan.detail, "warnings": []}
            )
            if plan.detail not in row["detail"]:
                row["detail"] += f"; {plan.detail}"
            warnings = [f"{comparison.material.name}: {text}" for text in plan.warnings]
            row["warnings"] += [text for text in warnings if text not in row["warnings"]]
    return {
        "title": "Benchmark",
        "created": time.strftime("%Y-%m-%d %H:%M"),
        "command": " ".join(_quoted(word) for word in ["python", *sys.argv]),
        "version": __version__,
        "hardware": f"{cpu_count()} CPU cores",
        "rows": rows,
        "outputs": outputs,
        "datasets": [_dataset(comparison) for comparison in comparisons],
        "cost": {
            f"{title} ({c.material.name})" if len(comparisons) > 1 else title: asdict(cost)
            for c in comparisons
            for title, cost in c.costs.items()
        },
    }


def _quoted(word: str) -> str:
    """A word of the command for a shell; the program by its name alone."""
    is_program = Path(word).stem in ("run_talkingface", "talkingface")
    return shlex.quote(Path(word).name if is_program else word)


def _dataset(comparison: Comparison) -> dict[str, Any]:
    rows, material, evaluator = comparison.rows, comparison.material, comparison.evaluator
    frames = {c: f["frames"] for row in rows for c, f in row.facts.items()}
    sizes = sorted({f["size"] for row in rows for f in row.facts.values()})
    other = " px and other sizes" if len(sizes) > 4 else " px"
    header = {
        "name": material.name,
        "clips": [clip.id for clip in material.clips],
        "definitions": evaluator.definitions(),
        "not_applicable": evaluator.not_applicable,
        "baseline": comparison.baseline,
        "real": comparison.real,
        "facts": [
            *material.facts,
            f"{len(material.clips)} clips, {sum(frames.values())} frames",
            f"pictures of {', '.join(sizes[:4])}{other}",
        ],
        "previews": [],
    }
    return result_data(rows, comparison.summary, evaluator.outputs, header)


def write_results(folder: Path, data: dict[str, Any], comparisons: list[Comparison]) -> None:
    """Write ``benchmark.html`` with small copies of the videos of the first clips."""
    for part, comparison in zip(data["datasets"], comparisons, strict=True):
        for clip in comparison.material.clips[: comparison.material.cfg.n_preview]:
            videos = []
            for plan in comparison.plans:
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
