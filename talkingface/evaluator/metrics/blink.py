"""Rate and duration of eye blinks."""

from __future__ import annotations

import math

import numpy as np

from talkingface.data.face.series import runs
from talkingface.evaluator.metrics.landmark_distance import (
    Faces,
    LandmarkMetric,
    eye_distance,
    split_shots,
)

# p1..p6 of Soukupova and Cech 2016: a corner, two points of the upper lid, the other corner, two
# points of the lower lid.
EYES = ((33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380))
SHORTEST = 0.08  # seconds; shorter runs are detector noise
LEAST_EYE_DISTANCE = 20  # pixels; in smaller faces open and closed eyes look alike
LONGEST = 1.0  # seconds; in longer runs the eyes are closed, not blinking


def eye_aspect_ratio(points: np.ndarray) -> np.ndarray:
    """Height over width of the eyes, mean of both eyes, (T,); NaN in missing frames.

    Args:
        points: (T,478,>=2) pixels.
    """
    p = points[:, np.array(EYES), :2]  # (T,2,6,2)

    def distance(a: int, b: int) -> np.ndarray:
        return np.linalg.norm(p[:, :, a] - p[:, :, b], axis=-1)

    width = np.maximum(distance(0, 3), 1e-6)
    return ((distance(1, 5) + distance(2, 4)) / (2 * width)).mean(axis=1)


def blinks(ratio: np.ndarray, fps: float, threshold: float) -> list[float]:
    """Durations in seconds of the runs below the threshold that are blinks.

    Args:
        ratio: (T,) of :func:`eye_aspect_ratio`; a missing frame ends a run.
    """
    shortest = max(2, round(SHORTEST * fps))
    low = ratio < threshold
    spans = [stop - start for start, stop in runs(low) if low[start]]
    return [n / fps for n in spans if shortest <= n <= LONGEST * fps]


class Blink(LandmarkMetric):
    """Blinks per minute and their mean duration; the best values are those of the real video."""

    both = False
    empty = "no blink"

    def values(self, faces: Faces) -> dict[str, float]:
        if faces.valid.sum() < 2:  # the length of the shortest blink
            return self.undefined("fewer than two frames with a face")
        ratio, fps = eye_aspect_ratio(faces.generated), faces.clip.fps
        if eye_distance(faces.generated[faces.valid]) < LEAST_EYE_DISTANCE:
            return self.undefined(f"the eyes are less than {LEAST_EYE_DISTANCE} px apart")
        # Narrow eyes stay below any fixed threshold while open.
        scale = float(np.median(ratio[faces.valid])) if self.params["adaptive"] else 1.0
        ratio = split_shots(ratio, faces.clip)  # a blink does not span a cut
        durations = blinks(ratio, fps, scale * self.params["threshold"])
        return {
            "blink_rate": 60 * fps * len(durations) / faces.valid.sum(),
            "blink_dur": np.mean(durations) if durations else math.nan,
        }
