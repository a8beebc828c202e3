"""Training items of HeadGAN: PNCC pictures, reference, voice vector and target picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.data.dataprocess.headgan.camera import reference_frames
from talkingface.data.dataprocess.headgan.files import (
    OFFICIAL,
    PNCC,
    REFERENCE_PNCC,
    REFERENCES,
)
from talkingface.data.dataprocess.headgan.headgan_process import HeadGANProcess, resized
from talkingface.data.dataprocess.headgan.voice import voice_size
from talkingface.data.dataset.base import ClipDataset
from talkingface.data.face.face_model import Geometry
from talkingface.data.face.topology import LIPS_INNER
from talkingface.data.media.pictures import PictureReader, signed
from talkingface.data.npz import read_npz
from talkingface.errors import DataError
from talkingface.utils.env import import_cv2
from talkingface.utils.seeding import item_rng

if TYPE_CHECKING:
    from talkingface.config.config import Config


@dataclass
class HeadClip:
    """A prepared clip.

    Attributes:
        length: T, frames.
        window: side of the stored crops, pixels; ``mouth`` is in these pixels.
        voice: (T,naf) voice vectors.
        mouth: (T,2) centre of the lips, pixels.
        valid: (T,) frames with a detected face.
        references: numbers of the reference frames.
        drawn: stored PNCC pictures; None: they are drawn from ``geometry``.
        reference_pictures: separate reference pictures and their PNCC; None: frames of the clip.
    """

    id: str
    person: str
    length: int
    window: int
    pictures: PictureReader
    masks: PictureReader | None
    voice: np.ndarray
    mouth: np.ndarray
    valid: np.ndarray
    references: np.ndarray
    drawn: PictureReader | None = None
    geometry: Geometry | None = None
    reference_pictures: tuple[PictureReader, PictureReader] | None = None


def load_clip(process: HeadGANProcess, name: str, *, voice: bool = True) -> HeadClip:
    """Open the prepared files of a clip.

    Args:
        voice: False: zeros instead of the voice vectors.

    Raises:
        DataError: files are missing or damaged, or their sizes are not those of the configuration.
    """
    if process.is_official(name):
        return _official_clip(process, name)
    points, geometry = process.points(name), process.geometry(name)
    drawn = process.pncc_store(name)
    valid = np.flatnonzero(points.valid)
    chosen = reference_frames(geometry.part(valid), process.cfg.data.n_refs)
    if voice:
        vectors = process.voice.read(process.prepared.output_dirs(name)[0])
    else:
        vectors = np.zeros((len(points), voice_size(process.cfg.audio)), np.float32)
    return HeadClip(
        id=name,
        person=process.person_of(name),
        length=len(points),
        window=points.size,
        pictures=process.pictures(name),
        masks=process.masks(name),
        voice=vectors,
        mouth=points.landmarks[:, list(LIPS_INNER), :2].mean(axis=1),
        valid=points.valid,
        references=valid[chosen],
        drawn=drawn,
        geometry=None if drawn else geometry,
    )


def _official_clip(process: HeadGANProcess, name: str) -> HeadClip:
    folder = process.prepared.output_dirs(name)[0]
    content = read_npz(folder / OFFICIAL)
    size = voice_size(process.cfg.audio)
    if content["voice"].shape[1] != size:
        raise DataError(
            f"{name} has {content['voice'].shape[1]} voice values per frame, the configuration "
            f"needs {size}; set audio.half_window and audio.lowlevel to the settings of the tree"
        )
    extra = folder / REFERENCES
    own = (PictureReader(extra), PictureReader(folder / REFERENCE_PNCC))
    count = len(content["voice"])
    return HeadClip(
        id=name,
        person=str(content["person"]),
        length=count,
        window=int(content["size"]),
        pictures=process.pictures(name),
        masks=process.masks(name),
        voice=content["voice"],
        mouth=content["mouth"],
        valid=np.ones(count, bool),
        references=np.arange(len(own[0]) if extra.is_file() else count),
        drawn=PictureReader(folder / PNCC),
        reference_pictures=own if extra.is_file() else None,
    )


def sequence_length(epoch: int, seq_len: int, grow_from: int, most: int) -> int:
    """Consecutive frames per chunk in an epoch (counted from 0); they double with each epoch from
    ``grow_from`` (counted from 1) on, up to ``most`` (official code: 6, 6, 12, 24, 48, 48...)."""
    doublings = min(max(0, epoch + 2 - grow_from), 16)
    return min(seq_len * 2**doublings, most)


class HeadGANDataset(ClipDataset):
    """Chunks of clips; an epoch has :func:`sequence_length` frames of each chunk."""

    needs_config = (
        "data.chunk",
        "data.reference",
        "loss.mask_wt",
        "model_params.crop_size",
        "model_params.disc",
        "model_params.n_frames",
        "model_params.use_audio",
        "model_params.use_flow",
        "prep.mask_source",
    )

    batch_spec = {
        "pncc": "B 3K S S float32 [0,1]; oldest first, the current one last",
        "ref_pncc": "B 3 S S float32 [0,1]; PNCC of the reference",
        "ref_image": "B 3 S S float32 [-1,1]; the reference, RGB",
        "audio": "B A float32; voice vector",
        "mask_union": "B 1 S S float32 [0,1]; union of both person masks; absent without masks",
        "mouth_center": "B 2 int64; centre of the mouth, x and y in pixels",
        "tgt_image": "B 3 S S float32 [-1,1]; the real picture, RGB",
    }

    def __init__(self, cfg: Config, split: str) -> None:
        self.size = cfg.model_params.crop_size
        self.process = HeadGANProcess(cfg)
        super().__init__(cfg, split)

    def build_index(self) -> list[tuple[int, int, int]]:
        names, self.unusable = self.process.prepared.usable(self.split)
        use_voice = self.cfg.model_params.use_audio or self.cfg.model_params.disc.mouth
        self.clips = [load_clip(self.process, name, voice=use_voice) for name in names]
        history = self.cfg.model_params.n_frames - 1
        self.span = max(1, self.cfg.data.chunk - history)
        self.has_masks = self._has_masks()
        index = []
        for number, clip in enumerate(self.clips):
            if self.split != "train":  # every valid frame once
                index += [(number, frame, frame + 1) for frame in np.flatnonzero(clip.valid)]
                continue
            for start in range(0, max(clip.length - history, 1), self.span):
                stop = min(start + self.span, clip.length - history)
                if stop > start and (stop - start >= self.span // 2 or start == 0):
                    index.append((number, start + history, stop + history))
        return index

    def _has_masks(self) -> bool:
        """Whether all clips have masks; all items of a batch need the same keys."""
        source = self.cfg.prep.mask_source
        if not (self.cfg.loss.mask_wt and self.cfg.model_params.use_flow) or source == "none":
            return False
        return source == "pncc_dilated" or all(clip.masks is not None for clip in self.clips)

    def summary(self) -> dict[str, Any]:
        frames = sum(clip.length for clip in self.clips)
        return self.counts(frames=frames, people=len({clip.person for clip in self.clips}))

    # -- length of an epoch ------------------------------------------------------------------------

    def _frames_per_chunk(self, epoch: int) -> int:
        data = self.cfg.data
        return sequence_length(epoch, data.seq_len, data.grow_from_epoch, self.span)

    def epoch_length(self, epoch: int) -> int:
        return len(self.index) * (self._frames_per_chunk(epoch) if self.split == "train" else 1)

    def entry(self, epoch: int, position: int) -> tuple[int, int]:
        """Clip and frame of an item."""
        if self.split != "train":
            number, frame, _ = self.index[position]
            return number, int(frame)
        count = self._frames_per_chunk(epoch)
        chunk, place = divmod(position, count)
        number, begin, stop = self.index[chunk]
        free = max(0, stop - begin - count)
        start = int(item_rng(self.cfg.seed, "chunk", epoch, chunk).integers(free + 1))
        # The last chunk of a clip may be shorter than ``count``: begin again at its start.
        return number, begin + (start + place) % (stop - begin)

    # -- items -------------------------------------------------------------------------------------

    def load_item(self, entry: tuple[int, int], rng: np.random.Generator) -> dict[str, Any]:
        number, frame = entry
        clip = self.clips[number]
        history = range(frame - self.cfg.model_params.n_frames + 1, frame + 1)
        poses = [self.pncc(clip, max(0, each)) for each in history]
        ref_image, ref_pncc, ref_mask = self.reference(clip, frame, rng)
        scale = self.size / clip.window
        item = {
            "pncc": np.concatenate(poses),
            "ref_pncc": ref_pncc,
            "ref_image": ref_image,
            "audio": clip.voice[frame].astype(np.float32),
            "mouth_center": np.floor(clip.mouth[frame] * scale).astype(np.int64),
            "tgt_image": self.image(clip.pictures, frame),
        }
        if self.has_masks:
            own = self.mask(clip, frame, poses[-1])
            item["mask_union"] = np.minimum(own + ref_mask, 1.0)
        return item

    def reference(
        self, clip: HeadClip, frame: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Picture, PNCC and mask of the reference of an item."""
        chosen = self.reference_number(clip, frame, rng)
        if clip.reference_pictures is not None:
            pictures, drawn = clip.reference_pictures
            pncc = self._picture(drawn, chosen).astype(np.float32) / 255
            return self.image(pictures, chosen), pncc, self._dilated(pncc)
        pncc = self.pncc(clip, chosen)
        mask = self.mask(clip, chosen, pncc) if self.has_masks else np.zeros(0, np.float32)
        return self.image(clip.pictures, chosen), pncc, mask

    def reference_number(self, clip: HeadClip, frame: int, rng: np.random.Generator) -> int:
        """Number of the reference frame in the clip, or in its reference pictures."""
        refs = clip.references
        if self.split != "train" or clip.reference_pictures is not None:
            middle = int(refs[len(refs) // 2])
            return middle if self.split != "train" else int(rng.choice(refs))
        if self.cfg.data.reference == "any":
            return int(rng.choice(np.flatnonzero(clip.valid)))
        if self.cfg.data.reference == "previous":
            history = self.cfg.model_params.n_frames - 1
            begin = history + max(0, frame - history) // self.span * self.span
            before = np.flatnonzero(clip.valid[:begin])
            if begin > history and len(before):
                return int(before[-1])
        return int(rng.choice(refs))

    def _picture(self, store: PictureReader, number: int) -> np.ndarray:
        """(3,S,S) uint8."""
        return np.ascontiguousarray(resized(store[number], self.size).transpose(2, 0, 1))

    def image(self, store: PictureReader, number: int) -> np.ndarray:
        """(3,S,S) float32 in -1..1."""
        return signed(self._picture(store, number).transpose(1, 2, 0))

    def pncc(self, clip: HeadClip, frame: int) -> np.ndarray:
        """(3,S,S) float32 in 0..1, stored or drawn here with the same result."""
        if clip.drawn is not None:
            return self._picture(clip.drawn, frame).astype(np.float32) / 255
        model = self.process.face_model
        vertices = model.placed(clip.geometry.part([frame]))[0]
        drawn = self.process.pncc(model, vertices, clip.window)
        return drawn.transpose(2, 0, 1).astype(np.float32) / 255

    def mask(self, clip: HeadClip, frame: int, pncc: np.ndarray) -> np.ndarray:
        """Mask of the person (1,S,S) float32 in 0..1."""
        if self.cfg.prep.mask_source == "selfie" and clip.masks is not None:
            return self._picture(clip.masks, frame)[:1].astype(np.float32) / 255
        return self._dilated(pncc)

    def _dilated(self, pncc: np.ndarray) -> np.ndarray:
        """Mask of the face, dilated by 1/8 of the picture to include hair and neck."""
        cv2 = import_cv2()
        face = (pncc.sum(axis=0) > 0.01).astype(np.uint8)
        side = self.size // 8 * 2 + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        return cv2.dilate(face, kernel)[None].astype(np.float32)
