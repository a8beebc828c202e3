"""Preparation of talking-face videos: the steps that all families share."""

from __future__ import annotations

import hashlib
import json
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from talkingface.data.clips import Clip, discover_clips
from talkingface.data.dataprocess.base import DataProcess, SkipClip
from talkingface.data.dataprocess.sheet import contact_sheet, picture, sheet_frames
from talkingface.data.face.face_model import FaceModel, learn_face_model
from talkingface.data.face.mesh import TRACKER
from talkingface.data.face.points import POINTS, Points
from talkingface.data.face.tracking import FaceTrack, track_face
from talkingface.data.media.audio import load_audio
from talkingface.data.media.probe import MediaInfo, probe
from talkingface.data.media.reader import read_frames
from talkingface.data.media.writer import write_image
from talkingface.data.quality import RATE, measure

log = logging.getLogger(__name__)


@dataclass
class FaceClip:
    """A clip with its decoded sound and tracked face.

    Attributes:
        clip: id and files.
        info: metadata of the video file.
        fps: frame rate of the frames and of ``track``.
        wave: (N,) float32, 16 kHz mono; sample 0 belongs to the first frame.
        track: the tracked face.
    """

    clip: Clip
    info: MediaInfo
    fps: float
    wave: np.ndarray
    track: FaceTrack
    _sheet: dict[int, np.ndarray] = field(default_factory=dict)

    def frames(self) -> Iterator[tuple[int, np.ndarray]]:
        """(index, (H,W,3) uint8 RGB) of all frames; a pass also fills the contact sheet."""
        wanted = set(sheet_frames(self.track))
        for index, frame in enumerate(read_frames(self.clip.path, fps=self.fps)):
            if index >= len(self.track):
                return
            if index in wanted and index not in self._sheet:
                self._sheet[index] = picture(frame, self.track, index)
            yield index, frame

    def sheet(self) -> np.ndarray:
        """The contact sheet; reads the video if its frames are not known yet."""
        if not set(sheet_frames(self.track)) <= set(self._sheet):
            for _ in self.frames():
                pass
        pictures = [self._sheet[index] for index in sorted(self._sheet)]
        return contact_sheet(pictures, self.track, self.wave, self.fps)


class VideoProcess(DataProcess):
    """Opens a clip, tracks the face, and writes measures, contact sheet and the family's files.

    Sub-classes implement :meth:`prepare_clip` and may increase :attr:`min_frames`. They need the
    key ``fps`` unless they override :meth:`clip_fps` and :meth:`settings`.
    """

    min_frames = 2
    needs_sound = True  # whether clips without sound are skipped

    def settings(self) -> dict[str, Any]:
        cfg = self.cfg
        return {
            "fps": cfg.fps,
            "face": cfg.face.model_dump(),
            "min_seconds": cfg.min_seconds,
            "tracker": TRACKER,
        }

    @abstractmethod
    def prepare_clip(self, clip: FaceClip, out: Path) -> None:
        """Write the files of one clip into ``out`` (exists, empty, temporary)."""

    def process_clip(self, clip: Clip, out: Path) -> dict[str, Any]:
        face_clip = self.open_clip(clip)
        track, wave, fps = face_clip.track, face_clip.wave, face_clip.fps
        try:
            self.require_usable(face_clip)
            self.prepare_clip(face_clip, out)
        finally:  # the sheet of an unusable clip shows the reason
            write_image(self.prepared.sheet_path(clip.id), face_clip.sheet(), sync=False)
        return {
            "frames": int(track.found.sum()),
            "seconds": round(len(track) / fps, 3),
            "size": list(track.size),
            "source_fps": round(face_clip.info.fps, 3),
            "sound": hashlib.blake2b(wave.tobytes(), digest_size=8).hexdigest(),
            "measures": measure(track, wave, fps),
        }

    def open_clip(self, clip: Clip) -> FaceClip:
        """Decode the sound of a clip and track its face.

        Raises:
            SkipClip: no picture or no sound.
            DataError: the file cannot be read, or shows no face.
        """
        info = probe(clip.path)
        if not info.has_video:
            raise SkipClip("no picture: the file has no video stream")
        silent = clip.audio == clip.path and not info.has_audio
        if silent and self.needs_sound:
            raise SkipClip(
                "no sound: the file has no audio track, and there is no .wav of the same name"
            )
        fps = self.clip_fps(info)
        track = track_face(clip.path, fps=fps, options=self.cfg.face)
        if silent:
            log.warning("%s has no sound; silence is used", clip.path)
            wave = np.zeros(round((len(track) + 1) / fps * RATE), np.float32)
        else:
            wave = load_audio(clip.audio, rate=RATE)
        return FaceClip(clip, info, fps, wave, track)

    def open_source(
        self, source: Path, *, sound: bool = False, show_progress: str | bool = False
    ) -> FaceClip:
        """Open a video or picture outside the dataset, of any length.

        Args:
            sound: read the sound of a video; otherwise, and where there is none, silence is used.

        Raises:
            DataError: the file cannot be read, or shows no face.
        """
        info = probe(source)
        fps = self.clip_fps(info)
        track = track_face(source, fps=fps, options=self.cfg.face, show_progress=show_progress)
        wave = np.zeros(round((len(track) + 1) / fps * RATE), np.float32)
        if sound and info.has_audio and info.has_video:
            samples = load_audio(source, RATE)[: len(wave)]
            wave[: len(samples)] = samples
        return FaceClip(Clip(source.stem, source, source), info, fps, wave, track)

    def clip_fps(self, info: MediaInfo) -> float:
        """Frame rate at which a clip is read."""
        return self.cfg.fps

    def longest_take(self, clip: FaceClip, max_missing: float, min_frames: int) -> tuple[int, int]:
        """Start and stop of the longest segment with a face, cut where the sound ends.

        Raises:
            SkipClip: it is too short, or too many of its frames have no face.
        """
        start, stop = clip.track.longest_take()
        stop = min(stop, int(len(clip.wave) * clip.fps / RATE + 1e-6))
        if stop - start < min_frames:
            raise SkipClip(f"too short: {stop - start} frames of continuous face and sound")
        missing = 1 - float(clip.track.found[start:stop].mean())
        if missing > max_missing:
            raise SkipClip(f"face lost: in {missing:.0%} of the longest take")
        return start, stop

    def require_usable(self, clip: FaceClip) -> None:
        """Check that training can use the clip.

        Raises:
            SkipClip: too short, mostly without a face, or silent.
        """
        track, seconds = clip.track, len(clip.track) / clip.fps
        if track.found_ratio < self.cfg.face.min_face_ratio:
            raise SkipClip(f"face lost: found in {track.found_ratio:.0%} of the frames")
        if seconds < self.cfg.min_seconds or track.found.sum() < self.min_frames:
            raise SkipClip(f"too short: {len(track)} frames, {seconds:.2f} s")
        if self.needs_sound and not np.any(clip.wave):
            raise SkipClip("silent: the sound track is all zeros")


class SpeakerProcess(VideoProcess):
    """A preparation that assigns each clip to a person; its configuration has ``person.name``."""

    needs_config = ("person.name",)

    @cached_property
    def people(self) -> dict[str, str]:
        """Clip id -> person."""
        if self.cfg.person.name:
            return {}
        clips = discover_clips(self.cfg.data_dir, self.cfg.clips, quiet=True)
        return {clip.id: clip.speaker.replace("/", "_").strip(". ") for clip in clips}

    def person_of(self, clip_id: str) -> str:
        """Folder name of a clip's person; from the marker if the video no longer exists."""
        name = self.cfg.person.name or self.people.get(clip_id)
        return name or (self.prepared.read_marker(clip_id) or {}).get("person") or self.cfg.dataset

    def process_clip(self, clip: Clip, out: Path) -> dict[str, Any]:
        return {**super().process_clip(clip, out), "person": self.person_of(clip.id)}


class DatasetStatisticsProcess(SpeakerProcess):
    """A preparation that fits statistics or models to the training clips after preparing them.

    Sub-classes implement :meth:`ensure`, which writes the missing files that depend on the fit.

    Class attributes:
        learnt_version: raise it when the fit changes.
    """

    learnt_version: ClassVar[int] = 1

    def usable_training_clips(self) -> list[str]:
        """Ids of the usable clips of the training list."""
        return self.prepared.usable("train")[0]

    @cached_property
    def training_clips(self) -> list[str]:
        """Ids of the clips that statistics and models are fitted to."""
        return self.usable_training_clips()

    def learnt_key(self, *more: Any) -> str:
        """Hash of the training clips, for the names of files that are fitted to them."""
        markers = {name: self.prepared.read_marker(name) or {} for name in self.training_clips}
        clips = [[name, marker["fingerprint"]] for name, marker in markers.items()]
        state = json.dumps([self.learnt_version, clips, *more], sort_keys=True, default=str)
        return hashlib.sha256(state.encode()).hexdigest()[:10]

    def points(self, name: str) -> Points:
        """Landmarks of a prepared clip."""
        return Points.read(self.prepared.output_dirs(name)[0] / POINTS)

    def learnt_face_model(
        self, state: Any, landmarks: Callable[[Points], np.ndarray], **options: Any
    ) -> FaceModel:
        """The face model of the training clips; fitted and written if it does not exist.

        Args:
            state: settings that the name of the file depends on.
            landmarks: selects the frames of a clip to learn from.
            options: of :func:`learn_face_model`.
        """
        people = {name: self.person_of(name) for name in self.training_clips}
        path = self.folder / f"face_model_{self.learnt_key(state, people)}.npz"
        if not path.is_file():
            names = self._bar(self.training_clips, "face model")
            clips = {name: landmarks(self.points(name)) for name in names}
            model = learn_face_model(clips, people, **options)
            model.save(path)
            log.info("face model learnt from %s", model.sources)
        return FaceModel.read(path)

    @abstractmethod
    def ensure(self, names: Iterable[str]) -> None:
        """Write the missing files of these clips that depend on the training clips."""

    def complete(self, split: str) -> None:
        self.ensure(self.prepared.usable(split)[0])
