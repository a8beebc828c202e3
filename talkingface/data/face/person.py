"""Person segmentation, and the shoulder lines of LSP and MODA.

Both families draw nine points per shoulder. MODA's are measured on the silhouette of each frame.
LSP's are detected once per clip and tracked, which is more stable and tolerates long hair.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from itertools import chain, islice

import numpy as np

from talkingface.data.face.mediapipe_tasks import VisionTask
from talkingface.data.face.series import fill_gaps, smooth
from talkingface.data.face.topology import CHIN, LSP73, MOUTH_CORNERS
from talkingface.utils.env import import_cv2

PER_SIDE = 9
_MASK_SIDE = 512  # the model works at 256 px; larger pictures only cost time


class PersonSegmenter(AbstractContextManager):
    """MediaPipe's selfie segmentation (the general model, square input)."""

    def __init__(self) -> None:
        self._cv2 = import_cv2()
        self._task = VisionTask(
            "ImageSegmenter", "selfie_segmenter.tflite", why="Person segmentation"
        )

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Confidence that a pixel of (H,W,3) uint8 belongs to a person.

        Returns:
            (h,w) float32 in 0..1, long side at most 512 px; multiply picture coordinates by w / W.
        """
        scale = _MASK_SIDE / max(rgb.shape[:2])
        if scale < 1:
            size = tuple(max(1, round(n * scale)) for n in rgb.shape[1::-1])
            rgb = self._cv2.resize(rgb, size, interpolation=self._cv2.INTER_LINEAR)
        mask = self._task("segment", rgb).confidence_masks[0]
        return mask.numpy_view().reshape(rgb.shape[:2]).copy()

    def close(self) -> None:
        self._task.close()

    def __exit__(self, *_: object) -> None:
        self.close()


# -- MODA ------------------------------------------------------------------------------------------


def torso_outline(
    mask: np.ndarray, landmarks: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Shoulder points of one frame from the silhouette below the mouth.

    Args:
        mask: (h,w) of :class:`PersonSegmenter`.
        landmarks: (478,>=2) pixels of the frame.
        width: width of the frame in pixels.

    Returns:
        (18,2) points in pixels of the frame from the picture's left to its right, nine per side
        (NaN on an unusable side), and (2,) whether the left and right side are usable. A side is
        unusable if its line is too steep (hair on the shoulder) or too short (shoulder outside the
        picture).
    """
    cv2 = import_cv2()
    scale = width / mask.shape[1]
    person = cv2.blur(mask, (7, 7)) > 0.5
    top = int(landmarks[list(MOUTH_CORNERS), 1].max() / scale)
    points = np.full((2, PER_SIDE, 2), np.nan)
    for side, below in enumerate((person[max(top, 0) :], person[max(top, 0) :, ::-1])):
        rows = np.flatnonzero(below.any(axis=1))
        if len(rows) < 2:
            continue
        edge = below[rows].argmax(axis=1)  # distance of the silhouette from this side's border
        # The sides of the neck are vertical: its base is the lowest of the innermost rows.
        neck = int(np.flatnonzero(edge >= edge.max() - 0.01 * mask.shape[1])[-1])
        x, y = np.minimum.accumulate(edge[neck:]), rows[neck:]
        span = x[0] - x[-1]
        if span < 0.05 * mask.shape[1] or (y[-1] - y[0]) > 1.5 * span:
            continue
        x, first = np.unique(x, return_index=True)  # the highest row of each column
        columns = np.linspace(x[0], x[-1], PER_SIDE)
        line = np.stack([columns, np.interp(columns, x, y[first]) + max(top, 0)], axis=1)
        line = (line + 0.5) * scale
        if side:
            line = line[::-1] * (-1, 1) + (width, 0)
        points[side] = line
    return points.reshape(-1, 2), np.isfinite(points).all(axis=(1, 2))


def torso_track(
    points: np.ndarray, usable: np.ndarray, size: tuple[int, int], *, sigma: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """Fill gaps in the shoulder points of a clip and smooth them.

    A side that is usable in less than half of the frames is moved to the picture's lower corner.

    Args:
        points, usable: (T,18,2) and (T,2), from :func:`torso_outline` per frame.
        size: width and height of the frames in pixels.
        sigma: standard deviation of the smoothing in frames.

    Returns:
        (T,18,2) finite points and (2,) whether a side is usable in at least half of the frames.
    """
    width, height = size
    good = usable.mean(axis=0) >= 0.5
    sides = points.reshape(len(points), 2, PER_SIDE, 2).astype(np.float64)
    result = np.empty_like(sides)
    for side, corner in enumerate(((0, height), (width, height))):
        result[:, side] = smooth(fill_gaps(sides[:, side]), sigma) if good[side] else corner
    return result.reshape(len(points), 2 * PER_SIDE, 2), good


# -- LSP -------------------------------------------------------------------------------------------

_INIT_FRAMES = 15  # the first estimate uses the mean mask of this many frames
_ANCHOR_EVERY = 10  # frames between two corrections by the mask
_ANCHOR_PULL = 0.1  # fraction of the distance to the mask's border that a correction removes
_LK = {"winSize": (21, 21), "maxLevel": 3}
_LK_REACH = 100  # margin around the points that is passed to the optical flow, in pixels
_COLUMNS = np.linspace(0.45, 1.1, PER_SIDE)  # distances from the chin in face widths, neck to arm


def track_shoulders(
    frames: Iterable[np.ndarray], landmarks: np.ndarray, *, sigma: float = 2.0
) -> tuple[np.ndarray, tuple[str, str]]:
    """Detect the shoulders at the start of a clip without cuts and track them.

    Args:
        frames: (H,W,3) uint8 RGB, streamed; about 15 are held in memory. At most T are read.
        landmarks: (T,478,3) pixels, NaN where no face was found.
        sigma: standard deviation of the smoothing in frames.

    Returns:
        (T,18,2) pixels: 0-8 at the picture's left from outside to the neck, 9-17 at its right from
        the neck outwards, NaN where a side was not detected; and the detector of each side:
        ``segmentation``, ``pose`` or ``none``.
    """
    points = np.full((len(landmarks), 2 * PER_SIDE, 2), np.nan)
    stream = islice(frames, len(landmarks))
    first = list(islice(stream, _INIT_FRAMES))
    if not first:
        return points, ("none", "none")
    with PersonSegmenter() as segmenter:
        located, source = locate_shoulders(first, landmarks[: len(first)], segmenter)
        tracker = _PointTracker(located, segmenter)
        for index, frame in enumerate(chain(first, stream)):
            points[index] = tracker.step(frame, landmarks[index])
    usable = np.isfinite(points).all(axis=2)
    for column in np.flatnonzero(usable.any(axis=0)):
        points[:, column] = smooth(fill_gaps(points[:, column]), sigma)
    return points, source


def locate_shoulders(
    frames: list[np.ndarray], landmarks: np.ndarray, segmenter: PersonSegmenter
) -> tuple[np.ndarray, tuple[str, str]]:
    """First estimate: (18,2) pixels (NaN on a side without one), and the detector of each side."""
    marks = landmarks[np.isfinite(landmarks).all(axis=(1, 2))]
    points = np.full((2, PER_SIDE, 2), np.nan)
    if not len(marks):
        return points.reshape(-1, 2), ("none", "none")
    chin = np.median(marks[:, CHIN, :2], axis=0)
    face_width = _face_width(np.median(marks[..., :2], axis=0))
    mask = np.mean([segmenter(frame) for frame in frames], axis=0)
    lines = _mask_line(mask, chin, face_width, frames[0].shape[1])
    detectors = ["none", "none"]
    pose = None
    for side, sign in enumerate((-1, 1)):
        distance = _COLUMNS * face_width
        heights = _fit_line(distance, lines[side])
        if heights is not None:
            line = np.stack([chin[0] + sign * distance, heights], axis=1)
            detectors[side] = "segmentation"
        else:
            pose = _pose_shoulders(frames[0]) if pose is None else pose
            neck = chin + face_width * np.array([sign * 0.35, 0.15])
            # If the joint is not well outside the neck, the body is turned to the side.
            if side not in pose or sign * (pose[side][0] - neck[0]) <= 0.3 * face_width:
                continue
            line = np.linspace(neck, pose[side], PER_SIDE)
            detectors[side] = "pose"
        points[side] = line[::-1] if side == 0 else line
    return points.reshape(-1, 2), (detectors[0], detectors[1])


def _face_width(points: np.ndarray) -> float:
    return float(np.ptp(points[list(LSP73[:15]), 0]))


def _mask_line(mask: np.ndarray, chin: np.ndarray, face_width: float, width: int) -> np.ndarray:
    """(2,9) y of the person's upper border at :data:`_COLUMNS` of both sides, in pixels."""
    scale = width / mask.shape[1]
    limit = chin[1] - 0.25 * face_width
    result = np.full((2, PER_SIDE), np.nan)
    for side, sign in enumerate((-1, 1)):
        columns = np.floor((chin[0] + sign * _COLUMNS * face_width) / scale).astype(int)
        result[side] = [_border(mask, column, scale, limit) for column in columns]
    return result


def _border(mask: np.ndarray, column: int, scale: float, limit: float) -> float:
    """y of the lowest background pixel above the person in a column of the mask, in pixels.

    NaN if the column is outside the mask or has no person at the bottom, and if the border is above
    ``limit``, which means long hair.
    """
    if not 0 <= column < mask.shape[1] or mask[-1, column] <= 0.5:
        return np.nan
    background = np.flatnonzero(mask[::-1, column] <= 0.5)
    y = (mask.shape[0] - background[0]) * scale if len(background) else -np.inf
    return y if y > limit else np.nan


def _fit_line(distance: np.ndarray, heights: np.ndarray) -> np.ndarray | None:
    """Fit a robust parabola to at least five heights; it replaces missing ones and outliers."""
    from scipy.optimize import least_squares

    known = np.isfinite(heights)
    if known.sum() < 5:
        return None
    unit = distance / distance[-1]
    powers = np.vander(unit, 3 if known.sum() >= 7 else 2)

    def misfit(coefficients: np.ndarray) -> np.ndarray:
        return powers[known] @ coefficients - heights[known]

    start = np.linalg.lstsq(powers[known], heights[known], rcond=None)[0]
    spread = max(1.0, float(np.median(np.abs(misfit(start)))))
    fit = powers @ least_squares(misfit, start, loss="huber", f_scale=spread).x
    outlier = ~known | (np.abs(fit - np.nan_to_num(heights, nan=np.inf)) > 5 * spread)
    return np.where(outlier, fit, heights)


def _pose_shoulders(rgb: np.ndarray) -> dict[int, np.ndarray]:
    """Shoulder joints inside the picture by MediaPipe Pose: side (0 picture's left) to x, y."""
    height, width = rgb.shape[:2]
    task = VisionTask("PoseLandmarker", "pose_landmarker.task", why="Shoulders")
    people = task("detect", rgb).pose_landmarks
    task.close()
    sides = {}
    for side, number in ((0, 12), (1, 11)) if people else ():
        joint = people[0][number]
        if joint.visibility > 0.8 and 0 <= joint.x <= 1 and 0 <= joint.y <= 1:
            sides[side] = np.array([joint.x * width, joint.y * height])
    return sides


class _PointTracker:
    """Pyramidal Lucas-Kanade tracking with a forward-backward check.

    Points that fail the check move with the similarity transform of the others.
    """

    def __init__(self, points: np.ndarray, segmenter: PersonSegmenter) -> None:
        self.points = points
        self._cv2 = import_cv2()
        self._segmenter = segmenter
        self._previous: np.ndarray | None = None
        self._count = 0

    def step(self, rgb: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Points (18,2) in the next frame."""
        grey = self._cv2.cvtColor(rgb, self._cv2.COLOR_RGB2GRAY)
        alive = np.isfinite(self.points).all(axis=1)
        if self._previous is not None and alive.any():
            self.points = self.points.copy()
            self.points[alive] = self._flow(self._previous, grey, self.points[alive])
            self._count += 1
            if self._count % _ANCHOR_EVERY == 0 and np.isfinite(landmarks).all():
                self._anchor(rgb, landmarks)
        self._previous = grey
        return self.points

    def _flow(self, before: np.ndarray, after: np.ndarray, points: np.ndarray) -> np.ndarray:
        # Crop to the surroundings: three pyramid levels of the window reach about this far.
        low = np.maximum(np.floor(points.min(axis=0)).astype(int) - _LK_REACH, 0)
        high = np.ceil(points.max(axis=0)).astype(int) + _LK_REACH
        crop = np.s_[low[1] : high[1], low[0] : high[0]]
        before, after = np.ascontiguousarray(before[crop]), np.ascontiguousarray(after[crop])
        if min(before.shape) < 2 * _LK["winSize"][0]:
            return points  # the points have left the picture
        return self._crop_flow(before, after, points - low) + low

    def _crop_flow(self, before: np.ndarray, after: np.ndarray, points: np.ndarray) -> np.ndarray:
        flow = self._cv2.calcOpticalFlowPyrLK
        old = points[:, None].astype(np.float32)
        new, status, _ = flow(before, after, old, None, **_LK)
        back, status_back, _ = flow(after, before, new, None, **_LK)
        error = np.linalg.norm(back - old, axis=2)[:, 0]
        good = (status[:, 0] == 1) & (status_back[:, 0] == 1) & (error < 1.0)
        moved = new[:, 0].astype(np.float64)
        if good.all():
            return moved
        if good.sum() < 3:
            return points
        transform, _ = self._cv2.estimateAffinePartial2D(points[good], moved[good])
        if transform is None:
            return points
        moved[~good] = points[~good] @ transform[:, :2].T + transform[:, 2]
        return moved

    def _anchor(self, rgb: np.ndarray, landmarks: np.ndarray) -> None:
        """Move points a little toward the border of the mask, so that tracking does not drift."""
        mask = self._segmenter(rgb)
        scale = rgb.shape[1] / mask.shape[1]
        limit = landmarks[CHIN, 1] - 0.25 * _face_width(landmarks)
        reach = 0.1 * _face_width(landmarks)
        for point in self.points:
            column = int(point[0] / scale) if np.isfinite(point[0]) else -1
            y = _border(mask, column, scale, limit)
            if abs(y - point[1]) < reach:  # False for NaN
                point[1] += _ANCHOR_PULL * (y - point[1])
