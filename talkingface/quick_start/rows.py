"""Rows of a result table of videos: models, their trivial baselines, the real video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.data.clips import Clip
from talkingface.data.media.audio import load_audio
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import count_frames, read_frames
from talkingface.data.media.writer import write_video
from talkingface.errors import DataError, EnvironmentProblem, TalkingFaceError
from talkingface.evaluator.clip import ClipPair
from talkingface.pipeline.base import SAMPLE_RATE, Pipeline, Rendered

if TYPE_CHECKING:
    from talkingface.config.config import Config

REAL, SHUFFLED, SILENT = "real video (re-encoded)", "shuffled audio", "silent audio"
# Baselines that a pipeline renders in place of its model: key -> title and description.
REPLACEMENTS = {
    "first_stage": ("first stage enlarged", "the stage before {model} alone, enlarged"),
    "copy_reference": ("copy reference", "the reference picture instead of the network of {model}"),
    "retrieved_mouth": (
        "retrieved mouth",
        "mouths of the person's other frames, chosen by sound, without a network",
    ),
    "warped": (
        "warped reference",
        "the reference picture moved by the flow of {model}, not drawn anew",
    ),
    "other_driver": ("driven by another clip", "{model} driven by another clip"),
}
COPY = REPLACEMENTS["copy_reference"][0]
SAMPLE_SEEDS = (1, 2, 3, 4)  # seeds of further samples for the metric Div; other videos: seed 0


class Generator:
    """A trained model that writes the videos of test clips.

    Args:
        title: title of its row.
        load: returns the pipeline; called when the first video is needed.
        folder: folder of reference videos that the pipeline makes.
    """

    def __init__(self, cfg: Config, title: str, load: Callable[[], Pipeline], folder: Path) -> None:
        self.cfg, self.title, self.folder = cfg, title, folder
        self._load = load
        self._references: dict[str, Clip] = {}

    @cached_property
    def pipeline(self) -> Pipeline:
        return self._load()

    @property
    def kind(self) -> type[Pipeline]:
        """The class of the pipeline, without loading it."""
        return self.cfg.registry.resolve(self.cfg.model_entry, "pipeline")

    @property
    def state(self) -> str:
        """A text that differs when the same source and audio would give another video."""
        return ""

    def reference(self, clip: Clip) -> Clip:
        """The clip that a generated video of ``clip`` is compared with."""
        if not hasattr(self.kind, "reference"):
            return clip
        if clip.id not in self._references:
            self._references[clip.id] = self.pipeline.reference(clip, self.folder)
        return self._references[clip.id]

    def render(
        self,
        clip: Clip,
        path: Path,
        audio: np.ndarray | None = None,
        baseline: str | None = None,
        seed: int = 0,
    ) -> Rendered:
        """Write a video with as many frames as the real clip, so that all rows have equal frames.

        Args:
            audio: mono 16 kHz samples; None: the audio of the clip.
            baseline: key of a baseline to render in place of the model.
        """
        real = self.reference(clip)
        return self.pipeline.render(
            clip.path,
            real.audio if audio is None else audio,
            path,
            frames=count_frames(real.path, self.cfg.fps),
            baseline=baseline,
            seed=seed,
        )

    def samples(self, clip: Clip, path: Path) -> tuple[Path, ...]:
        """Write videos of a clip with other seeds beside its video at ``path``.

        For a deterministic model ``path`` is repeated and nothing is written.
        """
        if not self.pipeline.stochastic:
            return (path,) * len(SAMPLE_SEEDS)
        paths = [path.with_suffix(f".seed{seed}{path.suffix}") for seed in SAMPLE_SEEDS]
        for seed, target in zip(SAMPLE_SEEDS, paths, strict=True):
            self.render(clip, target, seed=seed)
        return tuple(paths)


@dataclass
class VideoRow:
    """One row of the result table of a dataset.

    Attributes:
        kind: ``model``, ``baseline``, ``real`` or ``videos``.
        detail: description of the row.
        make: writes the video of a clip to a path; None when ``videos`` exist already.
        state: a text that differs when the clip's video would.
        reference: the clip that a clip's video is compared with.
        generator: the generator of a row of kind ``model``.
        videos: clip id -> video.
        samples: clip id -> further videos with other seeds.
        failures: clip id -> why it has no video.
    """

    title: str
    kind: str
    detail: str
    make: Callable[[Clip, Path], Any] | None = None
    state: Callable[[Clip], str] = lambda clip: ""
    reference: Callable[[Clip], Clip] = lambda clip: clip
    generator: Generator | None = None
    warnings: list[str] = field(default_factory=list)
    videos: dict[str, Path] = field(default_factory=dict)
    samples: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def model_row(
    generator: Generator, detail: str = "", warnings: list[str] | None = None
) -> VideoRow:
    """The row of a model itself."""
    return VideoRow(
        generator.title,
        "model",
        detail,
        generator.render,
        lambda clip: f"{generator.state} {clip_state(clip)}",
        generator.reference,
        generator,
        warnings or [],
    )


def baseline_rows(
    generators: Sequence[Generator], clips: list[Clip], baselines: Sequence[str], *, named: bool
) -> list[VideoRow]:
    """Rows of the trivial baselines and of the real video.

    Args:
        baselines: keys of the wanted rows (configuration key ``baselines``).
        named: put the model's title into the title of its row with shuffled audio.
    """
    rows = []
    for generator in generators:
        if "shuffled_audio" in baselines:
            waves = shuffled_waves(clips, generator.reference)
            rows.append(
                VideoRow(
                    f"{generator.title}, {SHUFFLED}" if named else SHUFFLED,
                    "baseline",
                    "the same with the sound of another clip",
                    lambda clip, path, g=generator, w=waves: g.render(clip, path, w[clip.id]()),
                    lambda clip, g=generator: (
                        f"{g.state} {clip_state(clip)} "
                        f"{clip_state(mismatched_clip(clips, clips.index(clip)))}"
                    ),
                    generator.reference,
                )
            )
        if "silent_audio" in baselines:
            rows.append(_silent_row(generator, named))
    for name, (title, detail) in REPLACEMENTS.items():
        owner = next((g for g in generators if name in g.kind.baselines), None)
        if owner and name in baselines:
            rows.append(
                VideoRow(
                    title,
                    "baseline",
                    detail.format(model=owner.title),
                    lambda clip, path, g=owner, n=name: g.render(clip, path, None, n),
                    lambda clip, g=owner, n=name: f"{g.state} {clip_state(clip)} {n}",
                    owner.reference,
                )
            )
    if "real" in baselines and generators:
        first, cfg = generators[0], generators[0].cfg
        detail = f"through the same encoder (crf {cfg.infer.crf}, {cfg.fps:g} frames/s)"
        rows.append(
            VideoRow(
                REAL,
                "real",
                detail,
                lambda clip, path: reencode(cfg, first.reference(clip), path),
                lambda clip: f"{detail} {clip_state(clip)}",
                first.reference,
            )
        )
    return rows


def _silent_row(generator: Generator, named: bool) -> VideoRow:
    """The model with silence in place of the sound, for the metric LipLeak."""

    def make(clip: Clip, path: Path) -> None:
        sound = load_audio(generator.reference(clip).audio, SAMPLE_RATE)
        generator.render(clip, path, np.zeros_like(sound))

    return VideoRow(
        f"{generator.title}, {SILENT}" if named else SILENT,
        "baseline",
        "the same with silence in place of the sound",
        make,
        lambda clip: f"{generator.state} {clip_state(clip)} silence",
        generator.reference,
    )


def video_pair(row: VideoRow, clip: Clip, path: Path, diverse: bool) -> ClipPair:
    """Write the video of a row and return it with the real one.

    Args:
        diverse: also write further samples of a model, for the metric Div.

    Raises:
        DataError: the video could not be generated.
    """
    try:
        row.make(clip, path)
    except EnvironmentProblem:
        raise
    except TalkingFaceError as error:
        raise DataError(f"not generated: {error}") from error
    real = row.reference(clip)
    pair = ClipPair(clip.id, path, real.path, audio=real.audio)
    if diverse and row.generator is not None:
        try:
            pair.samples = row.generator.samples(clip, path)
        except EnvironmentProblem:
            raise
        except TalkingFaceError as error:  # affects the metric Div only
            pair.notes.append(f"further samples were not generated: {error}")
    return pair


def shuffled_waves(
    clips: list[Clip], reference: Callable[[Clip], Clip] = lambda clip: clip
) -> dict[str, Callable[[], np.ndarray]]:
    """Functions that return the audio of another clip, repeated or cut to the clip's length.

    If there is one clip only: its own audio, shifted by half its length.
    """

    def other(index: int) -> np.ndarray:
        own = load_audio(reference(clips[index]).audio, SAMPLE_RATE)
        if len(clips) == 1:
            return np.roll(own, len(own) // 2)
        wrong = reference(mismatched_clip(clips, index))
        return np.resize(load_audio(wrong.audio, SAMPLE_RATE), len(own))

    return {clip.id: (lambda i=index: other(i)) for index, clip in enumerate(clips)}


def mismatched_clip(clips: Sequence[Any], index: int) -> Any:
    """The clip half the list away: neighbours in a corpus often have the same sentence in another
    emotion or take."""
    return clips[(index + max(1, len(clips) // 2)) % len(clips)]


def reencode(cfg: Config, clip: Clip, path: Path) -> None:
    """Write the real video with the encoder of generated ones, to measure the compression loss."""
    has_audio = probe(clip.audio).has_audio
    sound = (load_audio(clip.audio, SAMPLE_RATE), SAMPLE_RATE) if has_audio else None
    frames = read_frames(clip.path, fps=cfg.fps)
    write_video(path, frames, cfg.fps, audio=sound, crf=cfg.infer.crf)


def file_state(path: Path) -> str:
    """Size and modification time of a file, to detect a change."""
    info = path.stat()
    return f"{info.st_size}-{info.st_mtime_ns}"


def clip_state(clip: Clip) -> str:
    """As :func:`file_state`, for the video and audio of a clip."""
    return f"{clip.id} {file_state(clip.path)} {file_state(clip.audio)}"
