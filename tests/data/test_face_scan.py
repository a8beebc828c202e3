"""One pass over a video: what is found and measured, and the cache of it."""

from __future__ import annotations

import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("mediapipe")
data = pytest.importorskip("skimage.data")

import cv2  # noqa: E402

from talkingface.config.schema import FaceSection  # noqa: E402
from talkingface.data.face import scan as scan_module  # noqa: E402
from talkingface.data.face.scan import FaceScan, cache_folder, scan_frames, scan_video  # noqa: E402
from talkingface.data.face.topology import CHIN, FOREHEAD, LIPS_OUTER, N_POINTS  # noqa: E402
from talkingface.data.media.writer import VideoWriter  # noqa: E402
from talkingface.errors import DataError  # noqa: E402

FRAMES = 8


def photo(x: int = 90, y: int = 0, side: int = 256) -> np.ndarray:
    """A square of scikit-image's portrait; the face is in the middle for the default corner."""
    return np.ascontiguousarray(data.astronaut()[y : y + side, x : x + side])


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The portrait moving to the left by two pixels per frame."""
    path = tmp_path_factory.mktemp("portrait") / "portrait.mp4"
    with VideoWriter(path, 25) as writer:
        for k in range(FRAMES):
            writer.write(photo(90 + 2 * k))
    return path


@pytest.fixture(scope="module")
def fresh(video: Path) -> FaceScan:
    return scan_video(video, fps=25, tracking=True, cache=False)


def same(a: FaceScan, b: FaceScan) -> bool:
    """Every bit, and the types."""
    for field in fields(FaceScan):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if type(x) is not type(y):
            return False
        x, y = np.asarray(x), np.asarray(y)
        if (x.dtype, x.shape, x.tobytes()) != (y.dtype, y.shape, y.tobytes()):
            return False
    return True


def stored() -> list[Path]:
    return sorted(path for path in cache_folder().rglob("*") if path.is_file())


def with_compression(archive: bytes, method: bytes) -> bytes:
    """An npz file whose first entry in the directory names this compression method."""
    place = archive.index(b"PK\x01\x02") + 10
    return archive[:place] + method + archive[place + 1 :]


@pytest.fixture
def no_detection(monkeypatch: pytest.MonkeyPatch):
    """From now on, detecting is an error."""

    def block() -> None:
        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("detected again")

        monkeypatch.setattr(scan_module, "scan_frames", refuse)

    return block


# -- what a scan holds -----------------------------------------------------------------------------


def test_a_scan_holds_one_mesh_per_frame(fresh):
    assert fresh.n_frames == FRAMES
    assert fresh.size.tolist() == [256, 256]
    assert fresh.frame.tolist() == list(range(FRAMES))
    assert fresh.points.shape == (FRAMES, N_POINTS, 3) and fresh.points.dtype == np.float32
    assert fresh.cuts.tolist() == []
    steps = np.diff(fresh.points[:, :, 0].mean(axis=1))
    assert steps.mean() == pytest.approx(-2, abs=0.25)
    upright = fresh.points[:, CHIN, 1] - fresh.points[:, FOREHEAD, 1]
    assert (upright > 80).all()


def test_the_same_frames_give_the_same_scan(video, fresh):
    assert same(scan_video(video, fps=25, tracking=True, cache=False), fresh)


def test_large_pictures_are_reduced_and_the_points_scaled_back(fresh):
    """Coordinates are those of the full picture, also where the reduction leaves a rest."""
    big = cv2.resize(photo(), (768, 768), interpolation=cv2.INTER_CUBIC)
    bordered = np.zeros((770, 769, 3), np.uint8)
    bordered[:768, :768] = big
    alone = scan_frames([photo()], tracking=False)
    scan = scan_frames([bordered], tracking=False, options=FaceSection(max_side=260))
    assert scan.size.tolist() == [769, 770]
    np.testing.assert_allclose(scan.points[0] / 3, alone.points[0], atol=1.5)


def test_a_picture_is_a_video_of_one_frame(tmp_path):
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), photo()[..., ::-1])
    scan = scan_video(path, fps=25, tracking=True, cache=False)
    assert (scan.n_frames, scan.frame.tolist()) == (1, [0])
    assert np.isnan(scan.face_change[0])
    np.testing.assert_array_equal(scan.points, scan_frames([photo()], tracking=True).points)


def test_frames_without_a_face_are_counted():
    empty = np.zeros((100, 120, 3), np.uint8)
    scan = scan_frames([empty] * 4, tracking=True)
    assert (scan.n_frames, len(scan.frame), scan.points.shape) == (4, 0, (0, N_POINTS, 3))
    assert len(scan.sharpness) == len(scan.mouth_texture) == len(scan.face_change) == 0


def test_no_frames_at_all_are_an_empty_scan():
    scan = scan_frames([], tracking=True)
    assert (scan.n_frames, len(scan.frame)) == (0, 0)


def test_two_faces_are_two_detections():
    both = np.concatenate([photo(), photo()[:, ::-1]], axis=1)
    scan = scan_frames([both] * 3, tracking=True)
    assert scan.frame.tolist() == [0, 0, 1, 1, 2, 2]
    sides = scan.points[:, :, 0].mean(axis=1) > 256
    assert sides.reshape(3, 2).sum(axis=1).tolist() == [1, 1, 1]
    assert len(scan_frames([both], tracking=True, options=FaceSection(max_faces=1)).frame) == 1


# -- measures --------------------------------------------------------------------------------------


def test_a_blurred_face_is_less_sharp():
    blurred = cv2.GaussianBlur(photo(), (0, 0), 2.5)
    sharp, soft = (scan_frames([p], tracking=False) for p in (photo(), blurred))
    assert soft.sharpness[0] < 0.3 * sharp.sharpness[0]
    assert soft.mouth_texture[0] < sharp.mouth_texture[0]


def test_sharpness_does_not_depend_on_the_size_of_the_face():
    """The same face at half the size is as sharp to the eye: patches have one size."""
    full = cv2.resize(photo(), (768, 768), interpolation=cv2.INTER_AREA)
    half = cv2.resize(photo(), (512, 512), interpolation=cv2.INTER_AREA)
    a, b = (scan_frames([p], tracking=False).sharpness[0] for p in (full, half))
    assert a == pytest.approx(b, rel=0.35)


def test_a_covered_mouth_has_no_texture():
    covered = photo()
    x0, y0 = scan_frames([covered], tracking=False).points[0, [61, 0], :2].min(axis=0).astype(int)
    x1, y1 = scan_frames([covered], tracking=False).points[0, [291, 17], :2].max(axis=0).astype(int)
    covered[y0 - 4 : y1 + 4, x0 - 4 : x1 + 4] = (180, 140, 120)
    open_mouth, hidden = (scan_frames([p], tracking=False) for p in (photo(), covered))
    assert hidden.mouth_texture[0] < 0.6 * open_mouth.mouth_texture[0]


def test_a_repeated_frame_does_not_change_and_a_new_one_does():
    frames = [photo(90), photo(90), photo(94)]
    scan = scan_frames(frames, tracking=True)
    assert np.isnan(scan.face_change[0])
    assert scan.face_change[1] == 0 < 2 < scan.face_change[2]


@pytest.mark.parametrize("shift", [(-400, 0), (0, -400), (400, 0), (0, 400), (-400, -400)])
def test_what_is_outside_of_the_picture_is_not_measured(fresh, shift):
    """Not even by counting from the other border."""
    outside = fresh.points[0] + np.array([*shift, 0], np.float32)
    assert np.isnan(scan_module._measures(photo(), photo(), outside)).all()
    mouth = fresh.points[0].copy()
    mouth[list(LIPS_OUTER), :2] += shift
    sharpness, texture, change = scan_module._measures(photo(), photo(), mouth)
    assert np.isnan(texture) and np.isfinite([sharpness, change]).all()


# -- cuts ------------------------------------------------------------------------------------------


def scenes() -> tuple[np.ndarray, np.ndarray]:
    """Two different pictures without faces."""
    return data.coffee()[:200, :300], data.rocket()[:200, :300]


def test_a_cut_is_found_at_its_first_new_frame():
    a, b = scenes()
    assert scan_frames([a] * 7 + [b] * 5, tracking=True).cuts.tolist() == [7]
    assert scan_frames([a] + [b] * 5, tracking=True).cuts.tolist() == [1]
    assert scan_frames([a] * 4 + [b] * 4 + [a] * 4, tracking=False).cuts.tolist() == [4, 8]


def test_a_fade_and_a_moving_camera_are_no_cuts():
    a, b = (scene.astype(float) for scene in scenes())
    fade = [(a + (b - a) * k / 30).astype(np.uint8) for k in range(31)]
    assert scan_frames(fade, tracking=True).cuts.tolist() == []
    shaking = [np.roll(scenes()[0], 30 * (k % 5), axis=1) for k in range(20)]
    first, second = (scan_module._thumbnail(picture) for picture in shaking[:2])
    assert cv2.absdiff(first, second).mean() > 12  # only the comparison with the time before helps
    scan = scan_frames(shaking, tracking=True)
    assert scan.cuts.tolist() in ([], [1])  # the first jolt may pass for a cut


def test_no_track_survives_a_cut():
    """The face after the cut is found afresh, as if the video began there."""
    other = np.ascontiguousarray(photo()[:, ::-1] // 3)
    after = scan_frames([photo()] * 5 + [other] * 3, tracking=True)
    alone = scan_frames([other] * 3, tracking=True)
    assert after.cuts.tolist() == [5]
    np.testing.assert_array_equal(after.points[after.frame >= 5], alone.points)


# -- the cache -------------------------------------------------------------------------------------


def test_a_cache_hit_is_bit_for_bit_the_fresh_result(root, video, fresh, no_detection):
    first = scan_video(video, fps=25, tracking=True)
    assert len(stored()) == 1
    no_detection()
    assert same(first, fresh)
    assert same(scan_video(video, fps=25, tracking=True), fresh)


def test_a_video_without_faces_is_cached_too(root, noise_video, tmp_path, no_detection):
    path = noise_video(tmp_path / "noise.mp4", frames=4)
    first = scan_video(path, fps=25, tracking=True)
    no_detection()
    assert same(scan_video(path, fps=25, tracking=True), first)
    assert first.n_frames == 4 and len(first.frame) == 0


def test_a_moved_file_keeps_its_cache(root, video, fresh, tmp_path, no_detection):
    scan_video(video, fps=25, tracking=True)
    no_detection()
    moved = tmp_path / "a b" / "名.mp4"
    moved.parent.mkdir()
    shutil.copyfile(video, moved)  # with another time stamp
    assert same(scan_video(moved, fps=25, tracking=True), fresh)


def test_a_changed_file_does_not_hit(root, video, tmp_path):
    scan_video(video, fps=25, tracking=True)
    path = tmp_path / "portrait.mp4"
    with VideoWriter(path, 25) as writer:
        for _ in range(3):
            writer.write(photo(60))
    assert scan_video(path, fps=25, tracking=True).n_frames == 3
    assert len(stored()) == 2


def test_other_settings_do_not_hit(root, video):
    usual = {"fps": 25, "tracking": True}
    scan_video(video, **usual)
    others = [
        {"fps": 12.5},
        {"fps": 24.98},
        {"tracking": False},
        {"options": FaceSection(max_faces=1)},
        {"options": FaceSection(max_side=128)},
        {"options": FaceSection(min_detection=0.3)},
    ]
    for count, other in enumerate(others, start=2):
        scan = scan_video(video, **{**usual, **other})
        assert len(stored()) == count
        assert scan.n_frames == (4 if other == {"fps": 12.5} else FRAMES)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"not an archive",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-10],
        lambda content: content[:5000] + b"????????" + content[5008:],
        lambda content: content.replace(b"sharpness.npy", b"shorpness.npy"),
        lambda content: content.replace(b"{'descr'", b"{(descr'", 1),  # tokenize.TokenError
        lambda content: with_compression(content, b"\x63"),  # NotImplementedError
    ],
    ids=["empty", "text", "half", "no end", "bytes", "a field", "a header", "compression"],
)
def test_a_damaged_cache_is_made_again(root, video, fresh, damage, caplog):
    scan_video(video, fps=25, tracking=True)
    (path,) = stored()
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert path.read_bytes() != content
    assert same(scan_video(video, fps=25, tracking=True), fresh)
    assert "is damaged" in caplog.text
    caplog.clear()
    assert same(scan_video(video, fps=25, tracking=True), fresh)
    assert stored() == [path] and caplog.text == ""


def test_without_the_cache_nothing_is_read_or_written(root, video, fresh):
    assert same(scan_video(video, fps=25, tracking=True, cache=False), fresh)
    assert stored() == []
    scan_video(video, fps=25, tracking=True)
    (path,) = stored()
    with np.load(path) as content:
        np.savez(path, **{**content, "points": content["points"] + 1})  # someone else's
    changed = path.read_bytes()
    assert not same(scan_video(video, fps=25, tracking=True), fresh)
    assert same(scan_video(video, fps=25, tracking=True, cache=False), fresh)
    assert path.read_bytes() == changed


def test_a_cache_that_cannot_be_written_costs_only_time(root, video, fresh):
    (root / "dataset").mkdir()
    (root / "dataset" / ".cache").write_text("in the way")
    assert same(scan_video(video, fps=25, tracking=True), fresh)


def test_nothing_is_cached_of_a_video_that_cannot_be_read(root, tmp_path):
    path = tmp_path / "text.mp4"
    path.write_text("this is not a video")
    with pytest.raises(DataError):
        scan_video(path, fps=25, tracking=True)
    assert stored() == []
