"""Pseudo-identities: variants of the photograph in shape and colours."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from talkingface.data.synthetic.portrait import Portrait
from talkingface.utils.env import import_cv2


@dataclass(frozen=True)
class Look:
    """Shape factors (1 = as photographed), colours and voice of one pseudo-identity.

    Attributes:
        face_width: of the whole head.
        jaw_width: of the jaw, in addition to ``face_width``; its effect grows towards the chin.
        chin_length: of the face below the nose.
        eye_distance: between the eyes.
        eye_size: of both eyes.
        nose_width: of the lower half of the nose.
        hair_volume: of the hair around the face.
        skin: gain of the skin's R, G, B.
        hair: gain of the hair's R, G, B.
        suit_turn: hue rotation of clothes and collar in degrees.
        background: R, G, B of the background's tint.
        contrast: of the whole picture.
        voice: espeak-ng voice name.
        pitch: espeak-ng pitch 0..100 (50: unchanged).
        rate: words per minute.
    """

    face_width: float = 1.0
    jaw_width: float = 1.0
    chin_length: float = 1.0
    eye_distance: float = 1.0
    eye_size: float = 1.0
    nose_width: float = 1.0
    hair_volume: float = 1.0
    skin: tuple[float, float, float] = (1.0, 1.0, 1.0)
    hair: tuple[float, float, float] = (1.0, 1.0, 1.0)
    suit_turn: float = 0.0
    background: tuple[float, float, float] = (190.0, 180.0, 178.0)
    contrast: float = 1.0
    voice: str = "en-us+f3"
    pitch: int = 50
    rate: int = 165


_FACTORS = "face_width jaw_width chin_length eye_distance eye_size nose_width hair_volume".split()
_LOOKS = (
    Look(),
    Look(
        face_width=0.90,
        jaw_width=0.90,
        chin_length=1.07,
        eye_distance=0.97,
        nose_width=0.90,
        hair_volume=1.06,
        skin=(0.68, 0.58, 0.52),
        hair=(0.38, 0.32, 0.34),
        suit_turn=200,
        background=(120, 160, 150),
        voice="en-us+f2",
        pitch=42,
        rate=175,
    ),
    Look(
        face_width=1.08,
        jaw_width=1.08,
        chin_length=0.94,
        eye_distance=1.05,
        eye_size=1.12,
        nose_width=1.1,
        hair_volume=1.04,
        skin=(1.03, 0.97, 0.97),
        hair=(1.25, 0.72, 0.42),
        suit_turn=110,
        background=(130, 150, 200),
        contrast=0.94,
        voice="en+f4",
        pitch=62,
        rate=155,
    ),
    Look(
        face_width=1.03,
        jaw_width=1.14,
        chin_length=1.06,
        eye_distance=0.95,
        eye_size=0.92,
        nose_width=1.18,
        hair_volume=0.94,
        skin=(0.86, 0.77, 0.68),
        hair=(0.85, 0.92, 1.08),
        suit_turn=265,
        background=(205, 175, 120),
        contrast=1.06,
        voice="en-us+m3",
        pitch=45,
        rate=170,
    ),
)


# Polygons x,y in pixels of the 512 px photograph.
_HEAD = (
    "151,74 155,57 172,44 188,34 200,23 217,15 234,13 258,17 280,29 296,45 304,68 302,95 "
    "291,117 280,128 268,131 262,90 182,90 178,122 168,119 158,104 152,88"
)
_EARS = ("170,118 179,118 182,136 173,129", "270,130 281,127 276,136 269,137")
_NECK = "181,140 264,140 256,165 255,178 242,190 211,186 186,179"
_CLOTHES = (
    "60,240 113,205 114,188 126,174 143,157 166,148 185,148 187,180 211,187 242,190 255,180 "
    "256,173 276,188 297,208 306,234 322,248 400,290 400,400 60,400"
)


@dataclass(frozen=True)
class Identity:
    """One pseudo-identity at frame scale: control points (V, 3) and uint8 RGB texture."""

    look: Look
    points: np.ndarray
    texture: np.ndarray


def look_of(number: int, seed: int) -> Look:
    """The look of identity ``number``: the first four are fixed, the others random by ``seed``."""
    if number < len(_LOOKS):
        return _LOOKS[number]
    draw = np.random.default_rng([seed, number, 71])
    base = _LOOKS[number % len(_LOOKS)]
    shape = {
        key: float(np.clip(getattr(base, key) * draw.uniform(0.93, 1.07), 0.88, 1.15))
        for key in _FACTORS
    }
    tone = draw.uniform(0.7, 1.05)
    return replace(
        base,
        **shape,
        skin=tuple(tone * np.array((1.0, *draw.uniform(0.88, 1.0, 2)))),
        hair=tuple(draw.uniform(0.35, 1.2) * draw.uniform(0.8, 1.15, 3)),
        suit_turn=float(draw.uniform(0, 360)),
        background=tuple(draw.uniform(110, 210, 3)),
        pitch=int(draw.integers(35, 66)),
        rate=int(draw.integers(150, 181)),
    )


def build_identity(portrait: Portrait, look: Look) -> Identity:
    """Apply ``look`` to the portrait."""
    return Identity(look, _shape(portrait, look), _colour(portrait, look))


def _shape(portrait: Portrait, look: Look) -> np.ndarray:
    h, points = portrait.face_height, portrait.points.copy()
    face = points[:468]
    mid_x, nose_y = points[1, 0], points[2, 1]
    x, y = points[:, 0] - mid_x, points[:, 1]
    soft = portrait.rigid  # 1 on the face, falling to 0 at the border of the frame

    def near(point: np.ndarray, reach: float) -> np.ndarray:
        return np.exp(-(((points[:, :2] - point) / (reach * h)) ** 2).sum(1))

    below = np.clip((y - nose_y) / (0.3 * h), 0, 1)
    dx = x * (look.face_width - 1 + (look.jaw_width - 1) * below) * soft
    dy = (y - nose_y) * (look.chin_length - 1) * below * soft
    for corners, side in (((33, 133), -1), ((362, 263), 1)):
        eye = face[list(corners), :2].mean(0)
        weight = near(eye, 0.16)
        dx += side * 0.2 * h * (look.eye_distance - 1) * weight
        dx += (points[:, 0] - eye[0]) * (look.eye_size - 1) * weight
        dy += (y - eye[1]) * (look.eye_size - 1) * weight
    dx += x * (look.nose_width - 1) * near(face[4, :2], 0.13)
    crown = np.zeros(len(points))
    crown[468:] = np.clip((nose_y - y[468:]) / (0.4 * h), 0, 1) * soft[468:]
    dx += x * (look.hair_volume - 1) * crown
    dy += (y - nose_y) * (look.hair_volume - 1) * crown
    points[:, 0] += dx
    points[:, 1] += dy
    points[:, 2] *= 1 + 0.4 * (look.nose_width - 1)
    return points


def _masks(portrait: Portrait) -> list[np.ndarray]:
    """Soft masks 0..1 (side, side, 1) of skin, hair, clothes and background.

    The regions were outlined by hand on the photograph. Colours refine only the borders between
    hair and background and between hair and forehead.
    """
    cv2 = import_cv2()
    h, side = portrait.face_height, portrait.texture.shape[0]
    lab = cv2.cvtColor(portrait.texture, cv2.COLOR_RGB2LAB).astype(np.float32)
    light, b = lab[..., 0], lab[..., 2] - 128

    def region(polygon: str) -> np.ndarray:
        corners = np.array([corner.split(",") for corner in polygon.split()], int)
        mask = np.zeros((side, side), np.uint8)
        cv2.fillPoly(mask, [np.round(portrait.from_photo(corners)).astype(np.int32)], 1)
        return mask > 0

    face = np.zeros((side, side), np.uint8)
    cv2.fillConvexPoly(face, cv2.convexHull(portrait.uv[:468].astype(np.int32)), 1)
    fringe = np.arange(side)[:, None] < portrait.uv[10, 1] + 0.17 * h
    head = region(_HEAD)
    skin = ((face > 0) & ~(fringe & (light < 165))) | region(_NECK) | region(_EARS[0])
    skin |= region(_EARS[1])
    clothes = region(_CLOTHES) & ~skin
    hair = head & ~skin & ((light < 165) | (b > 10))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    hair = cv2.morphologyEx(hair.astype(np.uint8), cv2.MORPH_CLOSE, kernel) > 0
    hair &= ~skin & ~clothes
    plain = ~(skin | hair | clothes)
    return [
        cv2.GaussianBlur(np.asarray(mask, np.float32), (0, 0), 0.01 * h)[..., None]
        for mask in (skin, hair, clothes, plain)
    ]


def _colour(portrait: Portrait, look: Look) -> np.ndarray:
    cv2 = import_cv2()
    picture = portrait.texture.astype(np.float32)
    skin, hair, clothes, plain = _masks(portrait)
    gain = 1 + (np.array(look.skin, np.float32) - 1) * skin
    gain = gain + (np.array(look.hair, np.float32) - 1) * hair
    hsv = cv2.cvtColor(portrait.texture, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(np.int32) + int(look.suit_turn / 2)) % 180
    turned = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.float32)
    out = picture * gain
    out += (turned - picture) * clothes
    tint = np.array(look.background, np.float32) * (picture.mean(2, keepdims=True) / 185)
    out += (tint - picture) * plain * 0.85
    out = (out - 128) * look.contrast + 128
    return np.clip(out, 0, 255).astype(np.uint8)
