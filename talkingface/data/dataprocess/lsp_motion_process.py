"""Preparation of Audio2Feature and Audio2Headpose: the person's files and the speech features."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from pathlib import Path

from talkingface.data.dataprocess.base import ProcessReport
from talkingface.data.dataprocess.lsp_process import LSPProcess
from talkingface.data.lsp.files import ClipFiles
from talkingface.data.lsp.speech import apc_id, ensure_features


class LSPMotionProcess(LSPProcess):
    """The files of :class:`LSPProcess`, shared with Feature2Face, and the features of one APC."""

    @cached_property
    def apc_path(self) -> Path:
        """(An upper floor: these models stand on a finished APC.)"""
        from talkingface.quick_start.helpers import required_weights

        return required_weights(self.cfg, "apc")

    @cached_property
    def apc(self) -> str:
        return apc_id(self.apc_path)

    def clip(self, clip_id: str) -> ClipFiles:
        return ClipFiles(self.homes(clip_id)[0])

    def finalize(self, report: ProcessReport) -> None:
        super().finalize(report)
        from talkingface.quick_start.helpers import helper_network

        people: dict[Path, list[str]] = defaultdict(list)
        for clip_id in sorted(set(report.of("ok")) - report.dropped):
            people[self.folder / self.person_of(clip_id)].append(clip_id)
        network = helper_network(self.cfg, "apc", self.apc_path)
        limit = self.cfg.person.max_seconds
        ensure_features(network, self.apc, people, limit, self.cfg.show_progress)
