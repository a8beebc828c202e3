"""From a sound to the motion of a portrait: mapping network and facial composer of MODA."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from talkingface.components.store import ComponentStore
from talkingface.data.dataprocess.moda.files import Features, Template, posed, posed_torso
from talkingface.data.dataprocess.moda.moda_process import OTHER_POINTS, sound_features
from talkingface.data.dataprocess.moda.sound import (
    SoundFeatures,
    frames_of,
    normalised,
    samples_of,
    with_context,
)
from talkingface.data.dataset.moda.moda_dataset import subject_code
from talkingface.data.face.series import smooth, there_and_back
from talkingface.data.face.topology import MODA_EYES, MODA_MOUTH, N_POINTS
from talkingface.errors import DataError
from talkingface.model.audio_driven_talkingface.moda.moda_networks import WIDTH, wav2vec2_at
from talkingface.pipeline.base import SAMPLE_RATE

if TYPE_CHECKING:
    from talkingface.model.abstract_talkingface import AbstractTalkingFace

log = logging.getLogger(__name__)

LEAST_SECONDS = 0.1
_PART = 500  # frames composed at once


@dataclass(frozen=True)
class PortraitMotion:
    """Motion of a video.

    Attributes:
        vertices: (T,478,3) canonical face.
        headpose: (T,7).
        torso: (T,18,3) in the space of the source's torso.
        landmarks: (T,478,2), shoulders: (T,18,2), px of the crop, NaN on invisible sides.
    """

    vertices: np.ndarray
    headpose: np.ndarray
    torso: np.ndarray
    landmarks: np.ndarray
    shoulders: np.ndarray

    @classmethod
    def of(
        cls, source: Features, vertices: np.ndarray, headpose: np.ndarray, torso: np.ndarray
    ) -> PortraitMotion:
        landmarks = posed(source, vertices, headpose)[..., :2]
        return cls(vertices, headpose, torso, landmarks, posed_torso(source, torso, headpose))


class Speaker:
    """Mapping network, composer and settings that turn sounds into motion.

    Args:
        moda: trained mapping model, faco: trained composer.
        options: section ``infer.motion`` of MODAPortrait.
    """

    def __init__(self, moda: AbstractTalkingFace, faco: AbstractTalkingFace, options: Any) -> None:
        self.moda, self.faco, self.options = moda, faco, options
        templates = [part.cfg.data.template for part in (moda, faco)]
        if options.faco and templates[0] != templates[1]:
            log.warning(
                "MODA was trained with data.template=%s, MODAFaCo with %s: their faces do not "
                "match exactly",
                *templates,
            )
        self.fps = moda.cfg.fps
        sound = moda.cfg.audio_encoder
        self.context = sound.around
        self.own_encoder = sound.kind == "wav2vec2"
        self.features: SoundFeatures
        if self.own_encoder:
            encoder = moda.network.audio_encoder.eval()
            self.features = SoundFeatures("wav2vec2", lambda: partial(wav2vec2_at, encoder))
        else:
            trained = ComponentStore(moda.cfg).as_trained(moda)
            self.features = sound_features(trained, ComponentStore(trained))

    @property
    def stochastic(self) -> bool:
        return self.options.temperature > 0 and self.moda.cfg.model_params.body in ("dual", "long")

    def frame_count(self, wave: np.ndarray) -> int:
        """Number of video frames for a sound.

        Raises:
            DataError: the sound is too short.
        """
        if len(wave) < LEAST_SECONDS * SAMPLE_RATE:
            raise DataError(
                f"The sound is {len(wave) / SAMPLE_RATE:.2f} s long; it needs at least "
                f"{LEAST_SECONDS:g} s."
            )
        return frames_of(len(wave), self.fps)

    @torch.no_grad()
    def generate(
        self, source: Features, template: Template, wave: np.ndarray, count: int, seed: int = 0
    ) -> Iterator[PortraitMotion]:
        """Motion for a sound (N,), 16 kHz mono, in parts, since all meshes of a long sound may not
        fit into memory."""
        mapped = self._mapped(source, template, wave, count, seed)
        sigma = self.options.smooth.others * self.fps / 25
        margin = int(np.ceil(3 * sigma))
        for start in range(0, count, _PART):
            stop = min(count, start + _PART)
            first, last = max(0, start - margin), min(count, stop + margin)
            lips, eyes = mapped["lips"][first:last], mapped["eyes"][first:last]
            vertices = template.mesh + self._composed(lips, eyes, source, template)
            vertices[:, OTHER_POINTS] = smooth(vertices[:, OTHER_POINTS], sigma)
            vertices = vertices[start - first : stop - first]
            head, torso = mapped["head"][start:stop], mapped["torso"][start:stop]
            yield PortraitMotion.of(source, vertices, head, torso)

    def _mapped(
        self, source: Features, template: Template, wave: np.ndarray, count: int, seed: int
    ) -> dict[str, np.ndarray]:
        """Smoothed motion: lips and eyes as offsets, head and torso absolute."""
        options, moda = self.options, self.moda
        noise = None
        if self.stochastic:
            drawn = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))
            noise = options.temperature * drawn
        official = moda.cfg.model_params.std_mode == "none"
        code = subject_code(template.mesh, source.face_center, official)
        mapped = moda.sequence(
            self._sound_input(wave, count),
            code,
            count,
            noise=noise,
            window=options.window,
            stride=options.stride,
            subject_std=template.std.astype(np.float32),
        )
        rate = self.fps / 25  # options.smooth is for 25 frames per second
        by = options.smooth
        mapped["lips"] = smooth(mapped["lips"], by.lip * rate)
        mapped["eyes"] = smooth(mapped["eyes"], by.eye * rate)
        if options.head == "source":
            rows = there_and_back(len(source), count)
            return {**mapped, "head": source.headpose[rows], "torso": source.torso[rows]}
        head = mapped["head"] + template.headpose
        head[:, :3] = smooth(head[:, :3], by.rot * rate)
        head[:, 3:] = smooth(head[:, 3:], by.trans * rate)
        # The predicted scale of the face must be positive and plausible.
        head[:, 6] = np.clip(head[:, 6], 0.5 * template.headpose[6], 2 * template.headpose[6])
        torso = mapped["torso"].reshape(count, 18, 3) + template.torso
        return {**mapped, "head": head, "torso": smooth(torso, by.torso * rate)}

    def _sound_input(self, wave: np.ndarray, count: int) -> Any:
        """(start, stop) -> input of the mapping network for these frames."""
        missing = max(0, round(count * SAMPLE_RATE / self.fps) - len(wave))
        if self.own_encoder and not self.moda.cfg.audio_encoder.freeze:
            whole = np.pad(normalised(wave), (0, missing))
            return lambda start, stop: whole[samples_of(start, stop, self.fps)]
        features = self.features(np.pad(wave, (0, missing)), count, self.fps)
        return lambda start, stop: with_context(features, start, stop, self.context)

    def _composed(
        self, lips: np.ndarray, eyes: np.ndarray, source: Features, template: Template
    ) -> np.ndarray:
        """(T,478,3) offsets of the mesh."""
        mesh = np.zeros((len(lips), N_POINTS, 3))
        if self.options.faco:
            official = self.faco.cfg.model_params.std_mode == "none"
            code = subject_code(template.mesh, source.face_center, official).reshape(-1)
            device = next(self.faco.parameters()).device
            inputs = (np.ascontiguousarray(v, np.float32) for v in (lips, eyes, code))
            batch = [torch.from_numpy(values)[None].to(device) for values in inputs]
            offsets = self.faco.compose(*batch)[0]
            mesh = offsets.cpu().numpy().astype(np.float64).reshape(-1, N_POINTS, 3)
        if self.options.exact_parts or not self.options.faco:
            mesh[:, list(MODA_MOUTH)] = lips.reshape(len(lips), -1, 3)
            mesh[:, list(MODA_EYES)] = eyes.reshape(len(eyes), -1, 3)
        return mesh
