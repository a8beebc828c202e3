"""The output of a preparation: folders, markers, and which clips may be used."""

from __future__ import annotations

import glob
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkingface.data.clips import Clip, read_filelist
from talkingface.data.dataprocess.report import SHEETS
from talkingface.data.dataprocess.result import ProcessReport
from talkingface.data.quality import violations
from talkingface.utils.paths import explain_os_errors

if TYPE_CHECKING:
    from talkingface.data.dataprocess.base import DataProcess

IMPORTED = "imported"  # in place of settings, for clips that were prepared elsewhere without video


class PreparedClips:
    """Folders and markers of prepared clips.

    Args:
        process: the preparation.
        parts: sub-folders that ``process_clip`` writes, for a layout with ``<part>/<clip>`` instead
            of one folder per clip.
    """

    def __init__(self, process: DataProcess, parts: tuple[str, ...] = ()) -> None:
        self.process, self.parts = process, parts

    @property
    def folder(self) -> Path:
        return self.process.folder

    def output_dirs(self, clip_id: str) -> list[Path]:
        """All folders of a prepared clip, in the order of ``parts``."""
        return [self.folder / part / clip_id for part in self.parts] or [self.folder / clip_id]

    def work_dir(self, clip_id: str) -> Path:
        """The path beside which the temporary folder of a clip is created, on the same disk."""
        return (self.folder / ".work" if self.parts else self.folder) / clip_id

    def unfinished(self, clip_id: str) -> list[Path]:
        """Temporary folders that a killed run has left."""
        path = self.work_dir(clip_id)
        return list(path.parent.glob(glob.escape(f".{path.name}.tmp") + "*"))

    @property
    def lock_path(self) -> Path:
        return self.folder / ".status" / ".lock"

    def sheet_path(self, clip_id: str) -> Path:
        """Path of the contact sheet of a clip, if its preparation draws one."""
        return self.folder / SHEETS / f"{clip_id}.jpg"

    def marker_path(self, clip_id: str) -> Path:
        return self.folder / ".status" / f"{clip_id}.json"

    def read_marker(self, clip_id: str) -> dict[str, Any] | None:
        """The marker of a clip, None when there is none or it is damaged."""
        try:
            return json.loads(self.marker_path(clip_id).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def settings_hash(self) -> str:
        """Hash of the version and the settings that the output depends on."""
        state = [self.process.version, self.process.settings()]
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]

    def fingerprint(self, clip: Clip) -> dict[str, Any]:
        """Settings and input files; a marker with another fingerprint is outdated."""
        with explain_os_errors(clip.path, "read"):
            files = {p: p.stat() for p in self.process.corpus.files_of(clip)}
        return {
            "processor": self.settings_hash(),
            "inputs": [[p.name, s.st_size, int(s.st_mtime)] for p, s in files.items()],
        }

    def is_current(self, clip: Clip) -> bool:
        """Whether a clip needs no processing. Failures of unknown cause are tried again."""
        marker = self.read_marker(clip.id)
        if marker is None or marker["fingerprint"] != self.fingerprint(clip):
            return False
        if marker["status"] == "ok":
            return all(home.is_dir() for home in self.output_dirs(clip.id))
        return marker["status"] == "skipped"

    def was_tried(self, clip: Clip) -> bool:
        """Whether the present version of a clip was processed, with any result."""
        marker = self.read_marker(clip.id)
        return marker is not None and marker["fingerprint"] == self.fingerprint(clip)

    def report_on(self, clips: list[Clip]) -> ProcessReport:
        """Report on clips, from their markers."""
        report = ProcessReport(self.process.id, self.folder)
        limits = self.process.cfg.quality
        for clip in sorted(clips, key=lambda clip: clip.id):
            marker = self.read_marker(clip.id)
            if marker is None:
                continue
            report.markers[clip.id], report.clips[clip.id] = marker, clip
            broken = violations(marker.get("measures") or {}, limits)
            if marker["status"] == "ok" and broken:
                report.flags[clip.id] = broken
                if set(broken) & set(limits.drop):
                    report.dropped.add(clip.id)
        return report

    def usable(self, split: str) -> tuple[list[str], dict[str, str]]:
        """Usable clips of a split's list, and the reasons why the others are not usable."""
        return self.select(read_filelist(self.process.cfg.filelist(split)))

    def select(
        self, names: list[str], *, any_settings: bool = False
    ) -> tuple[list[str], dict[str, str]]:
        """Usable clips, and the reasons why the others are not usable.

        Args:
            any_settings: also accept clips that were prepared with other settings, for uses of the
                raw clip.
        """
        good, unusable = [], {}
        current, limits = (self.settings_hash(), IMPORTED), self.process.cfg.quality
        for name in names:
            marker = self.read_marker(name)
            broken = violations((marker or {}).get("measures") or {}, limits)
            dropped = [text for key, text in broken.items() if key in limits.drop]
            if marker is None or marker["status"] != "ok":
                unusable[name] = (marker or {}).get("reason", "not prepared")
            elif not any_settings and marker["fingerprint"]["processor"] not in current:
                unusable[name] = "prepared with other settings; run the stage preprocess"
            elif dropped:
                unusable[name] = f"left out by quality.drop: {'; '.join(dropped)}"
            else:
                good.append(name)
        return good, unusable
