"""From MediaPipe's weak-perspective mesh to a head that moves in front of a real camera.

The result projects exactly onto the detected pixels at any focal length. Plain PnP does not: its
error only falls with longer focal lengths, and it turns faces away from the middle (ours).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talkingface.data.face.pose import mean_shape, procrustes
from talkingface.data.face.series import smooth_runs
from talkingface.data.face.topology import CHIN, FOREHEAD, STABLE

SCALE = 90.0  # camera units ("mm") per object unit, which is the distance of the outer eye corners
FOCAL_RATIO = 1.2  # default focal length / longer side of the frame (ours)
_ROUNDS = 3  # of each of the two alternations; the residual no longer changes after that


@dataclass(frozen=True)
class LiftedFace:
    """A face in a pinhole camera's space (x right, y down, z away), see :func:`lift`.

    Attributes:
        rotation: (T,3,3) object to camera; the object has y up and z toward the viewer, so its
            Euler x is near +-180 degrees.
        translation: (T,3) camera units.
        points: (T,478,3) object points in units of the outer eye distance.
        template: (478,3) mean object.
        focal: focal length in pixels.
        center: (2,) principal point in pixels, the middle of the frame.
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
        turned = points @ np.swapaxes(self.rotation, 1, 2)
        return self.scale * turned + self.translation[:, None]

    def project(self, points: np.ndarray | None = None) -> np.ndarray:
        """Object points (T,V,3) (default: all) in pixels, (T,V,2)."""
        camera = self.to_camera(points)
        return self.focal * camera[..., :2] / camera[..., 2:] + self.center

    def smoothed(
        self, *, rotation: float = 1.0, shift: float = 1.0, depth: float = 2.0,
        segments: np.ndarray | None = None,
    ) -> LiftedFace:  # fmt: skip
        """Smooth the pose over time; the points are lifted again, so the projection stays exact.

        The removed depth noise does not land in the points, as it would by solving back
        This choice is ours.

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
        turn = np.full_like(self.translation, np.nan)
        turn[known] = Rotation.from_matrix(self.rotation[known] @ first.T).as_rotvec()
        turn = smooth_runs(turn, rotation, segments)[known]
        place = np.concatenate(
            [
                smooth_runs(self.translation[:, :2], shift, segments)[known],
                smooth_runs(self.translation[:, 2:], depth, segments)[known],
            ],
            axis=1,
        )
        turned = Rotation.from_rotvec(turn).as_matrix() @ first
        points, rays = self.points[known], self._rays(known)
        distance = place[:, None, 2] + self.scale * (points @ turned[:, 2, :, None])[..., 0]
        points = (rays * distance[..., None] - place[:, None]) @ turned / self.scale
        result = {name: np.full_like(getattr(self, name), np.nan) for name in _PER_FRAME}
        for name, values in zip(_PER_FRAME, (turned, place, points), strict=True):
            result[name][known] = values
        return LiftedFace(
            **result,
            template=self.template,
            focal=self.focal,
            center=self.center,
            scale=self.scale,
        )

    def _rays(self, known: np.ndarray) -> np.ndarray:
        camera = self.to_camera()[known]
        return camera / camera[..., 2:]


_PER_FRAME = ("rotation", "translation", "points")


def lift(landmarks: np.ndarray, size: tuple[int, int], focal: float | None = None) -> LiftedFace:
    """Solve for the camera-space pose and shape of a clip (ours).

    Args:
        landmarks: (T,478,3) MediaPipe points in pixels of the frame, NaN where no face was found.
        size: width and height of the frame.
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
    # The last template turned the object's axes a little: solve once more in the final ones.
    _, rotation, _ = procrustes(template[stable], camera[:, stable])
    translation = camera[:, stable].mean(axis=1) - SCALE * rotation @ template[stable].mean(axis=0)
    points = (camera - translation[:, None]) @ rotation / SCALE

    def spread(values: np.ndarray) -> np.ndarray:
        result = np.full((len(landmarks), *values.shape[1:]), np.nan)
        result[known] = values
        return result

    return LiftedFace(
        spread(rotation), spread(translation), spread(points), template, focal, center
    )


def _oriented(shape: np.ndarray) -> np.ndarray:
    """Axes by eye corners (x) and chin to forehead (y), unit outer eye distance, centred."""
    x = shape[263] - shape[33]
    unit = np.linalg.norm(x)
    x = x / unit
    y = shape[FOREHEAD] - shape[CHIN]
    y = y - x * (x @ y)
    y = y / np.linalg.norm(y)
    axes = np.stack([x, y, np.cross(x, y)])
    return (shape - shape[list(STABLE)].mean(axis=0)) @ axes.T / unit


def resample_motion(values: np.ndarray, fps: float, target_fps: float) -> np.ndarray:
    """Motion at another rate by PCHIP: no stair-case, no overshoot (ours).

    Args:
        values: (T, ...) finite values at frame times k / fps.

    Returns:
        (round(T * target_fps / fps), ...); times behind the last frame repeat it.
    """
    from scipy.interpolate import PchipInterpolator

    count = round(len(values) * target_fps / fps)
    if len(values) < 2:
        return np.repeat(values[:1], count, axis=0)
    times = np.minimum(np.arange(count) / target_fps, (len(values) - 1) / fps)
    return PchipInterpolator(np.arange(len(values)) / fps, values, axis=0)(times)
