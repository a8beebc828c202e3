"""Preparation for HyperLips stage 1 and its sync expert: face crops, 16 kHz sound and its mel.

Layout (that of the official code, spec section 8.2), one folder per clip below
``preprocessed_data/imgs``::

    0.jpg 1.jpg ...   face crops; numbers are frame indices, missing where no face was found
    audio.wav         mono, 16 kHz
    mel.npy           (80, columns) float32, computed once
    face.npz          boxes (T,4) and found (T,)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.clips import Clip
from talkingface.data.dataprocess.base import DataProcess, SkipClip
from talkingface.data.face.boxes import crop_face, resize_image
from talkingface.data.face.tracking import track_face
from talkingface.data.media.audio import load_audio, save_wav
from talkingface.data.media.mel import wav2lip_mel
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import read_frames
from talkingface.data.media.writer import write_image

MIN_FRAMES = 16  # the official loader refuses clips with fewer crops (spec 9.1)


class HyperLipsBaseProcess(DataProcess):
    """Crops the face of each clip and computes its mel spectrogram."""

    id = "imgs"
    version = 1

    def settings(self) -> dict[str, Any]:
        cfg = self.cfg
        return {
            "fps": cfg.fps,
            "crop": cfg.data.max_crop,
            "face": cfg.face.model_dump(),
            "min_seconds": cfg.min_seconds,
        }

    def process_clip(self, clip: Clip, out: Path) -> dict[str, Any]:
        info = probe(clip.path)
        if not info.has_video:
            raise SkipClip("no picture: the file has no video stream")
        if clip.audio == clip.path and not info.has_audio:
            raise SkipClip(
                "no sound: the file has no audio track (a .wav of the same name would serve)"
            )
        wave = load_audio(clip.audio, rate=16000)
        track = track_face(clip.path, fps=self.cfg.fps, options=self.cfg.face)
        seconds = len(track) / self.cfg.fps
        if seconds < self.cfg.min_seconds or track.found.sum() < MIN_FRAMES:
            raise SkipClip(f"too short: {len(track)} frames, {seconds:.2f} s")
        if track.found_ratio < self.cfg.face.min_face_ratio:
            raise SkipClip(f"face lost: found in {track.found_ratio:.0%} of the frames")
        if not np.any(wave):
            raise SkipClip("silent: the sound track is all zeros")
        mel = wav2lip_mel(wave)
        limit = self.cfg.data.max_crop
        for index, frame in enumerate(read_frames(clip.path, fps=self.cfg.fps)):
            if index >= len(track) or not track.found[index]:
                continue
            crop = crop_face(frame, track.boxes[index])
            scale = limit / max(crop.shape[:2])
            if scale < 1:
                crop = resize_image(crop, tuple(round(n * scale) for n in crop.shape[1::-1]))
            write_image(out / f"{index}.jpg", crop, sync=False)
        save_wav(out / "audio.wav", wave, 16000)
        np.save(out / "mel.npy", mel.astype(np.float32))
        np.savez(out / "face.npz", boxes=track.boxes.astype(np.float32), found=track.found)
        return {
            "frames": int(track.found.sum()),
            "seconds": round(seconds, 3),
            "face_ratio": round(track.found_ratio, 4),
            "face_height": round(float(np.median(track.boxes[:, 3] - track.boxes[:, 1])), 1),
        }
