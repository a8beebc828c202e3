"""``--live``: generate frames from audio in chunks, with a bounded delay."""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.data.media.audio import load_audio
from talkingface.data.media.limits import set_limits
from talkingface.data.media.reader import read_frames
from talkingface.data.media.writer import VideoWriter, write_video
from talkingface.errors import ConfigError, DataError
from talkingface.pipeline.base import SAMPLE_RATE
from talkingface.quick_start.infer import configure, load_pipeline
from talkingface.trainer.signals import StopRequest
from talkingface.utils.env import require
from talkingface.utils.logs import progress, setup_logging
from talkingface.utils.paths import refuse_to_replace, resolve, shown

if TYPE_CHECKING:
    from talkingface.pipeline.base import Pipeline

log = logging.getLogger(__name__)

CHUNK_SECONDS = 0.1
MICROPHONE = "microphone"


def live_command(
    options: Mapping[str, str], config: Mapping[str, Any], config_files: list[str]
) -> int:
    """Run ``--live`` on a file in real time or on the microphone; returns the exit status.

    Frames are generated while the audio arrives and written to a video. The delay of a frame is
    the time from its position in the audio to the time at which it is finished.
    """
    for key in ("audio", "source"):
        if not options.get(key):
            raise ConfigError(f"--live needs --{key}")
    cfg, _ = configure(options, config, config_files)
    setup_logging(cfg.log_level)
    set_limits(cfg.media)
    has_pipeline = cfg.model_entry.target("pipeline")
    kind = cfg.registry.resolve(cfg.model_entry, "pipeline") if has_pipeline else None
    if not hasattr(kind, "live"):
        raise ConfigError(f"{cfg.model} has no live mode; use live_speech_portraits")
    cfg, checkpoint = configure(options, {**kind.live_settings, **config}, config_files)
    pipeline = load_pipeline(cfg, checkpoint)
    output = Path(options.get("output") or resolve(cfg.results_dir) / cfg.model / "live.mp4")
    output = output.expanduser()
    refuse_to_replace(output, (Path(options["source"]), Path(options["audio"]), checkpoint))
    if options["audio"] == MICROPHONE:
        stop = StopRequest()
        chunks: Iterator[np.ndarray] = microphone(CHUNK_SECONDS, stop)
        wave = None
        log.info("recording from the microphone; Ctrl-C stops")
    else:
        wave = load_audio(options["audio"], SAMPLE_RATE)
        chunks, stop = paced(wave, CHUNK_SECONDS), None
    with stop.watching() if stop else contextlib.nullcontext():
        stats = run_live(pipeline, Path(options["source"]), chunks, output, wave, cfg.show_progress)
    log.info(
        "%s: %d frames; mean delay %.0f ms, largest delay %.0f ms (look-ahead of the models "
        "%.0f ms, chunk %.0f ms); computing time %.0f ms per frame",
        shown(output),
        stats["frames"],
        1000 * stats["mean_delay"],
        1000 * stats["max_delay"],
        1000 * stats["look_ahead"],
        1000 * CHUNK_SECONDS,
        1000 * stats["seconds_per_frame"],
    )
    if stats["max_delay"] > 3 * (stats["look_ahead"] + CHUNK_SECONDS):
        log.warning("this machine is too slow for live use at this size: the delay kept growing")
    return 0


def paced(wave: np.ndarray, seconds: float) -> Iterator[np.ndarray]:
    """Chunks of an audio signal, each at the time at which a microphone would deliver it."""
    begun = time.monotonic()
    for number, chunk in enumerate(in_chunks(wave, round(seconds * SAMPLE_RATE)), 1):
        time.sleep(max(0.0, begun + number * seconds - time.monotonic()))
        yield chunk


def in_chunks(wave: np.ndarray, samples: int) -> Iterator[np.ndarray]:
    """Chunks of ``samples`` samples; the last may be shorter."""
    for start in range(0, len(wave), samples):
        yield wave[start : start + samples]


def microphone(seconds: float, stop: StopRequest) -> Iterator[np.ndarray]:
    """Chunks of the default microphone until Ctrl-C."""
    sounddevice = require("sounddevice", why="Listening to the microphone")
    blocks: queue.Queue[np.ndarray] = queue.Queue()
    size = round(seconds * SAMPLE_RATE)

    def keep(data: np.ndarray, *_: Any) -> None:
        blocks.put(data[:, 0].copy())

    with sounddevice.InputStream(
        SAMPLE_RATE, channels=1, dtype="float32", blocksize=size, callback=keep
    ):
        while not stop:
            with contextlib.suppress(queue.Empty):
                yield blocks.get(timeout=0.2)


def run_live(
    pipeline: Pipeline,
    source: Path,
    chunks: Iterator[np.ndarray],
    output: Path,
    wave: np.ndarray | None = None,
    show_progress: str | bool = False,
) -> dict[str, float]:
    """Feed a live session and write its frames with the audio.

    Args:
        wave: the whole audio signal if it is known in advance.

    Returns:
        ``frames`` (a count), and in seconds ``mean_delay``, ``max_delay``, ``look_ahead``,
        ``seconds_per_frame``.
    """
    cfg = pipeline.cfg
    identity = pipeline.prepare(source)
    _warm_up(pipeline, identity)
    session = pipeline.live(identity, cfg.seed)
    sound: list[np.ndarray] = []
    delays: list[float] = []
    busy = 0.0
    total = None if wave is None else round(len(wave) / SAMPLE_RATE * cfg.fps)
    bar = progress(total=total, unit="frame", desc=output.name, show=show_progress, leave=False)
    scratch = output.with_name(f".{output.stem}.silent.mp4")
    target, audio = (scratch, None) if wave is None else (output, (wave, SAMPLE_RATE))
    begun = time.monotonic()
    try:
        with bar, VideoWriter(target, cfg.fps, audio=audio, crf=cfg.infer.crf) as writer:

            def write(frames: Iterator[np.ndarray]) -> None:
                nonlocal busy
                started = time.monotonic()
                for frame in frames:
                    delays.append(time.monotonic() - begun - len(delays) / cfg.fps)
                    writer.write(frame)
                    bar.update()
                busy += time.monotonic() - started

            for chunk in chunks:
                if wave is None:
                    sound.append(chunk)
                write(session.push(chunk))
            write(session.finish())
            if not delays:
                raise DataError("no audio arrived: there is no frame to write")
        if wave is None:  # the recording is complete only now: encode the frames again with it
            recording = (np.concatenate(sound), SAMPLE_RATE)
            frames = read_frames(scratch, fps=cfg.fps)
            write_video(output, frames, cfg.fps, audio=recording, crf=cfg.infer.crf)
    finally:
        scratch.unlink(missing_ok=True)
    return {
        "frames": len(delays),
        "mean_delay": float(np.mean(delays)),
        "max_delay": float(np.max(delays)),
        "look_ahead": session.look_ahead,
        "seconds_per_frame": busy / len(delays),
    }


def _warm_up(pipeline: Pipeline, identity: Any) -> None:
    """Generate some frames, so that the first real one does not wait for files and kernels."""
    session = pipeline.live(identity)
    for frames in (session.push(np.zeros(SAMPLE_RATE // 2, np.float32)), session.finish()):
        for _ in frames:
            pass
