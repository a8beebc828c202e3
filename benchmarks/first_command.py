"""Run the README's first command in an empty folder and put its table and time into the README.

    python benchmarks/first_command.py            # prints them
    python benchmarks/first_command.py --write    # also writes README.md, between its markers

Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
MARKERS = ("<!-- first-command:begin -->", "<!-- first-command:end -->")
ARGUMENTS = ["--model=HyperLipsBase", "--dataset=Synthetic", "--preset=tiny"]


def table_of(output: str) -> list[str]:
    """The lines of the console table in the output of a run, header first."""
    lines = output.splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("Test split of "))
    rows = []
    for line in lines[start + 1 :]:
        if not re.search(r"\s(\d+|clips)$", line):
            break
        rows.append(line)
    return rows


def block(rows: list[str], seconds: float) -> str:
    """The README's lines between the markers."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = [
        MARKERS[0],
        f"After the installation this took {seconds:.0f} s on {cores} CPU cores (Python "
        f"{'.'.join(platform.python_version_tuple()[:2])}) and printed, besides its progress:",
        "",
        *(f"    {row}" for row in rows),
        MARKERS[1],
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="change README.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, str(TOP / "run_talkingface.py"), *ARGUMENTS],
            env={**os.environ, "TALKINGFACE_ROOT": folder},
            stdout=subprocess.PIPE,
            text=True,
        )
        seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"the command failed with status {done.returncode}")
    text = block(table_of(done.stdout), seconds)
    print(text)
    if args.write:
        readme = TOP / "README.md"
        content = readme.read_text("utf-8")
        before, rest = content.split(MARKERS[0])
        readme.write_text(before + text + rest.split(MARKERS[1])[1], "utf-8")


if __name__ == "__main__":
    main()
