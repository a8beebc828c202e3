"""Videos of MODA: a clip redrawn from its mesh, or a person from speech."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from talkingface.data.clips import Clip
from talkingface.data.dataprocess.moda.drawing import draw_condition
from talkingface.data.dataprocess.moda.files import (
    FEATURES,
    PICTURES,
    SOUND,
    TEMPLATE,
    Features,
    Template,
)
from talkingface.data.dataprocess.moda.moda_process import MODAPicturesProcess, crop_frames
from talkingface.data.dataset.moda.moda_renderer_dataset import references
from talkingface.data.media.pictures import PictureReader, signed
from talkingface.model.fuse import optimize_for_inference
from talkingface.pipeline.base import SAMPLE_RATE, Pipeline
from talkingface.pipeline.moda.moda_motion import PortraitMotion, Speaker
from talkingface.pipeline.sources import SourceStore, write_reference
from talkingface.utils.paths import resolve

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.model.abstract_talkingface import AbstractTalkingFace


@dataclass(frozen=True)
class MODASource:
    """A prepared source.

    Attributes:
        template: means of the source.
        references: (S,S,3n) uint8.
    """

    folder: Path
    features: Features
    template: Template
    references: np.ndarray


class MODAPipeline(Pipeline):
    """Base class: draws meshes and generates the pictures from them.

    Sources are clips of the dataset; other videos and pictures are prepared on first use. A
    renderer can generate only the people that it was trained on.

    Args:
        renderer: the trained MODARenderer.
    """

    needs_config = ("infer.batch_size", "person.name")
    baselines = ("copy_reference",)

    def __init__(
        self,
        cfg: Config,
        model: AbstractTalkingFace,
        device: torch.device,
        renderer: AbstractTalkingFace,
    ) -> None:
        super().__init__(cfg, model, device)
        self.renderer = renderer
        self.size = renderer.cfg.model_params.image_size
        self.network = optimize_for_inference(renderer.network.to(device))
        self.process = MODAPicturesProcess(cfg)
        self.store = SourceStore(cfg, self.process, PICTURES)

    def prepare(self, source: Path, *, show_progress: str | bool = False) -> MODASource:
        source = resolve(source)
        clip = self.store.clip_of(source)
        if clip is not None:
            folder = self.process.prepared.output_dirs(clip.id)[0]
            if not (folder / PICTURES).is_file():
                self.process.write_pictures(clip, Features.read(folder / FEATURES))
            template = self.process.template(clip.id, self._template)
        else:
            folder = self.store.prepared(source)
            template = Template.read(folder / TEMPLATE)
            if self._template == "subject" and self.cfg.person.name:
                template = self.process.of_person(template, self.cfg.person.name)
        features = Features.read(folder / FEATURES)
        n_ref = self.renderer.cfg.model_params.n_ref
        pictures = references(PictureReader(folder / PICTURES), features, self.size, n_ref)
        return MODASource(folder, features, template, pictures)

    @property
    def _template(self) -> str:
        """Template that the motion refers to: ``clip`` or ``subject``."""
        return "clip"

    def reference(self, clip: Clip, folder: Path) -> Clip:
        """The real clip, cropped like the generated one."""
        source = self.prepare(clip.path)
        own = source.features
        state = [own.start, len(own), own.fps, own.crop.tolist(), self.size]
        frames = crop_frames(clip, own, self.size)
        return write_reference(clip, folder, state, frames, source.folder / SOUND, self.cfg.fps)

    @torch.inference_mode()
    def paint(
        self, source: MODASource, landmarks: np.ndarray, shoulders: np.ndarray, first: int
    ) -> np.ndarray:
        """(n,478,2) and (n,18,2) px of the crop -> (n,S,S,3) uint8 RGB, from frame ``first`` on."""
        window = source.features.image_size
        lines = [
            signed(draw_condition(one, two, self.size, window))
            for one, two in zip(landmarks, shoulders, strict=True)
        ]
        condition = torch.from_numpy(np.stack(lines)).to(self.device)
        pictures = torch.from_numpy(signed(source.references)).to(self.device)
        time = torch.arange(first, first + len(lines), device=self.device).float()
        stacked = self.renderer.stacked(condition, pictures.expand(len(lines), -1, -1, -1), time)
        with self._precision():
            # One picture at a time on a CPU, whose cache the feature maps of one picture fill.
            step = 1 if self.device.type == "cpu" else len(lines)
            parts = zip(*(value.split(step) for value in stacked), strict=True)
            generated = torch.cat([self.network(*part) for part in parts])
        pixels = ((generated.float() + 1) * 127.5).round().clamp(0, 255).byte()
        return pixels.permute(0, 2, 3, 1).cpu().numpy()

    def frames_of(
        self,
        source: MODASource,
        landmarks: np.ndarray,
        shoulders: np.ndarray,
        baseline: str | None,
        first: int = 0,
    ) -> Iterator[np.ndarray]:
        """The pictures (S,S,3) of a sequence from frame ``first`` on, generated in batches."""
        if baseline == "copy_reference":
            still = source.references[..., :3]
            yield from (still for _ in landmarks)
            return
        step = self.cfg.infer.batch_size
        for start in range(0, len(landmarks), step):
            part = slice(start, start + step)
            yield from self.paint(source, landmarks[part], shoulders[part], first + start)


class MODARendererPipeline(MODAPipeline):
    """Redraws a prepared clip from its mesh; the sound is copied unchanged."""

    def __init__(self, cfg: Config, model: AbstractTalkingFace, device: torch.device) -> None:
        super().__init__(cfg, model, device, model)

    def frame_count(self, identity: MODASource, wave: np.ndarray) -> int:
        return min(len(identity.features), max(1, round(len(wave) * self.cfg.fps / SAMPLE_RATE)))

    def generate(
        self, identity: MODASource, wave: np.ndarray, *, baseline: str | None = None
    ) -> Iterator[np.ndarray]:
        own = identity.features
        motion = PortraitMotion.of(own, own.vertices, own.headpose, own.torso)
        yield from self.frames_of(identity, motion.landmarks, motion.shoulders, baseline)


class MODAPortraitPipeline(MODAPipeline):
    """Speech to video with all parts."""

    needs_config = ("infer.motion",)

    def __init__(self, cfg: Config, model: AbstractTalkingFace, device: torch.device) -> None:
        parts: dict[str, Any] = {
            name: part.network.to(device) for name, part in model.components.items()
        }
        super().__init__(cfg, model, device, parts["renderer"])
        self.speaker = Speaker(parts["moda"], parts["faco"], cfg.infer.motion)
        self.stochastic = self.speaker.stochastic

    @property
    def _template(self) -> str:
        return self.speaker.moda.cfg.data.template

    def frame_count(self, identity: MODASource, wave: np.ndarray) -> int:
        return self.speaker.frame_count(wave)

    def generate(
        self,
        identity: MODASource,
        wave: np.ndarray,
        *,
        baseline: str | None = None,
        seed: int | None = None,
    ) -> Iterator[np.ndarray]:
        first, count = 0, self.frame_count(identity, wave)
        own, template = identity.features, identity.template
        for part in self.speaker.generate(own, template, wave, count, seed or 0):
            yield from self.frames_of(identity, part.landmarks, part.shoulders, baseline, first)
            first += len(part.landmarks)
