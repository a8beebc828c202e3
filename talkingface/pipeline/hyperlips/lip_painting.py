"""Lip-only painting: of a generated face only the lips and what is between them are used."""

from __future__ import annotations

import numpy as np

from talkingface.data.face.align import crop_rows
from talkingface.data.face.boxes import resize_image
from talkingface.data.face.mesh import FaceMesher
from talkingface.data.face.sketches import DETECTION_SIZE
from talkingface.data.face.topology import CHIN, LIPS
from talkingface.pipeline.compose import Blending, Box, place_mouth
from talkingface.utils.env import import_cv2

_NOSE = (4, 98, 327)
_LIP_ROWS, _NOSE_ROWS = crop_rows(LIPS), crop_rows(_NOSE)
(_CHIN_ROW,) = crop_rows((CHIN,))


def paint_lips(
    mesher: FaceMesher,
    frame: np.ndarray,
    face: np.ndarray,
    box: Box,
    points: np.ndarray,
    blending: Blending,
) -> np.ndarray:
    """A frame with the lips of a generated face; chin and cheeks are bent to fit them.

    Args:
        mesher: finds the lips of the generated face. Where it finds none, they are taken to be
            where those of the frame are.
        frame: (H,W,3) uint8 RGB.
        face: (h,w,3) uint8 RGB, the generated crop in the size of ``box``.
        box: of the crop in the frame, px.
        points: (K,2) ``CROP_POINTS`` of the frame in px from the corner of the box.

    Returns:
        (H,W,3) uint8 RGB.
    """
    corner = np.array(box[:2])
    scale = DETECTION_SIZE / max(face.shape[:2])
    small = resize_image(face, (round(face.shape[1] * scale), round(face.shape[0] * scale)))
    found = mesher(small)
    lips, drop = points[_LIP_ROWS], np.zeros(2)
    if len(found):
        mesh = found[0][:, :2] / (small.shape[1] / face.shape[1], small.shape[0] / face.shape[0])
        # The detector places faces in crops and in frames slightly differently.
        mesh = mesh + (points[_NOSE_ROWS] - mesh[list(_NOSE)]).mean(0)
        lips, drop = mesh[list(LIPS)], mesh[CHIN] - points[_CHIN_ROW]

    def pixels(part: Box) -> np.ndarray:
        x0, y0, x1, y1 = np.subtract(part, (*corner, *corner))
        rows = np.clip(np.arange(y0, y1), 0, len(face) - 1)
        columns = np.clip(np.arange(x0, x1), 0, face.shape[1] - 1)
        return face[rows[:, None], columns]

    return place_mouth(frame, points + corner, lips + corner, drop, pixels, blending)


def enlarged(face: np.ndarray, width: int, height: int) -> np.ndarray:
    """A crop (S,S,3) in the size of its box, with little blur."""
    cv2 = import_cv2()
    if face.shape[:2] == (height, width):
        return face
    method = cv2.INTER_AREA if face.shape[0] > height else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(face), (width, height), interpolation=method)
