"""Preparation for audio2photoreal: scenes of the released layout are checked and used where they
lie; ordinary videos become scenes of the same layout (official code).

The codes of a video are the expression coefficients of a landmark face model that is learnt from
the training clips. Layout: ``preprocessed_data/A2P/<clip>/scene.json`` or, for videos,
``points.npz``, ``audio.wav`` and, when the face model is known,
``codes_<model>/{face,missing,lips}.npy``; beside the clips ``face_model_<key>.npz`` and
``data_stats_<key>.npz``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.config.config import load_config
from talkingface.data.clips import Clip, write_filelist
from talkingface.data.dataprocess.a2p.files import (
    FACE_SIZE,
    POSE_SIZE,
    SAMPLE_RATE,
    STATS,
    SceneFiles,
    Stats,
    check_sound,
    find_scenes,
    learn_stats,
    load_array,
    missing_frames,
)
from talkingface.data.dataprocess.base import ProcessReport, SkipClip
from talkingface.data.dataprocess.video import DatasetStatisticsProcess, FaceClip
from talkingface.data.face.face_model import FaceModel, learn_face_model
from talkingface.data.face.points import POINTS, Points
from talkingface.data.face.series import fill_gaps
from talkingface.data.media.audio import load_audio, save_stereo
from talkingface.errors import DataError, StageError
from talkingface.utils.logs import progress
from talkingface.utils.paths import atomic, resolve, shown, write_json

log = logging.getLogger(__name__)

SOUND = "audio.wav"
_VERSION = 1
_HELD = {"val": 2, "test": 4}  # last scenes (official split)
_MAX_MISSING = 0.1


class A2PProcess(DatasetStatisticsProcess):
    """Scenes and their units."""

    needs_config = (
        *DatasetStatisticsProcess.needs_config,
        "codes",
    )

    id = "A2P"
    version = _VERSION
    min_frames = 31

    @property
    def of_motion(self) -> bool:
        """Whether the dataset holds scenes of motion, not videos."""
        return self.cfg.dataset_entry.meta.get("kind") == "motion"

    @cached_property
    def source(self) -> Path:
        """Folder of the scenes: the data folder, or the dataset's own if it was unpacked there."""
        folder = self.cfg.data_dir
        if not find_scenes(folder) and find_scenes(self.cfg.dataset_root):
            return self.cfg.dataset_root
        return folder

    def settings(self) -> dict[str, Any]:
        if self.of_motion:
            return {"fps": self.cfg.fps}
        return super().settings()

    # -- clips -------------------------------------------------------------------------------------

    def raw_clips(self) -> list[Clip]:
        return find_scenes(self.source) if self.of_motion else super().raw_clips()

    def discover(self) -> list[Clip]:
        if not self.of_motion:
            return super().discover()
        clips = self.raw_clips()
        if not clips:
            raise StageError(self.no_clips_message())
        return clips

    def no_clips_message(self) -> str:
        if not self.of_motion:
            return super().no_clips_message()
        meta = self.cfg.dataset_entry.meta
        about = (meta.get("about") or {}).get("layout", "")
        return (
            f"No scene (*_body_pose.npy) was found in {self.cfg.data_dir}. Put the scenes of "
            f"{self.cfg.dataset} there, or set --data_root=<folder>. How to get them: "
            f"{meta.get('origin')} The repository itself holds data_stats.pth only, no scenes. "
            f"{about}"
        )

    def write_lists(self, clips: list[Clip]) -> None:
        """Official split of scenes: the last four test, the two before validate."""
        lists = {split: self.cfg.filelist(split) for split in ("train", "val", "test")}
        if not self.of_motion or any(path.exists() for path in lists.values()):
            super().write_lists(clips)
            return
        names = sorted(clip.id for clip in clips)
        held = sum(_HELD.values())
        if len(names) <= held:
            raise StageError(
                f"{self.cfg.dataset} has {len(names)} usable scene(s); at least {held + 1} are "
                "needed: the last four test, two validate, the others train. Or write the lists "
                f"in {lists['train'].parent} yourself."
            )
        parts = {"train": names[:-held], "val": names[-held : -_HELD["test"]],
                 "test": names[-_HELD["test"] :]}  # fmt: skip
        for split, path in lists.items():
            write_filelist(path, parts[split])
        log.info(
            "official split of %d scenes: %s (lists in %s)", len(names),
            ", ".join(f"{len(v)} {k}" for k, v in parts.items()), shown(lists["train"].parent),
        )  # fmt: skip

    def fingerprint(self, clip: Clip) -> dict[str, Any]:
        made = super().fingerprint(clip)
        if self.of_motion:
            files = self.scene_files(clip.id)
            for path in (files.face, files.missing, files.lips):
                if path is not None and path.is_file():
                    own = path.stat()
                    made["inputs"].append([path.name, own.st_size, int(own.st_mtime)])
        return made

    def process_clip(self, clip: Clip, out: Path) -> dict[str, Any]:
        if not self.of_motion:
            return super().process_clip(clip, out)
        files = SceneFiles.of_folder(self.source, clip.id)
        pose = load_array(files.pose, (POSE_SIZE,))
        face = load_array(files.face, (FACE_SIZE,))
        if len(pose) != len(face):
            raise DataError(
                f"{files.pose.name} has {len(pose)} frames, {files.face.name} {len(face)}"
            )
        check_sound(files.sound, len(pose), self.cfg.fps)
        missing = missing_frames(files.missing, len(pose))
        if missing.all():
            raise SkipClip("no valid face code in any frame")
        if len(pose) < self.min_frames:
            raise SkipClip(f"too short: {len(pose)} frames")
        if not (np.isfinite(pose).all() and np.isfinite(np.asarray(face)[~missing]).all()):
            raise SkipClip("not finite: NaN or infinite values in the motion")
        write_json(out / "scene.json", {"frames": len(pose), "valid": int((~missing).sum())})
        return {"frames": int((~missing).sum()), "seconds": round(len(pose) / self.cfg.fps, 3)}

    # -- ordinary videos ---------------------------------------------------------------------------

    def prepare_clip(self, clip: FaceClip, out: Path) -> None:
        start, stop = self.longest_take(clip, _MAX_MISSING, self.min_frames)
        Points(
            landmarks=fill_gaps(clip.track.landmarks[start:stop]),
            valid=clip.track.found[start:stop],
            size=max(clip.track.size),
            crop=np.array([0, 0, *clip.track.size]),
            start=start,
            fps=clip.fps,
        ).save(out / POINTS)
        wave = load_audio(clip.clip.audio, SAMPLE_RATE)
        step = SAMPLE_RATE / clip.fps
        own = wave[round(start * step) : round(stop * step)]
        own = np.pad(own, (0, round(stop * step) - round(start * step) - len(own)))
        # There is no partner: silence, not a copy of the own voice.
        save_stereo(out / SOUND, np.stack([own, np.zeros_like(own)], axis=1), SAMPLE_RATE)

    def finalize(self, report: ProcessReport) -> None:
        super().finalize(report)
        self.ensure(sorted(set(report.of("ok")) - report.dropped))
        _ = self.stats  # made once, while only one process is here

    def ensure(self, names: Iterable[str]) -> None:
        """Codes of videos, where these settings have not made them yet."""
        if self.of_motion:
            return
        faces = self.faces
        missing = [name for name in names if not self.scene_files(name).face.is_file()]
        if not missing:
            return
        log.info("face codes of %d clips", len(missing))
        for name in progress(missing, unit="clip", desc="codes", show=self.cfg.show_progress):
            self._encode(name, faces)

    def _encode(self, name: str, faces: FaceModel) -> None:
        points = Points.read(self.output_dirs(name)[0] / POINTS)
        seen = points.landmarks[points.valid]
        rows = np.linspace(0, len(seen) - 1, min(len(seen), 200)).astype(int)
        codes = faces.fit(points.landmarks, faces.neutral_of(seen[rows])).expression
        # The face at rest does not depend on the sound.
        codes = (codes - codes[points.valid].mean(axis=0)).astype(np.float32)
        files = self.scene_files(name)
        files.face.parent.mkdir(parents=True, exist_ok=True)
        missing = np.flatnonzero(~points.valid)
        parts = [(files.lips, faces.lips(codes)), (files.missing, missing), (files.face, codes)]
        for path, values in parts:  # the codes come last: they say that all is there
            with atomic(path) as temporary, open(temporary, "wb") as file:
                np.save(file, values)

    @cached_property
    def faces(self) -> FaceModel:
        """The face model of a dataset of videos, learnt on first use."""
        options = self.cfg.codes
        people = {name: self.person_of(name) for name in self.training_clips}
        path = self.folder / f"face_model_{self.learnt_key(options.model_dump(), people)}.npz"
        if not path.is_file():
            clips = {}
            for name in self.training_clips:
                points = Points.read(self.output_dirs(name)[0] / POINTS)
                clips[name] = points.landmarks[points.valid]
            model = learn_face_model(
                clips, people, n_exp=options.n, frames_per_clip=options.frames_per_clip
            )
            model.save(path)
            log.info("face codes learnt from %s", model.sources)
        return FaceModel.read(path)

    # -- what datasets read ------------------------------------------------------------------------

    def scene_files(self, name: str) -> SceneFiles:
        """Where the parts of a usable clip lie."""
        if self.of_motion:
            return SceneFiles.of_folder(self.source, name)
        home = self.output_dirs(name)[0]
        codes = home / f"codes_{self.faces.id}"
        return SceneFiles(
            name, None, codes / "face.npy", codes / "missing.npy", home / SOUND, codes / "lips.npy"
        )

    def partner(self) -> A2PProcess:
        """The preparation of the partner's recordings.

        Raises:
            StageError: the dataset names no partner.
        """
        name = self.cfg.partner if self.of_motion else None
        if name is None:
            raise StageError(f"data.flip_person: {self.cfg.dataset} names no partner")
        over: dict[str, Any] = {"fps": self.cfg.fps}
        # Folders that were given lie beside those of the partner.
        for key in ("root", "data_root", "preprocessed_root"):
            if self.cfg[key]:
                own = resolve(self.cfg[key])
                if self.cfg.dataset not in own.parts:
                    raise StageError(
                        f"data.flip_person: {key}={own} does not name {self.cfg.dataset}, so that "
                        f"the folder of {name} cannot be derived; lay both out as .../<person>/..."
                    )
                over[key] = str(Path(*(name if p == self.cfg.dataset else p for p in own.parts)))
        return A2PProcess(load_config(self.cfg.model, name, overrides=over))

    @property
    def wraps(self) -> bool:
        return self.of_motion and self.cfg.wrap_root_yaw

    @cached_property
    def stats(self) -> Stats:
        """Units of motion and sound: the released ones where they lie beside the scenes, else those
        of the training scenes."""
        released = self.source / STATS
        if self.of_motion and released.is_file():
            return Stats.read(released)
        more = [self.wraps, None if self.of_motion else self.faces.id]
        path = self.folder / f"data_stats_{self.learnt_key(*more)}.npz"
        if not path.is_file():
            self.ensure(self.training_clips)
            names = progress(
                self.training_clips, unit="scene", desc="units", show=self.cfg.show_progress
            )
            learn_stats((self.scene_files(name) for name in names), self.wraps).save(path)
        return Stats.read(path)
