"""Preparation for HyperLips stage 2: the output of a trained base for each clip, and real crops.

Layout (folder names of the official code, including the misspelling), below
``preprocessed_data/HR_Train_Dateset``::

    GT_IMG/<clip>/0.jpg ...        real face crops; and segments.npy (T,), -1 without a crop
    GT_MASK/<clip>/0.png ...       ring around the lips, 0 or 255
    GT_SKETCH/<clip>/0.png ...     line drawing of the real face
    HYPER_IMG/<clip>/0.png ...     128 px output of the base, the same as the decoder input later
    HYPER_SKETCH/<clip>/0.png ...  line drawing of this output
"""

from __future__ import annotations

import logging
import multiprocessing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.config.config import Config
from talkingface.data.dataprocess.base import Components
from talkingface.data.dataprocess.prepared import PreparedClips
from talkingface.data.dataprocess.video import FaceClip, VideoProcess
from talkingface.data.face.boxes import crop_face, integer_box, resize_image
from talkingface.data.face.masks import mouth_mask
from talkingface.data.face.sketches import INPUT_SIZE, SketchMaker, draw_sketch
from talkingface.data.media.writer import write_image

if TYPE_CHECKING:
    from talkingface.data.face.tracking import FaceTrack
    from talkingface.pipeline.hyperlips.dubbing import DubbingPipeline

log = logging.getLogger(__name__)

PARTS = ("GT_IMG", "GT_MASK", "GT_SKETCH", "HYPER_IMG", "HYPER_SKETCH")


class HyperLipsHRProcess(VideoProcess):
    """Runs the base on every clip with the clip's audio, and draws the sketches."""

    needs_config = (
        "data.sketch",
        "data.sketch_smoothing",
        "fps",
        "model_params.image_size",
    )

    id = "HR_Train_Dateset"
    version = 2
    uses_components = True

    def __init__(self, cfg: Config, components: Components) -> None:
        super().__init__(cfg, components)
        self.prepared = PreparedClips(self, PARTS)

    def settings(self) -> dict[str, Any]:
        return {
            **super().settings(),
            "size": self.cfg.model_params.image_size,
            "base": self.base_hash,
            "smoothing": self.cfg.data.sketch_smoothing,
            "upstream": self.cfg.data.sketch == "upstream",
        }

    @cached_property
    def base_hash(self) -> str:
        """SHA-256 of the checkpoint of stage 1."""
        return self.components.sha256("base")

    @cached_property
    def base(self) -> DubbingPipeline:
        """The dubbing pipeline of stage 1."""
        import torch

        if multiprocessing.parent_process() is not None:  # there is a worker process per core
            torch.set_num_threads(1)
        pipeline = self.components.pipeline("base", silence="keep")
        pipeline.face_size = (INPUT_SIZE, INPUT_SIZE)
        return pipeline

    def prepare_clip(self, clip: FaceClip, out: Path) -> None:
        track = clip.track
        for part in PARTS:
            (out / part).mkdir()
        source = self.base.prepare(clip.clip.path)
        segments = np.full(len(track), -1, np.int32)

        def store(index: int, image: np.ndarray, sketch: np.ndarray) -> None:
            if not track.found[index]:
                return
            rgb = np.ascontiguousarray(image[..., ::-1])
            write_image(out / "HYPER_IMG" / f"{index}.png", rgb, sync=False)
            write_image(out / "HYPER_SKETCH" / f"{index}.png", _coloured(sketch), sync=False)
            segments[index] = track.segments[index]

        thick, smoothing = self.cfg.data.sketch == "upstream", self.cfg.data.sketch_smoothing
        with SketchMaker(clip.fps, smoothing, upstream=thick) as sketches:
            for number, (index, frame, face) in enumerate(self.base.faces(source, clip.wave)):
                if number != index or index >= len(track):
                    break  # the audio is longer than the video
                if track.found[index]:
                    self._store_real(out, track, index, frame, thick)
                # Frames without a face are included, as in generation.
                small = resize_image(face, INPUT_SIZE)
                for result in sketches.add(index, small, track.segments[index]):
                    store(*result)
            for result in sketches.finish():
                store(*result)
        np.save(out / "GT_IMG" / "segments.npy", segments)
        if sketches.missed:
            log.warning(
                "%s: no face in %d of %d output images of the base; the previous sketch is used "
                "for them. If there are many, train the base longer",
                clip.clip.id,
                sketches.missed,
                number + 1,
            )

    def _store_real(
        self, out: Path, track: FaceTrack, index: int, frame: np.ndarray, thick: bool
    ) -> None:
        """Write the real crop, lip mask and sketch of a frame (H,W,3) uint8 RGB."""
        box, size = track.boxes[index], self.cfg.model_params.image_size
        real = resize_image(crop_face(frame, box), size)
        write_image(out / "GT_IMG" / f"{index}.jpg", real, sync=False)
        x0, y0, x1, y1 = integer_box(box, *frame.shape[:2])
        points = (track.landmarks[index, :, :2] - (x0, y0)) / (x1 - x0, y1 - y0)
        mask = mouth_mask(points * size, size, size)
        write_image(out / "GT_MASK" / f"{index}.png", _coloured(mask), sync=False)
        sketch = draw_sketch(points, size, upstream=thick)
        write_image(out / "GT_SKETCH" / f"{index}.png", _coloured(sketch), sync=False)


def _coloured(grey: np.ndarray) -> np.ndarray:
    """(H,W) to (H,W,3)."""
    return np.repeat(grey[..., None], 3, axis=-1)
