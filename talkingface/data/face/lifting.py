"""Conversion of MediaPipe's weak-perspective mesh to a head in front of a pinhole camera.

The result projects exactly onto the detected pixels at any focal length. Plain PnP does not: its
error only falls with longer focal lengths, and it rotates faces that are off the image centre.
Source: this toolkit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from talkingface.data.face.pose import mean_shape, orthonormal_axes, procrustes
from talkingface.data.face.series import smooth_runs
from talkingface.data.face.topology import CHIN, FOREHEAD, STABLE

SCALE = 90.0  # camera units ("mm") per object unit, which is the distance of the outer eye corners
FOCAL_RATIO = 1.2  # default focal length / longer side of the frame
_ROUNDS = 3  # iterations of each of the two nested loops; more do not change the residual


@dataclass(frozen=True)
class LiftedFace:
    """A face in the coordinates of a pinhole camera (x right, y down, z away), see :func:`lift`.

    Attributes:
        rotation: (T,3,3) object to camera; the object has y up and z toward the viewer, so its
            Euler x is near +-180 degrees.
        translation: (T,3) camera units.
        points: (T,478,3) object points in units of the outer eye distance.
        template: (478,3) mean of the object points.
        focal: focal length in pixels.
        center: (2,) principal point in pixels, the centre of the frame.
        scale: camera units per object unit.
    """

    rotation: np.ndarray
    translation: np.ndarray
    points: np.ndarray
    template: np.ndarray
    focal: float
    center: np.ndarray
    scale: float = SCALE

    def to_camera(self, points: np.ndarray | None = None) -> np.ndarray:
        """Object points (T,V,3) (default: all) in camera units."""
        points = self.points if points is None else points
        rotated = points @ np.swapaxes(self.rotation, 1, 2)
        return self.scale * rotated + self.translation[:, None]

    def project(self, points: np.ndarray | None = None) -> np.ndarray:
        """Object points (T,V,3) (default: all) in pixels, (T,V,2)."""
        camera = self.to_camera(points)
        return self.focal * camera[..., :2] / camera[..., 2:] + self.center

    def smoothed(
        self, *, rotation: float = 1.0, shift: float = 1.0, depth: float = 2.0,
        segments: np.ndarray | None = None,
    ) -> LiftedFace:  # fmt: skip
        """Smooth the pose over time; the points are lifted again, so the projection stays exact.

        They are computed from the camera rays and the smoothed depth. Inverting the smoothed pose
        on the camera points instead would move the removed depth noise into the points.

        Args:
            rotation, shift, depth: standard deviations in frames for the rotation, for x and y,
                and for the distance.
            segments: (T,) labels that smoothing does not cross.
        """
        from scipy.spatial.transform import Rotation

        known = np.isfinite(self.translation).all(axis=1)
        if not known.any():
            return self
        first = self.rotation[known][0]
        vectors = Rotation.from_matrix(self.rotation[known] @ first.T).as_rotvec()
        vectors = smooth_runs(_with_gaps(vectors, known), rotation, segments)[known]
        rotations = Rotation.from_rotvec(vectors).as_matrix() @ first
        xy = smooth_runs(self.translation[:, :2], shift, segments)
        z = smooth_runs(self.translation[:, 2:], depth, segments)
        translation = np.concatenate([xy, z], axis=1)[known]
        points, camera = self.points[known], self.to_camera()[known]
        rays = camera / camera[..., 2:]
        distance = z[known] + self.scale * (points @ rotations[:, 2, :, None])[..., 0]
        points = (rays * distance[..., None] - translation[:, None]) @ rotations / self.scale
        return replace(
            self,
            rotation=_with_gaps(rotations, known),
            translation=_with_gaps(translation, known),
            points=_with_gaps(points, known),
        )


def _with_gaps(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Values of the ``known`` frames in an array of all frames, NaN elsewhere."""
    result = np.full((len(known), *values.shape[1:]), np.nan)
    result[known] = values
    return result


def lift(landmarks: np.ndarray, size: tuple[int, int], focal: float | None = None) -> LiftedFace:
    """Solve for the pose and shape of a clip in camera space.

    Args:
        landmarks: (T,478,3) MediaPipe points in pixels of the frame, NaN where no face was found.
        size: width and height of the frame in pixels.
        focal: focal length in pixels; None: 1.2 times the longer side.

    Returns:
        The face; frames without landmarks are NaN.

    Raises:
        ValueError: no frame has landmarks.
    """
    known = np.isfinite(landmarks).all(axis=(1, 2))
    if not known.any():
        raise ValueError("lift: no frame has landmarks")
    focal = FOCAL_RATIO * max(size) if focal is None else float(focal)
    center = np.array(size, np.float64) / 2
    marks = landmarks[known].astype(np.float64)
    stable = np.array(STABLE)
    weak = marks * (1.0, -1.0, -1.0)
    template = _oriented(mean_shape(weak, stable))
    sigma, _, _ = procrustes(template[stable], weak[:, stable])
    rays = np.concatenate([(marks[..., :2] - center) / focal, np.ones((*marks.shape[:2], 1))], -1)
    relative = (marks[..., 2] - marks[:, stable, 2].mean(axis=1, keepdims=True)) / focal
    distance = focal * SCALE / sigma
    for _ in range(_ROUNDS):
        for _ in range(_ROUNDS):
            camera = rays * (distance[:, None] * (1 + relative))[..., None]
            scale, rotation, _ = procrustes(template[stable], camera[:, stable])
            distance = distance * SCALE / scale
        camera = rays * (distance[:, None] * (1 + relative))[..., None]
        _, rotation, _ = procrustes(template[stable], camera[:, stable])
        origin = SCALE * rotation @ template[stable].mean(axis=0)
        translation = camera[:, stable].mean(axis=1) - origin
        points = (camera - translation[:, None]) @ rotation / SCALE
        template = _oriented(points.mean(axis=0))
    # The last template has slightly rotated axes: solve once more with it.
    _, rotation, _ = procrustes(template[stable], camera[:, stable])
    translation = camera[:, stable].mean(axis=1) - SCALE * rotation @ template[stable].mean(axis=0)
    points = (camera - translation[:, None]) @ rotation / SCALE
    per_frame = (_with_gaps(values, known) for values in (rotation, translation, points))
    return LiftedFace(*per_frame, template, focal, center)


def _oriented(shape: np.ndarray) -> np.ndarray:
    """Align x with the outer eye corners and y with chin to forehead; unit eye distance; centre."""
    x = shape[263] - shape[33]
    axes = orthonormal_axes(x, shape[FOREHEAD] - shape[CHIN])
    return (shape - shape[list(STABLE)].mean(axis=0)) @ axes.T / np.linalg.norm(x)


def resample_motion(values: np.ndarray, fps: float, target_fps: float) -> np.ndarray:
    """Resample finite values (T, ...) by PCHIP interpolation: smooth, without overshoot.

    Returns:
        (round(T * target_fps / fps), ...); times after the last frame repeat its values.
    """
    from scipy.interpolate import PchipInterpolator

    count = round(len(values) * target_fps / fps)
    if len(values) < 2:
        return np.repeat(values[:1], count, axis=0)
    times = np.minimum(np.arange(count) / target_fps, (len(values) - 1) / fps)
    return PchipInterpolator(np.arange(len(values)) / fps, values, axis=0)(times)
