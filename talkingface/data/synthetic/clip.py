"""Generate one clip: speech, mouth and head motion, frames, ground truth."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from talkingface.data.media.writer import VideoWriter
from talkingface.data.synthetic.articulation import frame_times, mouth_track
from talkingface.data.synthetic.deform import FaceState, measure
from talkingface.data.synthetic.identity import build_identity, look_of
from talkingface.data.synthetic.motion import head_track
from talkingface.data.synthetic.portrait import load_portrait
from talkingface.data.synthetic.render import FaceRenderer
from talkingface.data.synthetic.speech import RATE, speak
from talkingface.utils.paths import atomic, write_json


@dataclass(frozen=True)
class ClipPlan:
    """Name of a clip and everything that its content depends on.

    Attributes:
        name: ``<identity>/<clip>``, the path below ``data`` without extension.
        index: number of the clip in the dataset.
        identity: number of the pseudo-identity.
        settings: JSON-able settings shared by all clips (seed, seconds, size, fps...).
        settings_hash: hash of the settings, the index and the identity.
    """

    name: str
    index: int
    identity: int
    settings: dict
    settings_hash: str

    def path(self, root: Path, suffix: str) -> Path:
        """The clip's file with ``suffix`` below the dataset folder ``root``."""
        return root / "data" / f"{self.name}{suffix}"


@lru_cache(maxsize=8)
def _renderer(identity: int, seed: int, size: int) -> FaceRenderer:
    portrait = load_portrait(size)
    return FaceRenderer(portrait, build_identity(portrait, look_of(identity, seed)))


def make_clip(root: Path, plan: ClipPlan, engine: str | None = None) -> None:
    """Write ``<name>.mp4``, ``.truth.npz`` and, last, ``.truth.json`` below ``root/data``.

    ``engine`` selects the speech engine, see :func:`speech.speak`.
    """
    seed, seconds, fps, size = (plan.settings[k] for k in ("seed", "seconds", "fps", "size"))
    look = look_of(plan.identity, seed)
    frames = round(seconds * fps)
    draw = np.random.default_rng([seed, plan.index, 1])
    speech = speak(draw, frames / fps, look.voice, look.pitch, look.rate, engine)
    mouth = mouth_track(speech.phonemes, frames / fps, fps)
    head = head_track(np.random.default_rng([seed, plan.index, 2]), frame_times(frames, fps))
    renderer = _renderer(plan.identity, seed, size)
    measured = []
    # One encoder thread, because x264's output depends on their number.
    video = VideoWriter(plan.path(root, ".mp4"), fps, audio=(speech.audio, RATE), threads=1)
    with video as writer:
        for i in range(frames):
            state = FaceState(
                opening=float(mouth.opening[i]),
                width=float(mouth.width[i]),
                rounding=float(mouth.rounding[i]),
                blink=float(head.blink[i]),
                brow=float(head.brow[i]),
                pose=tuple(head.pose[i]),
                sway=tuple(head.sway[i] * renderer.rig.height),
            )
            picture, placed = renderer.render(state)
            measured.append(measure(placed))
            writer.write(picture)
    gap, width = np.array(measured, np.float32).T
    truth = {
        "mouth_opening": gap,
        "mouth_width": width,
        "rounding": mouth.rounding,
        "pose": head.pose,
        "blink": head.blink,
    }
    arrays = {key: np.asarray(value, np.float32) for key, value in truth.items()}
    with atomic(plan.path(root, ".truth.npz")) as temporary:
        np.savez(temporary, **arrays, fps=np.array(fps))
    write_json(
        plan.path(root, ".truth.json"),
        {
            "synthetic": True,
            "note": "Made by talkingface: a photograph (scikit-image astronaut, public domain)"
            " warped in time with synthetic speech. No recording of a person speaking.",
            "text": speech.text,
            "engine": speech.engine,
            "phonemes": [
                {"symbol": p.symbol, "start": round(p.start, 4), "end": round(p.end, 4)}
                for p in speech.phonemes
            ],
            "frame_time": "frame i shows the time (i + 0.5) / fps; sound starts at 0",
            "pose_order": "pitch, yaw, roll in degrees, relative to the photograph",
            "identity": plan.identity,
            "look": asdict(look),
            "clip_index": plan.index,
            "seed": seed,
            "settings": plan.settings,
            "settings_hash": plan.settings_hash,
        },
    )
