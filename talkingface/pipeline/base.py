"""From a source and a sound to a video: what all generators share."""

from __future__ import annotations

import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from talkingface.data.clips import Clip
from talkingface.data.media.audio import load_audio
from talkingface.data.media.writer import VideoWriter
from talkingface.utils.logs import progress

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.model.abstract_talkingface import AbstractTalkingFace

log = logging.getLogger(__name__)

SAMPLE_RATE = 16000
TAIL_SECONDS = 0.5  # silence behind a sound, longer than any model's look-ahead


@dataclass(frozen=True)
class Rendered:
    """A written video. ``real_time_factor`` above 1 is slower than the video plays."""

    path: Path
    frames: int
    seconds_of_video: float
    seconds_taken: float

    @property
    def real_time_factor(self) -> float:
        return self.seconds_taken / max(self.seconds_of_video, 1e-9)


class Pipeline(ABC):
    """Generates videos with a trained model.

    Args:
        cfg: configuration of the model.
        model: with its weights; it is copied where it is changed for speed.
        device: where networks run.
    """

    # Keys of the configuration that it reads, beside those that every run has. A sub-class adds
    # its own: (*Pipeline.needs_config, "infer.strength").
    needs_config: tuple[str, ...] = ("fps", "infer.crf")
    # Attributes that the main network must have.
    needs_network: tuple[str, ...] = ()
    # Names of replacements for the model that serve as baselines in the evaluation.
    baselines: tuple[str, ...] = ()
    # Whether a source may also be the name of a prepared person.
    sources_by_name: bool = False
    # Whether the model draws random numbers; then generate() takes a ``seed`` too.
    stochastic: bool = False
    # Options of --infer that show what the model does.
    usage: str = "--audio=speech.wav --source=face.mp4"
    # Whether it also generates without a given sound; then there is own_sound().
    audio_optional: bool = False
    # Whether it also generates without a source; prepare() is then given None.
    source_optional: bool = False
    # Video whose face moves that of the source, for pipelines that can use one.
    driver: Path | None = None
    # Whether the source's preparation shows a bar: as the rendering that asks for it.
    show_progress: str | bool = False

    def __init__(self, cfg: Config, model: AbstractTalkingFace, device: torch.device) -> None:
        self.cfg, self.model, self.device = cfg, model, device

    @abstractmethod
    def prepare(self, source: Path) -> Any:
        """What is known about a source (face track, reference...), reused for many sounds."""

    @abstractmethod
    def frame_count(self, identity: Any, wave: np.ndarray) -> int:
        """Number of frames that :meth:`generate` will yield."""

    @abstractmethod
    def generate(
        self, identity: Any, wave: np.ndarray, *, baseline: str | None = None
    ) -> Iterator[np.ndarray]:
        """Frames (H,W,3) uint8 RGB, one by one, at ``cfg.fps``.

        Args:
            wave: mono 16 kHz samples.
            baseline: use a trivial replacement of the model (one of ``baselines``).

        A ``stochastic`` pipeline has ``seed: int | None = None`` as well: equal seeds give equal
        frames, other seeds other ones.
        """

    @classmethod
    def implied(cls, options: Mapping[str, str]) -> dict[str, Any]:
        """Configuration keys that options of ``--infer`` imply, unless they are given."""
        return {}

    def own_sound(self, source: Path, driver: Path | None = None) -> np.ndarray:
        """Mono 16 kHz samples for a source without a given sound (``audio_optional``)."""
        raise NotImplementedError(f"{type(self).__name__} needs a sound")

    def reference(self, clip: Clip, folder: Path) -> Clip:
        """The real video and sound that generated ones are compared with.

        Pipelines that show people in a window of their own write it into ``folder``.
        """
        return clip

    def _precision(self) -> contextlib.AbstractContextManager:
        """Autocast on a GPU where ``precision`` asks for it."""
        half = self.cfg.precision != "32-true" and self.device.type == "cuda"
        kind = torch.bfloat16 if self.cfg.precision == "bf16-mixed" else torch.float16
        return torch.autocast("cuda", kind) if half else contextlib.nullcontext()

    def render(
        self,
        source: Path | None,
        audio: Path | np.ndarray,
        output: Path,
        *,
        frames: int | None = None,
        baseline: str | None = None,
        seed: int | None = None,
        show_progress: str | bool = False,
    ) -> Rendered:
        """Write the video of a source speaking a sound.

        Args:
            audio: a file, or mono 16 kHz samples.
            frames: write exactly so many, with silence behind the sound if need be; default: as
                many as the sound gives by the model's own rule.
            seed: of a stochastic model; others give the same video for all.

        Raises:
            DataError: source or sound cannot be used.
        """
        started = time.monotonic()
        wave = load_audio(audio, SAMPLE_RATE) if isinstance(audio, (str, Path)) else audio
        self.show_progress = show_progress
        identity = self.prepare(None if source is None else Path(source))
        padded = wave
        if frames is not None:
            missing = frames / self.cfg.fps + TAIL_SECONDS - len(wave) / SAMPLE_RATE
            padded = np.pad(wave, (0, max(0, round(missing * SAMPLE_RATE))))
        total = frames or self.frame_count(identity, wave)
        options: dict[str, Any] = {"seed": seed} if self.stochastic else {}
        output.parent.mkdir(parents=True, exist_ok=True)
        bar = progress(total=total, unit="frame", desc=output.name, show=show_progress, leave=False)
        begun = time.monotonic()
        with VideoWriter(
            output, self.cfg.fps, audio=(wave, SAMPLE_RATE), crf=self.cfg.infer.crf
        ) as w:
            with bar:
                made = self.generate(identity, padded, baseline=baseline, **options)
                for number, frame in enumerate(islice(made, total), 1):
                    w.write(frame)
                    factor = (time.monotonic() - begun) * self.cfg.fps / number
                    bar.set_postfix_str(f"{factor:.2f} s per second of video", refresh=False)
                    bar.update()
            written = w.frames_written
        return Rendered(output, written, written / self.cfg.fps, time.monotonic() - started)
