"""MediaPipe's face mesh behind a small interface."""

from __future__ import annotations

import os
import threading

import numpy as np

from talkingface.data.face.topology import N_POINTS
from talkingface.utils.env import import_cv2, require


class FaceMesher:
    """MediaPipe Face Mesh with irises: 478 points per face, in pixels of the given picture.

    Args:
        tracking: follow faces from frame to frame (faster and smoother, but the result depends on
            the order of frames: one instance per clip). False treats each picture alone.
        max_faces: look for at most this many faces.
        min_detection: least confidence of the face detector.
    """

    def __init__(self, *, tracking: bool, max_faces: int = 1, min_detection: float = 0.5) -> None:
        os.environ.setdefault("GLOG_minloglevel", "2")  # hides MediaPipe's start-up lines
        mediapipe = require("mediapipe", why="Face landmarks")
        import_cv2()
        with quiet_stderr():
            self._mesh = mediapipe.solutions.face_mesh.FaceMesh(
                static_image_mode=not tracking,
                max_num_faces=max_faces,
                refine_landmarks=True,
                min_detection_confidence=min_detection,
                min_tracking_confidence=0.5,
            )
            # Its threads write start-up lines until the first picture is through; a black one
            # leaves no track behind.
            self._mesh.process(np.zeros((64, 64, 3), np.uint8))
        self._started = False

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Meshes of one picture.

        Args:
            rgb: (H,W,3) uint8.

        Returns:
            (K,478,3) float32: x and y in pixels (pixel centres are at +0.5), z in the scale of x,
            smaller is nearer. The order of the faces means nothing; K may be 0.
        """
        height, width = rgb.shape[:2]
        rgb = np.ascontiguousarray(rgb)
        if self._started:
            found = self._mesh.process(rgb).multi_face_landmarks
        else:  # the models start, and write their lines, with the first face
            with quiet_stderr():
                found = self._mesh.process(rgb).multi_face_landmarks
        if not found:
            return np.zeros((0, N_POINTS, 3), np.float32)
        self._started = True
        points = [[(p.x, p.y, p.z) for p in face.landmark] for face in found]
        return np.array(points, np.float32) * np.array([width, height, width], np.float32)

    def reset(self) -> None:
        """Forget the tracks, e.g. at a scene cut."""
        with quiet_stderr():
            self._mesh.reset()
        self._started = False

    def close(self) -> None:
        self._mesh.close()

    def __enter__(self) -> FaceMesher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_STDERR = threading.RLock()  # two threads that swap the descriptor would lose it


class quiet_stderr:
    """Silence C++ libraries that write to the stderr descriptor while they start."""

    def __enter__(self) -> None:
        _STDERR.acquire()
        self._saved = os.dup(2)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)

    def __exit__(self, *_: object) -> None:
        os.dup2(self._saved, 2)
        os.close(self._saved)
        _STDERR.release()
