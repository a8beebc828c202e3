"""Shoulders: drawn silhouettes with known lines, drawn videos with known motion, and real clips."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from talkingface.data.face import person
from talkingface.data.face.person import (
    PER_SIDE,
    PersonSegmenter,
    locate_shoulders,
    torso_outline,
    torso_track,
    track_shoulders,
)
from talkingface.data.face.topology import CHIN, LSP73, MOUTH_CORNERS, N_POINTS

SIDE = 512
NECK = ((210, 330), (300, 335))  # where neck and shoulder meet, picture's left and right
BORDER = (420, 400)  # height of the shoulders at the picture's left and right border
FACE_WIDTH = 130  # the chin is in the middle of the neck


def silhouette(neck=NECK, border=BORDER, side: int = SIDE) -> np.ndarray:
    """(H,W) of 0 and 1: head, neck and shoulders that run straight to the borders."""
    mask = np.zeros((side, side), np.float32)
    (lx, ly), (rx, ry) = neck
    middle = (lx + rx) // 2
    cv2.ellipse(mask, (middle, 200), (75, 110), 0, 0, 360, 1, -1)
    body = [(lx, 250), (rx - 1, 250), (rx - 1, ry), (side - 1, border[1]), (side - 1, side - 1),
            (0, side - 1), (0, border[0]), (lx, ly)]  # fmt: skip
    cv2.fillPoly(mask, [np.array(body, np.int32)], 1)
    return mask


def face(middle: float = 255, mouth: float = 265, shift=(0, 0)) -> np.ndarray:
    """(478,3) landmarks: all that person.py looks at."""
    points = np.zeros((N_POINTS, 3))
    points[:, :2] = (middle, 200)
    points[list(MOUTH_CORNERS), 1] = mouth
    points[list(LSP73[:15]), 0] = middle + np.linspace(-0.5, 0.5, 15) * FACE_WIDTH
    points[CHIN, :2] = (middle, 310)
    return points + [*shift, 0]


def true_height(x: np.ndarray, right: bool, neck=NECK, border=BORDER) -> np.ndarray:
    """Height of the drawn shoulder line at x."""
    corner, edge = neck[right], (SIDE - 1 if right else 0)
    share = (np.asarray(x) - corner[0]) / (edge - corner[0])
    return corner[1] + share * (border[right] - corner[1])


# -- MODA: the outline of one frame ----------------------------------------------------------------


def test_drawn_shoulders_are_found_where_they_are():
    points, usable = torso_outline(silhouette(), face(), SIDE)
    assert points.shape == (18, 2) and usable.tolist() == [True, True]
    for right, line in enumerate((points[:PER_SIDE], points[PER_SIDE:])):
        error = line[:, 1] - true_height(line[:, 0], bool(right))
        assert np.abs(error).max() < 1.5
    np.testing.assert_allclose(points[[0, 17], 0], [0.5, SIDE - 0.5])
    np.testing.assert_allclose(points[[8, 9], 0], [NECK[0][0], NECK[1][0]], atol=7)
    for line in (points[:PER_SIDE, 0], points[PER_SIDE:, 0]):  # left to right, equally spaced
        np.testing.assert_allclose(np.diff(line), np.diff(line)[0])
        assert np.diff(line)[0] > 15


@pytest.mark.parametrize("factor", [0.5, 2.0, 2.5])
def test_masks_need_not_have_the_size_of_the_frame(factor):
    """Points are pixels of the frame."""
    usual, _ = torso_outline(silhouette(), face(), SIDE)
    scaled, usable = torso_outline(silhouette(), face() * factor, round(SIDE * factor))
    assert usable.all()
    np.testing.assert_allclose(scaled, usual * factor, atol=1.5)


def test_a_mirrored_picture_gives_mirrored_points():
    points, usable = torso_outline(silhouette(border=(420, 511)), face(), SIDE)
    mirrored, also = torso_outline(silhouette(border=(420, 511))[:, ::-1], face(256), SIDE)
    assert usable.tolist() == also.tolist()[::-1] == [True, True]
    np.testing.assert_allclose(mirrored[::-1] * [-1, 1] + [SIDE, 0], points, atol=1e-9)


def test_arms_that_hang_down_do_not_count_as_shoulders():
    """The line goes outwards only; below a point further out nothing is looked at."""
    mask = silhouette()
    mask[440:, :200] = 0  # the arm ends, the trunk goes on further in
    points, usable = torso_outline(mask, face(), SIDE)
    assert usable.all()
    error = points[:PER_SIDE, 1] - true_height(points[:PER_SIDE, 0], False)
    assert np.abs(error).max() < 1.5


@pytest.mark.parametrize(
    ("neck", "border", "usable"),
    [
        (((210, 330), (300, 335)), (420, 1000), [True, False]),  # steeper than 1.5
        (((210, 330), (300, 335)), (700, 400), [False, True]),
        (((210, 505), (300, 508)), (800, 800), [False, False]),  # below the picture
        (((210, 330), (490, 335)), (420, 345), [True, False]),  # shorter than 5 % of the width
        (((20, 330), (300, 335)), (340, 400), [False, True]),
    ],
    ids=["steep right", "steep left", "out of the picture", "short right", "short left"],
)
def test_hair_and_cut_off_shoulders_are_not_usable(neck, border, usable):
    points, found = torso_outline(silhouette(neck, border), face(), SIDE)
    assert found.tolist() == usable
    finite = np.isfinite(points).all(axis=1).reshape(2, PER_SIDE)
    assert finite.all(axis=1).tolist() == finite.any(axis=1).tolist() == usable


@pytest.mark.parametrize("mask", [np.zeros((64, 64)), np.ones((64, 64))], ids=["nobody", "all"])
@pytest.mark.parametrize("mouth", [30, 63.9, 500, -20])
def test_masks_without_an_outline_give_no_shoulders(mask, mouth):
    points, usable = torso_outline(mask.astype(np.float32), face(mouth=mouth), 64)
    assert not usable.any() and np.isnan(points).all()


def test_what_is_above_the_mouth_does_not_matter():
    """A hand or a lamp beside the head."""
    mask = silhouette()
    mask[:255, :100] = 1
    points, usable = torso_outline(mask, face(), SIDE)
    usual, _ = torso_outline(silhouette(), face(), SIDE)
    assert usable.all()
    np.testing.assert_allclose(points, usual)


# -- MODA: the torso of a clip ---------------------------------------------------------------------


def outlines(frames: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Points that move evenly, usable in all frames."""
    base = np.arange(36.0).reshape(18, 2)
    return base + np.arange(frames)[:, None, None], np.ones((frames, 2), bool)


def test_a_torso_that_is_always_seen_stays_as_it_is():
    points, usable = outlines()
    track, good = torso_track(points, usable, (640, 360), sigma=2)
    assert good.tolist() == [True, True]
    np.testing.assert_allclose(track[6:-6], points[6:-6])
    np.testing.assert_allclose(torso_track(points, usable, (640, 360), sigma=0)[0], points)


def test_gaps_of_a_side_are_filled_and_noise_is_smoothed():
    points, usable = outlines(200)
    points[50:70, :9] = np.nan
    usable[50:70, 0] = False
    track, good = torso_track(points, usable, (640, 360), sigma=0)
    assert good.all()
    np.testing.assert_allclose(track, outlines(200)[0])
    noisy = outlines(200)[0] + np.random.default_rng(0).normal(0, 1, points.shape)
    smooth, _ = torso_track(noisy, usable, (640, 360), sigma=2)
    assert jitter(smooth).max() < 0.15 < 0.8 < jitter(noisy).min()


def test_a_side_that_is_rarely_usable_goes_to_its_corner():
    points, usable = outlines()
    points[:21, 9:], usable[:21, 1] = np.nan, False
    track, good = torso_track(points, usable, (640, 360), sigma=0)
    assert good.tolist() == [True, False]
    assert (track[:, 9:] == [640, 360]).all()
    np.testing.assert_allclose(track[:, :9], points[:, :9])
    points, usable = np.full((4, 18, 2), np.nan), np.zeros((4, 2), bool)
    track, good = torso_track(points, usable, (640, 360))
    assert (track[:, :9] == [0, 360]).all() and (track[:, 9:] == [640, 360]).all()
    assert not good.any()


def test_half_of_the_frames_is_enough():
    points, usable = outlines()
    points[:20, 9:], usable[:20, 1] = np.nan, False
    track, good = torso_track(points, usable, (640, 360), sigma=0)
    assert good.all() and (track[:20, 9:] == points[20, 9:]).all()


# -- LSP: drawn people -----------------------------------------------------------------------------


class Bright:
    """Stands in for the segmentation: what is not black is a person."""

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        return (rgb.max(axis=2) > 0).astype(np.float32)

    def __enter__(self) -> Bright:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def picture(mask: np.ndarray, shift=(0.0, 0.0)) -> np.ndarray:
    """A textured person on black, moved by (x, y) pixels."""
    noise = np.random.default_rng(0).uniform(60, 255, mask.shape).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 1.5) * mask
    move = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
    flags, border = cv2.INTER_LINEAR, cv2.BORDER_REPLICATE
    moved = cv2.warpAffine(texture, move, mask.shape[::-1], flags=flags, borderMode=border)
    return np.repeat(moved[..., None], 3, axis=2).astype(np.uint8)


def jitter(points: np.ndarray) -> np.ndarray:
    """Noise per coordinate from second differences."""
    return np.sqrt((np.diff(points, 2, axis=0) ** 2).mean(axis=0) / 6)


@pytest.fixture
def no_pose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(person, "_pose_shoulders", lambda rgb: {})


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, no_pose: None) -> None:
    """Segmentation by brightness, no pose model."""
    monkeypatch.setattr(person, "PersonSegmenter", Bright)


def test_shoulders_lie_on_the_outline_at_fixed_distances_from_the_chin(no_pose):
    frames, marks = [picture(silhouette())] * 3, np.repeat(face()[None], 3, axis=0)
    points, how = locate_shoulders(frames, marks, Bright())
    assert how == ("segmentation", "segmentation")
    distance = np.linspace(0.45, 1.1, PER_SIDE) * FACE_WIDTH
    np.testing.assert_allclose(points[:PER_SIDE, 0], 255 - distance[::-1])  # outside to neck
    np.testing.assert_allclose(points[PER_SIDE:, 0], 255 + distance)  # neck to outside
    for right, line in enumerate((points[:PER_SIDE], points[PER_SIDE:])):
        assert np.abs(line[:, 1] - true_height(line[:, 0], bool(right))).max() < 1.5


def test_points_beyond_the_picture_continue_the_line(no_pose):
    """Half of the left columns lie outside."""
    mask = np.ascontiguousarray(silhouette()[:, 150:])
    marks = face()[None] - [150, 0, 0]
    points, how = locate_shoulders([picture(mask)], marks, Bright())
    assert how == ("segmentation", "segmentation")
    assert points[0, 0] < -30
    expected = true_height(points[:PER_SIDE, 0] + 150, False)
    assert np.abs(points[:PER_SIDE, 1] - expected).max() < 3


def test_something_that_sticks_out_of_a_shoulder_is_ignored(no_pose):
    """A strap over one column."""
    mask = silhouette()
    mask[300:400, 150:156] = 1
    points, how = locate_shoulders([picture(mask)], face()[None], Bright())
    assert how[0] == "segmentation"
    assert np.abs(points[:9, 1] - true_height(points[:9, 0], False)).max() < 4


def test_long_hair_on_one_side_leaves_that_side_unknown(no_pose):
    mask = silhouette()
    cv2.ellipse(mask, (355, 300), (110, 200), 0, 0, 360, 1, -1)
    points, how = locate_shoulders([picture(mask)], face()[None], Bright())
    assert how == ("segmentation", "none")
    assert np.isfinite(points[:PER_SIDE]).all() and np.isnan(points[PER_SIDE:]).all()


@pytest.mark.parametrize(
    ("joint", "source"),
    [
        ((400.0, 450.0), "pose"),
        ((330.0, 450.0), "none"),  # hardly outside the neck: the body is turned
        ((230.0, 450.0), "none"),  # on the other side
    ],
)
def test_a_hidden_shoulder_is_a_line_to_the_joint_if_that_is_outside(monkeypatch, joint, source):
    monkeypatch.setattr(person, "_pose_shoulders", lambda rgb: {1: np.array(joint)})
    mask = silhouette()
    cv2.ellipse(mask, (355, 300), (110, 200), 0, 0, 360, 1, -1)
    points, how = locate_shoulders([picture(mask)], face()[None], Bright())
    assert how == ("segmentation", source)
    line = points[PER_SIDE:]
    if source == "none":
        assert np.isnan(line).all()
    else:
        neck = (255 + 0.35 * FACE_WIDTH, 310 + 0.15 * FACE_WIDTH)
        np.testing.assert_allclose(line, np.linspace(neck, joint, PER_SIDE))


def test_without_landmarks_there_are_no_shoulders(no_pose):
    marks = np.full((2, N_POINTS, 3), np.nan)
    points, how = locate_shoulders([picture(silhouette())] * 2, marks, Bright())
    assert how == ("none", "none") and np.isnan(points).all()


def test_shoulders_follow_a_moving_person(drawn):
    """Points stay on the person, also while the face is not found."""
    mask = silhouette()
    time = np.arange(60)
    shift = np.stack([6 * np.sin(time / 8), 4 * np.cos(time / 11) - 4], axis=1)
    marks = np.stack([face(shift=s) for s in shift])
    marks[33:40] = np.nan
    points, source = track_shoulders((picture(mask, s) for s in shift), marks, sigma=1)
    assert source == ("segmentation", "segmentation")
    assert points.shape == (60, 18, 2)
    motion = points - points[:1]
    error = motion - (shift - shift[0])[:, None]
    assert np.abs(error[3:-3]).max() < 1.5
    assert jitter(points).max() < 0.3
    heights = points[30, :9, 1] - shift[30, 1]
    expected = true_height(points[30, :9, 0] - shift[30, 0], False)
    assert np.abs(heights - expected).max() < 2.5


def test_a_wrong_beginning_is_slowly_pulled_to_the_outline(monkeypatch, no_pose):
    """The first masks are 6 px too high; later ones are right. Flow alone would keep the error."""

    class Late(Bright):
        calls = 0

        def __call__(self, rgb: np.ndarray) -> np.ndarray:
            Late.calls += 1
            mask = super().__call__(rgb)
            return np.concatenate([mask[6:], mask[-6:]]) if Late.calls <= 15 else mask

    monkeypatch.setattr(person, "PersonSegmenter", Late)
    marks = np.repeat(face()[None], 110, axis=0)
    points, _ = track_shoulders([picture(silhouette())] * 110, marks, sigma=0)
    error = true_height(points[:, :9, 0], False) - points[:, :9, 1]
    assert error[0].mean() == pytest.approx(6, abs=1)
    assert 1 < error[-1].mean() < 3.5
    assert np.abs(np.diff(points, axis=0)).max() < 1  # no visible jumps


def test_frames_that_a_file_lacks_at_its_end_keep_the_last_place(drawn):
    marks = np.repeat(face()[None], 30, axis=0)
    points, _ = track_shoulders([picture(silhouette())] * 20, marks)
    np.testing.assert_allclose(points[20:], np.repeat(points[19:20], 10, axis=0), atol=0.1)
    assert np.isnan(track_shoulders([], marks)[0]).all()


# -- real clips ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(shared: Path):
    """``clip("real/.../x.mp4", 1.0)``: frames and landmarks of the first seconds."""
    pytest.importorskip("av")
    pytest.importorskip("mediapipe")
    from talkingface.data.face.scan import scan_frames
    from talkingface.data.face.tracking import follow
    from talkingface.data.media.reader import read_frames

    def get(name: str, seconds: float) -> tuple[list[np.ndarray], np.ndarray]:
        path = shared / "real" / name
        if not path.exists():
            pytest.skip(f"no {path}")
        frames = list(read_frames(path, fps=25, end=seconds))
        return frames, follow(scan_frames(frames, tracking=True), fps=25).landmarks

    return get


def outline_distance(points: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Vertical pixels from points to the upper border of the segmented person."""
    height, width = frame.shape[:2]
    with PersonSegmenter() as segmenter:
        mask = cv2.resize(segmenter(frame), (width, height)) > 0.5
    inside = (points[:, 0] > 1) & (points[:, 0] < width - 2) & (points[:, 1] < height - 1)
    columns = mask[:, points[inside, 0].astype(int)]
    border = height - np.argmin(columns[::-1], axis=0)
    return np.abs(border - points[inside, 1])


@pytest.mark.parametrize(
    ("name", "beyond"),
    [("mimictalk/German/German_20s.mp4", 0.02), ("video_retalking/face2/2.mp4", 0.0)],
)
def test_shoulders_of_a_newsreader_are_steady_and_ordered(clip, name, beyond):
    frames, landmarks = clip(name, 1.6)
    height, width = frames[0].shape[:2]
    points, source = track_shoulders(frames, landmarks)
    assert source == ("segmentation", "segmentation")
    assert points.shape == (40, 18, 2) and np.isfinite(points).all()
    assert (np.diff(points[:, :9, 0]) > 0).all() and (np.diff(points[:, 9:, 0]) > 0).all()
    chin = landmarks[:, CHIN, 0]
    assert (points[:, 8, 0] < chin).all() and (points[:, 9, 0] > chin).all()
    assert jitter(points).max() < 0.3
    # Columns reach 1.1 face widths from the chin, in close pictures a little beyond the border.
    assert points.min() >= -beyond * width
    assert points[..., 0].max() <= (1 + beyond) * width and points[..., 1].max() <= height
    assert np.median(outline_distance(points[-1], frames[-1])) < 0.006 * width


def test_the_torso_of_a_newsreader_is_his_outline(clip):
    frames, landmarks = clip("mimictalk/German/German_20s.mp4", 0.6)
    width, height = frames[0].shape[1::-1]
    with PersonSegmenter() as segmenter:
        found = [
            torso_outline(segmenter(frame), marks, width)
            for frame, marks in zip(frames, landmarks, strict=True)
        ]
    points, usable = (np.array(part) for part in zip(*found, strict=True))
    assert usable.all()
    track, good = torso_track(points, usable, (width, height))
    assert good.all() and jitter(track).max() < 0.3
    assert (np.diff(track[:, :9, 0]) > 0).all() and (np.diff(track[:, 9:, 0]) > 0).all()
    assert (track >= 0).all() and (track <= [width, height]).all()
    assert np.median(outline_distance(track[-1], frames[-1])) < 3


def test_a_close_up_without_shoulders_has_none(clip):
    frames, landmarks = clip("styletalk/feifeili/feifeili_clip1.mp4", 0.4)
    points, source = track_shoulders(frames, landmarks)
    assert source == ("none", "none")
    assert np.isnan(points).all() and points.shape == (10, 18, 2)


@pytest.mark.parametrize("name", ["c00015/00015.mp4", "c00086/00086.mp4"])
def test_a_turned_body_has_no_shoulder_on_the_wrong_side_of_its_neck(clip, name):
    """Tight crops: MediaPipe Pose sees the far shoulder beside or under the chin."""
    frames, landmarks = clip(f"voxceleb2/{name}", 0.4)
    points, source = track_shoulders(frames, landmarks)
    assert source[0] == "none" and np.isnan(points[:, :9]).all()
    right = points[:, 9:]
    assert np.isnan(right).all() or (np.diff(right[..., 0]) > 0).all()


def test_masks_are_small_pictures_of_confidence(clip):
    frames, _ = clip("video_retalking/face2/2.mp4", 0.04)
    with PersonSegmenter() as segmenter:
        mask, wide = segmenter(frames[0]), segmenter(np.zeros((200, 801, 3), np.uint8))
        small = segmenter(frames[0][:300, :200])
    assert mask.shape == (512, 512) and mask.dtype == np.float32
    assert wide.shape == (128, 512) and small.shape == (300, 200)
    assert 0 <= mask.min() and mask.max() <= 1
    assert mask[300, 256] > 0.9 and mask[5, 5] < 0.1
