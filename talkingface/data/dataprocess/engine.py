"""Run a preparation over all clips.

Each clip is processed into a temporary folder, which is renamed when it is complete. A JSON marker
per clip records the result. A killed run is resumed, a changed setting repeats the clips that
depend on it, and the result does not depend on the number of workers.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from talkingface.data.clips import Clip, have_filelists, merger
from talkingface.data.dataprocess.base import DataProcess
from talkingface.data.dataprocess.executors import parse_shard, run_jobs
from talkingface.data.dataprocess.prepared import fingerprints
from talkingface.data.dataprocess.report import SHEETS, ProcessReport, short, write_report
from talkingface.errors import EnvironmentProblem, StageError, TalkingFaceError
from talkingface.utils.locks import file_lock
from talkingface.utils.logs import progress
from talkingface.utils.paths import (
    discard,
    explain_os_errors,
    remove_stale,
    shown,
    sync_folder,
    temporary_tag,
    write_json,
)

log = logging.getLogger(__name__)


def prepare_clips(
    process: DataProcess, *, workers: int | None = None, show_progress: str | bool = "auto"
) -> ProcessReport:
    """Prepare missing and outdated clips. A second run on the same folder waits for the first.

    With ``cfg.shard`` only the clips of that shard are processed; the shard that finishes last
    also writes the report and the lists.

    Raises:
        StageError: there are no clips, or more than ``max_failed_ratio`` of them are unusable.
    """
    cfg, prepared = process.cfg, process.prepared
    for folder in (prepared.folder / ".status", prepared.folder / SHEETS):
        remove_stale(folder, "**/*")
    for folder in (prepared.folder, cfg.filelist("train").parent):
        remove_stale(folder)
    clips = sorted(process.corpus.to_prepare(prepared.lock_path), key=lambda clip: clip.id)
    number, count = parse_shard(cfg.shard)
    mine = clips[number - 1 :: count]
    todo = [clip for clip in mine if not prepared.is_current(clip)]
    if todo:
        with _acquire_lock(prepared.lock_path, number, count):
            todo = [clip for clip in todo if not prepared.is_current(clip)]
            if todo:
                _process(process, todo, workers, show_progress)
    done = [clip for clip in clips if count == 1 or prepared.was_tried(clip)]
    report = prepared.report_on(done)
    report.fresh, report.pending = len(todo), len(clips) - len(done)
    if report.pending:
        return report
    write_report(report, f"{cfg.dataset}: {process.id}")
    _require_usable_clips(process, report)
    if not have_filelists(cfg):
        # The split follows the preparation, because only usable clips may be split.
        good = set(report.of("ok")) - report.dropped
        clips = join_equal_sounds(clips, report.markers)
        with file_lock(prepared.lock_path):  # another run may be writing them
            process.corpus.write_lists([clip for clip in clips if clip.id in good])
    with file_lock(prepared.lock_path):
        process.finalize(report)
    return report


@contextmanager
def _acquire_lock(path: Path, number: int, count: int) -> Iterator[None]:
    """A lock that shards of one job array hold at the same time, and other runs one by one."""
    shard = file_lock(path.with_name(f".lock-{number}-{count}")) if count > 1 else nullcontext()
    with file_lock(path, shared=count > 1), shard:
        yield


def _process(
    process: DataProcess, todo: list[Clip], workers: int | None, show_progress: str | bool
) -> None:
    log.info("%s: preparing into %s", process.cfg.dataset, shown(process.folder))
    bar = progress(total=len(todo), unit="clip", desc="preparing", show=show_progress)
    start, frames, reasons = time.perf_counter(), 0, Counter()
    with bar:
        work, lost = partial(process_one, process), partial(_mark_crashed, process)
        jobs = run_jobs(work, todo, process.cfg, workers, lost=lost)
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


def process_one(process: DataProcess, clip: Clip) -> dict[str, Any]:
    """Process one clip and write its marker; errors of the clip become its status.

    Raises:
        EnvironmentProblem: disk full or no permission; such errors stop the run.
    """
    prepared = process.prepared
    final = prepared.work_dir(clip.id)
    temporary = final.with_name(f".{final.name}.{temporary_tag()}.work")
    marker: dict[str, Any] = {
        "clip": clip.id,
        "fingerprint": prepared.fingerprint(clip),
        "times": prepared.times(clip),
    }
    with explain_os_errors(process.folder):
        _refuse_foreign_folders(process, clip)
        # Folders of killed runs: a running one would hold the lock.
        for folder in prepared.unfinished(clip.id):
            discard(folder)
        temporary.mkdir(parents=True)
        prepared.sheet_path(clip.id).unlink(missing_ok=True)  # of an earlier version of the clip
        try:
            with _collected_warnings(clip) as warnings:
                marker.update(status="ok", **process.process_clip(clip, temporary))
            written = [temporary / name for name in prepared.parts] or [temporary]
            marker["files"] = [fingerprints(folder) for folder in written]
            # The marker is written last: after a kill between the moves, the clip is repeated.
            if not prepared.marker_path(clip.id).exists():
                write_json(prepared.marker_path(clip.id), {**marker, "status": "started"})
            for folder, target in zip(written, prepared.output_dirs(clip.id), strict=True):
                discard(target)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(folder, target)
                sync_folder(target.parent)
        except (EnvironmentProblem, OSError):  # an error of the disk, not of the clip
            raise
        except TalkingFaceError as error:
            marker.update(status="skipped", reason=str(error), frames=0, seconds=0.0)
        except Exception as error:
            # A bug, or an unexpected file (OpenCV's errors have no common base class).
            log.debug("clip %s", clip.id, exc_info=True)
            reason = f"unexpected {type(error).__name__}: {error}"
            marker.update(status="failed", reason=reason, frames=0, seconds=0.0)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        if marker["status"] != "ok":
            marker.pop("files", None)
            for folder in prepared.output_dirs(clip.id):
                discard(folder)
    if warnings:
        marker["warnings"] = warnings
    write_json(prepared.marker_path(clip.id), marker)
    return marker


def _refuse_foreign_folders(process: DataProcess, clip: Clip) -> None:
    """Raise an EnvironmentProblem before a folder would be replaced that is not ours.

    Ours is a folder whose clip has a marker, and that holds no file which the clip is made from.
    """
    prepared = process.prepared
    for folder in prepared.output_dirs(clip.id):
        if not folder.exists():
            continue
        inside = [
            p for p in process.corpus.files_of(clip) if folder.resolve() in p.resolve().parents
        ]
        if inside or not prepared.marker_path(clip.id).exists():
            why = f"holds {inside[0].name}" if inside else "was not made by this toolkit"
            raise EnvironmentProblem(
                f"{folder} would be replaced by the prepared clip {clip.id}, but it {why}. Move it "
                "away, or choose another folder with --preprocessed_root."
            )


def _mark_crashed(process: DataProcess, clip: Clip) -> dict[str, Any]:
    """Write the marker of a clip whose worker process died, e.g. for lack of memory."""
    prepared = process.prepared
    _refuse_foreign_folders(process, clip)  # the process may have died before it did
    for folder in (*prepared.output_dirs(clip.id), *prepared.unfinished(clip.id)):
        discard(folder)
    marker = {
        "clip": clip.id,
        "fingerprint": prepared.fingerprint(clip),
        "times": prepared.times(clip),
        "status": "failed",
        "reason": "process died: out of memory, or a crash in a decoder",
        "frames": 0,
        "seconds": 0.0,
    }
    write_json(prepared.marker_path(clip.id), marker)
    return marker


def _require_usable_clips(process: DataProcess, report: ProcessReport) -> None:
    total, bad = len(report.markers), len(report.markers) - len(report.of("ok"))
    if bad == total or bad > process.cfg.max_failed_ratio * total:
        raise StageError(
            f"{bad} of {total} clips of {process.cfg.dataset} are unusable (max_failed_ratio = "
            f"{process.cfg.max_failed_ratio}).\n{report.describe()}"
        )
    if len(report.dropped) == total - bad:
        raise StageError(
            f"quality.drop leaves out all usable clips of {process.cfg.dataset}.\n"
            f"{report.describe()}"
        )


def join_equal_sounds(clips: list[Clip], markers: dict[str, dict[str, Any]]) -> list[Clip]:
    """Give clips with identical sound one source, so that no copy of a training clip is tested."""
    by_sound: dict[str, list[Clip]] = {}
    for clip in clips:
        if sound := markers[clip.id].get("sound"):
            by_sound.setdefault(sound, []).append(clip)
    equal = [group for group in by_sound.values() if len({c.source for c in group}) > 1]
    if not equal:
        return clips
    log.warning(
        "%d group(s) of clips have identical sound and count as one source each, e.g. %s",
        len(equal),
        ", ".join(clip.id for clip in equal[0][:3]),
    )
    merged = merger([c.source for c in group] for group in equal)
    return [replace(clip, source=merged(clip.source)) for clip in clips]


@contextmanager
def _collected_warnings(clip: Clip) -> Iterator[list[str]]:
    """Warnings about a clip, e.g. damaged frames, for the marker and the report.

    Worker processes do not log.
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
