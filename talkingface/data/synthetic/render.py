"""Render one frame: the photograph warped by its triangles, then the inside of the mouth."""

from __future__ import annotations

import numpy as np

from talkingface.data.synthetic.deform import MAX_GAP, FaceRig, FaceState
from talkingface.data.synthetic.identity import Identity
from talkingface.data.synthetic.portrait import EYES, INNER_LIPS, Portrait
from talkingface.utils.env import import_cv2

_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates
_DARK, _FLESH = (38.0, 14.0, 14.0), (120.0, 52.0, 50.0)  # RGB of the cavity and of the tongue


class FaceRenderer:
    """Renders frames of one identity."""

    def __init__(self, portrait: Portrait, identity: Identity) -> None:
        self._cv2 = import_cv2()
        self.portrait = portrait
        self.texture = identity.texture
        self.rig = FaceRig(portrait, identity.points)
        self._uv = portrait.uv[portrait.triangles]  # (N, 3, 2)
        grid = np.arange(portrait.size, dtype=np.float32)
        self._x, self._y = np.meshgrid(grid, grid)
        # The triangle of each pixel at rest fills hairline gaps between triangles. With the last
        # frame's triangles instead, a frame would depend on earlier ones.
        self._rest = np.zeros((portrait.size, portrait.size), np.uint16)
        self._rest, _ = self._rasterise(self.rig.place(FaceState()))
        self._teeth, self._teeth_alpha = self._make_teeth()

    def render(self, state: FaceState) -> tuple[np.ndarray, np.ndarray]:
        """Paint one frame.

        Returns:
            RGB uint8 (size, size, 3) and the placed control points (V, 3) in pixels.
        """
        cv2 = self._cv2
        placed = self.rig.place(state)
        index, to_uv = self._rasterise(placed)
        a = to_uv[index]
        map_x = a[..., 0] * self._x + a[..., 1] * self._y + a[..., 2]
        map_y = a[..., 3] * self._x + a[..., 4] * self._y + a[..., 5]
        frame = cv2.remap(
            self.texture, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        if state.blink > 0:
            self._paint_lids(frame, placed, state)
        self._paint_mouth(frame, placed, state)
        return frame, placed

    def _rasterise(self, placed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number of the triangle that each pixel shows, and all triangles' maps to the texture."""
        corners = placed[self.portrait.triangles][:, :, :2]
        to_uv, visible = _affine_maps(corners, self._uv)
        drawn = _fixed(corners)
        index, fill = self._rest.copy(), self._cv2.fillConvexPoly
        for number in np.flatnonzero(visible).tolist():
            fill(index, drawn[number], number, 8, _SHIFT)
        return index, to_uv

    def _paint_lids(self, frame: np.ndarray, placed: np.ndarray, state: FaceState) -> None:
        """Paint lid skin, copied from below the eye, and a lash line over the stretched lashes."""
        cv2, h, size = self._cv2, self.rig.height, self.portrait.size
        strength = min(1.0, 1.5 * state.blink) / 255
        for eye in EYES:
            lash = placed[eye["upper"], :2]
            crease = placed[eye["crease"], :2][1:-1] - (0, 0.008 * h)
            ring = np.concatenate([lash, crease[::-1]])
            x0, y0 = np.maximum(np.floor(ring.min(0) - 0.05 * h).astype(int), 0)
            x1, y1 = np.minimum(np.ceil(ring.max(0) + 0.05 * h).astype(int), size)
            shape = (int(y1 - y0), int(x1 - x0))
            if min(shape) <= 0:
                continue
            mask = np.zeros(shape, np.uint8)
            cv2.fillPoly(mask, [_fixed(ring - (x0, y0))], 255, cv2.LINE_AA, _SHIFT)
            mask = cv2.GaussianBlur(mask, (0, 0), 0.007 * h)
            move = self._skull_map([eye["lower"][0], eye["lower"][-1], 1], state, (x0, y0))
            move[1, 2] += 0.095 * h
            skin = cv2.warpAffine(
                self.texture, move, shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            )
            alpha = mask.astype(np.float32)[..., None] * strength
            patch = frame[y0:y1, x0:x1]
            mixed = patch + (skin * 0.93 - patch) * alpha
            line, thick = np.zeros(shape, np.uint8), max(1, round(h / 120))
            cv2.polylines(line, [_fixed(lash - (x0, y0))], False, 255, thick, cv2.LINE_AA, _SHIFT)
            line = cv2.GaussianBlur(line, (0, 0), 0.005 * h)
            alpha = line.astype(np.float32)[..., None] * strength
            patch[:] = np.clip(mixed * (1 - 0.75 * alpha), 0, 255).astype(np.uint8)

    def _make_teeth(self) -> tuple[np.ndarray, np.ndarray]:
        """The photograph's teeth as a layer: RGB float32 and alpha 0..1 at texture size."""
        cv2 = self._cv2
        ring = self.portrait.uv[INNER_LIPS]
        middle = ring.mean(0)
        ring = middle + (ring - middle) * (0.9, 0.8)  # without the lips' edges
        alpha = np.zeros(self.texture.shape[:2], np.uint8)
        cv2.fillPoly(alpha, [_fixed(ring)], 255, cv2.LINE_AA, _SHIFT)
        alpha = cv2.GaussianBlur(alpha, (0, 0), 0.006 * self.portrait.face_height)
        return self.portrait.smile.astype(np.float32), alpha.astype(np.float32) / 255

    def _paint_mouth(self, frame: np.ndarray, placed: np.ndarray, state: FaceState) -> None:
        """Blend cavity, tongue and teeth into ``frame`` between the inner lip contours."""
        cv2, h = self._cv2, self.rig.height
        ring = placed[INNER_LIPS, :2]
        pad = int(0.04 * h)
        x0, y0 = np.maximum(np.floor(ring.min(0)).astype(int) - pad, 0)
        x1, y1 = np.minimum(np.ceil(ring.max(0)).astype(int) + pad, self.portrait.size)
        shape = (int(y1 - y0), int(x1 - x0))
        if min(shape) <= 0:
            return
        local = _fixed(ring - (x0, y0))
        mask = np.zeros(shape, np.uint8)
        cv2.fillPoly(mask, [local], 255, cv2.LINE_AA, _SHIFT)
        top, low = ring[:, 1].min() - y0, ring[:, 1].max() - y0
        depth = np.clip((np.arange(shape[0]) - top) / max(low - top, 1.0), 0, 1)
        tongue = np.clip((depth - 0.45) / 0.5, 0, 1) * 0.75 * min(1.0, 1.6 * state.opening)
        tongue = tongue[:, None]
        rows = (np.array(_DARK) * (1 - tongue) + np.array(_FLESH) * tongue).astype(np.float32)
        inside = np.broadcast_to(rows[:, None, :], (*shape, 3))
        move = self._skull_map([78, 308, 14], state, (x0, y0), 0.05)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        teeth = cv2.warpAffine(self._teeth, move, shape[::-1], flags=flags)
        cover = cv2.warpAffine(self._teeth_alpha, move, shape[::-1], flags=flags)[..., None]
        inside = inside + (teeth * 0.92 - inside) * cover
        shade = cv2.GaussianBlur(mask, (0, 0), 0.016 * h).astype(np.float32)[..., None] / 255
        inside = inside * (0.35 + 0.65 * np.minimum(1.0, 1.25 * shade))
        patch = frame[y0:y1, x0:x1]
        # The polygon of a closed mouth is one pixel high; fade it out.
        fade = min(1.0, state.opening * MAX_GAP * h / 1.2)
        mixed = patch + (inside - patch) * (mask.astype(np.float32)[..., None] * (fade / 255))
        line = np.zeros(shape, np.uint8)  # the shadow where the lips meet or turn inwards
        cv2.polylines(line, [local], True, 75, max(1, round(h / 140)), cv2.LINE_AA, _SHIFT)
        mixed *= 1 - line.astype(np.float32)[..., None] / 255
        patch[:] = np.clip(mixed, 0, 255).astype(np.uint8)

    def _skull_map(
        self, ids: list[int], state: FaceState, corner: tuple[int, int], depth: float = 0.0
    ) -> np.ndarray:
        """Affine map (2, 3) of a plane that moves with the head, from a patch to the texture.

        Args:
            ids: three points of the resting face that span the plane.
            state: state with the head pose.
            corner: x, y of the patch in the frame, pixels.
            depth: distance of the plane behind the points, over the face height.
        """
        points = self.rig.points[ids] + (0, 0, depth * self.rig.height)
        points = self.rig.rigidly(points, state)[:, :2] - corner
        return self._cv2.getAffineTransform(
            points.astype(np.float32), self.portrait.uv[ids].astype(np.float32)
        )


def _fixed(points: np.ndarray) -> np.ndarray:
    """Fixed-point coordinates for OpenCV's drawing functions."""
    return np.round(points * (1 << _SHIFT)).astype(np.int32)


def _affine_maps(corners: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Affine maps from frame to texture, one per triangle.

    Args:
        corners: (N, 3, 2) in the frame, pixels.
        uv: (N, 3, 2) in the texture, pixels.

    Returns:
        float32 (N, 6) rows ``a b c d e f`` with ``u = a x + b y + c``, ``v = d x + e y + f``, and
        bool (N,): the triangle has an area and is not turned over.
    """
    e1, e2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    f1, f2 = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    det = e1[:, 0] * e2[:, 1] - e1[:, 1] * e2[:, 0]
    uv_det = f1[:, 0] * f2[:, 1] - f1[:, 1] * f2[:, 0]
    longest = np.maximum((e1 * e1).sum(1), (e2 * e2).sum(1))
    thin = det * det < 0.05 * longest  # lower than a quarter of a pixel: ill-conditioned
    visible = ~thin & ~((det * uv_det < 0) & (np.abs(uv_det) > 2))
    safe = np.where(visible, det, 1.0)[:, None]
    du = (f1 * e2[:, 1:] - f2 * e1[:, 1:]) / safe  # d(u, v) / dx
    dv = (f2 * e1[:, :1] - f1 * e2[:, :1]) / safe  # d(u, v) / dy
    origin = uv[:, 0] - du * corners[:, 0, :1] - dv * corners[:, 0, 1:]
    maps = np.stack([du[:, 0], dv[:, 0], origin[:, 0], du[:, 1], dv[:, 1], origin[:, 1]], 1)
    return maps.astype(np.float32), visible
