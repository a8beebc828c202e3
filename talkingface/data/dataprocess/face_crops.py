"""Preparation for dubbing models: face crops, audio and mel spectrogram.

Layout (as in the official HyperLips code), one folder per clip below ``preprocessed_data/imgs``::

    0.jpg 1.jpg ...   face crops by frame index; frames without a face have no file
    audio.wav         mono, 16 kHz
    mel.npy           (80, columns) float32
    face.npz          boxes (T,4), found (T,) and segments (T,), see FaceTrack; sizes (T,2), width
                      and height of the boxes in px
    points.npy        (T,K,3) float32, see crop_points
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.dataprocess.video import FaceClip, VideoProcess
from talkingface.data.face.align import crop_points
from talkingface.data.face.boxes import crop_face, resize_image
from talkingface.data.media.audio import save_wav
from talkingface.data.media.mel import wav2lip_mel
from talkingface.data.media.writer import write_image
from talkingface.data.quality import RATE


class FaceCropProcess(VideoProcess):
    """Crops the face of each clip and computes its mel spectrogram."""

    needs_config = ("data.max_crop", "fps")

    id = "imgs"
    version = 4
    min_frames = 16  # the official loader rejects clips with fewer crops

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "crop": self.cfg.data.max_crop}

    def prepare_clip(self, clip: FaceClip, out: Path) -> None:
        track, limit = clip.track, self.cfg.data.max_crop
        for index, frame in clip.frames():
            if not track.found[index]:
                continue
            crop = crop_face(frame, track.boxes[index])
            scale = limit / max(crop.shape[:2])
            if scale < 1:
                crop = resize_image(crop, tuple(round(n * scale) for n in crop.shape[1::-1]))
            write_image(out / f"{index}.jpg", crop, sync=False)
        save_wav(out / "audio.wav", clip.wave, RATE)
        np.save(out / "mel.npy", wav2lip_mel(clip.wave).astype(np.float32))
        points, sizes = crop_points(track, clip.fps)
        np.save(out / "points.npy", points)
        np.savez(
            out / "face.npz",
            boxes=track.boxes.astype(np.float32),
            found=track.found,
            segments=track.segments.astype(np.int32),
            sizes=sizes,
        )


HyperLipsBaseProcess = FaceCropProcess  # the former name, in plugins of users
