"""``--live``: speech in chunks to frames with a bounded delay."""

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
from talkingface.data.media.writer import VideoWriter
from talkingface.errors import ConfigError, DataError
from talkingface.pipeline.base import SAMPLE_RATE
from talkingface.trainer.signals import StopRequest
from talkingface.utils.env import require
from talkingface.utils.logs import progress, setup_logging
from talkingface.utils.paths import resolve, shown

if TYPE_CHECKING:
    from talkingface.pipeline.base import Pipeline

log = logging.getLogger(__name__)

CHUNK_SECONDS = 0.1
MICROPHONE = "microphone"


def live_command(
    options: Mapping[str, str], config: Mapping[str, Any], config_files: list[str]
) -> int:
    """Run ``--live``: play a sound, or listen to the microphone; returns the exit status.

    Frames are made as the sound comes and written to a video. For each the delay is measured from
    the time at which it is due on the clock of the sound to the time at which it is there.
    """
    from talkingface.components.models import build_model, load_model_weights
    from talkingface.pipeline.build import build_pipeline
    from talkingface.quick_start.infer import configure
    from talkingface.trainer.runtime import choose_device
    from talkingface.utils.seeding import seed_everything

    for key in ("audio", "source"):
        if not options.get(key):
            raise ConfigError(f"--live needs --{key}")
    settings = {"infer.motion.causal": True, **config}
    cfg, checkpoint = configure(options, settings, config_files)
    setup_logging(cfg.log_level)
    seed_everything(cfg.seed, cfg.reproducibility)
    target = cfg.model_entry.target("pipeline")
    if not target or not hasattr(cfg.registry.resolve(cfg.model_entry, "pipeline"), "live"):
        raise ConfigError(f"{cfg.model} has no live mode; live_speech_portraits has")
    model = build_model(cfg)
    if checkpoint is not None:
        load_model_weights(model, checkpoint, cfg.trust_checkpoint)
    pipeline = build_pipeline(cfg, model.eval(), choose_device(cfg.device))
    output = Path(options.get("output") or resolve(cfg.results_dir) / cfg.model / "live.mp4")
    output = output.expanduser()
    if options["audio"] == MICROPHONE:
        stop = StopRequest()
        chunks: Iterator[np.ndarray] = microphone(CHUNK_SECONDS, stop)
        wave = None
        log.info("listening; Ctrl-C ends")
    else:
        wave = load_audio(options["audio"], SAMPLE_RATE)
        chunks, stop = paced(wave, CHUNK_SECONDS), None
    with stop.watching() if stop else contextlib.nullcontext():
        facts = run_live(pipeline, Path(options["source"]), chunks, output, wave, cfg.show_progress)
    log.info(
        "%s: %d frames; delay %.0f ms in the mean, %.0f ms at most (the models' look-ahead is "
        "%.0f ms, a chunk %.0f ms); %.0f ms of computing per frame",
        shown(output),
        facts["frames"],
        1000 * facts["mean_delay"],
        1000 * facts["max_delay"],
        1000 * facts["look_ahead"],
        1000 * CHUNK_SECONDS,
        1000 * facts["seconds_per_frame"],
    )
    if facts["max_delay"] > 3 * (facts["look_ahead"] + CHUNK_SECONDS):
        log.warning("this machine is too slow for live use at this size; the delay kept growing")
    return 0


def paced(wave: np.ndarray, seconds: float) -> Iterator[np.ndarray]:
    """A sound in chunks, each given when a microphone would have it."""
    begun = time.monotonic()
    for number, chunk in enumerate(in_chunks(wave, round(seconds * SAMPLE_RATE)), 1):
        time.sleep(max(0.0, begun + number * seconds - time.monotonic()))
        yield chunk


def in_chunks(wave: np.ndarray, samples: int) -> Iterator[np.ndarray]:
    """A sound in pieces of so many samples; the last may be shorter."""
    for start in range(0, len(wave), samples):
        yield wave[start : start + samples]


def microphone(seconds: float, stop: StopRequest) -> Iterator[np.ndarray]:
    """Chunks of the default microphone until Ctrl-C, which only asks to stop."""
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
    """Feed a live session and write its frames with the sound.

    Args:
        wave: the whole sound, where it is known before.

    Returns:
        ``frames``, ``mean_delay``, ``max_delay``, ``look_ahead`` and ``seconds_per_frame``, in s.
    """
    cfg = pipeline.cfg
    identity = pipeline.prepare(source)
    _warm_up(pipeline, identity)
    session = pipeline.live(identity, cfg.seed)
    sound: list[np.ndarray] = []
    delays: list[float] = []
    busy = 0.0
    output.parent.mkdir(parents=True, exist_ok=True)
    total = None if wave is None else round(len(wave) / SAMPLE_RATE * cfg.fps)
    bar = progress(total=total, unit="frame", desc=output.name, show=show_progress, leave=False)
    scratch = output.with_name(f".{output.stem}.silent.mp4")
    target, audio = (scratch, None) if wave is None else (output, (wave, SAMPLE_RATE))
    begun = time.monotonic()
    try:
        with bar, VideoWriter(target, cfg.fps, audio=audio, crf=cfg.infer.crf) as writer:

            def give(frames: Iterator[np.ndarray]) -> None:
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
                give(session.push(chunk))
            give(session.finish())
            if not delays:
                raise DataError("no sound came in: there is no frame to write")
        if wave is None:
            _with_sound(scratch, np.concatenate(sound), output, cfg.fps, cfg.infer.crf)
    finally:
        scratch.unlink(missing_ok=True)
    return {
        "frames": len(delays),
        "mean_delay": float(np.mean(delays)) if delays else 0.0,
        "max_delay": float(np.max(delays)) if delays else 0.0,
        "look_ahead": pipeline.ahead[0] / 60,
        "seconds_per_frame": busy / max(1, len(delays)),
    }


def _warm_up(pipeline: Pipeline, identity: Any) -> None:
    """Libraries, files and kernels that the first frame would have to wait for."""
    session = pipeline.live(identity)
    for frames in (session.push(np.zeros(SAMPLE_RATE // 2, np.float32)), session.finish()):
        for _ in frames:
            pass


def _with_sound(silent: Path, wave: np.ndarray, output: Path, fps: float, crf: int) -> None:
    """The recording is complete only at the end; the frames are written again with it."""
    from talkingface.data.media.reader import read_frames

    with VideoWriter(output, fps, audio=(wave, SAMPLE_RATE), crf=crf) as writer:
        for frame in read_frames(silent, fps=fps):
            writer.write(frame)
