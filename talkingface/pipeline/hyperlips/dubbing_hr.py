"""Dubbing in two stages: the base paints the mouth, the high-resolution decoder sharpens it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from talkingface.data.face.boxes import resize_image
from talkingface.data.face.sketches import INPUT_SIZE, SketchMaker
from talkingface.model.fuse import optimize_for_inference
from talkingface.pipeline.hyperlips.dubbing import DubbingPipeline, DubbingSource
from talkingface.utils.env import import_cv2

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.model.abstract_talkingface import AbstractTalkingFace

_OFFICIAL_OFFSET = -1  # mel shift of the official training, in frames (official code)
_Face = tuple[int, np.ndarray, np.ndarray]  # source index, source frame, face crop BGR


class HyperLipsHRPipeline(DubbingPipeline):
    """Dubs with HyperLipsHR on top of the base that is attached to the model as ``base``."""

    needs_config = (
        *DubbingPipeline.needs_config,
        "data.sketch",
        "data.sketch_smoothing",
        "fps",
        "infer.batch_size",
        "infer.legacy_input",
        "model_params.image_size",
    )

    baselines = (*DubbingPipeline.baselines, "first_stage")

    def __init__(self, cfg: Config, model: AbstractTalkingFace, device: torch.device) -> None:
        super().__init__(cfg, model, device)
        base = model.components["base"].network
        self.decoder = self.network
        self.network = optimize_for_inference(base.to(device))
        self.size = base.image_size
        self.output_size = cfg.model_params.image_size

    @property
    def trained_offset(self) -> int:
        settings = self.model.components["base"].settings
        return settings["data"]["mel_frame_offset"] if settings else _OFFICIAL_OFFSET

    def faces(
        self, identity: DubbingSource, wave: np.ndarray, *, baseline: str | None = None
    ) -> Iterator[_Face]:
        if baseline == "first_stage":
            cv2, size = import_cv2(), (self.output_size, self.output_size)
            for index, frame, face in super().faces(identity, wave):
                yield index, frame, cv2.resize(face, size, interpolation=cv2.INTER_CUBIC)
            return
        made = super().faces(identity, wave, baseline=baseline)
        if baseline is not None:  # the reference itself in full resolution
            reference = self._full_reference(identity)
            for index, frame, _ in made:
                yield index, frame, reference
            return
        sketched = self._sketched(made, identity.track.segments)
        while batch := list(islice(sketched, self.cfg.infer.batch_size)):
            sharp = self._sharpen([face for _, face, _ in batch], [line for *_, line in batch])
            for ((index, frame), _, _), face in zip(batch, sharp, strict=True):
                yield index, frame, face

    def _full_reference(self, identity: DubbingSource) -> np.ndarray:
        index = self._reference_index(identity.track)
        frame = next(iter(self._forward(identity.path, index, index + 1)))
        return self._crop(frame, identity.track.boxes[index], self.output_size)

    def _sketched(
        self, faces: Iterable[_Face], segments: np.ndarray
    ) -> Iterator[tuple[tuple[int, np.ndarray], np.ndarray, np.ndarray]]:
        """Pictures of the decoder's size with their sketches."""
        options = self.cfg.data
        thick = options.sketch == "upstream"
        if options.sketch == "auto":
            thick = self.model.origin.official
        with SketchMaker(self.cfg.fps, options.sketch_smoothing, upstream=thick) as maker:
            last, jumps = None, 0
            for index, frame, face in faces:
                jumps += last is not None and abs(index - last) > 1  # the source begins anew
                last, shot = index, (segments[index], jumps)
                yield from maker.add((index, frame), resize_image(face, INPUT_SIZE), shot)
            yield from maker.finish()

    @torch.no_grad()
    def _sharpen(self, faces: list[np.ndarray], sketches: list[np.ndarray]) -> np.ndarray:
        """(n,S,S,3) uint8 BGR of 128 px pictures and sketches."""
        lines = np.repeat(np.stack(sketches)[..., None], 3, axis=-1)
        stacked = np.concatenate([np.stack(faces), lines], axis=-1)
        x = torch.from_numpy(stacked).to(self.device).permute(0, 3, 1, 2).float() / 255
        if self.cfg.infer.legacy_input:
            size = (self.output_size, self.output_size)
            x = torch.nn.functional.interpolate(x, size=size, mode="bilinear")
        with self._precision():
            # One at a time on a CPU: the maps of a single picture fill its cache.
            parts = x.split(1 if self.device.type == "cpu" else len(x))
            made = torch.cat([self.decoder(part.contiguous(
                memory_format=torch.channels_last)) for part in parts])  # fmt: skip
        made = (made.float().clamp(0, 1) * 255).round().byte()
        return made.permute(0, 2, 3, 1).cpu().numpy()
