"""What the checksums of prepared files cost: loading the items of a training with and without them.

    python benchmarks/checksum_cost.py [--model=HyperLipsBase] [--dataset=Synthetic] [--preset=tiny]

The data must be prepared. Loading is a part of the training, so the share of a whole training is
smaller. Pairs of passes in turn; the median of the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from talkingface.config.config import load_config
from talkingface.data.dataprocess.prepared import PreparedClips

PAIRS, ITEMS = 15, 48


@contextmanager
def without_checks(dataset_module: str):
    with mock.patch(f"{dataset_module}.require_intact", lambda *_: None):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="HyperLipsBase")
    parser.add_argument("--dataset", default="Synthetic")
    parser.add_argument("--preset", default="tiny")
    given = parser.parse_args()
    cfg = load_config(given.model, given.dataset, overrides={"preset": given.preset})
    entry = cfg.registry.entry("model", given.model)
    dataset = cfg.registry.resolve(entry, "dataset")(cfg, "train")
    module = type(dataset).__module__

    def seconds(checked: bool) -> float:
        with nullcontext() if checked else without_checks(module):
            began = time.perf_counter()
            for number in range(ITEMS):
                dataset[number % len(dataset)]
            return (time.perf_counter() - began) / ITEMS

    seconds(True)
    pairs = [(seconds(True), seconds(False)) for _ in range(PAIRS)]
    ratio = statistics.median(checked / bare for checked, bare in pairs)
    best = [min(column) for column in zip(*pairs, strict=True)]
    print(
        f"an item {1000 * best[1]:.2f} ms, with checksums {1000 * best[0]:.2f} ms: "
        f"{100 * (ratio - 1):+.1f} % of loading (median of {PAIRS} pairs)"
    )
    process = cfg.registry.resolve(entry, "dataprocess")(cfg)
    prepared: PreparedClips = process.prepared
    names, _ = prepared.usable("train")
    began = time.perf_counter()
    for name in names:
        prepared.damage(name, prepared.read_marker(name))
    print(f"at the start, {1000 * (time.perf_counter() - began) / len(names):.2f} ms per clip")


if __name__ == "__main__":
    main()
