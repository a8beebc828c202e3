"""Executors of a preparation: processes of this machine, or a dask or ray cluster, all by joblib.

Scheduling across machines is left to dask and ray, or to the batch system that starts
``--shard=i/n``. The workers of a cluster need access to the same folders.
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

_TIMEOUT = 20  # seconds to wait for an answer of a cluster


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
    """Apply a function to all items and yield the results in the order of completion.

    Args:
        function: a picklable function.
        workers: processes of the local executor; None: ``process_workers``. 1 uses this process.
        lost: computes the result of an item whose process died twice, e.g. for lack of memory.

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
        # joblib's ray backend returns its results only when all are done. It therefore gets the
        # clips in rounds of eight per worker.
        size = 8 * workers if cfg.executor == "ray" else len(items)
        how = "list" if cfg.executor == "ray" else "generator_unordered"
        with parallel_config(backend=cfg.executor, n_jobs=max(workers, 2)):
            for start in range(0, len(items), size):
                jobs = (work(n, items[n]) for n in range(start, min(start + size, len(items))))
                pool = Parallel(return_as=how, batch_size=1)
                for number, result in _remote_results(pool, jobs, cfg):
                    yield lost(items[number]) if result is None else result


def _remote_results(pool: Any, jobs: Iterator[Any], cfg: Config) -> Iterator[tuple[int, Any]]:
    """Results of :func:`_run_remote`; exceptions among them are raised."""
    try:
        for number, result in pool(jobs):
            if isinstance(result, Exception):
                raise result
            yield number, result
    except (ImportError, AttributeError, RuntimeError) as error:
        raise EnvironmentProblem(
            f"The {cfg.executor} cluster cannot process the clips: {error}. Its workers need the "
            "same version of this package as this machine, with its dependencies."
        ) from error


def _run_local(
    function: Callable[[Any], dict[str, Any]],
    items: Sequence[Any],
    count: int,
    lost: Callable[[Any], dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Apply the function in processes of this machine; a process that dies costs one item only."""
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    open_items = dict(enumerate(items))
    while open_items:
        # Batches would make the progress bar jump.
        pool = Parallel(n_jobs=count, return_as="generator_unordered", batch_size=1)
        try:
            for number, result in pool(
                delayed(_numbered)(function, n, item, count == 1)
                for n, item in list(open_items.items())
            ):
                del open_items[number]
                yield result
        except TerminatedWorkerError:
            log.warning("a worker process died; the clips in progress are tried one by one")
            # Items are started in order, so the items in progress are among the first open ones.
            for number in list(open_items)[: 2 * count]:
                item = open_items.pop(number)
                result = _run_alone(function, item)
                yield lost(item) if result is None else result


_threads = threading.local()  # with the child process of each thread


def _run_alone(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any] | None:
    """Apply the function in a child process; None when it dies twice.

    There are two attempts, because another item may have caused the first death.
    """
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    for _ in range(2):
        if getattr(_threads, "child", None) is None:
            # dask's workers are daemons, and Python allows no child processes of daemons.
            multiprocessing.current_process()._config["daemon"] = False
            _threads.child = ProcessPoolExecutor(max_workers=1, timeout=60)
        try:
            return _threads.child.submit(function, *arguments).result()
        except TerminatedWorkerError:
            _threads.child = None
    return None


def _numbered(
    function: Callable[[Any], Any], number: int, item: Any, alone: bool
) -> tuple[int, Any]:
    if not alone:  # there are as many processes as cores, so OpenCV's threads would only compete
        import_cv2().setNumThreads(1)
    return number, function(item)


def _run_remote(
    root: str, plugins: list[str], function: bytes, number: int, item: Any
) -> tuple[int, Any]:
    """Process one clip on a worker of a cluster, in a child process.

    If the worker itself died, dask would wait forever and ray would end the run. A child that dies
    costs one clip.

    Returns:
        The item's number and its result: a marker, None when the child died twice, or an exception.
    """
    try:
        return number, _run_alone(_in_child, root, plugins, function, item)
    except Exception as error:  # returned, because dask and ray would wrap a raised one
        return number, error


def _in_child(root: str, plugins: list[str], function: bytes, item: Any) -> dict[str, Any]:
    """Apply a pickled function in a process without this run's environment.

    Args:
        root: project folder, from which paths of the configuration start.
        plugins: folders of the user's classes, for ``sys.path``.
    """
    os.environ["TALKINGFACE_ROOT"] = root
    sys.path += [folder for folder in plugins if folder not in sys.path]
    return _numbered(pickle.loads(function), 0, item, False)[1]


def _check_reachable(address: str) -> None:
    """Check that a server listens at ``[scheme://]host:port``; ray itself would retry for minutes.

    Raises:
        OSError: no server answers.
        ValueError: the address is malformed.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("expected host:port")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT).close()


@contextmanager
def _dask_cluster(address: str | None) -> Iterator[int]:
    """Connect to a dask scheduler and yield the number of threads of its workers."""
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
    """Connect to a ray cluster and yield the number of its CPUs."""
    ray = require("ray", why="--executor=ray", extra="ray")
    address = address or os.environ.get("RAY_ADDRESS") or "auto"
    start = not ray.is_initialized()
    if start:
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
        if start:
            ray.shutdown()
