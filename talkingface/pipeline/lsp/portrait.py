"""Pictures of Live Speech Portraits: a clip again from its own lines, or a person from speech."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from talkingface.data.clips import Clip
from talkingface.data.dataprocess.lsp.drawing import draw_feature_map
from talkingface.data.dataprocess.lsp.files import (
    MANIFEST,
    MEAN_POINTS,
    ClipFiles,
    Person,
    person_folders,
)
from talkingface.data.dataprocess.lsp.lsp_process import LSPProcess
from talkingface.data.dataprocess.lsp.motion import Motion
from talkingface.data.dataprocess.lsp.window import Window
from talkingface.data.dataset.lsp.lsp_face_dataset import at_rate, between, drawn_shoulders
from talkingface.data.media.apc_features import apc_id
from talkingface.data.media.apc_mel import MOTION_FPS, frame_count
from talkingface.data.media.audio import load_audio
from talkingface.data.media.pictures import signed
from talkingface.data.media.reader import read_frames
from talkingface.data.media.writer import VideoWriter
from talkingface.errors import ConfigError, DataError
from talkingface.model.fuse import optimize_for_inference
from talkingface.model.layers.manifold import ManifoldProjection
from talkingface.pipeline.base import SAMPLE_RATE, Pipeline
from talkingface.pipeline.lsp.lsp_motion import (
    MotionStream,
    PersonMotion,
    SpeechMotion,
    load_database,
)
from talkingface.utils.paths import resolve

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.model.abstract_talkingface import AbstractTalkingFace

_CLOSED = 1  # candidate with the closed mouth


@dataclass(frozen=True)
class PortraitSource:
    """A person, and the clip that names it."""

    person: Person
    clip: ClipFiles | None


class PortraitPipeline(Pipeline):
    """What drawing lines and painting them has in common.

    Sources are clips of the dataset, or folders of people (ours or the official inference tree).
    """

    needs_config = (*Pipeline.needs_config, "fps", "infer.batch_size")

    baselines = ("copy_reference",)
    source_kind = "name"

    def __init__(
        self, cfg: Config, model: AbstractTalkingFace, device: torch.device, face: Any, size: int
    ) -> None:
        super().__init__(cfg, model, device)
        self.face = optimize_for_inference(face.to(device))
        self.size = size
        self.process = LSPProcess(cfg)
        self._candidates: dict[Path, tuple[np.ndarray, torch.Tensor]] = {}

    def prepare(self, source: Path, *, show_progress: str | bool = False) -> PortraitSource:
        known = person_folders(self.process.folder)
        source = known.get(str(source)) or resolve(source)
        if (source / MEAN_POINTS).is_file():
            return PortraitSource(Person(source), None)
        if source.resolve() in self._clips:
            files = self._clip_files(source)
            return PortraitSource(Person(files.folder.parents[1]), files)
        raise DataError(
            f"{source} is neither a clip of {self.cfg.dataset} nor a prepared person. These models "
            "draw the people they were trained on; --source may be the name of one, or its folder: "
            + (", ".join(known) or "no person is prepared yet")
        )

    def _clip_files(self, path: Path) -> ClipFiles:
        folder = self.process.prepared.output_dirs(self._clips[path.resolve()].id)[0]
        if not (folder / MANIFEST).is_file():
            raise DataError(
                f"{path} is not prepared for {self.cfg.model}; run the stage preprocess"
            )
        return ClipFiles(folder)

    @cached_property
    def _clips(self) -> dict[Path, Clip]:
        from talkingface.data.clips import discover_clips

        found = discover_clips(self.cfg.data_dir, self.cfg.clips, quiet=True)
        return {clip.path.resolve(): clip for clip in found}

    def framing(self, clip: ClipFiles) -> Window:
        """The window in which a clip's pictures are made."""
        return clip.window

    def reference(self, clip: Clip, folder: Path) -> Clip:
        """The real clip in the window, as the generated one shows it."""
        files = self._clip_files(clip.path)
        window, fps = self.framing(files), self.cfg.fps
        facts = [files.manifest.get(key) for key in ("start", "frames", "fps")]
        state = json.dumps([window.scale, window.xc, window.yc, fps, self.size, facts])
        name = f"{clip.id}-{hashlib.sha256(state.encode()).hexdigest()[:8]}.mp4"
        path = folder / name
        if not path.is_file():
            sound = load_audio(files.sound_path, SAMPLE_RATE)
            start, count, own = facts[0] or 0, facts[1], facts[2]
            wanted = np.arange(max(1, int(count * fps / own + 0.5))) / fps + start / own
            frames = read_frames(clip.path, fps=own)
            with VideoWriter(path, fps, audio=(sound, SAMPLE_RATE), crf=10) as writer:
                number, frame = -1, None
                for time in wanted:
                    while number < min(int(time * own + 1e-6), start + count - 1):
                        number, frame = number + 1, next(frames)
                    writer.write(window.cut(frame, self.size))
        return replace(clip, path=path, audio=files.sound_path)

    def candidates(self, person: Person) -> tuple[np.ndarray, torch.Tensor]:
        """(S,S,12) uint8 and (1,12,S,S) on the device."""
        if person.folder not in self._candidates:
            pictures = person.candidates(self.size)
            batch = torch.from_numpy(signed(pictures))[None].to(self.device)
            self._candidates[person.folder] = pictures, batch
        return self._candidates[person.folder]

    @torch.inference_mode()
    def paint(self, person: Person, landmarks: np.ndarray, shoulders: np.ndarray) -> np.ndarray:
        """(n,73,2) and (n,18,2) px of the 512 px window -> (n,S,S,3) uint8 RGB."""
        lines = [
            draw_feature_map(one, two, self.size)
            for one, two in zip(landmarks, shoulders, strict=True)
        ]
        maps = torch.from_numpy(np.stack(lines)).to(self.device)[:, None].float() / 255
        known = self.candidates(person)[1].expand(len(maps), -1, -1, -1)
        with self._precision():
            # One at a time on a CPU: the maps of a single picture fill its cache.
            parts = 1 if self.device.type == "cpu" else len(maps)
            made = torch.cat(
                [
                    self.face(*pair)
                    for pair in zip(maps.split(parts), known.split(parts), strict=True)
                ]
            )
        pixels = ((made.float() + 1) * 127.5).round().clamp(0, 255).byte()
        return pixels.permute(0, 2, 3, 1).cpu().numpy()

    def frames_of(
        self, person: Person, landmarks: np.ndarray, shoulders: np.ndarray, baseline: str | None
    ) -> Iterator[np.ndarray]:
        """The pictures of a sequence at ``cfg.fps``, in batches."""
        if baseline == "copy_reference":
            still = self.candidates(person)[0][..., 3 * _CLOSED : 3 * _CLOSED + 3]
            yield from (still for _ in landmarks)
            return
        step = self.cfg.infer.batch_size
        for start in range(0, len(landmarks), step):
            part = slice(start, start + step)
            yield from self.paint(person, landmarks[part], shoulders[part])


class Feature2FacePipeline(PortraitPipeline):
    """Draws a prepared clip again from its own lines; the sound is only copied."""

    needs_config = (*PortraitPipeline.needs_config, "fps", "model_params.image_size")

    def __init__(self, cfg: Config, model: AbstractTalkingFace, device: torch.device) -> None:
        super().__init__(cfg, model, device, model.network, cfg.model_params.image_size)

    def frame_count(self, identity: PortraitSource, wave: np.ndarray) -> int:
        if identity.clip is None:
            raise DataError(
                f"{self.cfg.model} draws a clip again: give a video of {self.cfg.dataset} as the "
                "source (live_speech_portraits speaks with a person's folder)"
            )
        count = min(len(identity.clip), frame_count(len(wave)))
        return max(1, int(count * self.cfg.fps / MOTION_FPS + 0.5))

    def generate(
        self, identity: PortraitSource, wave: np.ndarray, *, baseline: str | None = None
    ) -> Iterator[np.ndarray]:
        count = self.frame_count(identity, wave)
        shoulders = drawn_shoulders(identity.clip, identity.person)
        landmarks, shoulders = (
            at_rate(values, self.cfg.fps, count) for values in (identity.clip.landmarks, shoulders)
        )
        yield from self.frames_of(identity.person, landmarks, shoulders, baseline)


class LiveSpeechPortraitsPipeline(PortraitPipeline):
    """Speech to video with all parts, whole sounds or live."""

    needs_config = (
        *PortraitPipeline.needs_config,
        "fps",
        "infer.motion",
        "infer.pad_headpose",
        "infer.person",
        "infer.sigma_scale",
        "model_params",
    )

    stochastic = True

    def __init__(self, cfg: Config, model: AbstractTalkingFace, device: torch.device) -> None:
        parts = {name: part.network for name, part in model.components.items()}
        settings = {name: part.settings for name, part in model.components.items()}
        own = settings["feature2face"].get("model_params") or cfg.model_params.model_dump()
        super().__init__(cfg, model, device, parts["feature2face"], own["image_size"])
        self.parts = {name: part.to(device) for name, part in parts.items()}

        def setting(name: str, section: str, key: str, official: Any) -> Any:
            known = settings[name]
            known = known.get(section, {}) if section else known
            return known.get(key, official)

        self.ahead = (
            setting("audio2feature", "data", "frame_future", 18),
            setting("audio2headpose", "data", "frame_future", 15),
        )
        spread = cfg.infer.sigma_scale
        self.sigma = setting("audio2headpose", "", "sigma_scale", 0.3) if spread is None else spread
        source = model.components["apc"].source
        self.apc = apc_id(Path(source["path"])) if source else None
        self._speech: dict[Path, SpeechMotion] = {}

    def prepare(self, source: Path, *, show_progress: str | bool = False) -> PortraitSource:
        chosen = self.cfg.infer.person
        return super().prepare(Path(chosen) if chosen else source)

    def framing(self, clip: ClipFiles) -> Window:
        """That of the person: generated heads move in front of the person's camera."""
        return Person(clip.folder.parents[1]).window

    def speech(self, person: Person) -> SpeechMotion:
        """The motion of a person, with the database of its own speech."""
        if person.folder not in self._speech:
            options = self.cfg.infer
            manifold = None
            if options.lle.use:
                database = load_database(person, self.parts["apc"], self.apc).to(self.device)
                manifold = ManifoldProjection(
                    database, options.lle.k, options.lle.percent, options.lle.ridge
                )
            self._speech[person.folder] = SpeechMotion(
                apc=self.parts["apc"],
                audio2feature=self.parts["audio2feature"],
                audio2headpose=self.parts["audio2headpose"],
                ahead=self.ahead,
                manifold=manifold,
                person=PersonMotion.read(person),
                options=options,
                sigma=self.sigma,
            )
        return self._speech[person.folder]

    def frame_count(self, identity: PortraitSource, wave: np.ndarray) -> int:
        frames = frame_count(len(wave))
        if not self.cfg.infer.pad_headpose:
            frames -= self.ahead[1]
        if frames < 1:
            raise DataError(
                f"The sound is {len(wave) / SAMPLE_RATE:.2f} s long; too short for a picture"
                + ("" if self.cfg.infer.pad_headpose else " with infer.pad_headpose=false")
            )
        return max(1, int(frames * self.cfg.fps / MOTION_FPS + 0.5))

    def generate(
        self,
        identity: PortraitSource,
        wave: np.ndarray,
        *,
        baseline: str | None = None,
        seed: int | None = None,
    ) -> Iterator[np.ndarray]:
        count = self.frame_count(identity, wave)
        motion = self.speech(identity.person).generate(wave, seed or 0)
        landmarks, shoulders = (
            at_rate(values, self.cfg.fps, count) for values in (motion.landmarks, motion.shoulders)
        )
        yield from self.frames_of(identity.person, landmarks, shoulders, baseline)

    def live(self, identity: PortraitSource, seed: int = 0) -> LiveSession:
        """Frames of a sound that is still being spoken; see :class:`LiveSession`.

        Raises:
            ConfigError: ``infer.motion.causal`` is off, so smoothing would need the future.
        """
        if not self.cfg.infer.motion.causal:
            raise ConfigError("live generation needs --infer.motion.causal=true")
        return LiveSession(self, identity.person, seed)


class LiveSession:
    """Takes speech in chunks and gives the frames that it completes.

    The frames are those of :meth:`LiveSpeechPortraitsPipeline.generate` with the same seed. A frame
    at time t comes with the chunk that brings the sound up to t + 300 ms (Audio2Feature's
    look-ahead) + one to two motion frames.
    """

    def __init__(self, pipeline: LiveSpeechPortraitsPipeline, person: Person, seed: int) -> None:
        self.pipeline, self.person = pipeline, person
        self.motion: MotionStream = pipeline.speech(person).stream(seed)
        self._known: Motion | None = None  # motion from frame ``_first`` on
        self._first = 0
        self.frames = 0  # given so far

    def push(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """The next samples (n,), float, 16 kHz mono -> frames (S,S,3) uint8 RGB, one by one."""
        return self._frames(self.motion.push(samples), ended=False)

    def finish(self) -> Iterator[np.ndarray]:
        """The speech has ended: the last frames."""
        return self._frames(self.motion.finish(), ended=True)

    def _frames(self, fresh: Motion, ended: bool) -> Iterator[np.ndarray]:
        known = fresh if self._known is None else self._known.followed_by(fresh)
        end = self._first + len(known)  # motion frames known so far
        fps = self.pipeline.cfg.fps
        if ended:
            due = max(1, int(end * fps / MOTION_FPS + 0.5)) if end else 0
        else:  # a picture lies between two motion frames, and needs both
            due = int(max(0, end - 1) * fps / MOTION_FPS - 1e-9) + 1 if end > 1 else 0
        numbers = np.arange(self.frames, due)
        at = np.clip(numbers * MOTION_FPS / fps - self._first, 0, max(0, len(known) - 1))
        landmarks, shoulders = (between(v, at) for v in (known.landmarks, known.shoulders))
        self.frames = max(self.frames, due)
        drop = max(0, min(int(self.frames * MOTION_FPS / fps) - self._first, len(known) - 2))
        self._known, self._first = known.at(slice(drop, None)), self._first + drop
        return self.pipeline.frames_of(self.person, landmarks, shoulders, None)
