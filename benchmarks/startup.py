"""Start-up time of the commands that stop before a run; best, median and worst of several runs."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 7
COMMANDS = (
    ["--help"],
    ["--list"],
    ["--model=HyperLipsBase", "--dataset=Synthetic", "--print_config"],
    ["--explain=learning_rate"],
)


def main() -> None:
    script = Path(__file__).resolve().parents[1] / "run_talkingface.py"
    for command in COMMANDS:
        times = []
        for _ in range(RUNS):
            started = time.perf_counter()
            subprocess.run([sys.executable, str(script), *command], check=True, capture_output=True)
            times.append(time.perf_counter() - started)
        print(
            f"{min(times):6.2f} {statistics.median(times):6.2f} {max(times):6.2f} s  "
            + " ".join(command)
        )


if __name__ == "__main__":
    main()
