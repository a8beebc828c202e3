"""The last lines of a run: what to open, and commands that continue from here."""

from __future__ import annotations

import logging
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from talkingface.data.clips import split_clips
from talkingface.data.scenes import SOUND
from talkingface.errors import TalkingFaceError
from talkingface.quick_start.run_dir import RunDir
from talkingface.utils.paths import program, shown

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)

OVERVIEW = "overview.png"  # in the results of a run


def try_command(cfg: Config, checkpoint: Path) -> str | None:
    """A command that generates a video from clips of the dataset; None for other models."""
    if not cfg.model_entry.target("pipeline"):
        return None
    usage = cfg.registry.resolve(cfg.model_entry, "pipeline").usage
    files = {"audio": "speech.wav", "source": "face.mp4", "driver": "other.mp4"}
    try:
        clips = [clip for split in ("test", "train") for clip in split_clips(cfg, split)]
    except TalkingFaceError:
        clips = []
    if clips:
        other = next((clip for clip in clips if clip.path != clips[0].path), clips[0])
        chosen = {"source": clips[0].path, "audio": other.audio, "driver": other.path}
    else:  # recordings without video
        sound = min(cfg.data_dir.rglob(f"*{SOUND}"), default=None)
        chosen = {"audio": sound} if sound else {}
    files.update((key, shlex.quote(shown(path))) for key, path in chosen.items())
    return (
        f"{_start(cfg)} --infer --model={cfg.model} --checkpoint={shlex.quote(shown(checkpoint))} "
        f"{usage.format(**files)} --output=out.mp4"
    )


def train_command(cfg: Config) -> str:
    """The command that trains the model of a configuration on its dataset."""
    preset = f" --preset={cfg.preset}" if cfg.preset else ""
    return f"{_start(cfg)} --model={cfg.model} --dataset={cfg.dataset}{preset}"


def _start(cfg: Config) -> str:
    folders = os.pathsep.join(cfg.plugin_path)
    return program() + (f" --plugin_path={shlex.quote(folders)}" if folders else "")


def show(cfg: Config, run: RunDir, checkpoint: Path | None) -> None:
    """Log what a run has made and what to do next."""
    log.info("run folder:  %s", shown(run.root))
    overview, previews = run.results / OVERVIEW, run.results / "previews"
    if overview.is_file():
        log.info("open:        %s, videos in %s", shown(overview), shown(previews))
    if checkpoint and (line := try_command(cfg, checkpoint)):
        log.info("try it:      %s", line)
    log.info("continue:    add --resume=auto (and a larger --epochs, --max_steps or --minutes)")
