"""``--dry_run``: every stage once, in a temporary folder."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from talkingface.components.store import ComponentStore
from talkingface.config.config import Config, load_config
from talkingface.quick_start.quick_start import RunResult, run_stages
from talkingface.utils.logs import close_run_files

log = logging.getLogger(__name__)


def _components(cfg: Config, scratch: Path) -> dict[str, Any]:
    """Settings for required components: their files, or a temporary folder for prepared data."""
    result = {}
    store = ComponentStore(cfg)
    for name, spec in store.specs.items():
        if spec.required and spec.weights == "auto":
            path = store.find(name)
            if path is None:  # data prepared with a component trained for one step must not stay
                return {"preprocessed_root": str(scratch / "preprocessed_data")}
            result[f"weights.{name}"] = str(path)
    return result


def dry_run(cfg: Config) -> RunResult:
    """Run all stages with one step, one validation batch, one test clip and one metric."""
    scratch = Path(tempfile.mkdtemp(prefix="talkingface-dry-run-"))
    folders = ("checkpoint_dir", "results_dir", "log_dir", "tensorboard_dir")
    settings = {
        **cfg.to_dict(),
        **{key: str(scratch / key) for key in folders},
        **_components(cfg, scratch),
        "max_steps": 1,
        "epochs": 1,
        "eval_clips": 1,
        "n_preview": 1,
        "baselines": ["real"],
        "saved": True,
        "resume": False,
        "valid_batches": 1,
        # One metric is enough, unless valid_metric is an output of a metric.
        "metrics": cfg.metrics[: 1 if cfg.valid_metric.split("/")[0] == "loss" else None],
        "stages": ["preprocess", "train", "evaluate"],
    }
    try:
        small = load_config(cfg.model, cfg.dataset, overrides=settings)
        result, _ = run_stages(small, ())
        close_run_files()  # their files are in the scratch folder
        log.info("dry run: all stages work; the temporary folder is removed")
        return RunResult(
            result.run_dir, None, result.best_valid_score, test_result=result.test_result
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
