"""Frames that show a person well: eyes open, head still, sharp, turned to the camera."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from talkingface.utils.env import import_cv2

# p1..p6 of Soukupova and Cech 2016: a corner, two points of the upper lid, the other corner, two
# points of the lower lid.
EYES = ((33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380))
_OPEN = 0.9  # of the opening that the eyes have in most frames
_STILL = 1.5  # times the median speed
_FEWEST = 8  # frames; with fewer there is no choice to make
_TRIED = 5  # frames of nearly equal rank, of which the sharpest is taken


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


def presentable(eyes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(T,) bool: frames with open eyes in which the face does not move fast.

    Too few such frames: those with open eyes; too few of these too: all.

    Args:
        eyes: (T,) opening of the eyes in any unit.
        points: (T,N,>=2) points of the face in pixels.
    """
    opened = eyes >= _OPEN * np.percentile(eyes, 60)
    step = np.linalg.norm(np.diff(points[..., :2], axis=0), axis=-1).mean(-1)
    step = np.concatenate([step[:1], step, step[-1:]]) if len(step) else np.zeros(2)
    speed = np.maximum(step[:-1], step[1:])  # from the frame before and to the next one
    both = opened & (speed <= _STILL * np.median(speed))
    return next(
        (mask for mask in (both, opened) if mask.sum() >= _FEWEST), np.ones(len(eyes), bool)
    )


def facing(angle: np.ndarray, mouth: np.ndarray) -> np.ndarray:
    """Frames (T,) in order, best first: turned to the camera and with a resting mouth.

    Args:
        angle: (T,) degrees between the face and the camera.
        mouth: (T,) opening of the mouth over the distance of the eyes.
    """
    rest = np.percentile(mouth, 10)
    return np.argsort(angle / 10 + np.maximum(mouth - rest, 0) / 0.05, kind="stable")


def sharpest(pictures: Sequence[np.ndarray], frames: Iterable[int]) -> int:
    """The frame with the sharpest picture, by the variance of the Laplacian, of the first five."""
    cv2 = import_cv2()

    def sharpness(frame: int) -> float:
        grey = cv2.cvtColor(pictures[frame], cv2.COLOR_RGB2GRAY)
        return float(cv2.Laplacian(grey, cv2.CV_32F).var())

    return max([int(frame) for frame in list(frames)[:_TRIED]], key=sharpness)
