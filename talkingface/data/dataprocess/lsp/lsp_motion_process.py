"""Preparation for Audio2Feature and Audio2Headpose: files of people, and speech features."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cached_property

from talkingface.data.dataprocess.lsp.files import ClipFiles, save_array
from talkingface.data.dataprocess.lsp.lsp_process import LSPProcess
from talkingface.data.dataprocess.lsp.speech import ensure_databases
from talkingface.data.dataprocess.result import ProcessReport
from talkingface.data.media.apc_features import apc_id, encode
from talkingface.data.media.apc_mel import SAMPLE_RATE
from talkingface.data.media.audio import load_audio
from talkingface.utils.logs import progress

log = logging.getLogger(__name__)


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
        log.info("speech features of %d clips", len(missing))
        network, show = self.components.network("apc"), self.cfg.show_progress
        for clip in progress(missing, unit="clip", desc="speech features", show=show):
            values = encode(network, load_audio(clip.sound_path, SAMPLE_RATE))
            save_array(clip.features_path(self.apc), values)

    def complete(self, split: str) -> None:
        self.ensure_features(self.prepared.usable(split)[0])

    def finalize(self, report: ProcessReport) -> None:
        super().finalize(report)
        names = sorted(set(report.of("ok")) - report.dropped)
        self.ensure_features(names)
        people = {self.folder / self.person_of(name) for name in names}
        ensure_databases(self.apc, sorted(people), self.cfg.person.max_seconds)
