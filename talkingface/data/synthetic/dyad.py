"""Conversations of two rendered people in the layout of the released data, without pictures.

Two persons speak in turns, with sentences of :mod:`~talkingface.data.synthetic.sentences` and the
voices of espeak-ng. Face codes are a fixed linear map of the expression weights of the first one,
whose mouth follows the phones (see ``mouth.py``) and who smiles a little while the other one
speaks. Lip points are places on the face at rest pose, moved by the same expressions. Poses are a
fixed linear map of head movement, loudness, the rhythm of the speech, the partner's loudness and
slow random walks: the head model has no body. The last four scenes, the test, have sentences that
no other scene has.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter1d

from talkingface.data.media.audio import resampled
from talkingface.data.scenes import (
    FACE,
    FACE_SIZE,
    LIPS,
    MISSING,
    POSE,
    POSE_SIZE,
    SAMPLE_RATE,
    SOUND,
)
from talkingface.data.synthetic.align import RATE, Phone
from talkingface.data.synthetic.dyad_config import DyadSection
from talkingface.data.synthetic.face import make_face
from talkingface.data.synthetic.head import EXPRESSIONS, expression
from talkingface.data.synthetic.mouth import MouthRig, mouth_track
from talkingface.data.synthetic.movement import movement
from talkingface.data.synthetic.person import Person
from talkingface.data.synthetic.voices import ESPEAK, speak
from talkingface.errors import DataError
from talkingface.utils.env import require
from talkingface.utils.logs import progress
from talkingface.utils.paths import atomic, read_json, write_json

if TYPE_CHECKING:
    from talkingface.config.config import Config

FPS = 30
PERSON, PARTNER = 3, 2  # numbers of the persons: a woman, a man
LIP_POINTS = [*range(48, 68), *range(17), 31, 33, 35]  # of 68 landmarks: lips, jaw, nose
TEST_SCENES = 4
_VERSION = 4


class DyadSource:
    """Writes the scenes of a synthetic person."""

    def __init__(self, folder: Path, options: DyadSection) -> None:
        self.folder, self.options = folder, options

    @classmethod
    def from_config(cls, cfg: Config) -> DyadSource:
        return cls(cfg.data_dir, cfg.dyad)

    @cached_property
    def _maps(self) -> dict[str, np.ndarray]:
        """Fixed linear maps of the person; ranges of codes differ by up to 100, like real ones."""
        rng = np.random.default_rng([self.options.seed, 0])
        spread = 10 ** rng.uniform(-2, 0, FACE_SIZE)
        return {
            "face": rng.normal(size=(len(EXPRESSIONS), FACE_SIZE)) * spread * 3,
            "face_mean": rng.normal(size=FACE_SIZE),
            "face_noise": 0.05 * spread,
            "pose": rng.normal(size=(9, POSE_SIZE)) * 0.15,
            "pose_mean": rng.normal(size=POSE_SIZE) * 0.2,
        }

    def ensure(self, show_progress: str | bool = True) -> None:
        """Write the scenes that are missing.

        Raises:
            DataError: the folder holds scenes that are not of these settings.
            EnvironmentProblem: disk full, read-only folder, missing package.
        """
        mark = self.folder / "synthetic.json"
        settings = {"synthetic": True, "version": _VERSION, **self.options.model_dump()}
        if read_json(mark) != settings:
            if next(self.folder.glob("scene*"), None):
                raise DataError(
                    f"{self.folder} holds scenes of other settings or of an earlier version. "
                    "Delete the dataset's folder, or set another one with --root=<folder>."
                )
            write_json(mark, settings)
        # One more than the usable scenes: scene 3 has no valid face and must be skipped.
        numbers = range(1, self.options.scenes + 2)
        missing = [n for n in numbers if not Path(self._stem(n) + SOUND).is_file()]
        for number in progress(missing, unit="scene", desc="conversations", show=show_progress):
            self._scene(number)

    def _stem(self, number: int) -> str:
        return str(self.folder / f"scene{number:02d}")

    def _scene(self, number: int) -> None:
        rng = np.random.default_rng([self.options.seed, number])
        frames = int(self.options.seconds * FPS * rng.uniform(1.0, 1.5)) + 1
        part = "test" if number > self.options.scenes + 1 - TEST_SCENES else "train"
        waves, phones = _talk(frames / FPS, rng, part)
        loud, partner = (_loudness(wave, frames) for wave in waves)
        moves = movement(rng, waves[0], RATE, frames, FPS, 1.0)
        face = make_face(Person.draw(PERSON).shapes())
        rig, track = MouthRig(face, 1.3), mouth_track(phones, frames, FPS)
        listening = _smooth(partner, 8)
        weights = np.stack([
            rig.frame(track, i, moves.weights(i, "neutral") + expression(mouthSmile=0.4 * smile))[0]
            for i, smile in enumerate(listening)
        ])  # fmt: skip
        maps = self._maps
        code = weights @ maps["face"] + maps["face_mean"]
        code += rng.normal(size=code.shape) * maps["face_noise"]
        marks = face.head.landmarks[LIP_POINTS]
        lips = face.neutral[marks] + np.tensordot(weights, face.head.expressions[:, marks], 1)
        moved = [3 * _smooth(loud, 12), 3 * listening, loud, *(moves.turn.T / 4)]
        moved += [0.6 * walk for walk in _walks(3, frames, 60, rng)]
        pose = np.stack(moved, 1) @ maps["pose"] + maps["pose_mean"]
        pose[:, :3] += (0.8, -11.0, -27.0)
        pose += rng.normal(size=pose.shape) * 0.01
        missing = np.zeros(0, np.int64)
        if number == 3:
            missing = np.arange(frames)
        elif number % 5 == 2:
            missing = np.sort(rng.choice(frames, max(1, frames // 40), replace=False))
        code[missing] = 0
        soundfile = require("soundfile", why="Two-channel sound")
        arrays = {
            POSE: pose.astype(np.float32),
            FACE: code.astype(np.float32),
            MISSING: missing,
            LIPS: lips.astype(np.float32),
        }
        stem = self._stem(number)
        for end, values in arrays.items():
            with atomic(Path(stem + end)) as temporary, open(temporary, "wb") as file:
                np.save(file, values)
        samples = frames * SAMPLE_RATE // FPS
        sound = np.zeros((samples, 2), np.float32)
        for channel, wave in enumerate(waves):
            wave = resampled(wave, RATE, SAMPLE_RATE)[:samples]
            sound[: len(wave), channel] = wave
        sound += rng.normal(size=sound.shape) * 2e-4
        with atomic(Path(stem + SOUND)) as temporary:  # last: it marks the scene as complete
            soundfile.write(str(temporary), sound, SAMPLE_RATE, "PCM_16", format="WAV")


def _talk(
    seconds: float, rng: np.random.Generator, part: str
) -> tuple[list[np.ndarray], list[Phone]]:
    """Two people who speak in turns: their waves, and the phones of the first one."""
    people = [Person.draw(PERSON), Person.draw(PARTNER)]
    waves = [np.zeros(round(seconds * RATE), np.float32) for _ in people]
    phones, at, turn = [], 0.0, int(rng.random() < 0.4)
    while seconds - at > 1.2:
        length = min(float(rng.uniform(1.5, 4.5)), seconds - at)
        speech = speak(ESPEAK, people[turn], length, rng, part)
        first = round(at * RATE)
        waves[turn][first : first + len(speech.audio)] += speech.audio[: len(waves[turn]) - first]
        if turn == 0:
            phones += [Phone(p.name, p.start + at, p.end + at) for p in speech.phones]
        at, turn = at + length, 1 - turn
    return waves, phones


def _loudness(wave: np.ndarray, frames: int) -> np.ndarray:
    """Root mean square of each frame, (T,), over the largest one."""
    edges = np.linspace(0, len(wave), frames + 1).astype(int)
    power = np.add.reduceat(wave.astype(np.float64) ** 2, edges[:-1]) / np.diff(edges)
    loud = np.sqrt(power)
    return _smooth(loud / max(loud.max(), 1e-4), 1)


def _smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_filter1d(values, sigma, mode="nearest")


def _walks(count: int, frames: int, sigma: float, rng: np.random.Generator) -> list[np.ndarray]:
    """``count`` smoothed noise curves (T,) with a standard deviation of about 0.5."""
    longer = frames + 400
    curves = [_smooth(rng.normal(size=longer), sigma)[200:-200] for _ in range(count)]
    return [0.5 * curve * np.sqrt(2 * sigma * np.sqrt(np.pi)) for curve in curves]
