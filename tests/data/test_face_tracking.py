"""From detections to one person: made-up scans for the rules, real files for the whole."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from talkingface.config.schema import FaceSection
from talkingface.data.face.scan import FaceScan, scan_frames
from talkingface.data.face.series import runs
from talkingface.data.face.topology import N_POINTS, pose_template
from talkingface.data.face.tracking import (
    MAX_GAP,
    FaceTrack,
    choose_person,
    find_persons,
    follow,
    track_face,
    video_landmarks,
)
from talkingface.errors import DataError

FPS = 25
SIZE = (640, 360)


# -- made-up scans ---------------------------------------------------------------------------------


def shape_of(person: int) -> np.ndarray:
    """(478,3) in pose.py's space: the template with a face of one's own."""
    rng = np.random.default_rng(person)
    points = np.random.default_rng(99).normal(0, 0.4, (N_POINTS, 3))
    vertices, template = pose_template()
    points[vertices] = template
    return points + rng.normal(0, 0.06, points.shape)


class Builder:
    """Collects detections and makes a scan of them."""

    def __init__(self, frames: int, cuts: tuple[int, ...] = ()) -> None:
        self.frames, self.cuts = frames, cuts
        self.found: list[tuple[int, np.ndarray]] = []
        self._rng = np.random.default_rng(7)

    def add(self, person: int, frames, x: float, y: float = 150, size: float = 40) -> Builder:
        """A person at a place in some frames, with the noise of a detector."""
        for frame in frames:
            points = shape_of(person) + self._rng.normal(0, 0.008, (N_POINTS, 3))
            self.found.append((frame, points * [size, size, -size] + [x, y, 0]))
        return self

    def scan(self, seed: int | None = None) -> FaceScan:
        """``seed`` shuffles the faces inside each frame."""
        order = list(range(len(self.found)))
        if seed is not None:
            np.random.default_rng(seed).shuffle(order)
        order.sort(key=lambda k: self.found[k][0])
        number = np.array(order, np.float32)
        return FaceScan(
            n_frames=self.frames,
            size=np.array(SIZE),
            frame=np.array([self.found[k][0] for k in order], np.int32),
            points=np.array([self.found[k][1] for k in order], np.float32).reshape(-1, N_POINTS, 3),
            sharpness=number,
            mouth_texture=number + 1000,
            face_change=number + 2000,
            skin=np.zeros((len(order), 1, 3), np.uint8),
            cuts=np.array(self.cuts, np.int32),
        )


def stretches(track: FaceTrack) -> list[tuple[int, int, int]]:
    """(start, stop, segment)."""
    return [(a, b, int(track.segments[a])) for a, b in runs(track.segments)]


def middle(track: FaceTrack) -> np.ndarray:
    """x of the face in every frame."""
    return track.landmarks[:, :, 0].mean(axis=1)


def same(a: FaceTrack, b: FaceTrack) -> bool:
    pairs = ((getattr(a, f.name), getattr(b, f.name)) for f in fields(FaceTrack))
    return all(np.array_equal(np.asarray(x), np.asarray(y), equal_nan=True) for x, y in pairs)


def tracked(scan: FaceScan, choose: str | int) -> FaceTrack:
    return follow(scan, fps=FPS, options=FaceSection(choose=choose))


def test_one_face_in_all_frames_is_one_segment():
    track = follow(Builder(30).add(1, range(30), 300).scan(), fps=FPS)
    assert len(track) == 30 and track.size == SIZE
    assert track.found.all() and track.found_ratio == 1
    assert (track.persons, track.longest_gap) == (1, 0)
    assert stretches(track) == [(0, 30, 0)]
    assert np.isfinite(track.boxes).all()
    # Measures go with their detection.
    assert track.sharpness.tolist() == list(range(30))
    assert track.mouth_texture.tolist() == list(range(1000, 1030))
    assert track.face_change.tolist() == list(range(2000, 2030))


def test_short_gaps_are_bridged():
    scan = Builder(30).add(1, [*range(10), *range(15, 30)], 300).scan()
    track = follow(scan, fps=FPS)
    assert MAX_GAP * FPS == 5
    assert stretches(track) == [(0, 30, 0)]
    assert not track.found[10:15].any() and track.found.sum() == 25
    assert np.isnan(track.landmarks[10:15]).all() and np.isnan(track.sharpness[10:15]).all()
    assert np.isfinite(track.landmarks[track.found]).all()
    assert np.isfinite(track.boxes).all()
    assert track.longest_gap == 5


def test_a_longer_gap_parts_two_segments_of_one_person():
    scan = Builder(30).add(1, [*range(10), *range(16, 30)], 300).scan()
    track = follow(scan, fps=FPS)
    assert stretches(track) == [(0, 10, 0), (10, 16, -1), (16, 30, 1)]
    assert track.persons == 1 and track.found.sum() == 24


def test_the_longest_gap_depends_on_the_frame_rate():
    """0.2 seconds are ten frames of 50."""
    scan = Builder(60).add(1, [*range(10), *range(20, 60)], 300).scan()
    assert stretches(follow(scan, fps=50)) == [(0, 60, 0)]
    assert stretches(follow(scan, fps=25)) == [(0, 10, 0), (10, 20, -1), (20, 60, 1)]


def test_frames_before_and_after_the_face_belong_to_no_segment():
    track = follow(Builder(30).add(1, range(4, 20), 300).scan(), fps=FPS)
    assert stretches(track) == [(0, 4, -1), (4, 20, 0), (20, 30, -1)]
    assert track.longest_gap == 10
    assert np.isfinite(track.boxes).all()


def test_a_cut_ends_a_segment_even_when_nothing_moves():
    scan = Builder(30, cuts=(12,)).add(1, range(30), 300).scan()
    track = follow(scan, fps=FPS)
    assert stretches(track) == [(0, 12, 0), (12, 30, 1)]
    assert track.persons == 1 and track.found.all()
    assert track.cuts.tolist() == [12]


def test_a_short_gap_with_a_cut_in_it_is_not_bridged():
    scan = Builder(30, cuts=(12,)).add(1, [*range(10), *range(14, 30)], 300).scan()
    track = follow(scan, fps=FPS)
    assert stretches(track) == [(0, 10, 0), (10, 14, -1), (14, 30, 1)]


def test_boxes_are_not_smoothed_across_a_cut():
    scan = Builder(60, cuts=(30,)).add(1, range(30), 150).add(1, range(30, 60), 450).scan()
    boxes = follow(scan, fps=FPS).boxes
    assert np.abs(boxes[:30] - boxes[0]).max() < 1.5
    assert np.abs(boxes[30:] - boxes[30]).max() < 1.5
    assert boxes[30, 0] - boxes[29, 0] == pytest.approx(300, abs=3)
    uncut = follow(replace(scan, cuts=np.zeros(0, np.int32)), fps=FPS)
    assert len(stretches(uncut)) == 1 and np.abs(uncut.boxes[:30] - boxes[0]).max() > 50


def test_after_a_cut_a_person_is_known_again_by_the_shape_of_the_face():
    scan = Builder(40, cuts=(20,)).add(1, range(20), 150).add(1, range(20, 40), 480, size=60).scan()
    track = follow(scan, fps=FPS)
    assert track.persons == 1 and track.found.all()
    assert stretches(track) == [(0, 20, 0), (20, 40, 1)]


def test_another_person_at_the_same_place_after_a_cut_is_another_person():
    scan = Builder(50, cuts=(20,)).add(1, range(20), 300).add(2, range(20, 50), 300).scan()
    track = follow(scan, fps=FPS)
    assert track.persons == 2
    assert stretches(track) == [(0, 20, -1), (20, 50, 0)]  # who is longer in view
    assert np.isnan(track.landmarks[:20]).all()


def test_people_who_change_seats_at_a_cut_are_told_apart():
    builder = Builder(50, cuts=(30,))
    builder.add(1, range(30), 150).add(2, range(30), 450)
    builder.add(2, range(30, 50), 150).add(1, range(30, 50), 450)
    scan = builder.scan()
    track = tracked(scan, "left")
    assert track.persons == 2 and track.found.all()
    np.testing.assert_allclose(middle(track), [150] * 30 + [450] * 20, atol=15)


def test_without_a_cut_someone_who_is_lost_for_long_is_found_again_at_the_same_place():
    """Even if the shape has changed, e.g. by a turn of the head."""
    scan = Builder(60).add(1, range(20), 300).add(3, range(40, 60), 305).scan()
    track = follow(scan, fps=FPS)
    assert track.persons == 1 and track.found.sum() == 40
    moved = Builder(60).add(1, range(20), 100).add(3, range(40, 60), 500).scan()
    assert follow(moved, fps=FPS).persons == 2


def test_two_faces_at_once_are_two_persons_even_if_they_are_twins():
    scan = Builder(20).add(1, range(20), 150).add(1, range(20), 450).scan()
    assert follow(scan, fps=FPS).persons == 2
    assert [len(p) for p in find_persons(scan, fps=FPS)] == [20, 20]


def test_a_second_face_in_a_few_frames_is_no_second_person():
    """MediaPipe now and then reports a face on an ear, or the same face twice."""
    builder = Builder(100).add(1, range(100), 300)
    builder.add(5, range(10, 100, 10), 520, y=60, size=15)  # elsewhere
    builder.add(6, range(15, 100, 20), 303, y=152)  # on top of the true one
    for seed in range(4):
        track = follow(builder.scan(seed), fps=FPS)
        assert track.persons == 1 and track.found.all()
        assert stretches(track) == [(0, 100, 0)]
        assert (track.sharpness < 100).all()  # the detections of the true face, and no other
        np.testing.assert_allclose(middle(track), 300, atol=6)
        for side in ("left", "right", 0):
            assert same(tracked(builder.scan(seed), side), track)


def test_the_main_person_is_large_and_long_in_view():
    small_and_long = Builder(40).add(1, range(40), 150, size=20).add(2, range(40), 450, size=50)
    assert middle(follow(small_and_long.scan(), fps=FPS)).mean() > 400
    large_and_short = Builder(40).add(1, range(40), 150, size=20).add(2, range(10), 450, size=50)
    assert np.nanmean(middle(follow(large_and_short.scan(), fps=FPS))) < 200


def test_people_are_counted_from_the_left():
    builder = (
        Builder(30).add(1, range(30), 500, size=45).add(2, range(30), 100).add(3, range(30), 300)
    )
    wanted = {"main": 500, "largest": 500, "left": 100, "right": 500, 0: 100, 1: 300, 2: 500}
    wanted["1"] = 300
    for choose, x in wanted.items():
        track = tracked(builder.scan(), choose)
        np.testing.assert_allclose(middle(track), x, atol=15)
        assert track.persons == 3
    scan = builder.scan()
    persons = find_persons(scan, fps=FPS)
    for choose in (3, 7, -1):
        with pytest.raises(DataError, match=r"3 person\(s\) are in view"):
            choose_person(scan, persons, choose)


def test_the_largest_is_taken_also_when_another_is_longer_in_view():
    builder = Builder(40).add(1, range(40), 150, size=30).add(2, range(12), 450, size=50)
    assert np.nanmean(middle(follow(builder.scan(), fps=FPS))) < 200
    assert np.nanmean(middle(tracked(builder.scan(), "largest"))) > 400
    brief = Builder(40).add(1, range(40), 150, size=20).add(2, range(3), 450, size=50)
    assert np.nanmean(middle(tracked(brief.scan(), "largest"))) < 200


def test_passers_by_are_not_counted():
    builder = Builder(60).add(1, range(60), 300).add(2, range(20, 28), 80)
    track = tracked(builder.scan(), "left")
    assert track.persons == 1
    np.testing.assert_allclose(middle(track), 300, atol=15)


def test_the_order_of_detections_means_nothing():
    builder = Builder(60, cuts=(35,))
    for person, x in ((1, 100), (2, 300), (3, 500)):
        builder.add(person, [*range(12), *range(15, 35)], x)
    builder.add(3, range(35, 60), 100).add(1, range(37, 60), 300)
    scans = [builder.scan(seed) for seed in range(3)]
    for choose in ("main", "left", "right", 0, 1, 2):
        tracks = [tracked(scan, choose) for scan in scans]
        assert all(same(track, tracks[0]) for track in tracks[1:]), choose


def test_faces_that_pass_close_by_each_other_keep_their_tracks():
    """Two people walk toward each other until their faces touch, and back."""
    builder = Builder(60)
    for frame in range(60):
        approach = 100 * np.sin(np.pi * frame / 59)
        builder.add(1, [frame], 170 + approach, size=30).add(2, [frame], 470 - approach, size=30)
    for seed in range(3):
        left = tracked(builder.scan(seed), "left")
        assert left.found.all() and left.persons == 2
        assert (left.sharpness % 2 == 0).all()  # person 1 was always added first


def test_someone_who_walks_through_the_picture_and_turns_is_one_person():
    """The face is compared with where it was last, not with where it began."""
    builder = Builder(60)
    for frame in range(60):
        builder.add(1 if frame < 30 else 3, [frame], 80 + 8 * frame, size=30)
        builder.add(2, [frame], 300, y=300, size=10)
    track = follow(builder.scan(), fps=FPS)
    assert track.found.all() and track.persons == 2
    assert np.diff(middle(track)).min() > 0


def test_a_chosen_person_has_one_detection_per_frame():
    scan = Builder(30).add(1, range(30), 300).add(1, range(30), 306, y=152).scan(3)
    chosen = choose_person(scan, find_persons(scan, fps=FPS), "main")
    assert scan.frame[chosen].tolist() == list(range(30))


# -- real files ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scan_of(hard_cases: Path):
    """``scan_of("name.mp4", start=0, end=None)``: a stretch of a hard case at 25 frames/s."""
    pytest.importorskip("av")
    pytest.importorskip("mediapipe")
    from talkingface.data.media.reader import read_frames

    def get(name: str, start: float = 0.0, end: float | None = None) -> FaceScan:
        path = hard_cases / name
        if not path.exists():
            pytest.skip(f"no {path}")
        return scan_frames(read_frames(path, fps=FPS, start=start, end=end), tracking=True)

    return get


def shuffled(scan: FaceScan, seed: int) -> FaceScan:
    """The same scan with the faces of each frame in another order."""
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(scan.frame)), scan.frame))
    columns = ("frame", "points", "sharpness", "mouth_texture", "face_change", "skin")
    return replace(scan, **{name: getattr(scan, name)[order] for name in columns})


TWO_FACES = [
    ("two_faces_left_speaks.mp4", 1.0, 360),
    ("two_faces_split_screen.mp4", 1.0, 640),
    pytest.param("two_faces_left_speaks.mp4", None, 360, marks=pytest.mark.slow),
    pytest.param("two_faces_split_screen.mp4", None, 640, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "end", "border"), TWO_FACES)
def test_of_two_people_the_wanted_one_is_taken_in_every_frame(scan_of, name, end, border):
    scan = scan_of(name, end=end)
    for seed in range(2):
        mixed = shuffled(scan, seed)
        for choose, right in (("left", False), ("right", True), (0, False), (1, True)):
            track = tracked(mixed, choose)
            assert track.persons == 2 and track.found.all()
            assert stretches(track) == [(0, scan.n_frames, 0)]
            x = track.landmarks[:, :, 0]
            assert ((x > border) == right).all()
            assert same(track, tracked(scan, choose))
        assert same(follow(mixed, fps=FPS), follow(scan, fps=FPS))
    with pytest.raises(DataError, match="2 person"):
        tracked(scan, 2)


def test_a_cutaway_without_a_face_parts_two_shots_of_one_person(scan_of):
    scan = scan_of("cutaway_without_face_3s_5s.mp4")
    track = follow(scan, fps=FPS)
    assert stretches(track) == [(0, 75, 0), (75, 125, -1), (125, 200, 1)]
    assert track.persons == 1
    assert {75, 125} <= set(track.cuts.tolist())
    assert track.longest_gap == 50 and track.found.sum() == 150
    assert np.isfinite(track.boxes).all()


def test_a_cut_to_other_people_ends_the_shot(scan_of):
    """The file has a cut at frame 198; read from frame 175 on."""
    scan = scan_of("scene_cuts_several_people.mp4", start=7.0, end=9.0)
    assert scan.cuts.tolist() == [23]
    track = follow(scan, fps=FPS)
    assert stretches(track) == [(0, 23, 0), (23, 50, -1)]


def test_a_face_that_leaves_the_picture_is_followed_as_long_as_it_is_there(scan_of):
    track = follow(scan_of("face_leaves_frame.mp4"), fps=FPS)
    ((start, stop, segment), (_, end, after)) = stretches(track)
    assert (start, segment, end, after) == (0, 0, 75, -1)
    assert 65 <= stop <= 72
    assert track.found[:stop].all() and not track.found[stop:].any()
    assert np.isfinite(track.boxes).all()


def test_a_sideways_file_is_found_upright(scan_of, shared):
    """It was made from another file, whose face it must show at the same place."""
    from talkingface.data.media.reader import read_frames

    turned = follow(scan_of("rotated_metadata_90.mp4", end=0.4), fps=FPS).landmarks
    path = shared / "real" / "hdtf" / "WDA_EdMarkey" / "WDA_EdMarkey0_000.mp4"
    frames = read_frames(path, fps=FPS, end=0.4)
    upright = follow(scan_frames(frames, tracking=True), fps=FPS).landmarks
    assert upright.shape == turned.shape == (10, N_POINTS, 3)
    assert np.abs(turned - upright)[..., :2].mean() < 1.5  # pixels; it was encoded again
    assert (turned[:, 152, 1] > turned[:, 10, 1] + 100).all()


def test_a_whole_video_is_followed_with_the_settings_of_the_run(root, hard_cases):
    pytest.importorskip("mediapipe")
    path = hard_cases / "two_faces_left_speaks.mp4"
    track = track_face(path, fps=FPS, options=FaceSection(choose="right"))
    assert len(track) == 75 and (track.landmarks[:, :, 0] > 360).all()
    points = video_landmarks(path, fps=FPS, tracking=True)
    assert points.dtype == np.float32
    main = track_face(path, fps=FPS, options=FaceSection())
    np.testing.assert_array_equal(points, main.landmarks)


def test_a_video_without_any_face_is_named(root, noise_video, tmp_path):
    pytest.importorskip("mediapipe")
    path = noise_video(tmp_path / "noise.mp4", frames=5)
    with pytest.raises(DataError, match=r"no face found: noise\.mp4 \(5 frames\)"):
        track_face(path, fps=FPS, options=FaceSection())
    assert np.isnan(video_landmarks(path, fps=FPS, tracking=True)).all()
