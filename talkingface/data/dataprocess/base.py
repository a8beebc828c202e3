"""The preparation engine: clips in, folders out, nothing half-done and nothing silently lost.

Each clip is processed into a temporary folder that is renamed when complete; a small JSON marker
per clip says what happened. A killed run goes on where it was, a changed setting redoes what it
touches, and the result does not depend on the number of workers.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from talkingface.data.clips import (
    SPLITS,
    Clip,
    discover_clips,
    ensure_filelists,
    have_filelists,
    no_clips_message,
    split_clips,
)
from talkingface.errors import EnvironmentProblem, StageError, TalkingFaceError
from talkingface.utils.locks import file_lock
from talkingface.utils.paths import explain_os_errors, shown, write_json

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)


class SkipClip(TalkingFaceError):
    """A clip that is not suitable; the message is the reason, counted in the report."""


@dataclass
class ProcessReport:
    """What a preparation did.

    Attributes:
        markers: one record per clip: ``status`` (``ok``, ``skipped`` or ``failed``), ``reason``,
            and figures such as ``frames`` and ``seconds``.
        fresh: clips that were processed now and not taken from an earlier run.
    """

    processor: str
    folder: Path
    markers: dict[str, dict[str, Any]] = field(default_factory=dict)
    fresh: int = 0

    def of(self, status: str) -> list[str]:
        return [name for name, marker in self.markers.items() if marker["status"] == status]

    def reasons(self) -> Counter:
        """Unusable clips by reason, without the figures inside the reasons."""
        bad = (m for m in self.markers.values() if m["status"] != "ok")
        return Counter(m["reason"].split(":")[0] for m in bad)

    def describe(self) -> str:
        good = [m for m in self.markers.values() if m["status"] == "ok"]
        text = (
            f"{len(good)} of {len(self.markers)} clips usable, {sum(m['frames'] for m in good)} "
            f"frames, {sum(m['seconds'] for m in good):.0f} s ({self.fresh} processed now)"
        )
        for reason, count in self.reasons().most_common():
            names = [n for n, m in self.markers.items() if m.get("reason", "").startswith(reason)]
            text += f"\n  not usable, {reason}: {count} ({', '.join(names[:3])}"
            text += ", ...)" if count > 3 else ")"
        return text


class DataProcess(ABC):
    """Turns raw clips into the files that a dataset class reads.

    Class attributes:
        id: name of the sub-folder below ``preprocessed_data``.
        version: raise it when the output changes; older results are then made again.
    """

    id: ClassVar[str]
    version: ClassVar[int] = 1

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg

    @property
    def folder(self) -> Path:
        """Output folder. A ``preprocessed_root`` that already ends with ``id`` is accepted."""
        root = self.cfg.processed_dir
        return root if root.name == self.id else root / self.id

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Values that the output depends on; a change redoes the clips."""

    @abstractmethod
    def process_clip(self, clip: Clip, out: Path) -> dict[str, Any]:
        """Write the files of one clip into ``out`` (exists, empty, temporary).

        Returns:
            Figures for the marker; at least ``frames`` and ``seconds``.

        Raises:
            SkipClip: the clip is not suitable, with the reason.
            DataError: the clip cannot be read.
        """

    def finalize(self, report: ProcessReport) -> None:
        """Dataset-wide results after all clips; called on every run."""

    def discover(self) -> list[Clip]:
        """Clips of the three lists, or all clips when there are no lists yet."""
        clips = discover_clips(self.cfg.data_dir)
        if not clips:
            raise StageError(no_clips_message(self.cfg))
        lists = [self.cfg.filelist(split) for split in SPLITS]
        if any(path.exists() for path in lists) and not all(path.exists() for path in lists):
            with file_lock(self._lock_path):  # another run may be writing them right now
                pass
        if not have_filelists(self.cfg):
            return clips
        listed: dict[str, Clip] = {}
        for split in SPLITS:
            listed.update({clip.id: clip for clip in split_clips(self.cfg, split)})
        folder = self.cfg.filelist("train").parent
        if not listed:
            raise StageError(f"None of the clips in {folder} exists.")
        if len(clips) > len(listed):
            log.info(
                "%d clips of %s stand in no list of %s and are left alone",
                len(clips) - len(listed),
                shown(self.cfg.data_dir),
                shown(folder),
            )
        return list(listed.values())

    # -- engine -----------------------------------------------------------------------------------

    def settings_hash(self) -> str:
        """Hash of the version and the settings that the output depends on."""
        text = json.dumps([self.version, self.settings()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def fingerprint(self, clip: Clip) -> dict[str, Any]:
        """What a marker must agree with to be up to date."""
        with explain_os_errors(clip.path, "read"):
            files = {p: p.stat() for p in dict.fromkeys((clip.path, clip.audio))}
        return {
            "processor": self.settings_hash(),
            "inputs": [[p.name, s.st_size, int(s.st_mtime)] for p, s in files.items()],
        }

    @property
    def _lock_path(self) -> Path:
        return self.folder / ".status" / ".lock"

    def marker_path(self, clip_id: str) -> Path:
        return self.folder / ".status" / f"{clip_id}.json"

    def read_marker(self, clip_id: str) -> dict[str, Any] | None:
        """The marker of a clip, None when there is none or it is damaged."""
        try:
            return json.loads(self.marker_path(clip_id).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def is_current(self, clip: Clip) -> bool:
        """Whether a clip needs no work. Failures of unknown cause are tried again."""
        marker = self.read_marker(clip.id)
        if marker is None or marker["fingerprint"] != self.fingerprint(clip):
            return False
        if marker["status"] == "ok":
            return (self.folder / clip.id).is_dir()
        return marker["status"] == "skipped"

    def process_one(self, clip: Clip) -> dict[str, Any]:
        """Process one clip and write its marker; problems of the clip become its status.

        Raises:
            EnvironmentProblem: disk full, no permission: these stop the whole run.
        """
        final = self.folder / clip.id
        temporary = final.with_name(f".{final.name}.tmp{os.getpid()}")
        marker: dict[str, Any] = {"clip": clip.id, "fingerprint": self.fingerprint(clip)}
        with explain_os_errors(self.folder):
            # Those of killed runs; a living one holds the lock that this run has.
            for left in final.parent.glob(glob.escape(f".{final.name}.tmp") + "*"):
                shutil.rmtree(left, ignore_errors=True)
            temporary.mkdir(parents=True)
            try:
                marker.update(status="ok", **self.process_clip(clip, temporary))
                if final.exists():
                    shutil.rmtree(final)
                os.replace(temporary, final)
            except (EnvironmentProblem, OSError):  # the disk, not the clip
                raise
            except TalkingFaceError as error:
                marker.update(status="skipped", reason=str(error), frames=0, seconds=0.0)
            except Exception as error:
                # A defect of ours or an unforeseen file (OpenCV's errors have no common base):
                # recorded by name, never hidden.
                log.debug("clip %s", clip.id, exc_info=True)
                reason = f"unexpected {type(error).__name__}: {error}"
                marker.update(status="failed", reason=reason, frames=0, seconds=0.0)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            if marker["status"] != "ok":
                shutil.rmtree(final, ignore_errors=True)
        write_json(self.marker_path(clip.id), marker)
        return marker

    def run(
        self, *, workers: int | None = None, show_progress: str | bool = "auto"
    ) -> ProcessReport:
        """Process what is missing or stale. A second run on the same folder waits for the first.

        Raises:
            StageError: no clip at all, or more than ``max_failed_ratio`` of them unusable.
        """
        clips = self.discover()
        report = ProcessReport(self.id, self.folder)
        todo = [clip for clip in clips if not self.is_current(clip)]
        if todo:
            with file_lock(self._lock_path):
                todo = [clip for clip in todo if not self.is_current(clip)]
                if todo:
                    self._process(todo, workers, show_progress)
        report.fresh = len(todo)
        report.markers = {c.id: self.read_marker(c.id) for c in sorted(clips, key=lambda c: c.id)}
        self.finalize(report)
        self._judge(report)
        if not all(self.cfg.filelist(split).exists() for split in SPLITS):
            # Only now is it known which clips are usable: a split must not be made of the others.
            good = set(report.of("ok"))
            with file_lock(self._lock_path):  # another run may be writing them right now
                ensure_filelists(self.cfg, [clip for clip in clips if clip.id in good])
        return report

    def _process(self, todo: list[Clip], workers: int | None, show_progress: str | bool) -> None:
        from joblib import Parallel, delayed

        from talkingface.utils.logs import progress
        from talkingface.utils.system import process_workers

        count = workers or process_workers(self.cfg.process_workers, len(todo))
        log.info(
            "preparing %d clips with %d process(es) into %s", len(todo), count, shown(self.folder)
        )
        jobs = (delayed(self.process_one)(clip) for clip in todo)
        pool = Parallel(n_jobs=count, return_as="generator_unordered", batch_size=1)
        bar = progress(total=len(todo), unit="clip", desc="preparing", show=show_progress)
        frames = bad = 0
        with bar:
            for number, marker in enumerate(pool(jobs), 1):
                frames += marker["frames"]
                bad += marker["status"] != "ok"
                bar.update()
                rate = frames / max(bar.format_dict["elapsed"], 1e-6)
                bar.set_postfix_str(f"{rate:.0f} frames/s, {bad} unusable")
                if bar.disable and number % 100 == 0:
                    log.info("prepared %d of %d clips, %d unusable", number, len(todo), bad)

    def _judge(self, report: ProcessReport) -> None:
        total, bad = len(report.markers), len(report.markers) - len(report.of("ok"))
        if bad == total or bad > self.cfg.max_failed_ratio * total:
            raise StageError(
                f"{bad} of {total} clips of {self.cfg.dataset} are unusable (max_failed_ratio = "
                f"{self.cfg.max_failed_ratio}).\n{report.describe()}\n"
                f"Details per clip: {shown(self.folder / '.status')}"
            )
