"""``status``: the runs on this disk."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from talkingface.utils.locks import is_locked
from talkingface.utils.logs import duration
from talkingface.utils.paths import read_json, resolve, shown

_STALLED = 600  # seconds without a written file after which a running training is reported


def runs(saved: Path) -> list[dict[str, Any]]:
    """Every run below a folder, newest first.

    Keys: ``id``, ``model``, ``dataset``, ``path``, ``state`` (running, finished or stopped),
    ``started``, ``steps``, ``seconds`` of training, ``best`` (metric, value, step; empty without a
    validation), ``test`` (output -> mean), ``idle`` (seconds since the last validation or write).
    """
    return sorted(
        (_run(path.parent) for path in saved.glob("*/*/*/provenance.json")),
        key=lambda run: run["started"],
        reverse=True,
    )


def _run(folder: Path) -> dict[str, Any]:
    told, summary = read_json(folder / "provenance.json"), read_json(folder / "summary.json")
    records = validations(folder / "metrics.jsonl")
    best = [record for record in records if record.get("best")]
    clock = folder / "checkpoints" / "clock.json"
    running = is_locked(folder / ".lock")
    metric = summary.get("valid_metric", "loss")
    return {
        "id": folder.name,
        "model": folder.parent.parent.name,
        "dataset": folder.parent.name,
        "path": folder,
        "state": "running" if running else "finished" if summary else "stopped",
        "started": told.get("started", ""),
        "steps": records[-1]["step"] if records else 0,
        "seconds": read_json(clock).get("seconds", records[-1]["seconds"] if records else 0.0),
        "best": {k: best[-1].get(k) for k in ("step", metric)} if best else {},
        "test": summary.get("test_result") or {},
        "idle": time.time() - max(p.stat().st_mtime for p in (folder, *folder.glob("*"))),
    }


def validations(path: Path) -> list[dict[str, Any]]:
    """Records of ``metrics.jsonl``; a line that a killed process cut short is left out."""
    records = []
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "step" in record:
            records.append(record)
    return records


def status(options: Mapping[str, str], config: Mapping[str, Any], config_files: list[str]) -> int:
    """Print the runs; returns the exit status."""
    folder = resolve(str(config.get("checkpoint_dir", "saved")))
    found = runs(folder / str(config.get("checkpoint_sub_dir") or "").lstrip("/\\"))
    if not found:
        print(f"no run below {shown(folder)}")
        return 0
    for run in found:
        print(f"{run['state']:<9} {run['id']}")
        facts = [f"{run['steps']:,} steps", duration(run["seconds"])]
        facts += [f"best {k} {v:.4g} at step {run['best']['step']:,}" for k, v in _best(run)]
        facts += [f"{k} {v:.4g}" for k, v in list(run["test"].items())[:4] if v is not None]
        if run["state"] == "running" and run["idle"] > _STALLED:
            facts.append(f"nothing written for {duration(run['idle'])}")
        print(f"          {', '.join(facts)}")
    return 0


def _best(run: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [(k, v) for k, v in run["best"].items() if k != "step" and v is not None]
