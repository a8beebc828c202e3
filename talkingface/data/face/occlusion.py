"""Finding frames in which something covers the mouth, by the colours of the skin around it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from talkingface.data.face.series import runs
from talkingface.utils.env import import_cv2

# Mesh points on chin, cheeks and upper lip, which speech moves but hardly changes in colour.
SKIN = (199, 200, 18, 83, 313, 201, 421, 32, 262, 208, 428, 57, 287, 43, 273, 106, 335, 204, 424,
        202, 422, 212, 432, 214, 434, 216, 436, 206, 426, 205, 425, 92, 322, 186, 410, 164, 167,
        393, 165, 391)  # fmt: skip
_SIDE = 64  # px of the face from which colours are taken
_DARK = 12.0  # grey levels added before a quotient, so that dark noise has no weight
# Least change of a covered point: a share of its colour, and a multiple of its usual changes.
_CHANGE, _SPREADS = 0.15, 5.0
# Of the points that have changed in a covered frame: at most 0.12 in 25 clips of people who speak,
# at least 0.2 in each frame of one whose mouth is partly covered.
_SHARE = 0.2
_MOMENT = 0.12  # s between covered frames that count as covered too; like the next, not measured
_LONGEST, _SHORTEST = 4.0, 1.0  # s of a covered stretch, and of a shot in which one is looked for


def skin_colours(frame: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Colours around the mouth: (P,3) uint8 RGB at ``SKIN``.

    Args:
        frame: (H,W,3) uint8 RGB.
        face: (478,3) px.
    """
    low, high = np.floor(face[:, :2].min(0)).astype(int), np.ceil(face[:, :2].max(0)).astype(int)
    low, high = np.maximum(low, 0), np.minimum(high, frame.shape[1::-1])
    if (high - low < 2).any():
        return np.zeros((len(SKIN), 3), np.uint8)
    crop = frame[low[1] : high[1], low[0] : high[0]]
    cv2 = import_cv2()
    small = cv2.resize(crop, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    places = ((face[list(SKIN), :2] - low) * (_SIDE / (high - low))).astype(int)
    columns, rows = np.clip(places, 0, _SIDE - 1).T
    return small[rows, columns]


def covered(colours: np.ndarray, cuts: Sequence[int], fps: float) -> np.ndarray:
    """Frames whose skin around the mouth has other colours than usual.

    Colours are compared with their median over the shot, after the change that all points share
    (light). What lasts for more than 4 s is not found: the light, or the person's position, has
    changed.

    Args:
        colours: (T,P,3), NaN where no face was found.
        cuts: first frames after scene cuts.

    Returns:
        (T,) bool. Frames without a face beside a covered one count as covered: a hand may hide the
        face from the detector.
    """
    result = np.zeros(len(colours), bool)
    known = np.isfinite(colours).all(axis=(1, 2))
    for start, stop in pairwise((0, *cuts, len(colours))):
        seen = start + np.flatnonzero(known[start:stop])
        if len(seen) < _SHORTEST * fps:
            continue
        logs = np.log(colours[seen] + _DARK)
        logs = logs - np.median(logs, axis=0)
        logs = np.abs(logs - np.median(logs, axis=1, keepdims=True)).max(axis=-1)
        limit = np.maximum(_CHANGE, _SPREADS * np.median(logs, axis=0))
        result[seen] = (logs > limit).mean(axis=1) >= _SHARE
    for start, stop in runs(known):
        if not known[start] and result[[max(start - 1, 0), min(stop, len(result) - 1)]].any():
            result[start:stop] = True
    for start, stop in runs(result):
        inside = 0 < start and stop < len(result)
        if not result[start] and inside and stop - start <= _MOMENT * fps:
            result[start:stop] = True
    for start, stop in runs(result):
        if stop - start > _LONGEST * fps:
            result[start:stop] = False
    return result
