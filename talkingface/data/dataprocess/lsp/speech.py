"""Database of the speech features of a person, for the manifold projection."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from talkingface.data.dataprocess.lsp import files
from talkingface.data.media.apc_mel import MOTION_FPS, ROWS_PER_FRAME
from talkingface.utils.paths import write_json


def ensure_databases(apc: str, people: Iterable[Path], max_seconds: float) -> None:
    """Write missing or outdated databases of people whose clips have features."""
    limit = round(max_seconds * MOTION_FPS * ROWS_PER_FRAME)
    for person in map(files.Person, people):
        if database_of(person.folder) == apc:
            continue
        rows, total = [], 0
        for clip_id in person.listed("train"):
            if total >= limit:
                break
            rows.append(np.load(person.clip(clip_id).features_path(apc)))
            total += len(rows[-1])
        if rows:
            path = person.folder / files.DATABASE
            files.save_array(path, np.concatenate(rows)[:limit])
            write_json(path.with_suffix(".json"), {"apc": apc})


def database_of(person: Path) -> str | None:
    """Identifier of the APC of a person's database; None: unknown."""
    try:
        return json.loads((person / files.DATABASE).with_suffix(".json").read_text("utf-8"))["apc"]
    except (OSError, ValueError, KeyError):
        return None
