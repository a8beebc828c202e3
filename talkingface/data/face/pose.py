"""Head pose by Procrustes to a fixed template; the canonical (pose-free) space and its inverse.

Coordinates: pixels of the picture with x to the right, y down and z toward the viewer, which is
MediaPipe's z with the sign flipped (official MODA code). Do not mix them with unflipped points.
"""

from __future__ import annotations

import numpy as np

from talkingface.data.face.series import smooth_runs
from talkingface.data.face.topology import EYE_LEFT, EYE_RIGHT, pose_template

EYE_DISTANCE = 120.0  # of the canonical face, in pixels of a 512 px square
# Of the template: the distance between the eye centres (means of the two 16-point lists), and the
# mean of vertices 50, 280 and 168, which is the anchor of the canonical space (official code).
_TEMPLATE_EYES = 1.160
_TEMPLATE_ANCHOR = np.array([0.000, 0.452, 0.166])
_ANCHOR = (50, 280, 168)


def flip_depth(landmarks: np.ndarray) -> np.ndarray:
    """Convert MediaPipe points (..., 3) to the coordinates of this module or back, float64."""
    return np.asarray(landmarks, np.float64) * (1.0, 1.0, -1.0)


def procrustes(
    source: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least-squares similarity transform without reflection (Umeyama 1991).

    Args:
        source: (..., N, 3) or (N, 3).
        target: (..., N, 3).
        weights: (N,) of the points; None: equal.

    Returns:
        scale (...), rotation (..., 3, 3) and translation (..., 3) with
        ``target ~ scale * rotation @ source + translation``.
    """
    share = None if weights is None else weights / weights.sum()
    a, b = (np.average(v, axis=-2, weights=share)[..., None, :] for v in (source, target))
    x, y = source - a, target - b
    if share is not None:
        root = np.sqrt(share)[:, None]
        x, y = x * root, y * root
    u, d, vt = np.linalg.svd(np.swapaxes(y, -1, -2) @ x)
    sign = np.ones(d.shape)
    sign[..., -1] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    rotation = (u * sign[..., None, :]) @ vt
    scale = (d * sign).sum(-1) / np.broadcast_to((x**2).sum((-1, -2)), d.shape[:-1])
    translation = b[..., 0, :] - scale[..., None] * (rotation @ a[..., 0, :, None])[..., 0]
    return scale, rotation, translation


def remove_pose(
    points: np.ndarray, scale: np.ndarray, rotation: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """Inverse of a similarity transform of :func:`procrustes`, for points (T,N,3)."""
    return (points - shift[:, None]) @ rotation / scale[:, None, None]


def orthonormal_axes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(3,3) rows: the direction of x, that of y at a right angle to x, and their cross product."""
    x = x / np.linalg.norm(x)
    y = y - x * (x @ y)
    y = y / np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)])


def face_center(width: int, height: int) -> np.ndarray:
    """Position of the canonical face in a picture, (3,): (256, 232, 128) for 512 x 512."""
    return np.array([width // 2, int(height / 2.2), width // 4], np.float64)


def head_pose(
    landmarks: np.ndarray,
    *,
    sigma: float = 1.0,
    segments: np.ndarray | None = None,
    canonical: str = "procrustes",
) -> np.ndarray:
    """Pose of the head in each frame (official code).

    Args:
        landmarks: (T,478,3) MediaPipe points in pixels, NaN where no face was found.
        sigma: standard deviation of the temporal smoothing in frames; 0: none.
        segments: (T,) labels that smoothing does not cross; see
            :func:`~talkingface.data.face.series.smooth_runs`.
        canonical: ``procrustes`` computes anchor and scale from the template fit (more stable);
            ``official`` from three vertices and the eyes, as the released code does.

    Returns:
        (T,7) float64: yaw, pitch, roll in degrees (unwrapped in time), anchor x, y, z in pixels,
        and the scale factor from pixels to the canonical size. NaN where there is no face.
        Yaw > 0: the nose points to the picture's left; pitch > 0: it points down; roll > 0: the eye
        at the picture's right is higher.
    """
    from scipy.spatial.transform import Rotation

    points = flip_depth(landmarks)
    known = np.isfinite(points).all(axis=(1, 2))
    pose = np.full((len(points), 7), np.nan)
    if not known.any():
        return pose
    points = points[known]
    vertices, template = pose_template()
    scale, rotation, shift = procrustes(template, points[:, vertices])
    if canonical == "official":
        anchor = points[:, _ANCHOR].mean(axis=1)
        rotated = (points - anchor[:, None]) @ rotation
        # The released code pairs MediaPipe's two eye lists, both in ascending order.
        left, right = rotated[:, sorted(EYE_RIGHT), 0], rotated[:, sorted(EYE_LEFT), 0]
        factor = EYE_DISTANCE / np.abs(left - right).mean(axis=1)
    else:
        anchor = scale[:, None] * (rotation @ _TEMPLATE_ANCHOR) + shift
        factor = EYE_DISTANCE / (scale * _TEMPLATE_EYES)
    inverse = Rotation.from_matrix(np.swapaxes(rotation, 1, 2))
    pitch, yaw, roll = inverse.as_euler("xyz", degrees=True).T
    angles = np.unwrap(np.stack([yaw, pitch, roll], axis=1), period=360, axis=0)
    pose[known] = np.concatenate([angles, anchor, factor[:, None]], axis=1)
    if sigma > 0:
        pose = smooth_runs(pose, sigma, segments)
        pose[~known] = np.nan
    return pose


def _rotation(pose: np.ndarray) -> np.ndarray:
    """(T,3,3) rotation into the canonical space."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", pose[:, [1, 0, 2]], degrees=True).as_matrix()


def canonicalize(points: np.ndarray, pose: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Remove the head pose: (T,V,3) points in this module's coordinates to canonical pixels.

    Args:
        pose: (T,7) of :func:`head_pose`, finite.
        center: (3,) of :func:`face_center`.
    """
    moved = points - pose[:, None, 3:6]
    return moved @ np.swapaxes(_rotation(pose), 1, 2) * pose[:, None, 6:7] + center


def decanonicalize(points: np.ndarray, pose: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Exact inverse of :func:`canonicalize`."""
    return (points - center) / pose[:, None, 6:7] @ _rotation(pose) + pose[:, None, 3:6]


def mean_shape(points: np.ndarray, vertices: np.ndarray, rounds: int = 10) -> np.ndarray:
    """Mean shape of all frames by generalised Procrustes analysis.

    Args:
        points: (T,V,3).
        vertices: indices of the vertices that align the frames.

    Returns:
        (V,3) in the orientation of the first frame; ``vertices`` have their mean at the origin and
        a root-mean-square radius of 1.
    """
    mean = points[0]
    for _ in range(rounds):
        scale, rotation, shift = procrustes(points[:, vertices], mean[vertices])
        aligned = scale[:, None, None] * (points @ np.swapaxes(rotation, 1, 2)) + shift[:, None]
        mean = aligned.mean(axis=0)
        mean = mean - mean[vertices].mean(axis=0)
        mean = mean / np.sqrt((mean[vertices] ** 2).sum(1).mean())
    return mean
