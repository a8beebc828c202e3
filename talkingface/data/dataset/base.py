"""Datasets with an index, items that repeat, and an order that can be resumed in mid-epoch."""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from talkingface.errors import StageError
from talkingface.utils.env import import_cv2
from talkingface.utils.seeding import item_rng
from talkingface.utils.system import SIGNAL_ECHO_SECONDS, cpu_count

if TYPE_CHECKING:
    from talkingface.config.config import Config

ItemKey = int | tuple[int, int]


class TalkingFaceDataset(Dataset, ABC):
    """Items of one split.

    Sub-classes build an index once; an item depends only on ``(seed, epoch, index)``, so workers,
    resumed runs and several processes all see the same data.

    Args:
        cfg: the run's configuration.
        split: ``train``, ``val`` or ``test``.

    Raises:
        StageError: no usable item; the message says why.
    """

    batch_spec: ClassVar[dict[str, str]] = {}
    # Keys of the configuration that it reads, beside those that every run has; a sub-class adds
    # its own to them.
    needs_config: ClassVar[tuple[str, ...]] = ()
    # The runner gives a third argument, ``components``, as to a preparation.
    uses_components: ClassVar[bool] = False

    def __init__(self, cfg: Config, split: str) -> None:
        self.cfg = cfg
        self.split = split
        self.unusable: dict[str, str] = {}  # clips of the list without items, and why
        self.index = self.build_index()
        if not self.index:
            raise StageError(self._explain_empty())

    @abstractmethod
    def build_index(self) -> list[Any]:
        """Everything that an item can be made of."""

    @abstractmethod
    def load_item(self, entry: Any, rng: np.random.Generator) -> dict[str, Any]:
        """One item; all randomness comes from ``rng``."""

    def _explain_empty(self) -> str:
        text = (
            f"The {self.split} split of {self.cfg.dataset} has no usable item for "
            f"{self.cfg.model}. List: {self.cfg.filelist(self.split)}. {len(self.unusable)} clips "
            "are not usable."
        )
        reasons = list(self.unusable.items())[:3]
        return text + "".join(f"\n  {name}: {reason}" for name, reason in reasons)

    def summary(self) -> dict[str, Any]:
        """Figures for the data summary, e.g. clips, frames and seconds."""
        return {"items": len(self)}

    def __len__(self) -> int:
        return len(self.index)

    def epoch_length(self, epoch: int) -> int:
        """Items of a training epoch; other than ``len`` where epochs grow."""
        return len(self)

    def entry(self, epoch: int, position: int) -> Any:
        """Entry of the index that is the item ``position`` of an epoch."""
        return self.index[position]

    def __getitem__(self, key: ItemKey) -> dict[str, Any]:
        epoch, position = key if isinstance(key, tuple) else (0, int(key))
        rng = item_rng(self.cfg.seed, self.split, epoch, position)
        return self.load_item(self.entry(epoch, position), rng)


class ResumableSampler(Sampler):
    """Yields ``(epoch, index)``; the order of an epoch is a permutation seeded by (seed, epoch).

    Args:
        length: number of items, or a function of the epoch.
        start: items of the first epoch that were used before a resume; they are skipped here, not
            loaded and thrown away.
    """

    def __init__(
        self,
        length: int | Callable[[int], int],
        *,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._length, self.seed, self.shuffle = length, seed, shuffle
        self.rank, self.world = rank, world
        self.epoch = 0
        self.start = 0

    @property
    def length(self) -> int:
        """Items of the current epoch."""
        return self._length(self.epoch) if callable(self._length) else self._length

    def set_position(self, epoch: int, start: int = 0) -> None:
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return max(-(-self.length // self.world) - self.start, 0)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.length)
        if self.shuffle:
            order = item_rng(self.seed, "order", self.epoch).permutation(self.length)
        # Every rank takes the same number of steps, also when there are fewer items than ranks.
        order = np.resize(order, -(-len(order) // self.world) * self.world)[self.rank :: self.world]
        for position in order[self.start :]:
            yield self.epoch, int(position)


def build_loader(
    dataset: TalkingFaceDataset,
    cfg: Config,
    *,
    train: bool,
    rank: int = 0,
    world: int = 1,
    pin: bool = False,
) -> DataLoader:
    """A loader whose order, workers and position are reproducible.

    The last, smaller batch of an epoch is dropped in training when there is a full one: BatchNorm
    cannot train on a single item.
    """
    batch = cfg.batch_size if train else cfg.eval_batch_size
    length = dataset.epoch_length if train else len(dataset)
    sampler = ResumableSampler(
        length, seed=cfg.seed, shuffle=train and cfg.shuffle, rank=rank, world=world
    )
    workers = worker_count(cfg.num_workers)
    # The loader draws a base seed at each start; from a generator of its own, so that resuming
    # inside an epoch leaves the global one untouched.
    generator = torch.Generator().manual_seed(cfg.seed)
    return DataLoader(
        dataset,
        batch_size=batch,
        sampler=sampler,
        num_workers=workers,
        pin_memory=pin,
        drop_last=train and len(sampler) >= batch,
        generator=generator,
        persistent_workers=workers > 0,
        worker_init_fn=_start_worker if workers else None,
    )


def _start_worker(_: int) -> None:
    """Loader processes must not compete with the training threads, nor die before the trainer.

    Ctrl-C and many job systems signal the whole process group; the trainer then finishes its step
    and saves. As there, a later second signal ends the process at once.
    """
    asked_at: list[float] = []

    def wait_for_the_trainer(number: int, _frame: object) -> None:
        if not asked_at:
            asked_at.append(time.monotonic())
            if hasattr(signal, "alarm"):
                signal.alarm(60)  # this process may not be needed any more
        elif time.monotonic() - asked_at[0] > SIGNAL_ECHO_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, wait_for_the_trainer)
    torch.set_num_threads(1)
    import_cv2().setNumThreads(0)


def worker_count(setting: int | str) -> int:
    """Loader processes for ``num_workers``; auto: one per two CPUs beyond the first, at most 8."""
    if setting != "auto":
        return int(setting)
    return min(8, cpu_count() // 2)
