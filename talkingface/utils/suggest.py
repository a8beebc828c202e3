"""Nearest known names for a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Other names of keys that a string distance does not match.
SYNONYMS = {
    "lr": "learning_rate",
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
    """Known names most similar to ``name``, best first; also by the last part of dotted names."""
    by_fold: dict[str, str] = {}
    for item in known:
        by_fold.setdefault(fold(item), item)
        by_fold.setdefault(fold(item.rsplit(".", 1)[-1]), item)
    wanted = fold(name)
    names = [SYNONYMS[wanted]] if wanted in SYNONYMS else []
    for candidate in (wanted, wanted.rsplit(".", 1)[-1]):
        close = difflib.get_close_matches(candidate, by_fold, n=limit, cutoff=0.6)
        names += [by_fold[key] for key in close]
        if len(candidate) > 3:
            names += [item for key, item in by_fold.items() if key.startswith(candidate)]
    return list(dict.fromkeys(names))[:limit]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence such as `` Did you mean 'LMD'?``; empty when no known name is similar."""
    names = " or ".join(f"'{item}'" for item in nearest(name, known))
    return f" Did you mean {names}?" if names else ""
