"""Writer and reader: frame selection, sizes, rotation, names, failures, memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from talkingface.data.media import files, reader, writer
from talkingface.data.media.audio import load_audio
from talkingface.data.media.images import read_image
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import count_frames, read_frames
from talkingface.data.media.writer import VideoWriter, write_image
from talkingface.errors import DataError, EnvironmentProblem
from talkingface.utils import paths

av = pytest.importorskip("av")
REPOSITORY = Path(__file__).parents[2]
SIZE = (64, 96)  # height, width
BITS = 12


def numbered(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A frame that carries its number as black and white columns."""
    bits = [(number >> bit) & 1 for bit in range(BITS)]
    row = np.repeat(np.array(bits, np.uint8) * 255, size[1] // BITS)
    frame = np.zeros((*size, 3), np.uint8)
    frame[:, : len(row)] = row[None, :, None]
    return frame


def number_of(frame: np.ndarray) -> int:
    step = SIZE[1] // BITS
    levels = frame[SIZE[0] // 2, step // 2 : step * BITS : step].mean(axis=-1)
    return sum(1 << bit for bit, level in enumerate(levels) if level > 127)


def write_numbered(path: Path, fps: float, count: int, **options) -> Path:
    with VideoWriter(path, fps, preset="ultrafast", **options) as out:
        for number in range(count):
            out.write(numbered(number))
    return path


def vfr_clip(path: Path, stamps_ms: list[int], suffix: str = "mp4", rotation: int = 0) -> Path:
    """Write frames at given times with PyAV itself (last one lasts 40 ms)."""
    with av.open(str(path), "w", format=suffix) as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.max_b_frames = 0
        if rotation:
            stream.set_display_rotation(rotation)
        for number, stamp in enumerate(stamps_ms):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base, frame.duration = stamp, Fraction(1, 1000), 40
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("source", [23.976, 24, 30, 50, 60])
def test_constant_rate_takes_the_nearest_frame(tmp_path, source):
    path = write_numbered(tmp_path / "a.mp4", source, int(source * 3))
    exact = float(files.exact_fps(source))
    numbers = [number_of(f) for f in read_frames(path, 25)]
    assert len(numbers) == round(int(source * 3) / exact * 25) == count_frames(path, 25)
    early = np.array(numbers) / exact - np.arange(len(numbers)) / 25
    # The tail may repeat the last frame; everything else is within half a source frame, but never
    # more than half an output frame (20 ms) ahead of its time.
    inside = np.array(numbers) < int(source * 3) - 1
    lead = min(0.5 / exact, 0.02)
    assert early[inside].max() <= lead + 1e-4
    assert early[inside].min() >= lead - 1 / exact - 1e-4
    assert np.abs(early).max() <= 1.0 / exact + 0.02


def test_native_rate_is_untouched(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 30, 40)
    assert [number_of(f) for f in read_frames(path)] == list(range(40))
    assert [number_of(f) for f in read_frames(path, 30)] == list(range(40))
    assert count_frames(path) == 40


@pytest.mark.parametrize("suffix", ["mp4", "matroska"])
def test_variable_rate_keeps_time(tmp_path, suffix):
    stamps = [0, 40, 80, 200, 280, 320, 360, 480, 500, 520]
    path = vfr_clip(tmp_path / "v.bin", stamps, suffix)
    numbers = [number_of(f) for f in read_frames(path, 25)]
    # A frame takes over midway from the one before, but at most half an output frame early.
    gaps = np.diff(stamps, prepend=stamps[0])
    begins = stamps - np.minimum(gaps / 2, 20)
    expected = [int(np.flatnonzero(begins <= 40 * k).max()) for k in range(len(numbers))]
    assert numbers == expected
    assert len(numbers) == 14  # 560 ms


def test_repeated_frames_do_not_share_memory(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 5, 3)
    frames = list(read_frames(path, 25))
    frames[0][:] = 77
    assert number_of(frames[1]) == 0 and not np.shares_memory(frames[0], frames[1])


@pytest.mark.parametrize("fps", [None, 25, 10])
@pytest.mark.parametrize(("start", "end"), [(0.4, 1.2), (9.0, 9.6), (19.0, None)])
def test_time_ranges_equal_a_slice(tmp_path, fps, start, end):
    path = write_numbered(tmp_path / "a.mp4", 25, 500)
    whole = [number_of(f) for f in read_frames(path, fps)]
    rate = fps or 25
    part = [number_of(f) for f in read_frames(path, fps, start=start, end=end)]
    assert part == whole[round(start * rate) : None if end is None else round(end * rate)]
    assert part


@pytest.mark.parametrize("size", [(63, 95), (64, 95), (63, 96)])
def test_odd_sizes_gain_a_copied_edge(tmp_path, size):
    frame = np.full((*size, 3), 40, np.uint8)
    frame[-1], frame[:, -1] = 220, 220
    with VideoWriter(tmp_path / "odd.mp4", 25) as out:
        out.write(frame)
    read = next(read_frames(tmp_path / "odd.mp4"))
    assert read.shape == (64, 96, 3)
    assert abs(int(read[-1, 10, 0]) - (220 if size[0] % 2 else read[-1, 10, 0])) < 12
    assert read[10, 10, 0] < 60 and read[-1, -1, 0] > 190


@pytest.mark.parametrize("height", [64, 720])
def test_colours_survive(tmp_path, height):
    frame = np.empty((height, 64, 3), np.uint8)
    frame[:] = (200, 50, 80)
    with VideoWriter(tmp_path / "c.mp4", 25, crf=10) as out:
        out.write(frame)
    with av.open(str(tmp_path / "c.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range) == (1 if height == 720 else 6, 1)
    read = next(read_frames(tmp_path / "c.mp4"))
    assert np.abs(read.astype(int) - (200, 50, 80)).max() <= 4


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_tag_is_applied(tmp_path, rotation):
    path = vfr_clip(tmp_path / "r.mp4", [0, 40], rotation=rotation)
    upright = next(read_frames(path))
    info = probe(path)
    assert upright.shape[:2] == (info.height, info.width)
    assert upright.shape[:2] == (SIZE if rotation == 180 else SIZE[::-1])
    # PyAV counts counterclockwise. OpenCV's reader, which applies the tag too, tells the sense
    # independently.
    stored = np.rot90(list(read_frames(path))[1], -rotation % 360 // 90)
    assert number_of(stored) == 1
    if int(cv2.__version__.split(".")[0]) < 5:
        return  # earlier ones do not apply it
    capture = cv2.VideoCapture(str(path))
    shown = capture.read()[1][..., ::-1]
    capture.release()
    assert shown.shape == upright.shape and np.abs(shown.astype(int) - upright).mean() < 3


NAMES = ["two words.mp4", "中文 名.mp4", 'it\'s "q".mp4', "a.b..c.mp4", "x#1&%03d.mp4", "-o.mp4"]


@pytest.mark.parametrize("name", NAMES)
def test_awkward_names(tmp_path, name):
    path = write_numbered(tmp_path / name, 25, 3)
    assert [number_of(f) for f in read_frames(path)] == [0, 1, 2]
    write_image(path.with_suffix(".png"), numbered(9))
    assert np.array_equal(read_image(path.with_suffix(".png")), numbered(9))
    assert len(list(tmp_path.iterdir())) == 2


def test_names_with_colon_and_very_long_names(tmp_path):
    for name in ("http:a.mp4", "长" * 80 + ".mp4"):
        assert count_frames(write_numbered(tmp_path / name, 25, 2)) == 2


def test_sound_is_cut_to_the_picture(tmp_path):
    sound = np.full(40000, 0.1, np.float32)
    write_numbered(tmp_path / "cut.mp4", 25, 25, audio=(sound, 16000))
    assert len(load_audio(tmp_path / "cut.mp4")) == 16000
    write_numbered(tmp_path / "short.mp4", 25, 100, audio=(sound, 16000))
    assert abs(len(load_audio(tmp_path / "short.mp4")) - 40000) < 20
    assert count_frames(tmp_path / "short.mp4") == 100


def test_index_is_at_the_front(tmp_path):
    data = write_numbered(tmp_path / "a.mp4", 25, 5).read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")


def test_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 25, 5)
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), VideoWriter(path, 25) as out:
        out.write(numbered(0))
        _ = 1 / 0
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"] and path.read_bytes() == before


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: VideoWriter(p / "a.avi", 25), "ends in .mp4"),
        (lambda p: VideoWriter(p / "a.mp4", 0), "frame rate"),
        (lambda p: VideoWriter(p / "a.mp4", float("nan")), "frame rate"),
        (lambda p: VideoWriter(p / "a.mp4", 25).close(), "No frame"),
        (lambda p: VideoWriter(p / "a.mp4", 25, audio=(np.full(9, np.nan), 16000)), "NaN"),
        (lambda p: VideoWriter(p / "a.mp4", 25, audio=(np.zeros(9, np.int16), 16000)), "float"),
        (lambda p: write_image(p / "a.xyz", numbered(1)), "format"),
        (lambda p: read_image(p / "none.png"), "Cannot read"),
        (lambda p: read_frames(p / "none.mp4"), "does not exist"),
        (lambda p: read_frames(p), "folder"),
    ],
)
def test_wrong_arguments(tmp_path, make, words):
    with pytest.raises(DataError, match=words):
        make(tmp_path)
    assert not list(tmp_path.iterdir())


def test_wrong_frames(tmp_path):
    for bad in (numbered(0)[..., 0], numbered(0).astype(np.float32)):
        with pytest.raises(DataError, match="uint8 RGB"), VideoWriter(tmp_path / "a.mp4", 25) as o:
            o.write(bad)
    with pytest.raises(DataError, match="size 64x64"), VideoWriter(tmp_path / "a.mp4", 25) as out:
        out.write(numbered(0))
        out.write(np.zeros((64, 64, 3), np.uint8))
    with VideoWriter(tmp_path / "b.mp4", 25) as out:
        out.write(numbered(0))
    with pytest.raises(DataError, match="closed"):
        out.write(numbered(1))
    assert [p.name for p in tmp_path.iterdir()] == ["b.mp4"]


def run_child(code: str, *arguments: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


CHILD = """
    import sys, numpy as np
    from talkingface.data.media.writer import VideoWriter
    from talkingface.errors import EnvironmentProblem
    rng = np.random.default_rng(0)
    if sys.argv[2] == "limit":
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    try:
        with VideoWriter(sys.argv[1], 25, audio=(np.zeros(16000 * 40, np.float32), 16000)) as out:
            for index in range(100000 if sys.argv[2] == "kill" else 400):
                out.write(rng.integers(0, 255, (128, 128, 3), dtype=np.uint8))
                if index == 60:
                    print("running", flush=True)
    except EnvironmentProblem as error:
        print("MESSAGE", error)
        sys.exit(2)
"""


def test_full_disk_gives_a_message_and_leaves_nothing(tmp_path):
    pytest.importorskip("resource")
    child = run_child(CHILD, str(tmp_path / "a.mp4"), "limit")
    out, err = child.communicate(timeout=60)
    assert child.returncode == 2, (out, err)
    assert "MESSAGE Could not write" in out and "a.mp4" in out and "limit" in out
    assert "Traceback" not in err and not list(tmp_path.iterdir())


def test_killed_writer_leaves_nothing_that_looks_whole(tmp_path):
    child = run_child(CHILD, str(tmp_path / "a.mp4"), "kill")
    assert child.stdout.readline() == "running\n"
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=30)
    left = list(tmp_path.iterdir())
    assert len(left) == 1 and paths.is_temporary(left[0])
    with pytest.raises(DataError):
        probe(left[0])


def test_no_space_message(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentProblem, match="disk or quota full.*Free some space"):
        write_numbered(tmp_path / "a.mp4", 25, 3)
    with pytest.raises(EnvironmentProblem, match="disk or quota full"):
        write_image(tmp_path / "a.png", numbered(1))
    assert not list(tmp_path.iterdir())


def test_read_only_folder(tmp_path, monkeypatch):
    if os.geteuid() == 0:  # root may write anywhere: let the system call refuse

        def refuse(*_, **__):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "touch", refuse)
    else:
        tmp_path.chmod(0o555)
    try:
        with pytest.raises(EnvironmentProblem, match="no permission in the folder"):
            VideoWriter(tmp_path / "a.mp4", 25)
    finally:
        tmp_path.chmod(0o755)
    (tmp_path / "b.mp4").mkdir()
    with pytest.raises(EnvironmentProblem, match="folder of that name"):
        VideoWriter(tmp_path / "b.mp4", 25)


def test_reader_streams(tmp_path):
    path = tmp_path / "a.mp4"
    with VideoWriter(path, 25, preset="ultrafast") as out:
        for number in range(60):
            out.write(np.full((720, 1280, 3), number, np.uint8))
    one = 720 * 1280 * 3
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_frames(path, 50)) == 120
        assert tracemalloc.get_traced_memory()[1] < 6 * one  # 120 frames would be 120 of these
    finally:
        tracemalloc.stop()


def test_reader_opens_late_and_closes_early(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 25, 200)
    frames = read_frames(path, 25)
    assert number_of(next(frames)) == 0
    frames.close()
    if Path("/proc/self/fd").exists():
        opened = [
            os.readlink(f"/proc/self/fd/{n}")
            for n in os.listdir("/proc/self/fd")
            if os.path.islink(f"/proc/self/fd/{n}")
        ]
        assert str(path) not in opened


def test_broken_time_stamps_do_not_run_away():
    clock, shift, last, nominal = reader._clock, 0.0, 5.0, 0.04
    assert clock(5.04, shift, last, nominal, 10.0) == (5.04, 0.0)
    assert clock(None, shift, last, nominal, 10.0) == (5.04, 0.0)
    time_, shift = clock(95000.0, 0.0, last, nominal, 10.0)
    assert time_ == pytest.approx(5.04)
    assert clock(95000.04, shift, time_, nominal, 10.0)[0] == pytest.approx(5.08)
    assert clock(0.0, 0.0, last, nominal, 10.0)[0] == pytest.approx(5.04)


def test_importing_the_modules_is_free():
    code = """
        import sys
        import talkingface.data.media.writer, talkingface.data.media.reader
        import talkingface.data.media.audio, talkingface.data.media.mel
        heavy = {"av", "cv2", "librosa", "scipy", "soundfile", "soxr", "torch"} & set(sys.modules)
        sys.exit(f"imported {heavy}" if heavy else 0)
    """
    child = run_child(code)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 0, err


def test_exact_rates():
    assert files.exact_fps(23.976) == files.exact_fps(24000 / 1001) == Fraction(24000, 1001)
    assert files.exact_fps(29.97) == Fraction(30000, 1001)
    assert files.exact_fps(25) == 25 and files.exact_fps(12.5) == Fraction(25, 2)
    assert writer.VIDEO_SUFFIXES[0] == ".mp4"


def test_encoder_problems_are_explained(tmp_path, monkeypatch):
    for options in ({"crf": -99999}, {"preset": "foo"}):
        with pytest.raises(DataError, match="encoder refused"):
            VideoWriter(tmp_path / "a.mp4", 25, **options).write(numbered(0))
    with pytest.raises(DataError, match="40000x2"), VideoWriter(tmp_path / "b.mp4", 25) as out:
        out.write(np.zeros((2, 40000, 3), np.uint8))

    def unknown(*_, **__):
        raise ValueError("libx264")

    broken = SimpleNamespace(open=unknown, FFmpegError=av.FFmpegError)
    with VideoWriter(tmp_path / "c.mp4", 25) as out:
        out.write(numbered(0))
        monkeypatch.setattr(out, "_av", broken)
        monkeypatch.setattr("talkingface.data.media.writer.import_av", lambda: broken)
        with pytest.raises(EnvironmentProblem, match="pip install"):
            out._guard(out._open)
    assert [p.name for p in tmp_path.iterdir()] == ["c.mp4"]


def test_a_log_level_set_by_another_package_is_taken_back(tmp_path):
    """PyAV's log callback can hang a process whose decoder threads end."""
    import av.logging

    path = vfr_clip(tmp_path / "v.mp4", [0, 40])
    av.logging.set_level(av.logging.ERROR)
    next(read_frames(path))
    assert av.logging.get_level() is None
