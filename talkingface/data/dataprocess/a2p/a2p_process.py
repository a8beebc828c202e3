"""Preparation for audio2photoreal: checks scenes of the released layout, which are not copied, and
converts videos to scenes of the same layout (official code).

The face codes of a video are the expression coefficients of a landmark face model that is fitted to
the training clips. Layout: ``preprocessed_data/A2P/<clip>/scene.json`` or, for videos,
``points.npz``, ``audio.wav`` and, after the fit of the face model,
``codes_<model>/{face,missing,lips}.npy``; beside the clips ``face_model_<key>.npz`` and
``data_stats_<key>.npz``.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.config.config import Config, load_config
from talkingface.data.clips import Clip
from talkingface.data.dataprocess.a2p.files import (
    STATS,
    SceneFiles,
    Stats,
    check_sound,
    learn_stats,
    load_array,
    missing_frames,
)
from talkingface.data.dataprocess.a2p.scene_corpus import SceneCorpus
from talkingface.data.dataprocess.base import SkipClip
from talkingface.data.dataprocess.report import ProcessReport
from talkingface.data.dataprocess.video import DatasetStatisticsProcess, FaceClip
from talkingface.data.face.face_model import FaceModel
from talkingface.data.face.points import POINTS, Points
from talkingface.data.face.series import fill_gaps
from talkingface.data.media.audio import load_audio, save_wav
from talkingface.data.scenes import FACE_SIZE, POSE_SIZE, SAMPLE_RATE
from talkingface.errors import DataError, StageError
from talkingface.utils.logs import progress
from talkingface.utils.paths import atomic, resolve, write_json

SOUND = "audio.wav"
_MAX_MISSING = 0.1  # largest share of frames without a face


class A2PProcess(DatasetStatisticsProcess):
    """Writes scenes and the statistics of the training scenes."""

    needs_config = ("codes", "fps")
    id = "A2P"
    version = 1
    min_frames = 31

    @property
    def of_motion(self) -> bool:
        """Whether the dataset consists of scenes with motion; otherwise of videos."""
        return self.cfg.dataset_entry.meta.get("kind") == "motion"

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        if self.of_motion:
            self.corpus = SceneCorpus(cfg)

    def settings(self) -> dict[str, Any]:
        return {"fps": self.cfg.fps} if self.of_motion else super().settings()

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
        valid = ~missing_frames(files.missing, len(pose))
        if not valid.any():
            raise SkipClip("no valid face code in any frame")
        if len(pose) < self.min_frames:
            raise SkipClip(f"too short: {len(pose)} frames")
        if not (np.isfinite(pose).all() and np.isfinite(np.asarray(face)[valid]).all()):
            raise SkipClip("not finite: NaN or infinite values in the motion")
        write_json(out / "scene.json", {"frames": len(pose), "valid": int(valid.sum())})
        return {"frames": int(valid.sum()), "seconds": round(len(pose) / self.cfg.fps, 3)}

    # -- videos ------------------------------------------------------------------------------------

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
        # The partner's channel is silence, not a copy of this person's voice.
        save_wav(out / SOUND, np.stack([own, np.zeros_like(own)], axis=1), SAMPLE_RATE)

    def finalize(self, report: ProcessReport) -> None:
        super().finalize(report)
        self.ensure(sorted(set(report.of("ok")) - report.dropped))
        self.load_stats()  # written here, because only one process runs finalize

    def ensure(self, names: Iterable[str]) -> None:
        """Write the face codes of videos that have none for these settings."""
        if self.of_motion:
            return
        faces = self.load_face_model()
        missing = [name for name in names if not self.scene_files(name).face.is_file()]
        for name in self._bar(missing, "face codes"):
            self._encode(name, faces)

    def _encode(self, name: str, faces: FaceModel) -> None:
        points = self.points(name)
        codes = faces.fit(points.landmarks, faces.neutral_of(points.spread(200))).expression
        # The mean is subtracted: a person's neutral expression does not depend on the sound.
        codes = (codes - codes[points.valid].mean(axis=0)).astype(np.float32)
        files = self.scene_files(name)
        missing = np.flatnonzero(~points.valid)
        parts = [(files.lips, faces.lips(codes)), (files.missing, missing), (files.face, codes)]
        for path, values in parts:  # the codes last: their existence marks a complete clip
            with atomic(path) as temporary, open(temporary, "wb") as file:
                np.save(file, values)

    def load_face_model(self) -> FaceModel:
        """The face model of a dataset of videos; fitted and written if it does not exist."""
        return self._face_model

    @cached_property
    def _face_model(self) -> FaceModel:
        options = self.cfg.codes
        return self.learnt_face_model(
            options.model_dump(),
            lambda points: points.landmarks[points.valid],
            n_exp=options.n,
            frames_per_clip=options.frames_per_clip,
        )

    # -- what datasets read ------------------------------------------------------------------------

    def scene_files(self, name: str) -> SceneFiles:
        """Paths of the files of a usable clip."""
        if self.of_motion:
            return SceneFiles.of_folder(self.corpus.source, name)
        home = self.prepared.output_dirs(name)[0]
        codes = home / f"codes_{self.load_face_model().id}"
        return SceneFiles(
            name, None, codes / "face.npy", codes / "missing.npy", home / SOUND, codes / "lips.npy"
        )

    def turned(self, split: str) -> bool:
        """Whether a split consists of the partner's recordings (``data.flip_person``)."""
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
        # In configured folders the dataset's name is replaced by the partner's.
        for key in ("root", "data_root", "preprocessed_root"):
            if self.cfg[key]:
                own = resolve(self.cfg[key])
                if self.cfg.dataset not in own.parts:
                    raise StageError(
                        f"data.flip_person: {key}={own} has no folder {self.cfg.dataset}, so the "
                        f"folder of {name} cannot be derived; lay both out as .../<person>/..."
                    )
                over[key] = str(Path(*(name if p == self.cfg.dataset else p for p in own.parts)))
        return A2PProcess(load_config(self.cfg.model, name, overrides=over))

    @property
    def wraps(self) -> bool:
        """Whether the root's yaw is wrapped to 0..2 pi."""
        return self.of_motion and self.cfg.wrap_root_yaw

    def load_stats(self) -> Stats:
        """Statistics of motion and sound: the released file beside the scenes if it exists, else
        those of the training scenes, which are computed and written on first use."""
        return self._stats

    @cached_property
    def _stats(self) -> Stats:
        if self.of_motion and (self.corpus.source / STATS).is_file():
            return Stats.read(self.corpus.source / STATS)
        more = [self.wraps, None if self.of_motion else self.load_face_model().id]
        path = self.folder / f"data_stats_{self.learnt_key(*more)}.npz"
        if not path.is_file():
            self.ensure(self.training_clips)
            names = progress(
                self.training_clips, unit="scene", desc="units", show=self.cfg.show_progress
            )
            learn_stats((self.scene_files(name) for name in names), self.wraps).save(path)
        return Stats.read(path)
