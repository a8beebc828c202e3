"""Rate and duration of eye blinks."""

from __future__ import annotations

import math

import numpy as np

from talkingface.data.face.portrait import eye_aspect_ratio
from talkingface.data.face.series import runs
from talkingface.evaluator.metrics.landmark_distance import (
    Faces,
    LandmarkMetric,
    eye_distance,
    split_shots,
)

SHORTEST = 0.08  # seconds; shorter runs are detector noise
LEAST_EYE_DISTANCE = 20  # pixels; in smaller faces open and closed eyes look alike
LONGEST = 1.0  # seconds; in longer runs the eyes are closed, not blinking


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
