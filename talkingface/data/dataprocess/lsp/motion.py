"""Motion of Live Speech Portraits: points, head pose, projection and post-processing.

All functions take whole sequences at 60 Hz. Points are in object coordinates: x to the right of the
picture, y up, z toward the camera, in units of the outer eye distance (official code).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

# Indices into the 73 points (official code).
MOUTH25 = (*range(4, 11), *range(46, 64))  # chin contour and lips, predicted by Audio2Feature
LIPS = tuple(range(46, 64))
EYES = (27, 65, 28, 68, 29, 67, 30, 66, 31, 72, 32, 69, 33, 70, 34, 71)
UPPER_LIP = (*range(46, 53), 61, 62, 63)
LOWER_LIP = tuple(range(53, 61))
# From left to right in the picture: points of the same place form vertical pairs.
_UPPER_OUTER, _LOWER_OUTER = (47, 48, 49, 50, 51), (57, 56, 55, 54, 53)
_UPPER_INNER, _LOWER_INNER = (63, 62, 61), (58, 59, 60)
INNER_TOP, INNER_BOTTOM = 62, 59

N_POINTS = 73


# -- pose ------------------------------------------------------------------------------------------


def euler_to_matrix(angles: np.ndarray) -> np.ndarray:
    """Degrees (..., 3) about x, y, z -> rotation Rz Ry Rx (..., 3, 3)."""
    from scipy.spatial.transform import Rotation

    angles = np.asarray(angles, np.float64)
    turn = Rotation.from_euler("xyz", angles.reshape(-1, 3), degrees=True)
    return turn.as_matrix().reshape(*angles.shape[:-1], 3, 3)


def matrix_to_euler(rotation: np.ndarray) -> np.ndarray:
    """Inverse of :func:`euler_to_matrix`; x is in (-180, 180]."""
    x = np.arctan2(rotation[..., 2, 1], rotation[..., 2, 2])
    y = np.arcsin(np.clip(-rotation[..., 2, 0], -1, 1))
    z = np.arctan2(rotation[..., 1, 0], rotation[..., 0, 0])
    return np.degrees(np.stack([x, y, z], axis=-1))


def pose_vectors(angles: np.ndarray, trans: np.ndarray, mean_trans: np.ndarray) -> np.ndarray:
    """Targets of Audio2Headpose (N,12): six pose values and their change since the last frame.

    Args:
        angles: (N,3) degrees; x near +-180 becomes centred at 0.
        trans: (N,3) camera units.
        mean_trans: (3,) of the person, subtracted.
    """
    angles = np.array(angles, np.float64)
    angles[:, 0] = np.where(angles[:, 0] < 0, angles[:, 0] + 360, angles[:, 0]) - 180
    pose = np.concatenate([angles, trans - mean_trans], axis=1)
    velocity = np.diff(pose, axis=0, prepend=pose[:1])
    return np.concatenate([pose, velocity], axis=1).astype(np.float32)


def project(
    points: np.ndarray, angles: np.ndarray, trans: np.ndarray, scale: float, camera: np.ndarray
) -> np.ndarray:
    """Project object points to pixels (official code).

    Args:
        points: (N,73,3).
        angles: (N,3) degrees, x near +-180.
        trans: (N,3) camera units.
        scale: camera units per object unit.
        camera: (3,3) intrinsic matrix.

    Returns:
        (N,73,2).
    """
    turned = points @ np.swapaxes(euler_to_matrix(angles), -1, -2)
    return project_camera(scale * turned + np.asarray(trans)[:, None], camera)


def project_camera(points: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Camera-space points (..., 3) to pixels (..., 2)."""
    flat = points @ camera.T
    return flat[..., :2] / flat[..., 2:]


# -- smoothing -------------------------------------------------------------------------------------


def smooth_motion(values: np.ndarray, sigma: float, *, causal: bool = False) -> np.ndarray:
    """Smooth over time (axis 0) with a Gaussian, mirrored at the ends (official code).

    Args:
        sigma: standard deviation in frames; 0: none.
        causal: use past frames only, with the past half of the Gaussian.
    """
    if sigma <= 0 or not len(values):
        return values
    if not causal:
        from scipy.ndimage import gaussian_filter1d

        return gaussian_filter1d(values, sigma, axis=0)
    weights = causal_weights(sigma)
    padded = np.concatenate([np.repeat(values[:1], len(weights) - 1, axis=0), values])
    result = np.zeros(values.shape, np.float64)
    for back, weight in enumerate(weights):
        start = len(weights) - 1 - back
        result += weight * padded[start : start + len(values)]
    return result


def causal_weights(sigma: float) -> np.ndarray:
    """Weights of the present value and of the past ones, latest first."""
    past = np.arange(int(4 * sigma + 0.5) + 1)
    weights = np.exp(-0.5 * (past / sigma) ** 2)
    return weights / weights.sum()


# -- mouth -----------------------------------------------------------------------------------------

# Methods and their numbers of factors.
AMPLIFIERS = {"XY": 2, "XYZ": 3, "delta": 1, "LowerMore": 6, "CloseSmall": 6}


def check_amplifier(method: str, factors: tuple[float, ...]) -> str:
    """Error message for invalid arguments of :func:`amplify_mouth`; empty if they are valid."""
    if method not in AMPLIFIERS:
        return f"the method {method!r} is unknown; choose from {', '.join(AMPLIFIERS)}"
    if len(factors) != AMPLIFIERS[method]:
        return f"{method} takes {AMPLIFIERS[method]} factors, not {len(factors)}"
    return ""


def amplify_mouth(
    moves: np.ndarray, method: str, factors: tuple[float, ...], before: np.ndarray | None = None
) -> np.ndarray:
    """Amplify the movement of the 18 lip points (official code).

    Movements predicted with an L2 loss are too small; the released people use ``XYZ``, 1.5 to 2.

    Args:
        moves: (N,73,3) displacements from the mean face.
        method: meaning of the factors. ``XY``: x and y; ``XYZ``: all three; ``delta``: adds a
            factor times the change since the last frame; ``LowerMore``: x, y, z of the upper, then
            of the lower lip; ``CloseSmall``: x, y, z of frames with an opening mouth, then of the
            others.
        before: (73,3) displacements of the frame before the first, for ``delta``.
    """
    result = np.array(moves)
    if method in ("XY", "XYZ"):
        result[:, LIPS, : len(factors)] *= factors
    elif method == "delta":
        first = moves[:1] if before is None else before[None]
        result[:, LIPS] += factors[0] * np.diff(moves[:, LIPS], axis=0, prepend=first[:, LIPS])
    elif method == "LowerMore":
        result[:, UPPER_LIP] *= factors[:3]
        result[:, LOWER_LIP] *= factors[3:]
    else:
        # A mouth opens if most points of the upper lip are above, of the lower lip below their
        # mean. Here each frame is scaled once; the official code scales all frames once per
        # closing frame.
        up = (moves[:, UPPER_LIP, 1] > 0).sum(axis=1) + (moves[:, LOWER_LIP, 1] < 0).sum(axis=1)
        opens = up > len(LIPS) / 2
        chosen = np.where(opens[:, None], factors[:3], factors[3:])
        result[:, LIPS] *= chosen[:, None]
    return result


def repair_lips(points: np.ndarray) -> np.ndarray:
    """Separate lips that cross each other, in frames in which all inner pairs are flipped.

    The inner lips are moved to the middle between them, the outer lips by the mean of that shift
    (per frame; the official code takes the mean over all such frames).

    Args:
        points: (N,73,3) object points.
    """
    result = np.array(points)
    gap = points[:, _LOWER_INNER, 1] - points[:, _UPPER_INNER, 1]
    flipped = (gap > 0).all(axis=1)
    half = gap[flipped] / 2
    for upper, lower, shift in (
        (_UPPER_INNER, _LOWER_INNER, half),
        (_UPPER_OUTER, _LOWER_OUTER, half.mean(axis=1, keepdims=True)),
    ):
        rows = np.flatnonzero(flipped)[:, None]
        result[rows, np.array(upper), 1] += shift
        result[rows, np.array(lower), 1] -= shift
    return result


@dataclass(frozen=True)
class Motion:
    """Motion at 60 Hz in the 512 px window.

    Attributes:
        landmarks: (N,73,2) pixels.
        shoulders: (N,18,2) pixels, NaN on a side that is not drawn.
        points: (N,73,3) object points.
        pose: (N,6) angles in degrees (x near +-180) and translation.
    """

    landmarks: np.ndarray
    shoulders: np.ndarray
    points: np.ndarray
    pose: np.ndarray

    def __len__(self) -> int:
        return len(self.landmarks)

    def at(self, rows: slice) -> Motion:
        """The chosen frames."""
        return Motion(*(getattr(self, f.name)[rows] for f in fields(self)))

    def followed_by(self, other: Motion) -> Motion:
        """Both, one after the other."""
        parts = ((getattr(m, f.name) for m in (self, other)) for f in fields(self))
        return Motion(*(np.concatenate(list(pair)) for pair in parts))
