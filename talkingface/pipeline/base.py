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
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

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


@runtime_checkable
class ImpliesSettings(Protocol):
    """Options of ``--infer`` imply keys of its configuration."""

    @classmethod
    def implied(cls, options: Mapping[str, str]) -> dict[str, Any]:
        """Keys and values, used unless the user gives the keys."""


@runtime_checkable
class MakesOwnSound(Protocol):
    """Also generates without ``--audio``."""

    def own_sound(self, source: Path, driver: Path | None = None) -> np.ndarray:
        """Mono 16 kHz samples for a source."""


@runtime_checkable
class TakesDriver(Protocol):
    """The face of another video can move that of the source (``--driver``)."""

    def with_driver(self, identity: Any, driver: Path) -> Any:
        """What :meth:`Pipeline.prepare` returned, moved by a driver."""


@runtime_checkable
class HasReference(Protocol):
    """Its videos are not compared with the clip as it is, e.g. as it shows a crop."""

    def reference(self, clip: Clip, folder: Path) -> Clip:
        """The real video and sound that generated ones are compared with, written into a folder."""


class Pipeline(ABC):
    """Generates videos with a trained model.

    Class attributes:
        needs_config: keys of the configuration that it reads, beside those that every run has. A
            sub-class adds its own: ``(*Pipeline.needs_config, "infer.strength")``.
        needs_network: attributes that the main network must have.
        baselines: replacements for the model that it can generate as rows of the result table:
            ``copy_reference``, ``first_stage``, ``warped``, ``other_driver``.
        stochastic: whether the model draws random numbers; :meth:`generate` then takes ``seed``.
        source_kind: ``file``; ``name`` if a source may also be the name of a prepared person;
            ``optional`` if there may be none.
        usage: options of ``--infer`` that show what the model does.

    Args:
        cfg: configuration of the model.
        model: with its weights; it is copied where it is changed for speed.
        device: where networks run.
    """

    needs_config: tuple[str, ...] = ("fps", "infer.crf")
    needs_network: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()
    stochastic: bool = False
    source_kind: str = "file"
    usage: str = "--audio=speech.wav --source=face.mp4"

    def __init__(self, cfg: Config, model: AbstractTalkingFace, device: torch.device) -> None:
        self.cfg, self.model, self.device = cfg, model, device

    @abstractmethod
    def prepare(self, source: Path | None, *, show_progress: str | bool = False) -> Any:
        """What is known about a source (face track, reference...), reused for many sounds.

        Args:
            show_progress: whether a long preparation shows a bar.
        """

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
        driver: Path | None = None,
        frames: int | None = None,
        baseline: str | None = None,
        seed: int | None = None,
        show_progress: str | bool = False,
    ) -> Rendered:
        """Write the video of a source speaking a sound.

        Args:
            audio: a file, or mono 16 kHz samples.
            driver: video whose face moves the source, for pipelines with ``with_driver``.
            frames: write exactly so many, with silence behind the sound if need be; default: as
                many as the sound gives by the model's own rule.
            seed: of a stochastic model; others give the same video for all.

        Raises:
            DataError: source or sound cannot be used.
        """
        started = time.monotonic()
        wave = load_audio(audio, SAMPLE_RATE) if isinstance(audio, (str, Path)) else audio
        place = None if source is None else Path(source)
        identity = self.prepare(place, show_progress=show_progress)
        if driver is not None:
            identity = self.with_driver(identity, driver)
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
