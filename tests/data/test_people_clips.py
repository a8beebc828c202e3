"""Voices of rendered people, and their clips with the truth."""

from __future__ import annotations

import importlib.util
import json
import wave
from pathlib import Path

import numpy as np
import pytest

from talkingface.data.media.reader import count_frames
from talkingface.data.synthetic import voices as module
from talkingface.data.synthetic.align import RATE, Phone
from talkingface.data.synthetic.mouth import DIPHTHONGS, PHONES
from talkingface.data.synthetic.people import LABELS, PersonClip, render_clip
from talkingface.data.synthetic.person import Person
from talkingface.data.synthetic.voices import recordings, speak
from talkingface.errors import DataError, EnvironmentProblem

SETTINGS = {
    "seed": 1, "seconds": 1.2, "size": 96, "fps": 25, "voices": "espeak", "pose": 1.0,
    "light": "varied", "expression": "neutral",
}  # fmt: skip


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# -- voices ----------------------------------------------------------------------------------------


def test_text_to_speech_fills_a_clip_and_names_every_phone():
    speech = speak("espeak", Person.draw(1), 5.0, rng())
    assert speech.audio.shape == (5 * RATE,) and np.abs(speech.audio).max() <= 0.71
    assert {p.name for p in speech.phones} <= set(PHONES) | set(DIPHTHONGS)
    assert all(0 <= p.start < p.end <= 5 for p in speech.phones)
    assert speech.phones[-1].end > 3.5 and len(speech.text.split()) > 6
    again = speak("espeak", Person.draw(1), 5.0, rng())
    assert np.array_equal(again.audio, speech.audio) and again.text == speech.text


def test_the_sound_is_where_the_phones_are():
    speech = speak("espeak", Person.draw(2), 6.0, rng(4))
    spoken = np.zeros(len(speech.audio), bool)
    for phone in speech.phones:
        spoken[round(phone.start * RATE) : round(phone.end * RATE)] = True
    loud = speech.audio**2
    assert loud[~spoken].sum() < 0.02 * loud.sum()


def test_women_and_men_have_other_voices():
    import librosa

    pitch = {}
    for seed in range(6):
        person = Person.draw(seed)
        audio = speak("espeak", person, 4.0, rng()).audio
        hertz = librosa.yin(audio, fmin=60, fmax=400, sr=RATE)
        pitch.setdefault(person.sex, []).append(np.median(hertz))
    assert min(pitch["woman"]) > max(pitch["man"])


def test_a_missing_engine_is_named():
    if importlib.util.find_spec("hibari"):
        pytest.skip("hibari-tts is installed")
    with pytest.raises(EnvironmentProblem, match="hibari"):
        speak("hibari", Person.draw(1), 3.0, rng())


def tone(path: Path, seconds: float, hertz: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(round(seconds * RATE)) / RATE
    samples = sum(np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, 6)) * 0.2
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """Two speakers of plain files; the aligner answers with one phone for each word."""
    for speaker, hertz in (("anna", 220), ("bert", 110)):
        for k in range(12):
            tone(tmp_path / speaker / f"{k:02d}.wav", 1.5, hertz)
            (tmp_path / speaker / f"{k:02d}.txt").write_text(f"{speaker} says {k}")

    def aligned(audio: np.ndarray, text: str) -> list[Phone]:
        if text.endswith(" 3"):
            raise DataError("the recording does not fit its text")
        words, step = text.split(), len(audio) / RATE / len(text.split())
        return [Phone("AA", i * step, (i + 1) * step) for i in range(len(words))]

    monkeypatch.setattr(module, "align", aligned)
    return tmp_path


def test_recordings_are_matched_by_sex_and_every_failure_is_named(folder, caplog):
    person = {
        s: next(p for k in range(20) if (p := Person.draw(k)).sex == s) for s in ("woman", "man")
    }
    for sex, speaker in (("woman", "anna"), ("man", "bert")):
        speech = speak(str(folder), person[sex], 20.0, rng())
        assert speech.voice["speaker"] == speaker and 0.94 <= speech.voice["shift"] <= 1.06
        assert speech.text.startswith(speaker) and len(speech.voice["files"]) >= 8
        assert "03.wav" not in speech.voice["files"]
    assert "03.wav is left out: the recording does not fit its text" in caplog.text
    # No sentence of a test clip is in a training clip.
    train, test = (
        speak(str(folder), person["man"], 30.0, rng(), p).voice["files"] for p in ("train", "test")
    )
    assert set(test) and not set(train) & set(test)


def test_other_layouts_are_read(tmp_path):
    lj = tmp_path / "LJSpeech-1.1"
    tone(lj / "wavs/LJ001-0001.wav", 1, 200)
    (lj / "metadata.csv").write_text('LJ001-0001|Dr. "A" said|Doctor "A" said\nLJ9|no|file\n')
    libri = tmp_path / "LibriSpeech"
    tone(libri / "dev/19/198/19-198-0001.flac", 1, 200)
    (libri / "dev/19/198/19-198.trans.txt").write_text("19-198-0001 NORTHANGER ABBEY\n19-198-9 X\n")
    (libri / "SPEAKERS.TXT").write_text("; id | sex\n19 | F | dev | 25.1 | Kara\n")
    assert [(r.text, r.sex) for r in recordings(lj)] == [('Doctor "A" said', None)]
    assert [(r.text, r.speaker, r.sex) for r in recordings(libri)] == [
        ("NORTHANGER ABBEY", "19", "woman")
    ]
    with pytest.raises(DataError, match="no recordings with texts"):
        recordings(lj / "wavs")


# -- clips -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> tuple[Path, PersonClip]:
    root = tmp_path_factory.mktemp("people")
    made = PersonClip("p06/p06_0", 6, 0, "train", SETTINGS, "abc")
    render_clip(root, made)
    return root, made


def test_a_clip_has_picture_sound_and_truth(clip):
    root, made = clip
    assert count_frames(made.path(root, ".mp4")) == 30
    truth = json.loads(made.path(root, ".truth.json").read_text("utf-8"))
    assert truth["synthetic"] is True and truth["settings_hash"] == "abc"
    assert (
        truth["person"]["seed"] == 6 and truth["phones"] and truth["voice"]["engine"] == "espeak-ng"
    )
    with np.load(made.path(root, ".truth.npz"), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    assert arrays["labels"].shape == (30, 96, 96) and arrays["labels"].dtype == np.uint8
    for name, shape in {
        "landmarks": (68, 2), "landmarks_3d": (68, 3), "pose": (3,), "shift": (3,), "gaze": (2,),
        "weights": (52,), "opening": (), "width": (), "mouth_opening": (), "blink": (),
    }.items():  # fmt: skip
        assert arrays[name].shape == (30, *shape) and np.isfinite(arrays[name]).all(), name
    assert len(truth["expressions"]) == 52 and truth["labels"] == list(LABELS)


def test_the_truth_agrees_with_itself(clip):
    root, made = clip
    truth = json.loads(made.path(root, ".truth.json").read_text("utf-8"))
    with np.load(made.path(root, ".truth.npz")) as file:
        marks, space, labels, opening = (
            file[k] for k in ("landmarks", "landmarks_3d", "labels", "opening")
        )
    # The camera projects the places in space onto those in the picture.
    (x, y, z), focal, centre = truth["camera"]["position"], truth["camera"]["focal"], 48
    depth = z - space[..., 2]
    seen = np.stack(
        [
            centre + focal * (space[..., 0] - x) / depth,
            centre - focal * (space[..., 1] - y) / depth,
        ],
        -1,
    )
    assert np.abs(seen - marks).max() < 0.05
    # The middle of the lower lip is lip, the tip of the nose is skin.
    for i in range(0, 30, 7):
        for landmark, wanted in ((57, {"lips", "skin"}), (30, {"skin"})):
            column, row = np.round(marks[i, landmark] - 0.5).astype(int)
            assert LABELS[labels[i, row - 1, column]] in wanted
    inside = (labels == LABELS.index("mouth")).sum((1, 2))
    assert np.corrcoef(inside, opening)[0, 1] > 0.8
    closed = [p for p in truth["phones"] if p[0] in ("P", "B", "M") and p[2] < 1.1]
    for _, start, end in closed:
        i = int((start + end) / 2 * 25)
        assert opening[max(i - 1, 0) : i + 2].min() < 0.15


def test_a_clip_is_the_same_again(clip, tmp_path):
    root, made = clip
    render_clip(tmp_path, made)
    for suffix in (".mp4", ".truth.npz", ".truth.json"):
        assert made.path(tmp_path, suffix).read_bytes() == made.path(root, suffix).read_bytes()
