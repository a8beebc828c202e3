"""Preparation of Audio2Feature and Audio2Headpose: the person's files and the speech features."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from talkingface.data.dataprocess.base import ProcessReport
from talkingface.data.dataprocess.lsp.files import ClipFiles
from talkingface.data.dataprocess.lsp.lsp_process import LSPProcess
from talkingface.data.dataprocess.lsp.speech import ensure_databases, ensure_features
from talkingface.data.media.apc_features import apc_id


class LSPMotionProcess(LSPProcess):
    """The files of :class:`LSPProcess`, shared with Feature2Face, and the features of one APC."""

    needs_config = (
        *LSPProcess.needs_config,
        "person.max_seconds",
    )

    uses_components = True

    @cached_property
    def apc(self) -> str:
        """Name of the APC, from the content of its file."""
        return apc_id(self.components.path("apc"))

    def clip(self, clip_id: str) -> ClipFiles:
        return ClipFiles(self.prepared.output_dirs(clip_id)[0])

    def ensure_features(self, names: Iterable[str]) -> None:
        """Speech features of clips, where this APC has not made them yet."""
        clips = [self.clip(name) for name in names]
        ensure_features(
            lambda: self.components.network("apc"), self.apc, clips, self.cfg.show_progress
        )

    def complete(self, split: str) -> None:
        self.ensure_features(self.prepared.usable(split)[0])

    def finalize(self, report: ProcessReport) -> None:
        super().finalize(report)
        names = sorted(set(report.of("ok")) - report.dropped)
        self.ensure_features(names)
        people = {self.folder / self.person_of(name) for name in names}
        ensure_databases(self.apc, sorted(people), self.cfg.person.max_seconds)
