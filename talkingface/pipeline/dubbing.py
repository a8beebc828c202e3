"""Base class of pipelines that dub: each frame of a video keeps its place, the mouth is changed.

The source is read twice: to track the face, and to generate frames. Frames are streamed to the
video encoder: only the landmarks are kept for the whole length, and stored mouths that are used.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.clips import Clip
from talkingface.data.dataprocess.face_crops import FaceCropProcess
from talkingface.data.face.align import CROP_POINTS
from talkingface.data.face.blend import mix
from talkingface.data.face.mouth_shapes import HeadFrame
from talkingface.data.face.pose import head_pose
from talkingface.data.face.series import runs
from talkingface.data.face.tracking import FaceTrack, track_face
from talkingface.data.media.audio import load_audio
from talkingface.data.media.images import is_image, read_image
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import read_frames
from talkingface.data.media.voice import rest_weights
from talkingface.errors import DataError
from talkingface.pipeline.base import SAMPLE_RATE, Pipeline
from talkingface.pipeline.retrieval.bank import (
    MouthBank,
    bank_of_clips,
    bank_of_video,
    cut_out,
)
from talkingface.pipeline.retrieval.retriever import (
    Guess,
    MouthRetriever,
    PresentFace,
    RetrievalOptions,
)

log = logging.getLogger(__name__)

BACKWARD_CHUNK = 64  # frames in memory while a video is played backwards
_MAX_GAP_SECONDS = 0.2  # frames in longer gaps without a face are not changed
_UNLIKELY_RATE = 240  # frames/s; above it stands in files whose rate is not known
_MARGIN_SECONDS = 1.0  # after the last needed frame, for the smoothing of boxes
_RATES = (10.0, 60.0)  # frames/s that a source may keep
_MAX_YAW = 50.0  # degrees; beyond, half the mouth is hidden; chosen, not measured
_FADE = 3  # frames over which the change begins and ends at a longer gap


@dataclass(frozen=True)
class DubbedVideo:
    """A source after face tracking, independent of the audio.

    Attributes:
        path: video or still image.
        track: face track at the configured frame rate.
        strength: (T,) float32 in 0..1, how much each frame is changed; 0 without a face.
        fps: frame rate of the track and of the output.
    """

    path: Path
    track: FaceTrack
    strength: np.ndarray
    fps: float

    @property
    def still(self) -> bool:
        return is_image(self.path)


class DubbingBase(Pipeline):
    """Tracks a source, plays its frames for the length of a sound, and finds stored mouths."""

    needs_config = ("infer.frame_rate", "infer.when_short")
    baselines: tuple[str, ...] = ("copy_reference", "retrieved_mouth")

    def open_source(
        self, source: Path, show_progress: str | bool, seconds: float | None = None
    ) -> DubbedVideo:
        """Track the face of a video or picture.

        Args:
            seconds: what is needed of the video; None: all of it.

        Raises:
            DataError: it cannot be read or no face is found.
        """
        fps = self.cfg.fps
        if not is_image(source):
            info = probe(source)
            if not info.has_video:
                raise DataError(f"{source} has no video; give a video or an image as the source.")
            if self.cfg.infer.frame_rate == "source":
                known = 1 <= info.fps <= _UNLIKELY_RATE
                fps = min(max(info.fps, _RATES[0]), _RATES[1]) if known else fps
            if abs(info.fps - fps) > 0.01:
                log.info("%s: resampled from %.3f to %g frames/s", source.name, info.fps, fps)
        first = None if seconds is None else round((seconds + _MARGIN_SECONDS) * fps)
        track = track_face(
            source, fps=fps, options=self.cfg.face, first=first, show_progress=show_progress
        )
        if track.found_ratio < 0.9:
            log.warning(
                "%s: a face was found in only %.0f %% of the frames; the others are not changed",
                source.name,
                100 * track.found_ratio,
            )
        yaw = head_pose(track.landmarks, segments=track.segments)[:, 0]
        reasons = {"something covers the mouth": track.covered, "turned head": abs(yaw) > _MAX_YAW}
        change = in_view(track.found, fps)
        for reason, frames in reasons.items():
            change &= ~frames
            if frames.any():
                log.info("%s: %d frames are not changed: %s", source.name, frames.sum(), reason)
        if not change.any():
            log.warning("%s: no frame can be changed, so the video stays as it is", source.name)
        return DubbedVideo(source, track, fade_weights(change), fps)

    @classmethod
    def implied(cls, options: Mapping[str, str]) -> dict[str, Any]:
        """``--infer`` keeps the frame rate of the source; evaluations use that of the model."""
        return {"infer.frame_rate": "source"}

    def _frame_rate(self, identity: DubbedVideo) -> float:
        return identity.fps

    def _output_frames(self, identity: DubbedVideo, wave: np.ndarray) -> int:
        """As long as the sound, whatever the network needs after a frame."""
        if self.cfg.infer.when_short == "truncate" and not identity.still:
            return self.frame_count(identity, wave)
        return max(1, round(len(wave) * identity.fps / SAMPLE_RATE))

    # -- frames of the source ---------------------------------------------------------------------

    def read(self, path: Path, start: int, stop: int, fps: float) -> Iterator[np.ndarray]:
        """Source frames ``start`` to ``stop - 1``."""
        if is_image(path):
            image = read_image(path)
            for _ in range(start, stop):
                yield image
            return
        yield from islice(read_frames(path, fps=fps, start=start / fps), stop - start)

    def passes(self, source: DubbedVideo, total: int) -> Iterator[tuple[int, int, bool]]:
        """(start, stop, backwards) of the passes through the source, by ``infer.when_short``."""
        length, done, backwards = len(source.track), 0, False
        while done < total:
            count = min(length, total - done)
            yield (length - count, length, True) if backwards else (0, count, False)
            done += count
            if self.cfg.infer.when_short == "pingpong":
                backwards = not backwards

    def order(self, source: DubbedVideo, total: int) -> np.ndarray:
        """(total,) frame of the source for each output frame."""
        if source.still:
            return np.zeros(total, int)
        parts = [
            np.arange(start, stop)[:: -1 if backwards else 1]
            for start, stop, backwards in self.passes(source, total)
        ]
        return np.concatenate([np.zeros(0, int), *parts])

    def source_frames(self, source: DubbedVideo, total: int) -> Iterator[tuple[int, np.ndarray]]:
        """(index, frame) pairs in the order of :meth:`order`."""
        if source.still:
            image = read_image(source.path)
            for _ in range(total):
                yield 0, image
            return
        for start, stop, backwards in self.passes(source, total):
            if not backwards:
                yield from enumerate(self.read(source.path, start, stop, source.fps), start)
                continue
            while stop > start:
                low = max(stop - BACKWARD_CHUNK, start)
                chunk = list(self.read(source.path, low, stop, source.fps))
                for offset in range(len(chunk) - 1, -1, -1):
                    yield low + offset, chunk[offset]
                stop = low

    # -- stored mouths ----------------------------------------------------------------------------

    @property
    def guess(self) -> Guess | None:
        """A network that predicts mouth shapes; None: the regression on the person alone."""
        return None

    @property
    def retrieval_options(self) -> RetrievalOptions:
        return RetrievalOptions()

    def retrieved(
        self, source: DubbedVideo, wave: np.ndarray, total: int, silence: str = "keep"
    ) -> Iterator[np.ndarray]:
        """Frames with the mouths that the person has shown to similar sounds.

        Args:
            silence: ``close`` or ``keep``.

        Raises:
            DataError: no sound is known that belongs to mouths of the person.
        """
        fps, order = source.fps, self.order(source, total)
        rest = np.zeros(total)
        if silence == "close":
            rest = rest_weights(wave, total, fps)
        retriever = MouthRetriever(fps, self.retrieval_options, self.guess)
        pairs = self.source_frames(source, total)
        originals: list[np.ndarray] = []  # the frame whose mouth is being placed

        def frames() -> Iterator[np.ndarray]:
            for _, frame in pairs:
                originals.append(frame)
                yield frame

        bank = self.mouth_bank(source)
        dubbed = retriever.frames(source.track, bank, wave, order, frames(), rest)
        for number, frame in zip(order.tolist(), dubbed, strict=False):
            yield faded(originals.pop(), frame, source.strength[number])

    def still_mouth(self, source: DubbedVideo, total: int) -> Iterator[np.ndarray]:
        """Frames with the mouth of the first frame that has a face."""
        track = source.track
        first = int(np.flatnonzero(track.found)[0])
        points = track.landmarks[first, CROP_POINTS]
        patch = cut_out(next(self.read(source.path, first, first + 1, source.fps)), points[:, :2])
        head = HeadFrame.of(track.landmarks[track.found][:, CROP_POINTS])
        face = PresentFace.of(track, head, source.fps)
        for number, frame in self.source_frames(source, total):
            dubbed = face.with_mouth(frame, number, face.shapes[first], patch, "feather")
            yield faded(frame, dubbed, source.strength[number])

    def mouth_bank(self, source: DubbedVideo) -> MouthBank:
        """Other prepared clips of the same person in the dataset, else the source itself."""
        path, track = source.path, source.track
        clip = self._clips.get(path.resolve())
        if clip is not None:
            names = [c.id for c in self._clips.values() if c.speaker == clip.speaker]
            # Any settings: HyperLipsHR has no key max_crop, and bank_of_clips checks the files.
            folders = [
                self._crops.folder / name
                for name in names
                if name != clip.id
                and (self._crops.prepared.read_marker(name) or {}).get("status") == "ok"
            ]
            bank = bank_of_clips(folders, self.cfg.fps, source.fps)
            if bank is not None:
                return bank
        if source.still:
            raise DataError(
                f"{path.name} is a picture: its mouth has one shape only. Give a video in which "
                "the person speaks."
            )
        sound = path if clip is None else clip.audio
        if not probe(sound).has_audio:
            raise DataError(
                f"{path.name} has no sound, and no other clip of this person is prepared: there "
                "is no mouth whose sound is known"
            )
        return bank_of_video(path, track, load_audio(sound, SAMPLE_RATE), source.fps)

    @cached_property
    def _crops(self) -> FaceCropProcess:
        return FaceCropProcess(self.cfg)

    @cached_property
    def _clips(self) -> dict[Path, Clip]:
        return {clip.path.resolve(): clip for clip in self._crops.corpus.clips()}


def in_view(found: np.ndarray, fps: float) -> np.ndarray:
    """(T,) bool: frames with a face or in gaps up to 0.2 s."""
    result = found.copy()
    for start, stop in runs(found):
        if stop - start <= _MAX_GAP_SECONDS * fps:
            result[start:stop] = True
    return result


def fade_weights(change: np.ndarray) -> np.ndarray:
    """(T,) float32: 1 where a frame is changed, 0 where not, ramps over three frames between."""
    weights = change.astype(np.float32)
    for start, stop in runs(change):
        if change[start]:
            distance = np.arange(1, stop - start + 1) / (_FADE + 1)
            if start > 0:
                weights[start:stop] = np.minimum(weights[start:stop], distance)
            if stop < len(change):
                weights[start:stop] = np.minimum(weights[start:stop], distance[::-1])
    return weights


def faded(original: np.ndarray, changed: np.ndarray, strength: float) -> np.ndarray:
    """A mixture of two frames (H,W,3) uint8."""
    if strength >= 1:
        return changed
    if strength <= 0:
        return original
    return mix(original, changed, np.full(original.shape[:2], strength, np.float32))
