"""The scenes of a dataset of motion, in the layout of audio2photoreal."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path

from talkingface.data.clips import Clip, Corpus
from talkingface.data.dataprocess.a2p.files import SceneFiles, find_scenes
from talkingface.data.filelists import write_filelists
from talkingface.errors import StageError
from talkingface.utils.paths import shown

log = logging.getLogger(__name__)

_VAL, _TEST = 2, 4  # last scenes (official split)


class SceneCorpus(Corpus):
    """Scenes of one person."""

    @cached_property
    def source(self) -> Path:
        """Folder of the scenes: the data folder, or the dataset's if only that has scenes."""
        folder = self.cfg.data_dir
        if not find_scenes(folder) and find_scenes(self.cfg.dataset_root):
            return self.cfg.dataset_root
        return folder

    def clips(self) -> list[Clip]:
        return find_scenes(self.source)

    def files_of(self, clip: Clip) -> list[Path]:
        files = SceneFiles.of_folder(self.source, clip.id)
        further = (files.face, files.missing, files.lips)
        return super().files_of(clip) + [p for p in further if p is not None and p.is_file()]

    def to_prepare(self, lock: Path | None = None) -> list[Clip]:
        clips = self.clips()
        if not clips:
            raise StageError(self.no_clips_message())
        return clips

    def no_clips_message(self) -> str:
        meta = self.cfg.dataset_entry.meta
        about = (meta.get("about") or {}).get("layout", "")
        return (
            f"No scene (*_body_pose.npy) was found in {self.cfg.data_dir}. Put the scenes of "
            f"{self.cfg.dataset} there, or set --data_root=<folder>. How to get them: "
            f"{meta.get('origin')} The authors' repository holds data_stats.pth only, no scenes. "
            f"{about}"
        )

    def write_lists(self, clips: list[Clip]) -> None:
        """Official split: the last four scenes are the test, the two before the validation."""
        lists = {split: self.cfg.filelist(split) for split in ("train", "val", "test")}
        if any(path.exists() for path in lists.values()):
            super().write_lists(clips)
            return
        names = sorted(clip.id for clip in clips)
        held = _VAL + _TEST
        if len(names) <= held:
            raise StageError(
                f"{self.cfg.dataset} has {len(names)} usable scene(s); at least {held + 1} are "
                "needed: four for the test, two for validation, the others for training. Or write "
                f"the lists in {lists['train'].parent} yourself."
            )
        parts = {"train": names[:-held], "val": names[-held:-_TEST], "test": names[-_TEST:]}
        write_filelists({path: parts[split] for split, path in lists.items()})
        log.info(
            "official split of %d scenes: %s (lists in %s)", len(names),
            ", ".join(f"{len(v)} {k}" for k, v in parts.items()), shown(lists["train"].parent),
        )  # fmt: skip
