"""Conversion of MediaPipe's weak-perspective mesh to a head in front of a pinhole camera.

The result projects exactly onto the detected pixels at any focal length. Plain PnP does not: its
error only falls with longer focal lengths, and it rotates faces that are off the image centre.
Source: this toolkit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from talkingface.data.face.pose import mean_shape, orthonormal_axes, procrustes
from talkingface.data.face.series import smooth
from talkingface.data.face.topology import CHIN, FOREHEAD, STABLE

SCALE = 90.0  # camera units ("mm") per object unit, which is the distance of the outer eye corners
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

    def to_camera(self) -> np.ndarray:
        """The points (T,478,3) in camera units."""
        rotated = self.points @ np.swapaxes(self.rotation, 1, 2)
        return self.scale * rotated + self.translation[:, None]

    def smoothed(
        self, *, rotation: float = 1.0, shift: float = 1.0, depth: float = 2.0
    ) -> LiftedFace:
        """Smooth the pose over time; the points are lifted again, so the projection stays exact.

        They are computed from the camera rays and the smoothed depth. Inverting the smoothed pose
        on the camera points instead would move the removed depth noise into the points.

        Args:
            rotation, shift, depth: standard deviations in frames for the rotation, for x and y,
                and for the distance.
        """
        from scipy.spatial.transform import Rotation

        first = self.rotation[0]
        vectors = Rotation.from_matrix(self.rotation @ first.T).as_rotvec()
        rotations = Rotation.from_rotvec(smooth(vectors, rotation)).as_matrix() @ first
        xy, z = smooth(self.translation[:, :2], shift), smooth(self.translation[:, 2:], depth)
        translation = np.concatenate([xy, z], axis=1)
        camera = self.to_camera()
        rays = camera / camera[..., 2:]
        distance = z + self.scale * (self.points @ rotations[:, 2, :, None])[..., 0]
        points = (rays * distance[..., None] - translation[:, None]) @ rotations / self.scale
        return replace(self, rotation=rotations, translation=translation, points=points)


def lift(landmarks: np.ndarray, size: tuple[int, int], focal: float) -> LiftedFace:
    """Solve for the pose and shape of a clip in camera space.

    Args:
        landmarks: (T,478,3) MediaPipe points in pixels of the frame, finite.
        size: width and height of the frame in pixels.
        focal: focal length in pixels.
    """
    center = np.array(size, np.float64) / 2
    marks = landmarks.astype(np.float64)
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
    return LiftedFace(rotation, translation, points, template, focal, center)


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
