"""Faces in full resolution, lips alone, and losses on fine structure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from trainkit import hyperlips_config

from talkingface.components.models import build_model
from talkingface.config.config import load_config
from talkingface.data.face.align import CROP_POINTS, open_frames
from talkingface.data.face.topology import LIPS
from talkingface.model.audio_driven_talkingface.hyperlips.hyperlipsbase import mouth_region
from talkingface.model.component import Component
from talkingface.model.losses.detail import detail_losses, gradient_l1, spectrum_l1
from talkingface.model.losses.perceptual import FaceCoder, feature_distance
from talkingface.pipeline.hyperlips.full_size import PaintedCrop, full_size
from talkingface.pipeline.hyperlips.lip_painting import enlarged, paint_lips
from talkingface.utils.env import import_cv2

RNG = np.random.default_rng(11)
SIDE, SIZE = 48, (144, 120)  # of the network, and height and width of the source


def texture(height: int, width: int) -> np.ndarray:
    cv2 = import_cv2()
    return cv2.GaussianBlur(RNG.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 1.2)


def painted(reference: np.ndarray, flow=(0.0, 0.0), share=1.0, generated=0.5) -> PaintedCrop:
    """What a network with one flow and one share everywhere returns."""
    cv2 = import_cv2()
    small = cv2.resize(reference, (SIDE, SIDE), interpolation=cv2.INTER_AREA) / np.float32(255)
    move = np.float32([[1, 0, -flow[0]], [0, 1, -flow[1]]])
    small = cv2.warpAffine(small, move, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
    face = share * small + (1 - share) * np.float32(generated)
    shape = (SIDE, SIDE)
    return PaintedCrop(
        face.astype(np.float32), small, np.full((*shape, 2), flow, np.float32),
        np.full(shape, share, np.float32),
    )  # fmt: skip


def test_without_a_flow_the_reference_is_shown_pixel_by_pixel():
    reference, own = texture(*SIZE), texture(*SIZE)
    found = full_size(painted(reference), reference, None, own)
    assert np.abs(found[72:].astype(int) - reference[72:]).max() <= 1
    np.testing.assert_array_equal(found[:72], own[:72])


def test_a_flow_moves_the_pixels_in_full_resolution():
    reference, own = texture(*SIZE), texture(*SIZE)
    # 2 px of 48 are 5 px of 120 and 6 px of 144.
    found = full_size(painted(reference, (2.0, -2.0)), reference, None, own)
    inside = (slice(78, 138), slice(0, 110))
    moved = np.roll(reference, (6, -5), axis=(0, 1))
    assert np.abs(found[inside].astype(int) - moved[inside]).max() <= 1


def test_a_turn_is_undone_where_the_pixels_are_taken():
    reference, own = texture(*SIZE), texture(*SIZE)
    shift = np.array([[1, 0, 4], [0, 1, 0], [0, 0, 1.0]])  # 4 of 48 px: 10 of 120
    crop = painted(np.roll(reference, 10, axis=1))
    found = full_size(crop, reference, shift, own)[72:, 15:]
    assert np.abs(found.astype(int) - np.roll(reference, 10, axis=1)[72:, 15:]).mean() < 2


def test_generated_pixels_are_mixed_in_by_their_share():
    reference, own = texture(*SIZE), texture(*SIZE)
    shade = np.linspace(0, 255, 120).astype(np.uint8)[None, :, None] + np.zeros_like(reference)
    found = full_size(painted(shade, share=0.25, generated=0.2), shade, None, own)
    wanted = 0.25 * shade[72:] + 0.75 * 0.2 * 255
    assert np.abs(found[72:, 2:-2] - wanted[:, 2:-2]).max() < 2
    # Details of the reference, which the network does not show, count with the root of the share.
    crop = painted(reference, share=0.25, generated=0.2)
    soft = import_cv2().resize(crop.moved, (120, 144))[72:] * 255
    mixed = 0.25 * soft + 0.75 * 0.2 * 255 + 0.5 * (reference[72:] - soft)
    assert np.abs(full_size(crop, reference, None, own)[72:] - mixed).max() < 2


def test_a_small_result_of_a_large_reference_has_no_aliasing():
    fine = np.zeros((400, 400, 3), np.uint8)
    fine[:, ::2] = 255  # stripes of one pixel
    found = full_size(painted(fine), fine, None, np.zeros((100, 100, 3), np.uint8))
    assert np.abs(found[52:98, 2:98].astype(int) - 127).max() < 3


def points_of_a_face() -> np.ndarray:
    """(K,3) rough ``CROP_POINTS``: lips around (60, 90), the eyes above, the chin below."""
    angles = np.linspace(0, 2 * np.pi, len(CROP_POINTS), endpoint=False)
    points = np.stack([60 + 50 * np.sin(angles), 72 - 60 * np.cos(angles), 0 * angles], axis=1)
    lips = np.linspace(0, 2 * np.pi, len(LIPS), endpoint=False)
    for angle, point in zip(lips, LIPS, strict=True):
        points[CROP_POINTS.index(point)] = (60 + 18 * np.cos(angle), 95 + 6 * np.sin(angle), 0)
    for point, place in (
        (33, (35, 50)), (263, (85, 50)), (4, (60, 75)), (98, (52, 80)), (327, (68, 80)),
        (152, (60, 132)),
    ):  # fmt: skip
        points[CROP_POINTS.index(point), :2] = place
    return points


class FixedMesh:
    """Stands for ``FaceMesher``: the points of a face, in the pixels of any picture of it."""

    def __init__(self, points: np.ndarray | None, size: tuple[int, int]) -> None:
        self.points, self.size = points, size

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        if self.points is None:
            return np.zeros((0, 478, 3), np.float32)
        mesh = np.zeros((1, 478, 3), np.float32)
        mesh[0, CROP_POINTS] = self.points * (rgb.shape[1] / self.size[0])
        return mesh


@pytest.mark.parametrize("blending", ["feather", "gradient"])
@pytest.mark.parametrize("seen", [True, False])
def test_only_the_lips_of_a_generated_face_are_used(blending, seen):
    frame = np.full((200, 180, 3), 120, np.uint8)
    frame[:, :, 0] += np.arange(180, dtype=np.uint8)[None] // 6
    points, box = points_of_a_face(), (30, 20, 150, 170)
    face = np.full((150, 120, 3), (120, 120, 120), np.uint8)
    import_cv2().ellipse(face, (60, 95), (15, 5), 0, 0, 360, (200, 60, 60), -1)  # its mouth
    mesher = FixedMesh(points if seen else None, (120, 150))
    found = paint_lips(mesher, frame, face, box, points[:, :2], blending)
    change = np.abs(found.astype(int) - frame).max(-1)
    assert change[20 + 95, 30 + 60] > (40 if blending == "feather" else 12)
    rows, columns = np.nonzero(change > 3)
    assert 20 + 80 < rows.min() and rows.max() < 20 + 115
    assert 30 + 30 < columns.min() and columns.max() < 30 + 92


def test_a_lower_chin_of_the_generated_face_moves_the_chin_of_the_frame():
    frame = texture(200, 180)
    points, box = points_of_a_face(), (30, 20, 150, 170)
    lower = points.copy()
    lower[CROP_POINTS.index(152)] += (0, 8, 0)
    same, moved = (
        paint_lips(FixedMesh(p, (120, 150)), frame, frame[20:170, 30:150], box, points[:, :2],
                   "feather")
        for p in (points, lower)
    )  # fmt: skip
    chin = (slice(20 + 125, 20 + 150), slice(30 + 50, 30 + 70))
    assert np.abs(same[chin].astype(int) - frame[chin]).mean() < 2
    assert np.abs(moved[chin].astype(int) - frame[chin]).mean() > 10


def test_a_face_is_enlarged_to_its_box_and_left_alone_if_it_fits():
    face = texture(48, 48)
    assert enlarged(face, 120, 144).shape == (144, 120, 3)
    assert enlarged(face, 48, 48) is face


def test_open_frames_are_those_with_the_widest_open_mouth_for_their_size():
    points = np.repeat(points_of_a_face()[None], 10, axis=0)
    lower = CROP_POINTS.index(14)
    points[[2, 7], lower, 1] += 20
    points[4] *= 3  # nearer to the camera, not more open
    np.testing.assert_array_equal(open_frames(points, 0.2), [2, 7])
    assert len(open_frames(points, 0.001)) == 1


def blurred(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(x, 5, 1, 2)


@pytest.mark.parametrize("loss", [gradient_l1, spectrum_l1])
def test_losses_on_fine_structure_are_zero_for_equal_pictures_and_rise_with_blur(loss):
    torch.manual_seed(0)
    real = torch.rand(2, 3, 48, 64)
    assert loss(real, real) == 0
    soft = blurred(real)
    assert 0 < loss(soft, real) < loss(blurred(soft), real)
    soft.requires_grad_()
    loss(soft, real).backward()
    assert torch.isfinite(soft.grad).all() and soft.grad.abs().max() > 0


def test_the_spectrum_forgives_a_shift_that_a_pixel_loss_punishes_more_than_blur():
    torch.manual_seed(0)
    real = torch.rand(2, 3, 64, 64)
    shifted = real.roll(3, dims=-1)
    pixel = torch.nn.functional.l1_loss
    assert pixel(shifted, real) > pixel(blurred(real), real)
    assert spectrum_l1(shifted, real) < 0.6 * spectrum_l1(blurred(real), real)


def test_the_spectrum_is_finite_for_a_flat_picture():
    flat = torch.zeros(1, 3, 32, 32, requires_grad=True)
    spectrum_l1(flat, torch.rand(1, 3, 32, 32)).backward()
    assert torch.isfinite(flat.grad).all()
    assert torch.isfinite(spectrum_l1(torch.rand(1, 3, 12, 16), torch.rand(1, 3, 12, 16)))


def test_features_of_the_autoencoder_measure_how_much_structure_is_lost():
    torch.manual_seed(0)
    network = FaceCoder((4, 8, 8, 8))
    real = torch.rand(2, 3, 32, 48)
    assert [tuple(m.shape) for m in network.levels(real)] == [
        (2, 4, 32, 48), (2, 8, 16, 24), (2, 8, 8, 12), (2, 8, 4, 6),
    ]  # fmt: skip
    assert network(real).shape == real.shape
    assert feature_distance(network, real, real) == 0
    soft = blurred(real).requires_grad_()
    near = feature_distance(network, soft, real)
    assert 0 < near < feature_distance(network, blurred(blurred(real)), real)
    near.backward()
    assert torch.isfinite(soft.grad).all() and soft.grad.abs().max() > 0


def test_the_autoencoder_restores_what_is_erased():
    cfg = load_config("FaceFeatures", "Synthetic", preset="tiny")
    torch.manual_seed(0)
    model = build_model(cfg)
    faces = torch.linspace(0, 1, 64).expand(4, 3, 1, 64, 64).contiguous()  # a shade
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    model.train()
    for _ in range(60):
        losses = model.calculate_loss({}, "generator", model.forward_train({"gt": faces}))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        shared = model.forward_train({"gt": faces})
    kept = model._kept(shared["faces"])
    assert 0.6 < kept.mean() < 0.7 and torch.equal(kept, model._kept(shared["faces"]))
    error = (shared["restored"] - shared["faces"]).abs()
    assert error[(kept == 0).expand_as(error)].mean() < 0.12  # erased pixels are 0: 0.5 otherwise


def test_the_feature_loss_counts_the_mouth_in_a_trained_network():
    cfg = hyperlips_config(loss__features_wt=2.0, loss__disc_wt=0)
    spec = cfg.schema.components(cfg)["features"]
    assert spec.model == "FaceFeatures" and not spec.required
    model = build_model(cfg).train()
    network = FaceCoder((4, 8, 8, 8))
    real, generated = torch.rand(2, 3, 1, 64, 64), torch.rand(2, 3, 1, 64, 64)
    arguments = {"gt": real}, "generator", {"generated": generated}
    plain = model.calculate_loss(*arguments)
    model.components["features"] = Component(network, {"path": "a", "sha256": "b"})
    losses = model.calculate_loss(*arguments)
    mouths = (mouth_region(video).flip(1) for video in (generated, real))
    assert losses["features"] == feature_distance(network, *mouths) > 0
    assert losses["loss"] == pytest.approx(float(plain["loss"] + 2 * losses["features"]))


def test_the_second_stage_has_the_losses_on_fine_structure_too():
    overrides = {"loss.disc_wt": 0.0, "loss.gradient_wt": 0.5, "loss.spectrum_wt": 2.0}
    model = build_model(load_config("HyperLipsHR", "Synthetic", preset="tiny", overrides=overrides))
    real, generated = torch.rand(1, 3, 1, 128, 128), torch.rand(1, 3, 1, 128, 128)
    lips = torch.tensor([[[40, 80, 40, 90]]])
    losses = model._generator_loss(generated, real, lips)
    assert losses["gradient"] == gradient_l1(generated[:, :, 0], real[:, :, 0])
    parts = losses["l1"] + losses["lip_l1"] + 0.5 * losses["gradient"] + 2 * losses["spectrum"]
    assert losses["loss"] == pytest.approx(float(parts))


@pytest.mark.parametrize("name", ["Feature2Face", "MODARenderer", "HeadGAN"])
def test_renderers_have_the_losses_on_fine_structure(name):
    weights = {"gradient_wt": 1.0, "spectrum_wt": 2.0, "features_wt": 3.0}
    overrides = {f"loss.{key}": value for key, value in weights.items()}
    cfg = load_config(name, "Synthetic", preset="tiny", overrides=overrides)
    assert cfg.schema.components(cfg)["features"].model == "FaceFeatures"
    generated, real = 2 * torch.rand(2, 1, 3, 32, 32) - 1
    losses, total = detail_losses(cfg.loss, generated, real, None)
    assert set(losses) == {"gradient", "spectrum"}
    assert total == pytest.approx(float(losses["gradient"] + 2 * losses["spectrum"]))
    plain = load_config(name, "Synthetic", preset="tiny")
    assert detail_losses(plain.loss, generated, real, None) == ({}, 0)
    assert "features" not in plain.schema.components(plain)
