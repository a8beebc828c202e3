"""Clusters of dask and ray: the same bytes, no clip lost, and a message when there is none."""

from __future__ import annotations

import importlib
import logging
import os
import socket
import sys
from pathlib import Path

import pytest
from preparekit import config, count, names_as_clips, prepare, settings, tree

from talkingface.data.dataprocess import executors
from talkingface.data.dataprocess.engine import prepare_clips
from talkingface.errors import ConfigError, EnvironmentProblem

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def clips(tiny_synthetic: Path) -> Path:
    return tiny_synthetic / "dataset" / "Synthetic-tiny" / "data"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, clips) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    prepare(root, clips)
    return root


@pytest.fixture(autouse=True)
def no_address(monkeypatch):
    for name in ("DASK_SCHEDULER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def closed_port() -> str:
    """An address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


# -- no cluster ------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine, module", [("dask", "distributed"), ("ray", "ray")])
def test_a_missing_engine_is_named_with_its_extra(
    tmp_path, run_cli, block_import, engine, module, clips
):
    args = [f"--{key}={value}" for key, value in settings(tmp_path, clips).items()]
    done = run_cli(
        ["--model=HyperLipsBase", "--dataset=MEAD", "--stages=preprocess", *args]
        + [f"--executor={engine}", "--executor_address=127.0.0.1:1"],
        env=block_import(module),
    )
    assert done.returncode == 2
    assert f"--executor={engine} needs the package '{module}'" in done.stderr
    assert f"'.[{engine}]'" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("engine", ["dask", "ray"])
@pytest.mark.parametrize("prefix", ["", "tcp://"])
def test_a_cluster_that_does_not_answer_is_named(tmp_path, closed_port, engine, prefix):
    pytest.importorskip("distributed" if engine == "dask" else "ray")
    clips, address = names_as_clips(tmp_path, "a", "b", "c"), prefix + closed_port
    with pytest.raises(EnvironmentProblem, match=f"No {engine} cluster answers at '?{address}'?:"):
        count(tmp_path, clips, executor=engine, executor_address=address)


@pytest.mark.parametrize("engine", ["dask", "ray"])
@pytest.mark.parametrize("address", ["somewhere", "host:", "host:port", ":8786", "tcp://"])
def test_an_address_without_a_port_is_explained(tmp_path, engine, address):
    pytest.importorskip("distributed" if engine == "dask" else "ray")
    clips = names_as_clips(tmp_path, "a", "b", "c")
    with pytest.raises(EnvironmentProblem, match=f"{address}'?: expected host:port"):
        count(tmp_path, clips, executor=engine, executor_address=address)


def test_dask_without_an_address_says_how_to_get_one(tmp_path):
    pytest.importorskip("distributed")
    clips = names_as_clips(tmp_path, "a", "b", "c")
    with pytest.raises(ConfigError, match="--executor_address=tcp://host:8786"):
        count(tmp_path, clips, executor="dask")


def test_ray_without_a_running_cluster_says_how_to_start_one(tmp_path):
    ray = pytest.importorskip("ray")
    if ray.is_initialized() or Path("/tmp/ray/ray_current_cluster").exists():
        pytest.skip("a ray cluster runs here")
    clips = names_as_clips(tmp_path, "a", "b", "c")
    with pytest.raises(EnvironmentProblem, match="'auto'.*ray start --head"):
        count(tmp_path, clips, executor="ray")


def test_nothing_to_do_needs_no_cluster(tmp_path, closed_port):
    clips = names_as_clips(tmp_path, "a", "b", "c")
    count(tmp_path, clips)
    report = count(tmp_path, clips, executor="dask", executor_address=closed_port)
    assert report.fresh == 0 and len(report.of("ok")) == 3


# -- dask ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dask_cluster(tmp_path_factory):
    """Two processes with one thread each that know nothing of the project folder."""
    distributed = pytest.importorskip("distributed")
    import dask

    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with dask.config.set({"distributed.comm.retry.count": 0}):
        cluster = distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            local_directory=str(elsewhere),
            env={"TALKINGFACE_ROOT": str(elsewhere), "OMP_NUM_THREADS": "1"},
            silence_logs=logging.CRITICAL,
        )
        with cluster:
            yield cluster
    assert not (elsewhere / "dataset").exists()


@pytest.fixture
def dask_keys(dask_cluster) -> dict[str, str]:
    return {"executor": "dask", "executor_address": dask_cluster.scheduler_address}


def test_a_dask_cluster_gives_what_one_process_gives(tmp_path, clips, undisturbed, dask_keys):
    report = prepare(tmp_path, clips, **dask_keys)
    assert report.fresh == len(report.of("ok")) == 4
    assert tree(tmp_path) == tree(undisturbed)


def test_workers_of_dask_write_where_the_caller_would(root, dask_keys):
    """Paths of the configuration start at the caller's project folder, not at the worker's."""
    clips = names_as_clips(root, "a", "b", "skip")
    report = count(Path("dataset/far"), clips, **dask_keys)
    assert report.of("ok") == ["a", "b"]
    assert (root / "dataset/far/preprocessed_data/counting/a/length.txt").read_text() == "1"


def test_the_address_may_come_from_the_environment(tmp_path, dask_keys, monkeypatch):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", dask_keys["executor_address"])
    clips = names_as_clips(tmp_path, "a", "b", "c")
    assert count(tmp_path, clips, executor="dask").fresh == 3


@pytest.fixture
def own_processor(tmp_path, monkeypatch):
    """``own_processor()`` is a processor class of a user's own folder, which is given too."""
    folder = tmp_path / "plugin"
    folder.mkdir()
    code = "from preparekit import Counting\n\n\nclass Mine(Counting):\n    id = 'mine'\n"
    (folder / "mine_for_a_cluster.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "mine_for_a_cluster", raising=False)
    return importlib.import_module("mine_for_a_cluster").Mine, folder


def test_workers_lack_what_no_plugin_path_names(tmp_path, own_processor, dask_keys):
    kind, _ = own_processor
    cfg = config(tmp_path, names_as_clips(tmp_path, "a", "b", "c"), **dask_keys)
    with pytest.raises(EnvironmentProblem, match="dask cluster cannot.*mine_for_a_cluster"):
        prepare_clips(kind(cfg), show_progress=False)


def test_workers_know_the_users_own_classes(tmp_path, own_processor, dask_keys):
    kind, folder = own_processor
    clips = names_as_clips(tmp_path, "a", "b", "c")
    cfg = config(tmp_path, clips, plugin_path=[str(folder)], **dask_keys)
    assert prepare_clips(kind(cfg), show_progress=False).of("ok") == ["a", "b", "c"]


def test_a_clip_that_kills_its_dask_worker_costs_no_other_clip(tmp_path, dask_keys):
    good = [f"good{number:02}" for number in range(10)]
    report = count(tmp_path, names_as_clips(tmp_path, *good, "kill", "once"), **dask_keys)
    assert report.of("failed") == ["kill"]
    assert "process died" in report.markers["kill"]["reason"]
    assert report.of("ok") == [*good, "once"]
    assert not list((tmp_path / "preprocessed_data").rglob(".*.tmp*"))


def test_a_full_disk_of_a_dask_worker_stops_the_run(tmp_path, dask_keys):
    clips = names_as_clips(tmp_path, "a", "disk", "c")
    with pytest.raises(EnvironmentProblem, match="disk or quota full"):
        count(tmp_path, clips, **dask_keys)


def test_a_dask_cluster_without_workers_is_refused(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(executors, "_TIMEOUT", 0.5)
    clips = names_as_clips(tmp_path, "a", "b", "c")
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as cluster:
        with pytest.raises(EnvironmentProblem, match="has no worker"):
            count(tmp_path, clips, executor="dask", executor_address=cluster.scheduler_address)


# -- ray -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory):
    """Two workers that know nothing of the project folder."""
    ray = pytest.importorskip("ray")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        path = [str(TESTS), str(TESTS / "data"), str(TESTS.parent), os.environ.get("PYTHONPATH")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
        patch.setenv("TALKINGFACE_ROOT", str(elsewhere))
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else it writes a token into the home folder
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()
    assert not (elsewhere / "dataset").exists()


@pytest.mark.slow
def test_a_ray_cluster_gives_what_one_process_gives(tmp_path, clips, undisturbed, ray_cluster):
    report = prepare(tmp_path, clips, executor="ray")
    assert report.fresh == len(report.of("ok")) == 4
    assert tree(tmp_path) == tree(undisturbed)
    assert ray_cluster.is_initialized()  # a connection of the caller's stays open


@pytest.mark.slow
def test_workers_of_ray_write_where_the_caller_would(root, ray_cluster):
    clips = names_as_clips(root, "a", "b", "skip")
    report = count(Path("dataset/far"), clips, executor="ray")
    assert report.of("ok") == ["a", "b"]
    assert (root / "dataset/far/preprocessed_data/counting/a/length.txt").read_text() == "1"


@pytest.mark.slow
def test_a_clip_that_kills_its_ray_worker_costs_no_other_clip(tmp_path, ray_cluster):
    good = [f"good{number:02}" for number in range(10)]
    clips = names_as_clips(tmp_path, *good, "kill", "once")
    report = count(tmp_path, clips, executor="ray")
    assert report.of("failed") == ["kill"]
    assert report.of("ok") == [*good, "once"]
    assert not list((tmp_path / "preprocessed_data").rglob(".*.tmp*"))


@pytest.mark.slow
def test_a_full_disk_of_a_ray_worker_stops_the_run_with_the_plain_message(tmp_path, ray_cluster):
    clips = names_as_clips(tmp_path, "a", "disk", "c")
    with pytest.raises(EnvironmentProblem, match="disk or quota full") as caught:
        count(tmp_path, clips, executor="ray")
    assert type(caught.value) is EnvironmentProblem and "ray::" not in str(caught.value)
