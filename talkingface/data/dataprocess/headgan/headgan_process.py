"""Preparation for HeadGAN: square crops, tracked points, person masks and sound; then, from all
training clips, the face model, the geometry of each clip and its voice features (official code).

Layout: ``preprocessed_data/HeadGAN/<clip>/{points.npz, pictures.h5, masks.h5, audio.wav}`` with
``geometry_<model>.npz``, ``voice_<id>.npz`` and, for training, ``pncc_<model>_<size>.h5``; beside
the clips ``face_model_<settings>.npz`` and ``sounds_<settings>.npz``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.clips import Clip
from talkingface.data.dataprocess.headgan.characters import SoundClasses
from talkingface.data.dataprocess.headgan.files import MASKS, OFFICIAL, PICTURES, SAMPLE_RATE, SOUND
from talkingface.data.dataprocess.headgan.licensed import FILES, read_licensed
from talkingface.data.dataprocess.headgan.voice import Voice, encoder_kind, plain_encoder
from talkingface.data.dataprocess.prepared import IMPORTED, ProcessReport, SkipClip
from talkingface.data.dataprocess.video import DatasetStatisticsProcess, FaceClip
from talkingface.data.face.face_model import (
    FEW_PEOPLE,
    FaceModel,
    Geometry,
    learn_face_model,
)
from talkingface.data.face.points import POINTS, Points
from talkingface.data.face.series import fill_gaps
from talkingface.data.face.topology import N_MESH
from talkingface.data.face.tracking import track_face
from talkingface.data.media.audio import load_audio, save_wav
from talkingface.data.media.pictures import (
    PictureReader,
    encode_jpeg,
    encode_png,
    write_pictures,
)
from talkingface.data.media.probe import probe
from talkingface.data.npz import read_npz, save_npz
from talkingface.errors import DataError
from talkingface.utils.env import import_cv2
from talkingface.utils.logs import progress
from talkingface.utils.paths import resolve

log = logging.getLogger(__name__)

LEAST_COVERAGE = 0.03  # of the crop by the PNCC; below, something is wrong (ours)


class HeadGANProcess(DatasetStatisticsProcess):
    """Writes the files of clips and what is learnt from the training clips."""

    needs_config = (
        *DatasetStatisticsProcess.needs_config,
        "audio",
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
    draws_pncc = True  # whether finalize keeps PNCC pictures for training
    needs_sound = False  # a silent clip still shows how a face moves

    def settings(self) -> dict[str, Any]:
        prep = self.cfg.prep.model_dump()
        prep["mask_source"] = "selfie" if prep["mask_source"] == "selfie" else "none"
        return {**super().settings(), "prep": prep}

    # -- one clip ----------------------------------------------------------------------------------

    def prepare_clip(self, clip: FaceClip, out: Path) -> None:
        segment = self.cfg.prep.mask_source == "selfie"
        self._write_clip(clip, out, self.min_frames, segment)

    def _write_clip(self, clip: FaceClip, out: Path, min_frames: int, segment: bool) -> None:
        """Write points, sound and pictures.

        Args:
            segment: also write masks of the person, which only training needs.
        """
        options, track, fps = self.cfg.prep, clip.track, clip.fps
        start, stop = self.longest_take(clip, options.max_missing, min_frames)
        valid = track.found[start:stop]
        found = fill_gaps(track.landmarks[start:stop])
        crop = self._crop(found, track.size)
        factor = options.size / (crop[2] - crop[0])
        points = Points(
            landmarks=(found - (crop[0], crop[1], 0.0)) * factor,
            valid=valid,
            size=options.size,
            crop=np.array(crop),
            start=start,
            fps=fps,
        )
        points.save(out / POINTS)
        first, last = (round(n * SAMPLE_RATE / fps) for n in (start, stop))
        save_wav(out / SOUND, clip.wave[first:last], SAMPLE_RATE)
        self._write_pictures(out, clip.frames(), points, segment)

    def _crop(self, found: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """One square for the whole clip."""
        mesh = found[:, :N_MESH, :2]
        boxes = np.concatenate([mesh.min(axis=1), mesh.max(axis=1)], axis=1)
        if not self.cfg.prep.crop:
            side = min(size)
            x0, y0 = (size[0] - side) // 2, (size[1] - side) // 2
            low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
            if (low < (x0, y0)).any() or (high > (x0 + side, y0 + side)).any():
                raise SkipClip(
                    "face outside the picture: with prep.crop=false it must lie inside the centred "
                    "square"
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
        """Crops and, where wanted, person masks, in one pass over the video."""
        masks: list[bytes] = []
        segmenter = PersonMasks() if segment else None

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

        try:
            stored = write_pictures(out / PICTURES, crops())
        finally:
            if segmenter is not None:
                segmenter.close()
        if stored < len(points):
            raise DataError(f"{stored} pictures decode, but {len(points)} frames have a face")
        if masks:
            write_pictures(out / MASKS, masks)

    def prepare_source(self, source: Path, out: Path) -> None:
        """Prepare a video or still outside the dataset, with or without sound, of any length."""
        info = probe(source)
        fps = self.clip_fps(info)
        track = track_face(
            source, fps=fps, options=self.cfg.face, show_progress=self.cfg.show_progress
        )
        seconds = (len(track) + 1) / fps
        wave = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
        if info.has_audio and info.has_video:
            samples = load_audio(source, SAMPLE_RATE)[: len(wave)]
            wave[: len(samples)] = samples
        clip = Clip(source.stem, source, source)
        self._write_clip(FaceClip(clip, info, fps, wave, track), out, 1, segment=False)

    # -- all clips ---------------------------------------------------------------------------------

    def finalize(self, report: ProcessReport) -> None:
        super().finalize(report)
        good = sorted(set(report.of("ok")) - report.dropped)
        self.ensure(good)

    def ensure(self, names: Iterable[str]) -> None:
        """Geometry, voice and PNCC of clips, where these settings have not made them yet."""
        names = [name for name in names if not self.is_official(name)]
        if not names:
            return
        model = self.load_face_model()
        missing = [n for n in names if not self._geometry_path(n, model).is_file()]
        for name in self._bar(missing, "geometry"):
            self._fit(name, model)
        voice = self.load_voice()
        missing = [n for n in names if not voice.is_current(self.prepared.output_dirs(n)[0], n)]
        for name in self._bar(missing, "voice features"):
            self._hear(name, voice)
        if self.draws_pncc and self.cfg.data.cache_pncc:
            missing = [n for n in names if not self._pncc_path(n, model).is_file()]
            for name in self._bar(missing, "PNCC pictures"):
                self._draw(name, model)

    def _bar(self, names: list[str], what: str) -> Iterable[str]:
        if not names:
            return ()
        log.info("%s of %d clips", what, len(names))
        return progress(names, unit="clip", desc=what, show=self.cfg.show_progress)

    @cached_property
    def training_clips(self) -> list[str]:
        """Those with a video; clips of the official tree have no geometry."""
        return [name for name in self.usable_training_clips() if not self.is_official(name)]

    def load_face_model(self) -> FaceModel:
        """The face model of these settings; fitted and written where it does not exist.

        Raises:
            DataError: no training clips, or a licensed model is not there.
        """
        return self._face_model

    @cached_property
    def _face_model(self) -> FaceModel:
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
        people = {name: self.person_of(name) for name in self.training_clips}
        path = self.folder / f"face_model_{self.learnt_key(chosen, people)}.npz"
        if path.is_file():
            return FaceModel.read(path)
        clips = {}
        for name in self._bar(self.training_clips, "face model"):
            points = self.points(name)
            seen = points.landmarks[points.valid]
            rows = np.linspace(0, len(seen) - 1, min(len(seen), options.frames_per_clip))
            clips[name] = seen[rows.astype(int)]
        model = learn_face_model(clips, people, **chosen)
        model.save(path)
        log.info("face model learnt from %s", model.sources)
        return model

    def load_voice(self) -> Voice:
        """The voice features of these settings; sound classes are fitted and written where they do
        not exist."""
        return self._voice

    @cached_property
    def _voice(self) -> Voice:
        options = self.cfg.audio
        kind = encoder_kind(options, self.cfg.weights_dir)
        if kind != "kmeans27":
            return Voice(options, plain_encoder(kind, options, self.cfg.weights_dir))
        path = self.folder / f"sounds_{self.learnt_key(self.cfg.seed)}.npz"
        if not path.is_file():
            waves = (self.wave(name) for name in self._bar(self.training_clips, "sound classes"))
            SoundClasses.learn(waves, self.cfg.seed).save(path)
        return Voice(options, SoundClasses.read(path))

    def _fit(self, name: str, model: FaceModel) -> None:
        points = self.points(name)
        geometry = fit(model, points, self.identity_mode(model))
        content = {k: getattr(geometry, k) for k in Geometry.__dataclass_fields__}
        content["face_model"] = model.id
        save_npz(self._geometry_path(name, model), content)

    def identity_mode(self, model: FaceModel) -> str:
        chosen = self.cfg.geometry.identity_mode
        if chosen != "auto":
            return chosen
        return "pca" if model.n_id + 1 >= FEW_PEOPLE else "residual"

    def _hear(self, name: str, voice: Voice) -> None:
        points = self.points(name)
        made = voice.features(self.wave(name), points.fps, len(points), voice.stored(name))
        voice.save(self.prepared.output_dirs(name)[0], made)

    def _draw(self, name: str, model: FaceModel) -> None:
        placed = model.placed(self.geometry(name))
        window = self.points(name).size
        drawn = (encode_png(self.pncc(model, vertices, window)) for vertices in placed)
        write_pictures(self._pncc_path(name, model), drawn)

    def pncc(self, model: FaceModel, vertices: np.ndarray, window: int) -> np.ndarray:
        """(S,S,3) uint8 of (V,3) vertices in pixels of the stored crop.

        Raises:
            DataError: hardly anything of the face is in the picture.
        """
        options = self.cfg.geometry
        picture = model.render(
            vertices,
            self.cfg.model_params.crop_size,
            window,
            flat=options.shading == "flat",
            cull=options.cull,
        )
        require_coverage(picture)
        return picture

    # -- what datasets read ------------------------------------------------------------------------

    def is_official(self, name: str) -> bool:
        """Whether a clip came from the official dataset tree, with PNCC and voice of its own."""
        marker = self.prepared.read_marker(name) or {}
        imported = marker.get("fingerprint", {}).get("processor") == IMPORTED
        return imported and (self.prepared.output_dirs(name)[0] / OFFICIAL).is_file()

    def points(self, name: str) -> Points:
        return Points.read(self.prepared.output_dirs(name)[0] / POINTS)

    def wave(self, name: str) -> np.ndarray:
        return load_audio(self.prepared.output_dirs(name)[0] / SOUND, SAMPLE_RATE)

    def pictures(self, name: str) -> PictureReader:
        return PictureReader(self.prepared.output_dirs(name)[0] / PICTURES)

    def masks(self, name: str) -> PictureReader | None:
        path = self.prepared.output_dirs(name)[0] / MASKS
        return PictureReader(path) if path.is_file() else None

    def pncc_store(self, name: str) -> PictureReader | None:
        """PNCC pictures that were drawn before."""
        path = self._pncc_path(name, self.load_face_model())
        return PictureReader(path) if path.is_file() else None

    def geometry(self, name: str) -> Geometry:
        """Fitted face of a clip."""
        content = read_npz(self._geometry_path(name, self.load_face_model()))
        return Geometry(**{key: content[key] for key in Geometry.__dataclass_fields__})

    def _geometry_path(self, name: str, model: FaceModel) -> Path:
        mode = self.identity_mode(model)
        return self.prepared.output_dirs(name)[0] / f"geometry_{model.id}_{mode}.npz"

    def _pncc_path(self, name: str, model: FaceModel) -> Path:
        options = self.cfg.geometry
        look = f"{self.identity_mode(model)[0]}{options.shading[0]}{int(options.cull)}"
        size = self.cfg.model_params.crop_size
        return self.prepared.output_dirs(name)[0] / f"pncc_{model.id}_{look}_{size}.h5"


class HeadGANMotionProcess(HeadGANProcess):
    """The same preparation for Audio2Exp, which draws nothing."""

    draws_pncc = False


def fit(model: FaceModel, points: Points, mode: str) -> Geometry:
    """Face and camera of a whole clip; its person is the mean over the frames that were seen."""
    seen = points.landmarks[points.valid]
    rows = np.linspace(0, len(seen) - 1, min(len(seen), 200)).astype(int)
    return model.fit(points.landmarks, model.neutral_of(seen[rows], mode))


def square(frame: np.ndarray, crop: Iterable[int], size: int) -> np.ndarray:
    """The crop of a source frame (H,W,3) as (size,size,3) uint8; beyond the border the last pixels
    are repeated, so that the aspect is kept."""
    cv2 = import_cv2()
    x0, y0, x1, y1 = (int(value) for value in crop)
    height, width = frame.shape[:2]
    part = frame[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
    beyond = (max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0))
    if any(beyond):
        part = cv2.copyMakeBorder(part, *beyond, cv2.BORDER_REPLICATE)
    way = cv2.INTER_AREA if x1 - x0 > size else cv2.INTER_LINEAR
    return cv2.resize(part, (size, size), interpolation=way)


def require_coverage(picture: np.ndarray) -> None:
    """Raises DataError: a PNCC picture is (nearly) empty."""
    covered = float((picture.sum(axis=-1) > 0).mean())
    if covered < LEAST_COVERAGE:
        raise DataError(
            f"the drawn face (PNCC) covers {covered:.1%} of the picture, less than "
            f"{LEAST_COVERAGE:.0%}: the fitted face lies outside or the camera is wrong"
        )


class PersonMasks:
    """Where a person is in a picture: (S,S,3) uint8 -> (S,S) uint8, soft."""

    def __init__(self) -> None:
        from talkingface.data.face.person import PersonSegmenter

        self._segmenter = PersonSegmenter()

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        cv2 = import_cv2()
        side = picture.shape[1::-1]
        sized = cv2.resize(self._segmenter(picture), side, interpolation=cv2.INTER_LINEAR)
        return np.rint(np.clip(sized, 0, 1) * 255).astype(np.uint8)

    def close(self) -> None:
        self._segmenter.close()

    def __enter__(self) -> PersonMasks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
