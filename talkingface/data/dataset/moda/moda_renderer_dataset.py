"""Training items of MODARenderer: drawn meshes, reference pictures, time, target picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.data.dataprocess.moda.drawing import draw_condition, mouth_mask
from talkingface.data.dataprocess.moda.files import Features, posed, posed_torso
from talkingface.data.dataprocess.moda.moda_process import MODAPicturesProcess
from talkingface.data.dataset.base import ClipDataset
from talkingface.data.face.boxes import resize_image
from talkingface.data.face.portrait import eye_aspect_ratio, presentable
from talkingface.data.face.topology import INNER_LIP_BOTTOM, INNER_LIP_TOP
from talkingface.data.media.pictures import PictureReader, signed

if TYPE_CHECKING:
    from talkingface.config.config import Config


@dataclass
class PictureClip:
    """Pictures of a clip, and the points and references that they are generated from.

    Attributes:
        landmarks: (T,478,2), torso: (T,18,2), px of the crop.
        references: (S,S,3n) uint8.
        valid: (T,) frames with a face.
    """

    id: str
    pictures: PictureReader
    landmarks: np.ndarray
    torso: np.ndarray
    references: np.ndarray
    valid: np.ndarray

    def __len__(self) -> int:
        return len(self.landmarks)


def reference_frames(features: Features, count: int) -> np.ndarray:
    """``count`` frames at equal steps in the ranking from closed to open mouth; one: the median.

    Each is the nearest of them with open eyes and a face that does not move fast.
    """
    gap = features.vertices[:, INNER_LIP_BOTTOM, 1] - features.vertices[:, INNER_LIP_TOP, 1]
    valid = np.flatnonzero(features.valid)
    points = features.landmarks[valid]
    good = valid[presentable(eye_aspect_ratio(points), points)]
    order = valid[np.argsort(gap[valid], kind="stable")]
    wanted = gap[order[((np.arange(count) + 0.5) / count * len(order)).astype(int)]]
    distance = np.abs(gap[good] - wanted[:, None])
    for row in range(1, count if len(good) >= count else 0):  # no frame twice
        distance[row:, distance[row - 1].argmin()] = np.inf
    return good[distance.argmin(1)]


def references(pictures: PictureReader, features: Features, size: int, n_ref: int) -> np.ndarray:
    """Reference pictures (S,S,3n) uint8 of a clip."""
    chosen = [resize_image(pictures[int(i)], size) for i in reference_frames(features, n_ref)]
    return np.concatenate(chosen, axis=-1)


class MODARendererDataset(ClipDataset):
    """Every picture of every clip, or ``data.frames_per_clip`` random ones per epoch."""

    needs_config = ("data.frames_per_clip", "model_params.image_size", "model_params.n_ref")

    batch_spec = {
        "condition": "B 3 S S float32 [-1,1]; mesh and shoulders as coloured lines, RGB",
        "reference": "B R S S float32 [-1,1]; pictures of the person, RGB, 3 channels each",
        "time": "B float32; number of the frame in its clip",
        "tgt_image": "B 3 S S float32 [-1,1]; the real picture, RGB",
        "weight_mask": "B 1 S S float32 [0,1]; the mouth, dilated",
    }

    def __init__(self, cfg: Config, split: str) -> None:
        self.size = cfg.model_params.image_size
        self.process = MODAPicturesProcess(cfg)
        super().__init__(cfg, split)

    def build_index(self) -> list[tuple[int, int]]:
        names, self.unusable = self.process.prepared.usable(self.split)
        limit = self.cfg.data.frames_per_clip
        self.clips, index = [self._load(name) for name in names], []
        for number, clip in enumerate(self.clips):
            valid = np.flatnonzero(clip.valid)
            total = len(valid)
            spread = np.linspace(0, total - 1, min(limit or total, total)).astype(int)
            index += [(number, int(frame)) for frame in valid[spread]]
        return index

    def _load(self, name: str) -> PictureClip:
        features, pictures = self.process.features(name), self.process.pictures(name)
        landmarks = posed(features, features.vertices, features.headpose)[..., :2]
        return PictureClip(
            name,
            pictures,
            landmarks.astype(np.float32),
            posed_torso(features, features.torso, features.headpose),
            references(pictures, features, self.size, self.cfg.model_params.n_ref),
            features.valid,
        )

    @property
    def longest(self) -> int:
        """Frames of the longest clip."""
        return max(len(clip) for clip in self.clips)

    def summary(self) -> dict[str, Any]:
        return self.counts(pictures=sum(len(clip) for clip in self.clips))

    def load_item(self, entry: tuple[int, int], rng: np.random.Generator) -> dict[str, Any]:
        clip, number = self.clips[entry[0]], entry[1]
        if self.cfg.data.frames_per_clip and self.split == "train":
            number = int(rng.choice(np.flatnonzero(clip.valid)))
        landmarks = clip.landmarks[number]
        return {
            "condition": signed(draw_condition(landmarks, clip.torso[number], self.size)),
            "reference": signed(clip.references),
            "time": np.float32(number),
            "tgt_image": signed(resize_image(clip.pictures[number], self.size)),
            "weight_mask": mouth_mask(landmarks, self.size)[None],
        }
