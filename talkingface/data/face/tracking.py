"""From the faces of a video to one person: tracks, scene cuts, gaps and the choice among people.

Detections are linked to tracks inside one shot, tracks to persons by the shape of the face, and one
person is chosen. Nothing is decided by the order in which the detector lists faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from talkingface.data.face.boxes import MARGINS, box_overlap, face_boxes, landmark_box
from talkingface.data.face.pose import flip_depth, procrustes
from talkingface.data.face.scan import FaceScan, scan_video
from talkingface.data.face.series import runs
from talkingface.data.face.topology import N_POINTS, STABLE, pose_template
from talkingface.errors import DataError

if TYPE_CHECKING:
    from talkingface.config.schema import FaceSection

MAX_GAP = 0.2  # seconds without a detection that a track survives
_OVERLAP = 0.3  # least overlap (intersection over union) of the boxes of one track
# Largest root-mean-square distance of two median face shapes (template units) of one person. On 50
# clips, thirds of one clip were nearer in 91 % of pairs and 96 % of pairs of people were farther.
_SAME_SHAPE = 0.030
_SHAPE_POINTS = sorted({*STABLE, *pose_template()[0].tolist()})


@dataclass(frozen=True)
class FaceTrack:
    """The face of one person at a constant frame rate.

    Attributes:
        boxes: (T,4) x0, y0, x1, y1 in pixels; gaps are interpolated.
        found: (T,) bool, True where this person's face was really detected.
        landmarks: (T,478,3) pixels, NaN where not found.
        segments: (T,) int; frames of one number belong to one shot without a long gap, so motion
            inside is continuous. -1: this person is not in view.
        others: (T,) number of further faces in the frame.
        persons: different persons in view for at least a fifth of the time of this one, as far as
            the shapes of the faces tell.
        cuts: first frames after scene cuts.
        sharpness, mouth_texture, face_change: (T,) of this face, NaN where not found; see
            :class:`~talkingface.data.face.scan.FaceScan`.
        size: width and height of the picture.
    """

    boxes: np.ndarray
    found: np.ndarray
    landmarks: np.ndarray
    segments: np.ndarray
    others: np.ndarray
    persons: int
    cuts: np.ndarray
    sharpness: np.ndarray
    mouth_texture: np.ndarray
    face_change: np.ndarray
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def found_ratio(self) -> float:
        return float(self.found.mean()) if len(self.found) else 0.0

    def longest_take(self) -> tuple[int, int]:
        """Start and stop of the longest stretch without a cut or a long gap."""
        takes = [(b - a, a, b) for a, b in runs(self.segments) if self.segments[a] >= 0]
        _, start, stop = max(takes)
        return start, stop

    @property
    def longest_gap(self) -> int:
        """Frames of the longest stretch without this face."""
        return max((b - a for a, b in runs(self.found.astype(int)) if not self.found[a]), default=0)


def track_face(
    path: Path,
    *,
    fps: float,
    options: FaceSection,
    cache: bool = True,
    show_progress: str | bool = False,
) -> FaceTrack:
    """Find the faces of a video or still picture and follow the chosen person.

    Raises:
        DataError: the file cannot be read, or no face is in it.
    """
    scan = scan_video(
        path,
        fps=fps,
        tracking=True,
        max_faces=options.max_faces,
        max_side=options.max_side,
        min_detection=options.min_detection,
        cache=cache,
        show_progress=show_progress,
    )
    if not len(scan.frame):
        raise DataError(
            f"no face found: {path.name} ({scan.n_frames} frames). The face must be visible, "
            "roughly upright and at least about 25 px high."
        )
    return follow(
        scan,
        fps=fps,
        choose=options.choose,
        smoothing=options.box_smoothing,
        margins=tuple(options.box_margins),
    )


def video_landmarks(path: Path, *, fps: float, tracking: bool, cache: bool = True) -> np.ndarray:
    """Meshes of the main person of a video: (T,478,3) float32 pixels, NaN where not found.

    Raises:
        DataError: the file cannot be decoded.
    """
    scan = scan_video(path, fps=fps, tracking=tracking, cache=cache)
    chosen = choose_person(scan, fps=fps) if len(scan.frame) else np.zeros(0, int)
    return meshes(scan, chosen)


def meshes(scan: FaceScan, chosen: np.ndarray) -> np.ndarray:
    """Meshes of chosen detections, one per frame at most: (T,478,3) float32, NaN elsewhere."""
    points = np.full((scan.n_frames, N_POINTS, 3), np.nan, np.float32)
    points[scan.frame[chosen]] = scan.points[chosen]
    return points


def follow(
    scan: FaceScan,
    *,
    fps: float,
    choose: str | int = "main",
    smoothing: float = 0.2,
    margins: tuple[float, float, float] = MARGINS,
) -> FaceTrack:
    """The chosen person of a scan that holds at least one face; see :func:`choose_person`."""
    persons = find_persons(scan, fps=fps)
    chosen = _choose(scan, persons, choose)
    frames = scan.frame[chosen]

    def spread(values: np.ndarray) -> np.ndarray:
        result = np.full((scan.n_frames, *values.shape[1:]), np.nan, np.float32)
        result[frames] = values[chosen]
        return result

    landmarks = spread(scan.points)
    found = np.zeros(scan.n_frames, bool)
    found[frames] = True
    segments = _segments(found, scan.cuts, MAX_GAP * fps)
    return FaceTrack(
        boxes=face_boxes(
            landmarks, fps=fps, smoothing=smoothing, segments=segments, margins=margins
        ),
        found=found,
        landmarks=landmarks,
        segments=segments,
        others=np.bincount(scan.frame, minlength=scan.n_frames) - found,
        persons=len(lasting(persons)),
        cuts=scan.cuts,
        sharpness=spread(scan.sharpness),
        mouth_texture=spread(scan.mouth_texture),
        face_change=spread(scan.face_change),
        size=(int(scan.size[0]), int(scan.size[1])),
    )


def choose_person(scan: FaceScan, *, fps: float, choose: str | int = "main") -> np.ndarray:
    """Detections of one person, ascending in time.

    Args:
        choose: ``main`` takes who is large and long in view; among those in view for at least a
            fifth of that time ``largest`` takes the largest face, ``left``, ``right`` or a number
            n (from 0) the n-th from the left.

    Returns:
        Indices into the detections of the scan, at most one per frame.

    Raises:
        DataError: there are not so many persons.
    """
    return _choose(scan, find_persons(scan, fps=fps), choose)


def _choose(scan: FaceScan, persons: list[np.ndarray], choose: str | int) -> np.ndarray:
    if choose == "main":
        return persons[0]
    if choose == "largest":
        height = np.ptp(scan.points[..., 1], axis=1)
        return max(lasting(persons), key=lambda p: float(np.median(height[p])))
    ordered = sorted(lasting(persons), key=lambda p: float(np.median(scan.points[p, :, 0])))
    if choose == "left":
        return ordered[0]
    if choose == "right":
        return ordered[-1]
    if not 0 <= int(choose) < len(ordered):
        raise DataError(
            f"face.choose={choose}, but {len(ordered)} person(s) are in view (counted from 0)."
        )
    return ordered[int(choose)]


def lasting(persons: list[np.ndarray]) -> list[np.ndarray]:
    """Persons of :func:`find_persons` without false alarms and passers-by."""
    return [p for p in persons if len(p) >= len(persons[0]) / 5]


@dataclass
class _Track:
    """Detections of one face in one shot; it may have short gaps."""

    scan: FaceScan
    members: list[int]

    @cached_property
    def first(self) -> int:
        return int(self.scan.frame[self.members[0]])

    @property
    def last(self) -> int:
        return int(self.scan.frame[self.members[-1]])

    @cached_property
    def weight(self) -> float:
        """Sum of the face heights: large and long in view."""
        y = self.scan.points[self.members, :, 1]
        return float((y.max(axis=1) - y.min(axis=1)).sum())

    @cached_property
    def shape(self) -> np.ndarray:
        """Median shape of the steady points after taking out pose and size."""
        points = flip_depth(self.scan.points[self.members])
        vertices, template = pose_template()
        scale, rotation, shift = procrustes(template, points[:, vertices])
        own = (points[:, _SHAPE_POINTS] - shift[:, None]) @ rotation / scale[:, None, None]
        return np.median(own, axis=0)

    def box(self, member: int) -> np.ndarray:
        return landmark_box(self.scan.points[member])


def find_persons(scan: FaceScan, *, fps: float) -> list[np.ndarray]:
    """Group the detections of a scan by person, the main one first.

    Two tracks are one person when they never show at once and either follow each other at the same
    place of one shot or have the same shape of face. Very similar people may be taken for one, and
    one person for two after a strong turn of the head.
    """
    tracks = sorted(_link(scan, fps), key=lambda t: (-t.weight, t.first))
    persons: list[list[_Track]] = []
    for track in tracks:
        for person in persons:
            apart = all(track.first > t.last or track.last < t.first for t in person)
            if apart and any(_same(track, other, scan.cuts) for other in person):
                person.append(track)
                break
        else:
            persons.append([track])
    persons.sort(key=lambda group: -sum(t.weight for t in group))
    return [np.sort(np.concatenate([t.members for t in group])) for group in persons]


def _link(scan: FaceScan, fps: float) -> list[_Track]:
    tracks: list[_Track] = []
    alive: list[_Track] = []
    cuts = set(scan.cuts.tolist())
    boxes = np.array([landmark_box(p) for p in scan.points])
    bounds = np.searchsorted(scan.frame, np.arange(scan.n_frames + 1))
    for index in range(scan.n_frames):
        if index in cuts:
            alive = []
        alive = [t for t in alive if index - t.last <= MAX_GAP * fps + 1]
        members = range(bounds[index], bounds[index + 1])
        pairs = sorted(
            ((box_overlap(boxes[t.members[-1]], boxes[m]), -n, m) for n, t in enumerate(alive)
             for m in members),
            reverse=True,
        )  # fmt: skip
        free_tracks, free_members = set(range(len(alive))), set(members)
        for overlap, minus_n, member in pairs:
            if overlap < _OVERLAP:
                break
            if -minus_n in free_tracks and member in free_members:
                alive[-minus_n].members.append(member)
                free_tracks.discard(-minus_n)
                free_members.discard(member)
        for member in sorted(free_members):
            tracks.append(_Track(scan, [member]))
            alive.append(tracks[-1])
    return tracks


def _same(a: _Track, b: _Track, cuts: np.ndarray) -> bool:
    first, second = (a, b) if a.first < b.first else (b, a)
    if not ((cuts > first.last) & (cuts <= second.first)).any():
        if box_overlap(first.box(first.members[-1]), second.box(second.members[0])) >= _OVERLAP:
            return True
    distance = np.sqrt(((a.shape - b.shape) ** 2).sum(1).mean())
    return bool(distance < _SAME_SHAPE)


def _segments(found: np.ndarray, cuts: np.ndarray, max_gap: float) -> np.ndarray:
    """Number the stretches in which a face can be followed; short gaps belong to them."""
    labels = np.full(len(found), -1)
    number, last = -1, None
    borders = set(cuts.tolist())
    for index in range(len(found)):
        if index in borders:
            last = None
        if not found[index]:
            continue
        if last is None or index - last - 1 > max_gap:
            number += 1
            last = index
        labels[last : index + 1] = number
        last = index
    return labels
