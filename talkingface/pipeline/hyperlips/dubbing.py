"""Visual dubbing with HyperLips: generate the mouth of a video or still image to match audio."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from talkingface.data.face.align import (
    crop_points,
    crop_rows,
    open_frames,
    turn_matrix,
    turned,
)
from talkingface.data.face.blend import match_light
from talkingface.data.face.boxes import crop_face, integer_box, resize_image
from talkingface.data.face.masks import lower_face_weights, lower_half_weights
from talkingface.data.face.mesh import FaceMesher
from talkingface.data.face.series import fill_gaps, smooth_runs
from talkingface.data.face.topology import FACE_OVAL
from talkingface.data.media.mel import SILENCE, mel_windows, wav2lip_mel
from talkingface.data.media.voice import rest_weights
from talkingface.errors import ConfigError, DataError, EnvironmentProblem
from talkingface.model.audio_driven_talkingface.hyperlips.warped_reference import (
    WarpedReference,
)
from talkingface.model.fuse import optimize_for_inference
from talkingface.pipeline.dubbing import DubbedVideo, DubbingBase, faded
from talkingface.pipeline.hyperlips.full_size import PaintedCrop, full_size
from talkingface.pipeline.hyperlips.lip_painting import enlarged, paint_lips
from talkingface.registry import import_target
from talkingface.utils.env import import_cv2

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.model.abstract_talkingface import AbstractTalkingFace

log = logging.getLogger(__name__)

_AUDIO_BATCH = 64  # mel windows per call of the audio encoder
# For reference=open; chosen, not measured.
_OPEN = 0.1  # share of the frames, those with the widest open mouth
_OPEN_SECONDS = 5.0  # of a video in which it is searched, also for a shorter sound
(_NOSE_ROW,) = crop_rows((4,))


@dataclass(frozen=True)
class DubbingSource(DubbedVideo):
    """A source with what the generator needs.

    Attributes:
        reference: (h,w,3) uint8 BGR crop of the frame ``reference_index``, in full resolution.
        oval: (T,36,2) outline of the face in px, smoothed, with gaps filled.
        points, sizes: (T,K,3) and (T,2), see ``crop_points``.
    """

    reference: np.ndarray
    reference_index: int
    oval: np.ndarray
    points: np.ndarray
    sizes: np.ndarray


class DubbingPipeline(DubbingBase):
    """Dubbing with a generator as in HyperLips: masked frame, reference and mel -> face crop."""

    needs_network = ("encode_audio", "decode")
    needs_config = (
        "infer.batch_size",
        "infer.blend",
        "infer.blending",
        "infer.mask",
        "infer.match_light",
        "infer.mel_frame_offset",
        "infer.reference",
        "infer.reference_index",
        "infer.restore",
        "infer.sharpen",
        "infer.silence",
        "model_params.image_size",
    )

    def __init__(self, cfg: Config, model: AbstractTalkingFace, device: torch.device) -> None:
        super().__init__(cfg, model, device)
        self.network = optimize_for_inference(model.network.to(device))
        self.size = cfg.model_params.image_size  # of the network's pictures
        # Of faces of a network that moves reference pixels; None: that of the source.
        self.face_size: tuple[int, int] | None = None

    # -- source -----------------------------------------------------------------------------------

    def _prepare_for(
        self, source: Path, seconds: float, show_progress: str | bool
    ) -> DubbingSource:
        if type(self).prepare is not DubbingPipeline.prepare:  # of a plugin
            return self.prepare(source, show_progress=show_progress)
        if self._reference_kind == "index":
            seconds = max(seconds, self.cfg.infer.reference_index / 10)  # at least 10 frames/s
        elif self._reference_kind == "open":
            seconds = max(seconds, _OPEN_SECONDS)
        return self.prepare(source, seconds=seconds, show_progress=show_progress)

    def prepare(
        self, source: Path, *, seconds: float | None = None, show_progress: str | bool = False
    ) -> DubbingSource:
        """Track the face and crop the reference frame.

        Args:
            seconds: what is needed of a video; None: all of it.

        Raises:
            DataError: the source cannot be read or no face is found.
        """
        opened = self.open_source(source, show_progress, seconds)
        track, fps = opened.track, opened.fps
        points, sizes = crop_points(track, fps)
        number, reference = self._reference(opened, points)
        oval = track.landmarks[:, list(FACE_OVAL), :2].reshape(len(track), -1)
        oval = smooth_runs(oval, self.cfg.face.box_smoothing * fps, track.segments)
        oval = fill_gaps(oval).reshape(len(track), len(FACE_OVAL), 2)
        return DubbingSource(
            source, track, opened.strength, fps, reference, number, oval.astype(np.float32), points,
            sizes,
        )  # fmt: skip

    def _reference(self, opened: DubbedVideo, points: np.ndarray) -> tuple[int, np.ndarray]:
        """Nearest frame with a face to the wanted one, and its crop (h,w,3) uint8 BGR."""
        track, number, kind = opened.track, 0, self._reference_kind
        found = np.flatnonzero(track.found)
        if kind == "index":
            number = self.cfg.infer.reference_index
        elif kind == "open":
            shown = found[opened.strength[found] == 1]  # nothing covers the mouth
            found = shown if len(shown) else found
            found = found[open_frames(points[found], _OPEN)]
            nose = points[found][:, _NOSE_ROW, :2]
            number = found[((nose - np.median(nose, axis=0)) ** 2).sum(-1).argmin()]
        if number >= len(track):
            raise DataError(f"infer.reference_index={number}: the source has {len(track)} frames")
        index = int(found[np.abs(found - number).argmin()])
        return index, self._crop_of(opened, index)

    @property
    def _reference_kind(self) -> str:
        kind = self.cfg.infer.reference
        if kind == "auto":
            kind = "open" if self.training_data.get("reference") == "open" else "first"
        return kind

    def _crop_of(self, source: DubbedVideo, index: int) -> np.ndarray:
        """Crop (h,w,3) uint8 BGR of a frame."""
        frame = next(self.read(source.path, index, index + 1, source.fps))
        return np.ascontiguousarray(crop_face(frame, source.track.boxes[index])[..., ::-1])

    # -- sound ------------------------------------------------------------------------------------

    @property
    def training_data(self) -> Mapping[str, Any]:
        """Section ``data`` of the configuration that the weights were trained with."""
        return self.cfg.data.model_dump() if "data" in self.cfg else {}

    def _windows(self, wave: np.ndarray, fps: float) -> np.ndarray:
        """(n,80,16) mel windows, one per output frame."""
        offset = self.cfg.infer.mel_frame_offset
        if offset is None:
            offset = self.training_data["mel_frame_offset"]
        return mel_windows(wav2lip_mel(wave), fps, offset=round(offset * fps / self.cfg.fps))

    def frame_count(self, identity: DubbingSource, wave: np.ndarray) -> int:
        count = len(self._windows(wave, identity.fps))
        if self.cfg.infer.when_short == "truncate" and not identity.still:
            count = min(count, len(identity.track))
        return count

    def _sound_codes(self, wave: np.ndarray, fps: float) -> list[torch.Tensor]:
        """Audio codes of the output frames, (n, D) per level, those of silence in pauses."""
        windows = self._windows(wave, fps)
        codes = self._codes(windows)
        if self.cfg.infer.silence == "keep":
            return codes
        rest = torch.from_numpy(rest_weights(wave, len(windows), fps)).float()
        silent = self._codes(np.full_like(windows[:1], SILENCE))
        return [
            torch.lerp(code, quiet, rest[:, None].to(code.device))
            for code, quiet in zip(codes, silent, strict=True)
        ]

    @torch.no_grad()
    def _codes(self, windows: np.ndarray) -> list[torch.Tensor]:
        """Audio codes of all windows, (n, D) per level."""
        parts = []
        for start in range(0, len(windows), _AUDIO_BATCH):
            batch = torch.from_numpy(windows[start : start + _AUDIO_BATCH, None])
            with self._precision():
                parts.append(self.network.encode_audio(batch.to(self.device)))
        return [torch.cat(level).float() for level in zip(*parts, strict=True)]

    # -- pictures ---------------------------------------------------------------------------------

    def generate(
        self, identity: DubbingSource, wave: np.ndarray, *, baseline: str | None = None
    ) -> Iterator[np.ndarray]:
        if baseline == "retrieved_mouth":
            yield from self.retrieved(identity, wave, self.frame_count(identity, wave))
            return
        with self._mesher() as mesher:
            for index, frame, face in self.faces(identity, wave, baseline=baseline):
                strength = identity.strength[index]
                if strength > 0:
                    pasted = self._paste(identity, index, frame, face[..., ::-1], mesher)
                    frame = faded(frame, pasted, strength)
                yield frame

    def _mesher(self) -> AbstractContextManager[FaceMesher | None]:
        """Finds the lips of generated faces for mask=lips."""
        if self.cfg.infer.mask == "lips":
            try:
                return FaceMesher(tracking=False)
            except EnvironmentProblem as error:
                log.warning("%s; the whole lower face is pasted instead of the lips", error)
        return nullcontext()

    def _paste(
        self,
        identity: DubbingSource,
        index: int,
        frame: np.ndarray,
        face: np.ndarray,
        mesher: FaceMesher | None = None,
    ) -> np.ndarray:
        box, options = identity.track.boxes[index], self.cfg.infer
        if options.sharpen > 0:
            face = sharpened(face, options.sharpen)
        if options.restore:
            face = self._restored(face)
        x0, y0, x1, y1 = integer_box(box, *frame.shape[:2])
        if mesher is not None:
            face = enlarged(face, x1 - x0, y1 - y0)
            points = identity.points[index, :, :2]
            place = (x0, y0, x1, y1)
            return paint_lips(mesher, frame, face, place, points, options.blending)
        if options.mask == "box":
            weights = lower_half_weights(y1 - y0, x1 - x0, options.blend)
        else:
            oval = identity.oval[index] - (x0, y0)
            weights = lower_face_weights(oval, y1 - y0, x1 - x0, options.blend)
        if options.match_light:
            face = resize_image(np.ascontiguousarray(face), (x1 - x0, y1 - y0))
            border = (weights > 0.05) & (weights < 0.5)
            face = match_light(face, frame[y0:y1, x0:x1], border)
        return paste_face(frame, face, box, weights)

    def _restored(self, face: np.ndarray) -> np.ndarray:
        """A face (h,w,3) uint8 RGB after ``infer.restore``.

        Raises:
            ConfigError: the function does not return a uint8 RGB image.
        """
        result = self._restorer(np.ascontiguousarray(face))
        is_array = isinstance(result, np.ndarray)
        if not (is_array and result.dtype == np.uint8 and result.shape[2:] == (3,)):
            returned = f"{result.dtype} {result.shape}" if is_array else type(result)
            raise ConfigError(
                f"infer.restore={self.cfg.infer.restore} must return an image (H,W,3) uint8, not "
                f"{returned}"
            )
        return result

    @cached_property
    def _restorer(self) -> Callable[[np.ndarray], np.ndarray]:
        """The function or class of ``infer.restore``, e.g. around GFPGAN."""
        target = import_target(self.cfg.infer.restore, "infer.restore", self.cfg.registry.plugins)
        return target() if isinstance(target, type) else target

    def faces(
        self, identity: DubbingSource, wave: np.ndarray, *, baseline: str | None = None
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Generated faces before they are pasted, one per output frame.

        Yields:
            Index and image (H,W,3) RGB of the source frame, and the face crop uint8 BGR, (S,S,3)
            or (h,w,3), see ``_synthesize``.
        """
        if baseline not in (None, "copy_reference"):
            raise DataError(f"there is no baseline '{baseline}'")
        frames = self.source_frames(identity, self.frame_count(identity, wave))
        if baseline == "copy_reference":
            copied = self._copied(identity)
            yield from ((index, frame, copied) for index, frame in frames)
            return
        codes = self._sound_codes(wave, identity.fps)
        boxes, position = identity.track.boxes, 0
        while batch := list(islice(frames, self.cfg.infer.batch_size)):
            crops = [crop_face(frame, boxes[index])[..., ::-1] for index, frame in batch]
            batch_codes = [level[position : position + len(batch)] for level in codes]
            faces = self._synthesize(crops, identity, [index for index, _ in batch], batch_codes)
            for (index, frame), face in zip(batch, faces, strict=True):
                yield index, frame, face
            position += len(batch)

    def _copied(self, identity: DubbingSource) -> np.ndarray:
        """Crop of the first frame with a face: a reference that was chosen for its open mouth would
        be too weak a baseline."""
        if self._reference_kind != "open":
            return identity.reference
        first = int(np.flatnonzero(identity.track.found)[0])
        return self._crop_of(identity, first)

    def _references(
        self, crops: np.ndarray, identity: DubbingSource, frames: list[int]
    ) -> tuple[np.ndarray, list[np.ndarray | None]]:
        """Reference crops (n,S,S,3) for the crops of these source frames, and the homographies that
        have turned them."""
        turns: list[np.ndarray | None] = [None] * len(frames)
        if self._reference_kind == "self":
            return crops, turns
        reference = resize_image(identity.reference, self.size)
        if self.training_data.get("align_reference"):
            points, sizes, own = identity.points, identity.sizes, identity.reference_index
            turns = [
                turn_matrix(self.size, points[own], sizes[own], points[k], sizes[k]) for k in frames
            ]
        return np.stack([turned(reference, turn) for turn in turns]), turns

    @torch.no_grad()
    def _synthesize(
        self,
        crops: list[np.ndarray],
        identity: DubbingSource,
        frames: list[int],
        codes: list[torch.Tensor],
    ) -> Iterator[np.ndarray]:
        """Generated crops uint8 BGR; (S,S,3), or (h,w,3) if the network moves reference pixels.

        Args:
            crops: (h,w,3) uint8 BGR of these source frames.
        """
        small = np.stack([resize_image(crop, self.size) for crop in crops])
        references, turns = self._references(small, identity, frames)
        masked = small.copy()
        masked[:, self.size // 2 :] = 0
        both = torch.from_numpy(np.concatenate([masked, references], axis=-1))
        both = both.to(self.device).permute(0, 3, 1, 2).float() / 255
        # The full-resolution feature maps of two frames fit a CPU's cache.
        options = {"render_batch": 2} if self.device.type == "cpu" else {}
        with self._precision():
            if self._moves_pixels:
                painted = self.network.paint(codes, both, **options)
            else:
                generated = self.network.decode(codes, both, **options)
        if not self._moves_pixels:
            yield from to_images(generated)
            return
        parts = [part.float().permute(0, 2, 3, 1).cpu().numpy() for part in painted]
        for crop, turn, face, moved, flow, share in zip(crops, turns, *parts, strict=True):
            size = self.face_size or crop.shape[1::-1]
            reference = crop if self._reference_kind == "self" else identity.reference
            painted_crop = PaintedCrop(face, moved, flow, share[..., 0])
            yield full_size(painted_crop, reference, turn, resize_image(crop, size))

    @property
    def _moves_pixels(self) -> bool:
        return isinstance(getattr(self.network, "warped_reference", None), WarpedReference)


def to_images(generated: torch.Tensor) -> np.ndarray:
    """(n,3,S,S) in 0..1 -> (n,S,S,3) uint8."""
    generated = (generated.float().clamp(0, 1) * 255).round().byte()
    return generated.permute(0, 2, 3, 1).cpu().numpy()


def paste_face(
    frame: np.ndarray, face: np.ndarray, box: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Blend a generated crop into its frame; pixels with weight 0 stay bit-identical.

    Args:
        frame: (H,W,3) uint8.
        face: (S,S,3) uint8, the whole crop, with the channel order of ``frame``.
        box: x0, y0, x1, y1 in px of the frame.
        weights: (h,w) float32 in 0..1 for the pixels of the box; see
            :func:`~talkingface.data.face.masks.lower_face_weights`.
    """
    x0, y0, x1, y1 = integer_box(box, *frame.shape[:2])
    resized = resize_image(np.ascontiguousarray(face), (x1 - x0, y1 - y0)).astype(np.float32)
    original = frame[y0:y1, x0:x1].astype(np.float32)
    result = frame.copy()
    mixed = original + weights[..., None] * (resized - original)
    result[y0:y1, x0:x1] = np.rint(mixed).astype(np.uint8)
    return result


def sharpened(face: np.ndarray, amount: float) -> np.ndarray:
    """Unsharp mask of a crop (S,S,3) uint8: adds ``amount`` times its high frequencies."""
    cv2 = import_cv2()
    face = np.ascontiguousarray(face)
    soft = cv2.GaussianBlur(face, (0, 0), max(face.shape[0] / 128, 0.5))
    return cv2.addWeighted(face, 1 + amount, soft, -amount, 0)
