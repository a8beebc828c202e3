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
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from talkingface.data.clips import (
    SPLITS,
    Clip,
    discover_clips,
    ensure_filelists,
    have_filelists,
    merger,
    no_clips_message,
    split_clips,
)
from talkingface.data.dataprocess.executors import parse_shard, run_jobs
from talkingface.data.dataprocess.report import SHEETS, write_report
from talkingface.data.dataprocess.result import ProcessReport, short
from talkingface.data.quality import violations
from talkingface.errors import EnvironmentProblem, StageError, TalkingFaceError
from talkingface.utils.locks import file_lock
from talkingface.utils.paths import explain_os_errors, shown, write_json

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)


IMPORTED = "imported"  # in place of settings: prepared elsewhere, there is no video to do it again


class SkipClip(TalkingFaceError):
    """A clip that is not suitable; the message is the reason, counted in the report."""


@contextmanager
def _collected_warnings(clip: Clip) -> Iterator[list[str]]:
    """What the layers below warn of, e.g. damaged pictures: for the marker and the report.

    Workers have no log of their own, and a line among hundreds of clips would be lost.
    """
    texts: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage().replace(str(clip.path), clip.path.name)
            if text not in texts:
                texts.append(text)

    package = logging.getLogger("talkingface")
    handler, propagate = Collector(logging.WARNING), package.propagate
    package.addHandler(handler)
    package.propagate = False
    try:
        yield texts
    finally:
        package.removeHandler(handler)
        package.propagate = propagate


def _unfinished(final: Path) -> list[Path]:
    """Temporary folders of a clip's folder."""
    return list(final.parent.glob(glob.escape(f".{final.name}.tmp") + "*"))


def join_equal_sounds(clips: list[Clip], markers: dict[str, dict[str, Any]]) -> list[Clip]:
    """Give clips with the very same sound one source: copies must not be trained on and tested."""
    by_sound: dict[str, list[Clip]] = {}
    for clip in clips:
        if sound := markers[clip.id].get("sound"):
            by_sound.setdefault(sound, []).append(clip)
    equal = [group for group in by_sound.values() if len({c.source for c in group}) > 1]
    if not equal:
        return clips
    log.warning(
        "%d group(s) of clips have the same sound and count as one source, e.g. %s",
        len(equal),
        ", ".join(clip.id for clip in equal[0][:3]),
    )
    merged = merger([c.source for c in group] for group in equal)
    return [replace(clip, source=merged(clip.source)) for clip in clips]


class Components(Protocol):
    """Trained networks for a preparation or dataset, by their names in the section ``weights``.

    All raise WeightsError when there is no file; the message says how to get one.
    """

    def path(self, name: str) -> Path:
        """The weights file."""

    def sha256(self, name: str) -> str:
        """SHA-256 of the weights file, in hex."""

    def network(self, name: str) -> Any:
        """The network, in eval mode and without gradients."""

    def pipeline(self, name: str) -> Any:
        """The generator of videos, for components that are models with one."""


class DataProcess(ABC):
    """Turns raw clips into the files that a dataset class reads.

    Class attributes:
        id: name of the sub-folder below ``preprocessed_data``.
        version: raise it when the output changes; older results are then made again.
        parts: sub-folders that :meth:`process_clip` fills, where a layout wants ``<part>/<clip>``
            instead of one folder per clip.
        needs_config: keys of the configuration that it reads, beside those that every run has;
            a sub-class adds its own to them. A model that reuses the class must have them.
        uses_components: it needs trained networks; the runner then gives them.

    Args:
        cfg: the run's configuration.
        components: the trained networks of a class with ``uses_components``.
    """

    id: ClassVar[str]
    version: ClassVar[int] = 1
    parts: ClassVar[tuple[str, ...]] = ()
    needs_config: ClassVar[tuple[str, ...]] = ()
    uses_components: ClassVar[bool] = False
    components: Components

    def __init__(self, cfg: Config, components: Components | None = None) -> None:
        self.cfg = cfg
        if self.uses_components:
            if components is None:
                raise TypeError(f"{type(self).__name__} needs the argument 'components'")
            self.components = components

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
        """Results of several clips, when all are prepared and the split is known.

        Called on every run, by one process at a time; do only what is not yet done.
        """

    def raw_clips(self) -> list[Clip]:
        """What lies in the data folder, to be prepared."""
        return discover_clips(self.cfg.data_dir, self.cfg.clips, quiet=True)

    def no_clips_message(self) -> str:
        """What to do when there is nothing in the data folder."""
        return no_clips_message(self.cfg)

    def write_lists(self, clips: list[Clip]) -> None:
        """Divide usable clips into the three lists, where there are none."""
        ensure_filelists(self.cfg, clips)

    def discover(self) -> list[Clip]:
        """Clips of the three lists, or all clips when there are no lists yet."""
        clips = discover_clips(self.cfg.data_dir, self.cfg.clips)
        if not clips:
            raise StageError(self.no_clips_message())
        lists = [self.cfg.filelist(split) for split in SPLITS]
        if any(path.exists() for path in lists) and not all(path.exists() for path in lists):
            with file_lock(self._lock_path):  # another run may be writing them right now
                pass
        if not have_filelists(self.cfg):
            return clips
        listed: dict[str, Clip] = {}
        for split in SPLITS:
            listed.update({clip.id: clip for clip in split_clips(self.cfg, split, clips)})
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

    def report_on(self, clips: list[Clip]) -> ProcessReport:
        """What the markers of clips say."""
        report = ProcessReport(self.id, self.folder)
        limits = self.cfg.quality
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

    def select(
        self, names: list[str], *, any_settings: bool = False
    ) -> tuple[list[str], dict[str, str]]:
        """Divide listed clips into those that may be used and the others with the reason.

        Args:
            any_settings: also accept what was prepared with other settings: the raw clip matters,
                not the prepared files.
        """
        good, unusable = [], {}
        current = (self.settings_hash(), IMPORTED)
        for name in names:
            marker = self.read_marker(name)
            broken = violations((marker or {}).get("measures") or {}, self.cfg.quality)
            left_out = [text for key, text in broken.items() if key in self.cfg.quality.drop]
            if marker is None or marker["status"] != "ok":
                unusable[name] = (marker or {}).get("reason", "not prepared")
            elif not any_settings and marker["fingerprint"]["processor"] not in current:
                unusable[name] = "prepared with other settings; run the stage preprocess"
            elif left_out:
                unusable[name] = f"left out by quality.drop: {'; '.join(left_out)}"
            else:
                good.append(name)
        return good, unusable

    @property
    def _lock_path(self) -> Path:
        return self.folder / ".status" / ".lock"

    def sheet_path(self, clip_id: str) -> Path:
        """Where the contact sheet of a clip lies, if its processor draws one."""
        return self.folder / SHEETS / f"{clip_id}.jpg"

    def part(self, name: str, clip_id: str) -> Path:
        """Folder of a clip within one of the ``parts``."""
        return self.folder / name / clip_id

    def output_dirs(self, clip_id: str) -> list[Path]:
        """All folders of a prepared clip."""
        return [self.part(name, clip_id) for name in self.parts] or [self.folder / clip_id]

    def _workplace(self, clip_id: str) -> Path:
        """The folder beside which a clip is prepared, on the same disk as its home."""
        return (self.folder / ".work" if self.parts else self.folder) / clip_id

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
            return all(home.is_dir() for home in self.output_dirs(clip.id))
        return marker["status"] == "skipped"

    def process_one(self, clip: Clip) -> dict[str, Any]:
        """Process one clip and write its marker; problems of the clip become its status.

        Raises:
            EnvironmentProblem: disk full, no permission: these stop the whole run.
        """
        final = self._workplace(clip.id)
        temporary = final.with_name(f".{final.name}.tmp{os.getpid()}")
        marker: dict[str, Any] = {"clip": clip.id, "fingerprint": self.fingerprint(clip)}
        with explain_os_errors(self.folder):
            # Those of killed runs; a living one holds the lock that this run has.
            for left in _unfinished(final):
                shutil.rmtree(left, ignore_errors=True)
            temporary.mkdir(parents=True)
            self.sheet_path(clip.id).unlink(missing_ok=True)  # of an earlier version of the clip
            try:
                with _collected_warnings(clip) as warnings:
                    marker.update(status="ok", **self.process_clip(clip, temporary))
                # The marker comes last: a kill between the moves leaves a clip that is redone.
                made = [temporary / name for name in self.parts] or [temporary]
                for part, home in zip(made, self.output_dirs(clip.id), strict=True):
                    if home.exists():
                        shutil.rmtree(home)
                    home.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(part, home)
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
                for home in self.output_dirs(clip.id):
                    shutil.rmtree(home, ignore_errors=True)
        if warnings:
            marker["warnings"] = warnings
        write_json(self.marker_path(clip.id), marker)
        return marker

    def run(
        self, *, workers: int | None = None, show_progress: str | bool = "auto"
    ) -> ProcessReport:
        """Process what is missing or stale. A second run on the same folder waits for the first.

        With ``cfg.shard`` only a part is processed; the shard that finishes last also makes the
        report and the lists.

        Raises:
            StageError: no clip at all, or more than ``max_failed_ratio`` of them unusable.
        """
        clips = sorted(self.discover(), key=lambda clip: clip.id)
        number, count = parse_shard(self.cfg.shard)
        mine = clips[number - 1 :: count]
        todo = [clip for clip in mine if not self.is_current(clip)]
        if todo:
            with self._acquire_lock(number, count):
                todo = [clip for clip in todo if not self.is_current(clip)]
                if todo:
                    self._process(todo, workers, show_progress)
        done = [clip for clip in clips if count == 1 or self._tried(clip)]
        report = self.report_on(done)
        report.fresh, report.pending = len(todo), len(clips) - len(done)
        if report.pending:
            return report
        write_report(report, f"{self.cfg.dataset}: {self.id}")
        self._require_usable_clips(report)
        if not all(self.cfg.filelist(split).exists() for split in SPLITS):
            # Only now is it known which clips are usable: a split must not be made of the others.
            good = set(report.of("ok")) - report.dropped
            clips = join_equal_sounds(clips, report.markers)
            with file_lock(self._lock_path):  # another run may be writing them right now
                self.write_lists([clip for clip in clips if clip.id in good])
        with file_lock(self._lock_path):
            self.finalize(report)
        return report

    @contextmanager
    def _acquire_lock(self, number: int, count: int) -> Iterator[None]:
        """Shards of one job array run side by side; everything else takes turns."""
        if count == 1:
            with file_lock(self._lock_path):
                yield
            return
        own = self._lock_path.with_name(f".lock-{number}-{count}")
        with file_lock(self._lock_path, shared=True), file_lock(own):
            yield

    def _tried(self, clip: Clip) -> bool:
        """Whether a clip was worked on as it is now, with whatever result."""
        marker = self.read_marker(clip.id)
        return marker is not None and marker["fingerprint"] == self.fingerprint(clip)

    def _process(self, todo: list[Clip], workers: int | None, show_progress: str | bool) -> None:
        from talkingface.utils.logs import progress

        log.info("%s: preparing into %s", self.cfg.dataset, shown(self.folder))
        bar = progress(total=len(todo), unit="clip", desc="preparing", show=show_progress)
        start, frames, reasons = time.perf_counter(), 0, Counter()
        with bar:
            jobs = run_jobs(self.process_one, todo, self.cfg, workers, lost=self._mark_crashed)
            for number, marker in enumerate(jobs, 1):
                frames += marker["frames"]
                if marker["status"] != "ok":
                    reasons[short(marker["reason"])] += 1
                bar.update()
                rate = frames / max(time.perf_counter() - start, 1e-6)
                text = ", ".join(f"{reason} {n}" for reason, n in reasons.most_common(3))
                state = f"{rate:.0f} frames/s, {sum(reasons.values())} unusable"
                state += f" ({text})" if text else ""
                bar.set_postfix_str(state)
                if bar.disable and number % 100 == 0:
                    log.info("prepared %d of %d clips, %s", number, len(todo), state)

    def _mark_crashed(self, clip: Clip) -> dict[str, Any]:
        """Marker of a clip whose worker process died, e.g. for lack of memory."""
        for left in (*self.output_dirs(clip.id), *_unfinished(self._workplace(clip.id))):
            shutil.rmtree(left, ignore_errors=True)
        marker = {
            "clip": clip.id,
            "fingerprint": self.fingerprint(clip),
            "status": "failed",
            "reason": "its process died: out of memory, or a crash in a decoder",
            "frames": 0,
            "seconds": 0.0,
        }
        write_json(self.marker_path(clip.id), marker)
        return marker

    def _require_usable_clips(self, report: ProcessReport) -> None:
        total, bad = len(report.markers), len(report.markers) - len(report.of("ok"))
        if bad == total or bad > self.cfg.max_failed_ratio * total:
            raise StageError(
                f"{bad} of {total} clips of {self.cfg.dataset} are unusable (max_failed_ratio = "
                f"{self.cfg.max_failed_ratio}).\n{report.describe()}"
            )
        if len(report.dropped) == total - bad:
            raise StageError(
                f"quality.drop leaves out all usable clips of {self.cfg.dataset}.\n"
                f"{report.describe()}"
            )
