"""Base class of pipelines, which generate a video from a source and a sound."""

from __future__ import annotations

import contextlib
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
from talkingface.data.media.outputs import Output, open_output
from talkingface.data.media.writer import VideoWriter
from talkingface.utils.logs import progress

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.model.abstract_talkingface import AbstractTalkingFace

SAMPLE_RATE = 16000
TAIL_SECONDS = 0.5  # silence after a sound, longer than the look-ahead of any model


@dataclass(frozen=True)
class Rendered:
    """A written video. A ``real_time_factor`` above 1 means slower than real time."""

    path: Path
    frames: int
    seconds_of_video: float
    seconds_taken: float

    @property
    def real_time_factor(self) -> float:
        return self.seconds_taken / max(self.seconds_of_video, 1e-9)


@runtime_checkable
class ImpliesSettings(Protocol):
    """Options of ``--infer`` imply configuration keys."""

    @classmethod
    def implied(cls, options: Mapping[str, str]) -> dict[str, Any]:
        """Keys and values, used unless the user sets the keys."""


@runtime_checkable
class MakesOwnSound(Protocol):
    """Can generate without ``--audio``."""

    def own_sound(self, source: Path, driver: Path | None = None) -> np.ndarray:
        """Mono 16 kHz samples for a source."""


@runtime_checkable
class WorksUntrained(Protocol):
    """Generates without a trained run of its model.

    Attributes:
        works_untrained: True.
    """

    works_untrained: bool


@runtime_checkable
class TakesDriver(Protocol):
    """Can transfer the face movements of another video to the source (``--driver``)."""

    def with_driver(self, identity: Any, driver: Path) -> Any:
        """The identity of :meth:`Pipeline.prepare` with the movements of a driver."""


@runtime_checkable
class HasReference(Protocol):
    """Its videos cannot be compared with the clip itself, e.g. since they show a crop of it."""

    def reference(self, clip: Clip, folder: Path) -> Clip:
        """The real video and sound to compare generated ones with, written into a folder."""


class LiveSession(Protocol):
    """Speech in chunks to frames."""

    look_ahead: float  # seconds of speech after a frame on which the frame depends

    def push(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """Frames that the next samples (n,), mono 16 kHz, complete."""

    def finish(self) -> Iterator[np.ndarray]:
        """The last frames, at the end of the speech."""


@runtime_checkable
class GeneratesLive(Protocol):
    """Generates while the speech arrives (``--live``).

    Attributes:
        live_settings: keys of its configuration that ``--live`` sets, unless the user gives them.
    """

    live_settings: Mapping[str, Any]

    def live(self, identity: Any, seed: int = 0) -> LiveSession:
        """Start a session for a prepared source."""


class Pipeline(ABC):
    """Generates videos with a trained model.

    Class attributes:
        needs_config: configuration keys that it reads, beside those that every run has and those
            of its base classes.
        needs_network: attributes that the main network must have.
        baselines: baselines that it can generate for the result table: ``copy_reference``,
            ``first_stage``, ``warped``, ``other_driver``.
        stochastic: whether the model draws random numbers; :meth:`generate` then takes ``seed``.
        source_kind: ``file``; ``name`` if a source may also be the name of a prepared speaker;
            ``optional`` if no source is needed.
        usage: options of ``--infer``, with ``{audio}``, ``{source}``, ``{driver}`` for files.

    Args:
        cfg: configuration of the model.
        model: with its weights; not changed.
        device: of the networks.
    """

    needs_config: tuple[str, ...] = ("fps", "infer.crf")
    needs_network: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()
    stochastic: bool = False
    source_kind: str = "file"
    usage: str = "--audio={audio} --source={source}"

    def __init__(self, cfg: Config, model: AbstractTalkingFace, device: torch.device) -> None:
        self.cfg, self.model, self.device = cfg, model, device

    @abstractmethod
    def prepare(self, source: Path | None, *, show_progress: str | bool = False) -> Any:
        """The identity: data of a source (face track, reference...), reused for many sounds.

        Args:
            show_progress: whether a long preparation shows a progress bar.
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
            baseline: one of ``baselines``, to generate instead of the model's frames.

        A ``stochastic`` pipeline also has ``seed: int | None = None``; the frames depend on it.
        """

    def _precision(self) -> contextlib.AbstractContextManager:
        """Autocast on a GPU, unless ``precision`` is 32-true."""
        half = self.cfg.precision != "32-true" and self.device.type == "cuda"
        kind = torch.bfloat16 if self.cfg.precision == "bf16-mixed" else torch.float16
        return torch.autocast("cuda", kind) if half else contextlib.nullcontext()

    def _prepare_for(self, source: Path | None, seconds: float, show_progress: str | bool) -> Any:
        """:meth:`prepare` for one video of so many seconds."""
        return self.prepare(source, show_progress=show_progress)

    def _frame_rate(self, identity: Any) -> float:
        """Frames/s of the videos of an identity."""
        return self.cfg.fps

    def _output_frames(self, identity: Any, wave: np.ndarray) -> int:
        """Number of frames of a video for a sound."""
        return self.frame_count(identity, wave)

    def _writer(self, path: Path, fps: float, wave: tuple[np.ndarray, int], sound: Any) -> Output:
        crf = self.cfg.infer.crf
        if sound is None:
            return VideoWriter(path, fps, audio=wave, crf=crf)
        from talkingface import __version__

        about = {"comment": f"generated by talkingface {__version__} ({self.cfg.model})"}
        file = sound if isinstance(sound, Path) else None
        return open_output(path, fps, wave=wave, sound=file, crf=crf, about=about)

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
        """Generate and write the video of a source that speaks a sound.

        Args:
            audio: a file, or mono 16 kHz samples.
            driver: video with the movements, for pipelines with ``with_driver``.
            frames: number of frames to write, with silence after the sound if necessary; default:
                :meth:`frame_count` of the sound.
            seed: of a stochastic model; other models ignore it.
            finished: for people to watch: the video gets the track of the sound file as it is,
                instead of the mono 16 kHz that the model got, and may have any suffix of
                :func:`~talkingface.data.media.outputs.open_output`.

        Raises:
            DataError: source or sound cannot be used.
        """
        started = time.monotonic()
        wave = load_audio(audio, SAMPLE_RATE) if isinstance(audio, (str, Path)) else audio
        source = None if source is None else Path(source)
        identity = self._prepare_for(
            source, max(len(wave) / SAMPLE_RATE, (frames or 0) / self.cfg.fps), show_progress
        )
        if driver is not None:
            identity = self.with_driver(identity, driver)
        fps, padded = self._frame_rate(identity), wave
        total = frames or self._output_frames(identity, wave)
        if frames is not None or total > self.frame_count(identity, wave):
            missing = total / fps + TAIL_SECONDS - len(wave) / SAMPLE_RATE
            padded = np.pad(wave, (0, max(0, round(missing * SAMPLE_RATE))))
        options: dict[str, Any] = {"seed": seed} if self.stochastic else {}
        bar = progress(total=total, unit="frame", desc=output.name, show=show_progress, leave=False)
        generation_started = time.monotonic()
        sound = (wave, SAMPLE_RATE)
        with self._writer(output, fps, sound, audio if finished else None) as writer:
            with bar:
                generated = self.generate(identity, padded, baseline=baseline, **options)
                for number, frame in enumerate(islice(generated, total), 1):
                    writer.write(frame)
                    factor = (time.monotonic() - generation_started) * fps / number
                    bar.set_postfix_str(f"{factor:.2f} s per second of video", refresh=False)
                    bar.update()
            written = writer.frames_written
        return Rendered(output, written, written / fps, time.monotonic() - started)
