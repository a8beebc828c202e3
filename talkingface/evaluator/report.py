"""Result tables: console, ``metrics.json``, ``metrics.csv`` and ``results/leaderboard.csv``."""

from __future__ import annotations

import csv
import json
import math
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from talkingface.evaluator.evaluator import RowResult, row_remarks
from talkingface.utils.locks import file_lock
from talkingface.utils.paths import atomic, explain_os_errors, write_text
from talkingface.utils.safe_text import csv_cell, csv_text

SCHEMA = 2  # of metrics.json and of the datasets in benchmark.json; 1 had no number
WIDTH = 100  # of printed tables, in characters
ARROWS = {"up": "↑", "down": "↓", "zero": "→0", "real": "→R"}


def console_table(
    table: Mapping[str, Mapping[str, Mapping[str, Any]]],
    outputs: Mapping[str, Mapping[str, Any]],
    decimals: int,
) -> str:
    """Rows by outputs; values are means over clips, with ± the standard deviation if ``spread``.

    The last lines name outputs without a value, and those left out to stay within ``WIDTH``
    columns: first those with ``detail``, then the last ones.
    """
    keys = [k for k in outputs if any(math.isfinite(v[k]["mean"]) for v in table.values())]
    empty = [key for key in outputs if key not in keys]
    order = [k for k in keys if outputs[k].get("detail")][::-1]
    order += [key for key in keys[::-1] if key not in order]
    left_out: list[str] = []
    text = _table(table, outputs, keys, decimals)
    while order[1:] and max(map(len, text.splitlines())) > WIDTH:
        if left_out or not outputs[order[0]].get("detail"):
            left_out.append(order.pop(0))
        else:  # all details at once
            left_out = [key for key in order if outputs[key].get("detail")]
            order = order[len(left_out) :]
        text = _table(table, outputs, [k for k in keys if k not in left_out], decimals)
    if left_out:
        text += f"\nin metrics.json also: {', '.join(k for k in keys if k in left_out)}"
    return text + (f"\nwithout a value: {', '.join(empty)}" if empty else "")


def _table(
    table: Mapping[str, Mapping[str, Mapping[str, Any]]],
    outputs: Mapping[str, Mapping[str, Any]],
    keys: Sequence[str],
    decimals: int,
) -> str:
    heads = [f"{key} {ARROWS.get(outputs[key].get('direction'), '')}" for key in keys]
    lines = [["", *heads, "clips"]]
    for row, values in table.items():
        cells = [_cell(values[key], decimals, outputs[key].get("spread", False)) for key in keys]
        counts = {values[key]["n"] for key in keys} or {0}
        lines.append([row, *cells, "/".join(str(n) for n in sorted(counts))])
    columns = []
    for number, cells in enumerate(zip(*lines, strict=True)):
        width = max(map(len, cells))
        columns.append([c.rjust(width) if number else c.ljust(width) for c in cells])
    return "\n".join("  ".join(line) for line in zip(*columns, strict=True))


def _cell(item: Mapping[str, Any], decimals: int, spread: bool) -> str:
    text = f"{item['mean']:.{decimals}f}" if math.isfinite(item["mean"]) else "nan"
    if spread and math.isfinite(item["std"]):
        text += f" ± {item['std']:.{decimals}f}"
    return text


def reasons_text(rows: Sequence[RowResult]) -> list[str]:
    """Lines with the counts of undefined values and of notes, and the remarks on whole rows."""
    texts: dict[str, list[str]] = {}  # note -> rows
    for row in rows:
        for reason, count in Counter(row.reasons.values()).most_common(5):
            texts.setdefault(f"{count} value(s) undefined: {reason}", []).append(row.name)
        # Notes that differ in their numbers only are one kind; each clip counts once.
        kinds: dict[str, dict[str, str]] = {}
        for clip, notes in row.notes.items():
            for note in notes:
                kinds.setdefault(re.sub(r"\d[\d.]*", "#", note), {}).setdefault(clip, note)
        for clips in sorted(kinds.values(), key=len, reverse=True)[:3]:
            text = f"{len(clips)} clip(s), e.g. {next(iter(clips.values()))}"
            texts.setdefault(text, []).append(row.name)
    lines = [f"{', '.join(names)}: {text}" for text, names in texts.items()]
    return lines + row_remarks(rows)


def clean(value: Any) -> Any:
    """Convert to JSON types: nan and inf to null, keys to text, NumPy scalars to numbers."""
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str):  # NumPy and PyTorch scalars
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def result_data(
    rows: Sequence[RowResult],
    table: Mapping[str, Any],
    outputs: Mapping[str, Any],
    header: Mapping[str, Any],
) -> dict[str, Any]:
    """Results of one dataset as plain data, for runs, ``--evaluate_videos`` and benchmarks alike.

    Equal results give equal data: it contains no times. docs/evaluation.md describes the entries.

    Args:
        table: row -> output -> ``mean``, ``std``, ``n`` and, in a benchmark, more.
        outputs: output -> ``direction``, ``unit`` and so on.
        header: further entries; at least ``clips``.
    """
    return {
        "schema": SCHEMA,
        **header,
        "outputs": {key: dict(spec) for key, spec in outputs.items()},
        "rows": table,
        "values": {row.name: row.values for row in rows},
        "undefined": [
            {"row": row.name, "clip": clip, "output": key, "reason": reason}
            for row in rows
            for (clip, key), reason in sorted(row.reasons.items())
        ],
        # Values of pictures of different sizes are not comparable.
        "sizes": sorted({facts["size"] for row in rows for facts in row.facts.values()}),
        "frames": {row.name: {c: f["frames"] for c, f in row.facts.items()} for row in rows},
        "notes": {row.name: {c: n for c, n in row.notes.items() if n} for row in rows},
        "remarks": row_remarks(rows),
    }


def write_metrics(
    folder: Path,
    rows: Sequence[RowResult],
    table: Mapping[str, Any],
    outputs: Mapping[str, Any],
    header: Mapping[str, Any],
) -> None:
    """Write ``metrics.json`` (:func:`result_data`) and ``metrics.csv``."""
    data = clean(result_data(rows, table, outputs, header))
    write_text(folder / "metrics.json", json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    lines = [["row", "clip", *outputs, "frames", "size", "notes"]]
    for row in rows:
        for clip, values in row.values.items():
            # A clip whose value is pooled has an empty cell, not nan.
            cells = [
                "" if clip in row.pooled_clips.get(k, ()) else _number(values.get(k, math.nan))
                for k in outputs
            ]
            reasons = {row.reasons[clip, k] for k in outputs if (clip, k) in row.reasons}
            facts = row.facts.get(clip, {})
            remarks = "; ".join([*sorted(reasons), *row.notes[clip]])
            size = (facts.get("frames", ""), facts.get("size", ""))
            lines.append([row.name, clip, *cells, *size, remarks])
        if row.pooled:  # one line for all clips, without a clip name
            cells = [_number(row.pooled[k]) if k in row.pooled else "" for k in outputs]
            lines.append([row.name, "", *cells, "", "", "; ".join(row.remarks)])
    write_text(folder / "metrics.csv", csv_text(lines))


def append_leaderboard(path: Path, header: Mapping[str, Any], table: Mapping[str, Any]) -> None:
    """Add a line per row to the leaderboard; new outputs become new columns.

    They replace older lines of the same run.
    """
    with explain_os_errors(path), file_lock(path.with_name(f".{path.name}.lock")):
        lines: list[dict[str, Any]] = []
        if path.exists():
            with open(path, encoding="utf-8", newline="") as file:
                lines = list(csv.DictReader(file))
        lines = [line for line in lines if line.get("run_id") != header["run_id"]]
        for row, values in table.items():
            cells = {key: _number(item["mean"]) for key, item in values.items()}
            clips = max((item["n"] for item in values.values()), default=0)
            date = time.strftime("%Y-%m-%d %H:%M:%S")
            lines.append({"date": date, **header, "row": row, "clips": clips, **cells})
        columns = list(dict.fromkeys(key for line in lines for key in line))
        with atomic(path) as new, open(new, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows({k: csv_cell(v) for k, v in line.items()} for line in lines)


def _number(value: float) -> str:
    return repr(value) if math.isfinite(value) else "nan"
