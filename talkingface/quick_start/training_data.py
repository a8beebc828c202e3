"""What a run was trained on: the content of its training clips, wherever they lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from talkingface.config.config import Config
from talkingface.data.filelists import read_filelist
from talkingface.pipeline.build import build_process

FILE = "data.json"  # in the folder of a run


def training_data(cfg: Config) -> dict[str, str]:
    """Clip of the training list -> hash of its prepared files; empty before the preparation."""
    path = cfg.filelist("train")
    if not path.is_file():
        return {}
    names = read_filelist(path)
    if not cfg.model_entry.target("dataprocess"):
        return dict.fromkeys(names, "")
    prepared = build_process(cfg).prepared
    markers = {name: prepared.read_marker(name) for name in names}
    return {name: _content(marker) for name, marker in markers.items() if marker is not None}


def _content(marker: Mapping[str, Any]) -> str:
    files = marker.get("files") or [entry[:2] for entry in marker["fingerprint"].get("inputs", ())]
    return hashlib.sha256(json.dumps([marker["status"], files]).encode()).hexdigest()[:16]


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The difference of two results of :func:`training_data` in words; empty if there is none."""
    kinds = {
        "missing": [name for name in before if name not in now],
        "new": [name for name in now if name not in before],
        "changed": [name for name in now if before.get(name, now[name]) != now[name]],
    }
    texts = [f"{len(v)} {kind}, e.g. {v[0]}" for kind, v in kinds.items() if v]
    return "; ".join(texts)
