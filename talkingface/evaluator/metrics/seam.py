"""Visible border of what was put into a face."""

from __future__ import annotations

import math

import numpy as np

from talkingface.evaluator.base_metric import Metric
from talkingface.evaluator.clip import ClipPair, missing_faces
from talkingface.utils.env import import_cv2

_MEDIAN = 0.03  # of the face's width: window of the median of the difference, which keeps edges
_BAND = 0.01  # of the face's width: half width of the compared band
_LEAST_AREA = 0.01  # of the face; smaller changes are compression


def border_gradients(
    generated: np.ndarray, real: np.ndarray, threshold: float
) -> tuple[float, float] | None:
    """Mean gradient across the border of the changed area, in both pictures.

    The changed area is where the median-filtered difference is above a threshold; only its largest
    connected part counts. The gradient is that of the brightness, along the normal of the border.

    Args:
        generated, real: (H,W,3) uint8, the same face.
        threshold: grey levels.

    Returns:
        Of the generated and of the real picture, in grey levels per px; None without a change.
    """
    cv2 = import_cv2()
    height, width = real.shape[:2]
    difference = cv2.absdiff(generated, real).max(axis=2)
    changed = cv2.medianBlur(difference, max(round(_MEDIAN * width), 3) | 1) > threshold
    count, labels, stats, _ = cv2.connectedComponentsWithStats(changed.astype(np.uint8))
    if count < 2:
        return None
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    if stats[largest, cv2.CC_STAT_AREA] < _LEAST_AREA * height * width:
        return None
    area = (labels == largest).astype(np.uint8)
    outside, inside = (cv2.distanceTransform(a, cv2.DIST_L2, 5) for a in (1 - area, area))
    distance = cv2.GaussianBlur(outside - inside, (0, 0), 1.0)
    # The edge of the picture is no border of the area.
    frame = np.zeros(area.shape, bool)
    frame[2:-2, 2:-2] = True
    band = (np.abs(outside - inside) <= max(_BAND * width, 1.5)) & frame
    if not band.any():
        return None
    nx, ny = (cv2.Sobel(distance, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    length = np.maximum(np.hypot(nx, ny), 1e-6)
    across = []
    for picture in (generated, real):
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
        gx, gy = (cv2.Sobel(grey, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
        across.append(float(np.abs((gx * nx + gy * ny) / length)[band].mean()))
    return across[0], across[1]


class Seam(Metric):
    """Gradient across the border of the changed area, relative to the real picture there."""

    def start(self, clip: ClipPair) -> None:
        super().start(clip)
        self._sums = np.zeros(2)
        self._faces = self._changed = 0

    def update(self, clip: ClipPair, index: int, generated: np.ndarray, real: np.ndarray) -> None:
        box = clip.region("face", index)
        if box is None or not self.sampled(index):
            return
        x0, y0, x1, y1 = box
        self._faces += 1
        pair = border_gradients(
            np.ascontiguousarray(generated[y0:y1, x0:x1]),
            np.ascontiguousarray(real[y0:y1, x0:x1]),
            self.params["threshold"],
        )
        if pair is not None:
            self._changed += 1
            self._sums += pair

    def finish(self, clip: ClipPair) -> dict[str, float]:
        share = self._faces * self.params["stride"] / max(clip.n_frames, 1)
        reason = missing_faces(self.name, clip, min(share, 1.0), "in the real video")
        if reason is None and not self._changed:
            reason = "no face differs from the real one"
        if reason is None and self._sums[1] <= 0:
            reason = "the real face has no texture"
        if reason is not None:
            return self.undefined(reason)
        value = self._sums[0] / self._sums[1]
        return {"seam": float(value) if math.isfinite(value) else math.nan}
