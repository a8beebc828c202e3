"""Preparation for MODA: from videos to canonical faces, head poses and shoulders.

Layout: ``preprocessed_data/MODA/<clip>/{features.npz, template.npz, audio.wav}``; the mapping
network adds ``sound_<encoder>.npy``, the renderer ``pictures.h5``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.clips import Clip
from talkingface.data.dataprocess.base import Components
from talkingface.data.dataprocess.moda.files import (
    FEATURES,
    PICTURES,
    SAMPLE_RATE,
    SIDE,
    SOUND,
    TEMPLATE,
    Features,
    Template,
)
from talkingface.data.dataprocess.moda.sound import SoundFeatures, samples_of
from talkingface.data.dataprocess.report import ProcessReport
from talkingface.data.dataprocess.video import FaceClip, SpeakerProcess
from talkingface.data.face.boxes import resize_image
from talkingface.data.face.pose import (
    EYE_DISTANCE,
    canonicalize,
    face_center,
    flip_depth,
    head_pose,
)
from talkingface.data.face.series import fill_gaps, smooth
from talkingface.data.face.topology import FACE_OVAL, MODA_EYES, MODA_MOUTH, N_POINTS
from talkingface.data.media.apc_mel import apc_id
from talkingface.data.media.audio import load_audio, save_wav
from talkingface.data.media.pictures import PictureReader, encode_jpeg, write_pictures
from talkingface.data.media.reader import read_frames
from talkingface.errors import DataError
from talkingface.utils.env import import_cv2
from talkingface.utils.paths import atomic

_ABOVE = 0.4  # share of the crop above the centre of the face
# Points that are smoothed: all but lips and eyes.
OTHER_POINTS = sorted(set(range(N_POINTS)) - set(MODA_MOUTH) - set(MODA_EYES))
_MASK_SIDE = 256  # of the segmentation model


class MODAProcess(SpeakerProcess):
    """Writes features with the torso, template and sound of each clip."""

    needs_config = ("fps", "prep.torso_every", "prep.torso_space")

    id = "MODA"
    version = 1
    min_frames = 5

    def settings(self) -> dict[str, Any]:
        prep = self.cfg.prep.model_dump(exclude={"jpeg_quality"})
        return {**super().settings(), "prep": prep}

    def prepare_clip(self, clip: FaceClip, out: Path, min_frames: int = 0) -> None:
        options, track, fps = self.cfg.prep, clip.track, clip.fps
        start, stop = self.longest_take(clip, options.max_missing, min_frames or self.min_frames)
        valid = track.found[start:stop]
        points = fill_gaps(track.landmarks[start:stop])
        crop = face_crop(points, track.size, options.crop_scale)
        factor = SIDE / (crop[2] - crop[0])
        points = (points - (crop[0], crop[1], 0.0)) * factor
        pose = head_pose(points, sigma=options.pose_smooth_sigma, canonical=options.canonical)
        center = face_center(SIDE, SIDE)
        vertices = canonicalize(flip_depth(points), pose, center)
        vertices[:, OTHER_POINTS] = smooth(vertices[:, OTHER_POINTS], 2.0 * fps / 30)
        flat, visible = self._shoulders(clip, start, points, crop)
        depth = flip_depth(points)[..., 2].mean(axis=1)
        torso = np.concatenate([flat, np.broadcast_to(depth[:, None, None], (len(flat), 18, 1))], 2)
        if options.torso_space == "head":
            torso = canonicalize(torso, pose, center)
        features = Features(
            vertices=vertices,
            headpose=pose,
            torso=torso,
            torso_valid=visible,
            landmarks=flip_depth(points),
            valid=valid,
            fps=fps,
            image_size=SIDE,
            face_center=center,
            eye_dist=EYE_DISTANCE,
            crop=np.array(crop),
            start=start,
            torso_space=options.torso_space,
        )
        features.save(out / FEATURES)
        Template.of(features).save(out / TEMPLATE)
        save_wav(out / SOUND, clip.wave[samples_of(start, stop, fps)], SAMPLE_RATE)

    def _shoulders(
        self, clip: FaceClip, start: int, points: np.ndarray, crop: tuple[int, int, int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """(T,18,2) px of the crop and (2,) visible sides, in one pass over the frames."""
        from talkingface.data.face.person import PersonSegmenter, torso_outline, torso_track

        cv2 = import_cv2()
        count = len(points)
        outlines = np.full((count, 18, 2), np.nan)
        usable = np.zeros((count, 2), bool)
        rows = []
        x0, y0, x1, y1 = crop
        with PersonSegmenter() as segmenter:
            for number, frame in clip.frames():
                index = number - start
                if index >= count:
                    break
                if index < 0 or index % self.cfg.prep.torso_every:
                    continue
                part = frame[y0:y1, x0:x1]
                small = cv2.resize(part, (_MASK_SIDE, _MASK_SIDE), interpolation=cv2.INTER_AREA)
                outline = torso_outline(segmenter(small), points[index], SIDE)
                outlines[index], usable[index] = outline
                rows.append(index)
        sigma = 2.0 * clip.fps / 25 / self.cfg.prep.torso_every
        flat, visible = torso_track(outlines[rows], usable[rows], (SIDE, SIDE), sigma=sigma)
        columns = flat.reshape(len(rows), -1).T
        every = np.stack([np.interp(np.arange(count), rows, column) for column in columns], 1)
        return every.reshape(count, 18, 2), visible

    def features(self, clip_id: str) -> Features:
        """The motion of a clip.

        Raises:
            DataError: the file is missing or damaged, or a converted one has another frame rate or
                torso space.
        """
        features = Features.read(self.prepared.output_dirs(clip_id)[0] / FEATURES)
        for key, own, configured in (
            ("fps", features.fps, self.cfg.fps),
            ("prep.torso_space", features.torso_space, self.cfg.prep.torso_space),
        ):
            if own != configured:
                raise DataError(
                    f"{clip_id} was prepared with {key}={own}, but this run has {configured}. Set "
                    f"--{key}={own}."
                )
        return features

    @cached_property
    def _by_person(self) -> dict[str, list[Template]]:
        """Templates of the training clips of each person."""
        templates = defaultdict(list)
        for name in self.prepared.usable("train")[0]:
            template = Template.read(self.prepared.output_dirs(name)[0] / TEMPLATE)
            templates[self.person_of(name)].append(template)
        return templates

    def template(self, clip_id: str, of: str = "clip") -> Template:
        """Means of a clip; ``of="subject"``: see :meth:`of_person`."""
        own = Template.read(self.prepared.output_dirs(clip_id)[0] / TEMPLATE)
        return self.of_person(own, self.person_of(clip_id)) if of == "subject" else own

    def of_person(self, template: Template, person: str) -> Template:
        """The template with the mean mesh of the person's training clips, if there are any."""
        others = self._by_person.get(person)
        return template.with_mesh(others) if others else template


def face_crop(points: np.ndarray, size: tuple[int, int], scale: float) -> tuple[int, int, int, int]:
    """One square for a whole clip: x0, y0, x1, y1 inside a picture of (width, height).

    Args:
        points: (T,478,>=2) pixels.
        scale: side over the larger side of the union of all faces; limited by the picture.
    """
    oval = points[:, list(FACE_OVAL), :2]
    low, high = oval.min(axis=(0, 1)), oval.max(axis=(0, 1))
    side = int(min(round(scale * float((high - low).max())), *size))
    middle = (low + high) / 2
    x0 = int(np.clip(round(middle[0] - side / 2), 0, size[0] - side))
    y0 = int(np.clip(round(middle[1] - _ABOVE * side), 0, size[1] - side))
    return x0, y0, x0 + side, y0 + side


class MODAMappingProcess(MODAProcess):
    """Also computes the sound features of the configured encoder."""

    needs_config = ("audio_encoder",)
    uses_components = True

    @cached_property
    def sound(self) -> SoundFeatures | None:
        """Encoder of the features; None if the network encodes the sound."""
        frozen = self.cfg.audio_encoder.freeze
        return sound_features(self.cfg, self.components) if frozen else None

    def finalize(self, report: ProcessReport) -> None:
        super().finalize(report)
        self.ensure_sound(sorted(set(report.of("ok")) - report.dropped))

    def complete(self, split: str) -> None:
        self.ensure_sound(self.prepared.usable(split)[0])

    def ensure_sound(self, names: Iterable[str]) -> None:
        """Compute the missing sound features of clips."""
        if (encoder := self.sound) is None:
            return
        missing = []
        for name in names:
            folder = self.prepared.output_dirs(name)[0]
            if not encoder.path(folder).is_file():
                clip = self.features(name)
                missing.append((folder, len(clip), clip.fps))
        for folder, count, fps in self._bar(missing, f"sound features ({encoder.kind})"):
            values = encoder(load_audio(folder / SOUND, SAMPLE_RATE), count, fps)
            with atomic(encoder.path(folder)) as temporary, open(temporary, "wb") as file:
                np.save(file, values)


def sound_features(cfg: Any, components: Components) -> SoundFeatures:
    """The frozen encoder of a configuration."""
    options = cfg.audio_encoder
    if options.kind == "mel":
        return SoundFeatures("mel")
    if options.kind == "apc":
        name = apc_id(components.path("apc"))
        return SoundFeatures("apc", lambda: components.network("apc"), name)

    from talkingface.utils.hashes import sha256_of
    from talkingface.utils.paths import resolve

    folder, name = None, "random"
    if options.weights != "random":
        folder = resolve(options.weights)
        files = [folder / n for n in ("model.safetensors", "pytorch_model.bin")]
        name = next((sha256_of(f)[:12] for f in files if f.is_file()), "missing")

    @lru_cache(maxsize=1)
    def network() -> Any:
        from talkingface.model.audio_driven_talkingface.moda.moda_networks import (
            wav2vec2,
            wav2vec2_at,
        )

        encoder = wav2vec2(str(folder) if folder else None, options.layers)
        return partial(wav2vec2_at, encoder.eval())

    return SoundFeatures("wav2vec2", network, f"{name}-{options.layers or 'all'}")


class MODAPicturesProcess(MODAProcess):
    """Also stores the pictures of the crop, for the renderer."""

    needs_config = ("prep.jpeg_quality",)

    def finalize(self, report: ProcessReport) -> None:
        super().finalize(report)
        good = sorted(set(report.of("ok")) - report.dropped)
        missing = [name for name in good if not self.pictures_path(name).is_file()]
        for name in self._bar(missing, "pictures"):
            self.write_pictures(report.clips[name], self.features(name))

    def prepare_source(self, source: Path, out: Path) -> None:
        """Prepare a video or picture outside the dataset, with or without sound, of any length."""
        face_clip = self.open_source(source)
        self.prepare_clip(face_clip, out, min_frames=1)
        features = Features.read(out / FEATURES)
        self.write_pictures(face_clip.clip, features, out / PICTURES)

    def pictures_path(self, clip_id: str) -> Path:
        return self.prepared.output_dirs(clip_id)[0] / PICTURES

    def pictures(self, clip_id: str) -> PictureReader:
        return PictureReader(self.pictures_path(clip_id))

    def write_pictures(self, clip: Clip, features: Features, path: Path | None = None) -> None:
        """Store the pictures of a clip; ``path``: by default in its folder."""
        quality, frames = self.cfg.prep.jpeg_quality, crop_frames(clip, features)
        pictures = (encode_jpeg(frame, quality) for frame in frames)
        write_pictures(path or self.pictures_path(clip.id), pictures)


def crop_frames(clip: Clip, features: Features, size: int = SIDE) -> Iterator[np.ndarray]:
    """The crop of each prepared frame of a clip, (size,size,3) uint8 RGB."""
    x0, y0, x1, y1 = map(int, features.crop)
    frames = read_frames(clip.path, fps=features.fps)
    for frame in islice(frames, features.start, features.start + len(features)):
        yield resize_image(frame[y0:y1, x0:x1], size)
