"""The output of a preparation: folders, markers, and which clips may be used."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import logging
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkingface.data.clips import Clip
from talkingface.data.dataprocess.report import SHEETS, ProcessReport
from talkingface.data.filelists import read_filelist
from talkingface.data.quality import violations
from talkingface.errors import EnvironmentProblem
from talkingface.utils.hashes import sha256_of
from talkingface.utils.limits import require_resources
from talkingface.utils.paths import explain_os_errors, is_stale, read_json, write_json

if TYPE_CHECKING:
    from talkingface.data.dataprocess.base import DataProcess

log = logging.getLogger(__name__)

UNREADABLE = "unreadable"  # in place of the hash of an input
IMPORTED = "imported"  # in place of settings, for clips that were prepared elsewhere without video


CHECKED = (".npy", ".npz", ".mat", ".wav")  # files whose content is compared before every run


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError as error:
        require_resources(error)
        return None


def fingerprints(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and CRC-32 of each file below a folder, whose content is first brought to the disk."""
    result = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with open(path, "rb") as file:
                data = file.read()
                os.fsync(file.fileno())
            result[path.relative_to(folder).as_posix()] = (len(data), zlib.crc32(data))
    return result


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
        """Temporary folders that killed processes have left."""
        path = self.work_dir(clip_id)
        found = path.parent.glob(glob.escape(f".{path.name}.tmp") + "*")
        former = re.compile(r"\.tmp\d+$")  # of earlier versions
        return [folder for folder in found if is_stale(folder) or former.search(folder.name)]

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
        return read_json(self.marker_path(clip_id)) or None

    def settings_hash(self) -> str:
        """Hash of the version and the settings that the output depends on."""
        state = [self.process.version, self.process.settings()]
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]

    def times(self, clip: Clip) -> list[int]:
        """When the input files were changed last; not part of the fingerprint."""
        with explain_os_errors(clip.path, "read"):
            return [int(path.stat().st_mtime) for path in self.process.corpus.files_of(clip)]

    def fingerprint(self, clip: Clip, marker: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Settings and content of the input files; a marker with another one is outdated.

        Args:
            marker: the clip's; files with the size and time that it names are not read again.
        """
        known = (marker or {}).get("fingerprint", {}).get("inputs", ())
        # In markers of version 0.1.0 the time is in the place of the hash.
        seen = (marker or {}).get("times") or [entry[2] for entry in known]
        before = dict(
            enumerate([*entry[:2], time] for entry, time in zip(known, seen, strict=False))
        )
        inputs, paths = [], self.process.corpus.files_of(clip)
        for number, time in enumerate(self.times(clip)):
            path = paths[number]
            size = _size(path)
            seen_before = before.get(number) == [path.name, size, time]
            if seen_before and known[number][2] != UNREADABLE:  # its permission may have changed
                inputs.append(known[number])
                continue
            try:
                inputs.append([path.name, size, sha256_of(path)[:24]])
            except OSError as error:  # the reason is given when the clip is opened
                require_resources(error)
                inputs.append([path.name, size, UNREADABLE])
        return {"processor": self.settings_hash(), "inputs": inputs}

    def is_current(self, clip: Clip) -> bool:
        """Whether a clip needs no processing. Failures of unknown cause are tried again."""
        marker = self.read_marker(clip.id)
        if marker is None or marker["fingerprint"] != self.fingerprint(clip, marker):
            return False
        if marker.get("times") not in (None, times := self.times(clip)):  # e.g. copied files
            with contextlib.suppress(EnvironmentProblem):  # a folder that is only read
                write_json(self.marker_path(clip.id), {**marker, "times": times})
        if marker["status"] == "ok":
            damage = self.damage(clip.id, marker)
            if damage and "is missing" not in damage:
                log.warning("%s is prepared again: %s", clip.id, damage)
            return not damage
        return marker["status"] == "skipped"

    def refresh(self, clip_id: str) -> None:
        """Store the present files of a clip in its marker, after ``finalize`` has changed some."""
        marker = self.read_marker(clip_id)
        if marker is not None and "files" in marker:
            marker["files"] = [
                {name: entry for name, entry in fingerprints(folder).items() if name in before}
                for folder, before in zip(self.output_dirs(clip_id), marker["files"], strict=True)
            ]
            write_json(self.marker_path(clip_id), marker)

    def damage(self, clip_id: str, marker: Mapping[str, Any]) -> str:
        """What is wrong with the files of a clip; empty when they are as its marker says.

        The content of arrays and sounds is compared; pictures only by their sizes, since they carry
        checksums of their own.
        """
        folders = self.output_dirs(clip_id)
        if not all(folder.is_dir() for folder in folders):
            return "a folder is missing"
        for folder, files in zip(folders, marker.get("files", ()), strict=False):
            sizes = {e.name: e.stat().st_size for e in os.scandir(folder)} if files else {}
            for name, (size, crc) in files.items():
                path = folder / name
                found = sizes.get(name) if "/" not in name else _size(path)
                if found != size:
                    return f"{path} has {found or 0} bytes instead of {size}"
                if path.suffix in CHECKED and zlib.crc32(path.read_bytes()) != crc:
                    return f"the content of {path} has changed"
        return ""

    def was_tried(self, clip: Clip) -> bool:
        """Whether the present version of a clip was processed, with any result."""
        marker = self.read_marker(clip.id)
        return marker is not None and marker["fingerprint"] == self.fingerprint(clip, marker)

    def report_on(self, clips: list[Clip]) -> ProcessReport:
        """Report on clips, from their markers."""
        report = ProcessReport(self.folder)
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
            elif damage := self.damage(name, marker):
                unusable[name] = f"{damage}; run the stage preprocess"
            elif dropped:
                unusable[name] = f"left out by quality.drop: {'; '.join(dropped)}"
            else:
                good.append(name)
        return good, unusable
