"""The raw clips of a dataset and their division into the lists of the three splits."""

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
        """Files whose change makes a clip prepared anew."""
        return list(dict.fromkeys((clip.path, clip.audio)))

    def no_clips_message(self) -> str:
        """What to do when there is nothing in the data folder."""
        return no_clips_message(self.cfg)

    def write_lists(self, clips: list[Clip]) -> None:
        """Divide usable clips into the three lists, where there are none."""
        ensure_filelists(self.cfg, clips)

    def to_prepare(self, lock: Path | None = None) -> list[Clip]:
        """Clips of the three lists, or all clips when there are no lists yet.

        Args:
            lock: lock file of the run that writes the lists; None does not wait for it.

        Raises:
            StageError: there is none.
        """
        clips = discover_clips(self.cfg.data_dir, self.cfg.clips)
        if not clips:
            raise StageError(self.no_clips_message())
        lists = [self.cfg.filelist(split) for split in SPLITS]
        written = [path.exists() for path in lists]
        if lock is not None and any(written) and not all(written):
            with file_lock(lock):  # another run may be writing them right now
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
                "%d clips of %s stand in no list of %s and are left alone",
                len(clips) - len(listed),
                shown(self.cfg.data_dir),
                shown(folder),
            )
        return list(listed.values())
