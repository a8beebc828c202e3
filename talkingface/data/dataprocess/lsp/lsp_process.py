"""Preparation for Live Speech Portraits: from videos to the files of a person.

Layout below ``preprocessed_data/LSP``::

    <person>/                 files of the person, see talkingface.data.dataprocess.lsp.files
    <person>/clips/<clip>/    files of a clip

The official code has no preparation. Each clip is tracked and lifted alone. Then clips of a person
that show the same set-up get one window, and the files of the person are computed from its training
clips.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.config.config import Config
from talkingface.data.dataprocess.base import Components, SkipClip
from talkingface.data.dataprocess.lsp import files
from talkingface.data.dataprocess.lsp.drawing import WINDOW
from talkingface.data.dataprocess.lsp.motion import matrix_to_euler
from talkingface.data.dataprocess.lsp.person import apply_window, build_persons
from talkingface.data.dataprocess.lsp.window import Window
from talkingface.data.dataprocess.prepared import PreparedClips
from talkingface.data.dataprocess.report import ProcessReport
from talkingface.data.dataprocess.video import FaceClip, SpeakerProcess
from talkingface.data.face.lifting import SCALE, LiftedFace, lift, resample_motion
from talkingface.data.face.mesh import TRACKER
from talkingface.data.face.pose import procrustes
from talkingface.data.face.series import fill_gaps
from talkingface.data.face.topology import LSP73, STABLE
from talkingface.data.media.apc_mel import MOTION_FPS, SAMPLE_RATE, frame_count
from talkingface.data.media.audio import save_wav
from talkingface.data.media.pictures import encode_jpeg, write_pictures
from talkingface.data.media.probe import MediaInfo
from talkingface.utils.env import import_cv2

# Limits of the warnings.
_BLURRY = 1.5  # enlargement of the source in the window
_MAX_PADDING = 0.10  # share of the window outside the source
_TURNED = 30.0  # degrees of yaw

log = logging.getLogger(__name__)


class PersonFolders(PreparedClips):
    """``<person>/clips/<clip>``, the official layout."""

    def output_dirs(self, clip_id: str) -> list[Path]:
        return [files.clip_folder(self.folder / self.process.person_of(clip_id), clip_id)]


class LSPProcess(SpeakerProcess):
    """Writes the files of clips and of people."""

    needs_config = (
        "person.focal_ratio",
        "person.jpeg_quality",
        "person.name",
        "person.pose_smoothing",
    )

    id = "LSP"
    version = 1
    min_frames = 25

    def __init__(self, cfg: Config, components: Components | None = None) -> None:
        super().__init__(cfg, components)
        self.prepared = PersonFolders(self)

    def settings(self) -> dict[str, Any]:
        # Without the frame rate: motion is at 60 Hz, pictures at the frame rate of the file.
        return {
            "face": self.cfg.face.model_dump(),
            "min_seconds": self.cfg.min_seconds,
            "tracker": TRACKER,
            "person": self.cfg.person.model_dump(exclude={"name", "max_seconds"}),
        }

    def clip_fps(self, info: MediaInfo) -> float:
        """The frame rate of the file, at most 60: pictures are kept at it; motion is resampled."""
        return min(float(info.fps) or 25.0, float(MOTION_FPS))

    def prepare_clip(self, clip: FaceClip, out: Path) -> None:
        track, fps = clip.track, clip.fps
        start, stop = track.longest_take()
        name = files.clip_folder(Path(), clip.clip.id).name
        wave = clip.wave[round(start / fps * SAMPLE_RATE) : round(stop / fps * SAMPLE_RATE)]
        landmarks = fill_gaps(track.landmarks[start:stop])
        face = lift(landmarks, track.size, self.cfg.person.focal_ratio * max(track.size))
        sigma = self.cfg.person.pose_smoothing * fps
        face = face.smoothed(rotation=sigma, shift=sigma, depth=2 * sigma)
        points, angles, trans = _at_motion_rate(face, fps)
        count = min(len(points), frame_count(len(wave)))
        if count < MOTION_FPS // 2:
            raise SkipClip(f"too short: {count} motion frames of continuous face and sound")
        points, angles, trans = points[:count], angles[:count], trans[:count]
        # No pictures after the last motion frame, e.g. if the sound ends before the video.
        stop = min(stop, start + int((count - 1) * fps / MOTION_FPS + 1e-6) + 1)
        landmarks = landmarks[: stop - start]
        wave = wave[: -(-count * SAMPLE_RATE // MOTION_FPS)]

        frames = (frame for index, frame in clip.frames() if start <= index < stop)
        shoulders, source, store = self._with_shoulders(frames, landmarks, fps, count)
        window = Window.around(landmarks[:, list(LSP73), :2])
        files.save_fit(out, points, angles, trans)
        np.save(out / files.SOURCE_SHOULDERS, shoulders.astype(np.float32))
        save_wav(out / f"{name}.wav", wave, SAMPLE_RATE)
        rows = np.minimum(np.arange(count) * fps / MOTION_FPS + 0.5, len(store) - 1)
        write_pictures(out / f"{name}.h5", iter(store), rows.astype(int))
        cv2 = import_cv2()
        example = cv2.imdecode(np.frombuffer(store[0], np.uint8), cv2.IMREAD_COLOR)
        (out / files.EXAMPLE).write_bytes(cv2.imencode(".png", example)[1].tobytes())
        manifest = {
            "clip": clip.clip.id,
            "fps": fps,
            "start": start,
            "frames": len(store),
            "motion_frames": count,
            "size": list(track.size),
            "focal": face.focal,
            "center": face.center.tolist(),
            "scale": SCALE,
            "own_window": [window.scale, window.xc, window.yc],
            "shoulders": list(source),
            "quality": _quality(clip, face, angles, window),
        }
        files.write_manifest(out, manifest)
        apply_window(out, window)
        error = files.verify_files(files.MotionFiles(out))["projection_error"]
        manifest["quality"]["projection_error"] = round(error, 6)
        files.write_manifest(out, manifest)

    def _with_shoulders(
        self, frames: Iterator[np.ndarray], landmarks: np.ndarray, fps: float, count: int
    ) -> tuple[np.ndarray, tuple[str, str], list[bytes]]:
        """Shoulders (count,18,2) in source pixels at 60 Hz, the detection method per side, and the
        encoded pictures, in one pass over the frames."""
        from talkingface.data.face.person import track_shoulders

        store: list[bytes] = []
        quality = self.cfg.person.jpeg_quality

        def stored() -> Iterator[np.ndarray]:
            for frame in frames:
                store.append(encode_jpeg(frame, quality))
                yield frame

        stream = stored()
        tracked, source = track_shoulders(stream, landmarks, sigma=2.0 * fps / 25)
        for _ in stream:
            pass
        result = np.full((count, 18, 2), np.nan)
        for side in (slice(0, 9), slice(9, 18)):
            points = tracked[:, side]
            if np.isfinite(points).all():
                points = resample_motion(points, fps, MOTION_FPS)
                result[:, side] = points[np.minimum(np.arange(count), len(points) - 1)]
        return result, source, store

    def finalize(self, report: ProcessReport) -> None:
        build_persons(self, report)


def _at_motion_rate(face: LiftedFace, fps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (N,73,3), angles (N,3) and translation (N,3) at 60 Hz."""
    angles = matrix_to_euler(face.rotation)
    angles[:, 0] -= 180  # x is near +-180, where it wraps around
    angles = np.degrees(np.unwrap(np.radians(angles), axis=0))
    angles[:, 0] -= 360 * np.round(angles[:, 0].mean() / 360)
    angles, trans, points = (
        resample_motion(values, fps, MOTION_FPS)
        for values in (angles, face.translation, face.points[:, list(LSP73)])
    )
    angles[:, 0] = 180 - (-angles[:, 0]) % 360  # adds 180; result in (-180, 180]
    return points, angles, trans


def _quality(
    clip: FaceClip, face: LiftedFace, angles: np.ndarray, window: Window
) -> dict[str, Any]:
    """Quality measures of a clip; also logs warnings."""
    stable = list(STABLE)
    camera = face.to_camera()
    scale, rotation, shift = procrustes(
        np.broadcast_to(face.template[stable], camera[:, stable].shape), camera[:, stable]
    )
    rigid = scale[:, None, None] * (face.template[stable] @ rotation.transpose(0, 2, 1))
    rigid = rigid + shift[:, None]
    residual = face.focal * (
        rigid[..., :2] / rigid[..., 2:] - camera[:, stable, :2] / camera[:, stable, 2:]
    )
    jitter = np.diff(face.translation[:, :2], n=2, axis=0)
    turned = np.diff(matrix_to_euler(face.rotation), n=2, axis=0)
    turned = (turned + 180) % 360 - 180
    turned_share = float((np.abs(angles[:, 1]) > _TURNED).mean())
    padding = window.padded_share(clip.track.size)
    name = clip.clip.path.name
    if window.scale > _BLURRY:
        log.warning("%s: blurry, enlarged %.1f times to %d px", name, window.scale, WINDOW)
    if padding > _MAX_PADDING:
        log.warning(
            "%s: tight crop, %.0f %% of the window is outside the picture and blurred",
            name,
            100 * padding,
        )
    if turned_share > 0.2:
        text = "%s: yaw above %.0f degrees in %.0f %% of the frames"
        log.warning(text, name, _TURNED, 100 * turned_share)
    return {
        "detection_rate": round(clip.track.found_ratio, 4),
        "max_gap_frames": clip.track.longest_gap,
        "stable_residual_px": round(float(np.sqrt((residual**2).sum(-1).mean())), 3),
        "jitter_deg": round(float(turned.std()) if len(turned) else 0.0, 4),
        "jitter_units": round(float(jitter.std()) if len(jitter) else 0.0, 4),
        "window_scale": round(window.scale, 4),
        "padding": [int(side) for side in window.bounds(clip.track.size)],
        "padded_share": round(padding, 4),
        "audio_minus_video_s": round(len(clip.wave) / SAMPLE_RATE - len(clip.track) / clip.fps, 3),
        "turned_share": round(turned_share, 4),
    }
