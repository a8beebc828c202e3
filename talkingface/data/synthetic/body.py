"""All that the renderer needs of a person: mesh, clothes, colours, hair, light, background."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from talkingface.data.synthetic import raster
from talkingface.data.synthetic.clothes import garment, scarf
from talkingface.data.synthetic.face import Face, make_face
from talkingface.data.synthetic.hair import STYLES, Surface, hair
from talkingface.data.synthetic.head import (
    CLOTH,
    EYE_LEFT,
    EYE_RIGHT,
    SKIN,
    expression,
    load_head,
    point_normals,
)
from talkingface.data.synthetic.lines import Lines, beard, brows, lashes, together, unit
from talkingface.data.synthetic.person import CLOTHES, Colour, Person
from talkingface.data.synthetic.renderer import SHADOW_SIZE, light_matrix
from talkingface.data.synthetic.skin import attributes, linear, skin_colour, skin_texture

OCCLUSION_MAP = 160  # pixels of the depth maps that give the share of open sky
WALLS: tuple[tuple[Colour, Colour], ...] = (
    ((168, 160, 150), (96, 92, 96)), ((110, 128, 140), (56, 66, 80)),
    ((120, 150, 150), (56, 84, 90)), ((196, 178, 168), (130, 112, 108)),
    ((126, 120, 110), (70, 66, 62)), ((178, 160, 132), (110, 96, 82)),
    ((170, 176, 180), (104, 112, 122)), ((140, 152, 128), (78, 90, 74)),
)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """Light and background of a clip.

    Args:
        azimuth: of the key light in degrees to the person's left. key: its strength.
        warm: -1 blue to 1 yellow. wall: near and far colour of the background.
        seed: of the lights in the background.
    """

    azimuth: float = -36.0
    key: float = 1.0
    warm: float = 0.0
    wall: tuple[Colour, Colour] = WALLS[0]
    seed: int = 0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Scene:
        """A random scene."""
        azimuth = float(rng.choice((-1, 1)) * rng.uniform(26, 46))
        key, warm = float(rng.uniform(0.9, 1.12)), float(rng.uniform(-0.6, 0.8))
        wall = WALLS[int(rng.integers(len(WALLS)))]
        return cls(azimuth, key, warm, wall, int(rng.integers(1 << 30)))


@dataclass(eq=False)
class Body:
    """What :class:`Renderer` draws; arrays as its functions take them."""

    face: Face
    points: np.ndarray
    rest: np.ndarray
    triangles: np.ndarray
    material: np.ndarray
    two_sided: np.ndarray
    bias: np.ndarray
    shadow_bias: np.ndarray
    attributes: np.ndarray
    texture: np.ndarray
    paint: np.ndarray
    lines: Lines
    lights: np.ndarray
    ambient: np.ndarray
    light_matrix: np.ndarray
    iris: np.ndarray
    background: np.ndarray
    scale: float
    middle: float
    scarf: int  # first point of the scarf


class Look:
    """What the fields of a person leave open, drawn from the seed."""

    def __init__(self, person: Person, rng: np.random.Generator) -> None:
        man, self.age = person.sex == "man", float(np.clip((person.age - 22) / 50, 0, 1))
        self.receding = float(man * np.clip(self.age * rng.uniform(0, 1.6), 0, 1))
        self.shaven = str(rng.choice(("clean", "stubble", "beard"), p=(0.4, 0.35, 0.25)))
        if not man:
            self.shaven = "never"
        self.make_up = 0.0 if man else float(rng.uniform(0, 0.7))
        self.brows = (1.0 if man else 0.8, float(rng.uniform(0.75, 1.25)) * (1.1 if man else 0.85))
        self.beard = float(rng.uniform(0.35, 0.9))
        self.blush = float(rng.uniform(0.7, 1.2))
        self.freckles = float(max(0, rng.normal(-0.3, 0.5))) * (person.skin < 0.35)
        self.scarf = CLOTHES[int(rng.integers(len(CLOTHES)))]


def build_body(person: Person, scene: Scene) -> Body:
    """The person in this light; takes about two seconds."""
    rng = np.random.default_rng([3, person.seed])
    head, look = load_head(), Look(person, rng)
    face, (style, colour) = make_face(person.shapes()), person.hair
    colour, covered = linear(colour), style == "scarf"
    points, triangles, material, hidden, starts = dressed(face, person.clothes[0], covered)
    n, count = len(face.neutral), len(points)
    cloth = material == CLOTH
    bias = np.where((material == EYE_LEFT) | (material == EYE_RIGHT), -1e-4, 0).astype(np.float32)
    bias[hidden] = raster.HIDDEN
    shadow_bias = np.where((material == SKIN) | cloth, bias, np.float32(raster.HIDDEN))
    parts = [brows(colour * 0.9, rng, *look.brows)]
    thick = 1 + 0.4 * look.make_up if person.sex == "woman" else 0.8
    parts += lashes(np.array((0.014, 0.011, 0.010)), rng, thick)
    if style in STYLES:
        normals = point_normals(points, triangles)
        outside = np.append(head.points(SKIN), np.arange(n, count))
        surface = Surface(points[outside], normals[outside])
        parts.append(hair(face, style, colour, rng, surface, look.receding))
    if look.shaven == "beard":
        parts.append(beard(colour * 0.9, rng, 9000, look.beard))
    lines = together(parts, count)
    sky = open_sky(face, points, triangles, cloth, shadow_bias, lines)
    table = np.zeros((count, 9), np.float32)
    table[:n] = paint_person(person, look, colour, sky[:n])
    table[n:, 0], table[n:, 1:4] = sky[n:], linear(person.clothes[1])
    table[starts[1] :, 1:4] = linear(look.scarf)
    rest = np.zeros_like(points)
    rest[:n] = head.rest
    mottling = 0.35 * (1 - 0.6 * person.skin)
    paint = np.array([colour * 0.6, (0.70, 0.42, 0.25), (mottling, mottling, 0.25)], np.float32)
    key = scene.key * (1 + 0.35 * person.skin)  # dark skin needs more light
    lights, ambient, matrix = make_lights(scene.azimuth, key, scene.warm)
    outer, inner = (linear(c) for c in person.eyes)
    iris = np.array([linear((218, 210, 204)), outer * 0.85, inner, (0.36, *lights[0, :2])])
    brow, chin = face.place(27)[1], face.place(8)[1]
    average = np.subtract(*head.rest[head.landmarks[[27, 8]], 1])
    return Body(
        face=face, points=points, rest=rest, triangles=triangles, material=material,
        two_sided=cloth, bias=bias, shadow_bias=shadow_bias, attributes=table,
        texture=skin_texture(), paint=paint, lines=lines, lights=lights, ambient=ambient,
        light_matrix=matrix, iris=iris.astype(np.float32),
        background=make_background(scene), scale=float((brow - chin) / average),
        middle=float((brow + chin) / 2), scarf=starts[1],
    )  # fmt: skip


def paint_person(person: Person, look: Look, hair_colour, sky: np.ndarray) -> np.ndarray:
    """Attributes of the head's points."""
    lips = skin_colour(person.skin)
    lips = lips * ((0.80, 0.43, 0.49) if person.skin < 0.6 else (0.95, 0.60, 0.64))
    lipstick = max(0.0, look.make_up - 0.35)
    return attributes(
        person.skin, age=look.age, blush=look.blush,
        lips=lips + (linear((168, 52, 58)) - lips) * lipstick,
        lip_share=0.8 if person.sex == "man" else 0.86, lip_gloss=0.27 if lipstick else 0.36,
        hair=hair_colour, scalp={"scarf": 0.0, "bald": 0.2}.get(person.hair[0], 0.9),
        receding=look.receding, freckles=look.freckles, shadow=look.make_up,
        stubble={"clean": 0.12, "stubble": 0.55, "beard": 0.8}.get(look.shaven, 0.0), occlusion=sky,
    )  # fmt: skip


def dressed(face: Face, collar: str, with_scarf: bool):
    """Points, triangles and material of head and clothes, hidden triangles, and the first points
    of the shirt, of the scarf, and behind both."""
    head = load_head()
    normals = point_normals(face.neutral, head.triangles)
    points, triangles, starts = [face.neutral], [head.triangles], [len(face.neutral)]
    hidden = np.zeros(len(head.triangles), bool)
    parts = [garment(face.neutral, normals, collar)]
    if with_scarf:
        parts.append(scarf(face.neutral, normals))
    for part, corners, covers in parts:
        points.append(part.astype(np.float32))
        triangles.append((corners + starts[-1]).astype(np.int32))
        hidden |= covers & (head.material == SKIN)
        starts.append(starts[-1] + len(part))
    cloth = sum(map(len, triangles[1:]))
    material = np.append(head.material, np.full(cloth, CLOTH, np.uint8))
    hidden = np.append(hidden, np.zeros(cloth, bool))
    return np.concatenate(points), np.concatenate(triangles), material, hidden, starts


def open_sky(face: Face, points, triangles, two_sided, bias, lines: Lines) -> np.ndarray:
    """Share of light from around that arrives at each point, with the mouth a little open."""
    head = load_head()
    points = points.copy()
    points[: len(face.neutral)] += head.offsets(expression(jawOpen=0.12))
    normals = point_normals(points, triangles)
    k = np.arange(64) + 0.5
    polar, around = np.arccos(1 - k / 32), np.pi * (1 + 5**0.5) * k
    directions = np.stack(
        [np.sin(polar) * np.cos(around), np.cos(polar), np.sin(polar) * np.sin(around)], 1
    )
    seen, total = np.zeros(len(points)), np.zeros(len(points))
    none, size = np.zeros((0, 0), np.int32), OCCLUSION_MAP
    for direction in directions[directions[:, 1] > -0.75]:
        matrix = light_matrix(direction, size)
        depth = np.full((size, size), -1e3, np.float32)
        screen = points @ matrix[:, :3].T + matrix[:, 3]
        raster.draw_mesh(depth, none, screen, triangles, two_sided, bias)
        hair = (lines.hair @ matrix[:, :3].T + matrix[:, 3]).astype(np.float32)
        raster.draw_shadow_lines(depth, hair, lines.joined, 3)
        depth = cv2.blur(np.maximum(depth, -40), (3, 3))
        x, y = (np.clip(screen[:, j].astype(int), 0, size - 1) for j in (0, 1))
        share = np.maximum(normals @ direction, 0) * (0.7 + 0.3 * direction[1])
        seen += share * np.clip(1.5 - (depth[y, x] - screen[:, 2]) / 0.5, 0, 1)
        total += share
    return np.clip(1.08 * seen / np.maximum(total, 1e-6), 0.12, 1)


def make_lights(azimuth: float, key: float, warm: float):
    """Lights (4, 6), ambient (4, 3) and the matrix of the shadow map."""
    a, e = np.radians((azimuth, 34))
    side = np.sin(a)
    directions = unit(np.array([
        (side * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)), (-side * 1.2, 0.12, 0.75),
        (-side, 0.55, -0.95), (side * 1.3, 0.35, -0.8),
    ]))  # fmt: skip
    colours = np.array([
        np.array((1 + 0.04 * warm, 0.965, 0.90 - 0.06 * warm)) * 1.2 * key,
        (0.17, 0.186, 0.20), (0.55, 0.53, 0.51), (0.27, 0.285, 0.30),
    ])  # fmt: skip
    base = np.array((0.33, 0.335, 0.35))
    ambient = np.stack([base, base * 0.02, base * 0.42, base * 0.2])
    lights = np.concatenate([directions, colours], 1).astype(np.float32)
    return lights, ambient.astype(np.float32), light_matrix(directions[0], SHADOW_SIZE)


def make_background(scene: Scene, size: int = 512) -> np.ndarray:
    """A soft wall with blurred lights, linear RGB (size, size, 3)."""
    rng = np.random.default_rng(scene.seed)
    near, far = (linear(colour) for colour in scene.wall)
    y, x = np.mgrid[0:size, 0:size] / size
    distance = np.hypot(x - 0.5 - 0.2 * np.sin(np.radians(scene.azimuth)), y - 0.4)
    image = near + (far - near) * np.clip(y * 0.7 + 0.3 * distance, 0, 1)[..., None]
    for _ in range(26):
        layer = np.zeros((size, size), np.float32)
        centre = tuple(int(v) for v in rng.uniform((0, 0), (size, size * 0.8)))
        cv2.circle(layer, centre, int(rng.uniform(14, 52)), 1.0, -1, cv2.LINE_AA)
        layer = cv2.GaussianBlur(layer, (0, 0), rng.uniform(3, 9))[..., None] * 0.22
        image += ((near if rng.random() < 0.6 else far) * rng.uniform(0.7, 1.7) - image) * layer
    return cv2.GaussianBlur(image, (0, 0), 5).astype(np.float32)
