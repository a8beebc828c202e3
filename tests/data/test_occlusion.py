"""Frames in which something covers the mouth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from trainkit import hyperlips_config

from talkingface.components.models import build_model
from talkingface.config.schema import FaceSection
from talkingface.data.face.occlusion import SKIN, covered, skin_colours
from talkingface.data.face.tracking import track_face
from talkingface.data.media.reader import read_frames
from talkingface.data.media.writer import VideoWriter
from talkingface.pipeline.hyperlips.dubbing import DubbingPipeline
from talkingface.utils.env import import_cv2

RNG = np.random.default_rng(2)


def colours(frames: int) -> np.ndarray:
    """Skin with a little noise, (T,P,3)."""
    skin = RNG.uniform(90, 200, (1, len(SKIN), 3))
    return (skin * RNG.normal(1, 0.02, (frames, len(SKIN), 3))).astype(np.float32)


def test_a_covered_part_of_the_skin_is_found_and_a_change_of_light_is_not():
    seen = colours(60)
    seen[10:20] *= (0.6, 0.7, 0.8)  # the light
    assert not covered(seen, (), 25).any()
    seen[30:36, : len(SKIN) // 5] *= 0.7
    assert np.flatnonzero(covered(seen, (), 25)).tolist() == list(range(30, 36))
    assert not covered(seen, (), 1.4).any()  # 6 frames are 4.3 s: too long to be a hand


def test_frames_without_a_face_count_as_covered_beside_covered_ones_only():
    seen = colours(60)
    seen[5:9] = np.nan
    seen[20:40, : len(SKIN) // 2] += 60
    seen[26:32] = np.nan  # the hand hides the face from the detector
    assert np.flatnonzero(covered(seen, (), 25)).tolist() == list(range(20, 40))
    assert not covered(seen[:2], (), 25).any()
    assert not covered(np.full_like(seen, np.nan), (), 25).any()


def test_each_shot_has_its_own_light():
    seen = colours(80)
    seen[50:] *= np.linspace(0.6, 1.4, len(SKIN))[:, None]  # light from the side after a cut
    assert covered(seen, (), 25)[50:].all()
    assert not covered(seen, (50,), 25).any()


def test_colours_are_taken_at_the_points_of_the_face():
    frame = np.zeros((100, 200, 3), np.uint8)
    frame[:, 100:] = (200, 100, 50)
    face = np.zeros((478, 3), np.float32)
    face[:, :2] = RNG.uniform((20, 10), (180, 90), (478, 2))
    found = skin_colours(frame, face)
    right, left = face[list(SKIN), 0] > 110, face[list(SKIN), 0] < 90
    assert (found[right] == (200, 100, 50)).all() and (found[left] == 0).all()
    assert (skin_colours(frame, face + 1000) == 0).all()  # outside the picture


@pytest.fixture(scope="module")
def waved(talking_clip: Path, tmp_path_factory) -> Path:
    """A speaking face; something brown passes before its mouth in frames 20 to 29."""
    path = tmp_path_factory.mktemp("occlusion") / "waved.mp4"
    track = track_face(talking_clip, fps=25.0, options=FaceSection())
    with VideoWriter(path, 25, crf=12) as writer:
        for index, frame in zip(range(50), read_frames(talking_clip, fps=25), strict=False):
            if 20 <= index < 30:
                frame = frame.copy()
                lips = track.landmarks[index, [61, 291], :2]
                centre = np.rint(lips.mean(0)).astype(int).tolist()
                reach = int(np.linalg.norm(lips[1] - lips[0]))
                import_cv2().ellipse(
                    frame, centre, (reach, reach * 2 // 3), 20, 0, 360, (120, 80, 60), -1
                )
            writer.write(frame)
    return path


@torch.no_grad()
@pytest.mark.usefixtures("tracker")
def test_covered_frames_keep_their_pixels_and_the_change_fades_beside_them(waved):
    cfg = hyperlips_config()
    pipeline = DubbingPipeline(cfg, build_model(cfg).eval(), torch.device("cpu"))
    source = pipeline.prepare(waved)
    assert (source.strength[20:30] == 0).all()
    np.testing.assert_allclose(source.strength[16:20], [1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(source.strength[30:34], [0.25, 0.5, 0.75, 1])
    assert (source.strength[:16] == 1).all() and (source.strength[34:] == 1).all()
    originals = list(read_frames(waved, fps=25))
    frames = list(pipeline.generate(source, np.zeros(32000, np.float32)))
    for index in range(20, 30):
        assert np.array_equal(frames[index], originals[index])
    assert not np.array_equal(frames[10], originals[10])


def test_a_real_mouth_behind_a_board(shared):
    path = shared / "hard_cases" / "mouth_occluded_1s_2s.mp4"
    track = track_face(path, fps=25.0, options=FaceSection())
    hidden = np.flatnonzero(track.covered)
    assert set(range(26, 50)) <= set(hidden) <= set(range(24, 52))
