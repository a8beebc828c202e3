"""Preparation of talking-face videos: what every family does before its own files are written."""

from __future__ import annotations

import hashlib
import json
import logging
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from talkingface.data.clips import Clip, discover_clips
from talkingface.data.dataprocess.base import DataProcess, SkipClip
from talkingface.data.dataprocess.sheet import contact_sheet, picture, sheet_frames
from talkingface.data.face.mesh import TRACKER
from talkingface.data.face.tracking import FaceTrack, track_face
from talkingface.data.media.audio import load_audio
from talkingface.data.media.probe import MediaInfo, probe
from talkingface.data.media.reader import read_frames
from talkingface.data.media.writer import write_image
from talkingface.data.quality import RATE, measure

log = logging.getLogger(__name__)


@dataclass
class FaceClip:
    """A clip that was opened, listened to and looked at.

    Attributes:
        clip: where it lies.
        info: what the file says of itself.
        fps: frame rate of everything below.
        wave: (N,) float32, 16 kHz mono; sample 0 belongs to the first frame.
        track: the person's face.
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
        """The contact sheet; reads the video if that was not done yet."""
        if not set(sheet_frames(self.track)) <= set(self._sheet):
            for _ in self.frames():
                pass
        pictures = [self._sheet[index] for index in sorted(self._sheet)]
        return contact_sheet(pictures, self.track, self.wave, self.fps)


class VideoProcess(DataProcess):
    """Opens a clip, follows the face, measures it, draws its contact sheet; then the family's part.

    Sub-classes write :meth:`prepare_clip` and may raise :attr:`min_frames`.
    """

    needs_config = ("fps",)
    min_frames = 2
    needs_sound = True  # whether clips without sound are of no use

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
        finally:  # the sheet of an unusable clip shows why
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
        """Read sound and face of a clip.

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
                "no sound: the file has no audio track (a .wav of the same name would serve)"
            )
        fps = self.clip_fps(info)
        track = track_face(clip.path, fps=fps, options=self.cfg.face)
        if silent:
            log.warning("%s has no sound; its voice is silence", clip.path)
            wave = np.zeros(round((len(track) + 1) / fps * RATE), np.float32)
        else:
            wave = load_audio(clip.audio, rate=RATE)
        return FaceClip(clip, info, fps, wave, track)

    def clip_fps(self, info: MediaInfo) -> float:
        """Frame rate at which a clip is read."""
        return self.cfg.fps

    def longest_take(self, clip: FaceClip, max_missing: float, min_frames: int) -> tuple[int, int]:
        """Start and stop of the longest stretch with the face in view, as far as there is sound.

        Raises:
            SkipClip: it is too short, or the face is lost in too much of it.
        """
        start, stop = clip.track.longest_take()
        stop = min(stop, int(len(clip.wave) * clip.fps / RATE + 1e-6))
        if stop - start < min_frames:
            raise SkipClip(f"too short: {stop - start} frames of continuous face and sound")
        missing = 1 - float(clip.track.found[start:stop].mean())
        if missing > max_missing:
            raise SkipClip(f"face lost: in {missing:.0%} of its longest take")
        return start, stop

    def require_usable(self, clip: FaceClip) -> None:
        """What no training can use is skipped; everything else is measured and listed.

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
    """Knows whom each clip shows; configurations have ``person.name``."""

    needs_config = (
        *VideoProcess.needs_config,
        "person.name",
    )

    @cached_property
    def people(self) -> dict[str, str]:
        """Clip id -> person."""
        if self.cfg.person.name:
            return {}
        clips = discover_clips(self.cfg.data_dir, self.cfg.clips, quiet=True)
        return {clip.id: clip.speaker.replace("/", "_").strip(". ") for clip in clips}

    def person_of(self, clip_id: str) -> str:
        """Folder name of the person that a clip shows, also when its video is gone."""
        known = self.cfg.person.name or self.people.get(clip_id)
        return known or (self.prepared.read_marker(clip_id) or {}).get("person") or self.cfg.dataset

    def process_clip(self, clip: Clip, out: Path) -> dict[str, Any]:
        return {**super().process_clip(clip, out), "person": self.person_of(clip.id)}


class DatasetStatisticsProcess(SpeakerProcess):
    """Learns something from all training clips, once they are prepared.

    Sub-classes write :meth:`ensure`, which makes what rests on that and is not there yet.

    Class attributes:
        learnt_version: raise it when what is learnt changes.
    """

    learnt_version: ClassVar[int] = 1

    def usable_training_clips(self) -> list[str]:
        """Of the training list."""
        names, _ = self.prepared.usable("train")
        return names

    @cached_property
    def training_clips(self) -> list[str]:
        """Clips on which everything that is learnt rests."""
        return self.usable_training_clips()

    def learnt_key(self, *more: Any) -> str:
        """Names files that are learnt from the training clips."""
        own = [
            [n, (self.prepared.read_marker(n) or {})["fingerprint"]] for n in self.training_clips
        ]
        state = json.dumps([self.learnt_version, own, *more], sort_keys=True, default=str)
        return hashlib.sha256(state.encode()).hexdigest()[:10]

    @abstractmethod
    def ensure(self, names: Iterable[str]) -> None:
        """What these clips have only when the training clips are known."""

    def complete(self, split: str) -> None:
        self.ensure(self.prepared.usable(split)[0])
