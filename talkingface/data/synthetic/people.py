"""One clip of a rendered person: speech, movement, frames, and the truth about them."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from talkingface.data.media.writer import VideoWriter
from talkingface.data.synthetic.align import RATE
from talkingface.data.synthetic.body import Body, Scene, build_body
from talkingface.data.synthetic.head import (
    CLOTH,
    EXPRESSIONS,
    EYE_LEFT,
    EYE_RIGHT,
    SKIN,
    SOCKET,
    expression,
)
from talkingface.data.synthetic.mouth import MouthRig, mouth_track
from talkingface.data.synthetic.movement import MOODS, movement
from talkingface.data.synthetic.person import Person
from talkingface.data.synthetic.renderer import Pose, Renderer
from talkingface.data.synthetic.skin import lip_area
from talkingface.data.synthetic.voices import speak
from talkingface.utils.paths import atomic, write_json

LABELS = ("background", "skin", "lips", "mouth", "eyes", "hair", "clothes")
AMPLITUDE = (1.12, 1.88)  # cm; people differ in how far they open their mouths


@dataclass(frozen=True)
class PersonClip:
    """Name of a clip and everything that its content depends on.

    Attributes:
        name: ``<person>/<clip>``, the path below ``data`` without extension.
        person: seed of the person. number: of the clip among the person's.
        part: ``train``, or ``test`` for sentences that no training clip has.
        settings: seed, seconds, size (pixels), fps, voices (see ``speak``), pose (``reach`` of
            ``movement``), light (``varied`` or ``fixed``), expression (``varied`` or a mood),
            masks (whether the truth has ``labels``).
        settings_hash: hash of all of these.
    """

    name: str
    person: int
    number: int
    part: str
    settings: dict
    settings_hash: str

    def path(self, root: Path, suffix: str) -> Path:
        """The clip's file with ``suffix`` below the dataset folder ``root``."""
        return root / "data" / f"{self.name}{suffix}"


@lru_cache(2)
def _body(person: Person, scene: Scene) -> Body:
    return build_body(person, scene)


def frame_seconds(clip: PersonClip) -> float:
    """Seconds that a frame takes on this machine; compiles the renderer where necessary."""
    renderer, began = Renderer(_body(Person.draw(clip.person), Scene()), clip.settings["size"]), 0.0
    for _ in range(2):
        began = time.perf_counter()
        renderer.frame(Pose(expression()))
    return time.perf_counter() - began


def render_clip(root: Path, clip: PersonClip) -> None:
    """Write ``<name>.mp4``, ``.truth.npz`` and, last, ``.truth.json`` below ``root/data``.

    Raises:
        DataError, EnvironmentProblem: see :func:`talkingface.data.synthetic.voices.speak`.
    """
    options = clip.settings
    seed, fps, size = options["seed"], options["fps"], options["size"]
    frames = round(options["seconds"] * fps)
    person = Person.draw(clip.person)
    draw = [np.random.default_rng([4, seed, clip.person, clip.number, k]) for k in range(3)]
    light = draw[0] if options["light"] == "varied" else np.random.default_rng([5, clip.person])
    scene = Scene.draw(light)
    speech = speak(options["voices"], person, frames / fps, draw[1], clip.part)
    mood = options["expression"]
    mood = str(draw[2].choice(list(MOODS))) if mood == "varied" else mood
    track = mouth_track(speech.phones, frames, fps)
    moves = movement(draw[2], speech.audio, RATE, frames, fps, options["pose"])
    renderer = Renderer(_body(person, scene), size)
    habits = np.random.default_rng([6, clip.person])
    rig = MouthRig(renderer.body.face, float(habits.uniform(*AMPLITUDE)))
    truth = Truth(renderer, options["masks"])
    clip.path(root, ".truth.json").unlink(missing_ok=True)  # it says that the clip is complete
    # One encoder thread, because x264's output depends on their number.
    video = VideoWriter(clip.path(root, ".mp4"), fps, audio=(speech.audio, RATE), threads=1)
    with video as writer:
        for i in range(frames):
            weights, tongue = rig.frame(track, i, moves.weights(i, mood))
            pose = Pose(weights, moves.turn[i], moves.shift[i], moves.gaze[i], tongue)
            writer.write(renderer.frame(pose))
            truth.add(pose)
    with atomic(clip.path(root, ".truth.npz")) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **truth.arrays(), blink=moves.blink, fps=np.array(fps))
    write_json(
        clip.path(root, ".truth.json"),
        {
            "synthetic": True,
            "note": "A rendered, invented person. Head: MakeHuman (CC0).",
            "text": speech.text,
            "voice": speech.voice,
            "phones": [[p.name, round(p.start, 3), round(p.end, 3)] for p in speech.phones],
            "frame_time": "frame i shows the time (i + 0.5) / fps; sound starts at 0",
            "person": asdict(person),
            "scene": asdict(scene),
            "mood": mood,
            "camera": renderer.camera_facts(),
            "expressions": list(EXPRESSIONS),
            "labels": list(LABELS),
            "part": clip.part,
            "settings": options,
            "settings_hash": clip.settings_hash,
        },
    )


class Truth:
    """Collects what is known exactly about the frames of a renderer.

    Arrays: ``landmarks`` (T, 68, 2) pixels, x right and y down, the middle of the first pixel at
    0.5; 48 to 59 and 60 to 67 are the contours of the lips. ``landmarks_3d`` (T, 68, 3) cm, x to
    the picture's right, y up, z to the camera, see ``camera`` in the JSON file. ``opening`` (T,)
    cm between the inner lips along the head's height, 0 if they touch; ``width`` (T,) cm of the
    inner lips; ``mouth_opening`` and ``mouth_width``, the same over the height of the face
    (landmarks 27 to 8). ``pose`` (T, 3) degrees, see ``renderer.rotation``; ``shift`` (T, 3) cm;
    ``gaze`` (T, 2) degrees away from the camera, to the person's left and up; ``weights`` (T, 52)
    of the expression; ``tongue`` (T, 3) cm. ``labels`` (T, size, size) uint8, indices of
    ``LABELS``, if wanted; hair is also that of brows, lashes and beards.
    """

    def __init__(self, renderer: Renderer, masks: bool = True) -> None:
        self.renderer, self.masks, self.rows = renderer, masks, []
        body = renderer.body
        label = np.full(len(body.triangles), LABELS.index("mouth"), np.uint8)
        lips = np.append(lip_area(), np.zeros(len(body.points) - len(lip_area())))
        skin = np.isin(body.material, (SKIN, SOCKET))
        label[skin] = LABELS.index("skin")
        label[skin & (lips[body.triangles].mean(1) > 0.5)] = LABELS.index("lips")
        label[np.isin(body.material, (EYE_LEFT, EYE_RIGHT))] = LABELS.index("eyes")
        label[body.material == CLOTH] = LABELS.index("clothes")
        self.label = np.append(label, np.uint8(0))  # the last one is for the background

    def add(self, pose: Pose) -> None:
        """After ``renderer.frame(pose)``."""
        renderer = self.renderer
        marks = renderer.body.face.head.landmarks
        points = renderer.points[marks]
        face = np.linalg.norm(points[27] - points[8])
        gaps = (points[[61, 62, 63]] - points[[67, 66, 65]]) @ renderer.up
        opening, width = max(float(gaps.mean()), 0.0), np.linalg.norm(points[60] - points[64])
        self.rows.append({
            "landmarks": renderer.screen[marks, :2] / 2, "landmarks_3d": points,
            "opening": opening, "width": width, "mouth_opening": opening / face,
            "mouth_width": width / face, "pose": pose.turn, "shift": pose.shift,
            "gaze": pose.gaze, "weights": renderer.weights, "tongue": pose.tongue,
        })  # fmt: skip
        if self.masks:
            self.rows[-1]["labels"] = self._labels()

    def _labels(self) -> np.ndarray:
        size = self.renderer.size
        four = self.label[self.renderer.ids].reshape(size, 2, size, 2)
        four = np.sort(four.transpose(0, 2, 1, 3).reshape(size, size, 4), -1)
        a, b, c, _ = np.moveaxis(four, -1, 0)
        labels = np.where((a == b) | (b == c), b, c)  # the most frequent one
        labels[self.renderer.through < 0.5] = LABELS.index("hair")
        return labels

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of all frames."""

        def column(name: str) -> np.ndarray:
            values = np.stack([row[name] for row in self.rows])
            return values if name == "labels" else values.astype(np.float32)

        return {name: column(name) for name in self.rows[0]}
