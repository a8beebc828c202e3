"""The raw clips of a dataset and the lists of its three splits."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from talkingface.data.clips import (
    SPLITS,
    Clip,
    discover_clips,
    ensure_filelists,
    have_filelists,
    no_clips_message,
    split_clips,
)
from talkingface.errors import StageError
from talkingface.utils.locks import file_lock
from talkingface.utils.paths import shown

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)


class Corpus:
    """Video files in the data folder of a dataset."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg

    def clips(self) -> list[Clip]:
        """All clips of the data folder."""
        return discover_clips(self.cfg.data_dir, self.cfg.clips, quiet=True)

    def files_of(self, clip: Clip) -> list[Path]:
        """Files of a clip; when one changes, the clip is prepared again."""
        return list(dict.fromkeys((clip.path, clip.audio)))

    def no_clips_message(self) -> str:
        """Error text with the remedy for an empty data folder."""
        return no_clips_message(self.cfg)

    def write_lists(self, clips: list[Clip]) -> None:
        """Divide usable clips into the three lists, unless they exist."""
        ensure_filelists(self.cfg, clips)

    def to_prepare(self, lock: Path | None = None) -> list[Clip]:
        """Clips of the three lists, or all clips when there are no lists yet.

        Args:
            lock: lock file of the run that writes the lists; None does not wait for it.

        Raises:
            StageError: there are no clips.
        """
        clips = discover_clips(self.cfg.data_dir, self.cfg.clips)
        if not clips:
            raise StageError(self.no_clips_message())
        written = sum(self.cfg.filelist(split).exists() for split in SPLITS)
        if lock is not None and 0 < written < len(SPLITS):
            with file_lock(lock):  # another run may be writing them
                pass
        if not have_filelists(self.cfg):
            return clips
        listed: dict[str, Clip] = {}
        for split in SPLITS:
            listed.update({clip.id: clip for clip in split_clips(self.cfg, split, clips)})
        folder = self.cfg.filelist("train").parent
        if not listed:
            raise StageError(f"None of the clips in {folder} exists.")
        if len(clips) > len(listed):
            log.info(
                "%d clips of %s are in no list of %s and are not prepared",
                len(clips) - len(listed),
                shown(self.cfg.data_dir),
                shown(folder),
            )
        return list(listed.values())
