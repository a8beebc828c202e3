"""Preparation for HeadGAN: square crops, landmarks, person masks and sound of each clip; then the
face model of all training clips, and geometry and voice features of each clip (official code).

Layout: ``preprocessed_data/HeadGAN/<clip>/{points.npz, pictures.h5, masks.h5, audio.wav}`` with
``geometry_<model>.npz``, ``voice_<id>.npz`` and, for training, ``pncc_<model>_<size>.h5``; beside
the clips ``face_model_<settings>.npz`` and ``sounds_<settings>.npz``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.dataprocess.base import SkipClip
from talkingface.data.dataprocess.headgan.characters import SoundClasses
from talkingface.data.dataprocess.headgan.files import MASKS, OFFICIAL, PICTURES, SAMPLE_RATE, SOUND
from talkingface.data.dataprocess.headgan.licensed import FILES, read_licensed
from talkingface.data.dataprocess.headgan.voice import Voice, encoder_kind, encoder_of
from talkingface.data.dataprocess.prepared import IMPORTED
from talkingface.data.dataprocess.report import ProcessReport
from talkingface.data.dataprocess.video import DatasetStatisticsProcess, FaceClip
from talkingface.data.face.face_model import FEW_PEOPLE, FaceModel, Geometry
from talkingface.data.face.person import PersonSegmenter
from talkingface.data.face.points import POINTS, Points
from talkingface.data.face.series import fill_gaps
from talkingface.data.face.topology import N_MESH
from talkingface.data.media.audio import load_audio, save_wav
from talkingface.data.media.pictures import PictureReader, encode_jpeg, encode_png, write_pictures
from talkingface.data.npz import read_npz, save_npz
from talkingface.errors import DataError
from talkingface.utils.env import import_cv2
from talkingface.utils.paths import resolve

log = logging.getLogger(__name__)

LEAST_COVERAGE = 0.03  # smallest share of the crop that a PNCC picture may cover


class HeadGANProcess(DatasetStatisticsProcess):
    """Writes the files of clips, and the face model and sound classes of the training clips."""

    needs_config = (
        "audio",
        "fps",
        "geometry.identity_mode",
        "prep.crop",
        "prep.jpeg_quality",
        "prep.mask_source",
        "prep.max_motion",
        "prep.scale",
    )

    id = "HeadGAN"
    version = 1
    min_frames = 5
    needs_sound = False  # silent clips can be drivers

    def settings(self) -> dict[str, Any]:
        prep = self.cfg.prep.model_dump()
        prep["mask_source"] = "selfie" if prep["mask_source"] == "selfie" else "none"
        return {**super().settings(), "prep": prep}

    # -- one clip ----------------------------------------------------------------------------------

    def prepare_clip(self, clip: FaceClip, out: Path) -> None:
        self._write_clip(clip, out, self.min_frames, self.cfg.prep.mask_source == "selfie")

    def _write_clip(self, clip: FaceClip, out: Path, min_frames: int, segment: bool) -> None:
        """Write points, sound and pictures.

        Args:
            segment: also write masks of the person, which are needed only in training.
        """
        options, track, fps = self.cfg.prep, clip.track, clip.fps
        start, stop = self.longest_take(clip, options.max_missing, min_frames)
        landmarks = fill_gaps(track.landmarks[start:stop])
        crop = self._crop(landmarks, track.size)
        factor = options.size / (crop[2] - crop[0])
        points = Points(
            landmarks=(landmarks - (crop[0], crop[1], 0.0)) * factor,
            valid=track.found[start:stop],
            size=options.size,
            crop=np.array(crop),
            start=start,
            fps=fps,
        )
        points.save(out / POINTS)
        first, last = (round(n * SAMPLE_RATE / fps) for n in (start, stop))
        save_wav(out / SOUND, clip.wave[first:last], SAMPLE_RATE)
        self._write_pictures(out, clip.frames(), points, segment)

    def _crop(self, landmarks: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Square (x0, y0, x1, y1) for the whole clip; raises SkipClip if the face leaves it."""
        mesh = landmarks[:, :N_MESH, :2]
        boxes = np.concatenate([mesh.min(axis=1), mesh.max(axis=1)], axis=1)
        if not self.cfg.prep.crop:
            side = min(size)
            x0, y0 = (size[0] - side) // 2, (size[1] - side) // 2
            low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
            if (low < (x0, y0)).any() or (high > (x0 + side, y0 + side)).any():
                raise SkipClip(
                    "face outside the centred square, in which it must lie with prep.crop=false"
                )
            return x0, y0, x0 + side, y0 + side
        moved = float(np.ptp(boxes, axis=0).max()) / (sum(size) / 2)
        if moved > self.cfg.prep.max_motion:
            raise SkipClip(
                f"moves too far: {moved:.0%} of the picture (prep.max_motion); one fixed crop "
                "cannot hold the face"
            )
        box = np.median(boxes, axis=0)
        side = round(self.cfg.prep.scale * float(box[3] - box[1]))
        x0, y0 = (round(float(middle) - side / 2) for middle in (box[:2] + box[2:]) / 2)
        return x0, y0, x0 + side, y0 + side

    def _write_pictures(
        self, out: Path, frames: Iterator[tuple[int, np.ndarray]], points: Points, segment: bool
    ) -> None:
        """Write crops and, with ``segment``, person masks, in one pass over the video."""
        masks: list[bytes] = []

        def crops() -> Iterator[bytes]:
            for number, frame in frames:
                if number >= points.start + len(points):
                    return
                if number < points.start:
                    continue
                picture = square(frame, points.crop, points.size)
                if segmenter is not None:
                    masks.append(encode_png(segmenter(picture)))
                yield encode_jpeg(picture, self.cfg.prep.jpeg_quality)

        with PersonMasks() if segment else nullcontext() as segmenter:
            stored = write_pictures(out / PICTURES, crops())
        if stored < len(points):
            raise DataError(f"{stored} pictures decode, but {len(points)} frames have a face")
        if masks:
            write_pictures(out / MASKS, masks)

    def prepare_source(self, source: Path, out: Path) -> None:
        """Prepare a video or image outside the dataset, with or without sound, of any length."""
        clip = self.open_source(source, sound=True, show_progress=self.cfg.show_progress)
        self._write_clip(clip, out, 1, segment=False)

    # -- all clips ---------------------------------------------------------------------------------

    def finalize(self, report: ProcessReport) -> None:
        super().finalize(report)
        self.ensure(sorted(set(report.of("ok")) - report.dropped))

    def ensure(self, names: Iterable[str]) -> None:
        """Write geometry, voice and PNCC of clips that have none for these settings."""
        names = [name for name in names if not self.is_official(name)]
        if not names:
            return
        model = self.face_model
        missing = [n for n in names if not self._geometry_path(n, model).is_file()]
        for name in self._bar(missing, "geometry"):
            geometry = fit(model, self.points(name), self.identity_mode(model))
            save_npz(self._geometry_path(name, model), {**vars(geometry), "face_model": model.id})
        voice = self.voice
        missing = [n for n in names if not voice.is_current(self.prepared.output_dirs(n)[0], n)]
        for name in self._bar(missing, "voice features"):
            wave, points = self.wave(name), self.points(name)
            features = voice.features(wave, points.fps, len(points), voice.stored(name))
            voice.save(self.prepared.output_dirs(name)[0], features)
        if self.cfg.get("data.cache_pncc"):  # Audio2Exp needs no pictures
            missing = [n for n in names if not self._pncc_path(n, model).is_file()]
            for name in self._bar(missing, "PNCC pictures"):
                placed, window = model.placed(self.geometry(name)), self.points(name).size
                drawn = (encode_png(self.pncc(model, vertices, window)) for vertices in placed)
                write_pictures(self._pncc_path(name, model), drawn)

    @cached_property
    def training_clips(self) -> list[str]:
        """Training clips with a video; clips of the official tree have no geometry."""
        return [name for name in self.usable_training_clips() if not self.is_official(name)]

    @cached_property
    def face_model(self) -> FaceModel:
        """The face model of these settings; fitted and written if it does not exist.

        Raises:
            DataError: there are no training clips, or the file of a licensed model is missing.
        """
        options = self.cfg.geometry
        kind = options.model
        if kind == "auto":
            folder = resolve(self.cfg.weights_dir)
            kind = next((k for k, f in FILES.items() if (folder / f).is_file()), "mediapipe_pca")
            log.info("face model: %s", kind)
        if kind != "mediapipe_pca":
            given = options.model_file
            path = resolve(given) if given else resolve(self.cfg.weights_dir) / FILES[kind]
            return read_licensed(kind, path, options.n_id, options.n_exp)
        chosen = options.model_dump(
            include={"n_id", "n_exp", "frames_per_clip", "close_eyes", "close_mouth"}
        )
        most = options.frames_per_clip
        return self.learnt_face_model(chosen, lambda points: points.spread(most), **chosen)

    @cached_property
    def voice(self) -> Voice:
        """The voice of these settings; sound classes are fitted and written if they do not
        exist."""
        options, classes = self.cfg.audio, {}
        kind = encoder_kind(options, self.cfg.weights_dir)
        if kind == "kmeans27":
            path = self.folder / f"sounds_{self.learnt_key(self.cfg.seed)}.npz"
            if not path.is_file():
                clips = self._bar(self.training_clips, "sound classes")
                save_npz(path, SoundClasses.learn(map(self.wave, clips), self.cfg.seed).content())
            classes = read_npz(path)
        return Voice(options, encoder_of(kind, options, self.cfg.weights_dir, classes))

    def identity_mode(self, model: FaceModel) -> str:
        """``geometry.identity_mode``; for ``auto`` by the number of people of the face model."""
        chosen = self.cfg.geometry.identity_mode
        if chosen != "auto":
            return chosen
        return "pca" if model.n_id + 1 >= FEW_PEOPLE else "residual"

    def pncc(self, model: FaceModel, vertices: np.ndarray, window: int) -> np.ndarray:
        """PNCC picture (S,S,3) uint8 of vertices (V,3) in pixels of a crop of side ``window``.

        Raises:
            DataError: the face is outside the picture.
        """
        options, size = self.cfg.geometry, self.cfg.model_params.crop_size
        flat = options.shading == "flat"
        picture = model.render(vertices, size, window, flat=flat, cull=options.cull)
        require_coverage(picture)
        return picture

    # -- what datasets read ------------------------------------------------------------------------

    def is_official(self, name: str) -> bool:
        """Whether a clip was converted from the official dataset tree, with its PNCC and voice."""
        marker = self.prepared.read_marker(name) or {}
        imported = marker.get("fingerprint", {}).get("processor") == IMPORTED
        return imported and (self.prepared.output_dirs(name)[0] / OFFICIAL).is_file()

    def wave(self, name: str) -> np.ndarray:
        return load_audio(self.prepared.output_dirs(name)[0] / SOUND, SAMPLE_RATE)

    def pictures(self, name: str) -> PictureReader:
        return PictureReader(self.prepared.output_dirs(name)[0] / PICTURES)

    def masks(self, name: str) -> PictureReader | None:
        path = self.prepared.output_dirs(name)[0] / MASKS
        return PictureReader(path) if path.is_file() else None

    def pncc_store(self, name: str) -> PictureReader | None:
        """PNCC pictures written by the preparation; None without them."""
        path = self._pncc_path(name, self.face_model)
        return PictureReader(path) if path.is_file() else None

    def geometry(self, name: str) -> Geometry:
        """Fitted face and camera of a clip."""
        content = read_npz(self._geometry_path(name, self.face_model))
        return Geometry(**{key: content[key] for key in Geometry.__dataclass_fields__})

    def _geometry_path(self, name: str, model: FaceModel) -> Path:
        mode = self.identity_mode(model)
        return self.prepared.output_dirs(name)[0] / f"geometry_{model.id}_{mode}.npz"

    def _pncc_path(self, name: str, model: FaceModel) -> Path:
        options = self.cfg.geometry
        look = f"{self.identity_mode(model)[0]}{options.shading[0]}{int(options.cull)}"
        size = self.cfg.model_params.crop_size
        return self.prepared.output_dirs(name)[0] / f"pncc_{model.id}_{look}_{size}.h5"


def fit(model: FaceModel, points: Points, mode: str) -> Geometry:
    """Face and camera of a whole clip; the neutral face is fitted to up to 200 frames."""
    return model.fit(points.landmarks, model.neutral_of(points.spread(200), mode))


def square(frame: np.ndarray, crop: Iterable[int], size: int) -> np.ndarray:
    """The crop of a source frame (H,W,3) as (size,size,3) uint8; its border pixels are repeated
    outside the frame, so that the aspect ratio is kept."""
    cv2 = import_cv2()
    x0, y0, x1, y1 = (int(value) for value in crop)
    height, width = frame.shape[:2]
    part = frame[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
    beyond = (max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0))
    if any(beyond):
        part = cv2.copyMakeBorder(part, *beyond, cv2.BORDER_REPLICATE)
    way = cv2.INTER_AREA if x1 - x0 > size else cv2.INTER_LINEAR
    return cv2.resize(part, (size, size), interpolation=way)


def resized(picture: np.ndarray, size: int) -> np.ndarray:
    """A square picture with another side length."""
    if len(picture) == size:
        return picture
    cv2 = import_cv2()
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)


def require_coverage(picture: np.ndarray) -> None:
    """Raise DataError if a PNCC picture is (nearly) empty."""
    covered = float((picture.sum(axis=-1) > 0).mean())
    if covered < LEAST_COVERAGE:
        raise DataError(
            f"the drawn face (PNCC) covers {covered:.1%} of the picture, less than "
            f"{LEAST_COVERAGE:.0%}: the fitted face lies outside or the camera is wrong"
        )


class PersonMasks(PersonSegmenter):
    """Person segmentation: picture (S,S,3) uint8 -> soft mask (S,S) uint8."""

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        cv2 = import_cv2()
        side = picture.shape[1::-1]
        sized = cv2.resize(super().__call__(picture), side, interpolation=cv2.INTER_LINEAR)
        return np.rint(np.clip(sized, 0, 1) * 255).astype(np.uint8)
