"""Write the lock files from the ranges of pyproject.toml, or tell what a fresh resolution takes.

    python tools/lock.py            # writes requirements.txt and tests/requirements.txt
    python tools/lock.py --check    # prints what differs from them; always exit status 0

Needs ``uv`` (in tests/requirements.txt). The files hold every package with its exact version for
Python 3.10 to 3.14 on Linux, macOS and Windows, and no address of an index.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
# File -> arguments of the resolver beside those of COMMON.
FILES = {
    "requirements.txt": [],
    "tests/requirements.txt": ["--extra=test", "--constraint=requirements.txt"],
}
COMMON = [
    *("uv", "pip", "compile", "pyproject.toml", "--universal", "--python-version=3.10"),
    *("--fork-strategy=requires-python", "--no-emit-index-url", "--no-header", "--quiet"),
    "--no-annotate",
]
HEADER = """\
# Exact versions of {what}; made from the ranges of pyproject.toml by
#     python tools/lock.py
"""
WHAT = {
    "requirements.txt": "the toolkit's packages",
    "tests/requirements.txt": "the packages of the toolkit and of its tests",
}


def resolve(name: str, *more: str) -> str:
    """The resolver's text for one file.

    Raises:
        SystemExit: uv is missing, or nothing fits the ranges.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "lock.txt"
        command = [*COMMON, *FILES[name], *more, f"--output-file={target}"]
        try:
            done = subprocess.run(command, cwd=TOP, capture_output=True, text=True)
        except FileNotFoundError:
            sys.exit("uv is missing: pip install -r tests/requirements.txt")
        if done.returncode:
            sys.exit(done.stderr)
        return target.read_text("utf-8")


def pins(text: str) -> dict[str, set[str]]:
    """Package -> its locked versions (several where they depend on the Python version)."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        match = re.match(r"([A-Za-z0-9._-]+)==([^ ;]+)", line)
        if match:
            found.setdefault(match[1].lower(), set()).add(match[2])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only print what differs")
    if not parser.parse_args().check:
        for name in FILES:
            text = HEADER.format(what=WHAT[name]) + resolve(name)
            (TOP / name).write_text(text, "utf-8")
            print(f"{name}: {len(pins(text))} packages")
        return
    locked = pins((TOP / "requirements.txt").read_text("utf-8"))
    fresh = pins(resolve("requirements.txt"))
    changes = [
        f"  {name}: {', '.join(sorted(locked.get(name, {'none'})))} -> "
        f"{', '.join(sorted(fresh.get(name, {'none'})))}"
        for name in sorted({*locked, *fresh})
        if locked.get(name) != fresh.get(name)
    ]
    if changes:
        print("warning: a fresh resolution of pyproject.toml takes other versions than the lock:")
        print("\n".join(changes))
        print("Try them with tools/try_bounds.py, then run tools/lock.py.")
    else:
        print("a fresh resolution of pyproject.toml takes the locked versions")


if __name__ == "__main__":
    main()
