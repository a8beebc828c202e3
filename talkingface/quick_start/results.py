"""Write and log the results of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from talkingface.evaluator.evaluator import aggregate
from talkingface.evaluator.report import (
    append_leaderboard,
    console_table,
    reasons_text,
    write_metrics,
)
from talkingface.evaluator.scores import RowResult
from talkingface.quick_start.run_dir import RunDir
from talkingface.utils.paths import resolve, shown

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)


def publish(
    cfg: Config,
    run: RunDir,
    rows: Sequence[RowResult],
    outputs: Mapping[str, Mapping[str, Any]],
    entries: Mapping[str, Any],
    *,
    leaderboard: bool = True,
) -> dict[str, float]:
    """Write and log the table of a run.

    Args:
        outputs: direction and unit of each output.
        entries: further entries of ``metrics.json``, at least ``clips``.
        leaderboard: also add the rows to ``results/leaderboard.csv``.

    Returns:
        The model's mean of each output.
    """
    table = aggregate(rows, outputs)
    header = {
        "model": cfg.model,
        "dataset": cfg.dataset,
        "run_id": run.id,
        "config_hash": cfg.hash[:12],
        "preset": cfg.preset or "",
    }
    write_metrics(run.results, rows, table, outputs, {**header, "split": "test", **entries})
    if leaderboard:
        append_leaderboard(resolve(cfg.results_dir) / "leaderboard.csv", header, table)
    log.info(
        "\nTest split of %s, mean over %d clips:\n%s",
        cfg.dataset,
        len(entries["clips"]),
        console_table(table, outputs, cfg.metric_decimal_place),
    )
    for line in reasons_text(rows):
        log.info("  note: %s", line)
    for name, reason in entries.get("not_applicable", {}).items():
        log.info("  %s: not applicable: %s", name, reason)
    log.info("results: %s", shown(run.results))
    return {key: values["mean"] for key, values in table[cfg.model].items()}
