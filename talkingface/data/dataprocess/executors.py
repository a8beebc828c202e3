"""Where clips are worked on: processes of this machine, or those of a dask or ray cluster.

Nothing here schedules work across machines: that is the engines' business, or that of the batch
system that starts ``--shard=i/n``. Workers of a cluster must see the same folders.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from talkingface.errors import ConfigError, EnvironmentProblem
from talkingface.utils.env import import_cv2, require
from talkingface.utils.paths import project_root
from talkingface.utils.system import process_workers

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)

_TIMEOUT = 20  # seconds that a cluster has to answer
_AHEAD = 4  # clips handed out per worker of a cluster, so that none waits for the next


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
    if cfg.executor == "local":
        count = workers or process_workers(cfg.process_workers, len(items))
        log.info("preparing %d clips with %d process(es)", len(items), count)
        yield from _run_local(function, items, count, lost)
        return
    # The engines' own interfaces, not joblib's backends for them: those wait for ever (dask) or
    # stop the run (ray) when a clip kills its worker.
    engine = {"dask": _run_dask, "ray": _run_ray}[cfg.executor]
    plugins = [str(folder) for folder in cfg.registry.plugins]
    work = partial(_work_far, str(project_root()), plugins, pickle.dumps(function))
    try:
        yield from engine(work, items, cfg.executor_address, lost)
    except (ImportError, RuntimeError) as error:
        raise EnvironmentProblem(
            f"The {cfg.executor} cluster cannot work on the clips: {error}. Its workers need this "
            "package, in the version that is used here, and what it needs."
        ) from error


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


def _work_far(root: str, plugins: list[str], function: bytes, item: Any) -> dict[str, Any]:
    """Apply a pickled function in a worker of a cluster, which may know nothing of this project.

    Args:
        root: project folder, from which paths of the configuration start.
        plugins: folders of the user's own classes.
    """
    os.environ["TALKINGFACE_ROOT"] = root
    sys.path += [folder for folder in plugins if folder not in sys.path]
    return _numbered(pickle.loads(function), 0, item, False)[1]


def _handed_out(
    items: Sequence[Any],
    limit: int,
    submit: Callable[[Any], Hashable],
    wait: Callable[[list], list],
) -> Iterator[tuple[Any, Any]]:
    """Keep at most ``limit`` items in work; yields each with what ``submit`` gave, once done."""
    waiting, working = iter(items), {}
    while True:
        for item in islice(waiting, limit - len(working)):
            working[submit(item)] = item
        if not working:
            return
        for future in wait(list(working)):
            yield working.pop(future), future


def _knock(address: str) -> None:
    """Find out at once whether somebody listens at ``[scheme://]host:port``; ray tries for minutes.

    Raises:
        OSError, ValueError: nobody does, or it is no such address.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("expected host:port")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT).close()


def _run_dask(
    work: Callable[[Any], dict[str, Any]],
    items: Sequence[Any],
    address: str | None,
    lost: Callable[[Any], dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    distributed = require("distributed", why="--executor=dask", extra="dask")
    address = address or os.environ.get("DASK_SCHEDULER_ADDRESS")
    if not address:
        raise ConfigError(
            "--executor=dask needs a running cluster: --executor_address=tcp://host:8786 "
            "(start one with 'dask scheduler' and 'dask worker')"
        )
    try:
        _knock(address)
        client = distributed.Client(address, timeout=_TIMEOUT, set_as_default=True)
    except (OSError, ValueError, distributed.TimeoutError) as error:
        raise EnvironmentProblem(f"No dask cluster answers at {address}: {error}") from error
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise EnvironmentProblem(f"The dask cluster at {address} has no worker.")
        log.info("preparing %d clips on dask with %d worker(s)", len(items), threads)

        def submit(item: Any) -> Any:
            return client.submit(work, item, pure=False)

        def wait(futures: list) -> list:
            return list(distributed.wait(futures, return_when="FIRST_COMPLETED").done)

        for item, future in _handed_out(items, _AHEAD * threads, submit, wait):
            try:
                result = future.result()
            except distributed.KilledWorker:
                result = lost(item)
            yield result


def _run_ray(
    work: Callable[[Any], dict[str, Any]],
    items: Sequence[Any],
    address: str | None,
    lost: Callable[[Any], dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    ray = require("ray", why="--executor=ray", extra="ray")
    address = address or os.environ.get("RAY_ADDRESS") or "auto"
    own = not ray.is_initialized()
    if own:
        try:
            if address not in ("auto", "local"):
                _knock(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            raise EnvironmentProblem(
                f"No ray cluster answers at '{address}': {error}. Start one with 'ray start "
                "--head', or give --executor_address."
            ) from error
    try:
        cpus = int(ray.cluster_resources().get("CPU", 1))
        log.info("preparing %d clips on ray with %d worker(s)", len(items), cpus)

        @ray.remote(max_retries=1)
        def task(item: Any) -> dict[str, Any]:
            return work(item)

        def wait(futures: list) -> list:
            return ray.wait(futures)[0]

        died = (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.OutOfMemoryError,
            ray.exceptions.NodeDiedError,
        )
        for item, future in _handed_out(items, _AHEAD * cpus, task.remote, wait):
            try:
                result = ray.get(future)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None  # as it was raised, without ray's traceback
            except died:
                result = lost(item)
            yield result
    finally:
        if own:
            ray.shutdown()
