"""Lips that move although nothing is said (KeySync, arXiv 2505.00497)."""

from __future__ import annotations

import numpy as np

from talkingface.data.media.audio import load_audio
from talkingface.data.media.probe import probe
from talkingface.evaluator.base_metric import Metric
from talkingface.evaluator.clip import ClipPair, missing_faces

# Pairs of the inner lips and their corners; on dlib's points 61-67, 62-66, 63-65 and 60-64.
_PAIRS = ((81, 178), (13, 14), (311, 402))
_CORNERS = (78, 308)
_SILENT = 1e-4  # peak of the sound, of full scale


def mouth_aspect_ratio(landmarks: np.ndarray) -> np.ndarray:
    """(T,) sum of three gaps of the inner lips over twice their width; NaN without a face.

    Args:
        landmarks: meshes (T,478,>=2).
    """
    points = landmarks[..., :2]
    gaps = sum(np.linalg.norm(points[:, a] - points[:, b], axis=-1) for a, b in _PAIRS)
    width = np.linalg.norm(points[:, _CORNERS[0]] - points[:, _CORNERS[1]], axis=-1)
    return gaps / (2 * np.maximum(width, 1e-9))


class LipLeak(Metric):
    """Share of frames with an open mouth in a video that was generated from silence."""

    uses_frames = False

    def definition(self) -> str:
        return super().definition().replace("[", "[mp478,", 1)

    def finish(self, clip: ClipPair) -> dict[str, float]:
        clip.facts()  # the videos must be comparable, as for other metrics
        if not probe(clip.generated).has_audio:
            return self.undefined("the generated video has no sound track")
        if np.abs(load_audio(clip.generated)).max(initial=0) >= _SILENT:
            return self.undefined("only for a video that was generated from silence")
        ratio = mouth_aspect_ratio(clip.generated_landmarks)
        valid = np.isfinite(ratio)
        if reason := missing_faces(self.name, clip, float(valid.mean()), "in the generated video"):
            return self.undefined(reason)
        limit = self.params["threshold"]
        real = mouth_aspect_ratio(clip.real_landmarks)
        real = real[np.isfinite(real)]
        values = {"LipLeak": float((ratio[valid] > limit).mean())}
        values["LipLeak_input"] = float((real > limit).mean()) if len(real) else np.nan
        return values
