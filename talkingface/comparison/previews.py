"""Small copies of videos for the result page."""

from __future__ import annotations

import base64
import tempfile
from itertools import islice
from pathlib import Path

from talkingface.data.clips import Clip
from talkingface.data.face.boxes import resize_image
from talkingface.data.media.audio import load_audio
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import read_frames
from talkingface.data.media.writer import VideoWriter
from talkingface.pipeline.base import SAMPLE_RATE

HEIGHT = 320  # largest height, in pixels
SECONDS = 10.0  # longest duration
_FPS, _CRF = 25.0, 26


def embedded_video(path: Path, clip: Clip) -> str:
    """The beginning of a video as a ``data:`` URL, downscaled, with its own or the clip's audio."""
    info = probe(path)
    scale = min(1.0, HEIGHT / info.height)
    size = (2 * round(info.width * scale / 2), 2 * round(info.height * scale / 2))
    source = next((f for f in (path, clip.audio) if probe(f).has_audio), None)
    sound = None
    if source is not None:
        sound = (load_audio(source, SAMPLE_RATE)[: int(SECONDS * SAMPLE_RATE)], SAMPLE_RATE)
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.mp4"
        with VideoWriter(small, _FPS, audio=sound, crf=_CRF) as writer:
            for frame in islice(read_frames(path, fps=_FPS), int(SECONDS * _FPS)):
                writer.write(frame if frame.shape[1::-1] == size else resize_image(frame, size))
        return "data:video/mp4;base64," + base64.b64encode(small.read_bytes()).decode("ascii")
