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

from talkingface.config.config import Config, load_config
from talkingface.data.clips import Clip
from talkingface.data.dataprocess.a2p.files import (
    FACE_SIZE,
    POSE_SIZE,
    SAMPLE_RATE,
    STATS,
    SceneFiles,
    Stats,
    check_sound,
    learn_stats,
    load_array,
    missing_frames,
)
from talkingface.data.dataprocess.a2p.scene_corpus import SceneCorpus
from talkingface.data.dataprocess.base import ProcessReport, SkipClip
from talkingface.data.dataprocess.video import DatasetStatisticsProcess, FaceClip
from talkingface.data.face.face_model import FaceModel, learn_face_model
from talkingface.data.face.points import POINTS, Points
from talkingface.data.face.series import fill_gaps
from talkingface.data.media.audio import load_audio, save_stereo
from talkingface.errors import DataError, StageError
from talkingface.utils.logs import progress
from talkingface.utils.paths import atomic, resolve, write_json

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

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        if self.of_motion:
            self.corpus = SceneCorpus(cfg)

    def settings(self) -> dict[str, Any]:
        if self.of_motion:
            return {"fps": self.cfg.fps}
        return super().settings()

    def process_clip(self, clip: Clip, out: Path) -> dict[str, Any]:
        if not self.of_motion:
            return super().process_clip(clip, out)
        files = SceneFiles.of_folder(self.corpus.source, clip.id)
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
        self.load_stats()  # while only one process is here

    def ensure(self, names: Iterable[str]) -> None:
        """Codes of videos, where these settings have not made them yet."""
        if self.of_motion:
            return
        faces = self.load_face_model()
        missing = [name for name in names if not self.scene_files(name).face.is_file()]
        if not missing:
            return
        log.info("face codes of %d clips", len(missing))
        for name in progress(missing, unit="clip", desc="codes", show=self.cfg.show_progress):
            self._encode(name, faces)

    def _encode(self, name: str, faces: FaceModel) -> None:
        points = Points.read(self.prepared.output_dirs(name)[0] / POINTS)
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

    def load_face_model(self) -> FaceModel:
        """The face model of a dataset of videos; fitted and written where it does not exist."""
        return self._face_model

    @cached_property
    def _face_model(self) -> FaceModel:
        options = self.cfg.codes
        people = {name: self.person_of(name) for name in self.training_clips}
        path = self.folder / f"face_model_{self.learnt_key(options.model_dump(), people)}.npz"
        if not path.is_file():
            clips = {}
            for name in self.training_clips:
                points = Points.read(self.prepared.output_dirs(name)[0] / POINTS)
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
            return SceneFiles.of_folder(self.corpus.source, name)
        home = self.prepared.output_dirs(name)[0]
        codes = home / f"codes_{self.load_face_model().id}"
        return SceneFiles(
            name, None, codes / "face.npy", codes / "missing.npy", home / SOUND, codes / "lips.npy"
        )

    def turned(self, split: str) -> bool:
        """Whether a split is that of the partner's recordings (``data.flip_person``)."""
        return self.cfg.data.flip_person and split == "test"

    def complete(self, split: str) -> None:
        (self.partner() if self.turned(split) else super()).complete(split)

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

    def load_stats(self) -> Stats:
        """Units of motion and sound: the released ones where they lie beside the scenes, else those
        of the training scenes, which are computed and written where they do not exist."""
        return self._stats

    @cached_property
    def _stats(self) -> Stats:
        released = self.corpus.source / STATS
        if self.of_motion and released.is_file():
            return Stats.read(released)
        more = [self.wraps, None if self.of_motion else self.load_face_model().id]
        path = self.folder / f"data_stats_{self.learnt_key(*more)}.npz"
        if not path.is_file():
            self.ensure(self.training_clips)
            names = progress(
                self.training_clips, unit="scene", desc="units", show=self.cfg.show_progress
            )
            learn_stats((self.scene_files(name) for name in names), self.wraps).save(path)
        return Stats.read(path)
