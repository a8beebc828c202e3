"""``--evaluate_videos``: score finished videos, made by whatever tool, against the real ones."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from talkingface.config.config import Config, load_config
from talkingface.errors import ConfigError, StageError
from talkingface.evaluator.base_metric import require_weights
from talkingface.evaluator.clip import ClipPair
from talkingface.evaluator.evaluator import Evaluator, Row, RowResult, aggregate
from talkingface.evaluator.pairing import find_videos, pair_videos, split_list
from talkingface.evaluator.report import console_table, reasons_text, write_metrics
from talkingface.registry import get_registry
from talkingface.utils.logs import setup_logging
from talkingface.utils.paths import resolve, shown

log = logging.getLogger(__name__)

STANDARD = ("LMD", "LMD_v", "MA", "LSE", "NIQE", "PSNR", "SSIM")
REAL = "real video"


def score_videos(
    options: Mapping[str, str], config: Mapping[str, Any], config_files: Sequence[str] = ()
) -> int:
    """Run the action; returns the exit status.

    Options: ``evaluate_videos`` (folders or files, comma-separated: one row each), ``reference``
    (folder or file with the real videos), ``output`` (folder of the tables). Keys: ``metrics``,
    ``metric_params``, ``baselines`` (with ``real`` the references are a row of their own).

    Raises:
        ConfigError: an option is missing or names nothing.
        StageError: no video has a partner.
    """
    config = dict(config)
    named = "metrics" in config
    known = get_registry(config.get("plugin_path")).entries("metric")
    config.setdefault("metrics", [name for name in STANDARD if name in known])
    cfg = load_config("SyncNet", "Synthetic", config_files=config_files, cli=config)
    setup_logging(cfg.log_level)
    if not options.get("reference"):
        raise ConfigError("--evaluate_videos needs --reference=<folder with the real videos>")
    reference = find_videos("reference", options["reference"])
    rows: dict[str, dict[str, Path]] = {}
    pairs: dict[str, dict[str, tuple[Path, Path]]] = {}
    for part in split_list(options["evaluate_videos"]):
        path = Path(part).expanduser()
        title = path.stem if path.is_file() else path.resolve().name
        while title in rows:
            title += "'"
        made = rows[title] = find_videos("evaluate_videos", part)
        if path.is_file() and Path(options["reference"]).expanduser().is_file():
            ((name, real),) = reference.items()  # two files belong together by themselves
            pairs[title] = {name: (path, real)}
        else:
            pairs[title] = pair_videos(title, made, reference)
    if not any(pairs.values()):
        raise StageError(
            "No video has a partner of the same name in the reference folder: "
            f"{', '.join(sorted(next(iter(rows.values())))[:3])} against "
            f"{', '.join(sorted(reference)[:3])}"
        )
    if "real" in cfg.baselines:
        used = {name for found in pairs.values() for name in found}
        pairs[REAL] = {name: (reference[name], reference[name]) for name in sorted(used)}
    folder = resolve(options.get("output") or Path(cfg.results_dir) / "videos" / _stamp())
    evaluator = Evaluator(cfg)
    if named:
        require_weights(evaluator.metrics)
    results = evaluator.run(
        [
            Row(title, {name: partial(_pair, name, *files) for name, files in found.items()})
            for title, found in pairs.items()
        ],
        desc="scoring",
    )
    alone = {
        title: {
            "no_reference": sorted(
                set(rows[title].values()) - {made for made, _ in found.values()}
            ),
            "no_video": sorted(set(reference) - set(found)),
        }
        for title, found in pairs.items()
        if title in rows
    }
    _write(evaluator, cfg, results, folder, alone)
    return 0


def _stamp() -> str:
    return time.strftime("%Y%m%d-%H%M%S")


def _pair(name: str, made: Path, real: Path) -> ClipPair:
    return ClipPair(name, made, real, cache_generated=True)


def _write(
    evaluator: Evaluator,
    cfg: Config,
    rows: list[RowResult],
    folder: Path,
    alone: Mapping[str, Mapping[str, list]],
) -> None:
    table = aggregate(rows, evaluator.outputs)
    clips = sorted({clip for row in rows for clip in row.values})
    unpaired = {
        title: {what: [str(item) for item in items] for what, items in groups.items()}
        for title, groups in alone.items()
    }
    header = {
        "clips": clips,
        "definitions": evaluator.definitions(),
        "not_applicable": evaluator.not_applicable,
        "unpaired": unpaired,
    }
    write_metrics(folder, rows, table, evaluator.outputs, header)
    text = console_table(table, evaluator.outputs, cfg.metric_decimal_place)
    log.info("\nMean over the clips that all rows have:\n%s", text)
    for line in reasons_text(rows):
        log.info("  note: %s", line)
    log.info("tables: %s", shown(folder))
