"""Milliseconds per frame of the picture metrics against reference implementations, on one core.

The references are scikit-image, or the definitions written as they read
(``tests/slowmetrics.py``), run on the same frames in turn with ours; medians and their ratio are
printed. NIQE needs a parameter file, LPIPS its linear heads; random weights serve as LPIPS'
backbone, since only time is measured.

    python benchmarks/metric_speed.py [--niqe=niqe_pris_params.npz] [--lpips=lpips_lin_alex.pth]
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

if hasattr(os, "sched_setaffinity"):  # before any library counts the cores
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import cv2
import numpy as np
import torch
from scipy.linalg import sqrtm
from skimage.data import astronaut
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import slowmetrics as slow

from talkingface.evaluator.frechet import frechet_distance
from talkingface.evaluator.metrics import image_quality, niqe, perceptual, sharpness, temporal

ROUNDS = 7
WANG = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


def milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def compare(name: str, size: object, ours: Callable, reference: Callable | None, of: str) -> None:
    """Print the medians of alternating runs."""
    pair = [work for work in (ours, reference) if work is not None]
    for work in pair:
        work()
    times = [[milliseconds(work) for work in pair] for _ in range(ROUNDS)]
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    text = f"{name:10} {size:>5} {medians[0]:9.1f} ms"
    if reference is not None:
        text += f"   {of:24} {medians[1]:9.1f} ms   ratio {medians[1] / medians[0]:6.1f}"
    print(text, flush=True)


def pictures(size: int) -> tuple[np.ndarray, np.ndarray]:
    """A photograph, and the same moved by two pixels and with noise."""
    real = cv2.resize(astronaut(), (size, size), interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(0).normal(0, 5, real.shape)
    return real, np.clip(np.roll(real, 2, axis=1) + noise, 0, 255).astype(np.uint8)


def compare_full_reference(size: int, made: np.ndarray, real: np.ndarray) -> None:
    compare(
        "PSNR",
        size,
        lambda: image_quality.psnr(made, real),
        lambda: peak_signal_noise_ratio(real, made),
        "scikit-image",
    )
    compare(
        "SSIM",
        size,
        lambda: image_quality.ssim_map(made, real),
        lambda: structural_similarity(made, real, data_range=255, channel_axis=-1, **WANG),
        "scikit-image",
    )
    compare(
        "MS_SSIM",
        size,
        lambda: image_quality.ms_ssim(made, real),
        lambda: slow.ms_ssim(made, real),
        "definition, SciPy",
    )


def compare_niqe(size: int, picture: np.ndarray, parameters: str) -> None:
    pristine = niqe.read_parameters(Path(parameters))
    luma = niqe.to_luma(picture)
    compare(
        "NIQE",
        size,
        lambda: niqe.niqe(luma, pristine),
        lambda: slow.niqe(luma, pristine.mean, pristine.covariance),
        "definition, SciPy",
    )


def compare_cpbd(size: int, picture: np.ndarray) -> None:
    """The reference gets the edges for nothing."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    edges, every = sharpness.vertical_edges(grey), np.ones((size // 64, size // 64), bool)
    compare(
        "CPBD",
        size,
        lambda: sharpness.cpbd(grey),
        lambda: slow.cpbd(grey, edges, every),
        "widths by loops",
    )


def compare_tcm(size: int, frame: np.ndarray, before: np.ndarray) -> None:
    """Flow and warping error of one video; the metric does it for both."""
    grey = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in (frame, before)]

    def ours() -> None:
        warped, inside = temporal.warp(before.astype(np.float32), temporal.motion(*grey))
        warped -= frame
        (warped * warped)[inside].mean()

    compare(
        "TCM",
        size,
        ours,
        lambda: slow.warping_error(frame, before, temporal.motion(*grey)),
        "the same flow, SciPy",
    )


def time_lpips(size: int, made: np.ndarray, real: np.ndarray, heads: str) -> None:
    from torchvision.models import alexnet

    from talkingface.utils.weights import read_weights

    backbone = alexnet(weights=None).state_dict()
    network = perceptual.load_lpips("alex", backbone, read_weights(heads))
    both = [torch.from_numpy(p.copy()).permute(2, 0, 1)[None] / 127.5 - 1 for p in (made, real)]
    compare("LPIPS", size, lambda: network(*both), None, "")


def compare_frechet(size: int) -> None:
    rng = np.random.default_rng(0)
    c1, c2 = (np.cov(rng.normal(size=(size, 3 * size))) for _ in range(2))
    zero = np.zeros(size)
    compare(
        "Frechet",
        size,
        lambda: frechet_distance(zero, c1, zero, c2),
        lambda: np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real),
        "SciPy's sqrtm",
    )


def main() -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    given = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:])
    for size in (256, 512):
        real, made = pictures(size)
        compare_full_reference(size, made, real)
        if "niqe" in given:
            compare_niqe(size, made, given["niqe"])
        compare_cpbd(size, made)
        compare_tcm(size, made, real)
        if "lpips" in given:
            time_lpips(size, made, real, given["lpips"])
    for size in (104, 512):
        compare_frechet(size)


if __name__ == "__main__":
    main()
