"""Training items of APC: random windows of mel rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talkingface.data.dataprocess.lsp.apc_process import APCProcess
from talkingface.data.dataset.base import TalkingFaceDataset
from talkingface.data.media.apc_mel import MOTION_FPS, ROWS_PER_FRAME
from talkingface.data.npz import read_npy

if TYPE_CHECKING:
    from talkingface.config.config import Config


class APCDataset(TalkingFaceDataset):
    """``data.windows_per_clip`` windows per clip and epoch; shorter clips are padded with zeros."""

    needs_config = ("data.seconds", "data.windows_per_clip")

    batch_spec = {
        "mel": "B M 80 float32; rows of the log-mel spectrogram at 120 Hz",
        "length": "B int64; rows before the padding",
    }

    def __init__(self, cfg: Config, split: str) -> None:
        self.rows = round(cfg.data.seconds * MOTION_FPS * ROWS_PER_FRAME)
        super().__init__(cfg, split)

    def build_index(self) -> list[Path]:
        process = APCProcess(self.cfg)
        names, self.unusable = process.prepared.usable(self.split)
        paths = [process.folder / name / "mel.npy" for name in names]
        return [path for path in paths for _ in range(self.cfg.data.windows_per_clip)]

    def load_item(self, entry: Path, rng: np.random.Generator) -> dict[str, Any]:
        mel = read_npy(entry, mmap=True)
        length = min(self.rows, len(mel))
        start = int(rng.integers(0, len(mel) - length + 1))
        item = np.zeros((self.rows, mel.shape[1]), np.float32)
        item[:length] = mel[start : start + length]
        return {"mel": item, "length": np.int64(length)}
