"""A picture of a result: the mouths of all rows of the table at some moments of a clip."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from talkingface.data.face.boxes import resize_image
from talkingface.data.face.series import fill_gaps
from talkingface.data.face.tracking import video_landmarks
from talkingface.data.media.reader import read_frames
from talkingface.utils.env import import_cv2
from talkingface.utils.paths import atomic

MOMENTS = 6
SIDE = 160  # of a face, in pixels
TITLE = 190  # width of the titles, in pixels
_EYES = (33, 263)  # outer corners
_LIPS = (13, 14)  # middle of the inner lips


def write_overview(path: Path, videos: Mapping[str, Path], real: Path, fps: float) -> bool:
    """Write a PNG with a line for each video; False without a face in ``real``.

    Args:
        videos: title -> video; missing files are left out.
        real: the video that says where the faces are and when the mouth is open.
    """
    points = video_landmarks(real, fps=fps, tracking=True)[:, :, :2]
    if not np.isfinite(points[:, list(_EYES + _LIPS)]).all(axis=(1, 2)).any():
        return False
    points = fill_gaps(points)
    moments = moments_of(points)
    lines = []
    for title, file in videos.items():
        if file.exists():
            frames = list(islice(read_frames(file, fps=fps), max(moments) + 1))
            shown = [face_of(frames[min(m, len(frames) - 1)], points[m]) for m in moments]
            lines.append(np.concatenate([_title(title), *shown], axis=1))
    if not lines:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        ok, data = import_cv2().imencode(".png", np.concatenate(lines)[..., ::-1])
        temporary.write_bytes(data.tobytes())
    return bool(ok)


def moments_of(points: np.ndarray) -> list[int]:
    """Frames with an open and a closed mouth in turns, one in each part of the clip.

    Args:
        points: (T,478,2) landmarks without gaps.
    """
    opening = np.linalg.norm(points[:, _LIPS[0]] - points[:, _LIPS[1]], axis=-1)
    parts = np.array_split(np.arange(len(points)), min(MOMENTS, len(points)))
    picks = (np.argmin, np.argmax)
    return [int(part[picks[k % 2](opening[part])]) for k, part in enumerate(parts)]


def face_of(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The lower part of the face, (SIDE,SIDE,3)."""
    centre = points[list(_LIPS)].mean(0)
    eyes = np.linalg.norm(points[_EYES[0]] - points[_EYES[1]])
    box = [
        centre[0] - 0.85 * eyes,
        centre[1] - eyes,
        centre[0] + 0.85 * eyes,
        centre[1] + 0.7 * eyes,
    ]
    x0, y0, x1, y1 = np.round(box).astype(int)
    pad = max(0, -x0, -y0, x1 - frame.shape[1], y1 - frame.shape[0])
    padded = np.pad(frame, ((pad, pad), (pad, pad), (0, 0)), mode="edge") if pad else frame
    return resize_image(padded[y0 + pad : y1 + pad, x0 + pad : x1 + pad], (SIDE, SIDE))


def _title(text: str) -> np.ndarray:
    cv2 = import_cv2()
    cell = np.full((SIDE, TITLE, 3), 255, np.uint8)
    place = (8, SIDE // 2 + 4)
    cv2.putText(cell, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (20, 20, 20), 1, cv2.LINE_AA)
    return cell
