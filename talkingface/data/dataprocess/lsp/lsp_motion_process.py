"""Preparation for Audio2Feature and Audio2Headpose: files of people, and speech features."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np

from talkingface.data.dataprocess.lsp.files import DATABASE, ClipFiles, Person, save_array
from talkingface.data.dataprocess.lsp.lsp_process import LSPProcess
from talkingface.data.dataprocess.report import ProcessReport
from talkingface.data.media.apc_mel import MOTION_FPS, ROWS_PER_FRAME, SAMPLE_RATE, apc_id, encode
from talkingface.data.media.audio import load_audio
from talkingface.data.npz import read_npy
from talkingface.utils.paths import write_json


class LSPMotionProcess(LSPProcess):
    """Adds the speech features of one APC to the files, which Feature2Face shares."""

    needs_config = ("person.max_seconds",)
    uses_components = True

    @cached_property
    def apc(self) -> str:
        """Identifier of the APC from the content of its file."""
        return apc_id(self.components.path("apc"))

    def clip(self, clip_id: str) -> ClipFiles:
        return ClipFiles(self.prepared.output_dirs(clip_id)[0])

    def ensure_features(self, names: Iterable[str]) -> None:
        """Compute the speech features of clips that have none of this APC."""
        missing = [c for c in map(self.clip, names) if not c.features_path(self.apc).is_file()]
        if not missing:
            return
        network = self.components.network("apc")
        for clip in self._bar(missing, "speech features"):
            values = encode(network, load_audio(clip.sound_path, SAMPLE_RATE))
            save_array(clip.features_path(self.apc), values)

    def complete(self, split: str) -> None:
        self.ensure_features(self.prepared.usable(split)[0])

    def finalize(self, report: ProcessReport) -> None:
        super().finalize(report)
        names = sorted(set(report.of("ok")) - report.dropped)
        self.ensure_features(names)
        people = {self.folder / self.person_of(name) for name in names}
        self.ensure_databases(map(Person, sorted(people)))

    def ensure_databases(self, people: Iterable[Person]) -> None:
        """Write missing or outdated databases, for the manifold projection."""
        limit = round(self.cfg.person.max_seconds * MOTION_FPS * ROWS_PER_FRAME)
        for person in people:
            if person.database_apc == self.apc:
                continue
            rows, total = [], 0
            for clip_id in person.listed("train"):
                if total >= limit:
                    break
                rows.append(read_npy(person.clip(clip_id).features_path(self.apc)))
                total += len(rows[-1])
            if rows:
                path = person.folder / DATABASE
                save_array(path, np.concatenate(rows)[:limit])
                write_json(path.with_suffix(".json"), {"apc": self.apc})
