"""Render the clips of Synthetic's preset tiny, which come with the toolkit.

    pip install -e '.[voices]'
    python tools/render_tiny.py

Needed whenever ``VERSION`` in ``talkingface/data/synthetic/source.py`` or the preset changes.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

LIMIT = 4_000_000  # bytes


def main() -> None:
    from talkingface.config.config import load_config
    from talkingface.data.synthetic.people import render_clip
    from talkingface.data.synthetic.source import SHIPPED, SyntheticSource, is_done
    from talkingface.utils.logs import progress

    options = load_config("HyperLipsBase", "Synthetic", preset="tiny").synthetic
    new, old = SHIPPED.with_name("tiny.new"), SHIPPED.with_name("tiny.old")
    plans = SyntheticSource(new, options).plans()
    for plan in progress([p for p in plans if not is_done(new, p)], unit="clip", desc="rendering"):
        render_clip(new, plan)
    size = sum(path.stat().st_size for path in new.rglob("*") if path.is_file())
    if size > LIMIT:
        raise SystemExit(f"{new} has {size:,} bytes; at most {LIMIT:,} may be shipped.")
    if SHIPPED.exists():
        SHIPPED.rename(old)
    new.rename(SHIPPED)
    shutil.rmtree(old, ignore_errors=True)
    print(f"{SHIPPED}: {size:,} bytes")


if __name__ == "__main__":
    main()
