"""Mean losses of a split, and the scores of generated validation videos."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from talkingface.model.abstract_talkingface import AbstractTalkingFace
from talkingface.trainer.runtime import Runtime
from talkingface.trainer.signals import StopRequest
from talkingface.utils.logs import progress


@dataclass
class Scorer:
    """Scores the model on generated validation videos, if ``valid_metric`` is not a loss."""

    score: Callable[[AbstractTalkingFace], dict[str, float]]
    higher_is_better: bool


@torch.no_grad()
def mean_losses(
    model: AbstractTalkingFace,
    loader: DataLoader,
    runtime: Runtime,
    *,
    show_progress: str | bool,
    alone: bool = False,
    batches: int | None = None,
    stop: StopRequest | None = None,
    first: Callable[[Mapping[str, Any]], None] | None = None,
) -> dict[str, float] | None:
    """Mean losses of the last phase over a split, weighted by items.

    Args:
        model: on the device of ``runtime``; left in training mode.
        alone: this process has the whole split; do not sum over processes.
        batches: use only the first ones.
        stop: checked before each batch.
        first: called with the first batch.

    Returns:
        None when a signal stopped the validation.
    """
    model.eval()
    sums: dict[str, Tensor] = {}
    count = torch.zeros((), device=runtime.device)
    show = show_progress if runtime.is_zero else False
    bar = progress(
        islice(loader, batches), total=len(loader), show=show, desc="validation", leave=False
    )
    for number, batch in enumerate(bar):
        if stop is not None and runtime.any(bool(stop)):
            model.train()
            return None
        batch = runtime.to_device(batch)
        size = next(len(v) for v in batch.values() if isinstance(v, Tensor))
        losses = model.calculate_loss(batch, model.phases[-1], model.forward_train(batch))
        for key, value in losses.items():
            sums[key] = sums.get(key, torch.zeros_like(count)) + value.detach() * size
        count += size
        if number == 0 and first is not None:
            first(batch)
    if not alone:
        count = runtime.sum(count)
        sums = {key: runtime.sum(value) for key, value in sums.items()}
    model.train()
    return {key: float(value / count) for key, value in sums.items()}
