"""Datasets with repeatable items, and a loader that can be resumed within an epoch."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from talkingface.errors import DataError, StageError
from talkingface.utils.env import import_cv2
from talkingface.utils.limits import file_limit, require_resources
from talkingface.utils.seeding import item_rng
from talkingface.utils.system import SIGNAL_ECHO_SECONDS, cpu_count

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)

ItemKey = int | tuple[int, int]
MAX_REPLACED = 100  # damaged items in a row before a training stops


def _finite(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return bool(torch.isfinite(value).all())
    return np.asarray(value).dtype.kind != "f" or bool(np.isfinite(value).all())


class TalkingFaceDataset(Dataset, ABC):
    """Items of one split.

    Sub-classes build an index once. An item depends only on ``(seed, epoch, index)``, so it does
    not change with the number of workers, with the number of processes or after a resume.

    Args:
        cfg: the run's configuration.
        split: ``train``, ``val`` or ``test``.

    Raises:
        StageError: no usable item; the message lists the reasons.
    """

    batch_spec: ClassVar[dict[str, str]] = {}
    # Configuration keys that it reads, beside those that every run has and those of base classes.
    needs_config: ClassVar[tuple[str, ...]] = ()
    # Whether the runner passes a third argument, ``components``, as to a preparation.
    uses_components: ClassVar[bool] = False

    def __init__(self, cfg: Config, split: str) -> None:
        self.cfg = cfg
        self.split = split
        self._replaced: dict[str, str] = {}  # reason per clip whose items are replaced
        self.unusable: dict[str, str] = {}  # reason per clip of the list that has no item
        self.index = self.build_index()
        if not self.index:
            raise StageError(self._explain_empty())

    @abstractmethod
    def build_index(self) -> list[Any]:
        """Entries, from each of which :meth:`load_item` loads an item."""

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
        """Values of the data summary, e.g. the numbers of clips, frames and seconds."""
        return {"items": len(self)}

    def __len__(self) -> int:
        return len(self.index)

    def epoch_length(self, epoch: int) -> int:
        """Number of items of a training epoch; differs from ``len`` where epochs grow."""
        return len(self)

    def entry(self, epoch: int, position: int) -> Any:
        """Entry of the index for the item ``position`` of an epoch."""
        return self.index[position]

    def __getitem__(self, key: ItemKey) -> dict[str, Any]:
        epoch, position = key if isinstance(key, tuple) else (0, int(key))
        length = self.epoch_length(epoch)
        for attempt in range(min(length, MAX_REPLACED)):
            # Of a damaged clip the item after it is used, for any number of workers the same one.
            place = (position + attempt) % length
            rng = item_rng(self.cfg.seed, self.split, epoch, place)
            try:
                item = self.load_item(self.entry(epoch, place), rng)
                bad = [key for key, value in item.items() if not _finite(value)]
                reason = f"NaN or infinite values in {', '.join(bad)}"
            except DataError as error:
                item, bad, reason = {}, ["file"], str(error)
            except OSError as error:
                require_resources(error)
                raise
            if not bad:
                return item
            self._leave_out(str(item.get("clip_id", f"item {place}")), reason)
        raise StageError(f"{MAX_REPLACED} items in a row are damaged, the last one: {reason}")

    def _leave_out(self, name: str, reason: str) -> None:
        """Say once per process which clip is replaced by others, and why."""
        if name not in self._replaced:
            self._replaced[name] = reason
            log.warning("%s of the %s split is left out: %s", name, self.split, reason)


class ClipDataset(TalkingFaceDataset):
    """Items of ``clips``, which :meth:`build_index` reads."""

    clips: list[Any]

    def counts(self, **more: int) -> dict[str, int]:
        """A summary: the numbers of clips with and without items, and ``more``."""
        return {"clips": len(self.clips), "unusable": len(self.unusable), **more}

    def whole_clips(self) -> Iterator[Any]:
        """The clips of the split, for evaluation."""
        yield from self.clips


class ResumableSampler(Sampler):
    """Yields ``(epoch, index)``; the order of an epoch is a permutation seeded by (seed, epoch).

    Args:
        length: number of items, or a function of the epoch.
        rank, world: index and number of the training processes.

    Attributes:
        start: items of the current epoch to skip without loading them, after a resume.
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
        """Number of items of the current epoch."""
        return self._length(self.epoch) if callable(self._length) else self._length

    def set_position(self, epoch: int, start: int = 0) -> None:
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return max(-(-self.length // self.world) - self.start, 0)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.length)
        if self.shuffle:
            order = item_rng(self.seed, "order", self.epoch).permutation(self.length)
        # Repeat items so that every rank takes the same number of steps.
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
    workers = min(8, cpu_count() // 2) if cfg.num_workers == "auto" else int(cfg.num_workers)
    if workers and not (_files_suffice(workers) and _memory_suffices(dataset, batch, workers)):
        workers = 0
    # The loader draws a base seed at each start. With a separate generator, a resume within an
    # epoch does not change the state of the global one.
    generator = torch.Generator().manual_seed(cfg.seed)
    return _Loader(
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


class _Loader(DataLoader):
    """Starts its processes with the signals of :func:`_stop_signals` held back.

    Until a process has set its own handlers, PyTorch's handler would end it at the first signal.
    """

    def __iter__(self) -> Iterator[Any]:
        if not hasattr(signal, "pthread_sigmask"):  # Windows
            return super().__iter__()
        if multiprocessing.get_start_method() != "fork":
            resource_tracker.ensure_running()  # its start would admit signals again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _stop_signals())
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stop_signals() -> list[int]:
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def _files_suffice(workers: int) -> bool:
    """Whether the loader processes may open enough files; each tensor in transit is one.

    With too few, a loader waits for ever.
    """
    # Per loader two batches of up to 20 tensors, and pipes; the rest for libraries, logs and data.
    needed, limit = 128 + 64 * workers, file_limit()
    if limit is None or limit >= needed:
        return True
    log.warning(
        "This process may open %d files, and %d loader processes need %d: items are loaded in the "
        "main process. Raise the limit with 'ulimit -n %d'.", limit, workers, needed, needed,
    )  # fmt: skip
    return False


def _memory_suffices(dataset: TalkingFaceDataset, batch: int, workers: int) -> bool:
    """Whether the batches of the loader processes fit into /dev/shm, which Docker limits to 64 MB.

    Without enough of it a loader process is killed ("Bus error").
    """
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:  # other systems share memory in other ways
        return True
    if free > 2**30:
        return True
    item = sum(np.asarray(value).nbytes for value in dataset[0].values())
    needed = 2 * workers * batch * item  # each loader process holds two batches
    if needed < 0.8 * free:
        return True
    log.warning(
        "/dev/shm has %.0f MB, and %d loader processes need about %.0f MB: items are loaded in the "
        "main process. In Docker, start the container with --shm-size=2g.",
        free / 1e6,
        workers,
        needed / 1e6,
    )
    return False


def _start_worker(_: int) -> None:
    """Set up a loader process: one thread, and no exit at the first signal.

    Ctrl-C and many job systems signal the whole process group. The trainer then finishes its step
    and saves, for which it needs its loader. As in the trainer, a second signal ends the process;
    so does the end of the trainer, which PyTorch watches.
    """
    signal_times: list[float] = []

    def wait_for_the_trainer(number: int, _frame: object) -> None:
        if not signal_times:
            signal_times.append(time.monotonic())
        elif time.monotonic() - signal_times[0] > SIGNAL_ECHO_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in _stop_signals():
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has set it
            signal.signal(number, wait_for_the_trainer)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _stop_signals())
    torch.set_num_threads(1)
    import_cv2().setNumThreads(0)
