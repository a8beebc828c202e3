"""Preparation for HyperLips stage 2: what a trained base makes of each clip, beside the real one.

Layout (folder names of the official code, misspelling included), below
``preprocessed_data/HR_Train_Dateset``::

    GT_IMG/<clip>/0.jpg ...        real face crops, BGR; and segments.npy (T,), -1 where none exists
    GT_MASK/<clip>/0.png ...       ring around the lips, 0 or 255
    GT_SKETCH/<clip>/0.png ...     line drawing of the real face
    HYPER_IMG/<clip>/0.png ...     128 px picture of the base, exactly as the decoder will get it
    HYPER_SKETCH/<clip>/0.png ...  line drawing of that picture
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
    """Runs the base on every clip with its own sound and draws the sketches."""

    needs_config = (
        *VideoProcess.needs_config,
        "data.sketch",
        "data.sketch_smoothing",
        "model_params.image_size",
    )

    id = "HR_Train_Dateset"
    version = 1
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
        """Stage 1."""
        import torch

        if multiprocessing.parent_process() is not None:  # as many workers as cores already
            torch.set_num_threads(1)
        return self.components.pipeline("base")

    def prepare_clip(self, clip: FaceClip, out: Path) -> None:
        track = clip.track
        folders = {part: out / part for part in PARTS}
        for folder in folders.values():
            folder.mkdir()
        source = self.base.prepare(clip.clip.path)
        kept = np.full(len(track), -1, np.int32)

        def store(number: int, picture: np.ndarray, line: np.ndarray) -> None:
            if not track.found[number]:
                return
            rgb = np.ascontiguousarray(picture[..., ::-1])
            for part, image in (("HYPER_IMG", rgb), ("HYPER_SKETCH", _coloured(line))):
                write_image(folders[part] / f"{number}.png", image, sync=False)
            kept[number] = track.segments[number]

        thick, smoothing = self.cfg.data.sketch == "upstream", self.cfg.data.sketch_smoothing
        with SketchMaker(clip.fps, smoothing, upstream=thick) as sketches:
            for number, (index, frame, face) in enumerate(self.base.faces(source, clip.wave)):
                if number != index or index >= len(track):
                    break  # the sound is longer than the picture
                if track.found[index]:
                    self._store_real(folders, track, index, frame, thick)
                # Frames without a face as well: generation does not leave them out either.
                small = resize_image(face, INPUT_SIZE)
                for done in sketches.add(index, small, track.segments[index]):
                    store(*done)
            for done in sketches.finish():
                store(*done)
        np.save(folders["GT_IMG"] / "segments.npy", kept)
        if sketches.missed:
            log.warning(
                "%s: no face in %d of %d pictures of the base, which got the sketch before them; "
                "if there are many, train the base longer",
                clip.clip.id,
                sketches.missed,
                number + 1,
            )

    def _store_real(
        self, folders: dict[str, Path], track: FaceTrack, index: int, frame: np.ndarray, thick: bool
    ) -> None:
        """Real crop, lip mask and sketch of a frame (H,W,3) uint8 RGB."""
        box, size = track.boxes[index], self.cfg.model_params.image_size
        real = resize_image(crop_face(frame, box), size)
        write_image(folders["GT_IMG"] / f"{index}.jpg", real, sync=False)
        x0, y0, x1, y1 = integer_box(box, *frame.shape[:2])
        points = (track.landmarks[index, :, :2] - (x0, y0)) / (x1 - x0, y1 - y0)
        drawn = {"GT_MASK": mouth_mask(points * size, size, size)}
        drawn["GT_SKETCH"] = draw_sketch(points, size, upstream=thick)
        for part, image in drawn.items():
            write_image(folders[part] / f"{index}.png", _coloured(image), sync=False)


def _coloured(grey: np.ndarray) -> np.ndarray:
    """(H,W) to (H,W,3)."""
    return np.repeat(grey[..., None], 3, axis=-1)
