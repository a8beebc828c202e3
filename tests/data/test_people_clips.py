"""Voices of rendered people, and their clips with the truth."""

from __future__ import annotations

import importlib.util
import json
import re
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
    "light": "varied", "expression": "neutral", "masks": True,
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


def test_every_symbol_of_espeak_is_known():
    from talkingface.data.synthetic.espeak import Espeak
    from talkingface.data.synthetic.sentences import sentence

    library, draw, unknown = Espeak(), rng(3), set()
    for _ in range(40):
        _, spoken = library.say(sentence(draw), "en-us+f3", 50, 170)
        plain = {p.name.lstrip("',%=|") for p in spoken}
        unknown |= {s for s in plain if not any(s.startswith(known) for known in module.ARPABET)}
    library.close()
    assert unknown == set()


def test_no_sentence_of_a_test_clip_is_in_a_training_clip():
    said = {}
    for part in ("train", "test"):
        texts = [speak("espeak", Person.draw(1), 4.0, rng(k), part).text for k in range(8)]
        said[part] = {s.strip() for text in texts for s in re.split(r"(?<=[.!?])", text)} - {""}
    assert len(said["test"]) > 8 and not said["train"] & said["test"]


def test_a_sentence_that_does_not_fit_is_told(monkeypatch):
    long = (np.ones(RATE * 3, np.float32), [Phone("AA", 0.0, 3.0)])
    monkeypatch.setattr(module, "_espeak", lambda person: lambda text: long)
    cut = speak("espeak", Person.draw(1), 2.0, rng())
    assert cut.voice["cut"] is True and cut.phones[-1].end == 2.0
    assert speak("espeak", Person.draw(1), 5.0, rng()).voice["cut"] is False


def test_a_shifted_voice_has_its_phones_at_the_new_times():
    tone = np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE).astype(np.float32)
    wave, phones = module._at_speed(tone, [Phone("AA", 0.2, 0.8)], 0.8)
    assert len(wave) == pytest.approx(RATE / 0.8, abs=2)
    assert (phones[0].start, phones[0].end) == pytest.approx((0.25, 1.0))
    spectrum = np.abs(np.fft.rfft(wave))
    assert spectrum.argmax() * RATE / len(wave) == pytest.approx(160, abs=1)


@pytest.mark.parametrize("voices", ["espaek", "", "nowhere/at/all"])
def test_a_wrong_name_of_voices_is_explained(voices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for function in (module.check_voices, module.identity):
        with pytest.raises(DataError, match="neither espeak"):
            function(voices)
    with pytest.raises(DataError, match="neither espeak"):
        speak(voices, Person.draw(1), 3.0, rng())


def test_an_engine_that_speaks_nothing_is_an_error(monkeypatch):
    def fails(text: str):
        raise DataError("no words")

    monkeypatch.setattr(module, "_espeak", lambda person: fails)
    with pytest.raises(DataError, match="spoke no sentence"):
        speak("espeak", Person.draw(1), 3.0, rng())


def test_a_person_keeps_the_voice():
    person = Person.draw(4)
    assert module._factor(person, "woman") == module._factor(person, "woman")
    assert 0.78 <= module._factor(person, "woman") <= 0.85
    assert 0.94 <= module._factor(person, "man") <= 1.06


def test_women_and_men_have_other_voices():
    pitch = {}
    for seed in range(6):
        person = Person.draw(seed)
        audio = speak("espeak", person, 4.0, rng()).audio
        pitch.setdefault(person.sex, []).append(module.median_pitch(audio))
    assert min(pitch["woman"]) > max(pitch["man"])


@pytest.mark.parametrize("hertz", [90, 130, 180, 250])
def test_the_pitch_of_a_voice_is_measured(hertz):
    t = np.arange(2 * RATE) / RATE
    voice = sum(np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, 9)).astype(np.float32)
    found = module.median_pitch(voice * (np.sin(2 * np.pi * t) > 0))
    assert found == pytest.approx(hertz, rel=0.03)
    assert module.median_pitch(np.zeros(0, np.float32)) == 0


def test_an_espeak_that_does_not_load_is_explained(monkeypatch):
    import espeakng_loader

    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: "/no/such/library.so")
    with pytest.raises(EnvironmentProblem, match="espeak-ng does not load.*voices=hibari"):
        speak("espeak", Person.draw(1), 3.0, rng())


def test_a_missing_engine_is_named():
    if importlib.util.find_spec("hibari"):
        pytest.skip("hibari-tts is installed")
    with pytest.raises(EnvironmentProblem, match="voices=espeak.*pip install.*(voices|hibari-tts)"):
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


def test_a_speaker_with_few_recordings_has_some_for_both_parts(folder, caplog):
    """A speaker with a single text is used last; one without a usable recording is named."""
    for path in (*folder.glob("anna/*"), *folder.glob("bert/*")):
        if int(path.stem) > 1:
            path.unlink()
    tone(folder / "cleo/00.wav", 1.5, 210)
    (folder / "cleo/00.txt").write_text("cleo alone")
    woman = next(p for k in range(20) if (p := Person.draw(k)).sex == "woman")
    for part in ("train", "test"):
        assert speak(str(folder), woman, 3.0, rng(), part).voice["speaker"] == "anna"
    (folder / "anna/00.txt").write_text("anna says 3")  # cannot be aligned
    (folder / "anna/01.txt").write_text("so anna says 3")
    for cached in (module.recordings, module._by_speaker, module.kept_for_tests):
        cached.cache_clear()
    assert speak(str(folder), woman, 3.0, rng()).voice["speaker"] == "bert"
    assert "anna has no usable recording for train clips" in caplog.text


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
    for i in range(0, 30, 7):  # the middle of the lower lip, and the tip of the nose
        lower = (marks[i, 57] + marks[i, 66]) / 2
        for place, wanted in ((lower, "lips"), (marks[i, 30], "skin")):
            column, row = place.astype(int)
            assert LABELS[labels[i, row, column]] == wanted
    assert opening.min() == 0 and opening.max() > 0.3
    inside = (labels == LABELS.index("mouth")).sum((1, 2))
    assert np.corrcoef(inside, opening)[0, 1] > 0.8


def test_a_clip_is_the_same_again(clip, tmp_path):
    root, made = clip
    render_clip(tmp_path, made)
    for suffix in (".mp4", ".truth.npz", ".truth.json"):
        assert made.path(tmp_path, suffix).read_bytes() == made.path(root, suffix).read_bytes()
