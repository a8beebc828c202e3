"""Make the weights of the zoo, which ship with the toolkit, by the commands in their cards.

    python benchmarks/make_zoo.py HyperLipsBase             # train, publish and score
    python benchmarks/make_zoo.py HyperLipsBase --run=DIR   # publish and score a finished run
    python benchmarks/make_zoo.py HyperLipsBase --score     # score the published weights again
    python benchmarks/make_zoo.py --check                   # compare all scores with the cards
    python benchmarks/make_zoo.py --voices=/data/voices     # add text-to-speech to recordings

``checkpoints/zoo/<entry>/card.yaml`` is both the recipe (``command``, ``scores``) and the report
(``made``, ``results``). To add an entry, write a card with the first five keys of another one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

from talkingface.components.zoo import ZOO  # noqa: E402
from talkingface.quick_start.export import halved  # noqa: E402
from talkingface.trainer.checkpoint import export_weights  # noqa: E402
from talkingface.utils.hashes import sha256_of  # noqa: E402
from talkingface.utils.paths import project_root, resolve, write_text  # noqa: E402
from talkingface.utils.weights import read_weights  # noqa: E402
from talkingface.utils.yaml_files import load_yaml  # noqa: E402

# Settings of the run that say nothing about its network, its data or how to use it.
PERSONAL = {
    *("preset", "plugin_path", "device", "devices", "precision", "num_workers", "process_workers"),
    *("executor", "executor_address", "shard", "show_progress", "log_level", "log_wandb", "stages"),
    *("need_preprocess", "train", "evaluate_model_file", "init", "checkpoint_dir", "results_dir"),
    *("checkpoint_sub_dir", "log_dir", "tensorboard_dir", "weights_dir", "resume", "saved"),
    *("trust_checkpoint", "metrics", "metric_params", "baselines", "eval_clips", "n_preview"),
    *("root", "data_root", "preprocessed_root", "train_filelist", "val_filelist", "test_filelist"),
    "synthetic",
}
SENTENCES = 50  # of each voice of the text-to-speech, 4 s each
TOLERANCE = 0.05  # of a score against its card: another processor rounds in another way


def add_voices(folder: Path) -> None:
    """Add a woman's and a man's voice of the text-to-speech hibari to a folder of recordings."""
    import numpy as np
    import soundfile

    from talkingface.data.synthetic.person import Person
    from talkingface.data.synthetic.voices import HIBARI, RATE, speak

    for sex in ("woman", "man"):
        person = next(p for p in map(Person.draw, range(500, 600)) if p.sex == sex)
        for number in range(SENTENCES):
            rng = np.random.default_rng([7, number])
            speech = speak(HIBARI, person, 4.0, rng, "test" if number % 10 == 9 else "train")
            path = folder / f"hibari_{sex}" / f"{number:03d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, speech.audio, RATE)
            path.with_suffix(".txt").write_text(speech.text + "\n")
    print(f"{2 * SENTENCES} recordings of text-to-speech in {folder}")


def program(arguments: str, *more: str) -> None:
    """Run one command of the toolkit."""
    command = [sys.executable, str(TOP / "run_talkingface.py"), *arguments.split(), *more]
    print("$", " ".join(command), flush=True)
    subprocess.run(command, check=True)


def trained(card: dict[str, Any]) -> Path:
    """The run folder of the card's command, trained now."""
    program(card["command"])
    model = dict(part.lstrip("-").split("=", 1) for part in card["command"].split())["model"]
    runs = resolve("saved").glob(f"{model}/*/*/weights.safetensors")
    return max(runs, key=lambda path: path.stat().st_mtime).parent


def publish(entry: Path, run: Path, card: dict[str, Any]) -> None:
    """Copy a run's weights in half precision, and its settings without those of the machine."""
    tensors = read_weights(run / "weights.safetensors")
    info = json.loads((run / "weights.json").read_text("utf-8"))
    told = json.loads((run / "provenance.json").read_text("utf-8"))
    export_weights(entry, halved(tensors), {k: v for k, v in info.items() if k != "config_hash"})
    settings = load_yaml(run / "config.yaml")[0]
    kept = {key: value for key, value in settings.items() if key not in PERSONAL}
    if "weights" in kept:
        kept["weights"] = {**kept["weights"], **card.get("weights", {})}
    write_text(entry / "config.yaml", yaml.safe_dump(kept, sort_keys=False, width=100))
    file = entry / "weights.safetensors"
    card["made"] = {
        "date": told["started"][:10],
        "commit": told["git"].get("commit"),
        "seed": told["seed"],
        "steps": info["steps"],
        "minutes": round(info["minutes"], 1),
        "hardware": f"{os.cpu_count()} CPU cores, no GPU" if told["device"] == "cpu" else "a GPU",
        "torch": told["versions"]["torch"],
        "parameters": sum(t.numel() for t in tensors.values()),
        "bytes": file.stat().st_size,
        "sha256": sha256_of(file),
    }


def scores(name: str, card: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Means of each evaluation of the card: title -> row -> output -> value."""
    found = {}
    for title, arguments in card["scores"].items():
        with tempfile.TemporaryDirectory() as folder:
            program(arguments, f"--evaluate_model_file=zoo/{name}", f"--results_dir={folder}")
            (path,) = Path(folder).rglob("metrics.json")
            table = json.loads(path.read_text("utf-8"))["rows"]
        found[title] = {
            row: {output: _short(value["mean"]) for output, value in outputs.items()}
            for row, outputs in table.items()
        }
    return found


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


def check(name: str, card: dict[str, Any]) -> list[str]:
    """Differences between the scores now and those of the card."""
    now, wrong = scores(name, card), []
    for title, rows in card["results"].items():
        for row, outputs in rows.items():
            for output, before in outputs.items():
                value = now[title][row][output]
                if before and abs(value - before) > TOLERANCE * abs(before):
                    wrong.append(f"{name}, {title}, {row}, {output}: {before} in the card, {value}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("entry", nargs="*", help="names of entries; default: all")
    parser.add_argument("--run", type=Path, help="folder of a finished run")
    parser.add_argument("--score", action="store_true", help="only score again")
    parser.add_argument("--check", action="store_true", help="only compare scores with the cards")
    parser.add_argument("--voices", type=Path, help="only add text-to-speech to this folder")
    args = parser.parse_args()
    if args.voices:
        add_voices(args.voices)
        return
    os.environ.setdefault("TALKINGFACE_ROOT", str(project_root()))
    wrong = []
    for name in args.entry or sorted(path.parent.name for path in ZOO.glob("*/card.yaml")):
        began, entry = time.perf_counter(), ZOO / name
        card = load_yaml(entry / "card.yaml")[0]
        if args.check:
            wrong += check(name, card)
            continue
        if not args.score:
            publish(entry, args.run or trained(card), card)
        card["results"] = scores(name, card)
        write_text(entry / "card.yaml", yaml.safe_dump(card, sort_keys=False, width=100))
        print(f"{name}: {time.perf_counter() - began:.0f} s on {platform.machine()}", flush=True)
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
