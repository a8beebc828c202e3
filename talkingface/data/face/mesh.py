"""MediaPipe's face landmarks behind a small interface."""

from __future__ import annotations

import numpy as np

from talkingface.data.face.boxes import box_overlap, landmark_box
from talkingface.data.face.mediapipe_tasks import VisionTask
from talkingface.data.face.topology import N_POINTS
from talkingface.utils.env import import_cv2

# Part of every cached scan and of the fingerprint of prepared clips: change it whenever the
# landmarks of a picture change, so that what was made with the landmarks before is made again.
TRACKER = "face_landmarker-1"
_SAME_FACE = 0.3  # least overlap (intersection over union) of a face in two consecutive frames
_SURROUNDINGS = 2.0  # side of the square in which a lost face is looked for, in face sizes


class FaceMesher:
    """MediaPipe Face Landmarker: 478 points per face, in pixels of the given picture.

    MediaPipe's own mode for videos is not used: it smooths the landmarks over time when it looks
    for one face, which makes lips late, and drops a face that the detector misses when it looks
    for several.

    Args:
        tracking: follow faces from frame to frame: one that is missing in a picture is looked for
            again around its last place, where it is large enough for the detector. The result
            depends on the order of frames: one instance per clip. False treats each picture alone.
        max_faces: look for at most this many faces.
        min_detection: least confidence of the face detector.
    """

    def __init__(self, *, tracking: bool, max_faces: int = 1, min_detection: float = 0.5) -> None:
        self._task = VisionTask(
            "FaceLandmarker",
            "face_landmarker.task",
            why="Face landmarks",
            num_faces=max_faces,
            min_face_detection_confidence=min_detection,
        )
        self._tracking, self._max_faces = tracking, max_faces
        self._last: list[np.ndarray] = []  # boxes of the frame before

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Landmarks of one picture.

        Args:
            rgb: (H,W,3) uint8.

        Returns:
            (K,478,3) float32: x and y in pixels (pixel centres are at +0.5), z in the scale of x,
            smaller is nearer. The order of the faces means nothing; K may be 0.
        """
        faces = self._detect(rgb)
        if not self._tracking:
            return faces
        boxes = [landmark_box(face) for face in faces]
        followed, new = [], list(range(len(faces)))
        for last in self._last:
            match = max(new, key=lambda k: box_overlap(boxes[k], last), default=None)
            if match is not None and box_overlap(boxes[match], last) >= _SAME_FACE:
                followed.append(faces[match])
                new.remove(match)
            elif (found := self._look_again(rgb, last)) is not None:
                followed.append(found)
        chosen = (followed + [faces[k] for k in new])[: self._max_faces]
        self._last = [landmark_box(face) for face in chosen]
        return np.array(chosen, np.float32).reshape(-1, N_POINTS, 3)

    def _detect(self, rgb: np.ndarray) -> np.ndarray:
        height, width = rgb.shape[:2]
        found = self._task.landmarks(rgb)
        if not len(found):
            return np.zeros((0, N_POINTS, 3), np.float32)
        return found * np.array([width, height, width], np.float32)

    def _look_again(self, rgb: np.ndarray, last: np.ndarray) -> np.ndarray | None:
        """The face near the box ``last``, detected in a part of the picture."""
        reach = _SURROUNDINGS * (last[2:] - last[:2]).max() / 2
        centre = (last[:2] + last[2:]) / 2
        low, high = np.floor(centre - reach).astype(int), np.ceil(centre + reach).astype(int)
        inside = np.maximum(low, 0), np.minimum(high, rgb.shape[1::-1])
        if (inside[1] - inside[0] < 2).any():
            return None
        part = rgb[inside[0][1] : inside[1][1], inside[0][0] : inside[1][0]]
        # Mirrored at the picture's border: the detector misses a face that is cut off there.
        (left, top), (right, bottom) = inside[0] - low, high - inside[1]
        cv2 = import_cv2()
        part = cv2.copyMakeBorder(part, top, bottom, left, right, cv2.BORDER_REFLECT)
        faces = self._detect(part)
        faces[..., :2] += low
        near = [face for face in faces if box_overlap(landmark_box(face), last) >= _SAME_FACE]
        return max(near, key=lambda face: box_overlap(landmark_box(face), last), default=None)

    def reset(self) -> None:
        """Forget the tracks, e.g. at a scene cut."""
        self._last = []

    def close(self) -> None:
        self._task.close()

    def __enter__(self) -> FaceMesher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
