"""The functions of ``import talkingface``; each imports heavy packages only when it is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkingface.config.config import load_config
from talkingface.registry import get_registry

if TYPE_CHECKING:
    from talkingface.evaluator.base_metric import Metric
    from talkingface.model.abstract_talkingface import AbstractTalkingFace
    from talkingface.quick_start.quick_start import RunResult
    from talkingface.utils.weights import LoadReport


def run(
    model: str,
    dataset: str,
    config_files: Iterable[str | Path] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    preset: str | None = None,
    dry_run: bool = False,
) -> RunResult:
    """Preprocess, train and evaluate like the command line; does not read ``sys.argv``.

    Args:
        model, dataset: names as shown by :func:`list_models` and :func:`list_datasets`.
        config_files: YAML files with settings; later ones win.
        overrides: settings; dotted keys are allowed, e.g. ``{"optim.ema_decay": 0.99}``.
        preset: named settings of the model, e.g. ``"tiny"``.
        dry_run: run all stages with one step and one clip only, in a temporary folder.

    Returns:
        ``best_valid_score``, ``valid_metric``, ``test_result``, ``run_dir``, ``checkpoint``.

    Raises:
        TalkingFaceError: a sub-class, for errors that the caller can correct.
    """
    from talkingface.quick_start.quick_start import run_config

    cfg = load_config(
        model, dataset, config_files=config_files or (), overrides=overrides, preset=preset
    )
    return run_config(cfg, dry_run=dry_run)


def infer(
    model: str,
    audio: str | Path | None = None,
    source: str | Path | None = None,
    output: str | Path | None = None,
    *,
    checkpoint: str | Path | None = None,
    driver: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Generate videos, as ``talkingface infer`` does.

    Args:
        model: its newest run is used; without one the weights of the zoo.
        audio: a file, a folder or a ``.txt`` list. source: picture or video of the person, or the
            name of a person for models of one person.
        output: file or folder; default: below ``results``.
        checkpoint: a file, a run id or ``zoo``. driver: a video that drives the face.
        overrides: settings; dotted keys are allowed.

    Returns:
        Paths of the videos.

    Raises:
        TalkingFaceError: a sub-class, for errors that the caller can correct.
    """
    from talkingface.quick_start.infer import generate

    given = {"audio": audio, "source": source, "output": output, "driver": driver}
    options = {k: str(v) for k, v in {**given, "checkpoint": checkpoint}.items() if v is not None}
    return generate(options, {**(overrides or {}), "model": model}, [])


def prepare(
    dataset: str,
    videos: str | Path | Iterable[str | Path],
    *,
    model: str = "HyperLipsBase",
    overrides: Mapping[str, Any] | None = None,
) -> None:
    """Make a dataset from videos of a person, as ``talkingface prepare`` does.

    Args:
        dataset: its new name. videos: a file, a folder, or several.
        model: for which it is prepared. overrides: settings; dotted keys are allowed.

    Raises:
        TalkingFaceError: a sub-class, for errors that the caller can correct.
    """
    from talkingface.quick_start.prepare import prepare_videos

    files = [videos] if isinstance(videos, (str, Path)) else list(videos)
    options = {"videos": ",".join(map(str, files))}
    prepare_videos(options, {**(overrides or {}), "dataset": dataset, "model": model})


def benchmark(
    models: Iterable[str],
    datasets: Iterable[str],
    *,
    output: str | Path | None = None,
    baseline: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Score models and videos on the same clips, as ``talkingface benchmark`` does.

    Args:
        models: names of models, run ids, checkpoints, ``zoo/<entry>`` or folders of videos, each
            optionally as ``Title=...``. datasets: names, or folders of real videos.
        output: folder of the results. baseline: title of the row to test the others against.
        overrides: settings, e.g. ``{"metrics": ["LMD"]}``.

    Returns:
        The folder with ``benchmark.html`` and the tables.

    Raises:
        TalkingFaceError: a sub-class, for errors that the caller can correct.
    """
    from talkingface.comparison.run import compare

    options = {"models": ",".join(models), "datasets": ",".join(datasets)}
    options |= {"output": str(output)} if output else {}
    options |= {"baseline": baseline} if baseline else {}
    return compare(options, overrides or {})


def create_model(
    name: str,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    plugin_path: str | Path | None = None,
) -> AbstractTalkingFace:
    """An untrained model on the CPU, in eval mode.

    Args:
        name: model name; ``preset`` and ``overrides`` choose its size.

    Returns:
        The model class. ``model(...)`` calls its main network with the paper's signature;
        ``model.network`` is that network, with the official state_dict names.
    """
    settings = dict(overrides or {})
    if plugin_path is not None:
        settings["plugin_path"] = str(plugin_path)
    registry = get_registry(settings.get("plugin_path"))
    entry = registry.entry("model", name)
    datasets = [d for d in registry.entries("dataset").values() if registry.supports(entry, d)]
    cfg = load_config(entry.name, datasets[0].name, overrides=settings, preset=preset)
    return registry.resolve(entry, "model")(cfg).eval()


def load_weights(
    model: AbstractTalkingFace,
    path_or_state_dict: str | Path | Mapping[str, Any],
    *,
    network: str | None = None,
    trust: str | None = None,
) -> LoadReport:
    """Load weights by name, strictly.

    Args:
        model: from :func:`create_model`.
        path_or_state_dict: a file of a run or of the original authors, or its content.
        network: name of the network to load them into; default: the main network.
        trust: SHA-256 of a trusted file that contains pickled objects.

    Raises:
        WeightsError: keys missing, unexpected or of another shape; the message groups them.
    """
    from talkingface.model.weights import load_into

    return load_into(model, path_or_state_dict, network=network, trust=trust)


def list_models(plugin_path: str | Path | None = None) -> list[str]:
    """Names of all models."""
    return get_registry(plugin_path).names("model")


def list_datasets(plugin_path: str | Path | None = None) -> list[str]:
    """Names of all datasets."""
    return get_registry(plugin_path).names("dataset")


def list_metrics(plugin_path: str | Path | None = None) -> list[str]:
    """Names of all metrics."""
    return get_registry(plugin_path).names("metric")


def create_metric(name: str, *, plugin_path: str | Path | None = None, **params: Any) -> Metric:
    """A metric by name (any spelling).

    Args:
        params: settings of the metric; the defaults are in ``properties/metric/<name>.yaml``.

    Raises:
        ConfigError: unknown metric or parameter.
    """
    from talkingface.evaluator.base_metric import build_metric

    return build_metric(get_registry(plugin_path), name, params)
