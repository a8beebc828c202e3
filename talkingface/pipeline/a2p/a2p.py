"""Motion of face and body from a sound: files, previews, or the head of a source by HeadGAN."""

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
from talkingface.data.dataprocess.a2p.files import SAMPLE_RATE as RATE
from talkingface.data.dataprocess.a2p.files import Stats
from talkingface.data.dataprocess.a2p.skeleton import Skeleton
from talkingface.data.face.face_model import TOPOLOGY, FaceModel
from talkingface.data.media.audio import load_dyad, resampled
from talkingface.errors import ConfigError, DataError, TalkingFaceError, WeightsError
from talkingface.evaluator.motion_files import MotionResults
from talkingface.evaluator.motion_preview import (
    bones,
    curves,
    lips,
    with_cursor,
    write_preview,
    write_video,
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
_FLOOR = 0.001  # standard deviation of the silence of an absent partner


class A2PPipeline(Pipeline):
    """One sound to motion.

    Beside the video lie ``<name>_face.npz`` and ``<name>_face_results.npy`` (original layout), the
    same of the pose, and the curves of both as ``.png`` and ``.mp4``.
    """

    needs_config = (
        *Pipeline.needs_config,
        "data.guide_step",
        "fps",
        "infer.channels",
        "infer.demo_normalisation",
        "infer.skeleton",
        "infer.view",
        "sampling.guide_source",
    )

    source_kind = "optional"
    stochastic = True
    usage = "--audio=talk.wav"

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

    # -- sound -------------------------------------------------------------------------------------

    def _stats(self) -> Stats:
        """Units of the parts, or of the dataset for official weights."""
        for part in ("face", "pose"):
            network = self._part(part)
            if network is not None and network.statistics.stats is not None:
                return network.statistics.stats
        try:
            return A2PProcess(self.cfg).load_stats()
        except TalkingFaceError as error:
            raise WeightsError(
                f"official weights come without units: {error} Name the person's dataset with "
                "--dataset, and keep its data_stats.pth where its scenes lie."
            ) from error

    def standardised(self, sound: np.ndarray, stats: Stats, seed: int = 0) -> np.ndarray:
        """(S,2) samples -> as loud as the training data."""
        if self.cfg.infer.demo_normalisation:
            noise = np.random.default_rng(seed).normal(0, _FLOOR, len(sound))
            own = sound[:, 0] / max(float(sound[:, 0].max()), 1e-9)
            return stats.sound(np.stack([own, noise], axis=1))
        loud = float(np.sqrt(sound.var(axis=0).mean()))
        if loud < 1e-6:
            raise DataError("the sound is silence: there is nothing to move to")
        samples = (sound - sound.mean(axis=0)) / loud
        face = self._part("face")
        if not sound[:, 1].any() and (face is None or face.statistics.faces is None):
            # Recordings of two persons are never digital silence (the authors' demo adds the same).
            noise = np.random.default_rng(seed).normal(0, _FLOOR, len(sound))
            samples[:, 1] = noise / float(stats.audio_std_flat[0])
        return samples.astype(np.float32)

    def motions(
        self, sound: np.ndarray, *, seed: int | None = None, show_progress: str | bool = False
    ) -> dict[str, np.ndarray]:
        """Sound (S,2) at 48 kHz -> ``face`` (T,C), ``pose`` (T,104), ``pose_keys`` (K,104).

        Raises:
            DataError: too short, or silent.
        """
        frames = int(len(sound) * self.cfg.fps / RATE)
        if frames < _LEAST:
            raise DataError(
                f"the sound lasts {len(sound) / RATE:.2f} s; at least {_LEAST / self.cfg.fps:.1f} "
                "s are needed"
            )
        stats = self._stats()
        samples = self.standardised(sound, stats, seed or 0)
        bar = progress(unit="step", desc="sampling", show=show_progress, leave=False)
        with bar:
            made = self.model.generate(
                samples, frames, seed=seed or 0, stats=stats, progress=bar.update
            )
        return {part: values[0] for part, values in made.items()}

    # -- the toolkit's interface -------------------------------------------------------------------

    def prepare(self, source: Path | None, *, show_progress: str | bool = False) -> Any:
        if source is None:
            return None
        if self.renderer is None:
            raise ConfigError(
                "--source shows the motion on a face, for which A2P needs a trained HeadGAN: "
                "--weights.renderer=auto, or a checkpoint. Without --source curves are shown."
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
        """``infer.view`` resolved; what it needs is checked before anything is sampled.

        Raises:
            ConfigError: something is missing.
        """
        view = self.cfg.infer.view
        if view == "auto":
            view = "curves" if identity is None else "head"
        if view == "head":
            if identity is None or self.renderer is None:
                raise ConfigError("infer.view=head needs --source and --weights.renderer")
            self._faces()
            if self.renderer.face.topology != TOPOLOGY:
                raise ConfigError(
                    f"a HeadGAN with the face model {self.renderer.face.topology} cannot show "
                    "codes of landmarks"
                )
        if view == "skeleton":
            if self.cfg.infer.skeleton is None or "pose" not in self.model.components:
                raise ConfigError(
                    "infer.view=skeleton needs a body (A2PPose) and infer.skeleton, the authors' "
                    "static_assets.pt; without it the curves of the pose show the motion"
                )
            Skeleton.read(resolve(self.cfg.infer.skeleton))
        face = self._part("face")
        if view == "lips" and (
            face is None
            or (face.statistics.faces is None and not hasattr(face.network, "lip_model"))
        ):
            raise ConfigError("infer.view=lips needs a face that was trained with lip_cond=a2plip")
        return view

    def pictures(
        self, identity: Any, motions: dict[str, np.ndarray], sound: np.ndarray
    ) -> Iterator[np.ndarray]:
        """Frames of the view that ``infer.view`` asks for."""
        view = self._view(identity)
        first = "face" if "face" in motions else "pose"
        frames = len(motions[first])
        if view == "head":
            yield from self._head(identity, motions, sound)
        elif view == "lips":
            yield from lips(self._lips(motions, sound), sound)
        elif view == "skeleton":
            yield from self._bones(motions)
        else:
            keys, step = motions.get("pose_keys"), self._key_step()
            picture, columns = curves(
                motions[first], sound, self.cfg.fps, keys=keys, key_step=step, kind=first
            )
            yield from with_cursor(picture, columns, frames)

    def _key_step(self) -> int:
        pose = self._part("pose")
        return pose.cfg.data.guide_step if pose is not None else self.cfg.data.guide_step

    def _faces(self) -> FaceModel:
        """The landmark face model behind the codes.

        Raises:
            ConfigError: they are no landmarks.
        """
        face = self._part("face")
        if face is None or face.statistics.faces is None:
            raise ConfigError(
                "these face codes are those of the authors' avatars, which no open renderer can "
                "show; codes of landmarks come from training on videos (--recipe=a2p_video)"
            )
        return FaceModel.of_content(face.statistics.faces)

    def _head(
        self, identity: Any, motions: dict[str, np.ndarray], sound: np.ndarray
    ) -> Iterator[np.ndarray]:
        """The codes on the head of the source: carried over to the renderer's face model."""
        own, theirs = self._faces(), self.renderer.face
        # Both bases stand upright at the same size; orthonormal columns make this least squares.
        carried = motions["face"] @ (theirs.exp_basis.T @ own.exp_basis).T
        fps = self.renderer.cfg.fps
        time = np.arange(int(len(carried) * fps / self.cfg.fps)) * (self.cfg.fps / fps)
        places = np.arange(len(carried))
        even = np.stack([np.interp(time, places, column) for column in carried.T], axis=1)
        wave = resampled(sound[:, 0], RATE, SAMPLE_RATE)
        yield from self.renderer.express(identity, even, wave)

    def _lips(self, motions: dict[str, np.ndarray], sound: np.ndarray) -> np.ndarray:
        """(T,V,3) lip points: of the codes where they are landmarks, else from the sound."""
        face = self._part("face")
        if face is not None and face.statistics.faces is not None:
            from talkingface.data.face.topology import LIPS

            model = self._faces()
            return model.mean[list(LIPS)] + model.lips(motions["face"])
        samples = self.standardised(sound, self._stats())
        return self.model.lips(samples, len(motions["face"]))

    def _bones(self, motions: dict[str, np.ndarray]) -> Iterator[np.ndarray]:
        skeleton = Skeleton.read(resolve(self.cfg.infer.skeleton))
        yield from bones(skeleton.joints(motions["pose"]), skeleton.parents)

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
    ) -> Rendered:
        """As of the base, but both channels of a recording of two persons count."""
        started = time.monotonic()
        if isinstance(audio, (str, Path)):
            sound = load_dyad(audio, RATE, self.cfg.infer.channels)
        else:
            own = resampled(audio, SAMPLE_RATE, RATE)
            sound = np.stack([own, np.zeros_like(own)], axis=1)
        identity = self.prepare(source)
        view = self._view(identity)
        motions = self.motions(sound, seed=seed, show_progress=show_progress)
        output.parent.mkdir(parents=True, exist_ok=True)
        self._write(output, motions, sound, seed or 0, "face" if view == "curves" else "")
        fps = self._shown_fps(identity)
        count = [0]

        def counted() -> Iterator[np.ndarray]:
            for frame in self.pictures(identity, motions, sound):
                count[0] += 1
                yield frame

        bar = progress(counted(), unit="frame", desc=output.name, show=show_progress, leave=False)
        write_video(output, bar, sound, RATE, fps)
        return Rendered(output, count[0], count[0] / fps, time.monotonic() - started)

    def _write(
        self,
        output: Path,
        motions: dict[str, np.ndarray],
        sound: np.ndarray,
        seed: int,
        shown: str,
    ) -> None:
        """Motions in both layouts, and their curves.

        Args:
            shown: part whose curves are the video itself.
        """
        keys = motions.get("pose_keys")
        for part in ("face", "pose"):
            if part not in motions:
                continue
            own = keys if part == "pose" else None
            facts = {
                "fps": self.cfg.fps, "sample_rate": RATE, "seed": seed, "model": self.cfg.model,
                "sampling": json.dumps(self.model.sampled_with()),
            }  # fmt: skip
            results = MotionResults(
                [motions[part][None]],
                sounds=[sound[: round(len(motions[part]) * RATE / self.cfg.fps)]],
                keys=[] if own is None else [own[None]],
                facts=facts,
            )
            stem = output.with_suffix("")
            results.save(stem.with_name(f"{stem.name}_{part}.npz"))
            results.save_original(stem.with_name(f"{stem.name}_{part}_results.npy"))
            write_preview(
                stem.with_name(f"{stem.name}_{part}"), motions[part], sound, RATE, self.cfg.fps,
                keys=own, key_step=self._key_step(), kind=part, video=part != shown,
            )  # fmt: skip
        log.info("motions and curves: %s_*", output.with_suffix(""))
