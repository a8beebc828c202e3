"""Preparation of Audio2Feature and Audio2Headpose: the person's files and the speech features."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from talkingface.data.dataprocess.base import ProcessReport
from talkingface.data.dataprocess.lsp_process import LSPProcess
from talkingface.data.lsp.files import ClipFiles
from talkingface.data.lsp.speech import apc_id, ensure_databases, ensure_features

if TYPE_CHECKING:
    from torch import nn


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

    def network(self) -> nn.Module:
        """The APC."""
        from talkingface.quick_start.helpers import helper_network

        return helper_network(self.cfg, "apc", self.apc_path)

    def ensure_features(self, names: Iterable[str]) -> None:
        """Speech features of clips, where this APC has not made them yet."""
        clips = [self.clip(name) for name in names]
        ensure_features(self.network, self.apc, clips, self.cfg.show_progress)

    def finalize(self, report: ProcessReport) -> None:
        super().finalize(report)
        names = sorted(set(report.of("ok")) - report.dropped)
        self.ensure_features(names)
        people = {self.folder / self.person_of(name) for name in names}
        ensure_databases(self.apc, sorted(people), self.cfg.person.max_seconds)
