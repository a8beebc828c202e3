"""Speech features of clips: mel rows through the APC network, cached beside the clip."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from talkingface.data.dataprocess.lsp import files
from talkingface.data.media.apc_features import encode
from talkingface.data.media.apc_mel import MOTION_FPS, ROWS_PER_FRAME, SAMPLE_RATE
from talkingface.data.media.audio import load_audio
from talkingface.utils.logs import progress
from talkingface.utils.paths import write_json

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)


def ensure_features(
    network: Callable[[], nn.Module],
    apc: str,
    clips: Iterable[files.ClipFiles],
    show_progress: str | bool = "auto",
) -> None:
    """Make the missing features of clips.

    Args:
        network: gives the APC when it is needed.
        apc: see :func:`apc_id`.
    """
    missing = [clip for clip in clips if not clip.features_path(apc).is_file()]
    if missing:
        log.info("speech features of %d clips", len(missing))
        encoder = network()
        for clip in progress(missing, unit="clip", desc="speech features", show=show_progress):
            values = encode(encoder, load_audio(clip.sound_path, SAMPLE_RATE))
            files.save_array(clip.features_path(apc), values)


def ensure_databases(apc: str, people: Iterable[Path], max_seconds: float) -> None:
    """Make the missing or outdated databases of people whose clips have features."""
    for folder in people:
        if database_of(folder) != apc:
            _write_database(files.Person(folder), apc, max_seconds)


def database_of(person: Path) -> str | None:
    """Which APC a person's database was made with; None when unknown."""
    try:
        return json.loads((person / files.DATABASE).with_suffix(".json").read_text("utf-8"))["apc"]
    except (OSError, ValueError, KeyError):
        return None


def _write_database(person: files.Person, apc: str, max_seconds: float) -> None:
    rows, total, limit = [], 0, round(max_seconds * MOTION_FPS * ROWS_PER_FRAME)
    for clip_id in person.listed("train"):
        if total >= limit:
            break
        rows.append(np.load(person.clip(clip_id).features_path(apc)))
        total += len(rows[-1])
    if rows:
        files.save_array(person.folder / files.DATABASE, np.concatenate(rows)[:limit])
        write_json((person.folder / files.DATABASE).with_suffix(".json"), {"apc": apc})
