"""Dubbing in two stages: the base generates the face, the high-resolution decoder sharpens it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from talkingface.data.face.boxes import resize_image
from talkingface.data.face.sketches import INPUT_SIZE, SketchMaker
from talkingface.model.fuse import optimize_for_inference
from talkingface.pipeline.hyperlips.dubbing import DubbingPipeline, DubbingSource, to_images
from talkingface.pipeline.hyperlips.lip_painting import enlarged

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.model.abstract_talkingface import AbstractTalkingFace

_OFFICIAL_OFFSET = -1  # mel shift of the official training, in frames (official code)
_Face = tuple[int, np.ndarray, np.ndarray]  # source index, source frame, face crop BGR


class HyperLipsHRPipeline(DubbingPipeline):
    """Dubbing with HyperLipsHR and the component ``base`` of the model."""

    needs_config = (
        "data.sketch",
        "data.sketch_smoothing",
        "infer.legacy_input",
    )

    baselines = (*DubbingPipeline.baselines, "first_stage")

    def __init__(self, cfg: Config, model: AbstractTalkingFace, device: torch.device) -> None:
        super().__init__(cfg, model, device)
        base = model.components["base"].network
        self.decoder = self.network
        self.network = optimize_for_inference(base.to(device))
        self.size, self.face_size = base.image_size, (INPUT_SIZE, INPUT_SIZE)
        self.output_size = cfg.model_params.image_size

    @property
    def training_data(self) -> Mapping[str, Any]:
        settings = self.model.components["base"].settings
        return settings["data"] if settings else {"mel_frame_offset": _OFFICIAL_OFFSET}

    def faces(
        self, identity: DubbingSource, wave: np.ndarray, *, baseline: str | None = None
    ) -> Iterator[_Face]:
        if baseline == "first_stage":
            for index, frame, face in super().faces(identity, wave):
                yield index, frame, enlarged(face, self.output_size, self.output_size)
            return
        faces = super().faces(identity, wave, baseline=baseline)
        if baseline is not None:
            yield from faces
            return
        sketched = self._sketched(faces, identity)
        while batch := list(islice(sketched, self.cfg.infer.batch_size)):
            sharp = self._sharpen([face for _, face, _ in batch], [line for *_, line in batch])
            for ((index, frame), _, _), face in zip(batch, sharp, strict=True):
                yield index, frame, face

    def _sketched(
        self, faces: Iterable[_Face], identity: DubbingSource
    ) -> Iterator[tuple[tuple[int, np.ndarray], np.ndarray, np.ndarray]]:
        """((index, frame), 128 px face, sketch) of every face."""
        options, segments = self.cfg.data, identity.track.segments
        thick = options.sketch == "upstream"
        if options.sketch == "auto":
            thick = self.model.origin.official
        with SketchMaker(identity.fps, options.sketch_smoothing, upstream=thick) as maker:
            last, jumps = None, 0
            for index, frame, face in faces:
                jumps += last is not None and abs(index - last) > 1  # the source is repeated
                last, shot = index, (segments[index], jumps)
                yield from maker.add((index, frame), resize_image(face, INPUT_SIZE), shot)
            yield from maker.finish()

    @torch.no_grad()
    def _sharpen(self, faces: list[np.ndarray], sketches: list[np.ndarray]) -> np.ndarray:
        """128 px images and sketches -> output images (n,S,S,3) uint8 BGR."""
        lines = np.repeat(np.stack(sketches)[..., None], 3, axis=-1)
        stacked = np.concatenate([np.stack(faces), lines], axis=-1)
        x = torch.from_numpy(stacked).to(self.device).permute(0, 3, 1, 2).float() / 255
        if self.cfg.infer.legacy_input:
            size = (self.output_size, self.output_size)
            x = torch.nn.functional.interpolate(x, size=size, mode="bilinear")
        with self._precision():
            # One image at a time on a CPU: its feature maps fill the cache.
            parts = x.split(1 if self.device.type == "cpu" else len(x))
            sharp = [self.decoder(p.contiguous(memory_format=torch.channels_last)) for p in parts]
        return to_images(torch.cat(sharp))
