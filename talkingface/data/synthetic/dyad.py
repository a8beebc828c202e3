"""Synthetic conversations in the layout of the released data.

Channel 0 is a harmonic tone with a random rhythm of syllables, channel 1 another one that is
active in its pauses. Face codes and poses are fixed linear maps of loudness, change of loudness and
brightness of channel 0, of the loudness of channel 1, and of slow random walks. Forty lip points
depend on loudness and brightness.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

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
from talkingface.data.synthetic.dyad_config import DyadSection
from talkingface.utils.env import require
from talkingface.utils.paths import atomic, write_json

if TYPE_CHECKING:
    from talkingface.config.config import Config

FPS = 30
N_LIPS = 40
_VERSION = 3
_FINE = SAMPLE_RATE // FPS // 8  # samples per step of the envelopes


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
        lips = rng.normal(size=(2, N_LIPS * 3)) * 0.3
        angle = np.linspace(0, 2 * np.pi, N_LIPS, endpoint=False)
        lips = lips * 0.1
        lips[0, 1::3] += np.sin(angle)  # loud: open
        lips[1, 0::3] += 0.5 * np.cos(angle)  # bright: wide
        return {
            "face": rng.normal(size=(6, FACE_SIZE)) * spread,
            "face_mean": rng.normal(size=FACE_SIZE),
            "face_noise": 0.15 * spread,
            "pose": rng.normal(size=(6, POSE_SIZE)) * 0.15,
            "pose_mean": rng.normal(size=POSE_SIZE) * 0.2,
            "lips": lips,
            "lips_mean": np.stack([np.cos(angle), 0.3 * np.sin(angle), 0 * angle], 1).reshape(-1),
        }

    def ensure(self, show_progress: bool = True) -> None:
        """Write the scenes unless scenes of the same settings exist."""
        from talkingface.utils.logs import progress

        settings = {"version": _VERSION, **self.options.model_dump()}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        mark = self.folder / "synthetic.json"
        if mark.is_file() and json.loads(mark.read_text("utf-8")).get("settings") == digest:
            return
        mark.unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("scene*"):
            path.unlink()
        # One more than the usable scenes: scene 3 has no valid face and must be skipped.
        numbers = range(1, self.options.scenes + 2)
        for number in progress(numbers, unit="scene", desc="conversations", show=show_progress):
            self._scene(number)
        write_json(mark, {"synthetic": True, "settings": digest, **settings})

    def _scene(self, number: int) -> None:
        rng = np.random.default_rng([self.options.seed, number])
        length = self.options.seconds * FPS
        frames = int(length * rng.uniform(1.0, 1.5)) + 1
        own, other = self._voices(frames, rng)
        maps = self._maps
        loud, bright = own["loud"], own["bright"]
        change = np.gradient(loud) * 4
        partner = _smooth(other["loud"], 8)
        latent = np.stack([loud, change, loud * bright, partner, *_walks(2, frames, 45, rng)])
        code = latent.T @ maps["face"] + maps["face_mean"]
        code += rng.normal(size=code.shape) * maps["face_noise"]
        rhythm = _smooth(loud, 12)
        walks = [0.6 * walk for walk in _walks(3, frames, 60, rng)]
        moved = np.stack([5 * rhythm, 4 * partner, 1.5 * loud, *walks])
        pose = moved.T @ maps["pose"] + maps["pose_mean"]
        pose[:, :3] += (0.8, -11.0, -27.0)
        pose += rng.normal(size=pose.shape) * 0.01
        lips = np.stack([loud, bright * loud]).T @ maps["lips"] + maps["lips_mean"]
        missing = np.zeros(0, np.int64)
        if number == 3:
            missing = np.arange(frames)
        elif number % 5 == 2:
            missing = np.sort(rng.choice(frames, max(1, frames // 40), replace=False))
        code[missing] = 0
        sound = np.stack([own["wave"], other["wave"]], axis=1)
        soundfile = require("soundfile", why="Two-channel sound")
        arrays = {
            POSE: pose.astype(np.float32),
            FACE: code.astype(np.float32),
            MISSING: missing,
            LIPS: lips.reshape(frames, N_LIPS, 3).astype(np.float32),
        }
        stem = str(self.folder / f"scene{number:02d}")
        for end, values in arrays.items():
            with atomic(Path(stem + end)) as temporary, open(temporary, "wb") as file:
                np.save(file, values)
        with atomic(Path(stem + SOUND)) as temporary:
            soundfile.write(str(temporary), sound, SAMPLE_RATE, "PCM_16", format="WAV")

    def _voices(
        self, frames: int, rng: np.random.Generator
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Two voices that take turns: waves, and loudness and brightness (T,) in 0..1."""
        steps = frames * 8
        turn = np.zeros(steps)
        at, mine = 0, bool(rng.random() < 0.6)
        while at < steps:
            stop = at + int(rng.uniform(1.0, 3.5) * FPS * 8)
            turn[at:stop] = mine
            at, mine = stop, not mine
        turn = _smooth(turn, 12)
        return self._voice(turn, 120.0, rng), self._voice(1 - turn, 210.0, rng)

    def _voice(self, turn: np.ndarray, pitch: float, rng: np.random.Generator) -> dict:
        steps = len(turn)
        loud, bright = np.zeros(steps), np.full(steps, 0.5)
        at = 0
        while at < steps:  # syllables of 0.12 to 0.3 s, one in six silent
            length = int(rng.uniform(0.12, 0.3) * FPS * 8)
            piece = slice(at, at + length)
            shape = np.sin(np.linspace(0, np.pi, length)) ** 0.7
            level = 0.0 if rng.random() < 1 / 6 else rng.uniform(0.4, 1.0)
            loud[piece] = level * shape[: len(loud[piece])]
            bright[piece] = rng.random()
            at += length
        loud, bright = loud * turn, _smooth(bright, 10)
        time = np.arange(steps * _FINE) / SAMPLE_RATE
        place = np.arange(steps) * _FINE
        samples = np.arange(steps * _FINE)
        volume, colour = np.interp(samples, place, loud), np.interp(samples, place, bright)
        phase = 2 * np.pi * pitch * time + 0.5 * np.sin(2 * np.pi * 3.1 * time)
        wave = np.zeros(len(time))
        for harmonic in range(1, 13):  # a formant that moves from 400 to 1800 Hz
            centre = 400 + 1400 * colour
            wave += np.exp(-(((harmonic * pitch - centre) / 350) ** 2)) * np.sin(harmonic * phase)
        wave = 0.05 * volume * (wave + 0.3 * np.sin(phase)) + rng.normal(size=len(time)) * 2e-4
        coarse = {"loud": _smooth(loud, 6), "bright": bright}
        return {"wave": wave, **{key: v.reshape(-1, 8).mean(axis=1) for key, v in coarse.items()}}


def _smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(values, sigma, mode="nearest")


def _walks(count: int, frames: int, sigma: float, rng: np.random.Generator) -> list[np.ndarray]:
    """``count`` smoothed noise curves (T,) with a standard deviation of about 0.5."""
    longer = frames + 400
    curves = [_smooth(rng.normal(size=longer), sigma)[200:-200] for _ in range(count)]
    return [0.5 * curve * np.sqrt(2 * sigma * np.sqrt(np.pi)) for curve in curves]
