"""Training items of Feature2Face: pictures of the window, feature maps, candidate pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.data.dataprocess.lsp.drawing import draw_feature_map
from talkingface.data.dataprocess.lsp.files import ClipFiles, Person
from talkingface.data.dataprocess.lsp.lsp_process import LSPProcess
from talkingface.data.dataprocess.lsp.window import Window
from talkingface.data.dataset.base import ClipDataset
from talkingface.data.face.masks import dilated_mask
from talkingface.data.face.series import between
from talkingface.data.media.apc_mel import MOTION_FPS
from talkingface.data.media.pictures import PictureReader, signed

if TYPE_CHECKING:
    from talkingface.config.config import Config


@dataclass
class DrawnClip:
    """Pictures of a clip, and the points and candidates that they are drawn from.

    Attributes:
        landmarks: (n,73,2), shoulders: (n,18,2), px of the 512 px window, per picture.
        candidates: (S,S,12) uint8.
    """

    id: str
    pictures: PictureReader
    window: Window
    landmarks: np.ndarray
    shoulders: np.ndarray
    candidates: np.ndarray


def at_rate(values: np.ndarray, fps: float, count: int) -> np.ndarray:
    """Motion (N, ...) at 60 Hz, linearly interpolated at ``count`` times k / fps."""
    return between(values, np.minimum(np.arange(count) * MOTION_FPS / fps, len(values) - 1))


def drawn_shoulders(clip: ClipFiles, person: Person) -> np.ndarray:
    """Shoulders (N,18,2) of a clip, NaN on sides that are never drawn for the person."""
    shoulders = clip.shoulders.reshape(-1, 2, 9, 2).copy()
    shoulders[:, ~_sides(person)] = np.nan
    return shoulders.reshape(-1, 18, 2)


def _sides(person: Person) -> np.ndarray:
    """(2,) bool: sides whose shoulder is drawn."""
    return np.array(person.manifest.get("shoulder_sides", [True, True]))


def load_face_clip(
    folder: Any, size: int, people: dict[Any, np.ndarray] | None = None
) -> DrawnClip:
    """Read a clip with its motion at the times of its pictures.

    Args:
        people: candidates by folder of the person, read once for all clips.
    """
    people = {} if people is None else people
    clip = ClipFiles(folder)
    person = Person(folder.parents[1])
    if person.folder not in people:
        people[person.folder] = person.candidates(size)
    pictures = PictureReader(clip.pictures_path)
    count, fps = int(clip.manifest.get("frames") or len(pictures)), clip.fps
    return DrawnClip(
        clip.manifest.get("clip", clip.name),
        pictures,
        clip.window,
        at_rate(clip.landmarks, fps, count),
        at_rate(drawn_shoulders(clip, person), fps, count),
        people[person.folder],
    )


class Feature2FaceDataset(ClipDataset):
    """Every picture of every clip, or ``data.frames_per_clip`` random ones per epoch."""

    needs_config = ("data.frames_per_clip", "model_params.image_size")

    batch_spec = {
        "feature_map": "B 1 S S float32 [0,1]; lines through face and shoulders",
        "cand_image": "B 12 S S float32 [-1,1]; four pictures of the person, RGB",
        "tgt_image": "B 3 S S float32 [-1,1]; the real picture, RGB",
        "weight_mask": "B 1 S S float32 [0,1]; the mouth, dilated",
    }

    def __init__(self, cfg: Config, split: str) -> None:
        self.size = cfg.model_params.image_size
        self.process = LSPProcess(cfg)
        super().__init__(cfg, split)

    def build_index(self) -> list[tuple[int, int]]:
        names, self.unusable = self.process.prepared.usable(self.split)
        self.clips = []
        index: list[tuple[int, int]] = []
        limit = self.cfg.data.frames_per_clip
        people: dict[Any, np.ndarray] = {}
        for name in names:
            folder = self.process.prepared.output_dirs(name)[0]
            clip = load_face_clip(folder, self.size, people)
            sides = np.repeat(_sides(Person(folder.parents[1])), 9)
            # Similar pictures, drawn with and without shoulder lines, would contradict each other.
            if self.split == "train" and not np.isfinite(clip.shoulders[:, sides]).all():
                self.unusable[name] = "no shoulders, unlike other clips of the person"
                continue
            total = len(clip.landmarks)
            spread = np.linspace(0, total - 1, min(limit or total, total)).astype(int)
            index += [(len(self.clips), int(number)) for number in spread]
            self.clips.append(clip)
        return index

    def summary(self) -> dict[str, Any]:
        return self.counts(pictures=sum(len(clip.landmarks) for clip in self.clips))

    def load_item(self, entry: tuple[int, int], rng: np.random.Generator) -> dict[str, Any]:
        clip, number = self.clips[entry[0]], entry[1]
        if self.cfg.data.frames_per_clip and self.split == "train":
            number = int(rng.integers(len(clip.landmarks)))
        picture = clip.window.cut(clip.pictures[number], self.size)
        lines = draw_feature_map(clip.landmarks[number], clip.shoulders[number], self.size)
        lips, factor = clip.landmarks[number, 46:58], self.size / 512
        return {
            "feature_map": (lines / 255).astype(np.float32)[None],
            "cand_image": signed(clip.candidates),
            "tgt_image": signed(picture),
            "weight_mask": dilated_mask(lips * factor, self.size, 45 * factor)[None],
        }
