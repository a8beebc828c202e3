"""Preparation for SyncNet: face crops as in the official pipeline, and the MFCC of the audio.

One folder per clip below ``preprocessed_data/syncnet``::

    0.jpg 1.jpg ...   face crops by frame index
    mfcc.npy          (13, columns) float32
    segments.npy      (T,) see FaceTrack; -1 without a crop
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.dataprocess.video import FaceClip, VideoProcess
from talkingface.data.face.boxes import syncnet_crop
from talkingface.data.media.mfcc import syncnet_mfcc
from talkingface.data.media.writer import write_image


class SyncNetProcess(VideoProcess):
    """Crops the face with its surroundings and computes the MFCC."""

    needs_config = ("fps", "model_params.image_size")

    id = "syncnet"
    version = 1

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "size": self.cfg.model_params.image_size}

    def prepare_clip(self, clip: FaceClip, out: Path) -> None:
        size, track = self.cfg.model_params.image_size, clip.track
        for index, frame in clip.frames():
            if track.found[index]:
                crop = syncnet_crop(frame, track.boxes[index], size)
                write_image(out / f"{index}.jpg", crop, sync=False)
        np.save(out / "mfcc.npy", syncnet_mfcc(clip.wave))
        np.save(out / "segments.npy", np.where(track.found, track.segments, -1).astype(np.int32))
