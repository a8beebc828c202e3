"""Record what the toolkit does, and compare two records: for changes that must alter nothing.

    python tools/behaviour.py record before.json [--models=A,B] [--folder=DIR]
    python tools/behaviour.py compare before.json after.json

Every model is prepared, trained on one thread and evaluated with its preset tiny, on data that
are made on the spot. A record holds, per model: all settings with their origin, the explanation
of every key, SHA-256 of the trained weights, metrics.json, and hashes of prepared and generated
files; at the end the tables of a small benchmark. Weights and values are equal only on one
machine with the same versions. ``--folder`` keeps the data and runs; runs that are already there
are not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

SMALL = ("--preset=tiny", "--synthetic.persons=2")
# Parts before what joins them: a joined model then uses them instead of training its own.
ORDER = (
    *("SyncNet", "SyncExpert", "FaceFeatures", "HyperLipsBase", "HyperLipsHR", "VideoRewrite"),
    *("APC", "Audio2Feature", "Audio2Headpose", "Feature2Face", "live_speech_portraits"),
    *("MODA", "MODAFaCo", "MODARenderer", "MODAPortrait"),
    *("HeadGAN", "Audio2Exp"),
    *("A2PLip", "A2PFace", "A2PGuideVQ", "A2PGuide", "A2PPose", "A2P"),
)
BENCHMARK = ("HyperLipsBase", "HyperLipsHR", "MODAPortrait")
RUN_ID = re.compile(r"\w+-[\w-]+-\d{8}-\d{6}-[0-9a-f]{6}")
# Entries of records that tell when or where, not what.
PASSING = {"run_id", "seconds", "checkpoint", "created", "when", "time", "config_hash"}


def dataset_of(model: str) -> str:
    return "SyntheticDyad" if model.startswith("A2P") else "Synthetic"


def command_of(model: str) -> list[str]:
    size = SMALL if dataset_of(model) == "Synthetic" else SMALL[:1]
    return [f"--model={model}", f"--dataset={dataset_of(model)}", *size, "--device=cpu"]


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def lasting(value: Any, root: Path) -> Any:
    """The value without paths, run ids and times."""
    if isinstance(value, dict):
        return {
            lasting(key, root): lasting(item, root)
            for key, item in value.items()
            if key not in PASSING
        }
    if isinstance(value, list):
        return [lasting(item, root) for item in value]
    if isinstance(value, str):
        return RUN_ID.sub("<run>", value.replace(str(root), "<root>"))
    return value


def texts(model: str) -> dict[str, Any]:
    """``--print_config``, and ``--explain`` of every key."""
    from talkingface.config.config import iter_fields, load_config
    from talkingface.config.reference import explain_key, print_config

    cfg = load_config(model, dataset_of(model), preset="tiny")
    keys = [name for name, _ in iter_fields(cfg.schema)]
    # Line numbers change with every comment.
    place = re.compile(r"[\w./-]*(properties/[\w./-]+( preset \w+)?):\d+")
    return {
        "print_config": place.sub(r"\1", print_config(cfg)).splitlines(),
        "explain": {key: place.sub(r"\1", explain_key(cfg, key)) for key in keys},
    }


def weights(folder: Path) -> dict[str, Any]:
    """SHA-256 over names, types, shapes and values of ``weights.safetensors``."""
    from safetensors.numpy import load_file

    tensors = load_file(folder / "weights.safetensors")
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    names = "\n".join(f"{n} {tensors[n].dtype} {tensors[n].shape}" for n in sorted(tensors))
    return {"names": sha(names.encode()), "values": digest.hexdigest(), "count": len(tensors)}


def files(folder: Path) -> dict[str, str]:
    """One hash per folder of files; status files by what they say."""
    digests: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name == ".lock" or ".report" in path.parts:
            continue
        content = path.read_bytes()
        if path.parent.match(".status/*") or path.parent.name == ".status":
            status = json.loads(content)
            status.pop("times", None)  # of the last change of the inputs
            content = json.dumps(lasting(status, folder), sort_keys=True).encode()
        elif path.name.startswith("report."):
            continue
        digest = digests.setdefault(str(path.parent.relative_to(folder)), hashlib.sha256())
        digest.update(path.name.encode() + hashlib.sha256(content).digest())
    return {name: digest.hexdigest() for name, digest in digests.items()}


def run(args: list[str], root: Path) -> str:
    env = {**os.environ, "TALKINGFACE_ROOT": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TOP / "run_talkingface.py"), *args]
    done = subprocess.run(command, cwd=TOP, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(args)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def record_model(model: str, root: Path) -> dict[str, Any]:
    """The record of one model; trains it below ``root`` unless that was done."""
    place = Path(model) / dataset_of(model)
    newest = root / "saved" / place / "latest.txt"
    if not newest.exists():
        run(command_of(model), root)
    return {**texts(model), **record_run(root, place / newest.read_text("utf-8").strip())}


def record_run(root: Path, place: Path) -> dict[str, Any]:
    """The record of a finished run: ``place`` is model / dataset / run id."""
    saved, results = root / "saved" / place, root / "results" / place
    metrics = json.loads((results / "metrics.json").read_text("utf-8"))
    record = {"metrics": lasting(metrics, root), "results": files(results)}
    record["results"].pop(".")  # metrics.json and .csv
    if (saved / "weights.safetensors").exists():
        record["weights"] = weights(saved)
    return record


def record_benchmark(root: Path) -> dict[str, str]:
    models = ",".join(BENCHMARK)
    folder = root / "benchmark"
    run(
        ["--benchmark", f"--models={models}", "--datasets=Synthetic", f"--output={folder}", *SMALL],
        root,
    )
    tables = [*sorted(folder.rglob("*.csv")), *sorted(folder.rglob("*.md"))]
    # What was measured in seconds differs from run to run.
    return {
        str(path.relative_to(folder)): sha(
            RUN_ID.sub("<run>", path.read_text("utf-8").replace(str(root), "<root>")).encode()
        )
        for path in tables
        if "cost" not in path.name
    }


def record(output: Path, models: list[str], folder: Path) -> None:
    from tqdm import tqdm

    result: dict[str, Any] = {"models": {}}
    for model in tqdm(models, unit="model"):
        result["models"][model] = record_model(model, folder)
    for dataset in sorted(folder.glob("dataset/Synthetic*")):
        result[f"files of {dataset.name}"] = files(dataset)
    if set(BENCHMARK) <= set(models):
        result["benchmark"] = record_benchmark(folder)
    output.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", "utf-8")


def differences(before: Any, after: Any, name: str = "") -> list[str]:
    """One line per value that differs."""
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        before, after = dict(enumerate(before)), dict(enumerate(after))
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [] if before == after else [f"{name}: {before!r} -> {after!r}"]
    lines = []
    for key in sorted({*before, *after}, key=str):
        place = f"{name} / {key}" if name else str(key)
        if key not in after:
            lines.append(f"{place}: only before")
        elif key not in before:
            lines.append(f"{place}: only after")
        else:
            lines += differences(before[key], after[key], place)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    new = actions.add_parser("record")
    new.add_argument("output", type=Path)
    new.add_argument("--models", help="default: all")
    new.add_argument("--folder", type=Path, help="default: a temporary one")
    both = actions.add_parser("compare")
    both.add_argument("before", type=Path)
    both.add_argument("after", type=Path)
    args = parser.parse_args()
    if args.action == "compare":
        before, after = (json.loads(p.read_text("utf-8")) for p in (args.before, args.after))
        lines = differences(before, after)
        sys.stdout.write(
            "\n".join([*lines, f"{len(lines)} differences" if lines else "equal"]) + "\n"
        )
        sys.exit(bool(lines))
    models = args.models.split(",") if args.models else list(ORDER)
    if args.folder:
        args.folder.mkdir(parents=True, exist_ok=True)
        return record(args.output, models, args.folder.resolve())
    with tempfile.TemporaryDirectory() as folder:
        record(args.output, models, Path(folder))


if __name__ == "__main__":
    main()
