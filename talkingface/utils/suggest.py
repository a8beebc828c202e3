"""Nearest known names for a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Words that people type for a key whose spelling is too far away for a string distance.
SYNONYMS = {
    "lr": "learning_rate",
    "initial_learning_rate": "learning_rate",
    "workers": "num_workers",
    "gpu": "device",
    "gpus": "devices",
    "cuda": "device",
    "steps": "max_steps",
    "iterations": "max_steps",
    "out": "output",
    "amp": "precision",
    "fp16": "precision",
    "bf16": "precision",
    "ckpt": "checkpoint",
    "optimizer": "learner",
    "patience": "stopping_step",
    "early_stopping": "stopping_step",
    "syncnet_weight": "loss.syncnet_wt",
    "ema": "optim.ema_decay",
    "grad_clip": "optim.clip_grad",
    "wd": "weight_decay",
}


def fold(name: str) -> str:
    """Spelling-insensitive form: lower case, ``-`` equals ``_``."""
    return str(name).lower().replace("-", "_")


def nearest(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Known names most like ``name``, best first; the last part of dotted names counts too."""
    by_fold: dict[str, str] = {}
    for item in known:
        by_fold.setdefault(fold(item), item)
        by_fold.setdefault(fold(item.rsplit(".", 1)[-1]), item)
    wanted = fold(name)
    found = []
    if wanted in SYNONYMS:
        found.append(SYNONYMS[wanted])
    for candidate in (wanted, wanted.rsplit(".", 1)[-1]):
        close = difflib.get_close_matches(candidate, by_fold, n=limit, cutoff=0.6)
        found.extend(by_fold[item] for item in close)
        found.extend(
            item
            for key, item in by_fold.items()
            if len(candidate) > 3 and key.startswith(candidate)
        )
    return list(dict.fromkeys(found))[:limit]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence such as `` Did you mean 'LMD'?``, empty when nothing is near."""
    found = nearest(name, known)
    if not found:
        return ""
    return " Did you mean " + " or ".join(f"'{item}'" for item in found) + "?"
