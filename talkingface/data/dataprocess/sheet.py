"""Contact sheet of a clip: frames with landmarks, and a plot of sound and mouth opening."""

from __future__ import annotations

import numpy as np

from talkingface.data.face.topology import SKETCH_EDGES
from talkingface.data.face.tracking import FaceTrack
from talkingface.data.quality import RATE, mouth_opening
from talkingface.utils.env import import_cv2

COUNT, _HEIGHT, _MAX_WIDTH = 6, 150, 200  # number of frames, and their size in pixels
_PLOT = 80  # height of the plot in pixels
_FACE, _BOX, _MOUTH = (90, 255, 90), (255, 210, 60), (230, 60, 60)  # R, G, B
_WAVE, _CUT = (150, 170, 200), (60, 60, 230)


def sheet_frames(track: FaceTrack) -> list[int]:
    """Indices of the frames on the sheet: evenly spaced, and one without a face if there is any."""
    count = len(track)
    chosen = np.unique(np.linspace(0, count - 1, COUNT).round().astype(int))
    missing = np.flatnonzero(~track.found)
    if len(missing) and track.found[chosen].all():
        chosen[np.abs(chosen - missing[len(missing) // 2]).argmin()] = missing[len(missing) // 2]
    return sorted(set(chosen.tolist()))


def picture(frame: np.ndarray, track: FaceTrack, index: int) -> np.ndarray:
    """One frame of the sheet, cropped and resized, with mesh and face box: (150,W,3) uint8 RGB."""
    cv2 = import_cv2()
    height, width = frame.shape[:2]
    # Crop around the face: at most three face heights, and not wider than the sheet allows.
    high = min(height, round(3 * float(np.median(track.boxes[:, 3] - track.boxes[:, 1]))))
    high = max(high, min(height, 16))
    wide = min(width, round(high * _MAX_WIDTH / _HEIGHT))
    middle = track.boxes[index].reshape(2, 2).mean(axis=0)
    corner = np.clip(middle - (wide / 2, high / 2), 0, (width - wide, height - high))
    view = np.rint(corner).astype(int)
    frame = frame[view[1] : view[1] + high, view[0] : view[0] + wide]
    scale = _HEIGHT / high
    size = (round(frame.shape[1] * scale), _HEIGHT)
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    if track.found[index]:
        points = np.rint((track.landmarks[index, :, :2] - view) * scale).astype(int)
        for a, b in SKETCH_EDGES:
            cv2.line(small, points[a].tolist(), points[b].tolist(), _FACE, 1, cv2.LINE_AA)
        box = np.rint((track.boxes[index].reshape(2, 2) - view) * scale).astype(int)
        cv2.rectangle(small, box[0].tolist(), box[1].tolist(), _BOX, 1)
    else:
        cv2.line(small, (0, 0), (size[0] - 1, _HEIGHT - 1), _MOUTH, 1, cv2.LINE_AA)
    cv2.putText(small, str(index), (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1)
    return small


def contact_sheet(
    pictures: list[np.ndarray], track: FaceTrack, wave: np.ndarray, fps: float
) -> np.ndarray:
    """The sheet: pictures, and below them the sound (blue) and the mouth opening (red).

    Args:
        pictures: of :func:`picture`.
        wave: (N,) float, 16 kHz.

    Returns:
        (230,W,3) uint8 RGB. Vertical blue lines are scene cuts; the red line is interrupted where
        no face was found.
    """
    cv2 = import_cv2()
    row = np.concatenate(pictures, axis=1)
    width = row.shape[1]
    plot = np.full((_PLOT, width, 3), 250, np.uint8)
    seconds = max(len(track) / fps, 1e-6)
    edges = np.linspace(0, seconds * RATE, width + 1).astype(int)
    peak = max(float(np.abs(wave).max(initial=0.0)), 1e-3)
    for column in range(width):
        part = wave[edges[column] : max(edges[column + 1], edges[column] + 1)]
        if len(part):
            high = int(np.abs(part).max() / peak * (_PLOT / 2 - 2))
            plot[_PLOT // 2 - high : _PLOT // 2 + high + 1, column] = _WAVE
    for cut in track.cuts:
        plot[:, min(int(cut / fps / seconds * width), width - 1)] = _CUT
    opening = mouth_opening(track.landmarks)
    known = np.isfinite(opening)
    low, high = np.nanpercentile(opening, [1, 99])
    heights = _PLOT - 4 - (opening - low) / max(high - low, 0.02) * (_PLOT - 8)
    columns = (np.arange(len(track)) + 0.5) / fps / seconds * width
    for index in range(1, len(track)):
        if known[index - 1] and known[index]:
            ends = [(int(columns[i]), int(np.clip(heights[i], 0, _PLOT - 1)))
                    for i in (index - 1, index)]  # fmt: skip
            cv2.line(plot, *ends, _MOUTH, 1, cv2.LINE_AA)
    return np.concatenate([row, plot], axis=0)
