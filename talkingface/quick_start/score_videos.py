"""``--evaluate_videos``: score videos of any tool against the real ones."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from talkingface.config.config import load_config
from talkingface.data.media.limits import set_limits
from talkingface.errors import ConfigError, StageError
from talkingface.evaluator.base_metric import require_weights
from talkingface.evaluator.clip import ClipPair
from talkingface.evaluator.evaluator import Evaluator, Row, aggregate
from talkingface.evaluator.pairing import find_videos, pair_videos, split_list
from talkingface.evaluator.report import console_table, reasons_text, write_metrics
from talkingface.registry import get_registry
from talkingface.utils.logs import setup_logging
from talkingface.utils.paths import refuse_to_replace, remove_stale, resolve, shown

log = logging.getLogger(__name__)

STANDARD = ("LMD", "LMD_v", "MA", "LSE", "NIQE", "PSNR", "SSIM")
REAL = "real video"


def score_videos(
    options: Mapping[str, str], config: Mapping[str, Any], config_files: Sequence[str] = ()
) -> int:
    """Run the action; returns the exit status.

    Options: ``evaluate_videos`` (folders or files, comma-separated: one row each), ``reference``
    (folder or file with the real videos), ``output`` (folder of the tables). Keys: ``metrics``,
    ``metric_params``, ``baselines`` (``real`` adds a row of the reference videos).

    Raises:
        ConfigError: an option is missing, or its file or folder does not exist.
        StageError: no video has the name of a reference video.
    """
    config = dict(config)
    chosen = "metrics" in config
    known = get_registry(config.get("plugin_path")).entries("metric")
    config.setdefault("metrics", [name for name in STANDARD if name in known])
    cfg = load_config("SyncNet", "Synthetic", config_files=config_files, cli=config)
    setup_logging(cfg.log_level)
    set_limits(cfg.media)
    if not options.get("reference"):
        raise ConfigError("--evaluate_videos needs --reference=<folder with the real videos>")
    reference = find_videos("reference", options["reference"])
    videos: dict[str, dict[str, Path]] = {}
    pairs: dict[str, dict[str, tuple[Path, Path]]] = {}
    for part in split_list(options["evaluate_videos"]):
        path = Path(part).expanduser()
        title = path.stem if path.is_file() else path.resolve().name
        while title in videos:
            title += "'"
        videos[title] = find_videos("evaluate_videos", part)
        if path.is_file() and Path(options["reference"]).expanduser().is_file():
            ((name, real),) = reference.items()  # two files are a pair whatever their names are
            pairs[title] = {name: (path, real)}
        else:
            pairs[title] = pair_videos(title, videos[title], reference)
    if not any(pairs.values()):
        raise StageError(
            "No video has a partner of the same name in the reference folder: "
            f"{', '.join(sorted(next(iter(videos.values())))[:3])} against "
            f"{', '.join(sorted(reference)[:3])}"
        )
    unpaired = {
        title: {
            "no_reference": [
                str(path)
                for path in sorted(set(videos[title].values()) - {path for path, _ in row.values()})
            ],
            "no_video": sorted(set(reference) - set(row)),
        }
        for title, row in pairs.items()
    }
    if "real" in cfg.baselines:
        used = {name for row in pairs.values() for name in row}
        pairs[REAL] = {name: (reference[name], reference[name]) for name in sorted(used)}
    folder = resolve(
        options.get("output") or Path(cfg.results_dir) / "videos" / time.strftime("%Y%m%d-%H%M%S")
    )
    given = (*split_list(options["evaluate_videos"]), options["reference"])
    refuse_to_replace(folder, [Path(part).expanduser() for part in given])
    remove_stale(folder)
    evaluator = Evaluator(cfg)
    if chosen:
        require_weights(evaluator.metrics)
    pair = partial(ClipPair, cache_generated=True)
    rows = [
        Row(title, {name: partial(pair, name, *files) for name, files in row.items()})
        for title, row in pairs.items()
    ]
    results = evaluator.run(rows, desc="scoring")
    table = aggregate(results, evaluator.outputs)
    header = {
        "clips": sorted({clip for row in results for clip in row.values}),
        "definitions": evaluator.definitions(),
        "not_applicable": evaluator.not_applicable,
        "unpaired": unpaired,
    }
    write_metrics(folder, results, table, evaluator.outputs, header)
    text = console_table(table, evaluator.outputs, cfg.metric_decimal_place)
    log.info("\nMean over the clips that all rows have:\n%s", text)
    for line in reasons_text(results):
        log.info("  note: %s", line)
    log.info("tables: %s", shown(folder))
    return 0
