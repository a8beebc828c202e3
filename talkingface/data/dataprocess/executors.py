"""Where clips are worked on: processes of this machine, or a ray or dask cluster, all by joblib.

Nothing here schedules work across machines: that is the engines' business, or that of the batch
system that starts ``--shard=i/n``. Workers of a cluster must see the same folders.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from talkingface.errors import ConfigError, EnvironmentProblem
from talkingface.utils.env import import_cv2, require
from talkingface.utils.system import process_workers

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)


def parse_shard(shard: str | None) -> tuple[int, int]:
    """``"2/5"`` to (2, 5); None to (1, 1)."""
    number, count = (int(part) for part in (shard or "1/1").split("/"))
    return number, count


def run_jobs(
    function: Callable[[Any], dict[str, Any]],
    items: Sequence[Any],
    cfg: Config,
    workers: int | None = None,
    *,
    lost: Callable[[Any], dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Apply a function to all items and yield the results as they come, in any order.

    Args:
        function: must be picklable, with all that it needs.
        workers: processes of the local executor; None: ``process_workers``. One works in this
            process.
        lost: gives the result of an item whose process died twice, e.g. for lack of memory.

    Raises:
        EnvironmentProblem: no cluster answers, or the engine is not installed.
    """
    from joblib import Parallel, delayed, parallel_config

    with ExitStack() as stack:
        if cfg.executor == "local":
            count = workers or process_workers(cfg.process_workers, len(items))
            log.info("preparing %d clips with %d process(es)", len(items), count)
            yield from _run_local(function, items, count, lost)
            return
        connect = {"dask": _connect_dask, "ray": _connect_ray}[cfg.executor]
        capacity = connect(cfg.executor_address, stack)
        log.info("preparing %d clips on %s with %d worker(s)", len(items), cfg.executor, capacity)
        stack.enter_context(parallel_config(backend=cfg.executor, n_jobs=max(capacity, 2)))
        if cfg.executor == "dask":
            pool = Parallel(return_as="generator_unordered", batch_size=1)
            yield from pool(delayed(function)(item) for item in items)
            return
        # joblib's ray backend gives its results only when all are done: hand it the clips in
        # rounds that are long enough to keep every worker busy.
        size = 8 * capacity
        for start in range(0, len(items), size):
            part = items[start : start + size]
            yield from Parallel(batch_size=1)(delayed(function)(item) for item in part)


def _run_local(
    function: Callable[[Any], dict[str, Any]],
    items: Sequence[Any],
    count: int,
    lost: Callable[[Any], dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Processes of this machine. A death among them costs no more than the item it died of."""
    from joblib import Parallel, delayed
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    open_items = dict(enumerate(items))
    while open_items:
        # Results are small; batches would only make the display jump.
        pool = Parallel(n_jobs=count, return_as="generator_unordered", batch_size=1)
        try:
            for number, result in pool(
                delayed(_numbered)(function, n, item, count == 1)
                for n, item in list(open_items.items())
            ):
                del open_items[number]
                yield result
        except TerminatedWorkerError:
            log.warning("a worker process died; the clips in work are tried one by one")
            # Work is handed out in order: what was being done is among the first still open.
            for number in list(open_items)[: 2 * count]:
                item = open_items.pop(number)
                try:
                    with ProcessPoolExecutor(max_workers=1) as alone:
                        result = alone.submit(function, item).result()
                except TerminatedWorkerError:
                    result = lost(item)
                yield result


def _numbered(
    function: Callable[[Any], Any], number: int, item: Any, alone: bool
) -> tuple[int, Any]:
    if not alone:  # as many processes as cores: OpenCV's threads would only get in the way
        import_cv2().setNumThreads(1)
    return number, function(item)


def _connect_dask(address: str | None, stack: ExitStack) -> int:
    """Use the cluster at an address; returns its number of threads."""
    distributed = require("distributed", why="--executor=dask", extra="dask")
    address = address or os.environ.get("DASK_SCHEDULER_ADDRESS")
    if not address:
        raise ConfigError(
            "--executor=dask needs a running cluster: --executor_address=tcp://host:8786 "
            "(start one with 'dask scheduler' and 'dask worker')"
        )
    try:
        client = stack.enter_context(distributed.Client(address, timeout=20, set_as_default=True))
    except (OSError, TimeoutError) as error:
        raise EnvironmentProblem(f"No dask cluster answers at {address}: {error}") from error
    threads = sum(client.nthreads().values())
    if not threads:
        raise EnvironmentProblem(f"The dask cluster at {address} has no worker.")
    return threads


def _connect_ray(address: str | None, stack: ExitStack) -> int:
    """Use the cluster at an address; returns its number of CPUs."""
    ray = require("ray", why="--executor=ray", extra="ray")
    address = address or os.environ.get("RAY_ADDRESS") or "auto"
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise EnvironmentProblem(
                f"No ray cluster answers at '{address}': {error}. Start one with 'ray start "
                "--head', or give --executor_address."
            ) from error
        stack.callback(ray.shutdown)
    from ray.util.joblib import register_ray

    register_ray()
    return int(ray.cluster_resources().get("CPU", 1))
