"""Selection of one person among the faces of a video: tracks, scene cuts, gaps and persons.

Detections are linked to tracks inside one shot, tracks are grouped to persons by the shape of the
face, and one person is chosen. The order in which the detector lists faces has no influence.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from talkingface.config.schema import FaceSection
from talkingface.data.face.boxes import box_overlap, face_boxes, landmark_box
from talkingface.data.face.occlusion import covered
from talkingface.data.face.pose import flip_depth, procrustes, remove_pose
from talkingface.data.face.scan import FaceScan, scan_video
from talkingface.data.face.series import runs
from talkingface.data.face.topology import STABLE, pose_template
from talkingface.errors import DataError

MAX_GAP = 0.2  # maximum gap between detections of one track, in seconds
_OVERLAP = 0.3  # minimum intersection over union of consecutive boxes of one track
# Maximum root-mean-square distance of two median face shapes (template units) of one person. On 50
# clips, 91 % of the pairs of thirds of one clip were below it, 96 % of the pairs of people above.
_SAME_SHAPE = 0.030
_SHAPE_POINTS = sorted({*STABLE, *pose_template()[0].tolist()})


@dataclass(frozen=True)
class FaceTrack:
    """The face of one person at a constant frame rate.

    Attributes:
        boxes: (T,4) x0, y0, x1, y1 in pixels; gaps are interpolated.
        found: (T,) bool, True where this person's face was detected.
        landmarks: (T,478,3) pixels, NaN where not found.
        segments: (T,) int; frames with the same number belong to one shot without a long gap, so
            motion inside is continuous. -1: this person is not in view.
        persons: number of persons, distinguished by face shape, that are in view for at least a
            fifth of the time of the main person.
        cuts: first frames after scene cuts.
        sharpness, mouth_texture, face_change: (T,) of this face, NaN where not found; see
            :class:`~talkingface.data.face.scan.FaceScan`.
        covered: (T,) bool, something is before the mouth, see
            :func:`~talkingface.data.face.occlusion.covered`.
        size: width and height of the picture in pixels.
    """

    boxes: np.ndarray
    found: np.ndarray
    landmarks: np.ndarray
    segments: np.ndarray
    persons: int
    cuts: np.ndarray
    sharpness: np.ndarray
    mouth_texture: np.ndarray
    face_change: np.ndarray
    covered: np.ndarray
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def found_ratio(self) -> float:
        return float(self.found.mean()) if len(self.found) else 0.0

    def longest_take(self) -> tuple[int, int]:
        """Start and stop of the longest stretch without a cut or a long gap."""
        takes = [(b - a, a, b) for a, b in runs(self.segments) if self.segments[a] >= 0]
        return max(takes)[1:]

    @property
    def longest_gap(self) -> int:
        """Number of frames of the longest stretch without this face."""
        return max((b - a for a, b in runs(self.found.astype(int)) if not self.found[a]), default=0)


def track_face(
    path: Path,
    *,
    fps: float,
    options: FaceSection,
    first: int | None = None,
    show_progress: str | bool = False,
) -> FaceTrack:
    """Detect the faces of a video or still picture and track the chosen person.

    Args:
        first: only this number of frames, as for ``scan_video``.

    Raises:
        DataError: the file cannot be read, or shows no face.
    """
    scan = scan_video(
        path, fps=fps, tracking=True, options=options, first=first, show_progress=show_progress
    )
    if not len(scan.frame):
        raise DataError(
            f"no face found: {path.name} ({scan.n_frames} frames). The face must be visible, "
            "roughly upright and at least a twelfth of the picture's shorter side high."
        )
    return follow(scan, fps=fps, options=options)


def video_landmarks(path: Path, *, fps: float, tracking: bool) -> np.ndarray:
    """Meshes of the main person of a video: (T,478,3) float32 pixels, NaN where not found.

    Raises:
        DataError: the file cannot be decoded.
    """
    scan = scan_video(path, fps=fps, tracking=tracking)
    main = find_persons(scan, fps=fps)[0] if len(scan.frame) else np.zeros(0, int)
    return meshes(scan, main)


def meshes(scan: FaceScan, chosen: np.ndarray) -> np.ndarray:
    """Meshes of chosen detections, at most one per frame: (T,478,3) float32, NaN elsewhere."""
    return _per_frame(scan, chosen, scan.points)


def _per_frame(scan: FaceScan, chosen: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values (N, ...) of the chosen detections at their frames: (T, ...) float32, NaN elsewhere."""
    result = np.full((scan.n_frames, *values.shape[1:]), np.nan, np.float32)
    result[scan.frame[chosen]] = values[chosen]
    return result


def follow(scan: FaceScan, *, fps: float, options: FaceSection | None = None) -> FaceTrack:
    """Track the chosen person of a scan that has at least one face; None: the default options."""
    options = options or FaceSection()
    persons = find_persons(scan, fps=fps)
    chosen = choose_person(scan, persons, options.choose)
    landmarks = meshes(scan, chosen)
    found = np.zeros(scan.n_frames, bool)
    found[scan.frame[chosen]] = True
    segments = _segments(found, scan.cuts, MAX_GAP * fps)
    return FaceTrack(
        boxes=face_boxes(
            landmarks,
            fps=fps,
            smoothing=options.box_smoothing,
            segments=segments,
            margins=tuple(options.box_margins),
        ),
        found=found,
        landmarks=landmarks,
        segments=segments,
        persons=len(lasting(persons)),
        cuts=scan.cuts,
        sharpness=_per_frame(scan, chosen, scan.sharpness),
        mouth_texture=_per_frame(scan, chosen, scan.mouth_texture),
        face_change=_per_frame(scan, chosen, scan.face_change),
        covered=covered(_per_frame(scan, chosen, scan.skin), scan.cuts.tolist(), fps),
        size=(int(scan.size[0]), int(scan.size[1])),
    )


def choose_person(scan: FaceScan, persons: list[np.ndarray], choose: str | int) -> np.ndarray:
    """Detections of one person, ascending in time.

    Args:
        persons: of :func:`find_persons`.
        choose: ``main``: the person with the largest sum of face heights over all frames. The
            others choose among the persons in view for at least a fifth of that person's time.
            ``largest``: the largest face; ``left``, ``right``, or an index from 0: by position,
            counted from the left.

    Returns:
        Indices into the detections of the scan, at most one per frame.

    Raises:
        DataError: the index is not below the number of persons.
    """
    if choose == "main":
        return persons[0]
    if choose == "largest":
        height = np.ptp(scan.points[..., 1], axis=1)
        return max(lasting(persons), key=lambda p: float(np.median(height[p])))
    ordered = sorted(lasting(persons), key=lambda p: float(np.median(scan.points[p, :, 0])))
    index = int({"left": 0, "right": len(ordered) - 1}.get(choose, choose))
    if not 0 <= index < len(ordered):
        raise DataError(
            f"face.choose={choose}, but {len(ordered)} person(s) are in view (counted from 0)."
        )
    return ordered[index]


def lasting(persons: list[np.ndarray]) -> list[np.ndarray]:
    """Persons of :func:`find_persons` without false detections and passers-by."""
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
        """Sum of the face heights; it grows with the face size and with the time in view."""
        return float(np.ptp(self.scan.points[self.members, :, 1], axis=1).sum())

    @cached_property
    def shape(self) -> np.ndarray:
        """Median shape of :data:`_SHAPE_POINTS` without pose and size."""
        points = flip_depth(self.scan.points[self.members])
        vertices, template = pose_template()
        pose = procrustes(template, points[:, vertices])
        return np.median(remove_pose(points[:, _SHAPE_POINTS], *pose), axis=0)

    def box(self, member: int) -> np.ndarray:
        return landmark_box(self.scan.points[member])


def find_persons(scan: FaceScan, *, fps: float) -> list[np.ndarray]:
    """Group the detections of a scan by person, the main one first.

    Two tracks belong to one person when they do not overlap in time, and either follow each other
    at the same position in one shot or have the same face shape. Very similar people can be merged,
    and a strong head rotation can split one person into two.
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
    """Link detections to tracks, per frame in descending order of box overlap."""
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
    """(T,) numbers of the stretches without a cut or a gap above ``max_gap`` frames; -1 outside."""
    labels = np.full(len(found), -1)
    seen = np.flatnonzero(found)
    shots = np.searchsorted(cuts, seen, side="right")
    new = (np.diff(seen) - 1 > max_gap) | (np.diff(shots) > 0)
    for number, part in enumerate(np.split(seen, np.flatnonzero(new) + 1)):
        labels[part[0] : part[-1] + 1] = number
    return labels
