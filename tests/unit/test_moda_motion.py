"""Generation of MODA's motion with untrained parts: length, seeds, windows, sources."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

import numpy as np
import pytest
import torch

from talkingface.components.models import build_model
from talkingface.config.config import load_config
from talkingface.data.dataprocess.moda.files import Features, Template
from talkingface.data.face.topology import MODA_EYES, MODA_MOUTH
from talkingface.errors import DataError
from talkingface.pipeline.moda.moda_motion import PortraitMotion, Speaker


def model_of(name: str, **overrides):
    torch.manual_seed(0)
    model = build_model(load_config(name, "Synthetic", preset="tiny", overrides=overrides))
    for value in model.parameters():  # so that sound and noise matter
        if value.ndim == 2:
            torch.nn.init.normal_(value, 0, 1.2 / value.shape[1] ** 0.5)
    return model.eval()


def speaker(body: str = "dual", **motion) -> Speaker:
    moda, faco = model_of("MODA", **{"model_params.body": body}), model_of("MODAFaCo")
    units = {"lips": 3.0, "eyes": 1.0, "head": [1.0] * 6 + [0.01], "torso": [2.0] * 3}
    moda.statistics.load({"norm_stats": units})
    faco.statistics.load({"norm_stats": {"lips": 3.0, "eyes": 1.0, "mesh": 2.0}})
    keys = {f"infer.motion.{key}": value for key, value in motion.items()}
    cfg = load_config("MODAPortrait", "Synthetic", overrides=keys)
    return Speaker(moda, faco, cfg.infer.motion)


@pytest.fixture(scope="module")
def source() -> Features:
    rng = np.random.default_rng(0)
    face = rng.uniform(150, 350, (478, 3))
    count = 12
    headpose = np.tile([2.0, -3.0, 1.0, 256.0, 250.0, 20.0, 1.1], (count, 1))
    headpose[:, 0] += np.arange(count)
    return Features(
        vertices=np.tile(face, (count, 1, 1)) + rng.normal(0, 1, (count, 478, 3)),
        headpose=headpose,
        torso=np.tile(rng.uniform(300, 500, (18, 3)), (count, 1, 1)),
        torso_valid=np.array([True, False]),
        landmarks=np.zeros((count, 478, 3)),
        valid=np.ones(count, bool),
        fps=25.0,
        image_size=512,
        face_center=np.array([256.0, 232.0, 128.0]),
        eye_dist=120.0,
        crop=np.array([0, 0, 512, 512]),
    )


def joined(parts: Iterable[PortraitMotion]) -> PortraitMotion:
    motions = list(parts)
    return PortraitMotion(
        *(np.concatenate([getattr(m, f.name) for m in motions]) for f in fields(PortraitMotion))
    )


def motion_of(speaking: Speaker, *args) -> PortraitMotion:
    return joined(speaking.generate(*args))


def sound(seconds: float) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.normal(0, 0.1, round(16000 * seconds)).astype(np.float32)


def test_a_seed_gives_one_motion_and_another_seed_another_one(source):
    speaking, template, wave = speaker(), Template.of(source), sound(1)
    one, same, other = (
        motion_of(speaking, source, template, wave, 25, seed).headpose for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same) and np.abs(one - other).max() > 1e-3
    still = speaker(temperature=0.0)
    one, other = (motion_of(still, source, template, wave, 25, seed).headpose for seed in (1, 2))
    assert np.array_equal(one, other) and not still.stochastic
    assert not speaker("lstm").stochastic and speaker("long").stochastic


def test_windows_leave_no_seam(source):
    """Motion across a border changes no faster than inside the windows."""
    template, wave = Template.of(source), sound(6)
    made = motion_of(speaker(window=40, stride=20), source, template, wave, 150)
    lips = made.vertices[:, list(MODA_MOUTH)]
    steps = np.abs(np.diff(lips, axis=0)).mean(axis=(1, 2))
    borders = steps[19:139:20]
    assert borders.mean() < 1.3 * np.median(steps)


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_very_short_sounds(source, frames):
    wave = sound(frames / 25)
    motion = motion_of(speaker(), source, Template.of(source), wave, frames)
    assert motion.landmarks.shape == (frames, 478, 2) and np.isfinite(motion.landmarks).all()
    assert np.isnan(motion.shoulders[:, 9:]).all() and np.isfinite(motion.shoulders[:, :9]).all()


def test_a_sound_that_is_too_short_is_refused():
    assert speaker().frame_count(sound(1.0)) == 25
    with pytest.raises(DataError, match=r"needs at least 0\.1 s"):
        speaker().frame_count(sound(0.05))


def test_without_composer_lips_and_eyes_are_pasted_into_the_mean(source):
    template = Template.of(source)
    speaking = speaker(faco=False, smooth={"others": 0.0})
    motion = motion_of(speaking, source, template, sound(1), 25)
    others = np.setdiff1d(np.arange(478), [*MODA_MOUTH, *MODA_EYES])
    assert np.allclose(motion.vertices[:, others], template.mesh[others])
    assert np.ptp(motion.vertices[:, list(MODA_MOUTH)], axis=0).max() > 0.1


def test_lips_are_exactly_those_that_were_mapped_unless_all_is_to_be_composed(source):
    template, wave = Template.of(source), sound(1)
    lips = {}
    for name, keys in {
        "pasted": {"faco": False},
        "exact": {},
        "all": {"exact_parts": False},
    }.items():
        made = motion_of(speaker(**keys), source, template, wave, 25)
        lips[name] = made.vertices[:, list(MODA_MOUTH)]
    assert np.allclose(lips["exact"], lips["pasted"])
    assert not np.allclose(lips["exact"], lips["all"], atol=0.01)


def test_the_head_of_the_source_goes_there_and_back(source):
    motion = motion_of(speaker(head="source"), source, Template.of(source), sound(2), 30)
    yaw = source.headpose[:, 0]
    assert np.allclose(motion.headpose[:12, 0], yaw)
    assert np.allclose(motion.headpose[11:23, 0], yaw[::-1])


def test_smoothing_makes_the_head_calm_and_leaves_the_lips(source):
    template, wave = Template.of(source), sound(2)
    rough = motion_of(speaker(smooth={"rot": 0.0}, temperature=0.0), source, template, wave, 50)
    calm = motion_of(speaker(smooth={"rot": 4.0}, temperature=0.0), source, template, wave, 50)
    change = [np.abs(np.diff(m.headpose[:, :3], axis=0)).mean() for m in (rough, calm)]
    assert change[1] < 0.5 * change[0]
    lips = [m.vertices[:, list(MODA_MOUTH)] for m in (rough, calm)]
    assert np.allclose(*lips)


def test_long_motion_comes_in_parts_without_a_seam(source, monkeypatch):
    template, wave = Template.of(source), sound(4)
    whole = motion_of(speaker(), source, template, wave, 100)
    monkeypatch.setattr("talkingface.pipeline.moda.moda_motion._PART", 33)
    parts = list(speaker().generate(source, template, wave, 100))
    assert [len(part.landmarks) for part in parts] == [33, 33, 33, 1]
    assert np.allclose(joined(parts).landmarks, whole.landmarks, atol=1e-3)
