"""Training items of audio2photoreal: windows of scenes with their sound (official code)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from talkingface.data.dataprocess.a2p.a2p_process import A2PProcess
from talkingface.data.dataprocess.a2p.files import (
    SceneFiles,
    Stats,
    load_array,
    missing_frames,
    read_sound,
    wrapped,
)
from talkingface.data.dataset.base import TalkingFaceDataset
from talkingface.data.scenes import SAMPLE_RATE

if TYPE_CHECKING:
    from talkingface.config.config import Config


@dataclass(frozen=True)
class SceneMotion:
    """A window of a scene, standardised with the statistics of the training data.

    Attributes:
        id: ``<scene>@<first frame>``.
        scene, start: name of the scene and first frame.
        motions: kind (``face``, ``pose``, ``lips``) -> (T,C).
        valid: (T,) frames with a valid face code.
        sound: (S,2) samples.
    """

    id: str
    scene: str
    start: int
    motions: dict[str, np.ndarray]
    valid: np.ndarray
    sound: np.ndarray
    stats: Stats
    fps: float

    def __len__(self) -> int:
        return len(self.valid)


class A2PMotionDataset(TalkingFaceDataset):
    """Windows of ``data.max_seq_length`` frames.

    In training each item is a random window of a scene. With ``data.add_padding`` its length is
    random too, and it is padded with zeros. Validation and test scenes are cut into consecutive
    windows. Scenes shorter than a window are used whole.

    Class attributes:
        kind: the item's ``motion``, which a scene must have: ``face``, ``pose`` or ``lips``.
    """

    needs_config = (
        "data.add_padding",
        "data.guide_step",
        "data.legacy_chunking",
        "data.windows_per_scene",
        "fps",
    )

    kind: ClassVar[str] = "face"

    def __init__(self, cfg: Config, split: str) -> None:
        self.process = A2PProcess(cfg)
        data = cfg.data
        self.length = data.max_seq_length
        self.least = data.min_seq_length or min(400, 2 * self.length // 3)
        self.frame = round(SAMPLE_RATE / cfg.fps)
        self.turned = self.process.turned(split)
        super().__init__(cfg, split)

    def build_index(self) -> list[tuple[int, int]]:
        process = self.process.partner() if self.turned else self.process
        names, self.unusable = process.prepared.usable(self.split)
        self.stats = self.process.load_stats()
        self.scenes: list[SceneFiles] = []
        self.missing: list[np.ndarray] = []
        self.scene_process = process
        for name in names:
            files = process.scene_files(name)
            if getattr(files, self.kind) is None:
                self.unusable[name] = f"it has no {self.kind}"
                continue
            self.scenes.append(files)
            self.missing.append(missing_frames(files.missing, len(load_array(files.face))))
        index = []
        for number, missing in enumerate(self.missing):
            starts = self.starts(len(missing))
            if self.split == "train":  # the starts are drawn later; only their number counts
                starts = [0] * max(1, round(len(starts) * self.cfg.data.windows_per_scene))
            index += [(number, s) for s in starts]
        return [entry for entry in index if self._usable(entry)]

    def _usable(self, entry: tuple[int, int]) -> bool:
        """Whether a window (in training: the scene) has any valid frame."""
        number, start = entry
        window = slice(start, start + self.length) if self.split != "train" else slice(None)
        return not self.missing[number][window].all()

    def starts(self, frames: int) -> list[int]:
        """First frames of consecutive windows; frames after the last full window are not used."""
        if frames < self.length:
            return [0]
        beyond = frames - self.length + (0 if self.cfg.data.legacy_chunking else 1)
        return list(range(0, max(beyond, 1), self.length))

    def summary(self) -> dict[str, Any]:
        frames = sum(len(missing) for missing in self.missing)
        counts = {"scenes": len(self.scenes), "unusable": len(self.unusable)}
        return {**counts, "seconds": round(frames / self.cfg.fps), "items": len(self)}

    # -- parts of a scene --------------------------------------------------------------------------

    def motion(self, number: int, kind: str, start: int, stop: int) -> np.ndarray:
        """Standardised motion (stop - start, C)."""
        values = np.array(load_array(getattr(self.scenes[number], kind))[start:stop], np.float32)
        if kind == "pose" and self.scene_process.wraps:
            values = wrapped(values)
        if kind == "lips":
            values = values.reshape(len(values), -1)
        mean, std = self.stats.units(kind)
        values = (values - mean.reshape(-1)) / std
        if kind != "pose":  # a missing face becomes the mean face
            values[self.missing[number][start:stop]] = 0
        return values.astype(np.float32)

    def sound(self, number: int, start: int, stop: int) -> np.ndarray:
        """Standardised sound (S,2) of the frames ``start`` to ``stop``."""
        first, count = start * self.frame, (stop - start) * self.frame
        samples = read_sound(self.scenes[number].sound, first, count)
        return self.stats.sound(samples[:, ::-1] if self.turned else samples)

    def _window(self, number: int, start: int, rng: np.random.Generator) -> tuple[int, int]:
        """First frame and end of an item's window; drawn at random in training."""
        frames = len(self.missing[number])
        length = min(self.length, frames)
        if self.split != "train":
            return start, start + length
        for _ in range(100):
            drawn = length
            if self.cfg.data.add_padding and length == self.length:
                drawn = int(rng.integers(self.least, self.length + 1))
            start = int(rng.integers(0, frames - drawn + 1))
            if not self.missing[number][start : start + drawn].all():
                break
        else:  # nearly all frames are missing: a window around a valid one
            valid = int(rng.choice(np.flatnonzero(~self.missing[number])))
            drawn = length
            start = int(np.clip(valid - length // 2, 0, frames - length))
        return start, start + drawn

    def load_item(self, entry: tuple[int, int], rng: np.random.Generator) -> dict[str, Any]:
        number, start = entry
        start, stop = self._window(number, start, rng)
        count, kind = stop - start, self.kind
        inside = np.ones(count, np.float32)
        valid = inside if kind == "pose" else (~self.missing[number][start:stop]).astype(np.float32)
        motion = self.motion(number, kind, start, stop)
        step = self.cfg.data.guide_step
        item = {
            "motion": _filled(motion, self.length),
            "valid": _filled(valid, self.length),
            "inside": _filled(inside, self.length),
            "keyframes": _filled(motion[::step], -(-self.length // step)),
            "key_valid": _filled(inside[::step], -(-self.length // step)),
        }
        if "audio" in self.batch_spec:
            item["audio"] = _filled(self.sound(number, start, stop), self.length * self.frame)
        return {key: item[key] for key in self.batch_spec}

    def key_poses(self) -> Iterator[np.ndarray]:
        """(K,C) key poses of each scene for each offset, so that each pose occurs once."""
        step = self.cfg.data.guide_step
        for number, missing in enumerate(self.missing):
            poses = self.motion(number, "pose", 0, len(missing))
            for offset in range(min(step, len(poses))):
                yield poses[offset::step]

    # -- whole windows, for tests ------------------------------------------------------------------

    def whole_clips(self) -> Iterator[SceneMotion]:
        """The windows of the split with all kinds of motion, by scene and start."""
        for number, start in self.index:
            files = self.scenes[number]
            stop = min(start + self.length, len(self.missing[number]))
            kinds = [k for k in ("face", "pose", "lips") if getattr(files, k) is not None]
            yield SceneMotion(
                id=f"{files.id}@{start}",
                scene=files.id,
                start=start,
                motions={kind: self.motion(number, kind, start, stop) for kind in kinds},
                valid=~self.missing[number][start:stop],
                sound=self.sound(number, start, stop),
                stats=self.stats,
                fps=self.cfg.fps,
            )


def _filled(values: np.ndarray, length: int) -> np.ndarray:
    """(n,...) padded with zeros or cut to ``length`` rows."""
    result = np.zeros((length, *values.shape[1:]), np.float32)
    result[: len(values)] = values[:length]
    return result


_MOTION = {
    "motion": "B T C float32; codes or poses, standardised",
    "valid": "B T float32 [0,1]; frames of the scene with a valid face code; poses: all its frames",
    "inside": "B T float32 [0,1]; frames of the scene, 0 in the padding",
}
_SOUND = {"audio": "B S 2 float32; 48 kHz, this person and the partner, standardised"}
_KEYS = {
    "keyframes": "B K C float32; a pose every data.guide_step frames",
    "key_valid": "B K float32 [0,1]; key poses of the scene",
}


class A2PFaceDataset(A2PMotionDataset):
    """Face codes and sound."""

    batch_spec = {**_MOTION, **_SOUND}


class A2PLipDataset(A2PMotionDataset):
    """Lip points and sound."""

    kind = "lips"
    batch_spec = {**_MOTION, **_SOUND}

    def _explain_empty(self) -> str:
        text = super()._explain_empty()
        if not self.scenes and any("no lips" in reason for reason in self.unusable.values()):
            text += (
                "\n  The released data holds no lip points, and they cannot be computed from its "
                "codes. Train A2PLip on videos (--dataset=<videos>), use the authors' file, or "
                "train A2PFace without lips: --lip_cond=none (--lip=null in the recipe)."
            )
        return text


class A2PPoseDataset(A2PMotionDataset):
    """Poses, key poses and sound."""

    kind = "pose"
    batch_spec = {**_MOTION, **_KEYS, **_SOUND}


class A2PGuideVQDataset(A2PMotionDataset):
    """Key poses without sound."""

    kind = "pose"
    batch_spec = _KEYS


class A2PGuideDataset(A2PMotionDataset):
    """Key poses and sound."""

    kind = "pose"
    batch_spec = {**_KEYS, **_SOUND}
