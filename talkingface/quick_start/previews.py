"""Side-by-side preview videos: every row of the table with its title and the enlarged mouth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from talkingface.data.clips import Clip
from talkingface.data.face.boxes import landmark_box, resize_image
from talkingface.data.face.series import fill_gaps, smooth
from talkingface.data.face.topology import LIPS_OUTER
from talkingface.data.face.tracking import video_landmarks
from talkingface.data.media.audio import load_audio
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import read_frames
from talkingface.data.media.writer import VideoWriter
from talkingface.utils.env import import_cv2

PANEL = 256  # height of a panel, in pixels
TITLE = 24  # height of its title bar, in pixels


def _titled(image: np.ndarray, title: str) -> np.ndarray:
    cv2 = import_cv2()
    bar = np.full((TITLE, image.shape[1], 3), 24, np.uint8)
    cv2.putText(
        bar, title, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (235, 235, 235), 1, cv2.LINE_AA
    )
    return np.concatenate([bar, image])


def mouth_boxes(path: Path, fps: float) -> np.ndarray | None:
    """(T,4) square boxes around the mouth, of constant size; None without a face."""
    points = video_landmarks(path, fps=fps, tracking=True)[:, list(LIPS_OUTER)]
    if not np.isfinite(points).all(axis=(1, 2)).any():
        return None
    filled = fill_gaps(points)
    boxes = np.stack([landmark_box(frame, scale=1.6) for frame in filled])
    centre = smooth((boxes[:, :2] + boxes[:, 2:]) / 2, 0.3 * fps)
    half = np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1)) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def write_preview(path: Path, videos: dict[str, Path], clip: Clip, fps: float) -> None:
    """Write the rows of the table side by side, each above its mouth, with the clip's audio.

    Args:
        videos: title -> video; missing files are skipped.
    """
    titles = [title for title, file in videos.items() if file.exists()]
    if not titles:
        return
    boxes = mouth_boxes(clip.path, fps)
    streams = [read_frames(videos[title], fps=fps) for title in titles]
    audio = (load_audio(clip.audio), 16000)
    with VideoWriter(path, fps, audio=audio) as writer:
        for index, frames in enumerate(zip(*streams, strict=False)):
            panels = []
            for title, frame in zip(titles, frames, strict=True):
                width = max(2, round(frame.shape[1] * PANEL / frame.shape[0]))
                panel = resize_image(frame, (width, PANEL))
                if boxes is not None and index < len(boxes):
                    x0, y0, x1, y1 = np.round(boxes[index]).astype(int)
                    x0, y0 = max(x0, 0), max(y0, 0)
                    mouth = frame[y0 : max(y1, y0 + 2), x0 : max(x1, x0 + 2)]
                    side = min(PANEL // 2, width)
                    canvas = np.zeros((PANEL // 2, width, 3), np.uint8)
                    canvas[:side, (width - side) // 2 :][:, :side] = resize_image(mouth, side)
                    panel = np.concatenate([panel, canvas])
                panels.append(_titled(panel, title))
            writer.write(np.concatenate(panels, axis=1))


def write_mouth(path: Path, video: Path) -> bool:
    """Write the mouth of a video, enlarged, with its sound; False without a face."""
    info = probe(video)
    boxes = mouth_boxes(video, info.fps)
    if boxes is None:
        return False
    audio = (load_audio(video), 16000) if info.has_audio else None
    with VideoWriter(path, info.fps, audio=audio) as writer:
        for frame, box in zip(read_frames(video), boxes, strict=False):
            x0, y0, x1, y1 = np.maximum(np.round(box).astype(int), 0)
            writer.write(resize_image(frame[y0 : max(y1, y0 + 2), x0 : max(x1, x0 + 2)], PANEL))
    return True
