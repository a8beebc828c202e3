"""MODA's ablations: train each body of the mapping network alike and compare on held-out clips.

    python benchmarks/moda_ablation.py --dataset=Synthetic --steps=700 [any key of MODA ...]

Bodies: dual attention; an LSTM in its place; SpecAttn alone (short); ProbAttn alone (long); neither
(none). The measures are those of the runs' own evaluation: motion at temperature 0, diversity over
five samples at temperature 1. Repeated, finished runs are taken over.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from talkingface.utils.paths import project_root

ROOT = Path(__file__).resolve().parents[1]
BODIES = ("dual", "lstm", "short", "long", "none")
COLUMNS = ("lip_R2", "lip_L1", "opening_r", "head_range", "Div_H", "Div_E", "Div_M")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="Synthetic")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--bodies", default=",".join(BODIES))
    args, keys = parser.parse_known_args()
    table = {}
    for body in args.bodies.split(","):
        command = [
            *(sys.executable, str(ROOT / "run_talkingface.py"), "--model=MODA"),
            *(f"--dataset={args.dataset}", "--preset=cpu", f"--model_params.body={body}"),
            *(f"--max_steps={args.steps}", "--resume=auto", *keys),
        ]
        print("+", " ".join(command[1:]), flush=True)
        lines = []
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(line)
        if process.returncode:
            sys.exit(process.returncode)
        run = next(
            Path(line.split(":", 1)[1].strip()).name for line in lines if "run folder:" in line
        )
        results = project_root() / "results" / "MODA" / args.dataset / run / "metrics.json"
        rows = json.loads(results.read_text("utf-8"))["rows"]
        table[body] = rows["MODA"]
        table.setdefault("shuffled audio (dual)", rows["shuffled audio"])
        table.setdefault("real", rows["real"])
    print(f"\n{'body':<24}" + "".join(f"{name:>12}" for name in COLUMNS))
    for name, row in table.items():
        cells = (row[key]["mean"] if isinstance(row[key], dict) else row[key] for key in COLUMNS)
        print(f"{name:<24}" + "".join(f"{value:12.3f}" for value in cells))


if __name__ == "__main__":
    main()
