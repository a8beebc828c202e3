"""Face meshes by MediaPipe, for single pictures and for videos, cached per file content."""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from talkingface.data.face.topology import N_POINTS
from talkingface.errors import TalkingFaceError
from talkingface.utils.env import import_cv2, require
from talkingface.utils.paths import atomic, project_root

log = logging.getLogger(__name__)

_CACHE_VERSION = 1


class FaceMesher:
    """MediaPipe Face Mesh with irises: 478 points in pixels of the given picture.

    Args:
        tracking: follow one face from frame to frame (faster and smoother, but the result depends
            on the order of frames: one instance per clip). False treats each picture alone.
        max_side: larger pictures are reduced to this long side first; points are scaled back.
        min_detection: least confidence of the face detector.
    """

    def __init__(self, *, tracking: bool, max_side: int = 720, min_detection: float = 0.5) -> None:
        os.environ.setdefault("GLOG_minloglevel", "2")  # hides MediaPipe's start-up lines
        mediapipe = require("mediapipe", why="Face landmarks")
        self._cv2 = import_cv2()
        self.max_side = max_side
        with quiet_stderr():
            self._mesh = mediapipe.solutions.face_mesh.FaceMesh(
                static_image_mode=not tracking,
                max_num_faces=1,
                refine_landmarks=True,
                min_detection_confidence=min_detection,
                min_tracking_confidence=0.5,
            )
            # Its threads write start-up lines until the first picture is through; a black one
            # leaves no track behind.
            self._mesh.process(np.zeros((64, 64, 3), np.uint8))
        self._started = False

    def __call__(self, rgb: np.ndarray) -> np.ndarray | None:
        """Mesh of one picture.

        Args:
            rgb: (H,W,3) uint8.

        Returns:
            (478,3) float32: x and y in pixels (pixel centres are at +0.5), z in the scale of x,
            smaller is nearer; None when no face is found.
        """
        height, width = rgb.shape[:2]
        scale = self.max_side / max(height, width)
        if scale < 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            rgb = self._cv2.resize(rgb, size, interpolation=self._cv2.INTER_AREA)
        rgb = np.ascontiguousarray(rgb)
        if self._started:
            found = self._mesh.process(rgb).multi_face_landmarks
        else:  # the models start, and write their lines, with the first face
            with quiet_stderr():
                found = self._mesh.process(rgb).multi_face_landmarks
        if not found:
            return None
        self._started = True
        points = np.array([(p.x, p.y, p.z) for p in found[0].landmark], np.float32)
        return points * np.array([width, height, width], np.float32)

    def close(self) -> None:
        self._mesh.close()

    def __enter__(self) -> FaceMesher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class quiet_stderr:
    """Silence C++ libraries that write to the stderr descriptor while they start."""

    def __enter__(self) -> None:
        self._saved = os.dup(2)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)

    def __exit__(self, *_: object) -> None:
        os.dup2(self._saved, 2)
        os.close(self._saved)


def detect_frames(frames: Iterable[np.ndarray], **options: object) -> np.ndarray:
    """Meshes of consecutive frames; see :class:`FaceMesher` for the options.

    Returns:
        (T,478,3) float32, NaN where no face was found.
    """
    points = []
    with FaceMesher(**options) as mesher:
        for frame in frames:
            mesh = mesher(frame)
            points.append(np.full((N_POINTS, 3), np.nan, np.float32) if mesh is None else mesh)
    return np.stack(points) if points else np.zeros((0, N_POINTS, 3), np.float32)


def content_hash(path: Path) -> str:
    """Hash of a file's bytes; a moved or renamed file keeps its cache."""
    digest = hashlib.blake2b(digest_size=12)
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Folder of cached meshes, shared by all datasets."""
    return project_root() / "dataset" / ".cache" / "faces"


def video_landmarks(
    path: Path,
    *,
    fps: float,
    tracking: bool,
    max_side: int = 720,
    min_detection: float = 0.5,
    cache: bool = True,
) -> np.ndarray:
    """Meshes of a whole video at a constant rate, read from the cache when its content is known.

    Args:
        path: video or still picture (one frame).

    Returns:
        (T,478,3) float32 pixels, NaN where no face was found.

    Raises:
        DataError: the file cannot be decoded.
    """
    from talkingface.data.media.reader import is_image, read_frames, read_image

    settings = f"v{_CACHE_VERSION}-fps{fps:g}-track{int(tracking)}-{max_side}-{min_detection:g}"
    name = f"{content_hash(path)}-{settings}.npz"
    stored = cache_folder() / name[:2] / name
    if cache and stored.exists():
        try:
            with np.load(stored) as data:
                return data["points"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("%s is damaged (%s); detecting again", stored, error)
    frames = [read_image(path)] if is_image(path) else read_frames(path, fps=fps)
    points = detect_frames(
        frames, tracking=tracking, max_side=max_side, min_detection=min_detection
    )
    if cache:
        try:
            with atomic(stored) as temporary, open(temporary, "wb") as file:
                np.savez_compressed(file, points=points)
        except TalkingFaceError as error:  # a read-only disk costs time, not the result
            log.debug("landmarks are not cached: %s", error)
    return points
