"""Training items of Feature2Face: pictures in the window, their feature maps, the candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.data.dataprocess.lsp.drawing import draw_feature_map
from talkingface.data.dataprocess.lsp.files import ClipFiles, Person
from talkingface.data.dataprocess.lsp.lsp_process import LSPProcess
from talkingface.data.dataprocess.lsp.window import Window
from talkingface.data.dataset.base import TalkingFaceDataset
from talkingface.data.media.apc_mel import MOTION_FPS
from talkingface.data.media.pictures import PictureReader, signed

if TYPE_CHECKING:
    from talkingface.config.config import Config


@dataclass
class DrawnClip:
    """What the pictures of a clip need.

    Attributes:
        landmarks: (n,73,2), shoulders: (n,18,2), of the pictures, in px of the 512 px window.
        candidates: (S,S,12) uint8.
    """

    id: str
    pictures: PictureReader
    window: Window
    landmarks: np.ndarray
    shoulders: np.ndarray
    candidates: np.ndarray


def at_rate(values: np.ndarray, fps: float, count: int) -> np.ndarray:
    """Motion (N, ...) at 60 Hz at the times k / fps, linear in between."""
    return between(values, np.minimum(np.arange(count) * MOTION_FPS / fps, len(values) - 1))


def between(values: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Values (N, ...) at fractional rows (n,), linear in between."""
    low = np.minimum(time.astype(int), max(0, len(values) - 2))
    high = np.minimum(low + 1, len(values) - 1)
    part = (time - low).reshape(-1, *[1] * (values.ndim - 1))
    return values[low] * (1 - part) + values[high] * part


def drawn_shoulders(clip: ClipFiles, person: Person) -> np.ndarray:
    """(N,18,2) of a clip; sides that the person has not are left out, as at generation."""
    shoulders = clip.shoulders.reshape(-1, 2, 9, 2).copy()
    shoulders[:, ~np.array(person.manifest.get("shoulder_sides", [True, True]))] = np.nan
    return shoulders.reshape(-1, 18, 2)


def load_face_clip(
    folder: Any, size: int, people: dict[Any, np.ndarray] | None = None
) -> DrawnClip:
    """Read a clip's motion at the times of its pictures.

    Args:
        people: candidates by person, read once and shared by its clips.
    """
    people = {} if people is None else people
    clip = ClipFiles(folder)
    person = Person(folder.parents[1])
    if person.folder not in people:
        people[person.folder] = person.candidates(size)
    pictures = PictureReader(clip.pictures_path)
    count = int(clip.manifest.get("frames") or len(pictures))
    fps = clip.fps
    return DrawnClip(
        clip.manifest.get("clip", clip.name),
        pictures,
        clip.window,
        at_rate(clip.landmarks, fps, count),
        at_rate(drawn_shoulders(clip, person), fps, count),
        people[person.folder],
    )


class Feature2FaceDataset(TalkingFaceDataset):
    """Every picture of every clip, or ``data.frames_per_clip`` random ones per epoch."""

    needs_config = ("data.frames_per_clip", "model_params.image_size")

    batch_spec = {
        "feature_map": "B 1 S S float32 [0,1]; lines through face and shoulders",
        "cand_image": "B 12 S S float32 [-1,1]; four pictures of the person, RGB",
        "tgt_image": "B 3 S S float32 [-1,1]; the real picture, RGB",
        "weight_mask": "B 1 S S float32 [0,1]; the mouth, widened",
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
            clip = load_face_clip(self.process.prepared.output_dirs(name)[0], self.size, people)
            person = Person(self.process.prepared.output_dirs(name)[0].parents[1])
            sides = np.repeat(person.manifest.get("shoulder_sides", [True, True]), 9)
            # Lines with and without shoulders for the same picture would confuse the training.
            if self.split == "train" and not np.isfinite(clip.shoulders[:, sides]).all():
                self.unusable[name] = "no shoulders, which the person's other clips have"
                continue
            total = len(clip.landmarks)
            spread = np.linspace(0, total - 1, min(limit or total, total)).astype(int)
            index += [(len(self.clips), int(number)) for number in spread]
            self.clips.append(clip)
        return index

    def summary(self) -> dict[str, Any]:
        pictures = sum(len(clip.landmarks) for clip in self.clips)
        return {"clips": len(self.clips), "unusable": len(self.unusable), "pictures": pictures}

    def load_item(self, entry: tuple[int, int], rng: np.random.Generator) -> dict[str, Any]:
        clip, number = self.clips[entry[0]], entry[1]
        if self.cfg.data.frames_per_clip and self.split == "train":
            number = int(rng.integers(len(clip.landmarks)))
        picture = clip.window.cut(clip.pictures[number], self.size)
        lines = draw_feature_map(clip.landmarks[number], clip.shoulders[number], self.size)
        return {
            "feature_map": (lines / 255).astype(np.float32)[None],
            "cand_image": signed(clip.candidates),
            "tgt_image": signed(picture),
            "weight_mask": self._mouth(clip.landmarks[number])[None],
        }

    def _mouth(self, landmarks: np.ndarray) -> np.ndarray:
        """(S,S): the outer lips, widened by 45 px at 512."""
        from talkingface.utils.env import import_cv2

        cv2 = import_cv2()
        factor = self.size / 512
        mask = np.zeros((self.size, self.size), np.uint8)
        cv2.fillPoly(mask, [np.round(landmarks[46:58] * factor).astype(np.int32)], 1)
        side = max(1, round(45 * factor)) | 1
        return cv2.dilate(mask, np.ones((side, side), np.uint8)).astype(np.float32)
