"""Videos of Live Speech Portraits: a clip redrawn from its landmarks, or a person from speech."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
from talkingface.data.dataset.lsp.lsp_face_dataset import at_rate, drawn_shoulders
from talkingface.data.face.series import between
from talkingface.data.media.apc_mel import MOTION_FPS, apc_id, frame_count
from talkingface.data.media.pictures import signed
from talkingface.data.media.reader import read_frames
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
from talkingface.pipeline.sources import write_reference
from talkingface.utils.paths import resolve

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.model.abstract_talkingface import AbstractTalkingFace

_CLOSED = 1  # number of the candidate picture with the mouth closed


@dataclass(frozen=True)
class PortraitSource:
    """A person, and the clip that it was chosen by, if any."""

    person: Person
    clip: ClipFiles | None


class PortraitPipeline(Pipeline):
    """Base class: draws feature maps and generates the pictures from them.

    Sources are clips of the dataset, or folders or names of prepared people; also folders of the
    official inference tree.
    """

    needs_config = ("infer.batch_size",)

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
        people = person_folders(self.process.folder)
        source = people.get(str(source)) or resolve(source)
        if (source / MEAN_POINTS).is_file():
            return PortraitSource(Person(source), None)
        if source.resolve() in self._clips:
            files = self._clip_files(source)
            return PortraitSource(Person(files.folder.parents[1]), files)
        raise DataError(
            f"{source} is neither a clip of {self.cfg.dataset} nor a prepared person. These models "
            "generate the people that they were trained on. Give --source a clip, or the name or "
            f"folder of a person. Prepared people: {', '.join(people) or 'none'}"
        )

    def _clip_files(self, path: Path) -> ClipFiles:
        folder = self.process.prepared.output_dirs(self._clips[path.resolve()].id)[0]
        if not (folder / MANIFEST).is_file():
            raise DataError(f"{path} is not prepared for {self.cfg.model}: run preprocess first")
        return ClipFiles(folder)

    @cached_property
    def _clips(self) -> dict[Path, Clip]:
        return {clip.path.resolve(): clip for clip in self.process.corpus.clips()}

    def framing(self, clip: ClipFiles) -> Window:
        """The window that the generated pictures of a clip show."""
        return clip.window

    def reference(self, clip: Clip, folder: Path) -> Clip:
        """The real clip, cropped to the window of the generated one."""
        files = self._clip_files(clip.path)
        window, fps = self.framing(files), self.cfg.fps
        take = [files.manifest.get(key) for key in ("start", "frames", "fps")]

        def frames() -> Iterator[np.ndarray]:
            start, count, own_fps = take[0] or 0, take[1], take[2]
            times = np.arange(max(1, int(count * fps / own_fps + 0.5))) / fps + start / own_fps
            source = read_frames(clip.path, fps=own_fps)
            number, frame = -1, None
            for time in times:
                while number < min(int(time * own_fps + 1e-6), start + count - 1):
                    number, frame = number + 1, next(source)
                yield window.cut(frame, self.size)

        state = [window.scale, window.xc, window.yc, fps, self.size, take]
        return write_reference(clip, folder, state, frames(), files.sound_path, fps)

    def candidates(self, person: Person) -> tuple[np.ndarray, torch.Tensor]:
        """Candidate pictures: (S,S,12) uint8, and (1,12,S,S) in -1..1 on the device."""
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
        candidates = self.candidates(person)[1].expand(len(maps), -1, -1, -1)
        with self._precision():
            # One picture at a time on a CPU, whose cache the feature maps of one picture fill.
            step = 1 if self.device.type == "cpu" else len(maps)
            pairs = zip(maps.split(step), candidates.split(step), strict=True)
            generated = torch.cat([self.face(*pair) for pair in pairs])
        pixels = ((generated.float() + 1) * 127.5).round().clamp(0, 255).byte()
        return pixels.permute(0, 2, 3, 1).cpu().numpy()

    def frames_of(
        self, person: Person, landmarks: np.ndarray, shoulders: np.ndarray, baseline: str | None
    ) -> Iterator[np.ndarray]:
        """The pictures (S,S,3) of a sequence, generated in batches."""
        if baseline == "copy_reference":
            still = self.candidates(person)[0][..., 3 * _CLOSED : 3 * _CLOSED + 3]
            yield from (still for _ in landmarks)
            return
        step = self.cfg.infer.batch_size
        for start in range(0, len(landmarks), step):
            part = slice(start, start + step)
            yield from self.paint(person, landmarks[part], shoulders[part])


class Feature2FacePipeline(PortraitPipeline):
    """Redraws a prepared clip from its landmarks; the sound is copied unchanged."""

    needs_config = ("model_params.image_size",)

    def __init__(self, cfg: Config, model: AbstractTalkingFace, device: torch.device) -> None:
        super().__init__(cfg, model, device, model.network, cfg.model_params.image_size)

    def frame_count(self, identity: PortraitSource, wave: np.ndarray) -> int:
        if identity.clip is None:
            raise DataError(
                f"{self.cfg.model} redraws clips: give a video of {self.cfg.dataset} as the source "
                "(live_speech_portraits takes the folder of a person)"
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
    """Speech to video, from a whole recording or live."""

    needs_config = (
        "infer.motion",
        "infer.pad_headpose",
        "infer.person",
        "infer.sigma_scale",
        "model_params",
    )

    stochastic = True
    live_settings = {"infer.motion.causal": True}

    def __init__(self, cfg: Config, model: AbstractTalkingFace, device: torch.device) -> None:
        parts = {name: part.network for name, part in model.components.items()}
        settings = {name: part.settings for name, part in model.components.items()}
        face = settings["feature2face"].get("model_params") or cfg.model_params.model_dump()
        super().__init__(cfg, model, device, parts["feature2face"], face["image_size"])
        self.parts = {name: part.to(device) for name, part in parts.items()}

        # Official weights come without settings; then the official values apply.
        self.ahead = tuple(
            settings[name].get("data", {}).get("frame_future", official)
            for name, official in (("audio2feature", 18), ("audio2headpose", 15))
        )
        self.sigma = cfg.infer.sigma_scale
        if self.sigma is None:
            self.sigma = settings["audio2headpose"].get("sigma_scale", 0.3)
        source = model.components["apc"].source
        self.apc = apc_id(Path(source["path"])) if source else None
        self._speech: dict[Path, SpeechMotion] = {}

    def prepare(self, source: Path, *, show_progress: str | bool = False) -> PortraitSource:
        chosen = self.cfg.infer.person
        return super().prepare(Path(chosen) if chosen else source)

    def framing(self, clip: ClipFiles) -> Window:
        """The window of the person, whose camera the generated motion refers to."""
        return Person(clip.folder.parents[1]).window

    def speech(self, person: Person) -> SpeechMotion:
        """Networks and files that generate the motion of a person."""
        if person.folder not in self._speech:
            options = self.cfg.infer
            manifold = None
            if options.lle.use:
                database = load_database(person, self.parts["apc"], self.apc).to(self.device)
                lle = options.lle
                manifold = ManifoldProjection(database, lle.k, lle.percent, lle.ridge)
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
                f"The sound is {len(wave) / SAMPLE_RATE:.2f} s long: too short for a frame"
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
        """Generate while the sound arrives; see :class:`LiveSession`.

        Raises:
            ConfigError: ``infer.motion.causal`` is off: smoothing would need future frames.
        """
        if not self.cfg.infer.motion.causal:
            raise ConfigError("live generation needs --infer.motion.causal=true")
        return LiveSession(self, identity.person, seed)


class LiveSession:
    """Takes speech in chunks and returns the frames that each chunk completes.

    The frames equal those of :meth:`LiveSpeechPortraitsPipeline.generate` with the same seed. The
    frame at time t is complete when the sound reaches t + 300 ms (the look-ahead of Audio2Feature)
    + one to two motion frames.
    """

    def __init__(self, pipeline: LiveSpeechPortraitsPipeline, person: Person, seed: int) -> None:
        self.pipeline, self.person = pipeline, person
        self.motion: MotionStream = pipeline.speech(person).stream(seed)
        self._kept: Motion | None = None  # motion from frame ``_first`` on
        self._first = 0
        self.frames = 0  # returned so far

    @property
    def look_ahead(self) -> float:
        """Seconds of speech after a frame on which the frame depends."""
        return self.pipeline.ahead[0] / MOTION_FPS

    def push(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """The next samples (n,), float, 16 kHz mono -> frames (S,S,3) uint8 RGB, one by one."""
        return self._frames(self.motion.push(samples), ended=False)

    def finish(self) -> Iterator[np.ndarray]:
        """The speech has ended: the last frames."""
        return self._frames(self.motion.finish(), ended=True)

    def _frames(self, fresh: Motion, ended: bool) -> Iterator[np.ndarray]:
        kept = fresh if self._kept is None else self._kept.followed_by(fresh)
        end = self._first + len(kept)  # motion frames so far
        fps = self.pipeline.cfg.fps
        if ended:
            due = max(1, int(end * fps / MOTION_FPS + 0.5)) if end else 0
        else:  # a picture is interpolated between two motion frames
            due = int(max(0, end - 1) * fps / MOTION_FPS - 1e-9) + 1 if end > 1 else 0
        numbers = np.arange(self.frames, due)
        rows = np.clip(numbers * MOTION_FPS / fps - self._first, 0, max(0, len(kept) - 1))
        landmarks, shoulders = (between(v, rows) for v in (kept.landmarks, kept.shoulders))
        self.frames = max(self.frames, due)
        drop = max(0, min(int(self.frames * MOTION_FPS / fps) - self._first, len(kept) - 2))
        self._kept, self._first = kept.at(slice(drop, None)), self._first + drop
        return self.pipeline.frames_of(self.person, landmarks, shoulders, None)
