"""MediaPipe's vision tasks (mediapipe 1.x) without log lines, network traffic or errors at exit.

The wheel of mediapipe 1.x contains no model files; they are in ``models`` beside this file. The
library sends usage statistics to play.googleapis.com once a minute and when a task is closed
(google-ai-edge/mediapipe issue 6291), and no option turns this off. While a task is open, the
proxy variables for its HTTP client therefore name a port that refuses every connection.
"""

from __future__ import annotations

import atexit
import ctypes
import io
import os
import threading
import weakref
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.utils.env import explain_missing_library, import_cv2, require

MODELS = Path(__file__).parent / "models"
# libcurl reads these lower-case names first; port 9 of this machine refuses connections.
_PROXY_VARIABLES = {"https_proxy": "http://127.0.0.1:9", "no_proxy": "localhost"}
# MpNormalizedLandmark of the C interface, 40 bytes
_LANDMARK = np.dtype([("xyz", np.float32, 3), ("rest", "V28")])
_FRAME_TIME = 10**9  # milliseconds between the time stamps of two frames

_lock = threading.RLock()
_open: weakref.WeakSet[VisionTask] = weakref.WeakSet()


class quiet_stderr:
    """Discard what C++ libraries write to the stderr descriptor while they start."""

    def __enter__(self) -> None:
        _lock.acquire()  # two threads that swap the descriptor at once would lose it
        self._saved = os.dup(2)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)

    def __exit__(self, *_: object) -> None:
        os.dup2(self._saved, 2)
        os.close(self._saved)
        _lock.release()


class VisionTask:
    """A task of ``mediapipe.tasks.vision`` for single pictures or the frames of one video.

    The constructor creates the MediaPipe task; :meth:`close` frees it. A forked child process
    creates a new task on first use.

    Args:
        name: ``FaceLandmarker``, ``ImageSegmenter`` or ``PoseLandmarker``.
        model: name of a file in :data:`MODELS`.
        why: the feature that needs MediaPipe, for the error message when it is not installed.
        video: each picture is the next frame of a video. MediaPipe then smooths the landmarks with
            a one-euro filter, which delays the lips. The time stamps are 10^6 s apart: the longer
            the time step, the more weight the filter gives to the new value, here all of it.
        options: further fields of the task's options.

    Raises:
        EnvironmentProblem: MediaPipe is not installed or cannot be loaded.
    """

    def __init__(
        self, name: str, model: str, *, why: str, video: bool = False, **options: Any
    ) -> None:
        import_cv2()
        self._mediapipe = require("mediapipe", why=why)
        vision = require("mediapipe.tasks.python.vision", why=why)
        self._kind = getattr(vision, name)
        base = require("mediapipe.tasks.python", why=why).BaseOptions
        mode = vision.RunningMode.VIDEO if video else vision.RunningMode.IMAGE
        self._video, self._time = video, 0
        self._options = getattr(vision, f"{name}Options")(
            base_options=base(model_asset_buffer=_model(model)), running_mode=mode, **options
        )
        self._task: Any = None
        self._create()

    def _create(self) -> None:
        with quiet_stderr():
            _refuse_connections()
            try:
                self._task = self._kind.create_from_options(self._options)
                _open.add(self)
            except OSError as error:  # the first task loads the library
                explain_missing_library("mediapipe", error)
                raise
            finally:
                _allow_connections()
        self._first = True

    def image(self, rgb: np.ndarray) -> Any:
        """A picture (H,W,3) uint8 as MediaPipe's image type."""
        kind = self._mediapipe.ImageFormat.SRGB
        return self._mediapipe.Image(image_format=kind, data=np.ascontiguousarray(rgb))

    def __call__(self, method: str, rgb: np.ndarray) -> Any:
        """Call the task's method ``detect``, ``segment``... with a picture (H,W,3) uint8."""
        return self._run(getattr(self._ready(), method), self.image(rgb))

    def landmarks(self, rgb: np.ndarray) -> np.ndarray:
        """(K,N,3) float32 landmarks of a FaceLandmarker as shares of width, height and width.

        They are read from MediaPipe's C structure, because the conversion to Python objects would
        take a tenth of the detection time.
        """
        from mediapipe.tasks.python.vision.face_landmarker import MpFaceLandmarkerResultC

        task, picture = self._ready(), self.image(rgb)
        result = MpFaceLandmarkerResultC()
        arguments = [task._handle, picture._image_ptr, None, ctypes.byref(result)]
        detect = task._lib.MpFaceLandmarkerDetectImage
        if self._video:
            self._time += _FRAME_TIME
            arguments.insert(3, self._time)
            detect = task._lib.MpFaceLandmarkerDetectForVideo
        self._run(detect, *arguments)
        try:
            faces = [result.face_landmarks[k] for k in range(result.face_landmarks_count)]
            size = _LANDMARK.itemsize
            records = [ctypes.string_at(f.landmarks, f.landmarks_count * size) for f in faces]
            return np.array([np.frombuffer(record, _LANDMARK)["xyz"] for record in records])
        finally:
            task._lib.MpFaceLandmarkerCloseResult(ctypes.byref(result))

    def close(self) -> None:
        """Free threads and memory. Without it the interpreter prints an exception at exit."""
        task, self._task = self._task, None
        if task is not None and self in _open:
            with quiet_stderr():
                task.close()
                _open.discard(self)
                _allow_connections()

    def _ready(self) -> Any:
        if self._task is None:
            self._create()
        return self._task

    def _run(self, call: Any, *arguments: Any) -> Any:
        if not self._first:
            return call(*arguments)
        with quiet_stderr():  # the threads write start-up lines during the first call
            result = call(*arguments)
        self._first = False
        return result


@lru_cache(maxsize=3)
def _model(name: str) -> bytes:
    """Content of a model file; of the face bundle only the detector and the landmark network.

    MediaPipe would run the bundle's blendshape network on every frame, even if it is not requested.
    """
    if name != "face_landmarker.task":
        return (MODELS / name).read_bytes()
    reduced = io.BytesIO()
    with zipfile.ZipFile(MODELS / name) as bundle, zipfile.ZipFile(reduced, "w") as target:
        for item in ("face_detector.tflite", "face_landmarks_detector.tflite"):
            target.writestr(item, bundle.read(item))
    return reduced.getvalue()


def _refuse_connections() -> None:
    """Set the proxy for C libraries only; ``os.environ``, which Python code reads, is unchanged."""
    for name, value in _PROXY_VARIABLES.items():
        os.putenv(name, value)


def _allow_connections() -> None:
    if len(_open):
        return
    for name in _PROXY_VARIABLES:
        if name in os.environ:
            os.putenv(name, os.environ[name])
        else:
            os.unsetenv(name)


def _abandon() -> None:
    """Drop the handles of open tasks without closing them.

    In a forked child their threads do not exist, and at interpreter exit they accept no more work.
    In both cases closing would hang or print an exception.
    """
    for item in list(_open):
        if item._task is not None:
            item._task._handle = None
            item._task = None
    _open.clear()


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # the thread that held it does not exist in the child
    _abandon()
    _allow_connections()


atexit.register(_abandon)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
