"""Positions of the control points for a state of the mouth, eyelids, brows and head pose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talkingface.data.synthetic.portrait import (
    BROWS,
    CHIN,
    EYES,
    LIPS_LOWER,
    LIPS_UPPER,
    N_FACE,
    TOP,
    Portrait,
)

MAX_GAP = 0.125  # inner-lip gap over face height at opening 1
_LIP_IDS = np.unique(np.concatenate([LIPS_UPPER.ravel(), LIPS_LOWER.ravel()]))
_NOSE_BOTTOM = 2


@dataclass(frozen=True)
class FaceState:
    """Expression and head pose of one frame.

    Attributes:
        opening: 0 (lips closed) to 1 (``MAX_GAP`` of the face height).
        width: -1 (narrow) to 1 (spread lips).
        rounding: 0 to 1 (lips pushed forward to a ring).
        blink: 0 (open eyes) to 1 (closed).
        brow: 0 to 1, raised brows.
        pose: degrees pitch (positive: nods down), yaw (positive: turns to image right), roll
            (positive: clockwise in the image), relative to the photograph.
        sway: pixels right and down.
    """

    opening: float = 0.0
    width: float = 0.0
    rounding: float = 0.0
    blink: float = 0.0
    brow: float = 0.0
    pose: tuple[float, float, float] = (0.0, 0.0, 0.0)
    sway: tuple[float, float] = (0.0, 0.0)


def rotation(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """Rotation (3, 3) for angles in degrees as in :class:`FaceState`; roll first, then yaw."""
    p, y, r = np.radians([pitch, yaw, roll])
    cp, sp, cy, sy, cr, sr = np.cos(p), np.sin(p), np.cos(y), np.sin(y), np.cos(r), np.sin(r)
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


class FaceRig:
    """Moves the control points of one identity.

    The face in the photograph smiles. The rig therefore replaces the shape of the lips (narrower
    mouth, thicker upper lip) instead of offsetting it. The skin around the lips follows with a
    weight that falls with the distance; below the mouth it follows the jaw.

    Args:
        portrait: topology and weights.
        points: (V, 3) control points of the identity, pixels.
    """

    def __init__(self, portrait: Portrait, points: np.ndarray) -> None:
        self.points = points
        self.height = h = float(np.linalg.norm(points[TOP, :2] - points[CHIN, :2]))
        self.rigid = portrait.rigid[:, None]
        self.jaw = portrait.jaw
        inner_u, inner_l = points[LIPS_UPPER[3]], points[LIPS_LOWER[3]]
        outer_u, outer_l = points[LIPS_UPPER[0]], points[LIPS_LOWER[0]]
        self.mid_x = (inner_u[0, 0] + inner_u[-1, 0]) / 2
        photo_half = (inner_u[-1, 0] - inner_u[0, 0]) / 2
        self.half = 0.86 * photo_half
        self.line_y = 0.4 * points[13, 1] + 0.6 * points[14, 1]
        columns = (inner_u[:, 0] + inner_l[:, 0]) / 2  # of both lips, so that they close exactly
        self.s = 0.15 * np.linspace(-1, 1, 11) + 0.85 * (columns - self.mid_x) / photo_half
        self.s[[0, -1]] = (-1, 1)
        self.rim = (outer_u[-1, 0] - outer_u[0, 0]) / 2 - photo_half
        self.thick_upper = np.maximum(inner_u[:, 1] - outer_u[:, 1], 0.0) * 1.5
        self.thick_lower = np.maximum(outer_l[:, 1] - inner_l[:, 1], 0.0) * 1.08
        self.thick_upper[[0, -1]] = self.thick_lower[[0, -1]] = 0
        self.pivot = np.array([self.mid_x, points[CHIN, 1] - 0.1 * h, points[1, 2] + 0.75 * h])
        self._skin_weights(np.unique(np.concatenate([LIPS_UPPER[0], LIPS_LOWER[0]])))
        self._brow = np.zeros(len(points))
        reach = np.linalg.norm(points[:N_FACE, None, :2] - points[None, BROWS, :2], axis=2).min(1)
        self._brow[:N_FACE] = np.exp(-((reach / (0.05 * h)) ** 2))

    def _skin_weights(self, rim: np.ndarray) -> None:
        """How each point outside the lips follows the lips' outer contour."""
        xy, h = self.points[:, :2], self.height
        away = np.linalg.norm(xy[:, None] - xy[None, rim], axis=2)
        share = np.exp(-((away / (0.07 * h)) ** 2)) + 1e-9 * np.exp(-away / h)
        nearest = away.min(1)
        keep = np.exp(-((nearest / (0.17 * h)) ** 2))
        nose = self.points[_NOSE_BOTTOM, 1]
        keep *= np.clip((xy[:, 1] - (nose - 0.12 * h)) / (0.14 * h), 0.12, 1.0)
        keep[len(xy) - sum(len(e["upper"]) + len(e["lower"]) for e in EYES) :] = 0  # eyeballs
        self.rim_ids = rim
        self.follow = share / share.sum(1, keepdims=True)
        self.keep = keep[:, None]

    def _set_lips(self, out: np.ndarray, state: FaceState) -> None:
        h = self.height
        gap = state.opening * MAX_GAP * h
        half = self.half * (1 + 0.13 * state.width - 0.36 * state.rounding)
        power = 0.72 - 0.12 * state.rounding + 0.12 * max(state.width, 0.0)
        corner = -0.012 * h * (1 + state.width - state.rounding)
        thin = 1 - 0.18 * state.opening + 0.22 * state.rounding
        s = self.s
        for rings, side, share, thick in (
            (LIPS_UPPER, -1.0, 0.24, self.thick_upper),
            (LIPS_LOWER, 1.0, 0.76, self.thick_lower),
        ):
            arch = np.maximum(1 - s * s, 0.0) ** power
            # Closed lips meet in the curve ``line``; each lip takes its share of the gap.
            line = self.line_y + corner * s * s + 0.30 * gap * s * s
            inner_y = line + side * share * gap * arch
            inner = np.column_stack([self.mid_x + half * s, inner_y])
            outer = np.column_stack(
                [
                    self.mid_x + (half + self.rim * (1 + 0.3 * state.rounding)) * s,
                    inner_y + side * thick * thin,
                ]
            )
            inner_z = (self.points[LIPS_UPPER[3], 2] + self.points[LIPS_LOWER[3], 2]) / 2
            push = -0.05 * h * state.rounding * (1 - 0.5 * s * s)
            for ring in range(4):
                ids = rings[ring]
                out[ids, :2] = outer + (inner - outer) * (ring / 3)
                # Closed lips meet in depth too; otherwise a turned head shows a gap.
                out[ids, 2] = (self.points[ids, 2] if ring < 3 else inner_z) + push

    def _blink(self, out: np.ndarray, amount: float) -> None:
        for eye in EYES:
            upper, crease, lower = (np.array(eye[k])[1:-1] for k in ("upper", "crease", "lower"))
            fall = self.points[lower, 1] - self.points[upper, 1]
            out[upper, 1] += 0.88 * amount * fall
            out[lower, 1] -= 0.12 * amount * fall
            out[crease, 1] += 0.35 * amount * fall

    def place(self, state: FaceState) -> np.ndarray:
        """Control points (V, 3) in frame pixels for ``state`` (orthographic projection: drop z)."""
        base = self.points
        lips = base.copy()
        self._set_lips(lips, state)
        shift = lips[self.rim_ids] - base[self.rim_ids]
        drop = 0.62 * state.opening * MAX_GAP * self.height * self.jaw
        out = base + self.keep * (self.follow @ shift)
        out[:, 1] += (1 - self.keep[:, 0]) * drop
        out[_LIP_IDS] = lips[_LIP_IDS]
        out[:, 1] -= 0.022 * self.height * state.brow * self._brow
        if state.blink > 0:
            self._blink(out, state.blink)
        return out + self.rigid * (self.rigidly(out, state) - out)

    def rigidly(self, points: np.ndarray, state: FaceState) -> np.ndarray:
        """``points`` (K, 3) moved by the head pose alone."""
        turned = (points - self.pivot) @ rotation(*state.pose).T + self.pivot
        turned[:, :2] += state.sway
        return turned


def measure(points: np.ndarray) -> tuple[float, float]:
    """Inner-lip gap and mouth width, both over the face height, of placed points (V, 3)."""
    xy = points[:, :2]
    height = np.linalg.norm(xy[TOP] - xy[CHIN])
    return (
        float(np.linalg.norm(xy[13] - xy[14]) / height),
        float(np.linalg.norm(xy[61] - xy[291]) / height),
    )
