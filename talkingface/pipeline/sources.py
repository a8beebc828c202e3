"""Prepared sources of pipelines: clips of the dataset, and other videos prepared on first use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.data.clips import Clip
from talkingface.data.dataprocess.prepared import IMPORTED
from talkingface.data.media.audio import load_audio
from talkingface.data.media.writer import write_video
from talkingface.errors import DataError
from talkingface.pipeline.base import SAMPLE_RATE
from talkingface.utils.locks import file_lock
from talkingface.utils.paths import discard

if TYPE_CHECKING:
    from talkingface.config.config import Config


class SourceStore:
    """Finds or creates the prepared folder of a source.

    Args:
        process: a preparation with ``prepare_source(source, folder)``.
        complete: name of a file that every finished folder has.
    """

    def __init__(self, cfg: Config, process: Any, complete: str) -> None:
        self.cfg, self.process, self.complete = cfg, process, complete

    @cached_property
    def _clips(self) -> dict[Path, Clip]:
        return {clip.path.resolve(): clip for clip in self.process.corpus.clips()}

    def clip_of(self, source: Path) -> Clip | None:
        """The clip of the dataset that belongs to a file, if its preparation is up to date."""
        clip = self._clips.get(source.resolve())
        if clip is None or not self.process.prepared.select([clip.id])[0]:
            return None
        marker = self.process.prepared.read_marker(clip.id)
        if marker["fingerprint"]["processor"] == IMPORTED:
            return clip
        inputs = self.process.prepared.fingerprint(clip, marker)["inputs"]
        return clip if inputs == marker["fingerprint"]["inputs"] else None

    def prepared(self, source: Path) -> Path:
        """Folder of a source outside the dataset, prepared on first use.

        Raises:
            DataError: the file does not exist or shows no usable face.
        """
        if not source.is_file():
            raise DataError(f"The source {source} does not exist.")
        stat = source.stat()
        state = [str(source.resolve()), stat.st_size, stat.st_mtime_ns]
        key = hashlib.sha256(json.dumps([*state, self.process.prepared.settings_hash()]).encode())
        folder = self.process.folder / ".sources" / f"{source.stem}-{key.hexdigest()[:10]}"
        with file_lock(folder.with_name(f"{folder.name}.lock")):
            if not (folder / self.complete).is_file():
                discard(folder)  # of a killed process
                folder.mkdir(parents=True)
                try:
                    self.process.prepare_source(source, folder)
                except BaseException:
                    discard(folder)
                    raise
        return folder


def write_reference(
    clip: Clip, folder: Path, facts: list[Any], frames: Iterator[np.ndarray], sound: Path,
    fps: float,
) -> Clip:  # fmt: skip
    """Write the real clip in the framing of the generated one into ``folder``.

    Args:
        facts: all values on which the frames depend.
        frames: used only if the file does not exist yet.
        sound: file with the sound of the frames.
    """
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]
    path = folder / f"{clip.id}-{name}.mp4"
    if not path.is_file():
        track = (load_audio(sound, SAMPLE_RATE), SAMPLE_RATE)
        write_video(path, frames, fps, audio=track, crf=10)
    return replace(clip, path=path, audio=sound)
