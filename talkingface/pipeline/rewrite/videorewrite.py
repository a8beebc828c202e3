"""Dubbing with VideoRewrite: a person's own mouths, chosen and bent by predicted shapes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from talkingface.errors import DataError
from talkingface.pipeline.base import SAMPLE_RATE
from talkingface.pipeline.dubbing import DubbedVideo, DubbingBase
from talkingface.pipeline.retrieval.retriever import Guess, RetrievalOptions

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.model.abstract_talkingface import AbstractTalkingFace


class VideoRewritePipeline(DubbingBase):
    """Mouths of the source, or of other prepared clips of the person if it is in the dataset."""

    needs_config = ("infer.amplitude", "infer.blending", "infer.silence")
    baselines = ("copy_reference",)
    works_untrained = True  # the regression on the person's own mouths is enough

    def __init__(self, cfg: Config, model: AbstractTalkingFace, device: torch.device) -> None:
        super().__init__(cfg, model, device)
        self.network = model.network.to(device)

    def prepare(self, source: Path, *, show_progress: str | bool = False) -> DubbedVideo:
        return self.open_source(source, show_progress)

    def frame_count(self, identity: DubbedVideo, wave: np.ndarray) -> int:
        count = max(1, int(len(wave) * identity.fps / SAMPLE_RATE + 1e-6))
        if self.cfg.infer.when_short == "truncate" and not identity.still:
            count = min(count, len(identity.track))
        return count

    @property
    def guess(self) -> Guess:
        return self._shapes

    @torch.no_grad()
    def _shapes(self, rows: np.ndarray) -> np.ndarray:
        found = self.network(torch.from_numpy(rows).float().to(self.device))
        return found.cpu().numpy().astype(np.float64)

    @property
    def retrieval_options(self) -> RetrievalOptions:
        return RetrievalOptions(self.cfg.infer.amplitude, self.cfg.infer.blending)

    def generate(
        self, identity: DubbedVideo, wave: np.ndarray, *, baseline: str | None = None
    ) -> Iterator[np.ndarray]:
        total, silence = self.frame_count(identity, wave), self.cfg.infer.silence
        if baseline is None:
            yield from self.retrieved(identity, wave, total, silence)
        elif baseline == "copy_reference":
            yield from self.still_mouth(identity, total)
        else:
            raise DataError(f"there is no baseline '{baseline}'")
