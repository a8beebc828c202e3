"""Tables of a comparison: console, CSV, Markdown, LaTeX and JSON."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from talkingface.comparison.stats import stars
from talkingface.evaluator.report import ARROWS, clean
from talkingface.utils.paths import write_text
from talkingface.utils.safe_text import csv_text, markdown_cell

_NOTE = (
    "Means over clips with half the width of the 95 % bootstrap interval. Stars: better or worse "
    "than the baseline row (paired sign-flip test, Holm-corrected; * p < 0.05, ** p < 0.01)."
)


def write_tables(folder: Path, data: Mapping[str, Any], decimals: int) -> None:
    """Write ``benchmark.json``, ``benchmark.csv`` (one line per row and output), ``clips.csv``,
    ``benchmark.md`` and ``benchmark.tex``."""
    text = json.dumps(clean(data), indent=1, ensure_ascii=False)
    write_text(folder / "benchmark.json", text + "\n")  # not write_json, which would sort the rows
    write_text(folder / "benchmark.csv", csv_text(_summary_lines(data)))
    write_text(folder / "clips.csv", csv_text(_clip_lines(data)))
    write_text(folder / "benchmark.md", _markdown(data, decimals))
    write_text(folder / "benchmark.tex", _latex(data, decimals))


def console_lines(data: Mapping[str, Any], decimals: int) -> list[str]:
    """The tables for a terminal."""
    lines = []
    for part in data["datasets"]:
        shown, missing = _defined(data, part)
        table = [["", *_heads(shown), "clips"]]
        for row in part["rows"]:
            cells = [_plain(part["rows"][row].get(key), decimals) for key in shown]
            table.append([row, *cells, _counts(part, row, shown)])
        facts = "; ".join(part["facts"])
        lines.append(f"\n{part['name']}: {facts}; baseline: {part['baseline']}")
        lines += _folded(table, shutil.get_terminal_size((100, 24)).columns)
        lines += missing
        lines += [
            f"  warning: {row}: {text}"
            for row in part["rows"]
            for text in data["rows"][row]["warnings"]
        ]
    lines.append(_NOTE)
    if data["cost"]:
        lines += ["", *_folded(_cost_cells(data), 10000)]
    return lines


def _defined(data: Mapping[str, Any], part: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Outputs with a value in at least one row, and a line that names the others."""
    shown = {
        key: spec
        for key, spec in data["outputs"].items()
        if any(math.isfinite(cells[key]["mean"]) for cells in part["rows"].values() if key in cells)
    }
    missing = ", ".join(key for key in data["outputs"] if key not in shown)
    return shown, [f"undefined in all rows (see the notes): {missing}"] if missing else []


def _folded(table: list[list[str]], width: int) -> list[str]:
    """Aligned columns; columns beyond the width follow below, with the row names again."""
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    lines: list[str] = []
    start = 1
    while start < len(widths):
        stop, used = start + 1, widths[0] + 2 + widths[start]
        while stop < len(widths) and used + 2 + widths[stop] <= width:
            used += 2 + widths[stop]
            stop += 1
        lines += [""] if lines else []
        for line in table:
            cells = [
                line[0].ljust(widths[0]),
                *(line[i].rjust(widths[i]) for i in range(start, stop)),
            ]
            lines.append("  ".join(cells).rstrip())
        start = stop
    return lines


def _heads(outputs: Mapping[str, Any]) -> list[str]:
    return [f"{key} {ARROWS.get(spec['direction'], '')}".strip() for key, spec in outputs.items()]


def _plain(cell: Mapping[str, Any] | None, decimals: int) -> str:
    """Mean and half the interval, e.g. ``1.234 ±0.056**``; the best row has ``!`` at the end."""
    if cell is None or not math.isfinite(cell["mean"]):
        return "nan"
    text = f"{cell['mean']:.{decimals}f}"
    if math.isfinite(cell["low"]):
        text += f" ±{(cell['high'] - cell['low']) / 2:.{decimals}f}"
    return text + stars(cell["p"]) + ("!" if cell["best"] else "")


def _counts(part: Mapping[str, Any], row: str, outputs: Iterable[str]) -> str:
    counts = sorted({part["rows"][row][key]["n"] for key in outputs if key in part["rows"][row]})
    return "/".join(map(str, counts))


def _summary_lines(data: Mapping[str, Any]) -> Iterable[list[Any]]:
    fields = ("mean", "std", "n", "low", "high", "difference", "p", "best")
    yield ["dataset", "row", "output", "direction", "unit", *fields, "baseline", "definition"]
    for part in data["datasets"]:
        for row in part["rows"]:
            for key, cell in part["rows"][row].items():
                spec = data["outputs"][key]
                yield [
                    *(part["name"], row, key, spec["direction"], spec["unit"]),
                    *(_number(cell[field]) for field in fields),
                    *(part["baseline"], spec["definition"]),
                ]


def _clip_lines(data: Mapping[str, Any]) -> Iterable[list[Any]]:
    yield ["dataset", "row", "clip", *data["outputs"], "undefined"]
    for part in data["datasets"]:
        reasons: dict[tuple[str, str], list[str]] = {}
        for item in part["undefined"]:
            texts = reasons.setdefault((item["row"], item["clip"]), [])
            if item["reason"] not in texts:
                texts.append(item["reason"])
        for row in part["rows"]:
            for clip in part["clips"]:
                values = part["values"][row].get(clip, {})
                cells = [_number(values.get(key, math.nan)) for key in data["outputs"]]
                yield [part["name"], row, clip, *cells, "; ".join(reasons.get((row, clip), []))]


def _number(value: Any) -> Any:
    return repr(value) if isinstance(value, float) else value


def _markdown(data: Mapping[str, Any], decimals: int) -> str:
    lines = [f"# {data['title']}", "", f"{data['created']}, talkingface {data['version']}", ""]
    lines += ["```", data["command"], "```"]
    for part in data["datasets"]:
        facts = "; ".join(part["facts"])
        lines += [
            "",
            f"## {markdown_cell(part['name'])}",
            "",
            f"{facts}. Baseline: {part['baseline']}.",
            "",
        ]
        shown, missing = _defined(data, part)
        heads = ["row", *_heads(shown), "clips"]
        lines += [_md_line(heads), _md_line(["---", *["---:"] * (len(heads) - 1)])]
        for row in part["rows"]:
            cells = []
            for key in shown:
                cell = part["rows"][row].get(key)
                text = _plain(cell, decimals).rstrip("!")
                cells.append(f"**{text}**" if cell and cell["best"] else text)
            lines.append(_md_line([markdown_cell(row), *cells, _counts(part, row, shown)]))
        lines += ["", *missing] if missing else []
    lines += ["", _NOTE, "", "## Cost", ""]
    head, *costs = _cost_cells(data)
    lines += [_md_line(head), _md_line(["---", *["---:"] * (len(head) - 1)])]
    lines += [_md_line(map(markdown_cell, line)) for line in costs]
    lines += ["", "## Rows", ""]
    for row, entry in data["rows"].items():
        lines.append(f"* {markdown_cell(row)}: {markdown_cell(entry['detail'])}")
        lines += [f"  * **{markdown_cell(text)}**" for text in entry["warnings"]]
    lines += ["", "## Definitions", ""]
    definitions = dict.fromkeys(spec["definition"] for spec in data["outputs"].values())
    lines += [f"* `{text}`" for text in definitions]
    return "\n".join(lines) + "\n"


def _md_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "²": r"\textsuperscript{2}", "±": r"$\pm$", "→": r"$\rightarrow$", "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_TEX.get(letter, letter) for letter in text)


def _latex(data: Mapping[str, Any], decimals: int) -> str:
    """A table per dataset; needs the packages ``booktabs`` and ``graphicx``."""
    lines = [f"% {data['command']}".replace("\n", " ")]
    for part in data["datasets"]:
        columns = "l" + "r" * len(data["outputs"])
        heads = " & ".join(["", *(_tex(head) for head in _heads(data["outputs"]))])
        lines += [
            r"\begin{table}", r"\centering", r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{{columns}}}", r"\toprule",
            heads + r" \\", r"\midrule",
        ]  # fmt: skip
        for row in part["rows"]:
            cells = []
            for key in data["outputs"]:
                cell = part["rows"][row].get(key)
                marks = stars(cell["p"]) if cell else ""
                text, _, half = _plain(cell, decimals).rstrip("!*").partition(" ±")
                text = "--" if text == "nan" else text
                text = rf"\textbf{{{text}}}" if cell and cell["best"] else text
                text += f"$^{{{marks}}}$" if marks else ""
                cells.append(text + (rf" {{\tiny$\pm${half}}}" if half else ""))
            if row == part["real"]:
                lines.append(r"\midrule")
            lines.append(" & ".join([_tex(row), *cells]) + r" \\")
        caption = _tex(f"{part['name']}: {'; '.join(part['facts'])}. {_NOTE}")
        lines += [
            r"\bottomrule", r"\end{tabular}}", rf"\caption{{{caption}}}", r"\end{table}", "",
        ]  # fmt: skip
    return "\n".join(lines)


def _cost_cells(data: Mapping[str, Any]) -> list[list[str]]:
    head = ["model", "parameters", "GFLOPs/frame", "ms/frame", "real-time factor", "peak MB"]
    lines = [[*head, "device"]]
    for row, cost in data["cost"].items():
        flops = cost["flops_per_frame"]
        lines.append(
            [
                row,
                f"{cost['parameters']:,}" if cost["parameters"] else "-",
                _rounded(flops / 1e9 if flops else None, 2),
                _rounded(cost["ms_per_frame"], 1),
                _rounded(cost["real_time_factor"], 2),
                _rounded(cost["peak_memory_mb"], 0),
                cost["device"],
            ]
        )
    return lines


def _rounded(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"
