"""Face boxes that are stable over time and do not depend on how far the mouth is open.

A box around all landmarks grows when the jaw drops, so a network could infer the mouth opening from
the crop. Here the centre and size come from points that speech does not move (eye corners, nose),
and the extent from the median face of the clip.
"""

from __future__ import annotations

import numpy as np

from talkingface.data.face.series import fill_gaps, smooth_runs
from talkingface.data.face.topology import FACE_OVAL, RIGID
from talkingface.utils.env import import_cv2

# Margins around the face oval (top, bottom, each side) as shares of its height. docs/dubbing.md
# compares them with the S3FD boxes that the official weights were trained on.
MARGINS = (0.0, 0.06, 0.02)


def face_boxes(
    landmarks: np.ndarray,
    *,
    fps: float,
    smoothing: float = 0.2,
    segments: np.ndarray | None = None,
    margins: tuple[float, float, float] = MARGINS,
) -> np.ndarray:
    """One box per frame.

    Args:
        landmarks: (T,478,>=2) pixels, NaN for missing frames.
        fps: frame rate.
        smoothing: standard deviation of the temporal smoothing in seconds.
        segments: (T,) labels of :class:`~talkingface.data.face.tracking.FaceTrack`; boxes are not
            smoothed across a cut, and frames labelled -1 get interpolated boxes.
        margins: above, below and at each side of the face oval, as shares of its height.

    Returns:
        (T,4) float64: x0, y0, x1, y1 in pixels; not clipped to the picture. NaN when no frame has
        landmarks.
    """
    points = landmarks[..., :2].astype(np.float64)
    known = np.isfinite(points).all(axis=(1, 2))
    if not known.any():
        return np.full((len(points), 4), np.nan)
    rigid = points[:, RIGID]
    centre = rigid.mean(axis=1)
    size = np.sqrt(((rigid - centre[:, None]) ** 2).sum(-1).mean(1))
    oval = points[:, FACE_OVAL]
    low, high = oval.min(axis=1), oval.max(axis=1)
    height = high[:, 1] - low[:, 1]
    top, bottom, side = margins
    low = low - np.stack([side * height, top * height], axis=1)
    high = high + np.stack([side * height, bottom * height], axis=1)
    extent = np.concatenate([low - centre, high - centre], axis=1) / size[:, None]
    extent = np.median(extent[known], axis=0)
    sigma = smoothing * fps
    centre = fill_gaps(smooth_runs(centre, sigma, segments))
    size = fill_gaps(smooth_runs(size[:, None], sigma, segments))
    return np.concatenate([centre, centre], axis=1) + extent * size


def integer_box(box: np.ndarray, height: int, width: int) -> tuple[int, int, int, int]:
    """A box rounded to pixels and clipped to the picture, at least 2 px wide and high."""
    x0, y0, x1, y1 = (round(float(v)) for v in box)
    x0, y0 = min(max(x0, 0), width - 2), min(max(y0, 0), height - 2)
    return x0, y0, max(min(x1, width), x0 + 2), max(min(y1, height), y0 + 2)


def crop_face(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The pixels inside a box that is clipped to the picture (a view)."""
    x0, y0, x1, y1 = integer_box(box, *image.shape[:2])
    return image[y0:y1, x0:x1]


def resize_image(image: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Resize to (width, height) or a square: area averaging when shrinking, else bilinear."""
    cv2 = import_cv2()
    width, height = (size, size) if isinstance(size, int) else size
    shrinking = image.shape[0] > height and image.shape[1] > width
    method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=method)


def landmark_box(points: np.ndarray, margin: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """Bounding box of points (K,2), grown by ``margin`` of its size or scaled about its centre."""
    low, high = np.nanmin(points[:, :2], axis=0), np.nanmax(points[:, :2], axis=0)
    centre, half = (low + high) / 2, (high - low) / 2 * scale * (1 + 2 * margin)
    return np.concatenate([centre - half, centre + half])


def box_overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    common = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if (common <= 0).any():
        return 0.0
    inside = float(common.prod())
    return inside / float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inside)


def syncnet_crop(frame: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """Crop a face as SyncNet does: a square of 2.8 half sides, shifted down to include the chin.

    Source: ``run_pipeline.py`` of joonson/syncnet_python with crop_scale 0.4. As there, pixels
    outside the picture are grey (110).

    Args:
        frame: (H,W,3) uint8.
        box: x0, y0, x1, y1 of the face.
        size: side of the result in pixels.
    """
    half = float(max(box[2] - box[0], box[3] - box[1])) / 2
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    x0, x1 = round(float(x - 1.4 * half)), round(float(x + 1.4 * half))
    y0, y1 = round(float(y - half)), round(float(y + 1.8 * half))
    height, width = frame.shape[:2]
    inside = frame[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    pads = ((max(-y0, 0), max(y1 - height, 0)), (max(-x0, 0), max(x1 - width, 0)), (0, 0))
    if any(sum(pad) for pad in pads):
        inside = np.pad(inside, pads, constant_values=110)
    return resize_image(inside, size)
