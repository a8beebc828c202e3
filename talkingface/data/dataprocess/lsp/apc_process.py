"""Preparation for APC: log-mel rows of the sound; the video is not used."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.clips import Clip
from talkingface.data.dataprocess.base import DataProcess, SkipClip
from talkingface.data.media.apc_mel import MOTION_FPS, ROWS_PER_FRAME, SAMPLE_RATE, apc_mel
from talkingface.data.media.audio import load_audio
from talkingface.data.media.probe import probe


class APCProcess(DataProcess):
    """Writes ``<clip>/mel.npy`` (2T,80) float32."""

    id = "APC"
    version = 1

    def settings(self) -> dict[str, Any]:
        return {"min_seconds": self.cfg.min_seconds}

    def process_clip(self, clip: Clip, out: Path) -> dict[str, Any]:
        if not probe(clip.audio).has_audio:
            raise SkipClip("no sound: the file has no audio track")
        wave = load_audio(clip.audio, SAMPLE_RATE)
        if not wave.any():
            raise SkipClip("silent: the sound track is all zeros")
        mel = apc_mel(wave)
        seconds = len(mel) / (MOTION_FPS * ROWS_PER_FRAME)
        if seconds < self.cfg.min_seconds:
            raise SkipClip(f"too short: {seconds:.2f} s")
        np.save(out / "mel.npy", mel)
        sound = hashlib.blake2b(wave.tobytes(), digest_size=8).hexdigest()
        return {"frames": len(mel), "seconds": round(seconds, 3), "sound": sound}
