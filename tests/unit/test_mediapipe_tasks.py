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
    """A face that moves a little is found at its new place at once."""
    moved = np.roll(picture, 4, axis=1)
    with FaceMesher(tracking=True, max_faces=1) as mesher:
        for _ in range(3):
            before = mesher(picture)
        after = mesher(moved)
        assert mesher._in_step  # it was followed, not searched
    assert len(before) == len(after) == 1
    shift = (after - before)[0, :, 0]
    assert abs(np.median(shift) - 4) < 0.3


def test_followed_landmarks_agree_with_those_of_single_pictures(picture):
    with FaceMesher(tracking=True, max_faces=3) as followed, FaceMesher(tracking=False) as single:
        for shift in range(0, 60, 6):
            frame = np.roll(picture, shift, axis=1)
            ours, reference = followed(frame)[0], single(frame)[0]
            eyes = np.linalg.norm(reference[263, :2] - reference[33, :2])
            assert np.linalg.norm((ours - reference)[:, :2], axis=1).mean() < 0.03 * eyes


def test_a_face_that_enters_is_found_within_25_frames(picture):
    """While one face is followed the whole picture is searched only now and then."""
    picture = picture[:300, 70:370]
    alone = np.hstack([picture, np.zeros_like(picture)])
    both = np.hstack([picture, picture[:, ::-1]])
    with FaceMesher(tracking=True, max_faces=3) as mesher:
        counts = [len(mesher(frame)) for frame in [alone] * 3 + [both] * 27]
        assert counts == [1] * 25 + [2] * 5
        counts = [len(mesher(frame)) for frame in [alone] * 3 + [both]]
        assert counts[:2] == [1, 1]  # one that leaves is missing at once


def test_another_face_is_not_taken_for_the_one_that_was_followed(picture):
    picture = picture[:300, 70:370]
    left = np.hstack([picture, np.zeros_like(picture)])
    with FaceMesher(tracking=True, max_faces=3) as mesher:
        for _ in range(3):
            mesher(left)
        for frame in [left[:, ::-1]] * 3:  # without reset(), which a cut would bring
            (face,) = mesher(frame)
            assert face[:, 0].min() > 300


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
