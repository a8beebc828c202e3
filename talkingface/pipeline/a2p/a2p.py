"""Motion of face and body from a sound: files, previews, or a video of a head by HeadGAN."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from talkingface.data.dataprocess.a2p.a2p_process import A2PProcess
from talkingface.data.dataprocess.a2p.files import Stats
from talkingface.data.dataprocess.a2p.skeleton import Skeleton
from talkingface.data.face.face_model import TOPOLOGY, FaceModel
from talkingface.data.face.topology import LIPS
from talkingface.data.media.audio import load_dyad, resampled
from talkingface.data.media.writer import write_video
from talkingface.data.scenes import SAMPLE_RATE as RATE
from talkingface.errors import ConfigError, DataError, TalkingFaceError, WeightsError
from talkingface.evaluator.motion_files import MotionResults
from talkingface.evaluator.motion_preview import (
    bones,
    curves,
    lips,
    with_cursor,
    write_preview,
)
from talkingface.pipeline.base import SAMPLE_RATE, Pipeline, Rendered
from talkingface.pipeline.build import build_pipeline
from talkingface.utils.logs import progress
from talkingface.utils.paths import resolve

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.model.abstract_talkingface import AbstractTalkingFace

log = logging.getLogger(__name__)

_LEAST = 30  # frames
_FLOOR = 0.001  # standard deviation of the noise that replaces an absent partner


class A2PPipeline(Pipeline):
    """Generates motion from one sound.

    Beside the video it writes ``<name>_face.npz`` and ``<name>_face_results.npy`` (the authors'
    layout), the same for the pose, and curves of both as ``.png`` and ``.mp4``.
    """

    needs_config = (
        "data.guide_step",
        "infer.channels",
        "infer.demo_normalisation",
        "infer.skeleton",
        "infer.view",
        "sampling.guide_source",
    )

    source_kind = "optional"
    stochastic = True
    usage = "--audio={audio}"

    def __init__(self, cfg: Config, model: AbstractTalkingFace, device: torch.device) -> None:
        super().__init__(cfg, model, device)
        self.model: Any = model
        for part in self.model.components.values():
            part.network.to(device)
        self.renderer: Any = None
        if cfg.sampling.guide_source == "gt":
            raise ConfigError(
                "sampling.guide_source=gt is for test scenes; a sound has no key poses"
            )
        if "renderer" in self.model.components:
            head: Any = self.model.components["renderer"].network
            self.renderer = build_pipeline(head.cfg, head, device)

    def _part(self, name: str) -> Any:
        """The model of a component, None when there is none."""
        return self.model.components[name].network if name in self.model.components else None

    @property
    def faces(self) -> FaceModel | None:
        """The landmark face model of the face codes; None for other codes."""
        face = self._part("face")
        return None if face is None else face.statistics.faces

    # -- sound -------------------------------------------------------------------------------------

    def _stats(self) -> Stats:
        """Statistics in the weights of face or pose, else those of the dataset."""
        for part in (self._part("face"), self._part("pose")):
            if part is not None and part.statistics.stats is not None:
                return part.statistics.stats
        try:
            return A2PProcess(self.cfg).load_stats()
        except TalkingFaceError as error:
            raise WeightsError(
                f"official weights hold no mean and standard deviation: {error} Name the person's "
                "dataset with --dataset, and keep its data_stats.pth beside the scenes."
            ) from error

    def standardised(self, sound: np.ndarray, stats: Stats, seed: int = 0) -> np.ndarray:
        """(S,2) samples scaled to the loudness of the training data.

        Raises:
            DataError: the sound is silent.
        """
        if self.cfg.infer.demo_normalisation:
            noise = np.random.default_rng(seed).normal(0, _FLOOR, len(sound))
            own = sound[:, 0] / max(float(sound[:, 0].max()), 1e-9)
            return stats.sound(np.stack([own, noise], axis=1))
        loud = float(np.sqrt(sound.var(axis=0).mean()))
        if loud < 1e-6:
            raise DataError("the sound is silent: no motion can be generated")
        samples = (sound - sound.mean(axis=0)) / loud
        if not sound[:, 1].any() and self.faces is None:
            # Training recordings are never digital silence; the authors' demo adds noise, too.
            noise = np.random.default_rng(seed).normal(0, _FLOOR, len(sound))
            samples[:, 1] = noise / float(stats.audio_std_flat[0])
        return samples.astype(np.float32)

    def motions(
        self, sound: np.ndarray, *, seed: int | None = None, show_progress: str | bool = False
    ) -> dict[str, np.ndarray]:
        """Sound (S,2) at 48 kHz -> ``face`` (T,C), ``pose`` (T,104), ``pose_keys`` (K,104).

        Raises:
            DataError: the sound is too short or silent.
        """
        frames = int(len(sound) * self.cfg.fps / RATE)
        if frames < _LEAST:
            raise DataError(
                f"the sound lasts {len(sound) / RATE:.2f} s; at least {_LEAST / self.cfg.fps:.1f} "
                "s are needed"
            )
        stats = self._stats()
        samples = self.standardised(sound, stats, seed or 0)
        with progress(unit="step", desc="sampling", show=show_progress, leave=False) as bar:
            motions = self.model.generate(
                samples, frames, seed=seed or 0, stats=stats, progress=bar.update
            )
        return {part: values[0] for part, values in motions.items()}

    # -- the toolkit's interface -------------------------------------------------------------------

    def prepare(self, source: Path | None, *, show_progress: str | bool = False) -> Any:
        if source is None:
            return None
        if self.renderer is None:
            raise ConfigError(
                "--source needs a trained HeadGAN that renders the face: --weights.renderer=auto, "
                "or a checkpoint. Without --source the video shows curves."
            )
        return self.renderer.prepare(source, show_progress=show_progress)

    def frame_count(self, identity: Any, wave: np.ndarray) -> int:
        return int(len(wave) * self._shown_fps(identity) / SAMPLE_RATE)

    def _shown_fps(self, identity: Any) -> float:
        return self.cfg.fps if identity is None else self.renderer.cfg.fps

    def generate(
        self,
        identity: Any,
        wave: np.ndarray,
        *,
        baseline: str | None = None,
        seed: int | None = None,
    ) -> Iterator[np.ndarray]:
        own = resampled(wave, SAMPLE_RATE, RATE)
        sound = np.stack([own, np.zeros_like(own)], axis=1)
        motions = self.motions(sound, seed=seed)
        yield from self.pictures(identity, motions, sound)

    def _view(self, identity: Any) -> str:
        """The view of the video; its requirements are checked before the sampling.

        Raises:
            ConfigError: a requirement of the view is missing.
        """
        view = self.cfg.infer.view
        if view == "auto":
            view = "curves" if identity is None else "head"
        if view == "head":
            if identity is None or self.renderer is None:
                raise ConfigError("infer.view=head needs --source and --weights.renderer")
            if self.faces is None:
                raise ConfigError(
                    "these face codes are those of the authors' avatars, which no open renderer "
                    "supports; training on videos (--recipe=a2p_video) gives landmark codes"
                )
            if self.renderer.face.topology != TOPOLOGY:
                raise ConfigError(
                    f"a HeadGAN with the face model {self.renderer.face.topology} cannot render "
                    "landmark codes"
                )
        if view == "skeleton":
            if self.cfg.infer.skeleton is None or "pose" not in self.model.components:
                raise ConfigError(
                    "infer.view=skeleton needs a body (A2PPose) and infer.skeleton, the authors' "
                    "static_assets.pt; infer.view=curves needs neither"
                )
            Skeleton.read(resolve(self.cfg.infer.skeleton))
        face = self._part("face")
        has_lips = face is not None and hasattr(face.network, "lip_model")
        if view == "lips" and self.faces is None and not has_lips:
            raise ConfigError("infer.view=lips needs a face that was trained with lip_cond=a2plip")
        return view

    def pictures(
        self, identity: Any, motions: dict[str, np.ndarray], sound: np.ndarray
    ) -> Iterator[np.ndarray]:
        """Frames of the video in the view of ``infer.view``."""
        view = self._view(identity)
        first = "face" if "face" in motions else "pose"
        frames = len(motions[first])
        if view == "head":
            yield from self._head(identity, motions, sound)
        elif view == "lips":
            yield from lips(self._lips(motions, sound), sound)
        elif view == "skeleton":
            skeleton = Skeleton.read(resolve(self.cfg.infer.skeleton))
            yield from bones(skeleton.joints(motions["pose"]), skeleton.parents)
        else:
            keys, step = motions.get("pose_keys"), self.cfg.data.guide_step
            picture, columns = curves(
                motions[first], sound, self.cfg.fps, keys=keys, key_step=step, kind=first
            )
            yield from with_cursor(picture, columns, frames)

    def _head(
        self, identity: Any, motions: dict[str, np.ndarray], sound: np.ndarray
    ) -> Iterator[np.ndarray]:
        """The face codes on the head of the source, converted to the renderer's face model."""
        own, target = self.faces, self.renderer.face
        # A least-squares fit: the columns of both bases are orthonormal, pose and size the same.
        codes = motions["face"] @ (target.exp_basis.T @ own.exp_basis).T
        fps = self.renderer.cfg.fps
        time = np.arange(int(len(codes) * fps / self.cfg.fps)) * (self.cfg.fps / fps)
        frames = np.arange(len(codes))
        codes = np.stack([np.interp(time, frames, column) for column in codes.T], axis=1)
        wave = resampled(sound[:, 0], RATE, SAMPLE_RATE)
        yield from self.renderer.express(identity, codes, wave)

    def _lips(self, motions: dict[str, np.ndarray], sound: np.ndarray) -> np.ndarray:
        """(T,V,3) lip points: from the codes if they are those of landmarks, else from the
        sound."""
        if self.faces is not None:
            return self.faces.mean[list(LIPS)] + self.faces.lips(motions["face"])
        samples = self.standardised(sound, self._stats())
        return self._part("face").predicted_lips(samples)[: len(motions["face"])]

    def render(
        self,
        source: Path | None,
        audio: Path | np.ndarray,
        output: Path,
        *,
        driver: Path | None = None,
        frames: int | None = None,
        baseline: str | None = None,
        seed: int | None = None,
        show_progress: str | bool = False,
        finished: bool = False,
    ) -> Rendered:
        """As in the base class, but with both channels of the sound, always as an mp4."""
        started = time.monotonic()
        if isinstance(audio, (str, Path)):
            sound = load_dyad(audio, RATE, self.cfg.infer.channels)
        else:
            own = resampled(audio, SAMPLE_RATE, RATE)
            sound = np.stack([own, np.zeros_like(own)], axis=1)
        identity = self.prepare(source)
        shown = "face" if self._view(identity) == "curves" else ""
        motions = self.motions(sound, seed=seed, show_progress=show_progress)
        self._write(output, motions, sound, seed or 0, shown)
        fps = self._shown_fps(identity)
        pictures = self.pictures(identity, motions, sound)
        bar = progress(pictures, unit="frame", desc=output.name, show=show_progress, leave=False)
        voices = (sound.mean(axis=1), RATE)
        count = write_video(output, bar, fps, audio=voices, crf=self.cfg.infer.crf)
        return Rendered(output, count, count / fps, time.monotonic() - started)

    def _write(
        self,
        output: Path,
        motions: dict[str, np.ndarray],
        sound: np.ndarray,
        seed: int,
        shown: str,
    ) -> None:
        """Write the motions in both layouts, and their curves.

        Args:
            shown: part of the motion whose curves are the output video.
        """
        stem = output.with_suffix("")
        facts = {
            "fps": self.cfg.fps, "sample_rate": RATE, "seed": seed, "model": self.cfg.model,
            "sampling": json.dumps(self.model.sampled_with()),
        }  # fmt: skip
        for part in ("face", "pose"):
            if part not in motions:
                continue
            keys = motions.get("pose_keys") if part == "pose" else None
            results = MotionResults(
                [motions[part][None]],
                sounds=[sound[: round(len(motions[part]) * RATE / self.cfg.fps)]],
                keys=[] if keys is None else [keys[None]],
                facts=facts,
            )
            results.save(stem.with_name(f"{stem.name}_{part}.npz"))
            results.save_original(stem.with_name(f"{stem.name}_{part}_results.npy"))
            write_preview(
                stem.with_name(f"{stem.name}_{part}"), motions[part], sound, RATE, self.cfg.fps,
                keys=keys, key_step=self.cfg.data.guide_step, kind=part, video=part != shown,
                crf=self.cfg.infer.crf,
            )  # fmt: skip
        log.info("motions and curves: %s_*", stem)
