"""MediaPipe is quiet, sends nothing, and may be forked or forgotten."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import REPOSITORY

pytest.importorskip("mediapipe")
data = pytest.importorskip("skimage.data")

from talkingface.data.face import mediapipe_tasks as tasks  # noqa: E402
from talkingface.data.face.mesh import FaceMesher  # noqa: E402
from talkingface.data.face.topology import N_POINTS  # noqa: E402
from talkingface.errors import EnvironmentProblem  # noqa: E402

BEGIN = (
    "import numpy as np, os, skimage.data\n"
    "from talkingface.data.face.mesh import FaceMesher\n"
    "from talkingface.data.face.person import PersonSegmenter, _pose_shoulders\n"
    "picture = skimage.data.astronaut()\n"
)


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BEGIN + code],
        cwd=REPOSITORY,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return data.astronaut()


def test_landmarks_are_those_of_mediapipes_own_interface(picture):
    with FaceMesher(tracking=False) as mesher:
        ours = mesher(picture)
        result = mesher._task("detect", picture).face_landmarks
    height, width = picture.shape[:2]
    theirs = [[(p.x * width, p.y * height, p.z * width) for p in face] for face in result]
    assert ours.shape == (1, N_POINTS, 3) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_tracked_video_is_not_smoothed_over_time(picture):
    """A face that jumps is found at its new place at once."""
    moved = np.roll(picture, 40, axis=1)
    with FaceMesher(tracking=True, max_faces=1) as mesher:
        for _ in range(3):
            before = mesher(picture)
        after = mesher(moved)
    assert len(before) == len(after) == 1
    shift = (after - before)[0, :, 0]
    assert abs(np.median(shift) - 40) < 3


def test_nothing_is_written_to_the_error_stream():
    code = (
        "with FaceMesher(tracking=True, max_faces=3) as mesher:\n"
        "    assert len(mesher(picture)) == 1\n"
        "    mesher.reset()\n"
        "    assert len(mesher(picture)) == 1\n"
        "with PersonSegmenter() as segmenter: segmenter(picture)\n"
        "_pose_shoulders(picture)\n"
    )
    done = python(code)
    assert done.returncode == 0 and not done.stderr and not done.stdout


def test_a_task_that_nobody_closed_leaves_no_message():
    done = python("mesher = FaceMesher(tracking=True)\nprint(len(mesher(picture)))")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_gets_its_own():
    code = (
        "mesher = FaceMesher(tracking=False)\n"
        "first = mesher(picture)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if np.array_equal(mesher(picture), first) else 7)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
        "assert np.array_equal(mesher(picture), first)\n"
        "mesher.close()\n"
    )
    done = python(code)
    assert (done.returncode, done.stderr) == (0, "")


def test_usage_statistics_go_to_the_proxy_and_nowhere_else(picture, monkeypatch):
    """With a proxy that listens in place of the closed port, the upload arrives there."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(20)
    received = []

    def listen() -> None:
        try:
            connection, _ = server.accept()
        except TimeoutError:
            return
        with connection:
            received.append(connection.recv(200).decode("latin-1"))

    thread = threading.Thread(target=listen)
    thread.start()
    port = server.getsockname()[1]
    monkeypatch.setitem(tasks._PROXY_VARIABLES, "https_proxy", f"http://127.0.0.1:{port}")
    with FaceMesher(tracking=False) as mesher:
        mesher(picture)
    thread.join()
    server.close()
    # Nothing here: the proxy is not used, or this MediaPipe sends nothing and needs no proxy.
    assert len(received) == 1 and received[0].startswith("CONNECT play.googleapis.com:443")


def test_the_proxy_refuses_connections():
    address = tasks._PROXY_VARIABLES["https_proxy"].removeprefix("http://")
    host, port = address.split(":")
    with pytest.raises(OSError):
        socket.create_connection((host, int(port)), timeout=5).close()


def test_the_environment_is_as_before_when_all_tasks_are_closed():
    code = (
        "show = 'echo $https_proxy,$no_proxy'\n"
        "def inherited(): return os.popen(show).read().strip()\n"
        "assert inherited() == 'http://mine:1,a.b'\n"
        "one, two = FaceMesher(tracking=False), PersonSegmenter()\n"
        "assert inherited() == 'http://127.0.0.1:9,localhost'\n"
        "assert os.environ['https_proxy'] == 'http://mine:1'\n"
        "one.close()\n"
        "assert inherited().startswith('http://127.0.0.1:9')\n"
        "two.close()\n"
        "assert inherited() == 'http://mine:1,a.b'\n"
    )
    done = python(code, https_proxy="http://mine:1", no_proxy="a.b")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_system_library_is_named(monkeypatch):
    def fail(_):
        raise OSError("libGLESv2.so.2: cannot open shared object file: No such file or directory")

    vision = pytest.importorskip("mediapipe.tasks.python.vision")
    monkeypatch.setattr(vision.FaceLandmarker, "create_from_options", fail)
    with pytest.raises(EnvironmentProblem, match=r"MediaPipe .*libGLESv2") as caught:
        FaceMesher(tracking=False)
    assert "libgles2" in str(caught.value)
