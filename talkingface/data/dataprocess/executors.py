"""Where clips are worked on: processes of this machine, or a dask or ray cluster, all by joblib.

Nothing here schedules work across machines: that is the engines' business, or that of the batch
system that starts ``--shard=i/n``. Workers of a cluster must see the same folders.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from talkingface.errors import ConfigError, EnvironmentProblem
from talkingface.utils.env import import_cv2, require
from talkingface.utils.paths import project_root
from talkingface.utils.system import process_workers

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)

_TIMEOUT = 20  # seconds that a cluster has to answer


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

    if cfg.executor == "local":
        count = workers or process_workers(cfg.process_workers, len(items))
        log.info("preparing %d clips with %d process(es)", len(items), count)
        yield from _run_local(function, items, count, lost)
        return
    plugins = [str(folder) for folder in cfg.registry.plugins]
    work = delayed(partial(_run_remote, str(project_root()), plugins, pickle.dumps(function)))
    connect = {"dask": _dask_cluster, "ray": _ray_cluster}[cfg.executor]
    with connect(cfg.executor_address) as workers:
        log.info("preparing %d clips on %s with %d worker(s)", len(items), cfg.executor, workers)
        # joblib's ray backend gives its results only when all are done: it gets the clips in
        # rounds that are long enough to keep every worker busy.
        size = 8 * workers if cfg.executor == "ray" else len(items)
        how = "list" if cfg.executor == "ray" else "generator_unordered"
        with parallel_config(backend=cfg.executor, n_jobs=max(workers, 2)):
            for start in range(0, len(items), size):
                jobs = (work(n, items[n]) for n in range(start, min(start + size, len(items))))
                for number, result in _answers(Parallel(return_as=how, batch_size=1), jobs, cfg):
                    yield lost(items[number]) if result is None else result


def _answers(pool: Any, jobs: Iterator[Any], cfg: Config) -> Iterator[tuple[int, Any]]:
    """What :func:`_run_remote` gave; its errors are raised here."""
    try:
        for number, result in pool(jobs):
            if isinstance(result, Exception):
                raise result
            yield number, result
    except (ImportError, AttributeError, RuntimeError) as error:
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
                result = _alone(function, item)
                yield lost(item) if result is None else result


def _alone(function: Callable[[Any], dict[str, Any]], item: Any) -> dict[str, Any] | None:
    """One item in a process of its own; None when it dies twice.

    Twice, because an item may be here for the first time, and once may be bad luck.
    """
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    for _ in range(2):
        try:
            with ProcessPoolExecutor(max_workers=1) as child:
                return child.submit(function, item).result()
        except TerminatedWorkerError:
            continue
    return None


def _numbered(
    function: Callable[[Any], Any], number: int, item: Any, alone: bool
) -> tuple[int, Any]:
    if not alone:  # as many processes as cores: OpenCV's threads would only get in the way
        import_cv2().setNumThreads(1)
    return number, function(item)


_kept = threading.local()  # the child process of each thread of a cluster's worker


def _run_remote(
    root: str, plugins: list[str], function: bytes, number: int, item: Any
) -> tuple[int, Any]:
    """One clip on a worker of a cluster, in a child process of its own.

    An engine whose worker dies waits for ever (dask) or ends the run (ray); a dead child costs one
    clip.

    Returns:
        The item's number and its result: None when its process died twice, an exception otherwise.
    """
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    for _ in range(2):
        if getattr(_kept, "child", None) is None:
            # Workers of dask are daemons, which Python forbids to have children.
            multiprocessing.current_process()._config["daemon"] = False
            _kept.child = ProcessPoolExecutor(max_workers=1, timeout=60)
        try:
            return number, _kept.child.submit(_in_child, root, plugins, function, item).result()
        except TerminatedWorkerError:
            _kept.child = None
        except Exception as error:  # as a value: the engines would wrap it
            return number, error
    return number, None


def _in_child(root: str, plugins: list[str], function: bytes, item: Any) -> dict[str, Any]:
    """Apply a pickled function in a process that may know nothing of this project.

    Args:
        root: project folder, from which paths of the configuration start.
        plugins: folders of the user's own classes.
    """
    os.environ["TALKINGFACE_ROOT"] = root
    sys.path += [folder for folder in plugins if folder not in sys.path]
    return _numbered(pickle.loads(function), 0, item, False)[1]


def _check_reachable(address: str) -> None:
    """Find out at once whether somebody listens at ``[scheme://]host:port``; ray tries for minutes.

    Raises:
        OSError, ValueError: no scheduler answers, or the address is malformed.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("expected host:port")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT).close()


@contextmanager
def _dask_cluster(address: str | None) -> Iterator[int]:
    """Connect to a dask scheduler; gives the number of threads of its workers."""
    distributed = require("distributed", why="--executor=dask", extra="dask")
    address = address or os.environ.get("DASK_SCHEDULER_ADDRESS")
    if not address:
        raise ConfigError(
            "--executor=dask needs a running cluster: --executor_address=tcp://host:8786 "
            "(start one with 'dask scheduler' and 'dask worker')"
        )
    try:
        _check_reachable(address)
        client = distributed.Client(address, timeout=_TIMEOUT, set_as_default=True)
    except (OSError, ValueError, distributed.TimeoutError) as error:
        raise EnvironmentProblem(f"No dask cluster answers at {address}: {error}") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_TIMEOUT)
        except distributed.TimeoutError as error:
            raise EnvironmentProblem(f"The dask cluster at {address} has no worker.") from error
        yield sum(client.nthreads().values())


@contextmanager
def _ray_cluster(address: str | None) -> Iterator[int]:
    """Connect to a ray cluster; gives the number of its CPUs."""
    ray = require("ray", why="--executor=ray", extra="ray")
    address = address or os.environ.get("RAY_ADDRESS") or "auto"
    own = not ray.is_initialized()
    if own:
        try:
            if address not in ("auto", "local"):
                _check_reachable(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            raise EnvironmentProblem(
                f"No ray cluster answers at '{address}': {error}. Start one with 'ray start "
                "--head', or give --executor_address."
            ) from error
    from ray.util.joblib import register_ray

    register_ray()
    try:
        yield int(ray.cluster_resources().get("CPU", 1))
    finally:
        if own:
            ray.shutdown()
