"""L1, PSNR, SSIM and MS-SSIM against the real frames."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np

from talkingface.evaluator.base_metric import Metric
from talkingface.evaluator.clip import ClipPair, missing_faces
from talkingface.utils.env import import_cv2

PSNR_CAP = 100.0  # dB, for equal frames, whose PSNR is infinite (ATVGnet's convention)
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of five scales, fine to coarse
TFT_SIDE = 224  # px; the original Talking-Face-Toolkit compares all frames at this size
REGIONS = ("full", "face", "mouth")
MS_SSIM_SIDE = 161  # px; with shorter sides the last scale is smaller than the 11 px window


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures over all pixels and channels, in dB."""
    difference = first.astype(np.float64) - second
    error = float(np.mean(difference * difference))
    return min(PSNR_CAP, 10 * math.log10(255.0**2 / error)) if error > 0 else PSNR_CAP


def sum_and_difference(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """first + second - 255 and first - second as float32.

    SSIM is computed from the local moments of these two: four filters instead of five, values near
    zero with good float32 precision, and exactly 1 for equal pictures.
    """
    cv2 = import_cv2()
    total = cv2.add(first, second, dtype=cv2.CV_32F)
    total -= 255
    return total, cv2.subtract(first, second, dtype=cv2.CV_32F)


def ssim_parts(
    total: np.ndarray, difference: np.ndarray, kind: str = "gaussian11"
) -> tuple[np.ndarray, np.ndarray]:
    """The luminance and the contrast-structure term of SSIM, each float32 of the inputs' shape.

    Args:
        total, difference: of :func:`sum_and_difference`.
        kind: ``gaussian11`` (11x11, sigma 1.5, population covariance; the usual definition) or
            ``uniform7`` (7x7 mean, sample covariance; scikit-image's default).
    """
    cv2 = import_cv2()

    def blur(image: np.ndarray) -> np.ndarray:
        if kind == "gaussian11":
            kernel = cv2.getGaussianKernel(11, 1.5, cv2.CV_32F)
            return cv2.sepFilter2D(image, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT)
        return cv2.blur(image, (7, 7), borderType=cv2.BORDER_REFLECT)

    def moments(image: np.ndarray, offset: float) -> tuple[np.ndarray, np.ndarray]:
        """Half the squared local mean, and half the variance, in place where possible."""
        mean = blur(image)
        variance = blur(cv2.multiply(image, image, scale=0.5))
        variance -= cv2.multiply(mean, mean, scale=0.5)
        if kind != "gaussian11":
            variance *= 49 / 48
        mean += offset
        return cv2.multiply(mean, mean, dst=mean, scale=0.5), variance

    def ratio(plus: np.ndarray, minus: np.ndarray, constant: float) -> np.ndarray:
        """(plus - minus + constant) / (plus + minus + constant)."""
        plus += constant
        top = plus - minus
        plus += minus
        return cv2.divide(top, plus, dst=top)

    # With s = x + y and d = x - y: (s^2 - d^2)/2 = 2xy and (s^2 + d^2)/2 = x^2 + y^2, for means
    # as for (co)variances.
    (mean_s, variance_s), (mean_d, variance_d) = moments(total, 255), moments(difference, 0)
    luminance = ratio(mean_s, mean_d, (0.01 * 255) ** 2)
    return luminance, ratio(variance_s, variance_d, (0.03 * 255) ** 2)


def ssim_map(first: np.ndarray, second: np.ndarray, kind: str = "gaussian11") -> np.ndarray:
    """SSIM of each pixel and channel (Wang et al. 2004).

    Args:
        first, second: (H,W,3) or (H,W) uint8.
        kind: see :func:`ssim_parts`.

    Returns:
        float32 map of the same shape; the border of half a window uses reflected pixels and is
        excluded from averages.
    """
    luminance, structure = ssim_parts(*sum_and_difference(first, second), kind)
    luminance *= structure
    return luminance


def _halved(image: np.ndarray) -> np.ndarray:
    """Means of 2x2 pixels; an odd last row or column is repeated."""
    cv2 = import_cv2()
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    halves = ((width + 1) // 2, (height + 1) // 2)
    return cv2.resize(image, halves, interpolation=cv2.INTER_AREA)


def ms_ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Multi-scale SSIM of two uint8 pictures (Wang et al. 2003), mean over channels.

    Contrast-structure terms at five scales, each half as large (2x2 means), and luminance at the
    last; negative terms count as 0. nan when a side is shorter than 161 px: the last scale would be
    smaller than the window.
    """
    if min(first.shape[:2]) < MS_SSIM_SIDE:
        return math.nan
    parts = sum_and_difference(first, second)
    product: np.ndarray | float = 1.0
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        if scale:
            parts = tuple(_halved(part) for part in parts)
        luminance, structure = ssim_parts(*parts)
        if scale == len(MS_SSIM_WEIGHTS) - 1:
            structure *= luminance
        mean = structure[5:-5, 5:-5].mean(axis=(0, 1), dtype=np.float64)
        product = product * np.maximum(mean, 0) ** weight
    return float(np.mean(product))


class RegionMetric(Metric):
    """Mean over frames per region; the outputs are ``NAME``, ``NAME_face`` and ``NAME_mouth``."""

    too_small = "the picture is smaller than the window"

    def start(self, clip: ClipPair) -> None:
        super().start(clip)
        self._values: dict[str, list[float]] = defaultdict(list)

    def finish(self, clip: ClipPair) -> dict[str, float]:
        results = {}
        for key in self.outputs:
            region = key[len(self.name) + 1 :] or "full"
            values = self._values.get(region, [])
            reason = self.too_small
            if region != "full":
                share = len(values) / max(clip.n_frames, 1)
                reason = missing_faces(key, clip, share, "in the real video")
            if values and (region == "full" or reason is None):
                results[key] = float(np.mean(values))
            else:
                results[key], self.reasons[key] = math.nan, reason
        return results

    def boxes(self, clip: ClipPair, index: int) -> dict[str, tuple[int, int, int, int]]:
        wanted = {key[len(self.name) + 1 :] or "full" for key in self.outputs}
        boxes = {name: clip.region(name, index) for name in REGIONS if name in wanted}
        return {name: box for name, box in boxes.items() if box is not None}


class L1(RegionMetric):
    """Mean absolute difference of values in 0..255."""

    def update(self, clip: ClipPair, index: int, generated: np.ndarray, real: np.ndarray) -> None:
        difference = import_cv2().absdiff(generated, real)
        for region, (x0, y0, x1, y1) in self.boxes(clip, index).items():
            self._values[region].append(float(difference[y0:y1, x0:x1].mean(dtype=np.float64)))


class PSNR(RegionMetric):
    """Mean of the per-frame PSNR in dB; a note counts frames that equal the real ones."""

    def finish(self, clip: ClipPair) -> dict[str, float]:
        for region, values in self._values.items():
            others = [value for value in values if value < PSNR_CAP]
            if 0 < len(others) < len(values):
                clip.notes.append(
                    f"{self.name} ({region}): {len(values) - len(others)} of {len(values)} frames "
                    f"equal the real ones and count as {PSNR_CAP:g} dB; the others have "
                    f"{np.mean(others):.2f} dB"
                )
        return super().finish(clip)

    def update(self, clip: ClipPair, index: int, generated: np.ndarray, real: np.ndarray) -> None:
        for region, (x0, y0, x1, y1) in self.boxes(clip, index).items():
            self._values[region].append(psnr(generated[y0:y1, x0:x1], real[y0:y1, x0:x1]))


class SSIM(RegionMetric):
    """Mean of the per-frame structural similarity.

    With ``tft`` also ``SSIM_tft``, as in the original Talking-Face-Toolkit and independent of the
    other settings: 7x7 means on grey frames of 224x224 px.
    """

    choices = {"kind": ("gaussian11", "uniform7")}

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.params["tft"]:
            self.outputs["SSIM_tft"] = dict(self.outputs["SSIM"])

    def definition(self) -> str:
        return super().definition().replace(",tft=False", "")

    def update(self, clip: ClipPair, index: int, generated: np.ndarray, real: np.ndarray) -> None:
        cv2 = import_cv2()
        if self.params["tft"]:
            # The original size, so that no frame is resized twice.
            native = generated if clip.native is None else clip.native
            small = [cv2.resize(frame, (TFT_SIDE, TFT_SIDE)) for frame in (native, real)]
            grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in small]
            inner = ssim_map(*grey, "uniform7")[3:-3, 3:-3]
            self._values["tft"].append(float(inner.mean(dtype=np.float64)))
        if self.params["gray"]:
            generated, real = (cv2.cvtColor(i, cv2.COLOR_RGB2GRAY) for i in (generated, real))
        border = 5 if self.params["kind"] == "gaussian11" else 3
        height, width = real.shape[:2]
        if min(height, width) <= 2 * border:
            return
        area = ssim_map(generated, real, self.params["kind"])
        for region, (x0, y0, x1, y1) in self.boxes(clip, index).items():
            y0, y1 = max(y0, border), min(y1, height - border)
            x0, x1 = max(x0, border), min(x1, width - border)
            if y0 < y1 and x0 < x1:
                self._values[region].append(float(area[y0:y1, x0:x1].mean(dtype=np.float64)))


class MSSSIM(RegionMetric):
    """Mean of the per-frame multi-scale structural similarity of whole frames."""

    too_small = f"a side of the picture is shorter than {MS_SSIM_SIDE} px"

    def update(self, clip: ClipPair, index: int, generated: np.ndarray, real: np.ndarray) -> None:
        value = ms_ssim(generated, real)
        if math.isfinite(value):
            self._values["full"].append(value)
