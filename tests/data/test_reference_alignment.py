"""Reference crops with the head pose of another frame."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from trainkit import hyperlips_config

from talkingface.components.models import build_model
from talkingface.data.dataset.hyperlips.hyperlipsbase_dataset import HyperLipsBaseDataset
from talkingface.data.face.align import CROP_POINTS, turn_face
from talkingface.data.face.boxes import resize_image
from talkingface.pipeline.hyperlips.dubbing import DubbingPipeline

RNG = np.random.default_rng(0)
SIZE = np.array([90, 90])


def face() -> np.ndarray:
    """Points in px of a crop of 90 x 90."""
    return RNG.normal((45, 45, 0), (20, 20, 12), (len(CROP_POINTS), 3))


def picture() -> np.ndarray:
    return cv2.resize(RNG.integers(0, 256, (8, 8, 3), np.uint8), (90, 90))


def test_the_same_pose_changes_nothing():
    points, image = face(), picture()
    np.testing.assert_array_equal(turn_face(image, points, SIZE, points, SIZE), image)


def test_a_roll_and_a_larger_face_are_a_rotation_and_a_zoom():
    points, image = face(), picture()
    angle, scale = np.radians(12), 1.15
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = points * scale
    moved[:, :2] = (points[:, :2] - 45) @ turn.T * scale + 45 + (3, -2)
    matrix = cv2.getRotationMatrix2D((44.5, 44.5), -12, scale)
    matrix[:, 2] += (3, -2)
    wanted = cv2.warpAffine(image, matrix, (90, 90), borderMode=cv2.BORDER_REPLICATE)
    found = turn_face(image, points, SIZE, moved, SIZE)
    assert np.abs(found.astype(int) - wanted)[10:-10, 10:-10].mean() < 0.6
    assert np.abs(image.astype(int) - wanted)[10:-10, 10:-10].mean() > 10


def test_a_zoom_about_the_upper_left_corner_moves_no_pixel_by_half():
    points, image = face(), picture()
    found = turn_face(image, points, SIZE, points * 2, SIZE)
    wanted = cv2.resize(image[:45, :45], (90, 90), interpolation=cv2.INTER_LINEAR)
    assert np.abs(found.astype(int) - wanted)[:-3, :-3].mean() < 0.2


@pytest.mark.parametrize("yaw", [60, 80])
def test_a_turn_that_no_homography_follows_leaves_the_reference(yaw):
    image = picture()
    flat = face() * (1, 1, 0.2)
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    turned = flat - 45
    turned = turned @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) + 45
    for one, two in ((flat, turned), (flat * 0 + 45, flat)):
        with np.errstate(invalid="ignore"):
            found = turn_face(image, one, SIZE, two, SIZE)
        assert found.shape == image.shape
    np.testing.assert_array_equal(found, image)  # points that lie on each other


def test_boxes_of_other_sizes_and_shapes_are_followed():
    points, image = face(), picture()
    wider = points * (1, 1, 1) + (20, 0, 0)  # the box begins 20 px further left
    found = turn_face(image, points, SIZE, wider, np.array([135, 90]))
    column = np.round((np.arange(20, 80) + 20) / 135 * 90).astype(int)
    assert np.abs(found[:, column].astype(int) - image[:, 20:80]).mean() < 4


@pytest.fixture(scope="module")
def prepared(tiny_synthetic: Path) -> HyperLipsBaseDataset:
    more = {"data.align_reference": True, "data.syncnet_T": 1, "model_params.image_size": 96}
    return HyperLipsBaseDataset(hyperlips_config(tiny_synthetic, **more), "train")


def test_aligned_references_are_nearer_to_their_targets(prepared):
    plain, aligned = [], []
    for clip in prepared.clips:
        for _ in range(12):
            start, first = (int(v) for v in RNG.choice(clip.starts, 2, replace=False))
            target, reference = (prepared.read_window(clip, k, 96)[0] for k in (start, first))
            turned = prepared._aligned(clip, reference, first, start)
            for found, image in ((plain, reference), (aligned, turned)):
                found.append(np.abs(image - target)[..., 48:, :].mean())
    assert np.mean(aligned) < 0.9 * np.mean(plain)


@torch.no_grad()
def test_generation_turns_the_reference_as_the_training_does(prepared, tiny_synthetic):
    clip = prepared.clips[0]
    (video,) = tiny_synthetic.glob(f"dataset/*/data/{clip.id}.mp4")
    first, start = (int(clip.starts[k]) for k in (0, -1))
    more = {"infer.reference": "index", "infer.reference_index": first}
    cfg = hyperlips_config(
        tiny_synthetic,
        **{"data.align_reference": True, "model_params.image_size": 96, **more},
        **{"model_params.warp": 0},
    )
    pipeline = DubbingPipeline(cfg, build_model(cfg).eval(), torch.device("cpu"))
    source = pipeline.prepare(video)
    crops = np.zeros((2, 96, 96, 3), np.uint8)
    made, _ = pipeline._references(crops, source, [first, start])
    np.testing.assert_array_equal(made[0], resize_image(source.reference, 96))
    for image, k in zip(made, (first, start), strict=True):
        window = prepared._aligned(clip, prepared.read_window(clip, first, 96)[0], first, k)
        trained = 255 * window[:, 0].transpose(1, 2, 0)
        assert np.abs(image - trained).mean() < 2.5, k
    assert np.abs(made[1].astype(int) - made[0]).mean() > 3
    # The source is 256 px wide, its face larger than the network's 96 px.
    faces = [face for _, _, face in pipeline.faces(source, np.zeros(16000, np.float32))]
    assert {face.shape for face in faces} == {(96, 96, 3)}
    warping = hyperlips_config(tiny_synthetic, **{"model_params.warp": 0.2, **more})
    warped = DubbingPipeline(warping, build_model(warping).eval(), torch.device("cpu"))
    fine = warped.prepare(video)
    faces = [face for _, _, face in warped.faces(fine, np.zeros(16000, np.float32))]
    shapes = [list(face.shape[1::-1]) for face in faces]
    assert shapes == fine.sizes[warped.order(fine, len(faces))].tolist() and min(shapes)[0] > 96
    unaligned = hyperlips_config(
        tiny_synthetic, **{"data.align_reference": False, "model_params.image_size": 96, **more}
    )
    plain = DubbingPipeline(unaligned, build_model(cfg).eval(), torch.device("cpu"))
    made, turns = plain._references(crops, source, [start])
    assert turns == [None] and (made == resize_image(source.reference, 96)).all()
