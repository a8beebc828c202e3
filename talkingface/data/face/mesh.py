"""Face detection and landmarks with MediaPipe."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from talkingface.data.face.boxes import box_overlap, landmark_box
from talkingface.data.face.mediapipe_tasks import VisionTask
from talkingface.data.face.topology import N_POINTS
from talkingface.utils.env import import_cv2

# Part of the keys of cached scans and of the fingerprint of prepared clips. Change it whenever the
# detected landmarks change, so that scans and preparations with the old value are repeated.
TRACKER = "face_landmarker-3"
_SAME_FACE = 0.3  # minimum intersection over union of a face in two consecutive frames
_SEARCH_EVERY = 25  # frames between two searches of the whole picture while one face is tracked
_SMALLEST_TILE = 320  # pixels; side of the squares in which small faces are searched
_NO_FACE = np.zeros((0, N_POINTS, 3), np.float32)
_SURROUNDINGS = 2.0  # side of the square in which a lost face is searched for, in face sizes


class FaceMesher(AbstractContextManager):
    """MediaPipe Face Landmarker: 478 points per face, in pixels of the given picture.

    Args:
        tracking: track faces from frame to frame, see :meth:`__call__`. The result then depends on
            the order of frames: use one instance per clip. False: each picture is independent.
        max_faces: maximum number of faces.
        min_detection: minimum confidence of the face detector.
    """

    def __init__(self, *, tracking: bool, max_faces: int = 1, min_detection: float = 0.5) -> None:
        options = {"min_face_detection_confidence": min_detection}
        self._task = _landmarker(num_faces=max_faces, **options)
        self._follower = _landmarker(video=True, num_faces=1, **options) if tracking else None
        self._max_faces = max_faces
        self._last: list[np.ndarray] = []  # boxes in the previous frame
        self._until_tiles = 0  # frames until the next search for small faces
        self._until_search = 0  # frames until the next search of the whole picture
        self._in_step = False  # whether the follower processed the previous frame

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Landmarks of one picture (H,W,3) uint8.

        A single face is tracked in MediaPipe's VIDEO mode, which crops around the landmarks of the
        previous frame and skips the face detector. The detector runs on the whole picture when
        there is no such face, and in every 25th frame.

        Returns:
            (K,478,3) float32: x and y in pixels (pixel centres are at +0.5), z in the scale of x,
            smaller is nearer. The order of the faces is arbitrary; K may be 0.
        """
        if self._follower is None:
            return self._everywhere(rgb)
        followed = self._follow(rgb)
        self._until_search -= 1
        if len(followed) and self._until_search > 0:
            faces = followed
        else:
            faces = self._search(rgb)
            self._until_search = _SEARCH_EVERY
            if len(faces) == 1 and len(_nearest(followed, landmark_box(faces[0]))):
                faces = followed  # so that all frames use the same kind of crop
        self._last = [landmark_box(face) for face in faces]
        return faces

    def _follow(self, rgb: np.ndarray) -> np.ndarray:
        """Track the single face of the previous frame, (0 or 1,478,3)."""
        if len(self._last) != 1:
            self._in_step = False
            return _NO_FACE
        if not self._in_step:  # a picture without a face resets MediaPipe's tracking
            _detect(self._follower, np.zeros((64, 64, 3), np.uint8))
        face = _nearest(_detect(self._follower, rgb), self._last[0])
        self._in_step = len(face) == 1
        return face

    def _search(self, rgb: np.ndarray) -> np.ndarray:
        """Detect all faces; one that the detector misses is searched again around its last box."""
        faces = _detect(self._task, rgb) if self._last else self._everywhere(rgb)
        boxes = [landmark_box(face) for face in faces]
        followed, new = [], list(range(len(faces)))
        for last in self._last:
            match = max(new, key=lambda k: box_overlap(boxes[k], last), default=None)
            if match is not None and box_overlap(boxes[match], last) >= _SAME_FACE:
                followed.append(faces[match])
                new.remove(match)
            else:
                followed.extend(self._look_again(rgb, last))
        chosen = (followed + [faces[k] for k in new])[: self._max_faces]
        return np.array(chosen, np.float32).reshape(-1, N_POINTS, 3)

    def _everywhere(self, rgb: np.ndarray) -> np.ndarray:
        """Detect all faces; if there is none, search smaller squares, in which faces are larger.

        MediaPipe's detector sees the whole picture at 128 px, so that it misses a face of a tenth
        of the picture's width. While a track has no face this search is repeated once per second.
        """
        faces = _detect(self._task, rgb)
        if self._follower is not None:
            self._until_tiles -= 1
            if len(faces) or self._until_tiles > 0:
                return faces
            self._until_tiles = _SEARCH_EVERY
        height, width = rgb.shape[:2]
        side = min(height, width)
        while not len(faces) and side >= _SMALLEST_TILE:
            if side < max(height, width):
                faces = self._in_tiles(rgb, side)
            side //= 2
        return faces

    def _in_tiles(self, rgb: np.ndarray, side: int) -> np.ndarray:
        """Faces in squares that overlap by half; a face in several of them counts once."""
        found: list[np.ndarray] = []
        height, width = rgb.shape[:2]
        for y in sorted({*range(0, height - side, side // 2), height - side}):
            for x in sorted({*range(0, width - side, side // 2), width - side}):
                faces = _detect(self._task, np.ascontiguousarray(rgb[y : y + side, x : x + side]))
                faces[..., :2] += (x, y)
                for face in faces:
                    box = landmark_box(face)
                    if all(box_overlap(box, landmark_box(f)) < _SAME_FACE for f in found):
                        found.append(face)
        return np.array(found[: self._max_faces], np.float32).reshape(-1, N_POINTS, 3)

    def _look_again(self, rgb: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Detect the face of the box ``last`` in a crop around that box, (0 or 1,478,3)."""
        reach = _SURROUNDINGS * (last[2:] - last[:2]).max() / 2
        centre = (last[:2] + last[2:]) / 2
        low, high = np.floor(centre - reach).astype(int), np.ceil(centre + reach).astype(int)
        inside = np.maximum(low, 0), np.minimum(high, rgb.shape[1::-1])
        if (inside[1] - inside[0] < 2).any():
            return _NO_FACE
        part = rgb[inside[0][1] : inside[1][1], inside[0][0] : inside[1][0]]
        # Mirror the picture at its border: the detector misses a face that is cut off there.
        (left, top), (right, bottom) = inside[0] - low, high - inside[1]
        cv2 = import_cv2()
        part = cv2.copyMakeBorder(part, top, bottom, left, right, cv2.BORDER_REFLECT)
        faces = _detect(self._task, part)
        faces[..., :2] += low
        return _nearest(faces, last)

    def reset(self) -> None:
        """Drop the tracks, e.g. at a scene cut."""
        self._last = []
        self._until_tiles = 0

    def close(self) -> None:
        self._task.close()
        if self._follower is not None:
            self._follower.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def _landmarker(**options: Any) -> VisionTask:
    return VisionTask("FaceLandmarker", "face_landmarker.task", why="Face landmarks", **options)


def _detect(task: VisionTask, rgb: np.ndarray) -> np.ndarray:
    """(K,478,3) landmarks in pixels."""
    height, width = rgb.shape[:2]
    points = task.landmarks(rgb)
    return points * np.array([width, height, width], np.float32) if len(points) else _NO_FACE


def _nearest(faces: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(0 or 1,478,3) face that overlaps ``box`` most, by at least :data:`_SAME_FACE`."""
    overlaps = [box_overlap(landmark_box(face), box) for face in faces]
    if max(overlaps, default=0.0) < _SAME_FACE:
        return _NO_FACE
    best = int(np.argmax(overlaps))
    return faces[best : best + 1]
