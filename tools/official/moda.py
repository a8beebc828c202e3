"""Converts clip folders of MODA's released preparation (DreamtaleCore/MODA).

A clip folder contains ``feature.npz`` (Vertices, Headposes, Transposes, Scales, Shoulders),
``audio.wav``, and optionally ``video.mp4`` and ``shoulder-billboard.npy``. Vertices are in image
sides or in pixels; head and shoulders in pixels of a square, 768 px by default.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.dataprocess.moda.files import (
    FEATURES,
    OFFICIAL_SIDE,
    PICTURES,
    SAMPLE_RATE,
    SIDE,
    SOUND,
    TEMPLATE,
    Features,
    Template,
)
from talkingface.data.face.pose import EYE_DISTANCE, canonicalize, decanonicalize, face_center
from talkingface.data.media.audio import load_audio, save_wav
from talkingface.data.media.pictures import encode_jpeg, write_pictures
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import read_frames
from talkingface.data.npz import read_npz
from talkingface.errors import DataError
from talkingface.utils.env import import_cv2

log = logging.getLogger(__name__)

ORIGINAL = "feature.npz"
BILLBOARD = "shoulder-billboard.npy"
_FPS = 30.0
_STILL = 0.5  # px; with a smaller standard deviation shoulders count as missing (released code)


def is_original(folder: Path) -> bool:
    """Whether a folder is or contains a clip folder of the released preparation."""
    return any(original_clips(folder))


def original_clips(folder: Path) -> list[Path]:
    """Clip folders at or below a folder."""
    return sorted(path.parent for path in folder.rglob(ORIGINAL))


def convert_clip(source: Path, target: Path, fps: float = _FPS) -> Features:
    """Convert one clip folder.

    Args:
        target: new folder.
        fps: frame rate of the preparation, which is not stored. The released code uses 30.

    Raises:
        DataError: files are missing or contradict each other.
    """
    content = read_npz(source / ORIGINAL)
    video = source / "video.mp4"
    side = int(probe(video).width) if video.is_file() else OFFICIAL_SIDE
    vertices = _entry(content, source, "Vertices", (478, 3))
    angles = _entry(content, source, "Headposes", (3,))
    shift = _entry(content, source, "Transposes", (3,))
    scale = _entry(content, source, "Scales", None).reshape(-1, 1)
    count = len(vertices)
    lengths = {"Headposes": len(angles), "Transposes": len(shift), "Scales": len(scale)}
    if "Shoulders" in content:
        lengths["Shoulders"] = len(np.atleast_1d(content["Shoulders"]))
    if wrong := {name: n for name, n in lengths.items() if n != count}:
        raise DataError(f"{source / ORIGINAL}: {count} frames of Vertices, but {wrong}")
    if np.abs(vertices).max() < 5:
        vertices = vertices * side
    # In a square of any size the eye distance of the canonical face is 120 px; its centre differs.
    center, own_center = face_center(side, side), face_center(SIDE, SIDE)
    vertices = vertices - center + own_center
    factor = SIDE / side
    headpose = np.concatenate([angles, shift * factor, scale / factor], axis=1)
    torso, visible = _torso(content, source, vertices, headpose, side)
    features = Features(
        vertices=vertices,
        headpose=headpose,
        torso=torso,
        torso_valid=visible,
        landmarks=decanonicalize(vertices, headpose, own_center),
        valid=np.ones(count, bool),
        fps=fps,
        image_size=SIDE,
        face_center=own_center,
        eye_dist=EYE_DISTANCE,
        crop=np.array([0, 0, side, side]),
    )
    target.mkdir(parents=True, exist_ok=True)
    features.save(target / FEATURES)
    Template.of(features).save(target / TEMPLATE)
    wave = load_audio(source / "audio.wav", SAMPLE_RATE)
    length = round(count / fps * SAMPLE_RATE)
    if abs(len(wave) - length) > SAMPLE_RATE:
        raise DataError(
            f"{source}: {count} frames are {count / fps:.1f} s at {fps:g} frames/s, but the sound "
            f"is {len(wave) / SAMPLE_RATE:.1f} s long. Give the frame rate of the preparation, "
            "e.g. --fps=25"
        )
    save_wav(target / SOUND, np.pad(wave, (0, max(0, length - len(wave))))[:length], SAMPLE_RATE)
    if video.is_file():
        stored = write_pictures(target / PICTURES, _pictures(video, fps, count))
        if stored < count:
            raise DataError(
                f"{video} has {stored} frames at {fps:g} frames/s, but {ORIGINAL} has {count}"
            )
    return features


def _entry(
    content: dict[str, Any], source: Path, name: str, shape: tuple[int, ...] | None
) -> np.ndarray:
    if name not in content:
        raise DataError(f"{source / ORIGINAL} has no entry {name}")
    value = np.asarray(content[name], np.float64)
    if shape is not None and value.shape[1:] != shape:
        expected = ", ".join(map(str, shape))
        raise DataError(f"{source / ORIGINAL}: {name} is {value.shape}, not (T, {expected})")
    return value


def _torso(
    content: dict[str, Any], source: Path, vertices: np.ndarray, headpose: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Canonical shoulders (T,18,3) and visible sides (2,).

    Uses the stored image points if there are any, since z of the stored canonical points has the
    opposite sign.
    """
    count, center, own_center = len(vertices), face_center(side, side), face_center(SIDE, SIDE)
    if "Shoulders" in content:
        flat = np.asarray(content["Shoulders"], np.float64).reshape(count, 18, 2)
        flat = flat * (SIDE if np.abs(flat).max() < 5 else SIDE / side)
        depth = decanonicalize(vertices, headpose, own_center)[..., 2].mean(axis=1)
        points = np.concatenate([flat, np.tile(depth[:, None, None], (1, 18, 1))], axis=2)
        torso = canonicalize(points, headpose, own_center)
    elif (source / BILLBOARD).is_file():
        torso = np.load(source / BILLBOARD).astype(np.float64)
        if torso.shape[1:] != (18, 3) or len(torso) < count:
            raise DataError(f"{source / BILLBOARD} is {torso.shape}, not at least ({count}, 18, 3)")
        torso = torso[:count] - center + own_center
    else:
        log.warning("%s has no shoulders; they are neither trained nor drawn", source.name)
        return np.tile(own_center, (count, 18, 1)), np.zeros(2, bool)
    moves = torso.reshape(count, 2, 9, 3).std(axis=0).mean(axis=(1, 2))
    return torso, moves > _STILL


def _pictures(video: Path, fps: float, count: int) -> Any:
    cv2 = import_cv2()
    for number, frame in enumerate(read_frames(video, fps=fps)):
        if number >= count:
            return
        yield encode_jpeg(cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA), 95)
