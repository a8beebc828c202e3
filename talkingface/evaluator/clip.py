"""A generated and a real video of the same clip, aligned in time and size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.face.boxes import box_overlap, landmark_box, resize_image
from talkingface.data.face.scan import FaceScan, scan_video
from talkingface.data.face.topology import LIPS_OUTER
from talkingface.data.face.tracking import find_persons, lasting, meshes
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import count_frames, read_frames
from talkingface.errors import DataError

COMMON_FPS = 25.0  # frame rate to which both videos are resampled
MAX_LENGTH_GAP = 0.10  # largest difference of the lengths, as a share of the longer one
WARN_LENGTH_GAP = 2  # frames
MIN_VALID_RATIO = 0.5  # share of frames with a value; below it a metric is nan
WARN_VALID_RATIO = 0.9  # below it a metric adds a note


@dataclass
class ClipPair:
    """Two videos to compare.

    Frames are paired by index at 25 frames/s, up to the shorter length. Generated frames get the
    size of the real ones. Adjustments are recorded in ``notes``.

    Attributes:
        name: clip id.
        generated, real: video files.
        cache_generated: keep the landmarks of the generated video on disk, for repeated use.
        audio: the speech that the lips should follow; None: that of the real video, else of the
            generated one.
        samples: further generated videos of the same sound, for diversity; of a deterministic
            model, ``generated`` repeated.
        source: picture or video of the person, as reference for identity; None: the first real
            frame with a face.
        native: the current generated frame of :meth:`frames` in its original size.
    """

    name: str
    generated: Path
    real: Path
    cache_generated: bool = False
    audio: Path | None = None
    samples: tuple[Path, ...] = ()
    source: Path | None = None
    notes: list[str] = field(default_factory=list)
    native: np.ndarray | None = field(default=None, repr=False)
    _meshes: dict[float, np.ndarray] = field(init=False, repr=False, default_factory=dict)

    @cached_property
    def fps(self) -> float:
        """Frames per second at which both are compared, since px/frame depends on the rate."""
        rates = [probe(path).fps for path in (self.generated, self.real)]
        if any(abs(rate - COMMON_FPS) > 1e-3 for rate in rates):
            self.notes.append(
                f"frame rates {rates[0]:.3f} (generated) and {rates[1]:.3f} (real) resampled to "
                f"{COMMON_FPS:g}"
            )
        return COMMON_FPS

    @cached_property
    def sound(self) -> Path | None:
        """File with the speech that the lips should follow."""
        files = [self.audio, self.real, self.generated]
        return next((f for f in files if f is not None and probe(f).has_audio), None)

    @cached_property
    def resized(self) -> bool:
        """Whether the sizes of the two videos differ by more than the encoder's padding."""
        info = probe(self.generated)
        return not self._padded(info.width, info.height, *self.size)

    @property
    def native_size(self) -> tuple[int, int]:
        """Width and height of the generated video, without the encoder's padding."""
        info = probe(self.generated)
        return (info.width, info.height) if self.resized else self.size

    @staticmethod
    def _padded(width: int, height: int, real_width: int, real_height: int) -> bool:
        """Whether a size is the real one, or the real one padded to even numbers for H.264.

        The padding is one repeated row or column, which is cut off again.
        """
        return width - real_width in (0, 1) and height - real_height in (0, 1)

    @cached_property
    def lengths(self) -> tuple[int, int]:
        """Numbers of frames of the generated and the real video."""
        return count_frames(self.generated, self.fps), count_frames(self.real, self.fps)

    @cached_property
    def n_frames(self) -> int:
        """Compared frames.

        Raises:
            DataError: a video is empty or the lengths differ by more than 10 %.
        """
        generated, real = self.lengths
        gap = abs(generated - real)
        if min(generated, real) == 0:
            raise DataError(f"{self.name}: a video has no frame ({generated} and {real})")
        if gap > MAX_LENGTH_GAP * max(generated, real):
            raise DataError(
                f"{self.name}: the generated video has {generated} frames and the real one {real}; "
                "more than 10 % apart, they are not compared"
            )
        if gap > WARN_LENGTH_GAP:
            self.notes.append(f"lengths differ: {generated} generated, {real} real frames")
        return min(generated, real)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of the real video; all measurements are in its pixels."""
        info = probe(self.real)
        return info.width, info.height

    def facts(self) -> dict[str, Any]:
        """Number of compared frames, and size of the real and of the generated picture.

        Raises:
            DataError: the videos cannot be compared.
        """
        size, native = ("x".join(map(str, pair)) for pair in (self.size, self.native_size))
        return {"frames": self.n_frames, "size": size, "native": native}

    def frames(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Index, generated and real frame, (H,W,3) uint8 RGB; one decode of each video."""
        pairs = zip(
            read_frames(self.generated, fps=self.fps),
            read_frames(self.real, fps=self.fps),
            strict=False,
        )
        resized = False
        for index, (generated, real) in enumerate(pairs):
            if index >= self.n_frames:
                break
            height, width = real.shape[:2]
            if self._padded(generated.shape[1], generated.shape[0], width, height):
                generated = generated[:height, :width]
            self.native = generated
            if generated.shape != real.shape:
                if not resized:
                    size = f"{generated.shape[1]}x{generated.shape[0]}"
                    aspect = generated.shape[1] / generated.shape[0] / (width / height)
                    squeezed = "; they have another aspect ratio, so that faces are distorted"
                    self.notes.append(
                        f"generated frames {size} resized to {width}x{height}"
                        + squeezed * (abs(aspect - 1) > 0.02)
                    )
                    resized = True
                generated = resize_image(generated, (width, height))
            yield index, generated, real

    @cached_property
    def _real_scan(self) -> FaceScan:
        """Detections of each frame, independent of other frames (static mode)."""
        return scan_video(self.real, fps=self.fps, tracking=False)

    @cached_property
    def real_landmarks(self) -> np.ndarray:
        """(T,478,3) pixels of the main person, NaN where no face was found."""
        scan = self._real_scan
        persons = find_persons(scan, fps=self.fps) if len(scan.frame) else []
        beside = [p for p in lasting(persons)[1:] if {*scan.frame[p]} & {*scan.frame[persons[0]]}]
        if beside:
            self.notes.append(
                f"{len(beside) + 1} faces in the real video; measured are the larger and longer "
                "visible one and the face at the same place in the generated video"
            )
        return meshes(scan, persons[0] if persons else np.zeros(0, int))[: self.n_frames]

    @cached_property
    def cuts(self) -> np.ndarray:
        """First frames after scene cuts of the real video; differences over time exclude them.

        Empty if landmarks were given instead of a video.
        """
        if not self.real.exists():
            return np.zeros(0, int)
        cuts = self._real_scan.cuts
        return cuts[cuts < self.n_frames]

    @cached_property
    def generated_landmarks(self) -> np.ndarray:
        """Like ``real_landmarks``, of the same person, in pixels of the real video."""
        return self.generated_meshes(self.fps)[: self.n_frames] * self._scale

    @cached_property
    def _scale(self) -> np.ndarray:
        """Factors (3,) from the generated video's pixels to those of the real one."""
        if not self.resized:
            return np.ones(3, np.float32)
        info = probe(self.generated)
        wide, high = self.size[0] / info.width, self.size[1] / info.height
        return np.array([wide, high, wide], np.float32)  # the depth is in the scale of x

    def generated_meshes(self, fps: float) -> np.ndarray:
        """Landmarks of the generated video at a frame rate, (T,478,3) in its own pixels.

        With several persons, of the one at the place of the real video's person.
        """
        if fps not in self._meshes:
            scan = scan_video(self.generated, fps=fps, tracking=False, cache=self.cache_generated)
            self._meshes[fps] = meshes(scan, self._same_person(scan, fps))
        return self._meshes[fps]

    def _same_person(self, scan: FaceScan, fps: float) -> np.ndarray:
        """Indices of the detections that belong to the person of the real video."""
        persons = find_persons(scan, fps=fps) if len(scan.frame) else [np.zeros(0, int)]
        if len(persons) == 1:
            return persons[0]
        real = self.real_landmarks

        def overlap(person: np.ndarray) -> float:
            """Sum over frames of the box overlap (IoU) with the real person."""
            total = 0.0
            for member in person:
                index = round(scan.frame[member] / fps * self.fps)
                if index < len(real) and np.isfinite(real[index]).all():
                    box = landmark_box(scan.points[member] * self._scale)
                    total += box_overlap(box, landmark_box(real[index]))
            return total

        overlaps = [overlap(person) for person in persons]
        best = int(np.argmax(overlaps))  # without any overlap the first, which is the main person
        if not overlaps[best] and np.isfinite(real).any():
            self.notes.append("no face of the generated video is at the place of the real one")
        return persons[best]

    def region(self, name: str, index: int) -> tuple[int, int, int, int] | None:
        """Box x0, y0, x1, y1 of a region of a frame, from the real video's landmarks.

        ``full`` is the frame, ``face`` the box of all landmarks plus 10 % on each side, ``mouth``
        the box of the lips at twice its size. None when the frame has no face.
        """
        width, height = self.size
        if name == "full":
            return 0, 0, width, height
        points = self.real_landmarks[index, :, :2] if index < len(self.real_landmarks) else None
        if points is None or not np.isfinite(points).all():
            return None
        if name == "face":
            box = landmark_box(points, margin=0.1)
        else:
            box = landmark_box(points[list(LIPS_OUTER)], scale=2.0)
        x0, y0 = np.maximum(np.floor(box[:2]), 0).astype(int)
        x1, y1 = np.minimum(np.ceil(box[2:]), (width, height)).astype(int)
        return (x0, y0, x1, y1) if x1 - x0 >= 2 and y1 - y0 >= 2 else None


def missing_faces(name: str, clip: ClipPair, ratio: float, where: str) -> str | None:
    """Reason why a metric is undefined, if too few frames show a face; may add a note instead."""
    if ratio < MIN_VALID_RATIO:
        return f"a face was found {where} in only {ratio:.0%} of the frames"
    if ratio < WARN_VALID_RATIO:
        clip.notes.append(f"{name}: faces in {ratio:.0%} of the frames")
    return None
