"""Do the lips tremble? Lip jitter of generated videos against the real ones, and what causes it.

    python benchmarks/lip_jitter.py <run or checkpoint> [--clips=10]

The held-out clips of the run are dubbed with their own sound in several ways: as by default, and
with one thing each as the official code does it (unsmoothed boxes, sketches without smoothing or
with other lines than in training, larger input of stage 2...). lip_jitter is the mean second
difference of the lip landmarks after their centre is taken out; 1 is the real video.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from talkingface.components.models import build_model, load_model_weights
from talkingface.evaluator.clip import ClipPair
from talkingface.evaluator.evaluator import Evaluator, RowResult
from talkingface.pipeline.build import build_pipeline
from talkingface.quick_start.evaluation import render_like, shuffled_waves, usable_clips
from talkingface.quick_start.infer import configure
from talkingface.trainer.runtime import choose_device
from talkingface.utils.logs import progress, setup_logging

BOTH: dict[str, dict[str, Any]] = {
    "as by default": {},
    "boxes not smoothed": {"face.box_smoothing": 0.0},
    "pasted as a box": {"infer.mask": "box"},
    "reference: the frame itself": {"infer.reference": "self"},
}
HR: dict[str, dict[str, Any]] = {
    "sketch not smoothed": {"data.sketch_smoothing": 0.0},
    "sketch unlike training": {"data.sketch": "upstream", "data.sketch_smoothing": 0.0},
    "stage 2 fed at its output size": {"infer.legacy_input": True},
}
OUTPUTS = ("lip_jitter_ratio", "head_jitter_ratio", "jitter_ratio", "LMD", "LMD_v")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "run", help="run id, run folder or checkpoint of HyperLipsBase or HyperLipsHR"
    )
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--data_root", help="where the raw clips lie")
    parser.add_argument("--root", help="folder of the prepared dataset")
    args = parser.parse_args()
    setup_logging("warning")
    places = {key: getattr(args, key) for key in ("data_root", "root") if getattr(args, key)}
    first, _ = configure({"checkpoint": args.run}, places, [])
    clips = usable_clips(first, "test")[: args.clips]
    waves = shuffled_waves(clips)
    stage_2 = first.model == "HyperLipsHR"
    variants = {**BOTH, **(HR if stage_2 else {})}
    rows = [(name, settings, None) for name, settings in variants.items()]
    rows.append(("another clip's sound", {}, waves))
    if stage_2:
        rows.append(("first stage enlarged", {}, "first_stage"))
    print(f"{first.model} on {first.dataset}, {len(clips)} held-out clips")
    print(" " * 32 + "".join(f"{name:>19}" for name in OUTPUTS))
    with progress(total=len(rows) * len(clips), unit="video", leave=False) as bar:
        for name, settings, special in rows:
            cfg, checkpoint = configure({"checkpoint": args.run}, {**places, **settings}, [])
            model = build_model(cfg)
            load_model_weights(model, checkpoint)
            pipeline = build_pipeline(cfg, model.eval(), choose_device(cfg.device))
            evaluator, row = Evaluator(cfg, ["jitter", "LMD", "LMD_v"]), RowResult(name)
            with tempfile.TemporaryDirectory() as folder:
                for clip in clips:
                    path = Path(folder) / f"{clip.id.replace('/', '_')}.mp4"
                    sound = special[clip.id]() if isinstance(special, dict) else clip.audio
                    baseline = special if isinstance(special, str) else None
                    render_like(pipeline, cfg, clip, path, sound, baseline)
                    evaluator.score_clip(ClipPair(clip.id, path, clip.path, audio=clip.audio), row)
                    bar.update()
            means = [np.nanmean([v[key] for v in row.values.values()]) for key in OUTPUTS]
            bar.write(f"{name:32}" + "".join(f"{mean:19.3f}" for mean in means), file=sys.stdout)


if __name__ == "__main__":
    main()
