"""Metrics written as their definitions read, one loop per sum: what the fast ones must equal.

Written from the metrics specification; also the reference of ``benchmarks/metric_speed.py``.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import convolve, gaussian_filter, map_coordinates
from scipy.special import gamma

SHAPES = np.arange(0.2, 10.001, 0.001)
RATIOS = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))


def aggd(block: np.ndarray) -> tuple[float, float, float]:
    """Shape, left and right scale of one block."""
    values = block.ravel()
    left = np.sqrt(np.mean(values[values < 0] ** 2))
    right = np.sqrt(np.mean(values[values > 0] ** 2))
    skew = left / right
    ratio = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = SHAPES[np.argmin((RATIOS - ratio) ** 2)]
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * scale, right * scale


def block_features(block: np.ndarray) -> list[float]:
    shape, left, right = aggd(block)
    features = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = aggd(block * np.roll(block, shift, axis=(0, 1)))
        mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)
        features += [shape, mean, left, right]
    return features


def halved(image: np.ndarray) -> np.ndarray:
    """MATLAB's imresize by 0.5: every output pixel is a sum over 8x8 input pixels."""

    def cubic(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    weights = np.array([cubic((d - 0.5) / 2) for d in range(-3, 5)])
    weights /= weights.sum()
    for axis in (0, 1):
        padded = np.pad(image, [(4, 4) if a == axis else (0, 0) for a in (0, 1)], "symmetric")
        parts = [
            w * np.take(padded, np.arange(4 + d, 4 + d + image.shape[axis], 2), axis)
            for w, d in zip(weights, range(-3, 5), strict=True)
        ]
        image = np.sum(parts, axis=0)
    return image


def niqe(luma: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    """Section 5.1, block by block."""
    height, width = (side // 96 * 96 for side in luma.shape)
    image = luma[:height, :width].astype(np.float64)
    x = np.arange(-3, 4)
    window = np.exp(-(x[:, None] ** 2 + x[None] ** 2) / (2 * (7 / 6) ** 2))
    window /= window.sum()
    scales = []
    for size in (96, 48):
        mu = convolve(image, window, mode="nearest")
        sigma = np.sqrt(np.abs(convolve(image**2, window, mode="nearest") - mu**2))
        z = (image - mu) / (sigma + 1)
        scales.append(
            [
                block_features(z[y : y + size, x : x + size])
                for y in range(0, z.shape[0], size)
                for x in range(0, z.shape[1], size)
            ]
        )
        image = halved(image)
    features = np.concatenate(scales, axis=1)
    whole = features[~np.isnan(features).any(axis=1)]
    difference = mean - np.nanmean(features, axis=0)
    inverse = np.linalg.pinv((covariance + np.cov(whole, rowvar=False)) / 2)
    return float(np.sqrt(difference @ inverse @ difference))


def ssim_terms(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Luminance and structure maps of one float channel, the border of 5 px cut off."""

    def blur(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, 1.5, truncate=3.5)[5:-5, 5:-5]

    mx, my = blur(first), blur(second)
    vx, vy = blur(first**2) - mx**2, blur(second**2) - my**2
    covariance = blur(first * second) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return (
        (2 * mx * my + c1) / (mx**2 + my**2 + c1),
        (2 * covariance + c2) / (vx + vy + c2),
    )


def ms_ssim(first: np.ndarray, second: np.ndarray) -> float:
    values = []
    for channel in range(first.shape[2]):
        x, y = (picture[..., channel].astype(np.float64) for picture in (first, second))
        value = 1.0
        for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
            luminance, structure = ssim_terms(x, y)
            term = structure if scale < 4 else luminance * structure
            value *= max(term.mean(), 0) ** weight
            odd = [(0, side % 2) for side in x.shape]
            x, y = (np.pad(image, odd, "edge") for image in (x, y))
            h, w = (side // 2 for side in x.shape)
            x, y = (image.reshape(h, 2, w, 2).mean(axis=(1, 3)) for image in (x, y))
        values.append(value)
    return float(np.mean(values))


def edge_width(row: np.ndarray, x: int) -> int:
    """Pixels that one walks from x to both sides while the row goes on in its direction."""
    row = [int(value) for value in row]
    sign = 1 if row[x + 1] > row[x - 1] else -1
    left = 1
    while x - left - 1 >= 0 and (row[x - left] - row[x - left - 1]) * sign > 0:
        left += 1
    right = 1
    while x + right + 1 < len(row) and (row[x + right + 1] - row[x + right]) * sign > 0:
        right += 1
    return left + right


def cpbd(grey: np.ndarray, edges: np.ndarray, counted: np.ndarray) -> float:
    """Section 8 on given edges and blocks, with the probability written out."""
    sharp = total = 0
    for by in range(grey.shape[0] // 64):
        for bx in range(grey.shape[1] // 64):
            if not counted[by, bx]:
                continue
            block = grey[by * 64 : by * 64 + 64, bx * 64 : bx * 64 + 64]
            noticeable = 5 if int(block.max()) - int(block.min()) <= 50 else 3
            for y in range(by * 64, by * 64 + 64):
                for x in range(bx * 64, bx * 64 + 64):
                    if edges[y, x]:
                        width = edge_width(grey[y], x)
                        blurred = 1 - math.exp(-((width / noticeable) ** 3.6))
                        sharp += round(blurred, 2) <= 0.63
                        total += 1
    return sharp / total


def warping_error(frame: np.ndarray, before: np.ndarray, flow: np.ndarray) -> float:
    """Section 9.1 with bilinear interpolation by SciPy."""
    height, width = frame.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x, y = x + flow[..., 0], y + flow[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    squares = [
        (frame[..., c] - map_coordinates(before[..., c].astype(float), [y, x], order=1)) ** 2
        for c in range(3)
    ]
    return float(np.stack(squares, axis=-1)[inside].mean())


def lpips(first: list[np.ndarray], second: list[np.ndarray], weights: list[np.ndarray]) -> float:
    """Section 7 on feature maps (C,H,W) of both pictures and weights (C,) per layer."""
    total = 0.0
    for one, two, weight in zip(first, second, weights, strict=True):
        one, two = (f / (np.sqrt((f**2).sum(axis=0)) + 1e-10) for f in (one, two))
        total += (((one - two) ** 2) * weight[:, None, None]).sum(axis=0).mean()
    return float(total)
