"""PSNR and SSIM on the whole frame, the face and the mouth (metrics spec, section 6)."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

from talkingface.errors import ConfigError
from talkingface.evaluator.base_metric import Metric
from talkingface.evaluator.clip import MIN_VALID_RATIO, ClipPair
from talkingface.utils.env import import_cv2

PSNR_CAP = 100.0  # dB; equal frames would give infinity and poison the mean (ATVGnet's convention)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures over all pixels and channels, in dB."""
    difference = first.astype(np.float64) - second
    error = float(np.mean(difference * difference))
    return min(PSNR_CAP, 10 * math.log10(255.0**2 / error)) if error > 0 else PSNR_CAP


def ssim_map(first: np.ndarray, second: np.ndarray, kind: str = "gaussian11") -> np.ndarray:
    """SSIM of each pixel and channel (Wang et al. 2004).

    Args:
        first, second: (H,W,3) or (H,W) uint8.
        kind: ``gaussian11`` (11x11, sigma 1.5, population covariance; the usual definition) or
            ``uniform7`` (7x7 mean, sample covariance; scikit-image's default).

    Returns:
        float64 map of the same shape; the border of half a window uses reflected pixels and is
        left out of averages.
    """
    cv2 = import_cv2()
    x, y = first.astype(np.float64), second.astype(np.float64)

    def blur(image: np.ndarray) -> np.ndarray:
        if kind == "gaussian11":
            return cv2.GaussianBlur(image, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT)
        return cv2.blur(image, (7, 7), borderType=cv2.BORDER_REFLECT)

    correction = 1.0 if kind == "gaussian11" else 49 / 48
    mean_x, mean_y = blur(x), blur(y)
    variance_x = (blur(x * x) - mean_x * mean_x) * correction
    variance_y = (blur(y * y) - mean_y * mean_y) * correction
    covariance = (blur(x * y) - mean_x * mean_y) * correction
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (variance_x + variance_y + c2)


class RegionMetric(Metric):
    """Mean over frames of a value per region; keys are ``NAME``, ``NAME_face``, ``NAME_mouth``."""

    def start(self, clip: ClipPair) -> None:
        super().start(clip)
        self._values: dict[str, list[float]] = defaultdict(list)

    def _add(self, region: str, value: float) -> None:
        self._values[region].append(value)

    def finish(self, clip: ClipPair) -> dict[str, float]:
        results = {}
        for key in self.outputs:
            region = key[len(self.name) + 1 :] or "full"
            values = self._values.get(region, [])
            ratio = len(values) / max(clip.n_frames, 1)
            if ratio >= MIN_VALID_RATIO:
                results[key] = float(np.mean(values))
                continue
            results[key] = math.nan
            self.reasons[key] = (
                f"a face was found in only {ratio:.0%} of the real frames, so no '{region}'"
                if region != "full"
                else "the picture is smaller than the window"
            )
        return results

    def boxes(self, clip: ClipPair, index: int) -> dict[str, tuple[int, int, int, int]]:
        regions = {key[len(self.name) + 1 :] or "full" for key in self.outputs}
        found = {region: clip.region(region, index) for region in sorted(regions)}
        return {region: box for region, box in found.items() if box is not None}


class PSNR(RegionMetric):
    """Mean of the per-frame PSNR in dB."""

    def update(self, clip: ClipPair, index: int, generated: np.ndarray, real: np.ndarray) -> None:
        for region, (x0, y0, x1, y1) in self.boxes(clip, index).items():
            self._add(region, psnr(generated[y0:y1, x0:x1], real[y0:y1, x0:x1]))


class SSIM(RegionMetric):
    """Mean of the per-frame structural similarity."""

    def start(self, clip: ClipPair) -> None:
        super().start(clip)
        if self.params["kind"] not in ("gaussian11", "uniform7"):
            raise ConfigError("metric_params.SSIM.kind: choose gaussian11 or uniform7")

    def update(self, clip: ClipPair, index: int, generated: np.ndarray, real: np.ndarray) -> None:
        cv2 = import_cv2()
        if self.params["gray"]:
            generated, real = (cv2.cvtColor(i, cv2.COLOR_RGB2GRAY) for i in (generated, real))
        border = 5 if self.params["kind"] == "gaussian11" else 3
        height, width = real.shape[:2]
        for region, (x0, y0, x1, y1) in self.boxes(clip, index).items():
            # The window reaches beyond a region, so its neighbourhood is computed too.
            ax0, ay0 = max(x0 - border, 0), max(y0 - border, 0)
            ax1, ay1 = min(x1 + border, width), min(y1 + border, height)
            area = ssim_map(
                generated[ay0:ay1, ax0:ax1], real[ay0:ay1, ax0:ax1], self.params["kind"]
            )
            inner = area[border:-border, border:-border]
            if inner.size:
                self._add(region, float(inner.mean()))
