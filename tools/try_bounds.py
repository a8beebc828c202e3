"""Install one end of the ranges of pyproject.toml into a new environment and run tests there.

    python tools/try_bounds.py lowest                   # the lowest version of every range
    python tools/try_bounds.py highest --python=3.13    # the highest, with another Python
    python tools/try_bounds.py lock                     # requirements.txt
    python tools/try_bounds.py lock --change=av==19.0.2 # the lock with one other version
    python tools/try_bounds.py lock --without=mediapipe,av   # packages removed afterwards

Prints the versions and pytest's summary; the exit status is that of pytest. Needs ``uv`` and about
6 GB of disk below --folder, which is removed at the end unless --keep is given.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib

TOP = Path(__file__).resolve().parents[1]
TESTS = "tests/unit tests/smoke tests/data/test_hard_cases_media.py tests/data/test_synthetic.py"


def run(*words: str, cwd: Path = TOP, quiet: bool = True) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=quiet, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout or ''}{done.stderr or ''}")
    return done.stdout or ""


def direct_packages() -> list[str]:
    project = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))["project"]
    words = [text.split(";")[0] for text in project["dependencies"]]
    return [word.split(">")[0].split("=")[0].split("<")[0].split("!")[0].strip() for word in words]


def install(kind: str, python: str, change: str | None, without: str | None) -> None:
    """Install into the environment of the interpreter ``python``."""
    pip = ("uv", "pip", "install", "--quiet", f"--python={python}")
    if kind == "lock":
        run(*pip, "-r", "requirements.txt", "-r", "tests/requirements.txt")
        if change:
            run(*pip, *change.split(","))
    else:
        resolution = "lowest-direct" if kind == "lowest" else "highest"
        run(*pip, f"--resolution={resolution}", "-r", "pyproject.toml", "--extra=test")
    if without:
        run("uv", "pip", "uninstall", "--quiet", f"--python={python}", *without.split(","))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("lowest", "highest", "lock"))
    parser.add_argument("--python", default=f"{sys.version_info[0]}.{sys.version_info[1]}")
    parser.add_argument("--change", help="NAME==VERSION[,...], on top of the lock")
    parser.add_argument("--without", help="packages to remove afterwards")
    parser.add_argument("--tests", default=TESTS, help="arguments of pytest")
    parser.add_argument("--folder", help="where the environment is made")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bounds-", dir=args.folder))
    try:
        run("uv", "venv", "--quiet", f"--python={args.python}", str(folder / "venv"))
        python = str(folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python")
        install(args.kind, python, args.change, args.without)
        listed = run("uv", "pip", "freeze", f"--python={python}").splitlines()
        wanted = {name.lower().replace("_", "-") for name in direct_packages()}
        versions = [line for line in listed if line.split("==")[0].lower() in wanted]
        print(args.kind, run(python, "--version").strip(), *versions, sep="\n  ", flush=True)
        env = {**os.environ, "TALKINGFACE_VERSIONS": "any"}
        command = [python, "-m", "pytest", "-q", *args.tests.split()]
        sys.exit(subprocess.run(command, cwd=TOP, env=env).returncode)
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
