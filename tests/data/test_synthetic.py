"""The Synthetic dataset: its promises about determinism, ground truth and audio/picture offset."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av")
pytest.importorskip("mediapipe")
pytest.importorskip("skimage")

from talkingface.data.face.mesh import FaceMesher  # noqa: E402
from talkingface.data.media.audio import load_audio  # noqa: E402
from talkingface.data.synthetic import articulation, speech  # noqa: E402
from talkingface.data.synthetic.clip import make_clip  # noqa: E402
from talkingface.data.synthetic.source import SPLITS, SyntheticSource  # noqa: E402
from talkingface.errors import DataError, EnvironmentProblem  # noqa: E402

SETTINGS = {"clips": 4, "seconds": 2.4, "identities": 2, "seed": 11}
FRAMES, FPS = 60, 25
VOWELS = "aAeEiIoOuUV0@3"


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def digest(root: Path, name: str) -> tuple[str, ...]:
    base = root / "data" / name
    with np.load(f"{base}.truth.npz") as truth:
        arrays = b"".join(key.encode() + truth[key].tobytes() for key in sorted(truth.files))
    json_bytes = Path(f"{base}.truth.json").read_bytes()
    sound = load_audio(f"{base}.mp4").tobytes()
    parts = (arrays, json_bytes, frames_of(Path(f"{base}.mp4")).tobytes(), sound)
    return tuple(hashlib.sha256(part).hexdigest() for part in parts)


def stamps(root: Path) -> dict[str, int]:
    return {str(p.relative_to(root)): p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSource:
    source = SyntheticSource(tmp_path_factory.mktemp("合成 data"), **SETTINGS)
    source.ensure(show_progress=False)
    return source


@pytest.fixture(scope="module")
def tracked(dataset: SyntheticSource) -> dict[str, dict]:
    """Of the clips that hold both identities: truth, description and landmarks."""
    out = {}
    for plan in dataset.plans()[:2]:
        base = dataset.root / "data" / plan.name
        pictures = frames_of(Path(f"{base}.mp4"))
        meshes = []
        with FaceMesher(tracking=True) as mesher:
            for picture in pictures:
                found = mesher(picture)
                meshes.append(found[0, :, :2] if len(found) else np.full((478, 2), np.nan))
        with np.load(f"{base}.truth.npz") as truth:
            arrays = {key: truth[key] for key in truth.files}
        out[plan.name] = {
            "mesh": np.array(meshes),
            "truth": arrays,
            "pictures": pictures,
            "info": json.loads(Path(f"{base}.truth.json").read_text("utf-8")),
        }
    return out


def gap(mesh: np.ndarray) -> np.ndarray:
    """Inner-lip opening over face height, (T,)."""
    height = np.linalg.norm(mesh[:, 10] - mesh[:, 152], axis=1)
    return np.linalg.norm(mesh[:, 13] - mesh[:, 14], axis=1) / height


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def best_lag(late: np.ndarray, reference: np.ndarray, reach: int) -> int:
    """Samples by which ``late`` comes after ``reference``."""
    cut = slice(reach, len(reference) - reach)
    score = {
        lag: correlation(np.roll(late, -lag)[cut], reference[cut])
        for lag in range(-reach, reach + 1)
    }
    return max(score, key=score.get)


def test_layout_and_truth_arrays(dataset: SyntheticSource, tracked: dict) -> None:
    for plan in dataset.plans():
        for suffix in (".mp4", ".truth.npz", ".truth.json"):
            assert (dataset.root / "data" / f"{plan.name}{suffix}").stat().st_size > 0
    for clip in tracked.values():
        assert clip["pictures"].shape == (FRAMES, 256, 256, 3)
        truth, info = clip["truth"], clip["info"]
        assert int(truth["fps"]) == FPS and truth["pose"].shape == (FRAMES, 3)
        for key in ("mouth_opening", "mouth_width", "rounding", "blink"):
            assert truth[key].shape == (FRAMES,) and np.isfinite(truth[key]).all()
        assert info["synthetic"] is True and info["engine"] in (speech.ESPEAK, speech.FALLBACK)
        assert info["text"] and all(p["start"] < p["end"] <= 2.4 for p in info["phonemes"])
        assert np.abs(truth["pose"]).max() < 8 and np.ptp(truth["pose"][:, 1]) > 0.5
    sound = load_audio(dataset.root / "data" / f"{dataset.plans()[0].name}.mp4")
    assert len(sound) == pytest.approx(2.4 * 16000, abs=1100)  # one AAC block


def test_split_lists(dataset: SyntheticSource) -> None:
    lists = {s: (dataset.root / "filelist" / f"{s}.txt").read_text().split() for s in SPLITS}
    assert lists == {
        "train": ["id0/id0_000", "id1/id1_000"],
        "val": ["id0/id0_001"],
        "test": ["id1/id1_001"],
    }
    tiny = SyntheticSource(Path("unused"), clips=6, seconds=4)
    assert tiny.counts == (4, 1, 1)
    assert {n.split("/")[0] for n in tiny.lists()["train"]} == {"id0", "id1", "id2", "id3"}
    full = SyntheticSource(Path("unused"), clips=60, seconds=5).lists()
    names = sum(full.values(), [])
    assert len(set(names)) == len(names) == 60 and [len(full[s]) for s in SPLITS] == [48, 6, 6]


def test_same_seed_same_bytes_other_seed_other_clip(
    dataset: SyntheticSource, tmp_path: Path
) -> None:
    """The second clip made first, in another folder: no clip depends on what came before."""
    again = SyntheticSource(tmp_path / "again", **SETTINGS)
    make_clip(again.root, again.plans()[1])
    name = again.plans()[1].name
    assert digest(again.root, name) == digest(dataset.root, name)
    other = SyntheticSource(tmp_path / "other", **{**SETTINGS, "seed": 12})
    assert other.plans()[1].settings_hash != again.plans()[1].settings_hash
    draw = [
        speech.speak(np.random.default_rng([seed, 1, 1]), 2.4, "en-us+f3", 50, 165).text
        for seed in (11, 12)
    ]
    assert draw[0] != draw[1]


def test_rerun_does_nothing_and_repairs_only_what_is_missing(dataset: SyntheticSource) -> None:
    before = stamps(dataset.root)
    SyntheticSource(dataset.root, **SETTINGS).ensure(show_progress=False)
    assert stamps(dataset.root) == before
    changed = SyntheticSource(dataset.root, **{**SETTINGS, "seconds": 3.0})
    assert not any(changed._done(plan) for plan in changed.plans())
    # Killed between picture and truth: the clip is not finished and comes back the same.
    name = dataset.plans()[2].name
    whole = digest(dataset.root, name)
    (dataset.root / "data" / f"{name}.truth.json").unlink()
    (dataset.root / "data" / f"{name}.truth.npz").write_bytes(b"half")
    dataset.ensure(show_progress=False)
    assert digest(dataset.root, name) == whole
    touched = {key for key, value in stamps(dataset.root).items() if before[key] != value}
    assert touched == {f"data/{name}{s}" for s in (".mp4", ".truth.npz", ".truth.json")}


def test_mediapipe_finds_the_face_and_measures_the_true_opening(tracked: dict) -> None:
    seen = np.concatenate([np.isfinite(c["mesh"]).all((1, 2)) for c in tracked.values()])
    assert seen.mean() >= 0.99
    for name, clip in tracked.items():
        ok = np.isfinite(clip["mesh"]).all((1, 2))
        truth, measured = clip["truth"]["mouth_opening"], gap(clip["mesh"])
        assert correlation(measured[ok], truth[ok]) >= 0.9, name
        assert best_lag(np.nan_to_num(measured), truth, 3) == 0, name
        assert np.ptp(truth) > 0.06, name  # the mouth opens visibly
        slope = np.polyfit(truth[ok], measured[ok], 1)[0]
        assert 0.7 < slope < 1.7, name


def test_pose_truth_has_the_stated_signs(tracked: dict) -> None:
    for clip in tracked.values():
        mesh, pose = clip["mesh"], clip["truth"]["pose"]
        across = mesh[:, 263] - mesh[:, 33]
        roll = np.degrees(np.arctan2(across[:, 1], across[:, 0]))
        assert correlation(roll, pose[:, 2]) > 0.8
        turn = (mesh[:, 1] - (mesh[:, 234] + mesh[:, 454]) / 2)[:, 0]
        assert correlation(turn, pose[:, 1]) > 0.8


def test_lips_touch_at_bilabials(tracked: dict) -> None:
    closures = 0
    for clip in tracked.values():
        times = (np.arange(FRAMES) + 0.5) / FPS
        for item in clip["info"]["phonemes"]:
            span = articulation.closed_span(
                speech.Phoneme(
                    **{"symbol": item["symbol"], "start": item["start"], "end": item["end"]}
                )
            )
            if span and span[1] < 2.4:
                inside = (times >= span[0] + 0.002) & (times <= span[1] - 0.002)
                assert clip["truth"]["mouth_opening"][inside].max(initial=0) < 1e-3
                closures += int(inside.any())
    assert closures >= 2


def test_sound_and_phoneme_times_have_no_offset(dataset: SyntheticSource, tracked: dict) -> None:
    """Loudness of the decoded sound against the vowels of the truth, in steps of 10 ms."""
    loud, vowel = [], []
    for name, clip in tracked.items():
        sound = load_audio(dataset.root / "data" / f"{name}.mp4")
        rms = np.sqrt((sound[: len(sound) // 160 * 160].reshape(-1, 160) ** 2).mean(1))
        steps = np.arange(min(len(rms), 240)) * 0.01 + 0.005
        is_vowel = np.zeros(len(steps))
        for p in clip["info"]["phonemes"]:
            if p["symbol"].lstrip("',%=")[0] in VOWELS:
                is_vowel[(steps >= p["start"]) & (steps < p["end"])] = 1
        loud.append(rms[: len(steps)])
        vowel.append(is_vowel)
    assert abs(best_lag(np.concatenate(loud), np.concatenate(vowel), 15)) <= 2  # 20 ms


def test_articulation_has_no_lag() -> None:
    """One vowel in silence: the mouth moves symmetrically about its middle and opens widest."""
    fps = 100
    track = articulation.mouth_track([speech.Phoneme("'A:", 0.9, 1.1)], 2.0, fps)
    times = articulation.frame_times(200, fps)
    assert (track.opening * times).sum() / track.opening.sum() == pytest.approx(1.0, abs=0.002)
    assert track.opening.max() > 0.95
    rounded = articulation.mouth_track([speech.Phoneme("u:", 0.9, 1.1)], 2.0, fps)
    spread = articulation.mouth_track([speech.Phoneme("i:", 0.9, 1.1)], 2.0, fps)
    assert rounded.rounding[100] > 0.8 > 0.1 > spread.rounding[100]
    assert spread.width[100] > 0.6 > 0 > rounded.width[100]


def test_fallback_synthesiser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError("no library")

    monkeypatch.setattr(speech, "_Espeak", broken)
    spoken = [speech.speak(np.random.default_rng(3), 2.4, "en-us", 50, 165) for _ in range(2)]
    assert spoken[0].engine == speech.FALLBACK
    np.testing.assert_array_equal(spoken[0].audio, spoken[1].audio)
    loudness = np.abs(spoken[0].audio)
    vowels = [p for p in spoken[0].phonemes if p.symbol[0] in "aEiOu"]
    stops = [p for p in spoken[0].phonemes if p.symbol in ("p", "b", "t", "k", "d", "g")]

    def level(items: list) -> float:
        return np.mean([loudness[int(p.start * 16000) : int(p.end * 16000)].mean() for p in items])

    assert vowels and stops and level(vowels) > 5 * level(stops)
    plan = SyntheticSource(tmp_path, clips=3, seconds=1.0, size=128).plans()[0]
    make_clip(tmp_path, plan)
    info = json.loads((tmp_path / "data" / f"{plan.name}.truth.json").read_text("utf-8"))
    assert info["engine"] == speech.FALLBACK
    assert frames_of(tmp_path / "data" / f"{plan.name}.mp4").shape == (25, 128, 128, 3)


def test_espeak_loads_where_its_wheel_is_installed() -> None:
    pytest.importorskip("espeakng_loader")
    spoken = speech.speak(np.random.default_rng(0), 3.0, "en-us+f3", 50, 165)
    assert spoken.engine == speech.ESPEAK and len(spoken.audio) == 48000
    assert len(spoken.phonemes) > 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"clips": 2},
        {"seconds": 0.0},
        {"size": 255},
        {"fps": 0},
        {"identities": 0},
        {"split": (1.0, 0.0)},
    ],
)
def test_wrong_settings_are_explained(wrong: dict, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=next(iter(wrong))):
        SyntheticSource(tmp_path, **{**SETTINGS, **wrong})


def test_a_root_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="file"):
        SyntheticSource(tmp_path / "file", **SETTINGS).ensure(show_progress=False)
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(EnvironmentProblem, match="locked"):
            SyntheticSource(tmp_path / "locked" / "in", **SETTINGS).ensure(show_progress=False)


@pytest.mark.slow
def test_worker_count_does_not_matter(dataset: SyntheticSource, tmp_path: Path) -> None:
    parallel = SyntheticSource(tmp_path, **SETTINGS, workers=2)
    parallel.ensure(show_progress=False)
    for plan in parallel.plans():
        assert digest(tmp_path, plan.name) == digest(dataset.root, plan.name)
