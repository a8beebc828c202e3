"""The 512 px window around a person: the frame of all pixels of Live Speech Portraits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talkingface.data.dataprocess.lsp.drawing import WINDOW
from talkingface.utils.env import import_cv2

_FACE_SHARE = 0.40  # width of the face contour over that of the window
_BELOW_NOSE = 45  # px from the nose tip down to the centre of the window
_BLUR = 0.03  # of the surround, standard deviation over the side of the window
_CONTOUR, _NOSE = slice(0, 15), 64


@dataclass(frozen=True)
class Window:
    """``change_paras.npz``: the source is resized by ``scale``, then cropped around (xc, yc).

    A clip has one window; clips of a person that show the same set-up share theirs.
    """

    scale: float
    xc: int
    yc: int

    @classmethod
    def around(cls, landmarks: np.ndarray) -> Window:
        """The window of a clip from its points (T,73,2) in source pixels."""
        contour = landmarks[:, _CONTOUR, 0]
        width = np.ptp(contour, axis=1)
        scale = _FACE_SHARE * WINDOW / float(np.median(width))
        middle = (contour.max(axis=1) + contour.min(axis=1)) / 2
        xc = round(scale * float(np.median(middle)))
        yc = round(scale * float(np.median(landmarks[:, _NOSE, 1])) + _BELOW_NOSE)
        return cls(scale, xc, yc)

    def points(self, source: np.ndarray) -> np.ndarray:
        """Source pixels (..., 2) to window pixels."""
        return source * self.scale + (WINDOW / 2 - np.array([self.xc, self.yc]))

    def camera(self, focal: float, center: np.ndarray) -> np.ndarray:
        """(3,3) intrinsics of the window; focal length and principal point in source pixels."""
        x, y = self.points(np.asarray(center, np.float64))
        return np.array([[self.scale * focal, 0, x], [0, self.scale * focal, y], [0, 0, 1.0]])

    def bounds(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """px by which the window exceeds a source (width, height): top, bottom, left, right."""
        width, height = (int(side * self.scale) for side in size)
        half = WINDOW // 2
        return (
            max(0, half - self.yc),
            max(0, self.yc + half - height),
            max(0, half - self.xc),
            max(0, self.xc + half - width),
        )

    def padded_share(self, size: tuple[int, int]) -> float:
        """Share of the window's area that the source does not cover."""
        top, bottom, left, right = (min(side, WINDOW) for side in self.bounds(size))
        return 1 - max(0, WINDOW - top - bottom) * max(0, WINDOW - left - right) / WINDOW**2

    def cut(self, image: np.ndarray, size: int = WINDOW) -> np.ndarray:
        """Source (H,W,3) uint8 to window (size,size,3).

        Equals resize and crop of the official code, but resizes only the needed region. Outside the
        source the border pixels are repeated and blurred. The official code pads with black, and
        confuses the sizes of source and *resized* source there.
        """
        cv2 = import_cv2()
        factor = size / WINDOW * self.scale
        corner = (np.array([self.xc, self.yc]) - WINDOW / 2) / self.scale
        side = WINDOW / self.scale
        height, width = image.shape[:2]
        low = np.maximum(np.floor(corner).astype(int) - 2, 0)
        high = np.minimum(np.ceil(corner + side).astype(int) + 2, (width, height))
        result = np.zeros((size, size, 3), np.uint8)
        if (high <= low).any():
            return result
        part = image[low[1] : high[1], low[0] : high[0]]
        if factor < 0.5:  # first average whole pixels against aliasing
            shrink = int(1 / factor)
            small = (max(1, part.shape[1] // shrink), max(1, part.shape[0] // shrink))
            stretch = np.array(small) / part.shape[1::-1]
            part = cv2.resize(part, small, interpolation=cv2.INTER_AREA)
        else:
            stretch = np.ones(2)
        # Pixel centres: p of the window is at (p + 0.5) / factor + corner - 0.5 of the source.
        offset = 0.5 / factor + corner - low
        matrix = np.column_stack([np.diag(stretch / factor), offset * stretch - 0.5])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cv2.warpAffine(part, matrix, (size, size), result, flags, cv2.BORDER_REPLICATE)
        top, bottom, left, right = (round(s * size / WINDOW) for s in self.bounds((width, height)))
        if top or bottom or left or right:
            blurred = cv2.GaussianBlur(result, (0, 0), _BLUR * size)
            inside = np.s_[top : size - bottom, left : size - right]
            blurred[inside] = result[inside]
            return blurred
        return result
