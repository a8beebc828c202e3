"""Pictures of one person."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from talkingface.data.synthetic import raster, shading
from talkingface.data.synthetic.head import (
    EXPRESSIONS,
    EYE_LEFT,
    EYE_RIGHT,
    TONGUE,
)

FIELD = 31.0  # cm that the picture shows at the face
DISTANCE = 68.0  # cm from the camera to the face
PIVOT = np.array([0, -5.5, -1.0], np.float32)
# Heights in cm between which head and shirt bend.
NECK, SHIRT = (-14.5, -7.0), (-16.0, -5.0)
SHADOW_SIZE, SHADOW_REACH = 256, 19.0
# Roughness, reflection, gloss and reach of light around the edge (R, G, B) of each material.
SURFACE = np.array([
    (0.5, 0.028, 1.0, 0.36, 0.16, 0.08),  # skin
    (0.28, 0.03, 0.7, 0.4, 0.2, 0.15),  # mouth
    (0.5, 0.028, 0.5, 0.3, 0.15, 0.1),  # eye socket
    (0.28, 0.03, 0.7, 0.4, 0.2, 0.15),  # tongue
    (0.13, 0.03, 1.0, 0.25, 0.2, 0.2), (0.13, 0.03, 1.0, 0.25, 0.2, 0.2),  # eyes
    (0.22, 0.045, 0.8, 0.3, 0.25, 0.2),  # teeth
    (0.28, 0.03, 0.7, 0.4, 0.2, 0.15),  # gums
    (0.85, 0.02, 0.3, 0.1, 0.1, 0.1),  # cloth
], np.float32)  # fmt: skip


LINEAR = np.linspace(0, 1, 8192)
CURVE = np.where(LINEAR < 0.0031308, 12.92 * LINEAR, 1.055 * LINEAR ** (1 / 2.4) - 0.055)
CURVE = np.round(CURVE * 255).astype(np.uint8)


@dataclass(frozen=True)
class Pose:
    """What one frame shows.

    Args:
        weights: of the 52 expressions.
        turn: pitch (up), yaw (to the person's left) and roll of the head in degrees.
        shift: of the head, cm.
        gaze: degrees away from the camera, to the person's left and up.
        tongue: cm that the tip rises, comes forward, and that the back rises.
    """

    weights: np.ndarray
    turn: tuple[float, float, float] = (0, 0, 0)
    shift: tuple[float, float, float] = (0, 0, 0)
    gaze: tuple[float, float] = (0, 0)
    tongue: tuple[float, float, float] = (0, 0, 0)


def rotation(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """Matrix (3, 3) of degrees: up, then to the person's left, then to the right shoulder."""
    a, b, c = np.radians((-pitch, yaw, roll))
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return (z @ y @ x).astype(np.float32)


def light_matrix(direction: np.ndarray, size: int) -> np.ndarray:
    """Matrix (3, 4) to pixels of a shadow map, and the distance towards the light in cm."""
    d = direction / np.linalg.norm(direction)
    side = np.cross((0, 1, 0) if abs(d[1]) < 0.95 else (0, 0, 1), d)
    side /= np.linalg.norm(side)
    scale = size / (2 * SHADOW_REACH)
    matrix = np.zeros((3, 4))
    matrix[:, :3] = side * scale, -np.cross(d, side) * scale, d
    matrix[:2, 3] = size / 2 - matrix[:2, :3] @ (0, 0, 2)
    return matrix.astype(np.float32)


class Renderer:
    """Renders frames of one person.

    Args:
        body: see ``body.py``. size: side of the picture in pixels.

    Attributes after :meth:`frame`: ``points`` and ``normals`` (n, 3) of the mesh in cm; ``screen``
    (n, 3) twice their pixels (the middle of the first pixel is at 0.5) and inverse distances;
    ``ids`` (2 size, 2 size), triangles that are seen, -1 for the background; ``weights`` (52,), the
    expression with what the lids add for the gaze; ``up`` (3,), the direction to the top of the
    head; ``through`` (size, size), the share of a pixel that hair leaves free; ``eyes`` (2, 14),
    see :func:`talkingface.data.synthetic.shading.paint_eye`.
    """

    def __init__(self, body, size: int = 256) -> None:
        self.body, self.size = body, size
        n = len(body.points)
        self.points, self.normals, self.screen = (np.zeros((n, 3), np.float32) for _ in range(3))
        self.depth = np.zeros((2 * size, 2 * size), np.float32)
        self.ids = np.zeros((2 * size, 2 * size), np.int32)
        self.layers = [np.zeros((size, size, 3), np.float32) for _ in range(5)]
        self.flat = [np.zeros((size, size), np.float32) for _ in range(6)]
        self.shadow = np.zeros((SHADOW_SIZE, SHADOW_SIZE), np.float32)
        self.background = cv2.resize(body.background, (size, size), interpolation=cv2.INTER_AREA)
        scale = body.scale
        self.camera = np.array(
            [0, body.middle + 2.6 * scale, 8 + DISTANCE * scale, size * DISTANCE / FIELD],
            np.float32,
        )
        self.pixels_per_cm = size / FIELD / scale
        m = len(body.lines)
        self.line_points, self.line_screen, self.line_colour = (
            np.zeros((m, 3), np.float32) for _ in range(3)
        )
        self.order = np.zeros(m, np.int64)

    def frame(self, pose: Pose) -> np.ndarray:
        """uint8 RGB (size, size, 3)."""
        body, size = self.body, self.size
        turn = rotation(*pose.turn)
        shift = np.asarray(pose.shift, np.float32)
        points, self.eyes = self._expression(pose, turn, shift)
        self.up = turn[:, 1]
        n = len(body.face.neutral)
        raster.turn(self.points, points, *NECK, turn, shift, PIVOT)
        shirt = slice(n, body.scarf)  # follows the neck a little
        part = (np.eye(3) * 0.6 + 0.4 * turn).astype(np.float32)
        raster.turn(self.points[shirt], points[shirt], *SHIRT, part, shift * 0.4, PIVOT)
        raster.vertex_normals(self.normals, self.points, body.triangles)
        fine = self.camera * np.array([1, 1, 1, 2], np.float32)
        raster.project(self.screen, self.points, fine, 2 * size, 2 * size)
        self._place_lines(turn, shift)
        matrix, none = body.light_matrix, np.zeros((0, 0), np.int32)
        self.shadow[:] = -1e3
        raster.draw_mesh(
            self.shadow, none, self.points @ matrix[:, :3].T + matrix[:, 3], body.triangles,
            body.two_sided, body.shadow_bias,
        )  # fmt: skip
        lines = self.line_points @ matrix[:, :3].T + matrix[:, 3]
        raster.draw_shadow_lines(self.shadow, lines, body.lines.joined, 2)
        self.depth[:] = 0
        self.ids[:] = -1
        raster.draw_mesh(
            self.depth, self.ids, self.screen, body.triangles, body.two_sided, body.bias
        )
        colour, light, other, hair, shares = self.layers
        skin, back, eye_shade, through, near, far = self.flat
        self._shade_eyes(eye_shade)
        shading.shade(
            colour, light, skin, other, back, self.ids, self.screen, self.points, self.normals,
            body.rest, body.triangles, body.material, body.attributes, SURFACE, body.texture,
            body.paint, self.camera, body.lights, body.ambient, self.shadow, matrix, self.up,
            self.eyes, body.iris, eye_shade, self._mouth(),
        )  # fmt: skip
        for channel, radius in enumerate((0.20, 0.10, 0.06)):  # light spreads below the skin
            sigma = max(radius * self.pixels_per_cm, 0.3)
            shares[..., channel] = cv2.GaussianBlur(skin, (0, 0), sigma)
            light[..., channel] = cv2.GaussianBlur(light[..., channel], (0, 0), sigma)
        hair[:], through[:] = 0, 1
        self.through = through
        raster.reduce_depth(near, far, self.depth)
        self._draw_lines(hair, through, near, far, matrix)
        picture = np.empty((size, size, 3), np.uint8)
        shading.compose(
            picture, colour, light, shares, other, back, self.background, hair, through, CURVE
        )
        return picture

    def camera_facts(self) -> dict[str, object]:
        """Place in cm, focal length and centre in pixels; the camera looks along -z, y is up."""
        x, y, z, focal = (round(float(v), 4) for v in self.camera)
        return {"position": [x, y, z], "focal": focal, "centre": [self.size / 2] * 2}

    def _expression(self, pose: Pose, turn: np.ndarray, shift: np.ndarray):
        """Points before the head turns, and the eyes for the shading (2, 14)."""
        body, head, face = self.body, self.body.face.head, self.body.face
        middle = face.eyes.mean(0)
        x, y, z = turn.T @ (self.camera[:3] - turn @ (middle - PIVOT) - PIVOT - shift)
        ahead = np.degrees([np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))])
        gaze = np.add(pose.gaze, ahead)  # left, up
        weights = pose.weights.astype(np.float32).copy()
        for side, sign in (("Left", 1), ("Right", -1)):
            for name, degrees, full in (
                ("Down", -gaze[1], 32), ("Up", gaze[1], 28), ("Out", sign * gaze[0], 35),
                ("In", -sign * gaze[0], 35),
            ):  # fmt: skip
                k = EXPRESSIONS.index(f"eyeLook{name}{side}")
                weights[k] += np.clip(degrees / full, 0, 1) * 0.8
        self.weights = weights
        points = body.points.copy()
        n = len(face.neutral)
        points[:n] += head.offsets(weights)
        rise, forward, back = pose.tongue
        tongue = head.points(TONGUE)
        t = np.clip((head.rest[tongue, 2] - 4.6) / 5.2, 0, 1)
        points[tongue, 0] *= 1 - 0.16 * t * min(1, rise + forward)
        points[tongue, 1] += rise * t**2 + back * np.exp(-(((t - 0.25) / 0.28) ** 2))
        points[tongue, 2] += forward * t**1.6
        eyes = np.zeros((2, 14), np.float32)
        for k, material in enumerate((EYE_LEFT, EYE_RIGHT)):
            look = rotation(gaze[1], gaze[0] + (-2.0 if k == 0 else 2.0), 0)
            ball = head.points(material)
            points[ball] = (points[ball] - face.eyes[k]) @ look.T + face.eyes[k]
            eyes[k, :3] = turn @ (face.eyes[k] - PIVOT) + PIVOT + shift
            eyes[k, 3:12] = (turn @ look).T.ravel()
            eyes[k, 12:] = face.eye_radius[k], 0.60
        return points, eyes

    def _shade_eyes(self, out: np.ndarray) -> None:
        """Shade of the lids on the eyes, 0.1 to 1."""
        shading.coverage(out, self.ids, self.body.material, EYE_LEFT, EYE_RIGHT)
        blurred = cv2.GaussianBlur(out, (0, 0), max(0.20 * self.pixels_per_cm, 0.3))
        down = round(0.10 * self.pixels_per_cm)
        lower = np.zeros_like(blurred)
        lower[down:] = blurred[: len(blurred) - down]
        out[:] = np.clip((np.minimum(blurred, lower) - 0.30) / 0.62, 0.1, 1)

    def _mouth(self) -> np.ndarray:
        marks = self.points[self.body.face.head.landmarks]
        upper, lower = marks[61:64].mean(0), marks[65:68].mean(0)
        width = np.linalg.norm(marks[64] - marks[60])
        height = max(np.linalg.norm(upper - lower), 0.05)
        return np.array(
            [*((upper + lower) / 2 - (0, 0, 0.1)), width * 0.8, height * 1.15], np.float32
        )

    def _place_lines(self, turn: np.ndarray, shift: np.ndarray) -> None:
        lines = self.body.lines
        free = len(lines.hair)
        raster.turn(self.line_points[:free], lines.hair, *NECK, turn, shift, PIVOT)
        on_skin = lines.bind @ self.points + (lines.bind @ self.normals) * lines.lift[:, None]
        self.line_points[free:] = on_skin + lines.lean @ turn.T

    def _draw_lines(self, hair, through, near, far, matrix) -> None:
        body, lines = self.body, self.body.lines
        shading.shade_lines(
            self.line_colour, self.line_points, lines.joined, lines.tint, lines.opened, lines.shine,
            self.camera, body.lights, body.ambient, self.shadow, matrix,
        )  # fmt: skip
        raster.project(self.line_screen, self.line_points, self.camera, self.size, self.size)
        total = raster.depth_order(self.order, self.line_screen, lines.joined, 1024)
        raster.blend_lines(
            hair, through, near, far, self.line_screen, self.line_colour,
            lines.width * self.pixels_per_cm, lines.opacity, lines.bias, self.order, total,
        )  # fmt: skip
