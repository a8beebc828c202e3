"""Training items of MODA and MODAFaCo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.data.dataprocess.moda.files import (
    LEAST,
    OFFICIAL_SIDE,
    SAMPLE_RATE,
    SOUND,
    Features,
    Template,
)
from talkingface.data.dataprocess.moda.moda_process import MODAMappingProcess, MODAProcess
from talkingface.data.dataprocess.moda.sound import normalised, samples_of, with_context
from talkingface.data.dataset.base import ClipDataset
from talkingface.data.face.pose import face_center
from talkingface.data.face.series import between
from talkingface.data.media.audio import load_audio
from talkingface.data.npz import read_npy

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.data.dataprocess.base import Components

_CENTER_UNIT = 128.0  # px per unit of the subject mesh


def subject_code(mesh: np.ndarray, center: np.ndarray, official: bool) -> np.ndarray:
    """Mean mesh (478,3) as network input: about -1..1; official: in sides of the 768 px square."""
    if official:
        official_center = face_center(OFFICIAL_SIDE, OFFICIAL_SIDE)
        return ((mesh - center + official_center) / OFFICIAL_SIDE).astype(np.float32)
    return ((mesh - center) / _CENTER_UNIT).astype(np.float32)


def part_scale(values: np.ndarray) -> float:
    """One standard deviation of all values (T,n) of a part with mean 0."""
    return float(max(np.sqrt(np.square(values, dtype=np.float64).mean()), LEAST["points"]))


@dataclass(frozen=True)
class MappingClip:
    """A clip in memory.

    Attributes:
        id: of the clip.
        sound: (T,D) features, or (N,) normalised samples.
        offsets: part -> (T,n) px, degrees, scale.
        template: means that the offsets refer to.
        subject: (478,3) mean mesh as network input.
        torso_valid: (2,) visible shoulders.
        valid: (T,) frames with a face.
        context: neighbouring frames of sound on each side that a frame also gets.
    """

    id: str
    sound: np.ndarray
    offsets: dict[str, np.ndarray]
    template: Template
    subject: np.ndarray
    torso_valid: np.ndarray
    valid: np.ndarray
    fps: float
    context: int

    def __len__(self) -> int:
        return len(self.valid)

    def sound_of(self, start: int, stop: int) -> np.ndarray:
        """Network input for frames ``start`` to ``stop``: (n,D') features, or (N,) samples."""
        if self.sound.ndim == 1:
            return self.sound[samples_of(start, stop, self.fps)]
        return with_context(self.sound, start, stop, self.context)


class MODADataset(ClipDataset):
    """Windows of ``data.window`` frames, ``data.stride`` apart, in training shifted at random by up
    to half a stride. Shorter clips are padded."""

    needs_config = (
        "apc.hidden_size",
        "audio_encoder.around",
        "audio_encoder.kind",
        "data.template",
        "model_params.std_mode",
    )

    batch_spec = {
        "sound": "B F D float32; sound features per frame",
        "subject": "B 478 3 float32; mean mesh",
        "lips": "B F 120 float32; offsets from the subject's means, px",
        "eyes": "B F 180 float32; eyes, brows, irises, px",
        "head": "B F 7 float32; yaw, pitch, roll in degrees, x, y, z in px, size",
        "torso": "B F 54 float32; shoulders, px",
        "subject_std": "B 361 float32; standard deviation of the subject per value",
        "torso_valid": "B 2 float32 [0,1]; visible shoulders",
        "valid": "B F float32 [0,1]; frames with a face; 0 in the padding",
        "inside": "B F float32 [0,1]; frames of the clip; 0 in the padding",
    }

    uses_components = True

    def __init__(self, cfg: Config, split: str, components: Components) -> None:
        self.process = MODAMappingProcess(cfg, components)
        self.bands = {"mel": 80, "apc": cfg.apc.hidden_size}.get(cfg.audio_encoder.kind, 768)
        super().__init__(cfg, split)

    def build_index(self) -> list[tuple[int, int]]:
        names, self.unusable = self.process.prepared.usable(self.split)
        self.clips = [self._load(name) for name in names]
        index = []
        for number, clip in enumerate(self.clips):
            last = max(0, len(clip) - self.cfg.data.window)
            index += [(number, start) for start in (*range(0, last, self.cfg.data.stride), last)]
        return index

    def _load(self, name: str) -> MappingClip:
        features = self.process.features(name)
        folder = self.process.prepared.output_dirs(name)[0]
        template = self.process.template(name, self.cfg.data.template)
        if self.process.sound is None:
            sound = normalised(load_audio(folder / SOUND, SAMPLE_RATE))
        else:
            sound = read_npy(self.process.sound.path(folder))
        official = self.cfg.model_params.std_mode == "none"
        return MappingClip(
            id=name,
            sound=sound,
            offsets=template.offsets(features),
            template=template,
            subject=subject_code(template.mesh, features.face_center, official),
            torso_valid=features.torso_valid,
            valid=features.valid,
            fps=features.fps,
            context=self.cfg.audio_encoder.around,
        )

    def summary(self) -> dict[str, Any]:
        seconds = sum(len(clip) / clip.fps for clip in self.clips)
        return self.counts(seconds=round(seconds), items=len(self))

    def statistics(self) -> dict[str, Any]:
        """Standard deviations of the targets: one of the lips, one of the eyes, one per value of
        the head, one per axis of the visible shoulders."""
        joined = {
            key: np.concatenate([clip.offsets[key][clip.valid] for clip in self.clips])
            for key in ("lips", "eyes", "head")
        }
        shoulders = []
        for clip in self.clips:
            sides = clip.offsets["torso"][clip.valid].reshape(-1, 2, 9, 3)
            shoulders.append(sides[:, np.asarray(clip.torso_valid, bool)].reshape(-1, 3))
        torso = np.concatenate(shoulders)
        axes = [part_scale(torso[:, axis]) if len(torso) else 1.0 for axis in range(3)]
        head = np.square(joined["head"], dtype=np.float64).mean(axis=0) ** 0.5
        return {
            "lips": part_scale(joined["lips"]),
            "eyes": part_scale(joined["eyes"]),
            "head": np.maximum(head, LEAST["head"]).tolist(),
            "torso": axes,
        }

    def load_item(self, entry: tuple[int, int], rng: np.random.Generator) -> dict[str, Any]:
        clip, start = self.clips[entry[0]], entry[1]
        data = self.cfg.data
        if self.split == "train":
            start += int(rng.integers(-(data.stride // 2), data.stride // 2 + 1))
            start = int(np.clip(start, 0, max(0, len(clip) - data.window)))
        stop = min(len(clip), start + data.window)
        rows = slice(start, stop)
        sound = clip.sound_of(start, stop)
        parts = {key: values[rows] for key, values in clip.offsets.items()}
        valid = clip.valid[rows].astype(np.float32)
        if data.rand_stretch and self.split == "train" and rng.random() < 0.5:
            sound, parts, valid = stretched(sound, parts, valid, rng.uniform(0.75, 1.25))
        wave = sound.ndim == 1
        if data.spec_augment and self.split == "train" and not wave:
            sound = spec_augmented(sound, self.bands, clip.context, rng)
        length = round(data.window * SAMPLE_RATE / clip.fps) if wave else data.window
        return {
            "sound": _padded(sound, length),
            "subject": clip.subject,
            **{key: _padded(values, data.window) for key, values in parts.items()},
            "subject_std": clip.template.std.astype(np.float32),
            "torso_valid": np.asarray(clip.torso_valid, np.float32),
            "valid": _padded(valid, data.window),
            "inside": _padded(np.ones(len(valid), np.float32), data.window),
        }


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    """(n,...) padded with zeros or cut to ``length`` rows."""
    values = values[:length]
    result = np.zeros((length, *values.shape[1:]), values.dtype)
    result[: len(values)] = values
    return result


def stretched(
    sound: np.ndarray, parts: dict[str, np.ndarray], valid: np.ndarray, factor: float
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Stretch an item in time: factors below 1 are faster. The sound features are interpolated."""
    count = len(valid)
    time = np.clip(np.arange(max(2, round(count * factor))) / factor, 0, count - 1)
    low = time.astype(int)
    valid = np.minimum(valid[low], valid[np.minimum(low + 1, count - 1)])
    parts = {key: between(values, time, np.float32) for key, values in parts.items()}
    return between(sound, time, np.float32), parts, valid


def spec_augmented(
    sound: np.ndarray, bands: int, context: int, rng: np.random.Generator
) -> np.ndarray:
    """SpecAugment (Park et al. 2019) of the features of a window: a random level, and the mean in
    random bands and frames. All copies of a row, as context of its neighbours, get the same mask.

    Args:
        sound: (F, D) with D = (2 * context + 1) * rows * bands.
    """
    count = len(sound)
    rows = sound.reshape(count, 2 * context + 1, -1, bands)
    mean = rows.mean(axis=(0, 1, 2))
    rows = rows + rng.normal(0, 0.1) * rows.std()
    keep = np.ones((count + 2 * context, bands), bool)
    for _ in range(2):
        width, length = int(rng.integers(0, bands // 6 + 1)), int(rng.integers(0, 5))
        first = int(rng.integers(0, bands - width))
        keep[:, first : first + width] = False
        at = int(rng.integers(0, len(keep)))
        keep[at : at + length] = False
    kept = keep[np.arange(count)[:, None] + np.arange(2 * context + 1)]
    return np.where(kept[:, :, None], rows, mean).reshape(count, -1).astype(np.float32)


@dataclass(frozen=True)
class MeshClip:
    """Meshes of a clip: canonical offsets (T,n) from the template in px."""

    id: str
    lips: np.ndarray
    eyes: np.ndarray
    mesh: np.ndarray
    subject: np.ndarray

    def __len__(self) -> int:
        return len(self.mesh)


class MODAFaCoDataset(ClipDataset):
    """Random frames of a clip: lips, eyes and mesh."""

    needs_config = ("data.frames", "data.items_per_clip", "data.template", "model_params.std_mode")

    batch_spec = {
        "lips": "B F 120 float32; offsets from the subject's means, px",
        "eyes": "B F 180 float32; offsets, px",
        "mesh": "B F 1434 float32; offsets, px",
        "subject": "B 1434 float32; mean mesh",
    }

    def __init__(self, cfg: Config, split: str) -> None:
        self.process = MODAProcess(cfg)
        super().__init__(cfg, split)

    def build_index(self) -> list[int]:
        names, self.unusable = self.process.prepared.usable(self.split)
        self.clips = [self._load(name) for name in names]
        count = self.cfg.data.items_per_clip if self.split == "train" else 1
        return [number for number in range(len(self.clips)) for _ in range(count)]

    def _load(self, name: str) -> MeshClip:
        features: Features = self.process.features(name)
        template = self.process.template(name, self.cfg.data.template)
        valid, parts = features.valid, template.offsets(features)
        official = self.cfg.model_params.std_mode == "none"
        code = subject_code(template.mesh, features.face_center, official)
        mesh = (features.vertices - template.mesh).reshape(len(features), -1)
        lips, eyes = parts["lips"][valid], parts["eyes"][valid]
        return MeshClip(name, lips, eyes, mesh[valid].astype(np.float32), code.reshape(-1))

    def summary(self) -> dict[str, Any]:
        return self.counts(frames=sum(len(clip) for clip in self.clips))

    def statistics(self) -> dict[str, float]:
        """Standard deviations of lips, eyes and mesh, px."""
        return {
            key: part_scale(np.concatenate([getattr(clip, key) for clip in self.clips]))
            for key in ("lips", "eyes", "mesh")
        }

    def load_item(self, entry: int, rng: np.random.Generator) -> dict[str, Any]:
        clip = self.clips[entry]
        rows = rng.integers(len(clip), size=self.cfg.data.frames)
        item = {key: getattr(clip, key)[rows] for key in ("lips", "eyes", "mesh")}
        return {**item, "subject": clip.subject}
