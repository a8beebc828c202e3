"""Lip opening of an Audio2Feature or MODA run on held-out clips, beside ridge regression on them.

    python benchmarks/lip_opening.py saved/Audio2Feature/GRID/<run>/checkpoints/best.ckpt
    python benchmarks/lip_opening.py saved/MODA/Synthetic/<run>/checkpoints/best.ckpt --dataset=GRID

The second form tests on the test clips of another dataset, which must be prepared for the model;
further settings of it (``--data_root=...``) may follow.

The reference is linear: log-mel rows of 0.4 s around each frame to the points, trained on the
training clips, its strength chosen on the validation clips. Errors are mean absolute differences of
the gap between the inner lips (points 13 and 14 of MediaPipe), in px of a face 135 px high from
chin to forehead (on GRID 65.7 px between its outer eye corners, 47.6 between its eyes); "clip
mean" always answers the mean of the real clip. A person's own mean is not known to any of the rows
but that one; with MODA's default data.template=clip its mean is the clip's own, which
data.template=subject avoids.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from talkingface.components.models import build_model, config_of_checkpoint, load_model_weights
from talkingface.config.config import load_config
from talkingface.data.media.apc_mel import SAMPLE_RATE, apc_mel
from talkingface.data.media.audio import load_audio
from talkingface.model.audio_driven_talkingface.lsp import audio2feature
from talkingface.model.audio_driven_talkingface.moda import moda
from talkingface.pipeline.build import build_dataset

ROW_RATE = 120.0
ROWS = tuple(range(-24, 26, 3))  # of mel around a frame's first, 0.4 s
STRENGTHS = (3.0, 30.0, 300.0, 3000.0)


class Audio2FeatureRun:
    """What a run's model, clips and units are called."""

    fps = 60.0
    px_per_unit = 65.7
    opening = staticmethod(audio2feature._opening)

    def sound(self, dataset, clip) -> Path:
        return dataset.process.clip(clip.id).sound_path

    def real(self, clip) -> np.ndarray:
        return clip.motion

    def made(self, model, clip, source) -> np.ndarray:
        speech = np.resize(source.speech, clip.speech.shape).astype(np.float32)
        return model.points(torch.from_numpy(speech)).numpy()


class MODARun:
    px_per_unit = 47.6
    opening = staticmethod(moda._opening)

    def __init__(self, fps: float) -> None:
        self.fps = fps

    def sound(self, dataset, clip) -> Path:
        return dataset.process.prepared.output_dirs(clip.id)[0] / "audio.wav"

    def real(self, clip) -> np.ndarray:
        return clip.offsets["lips"]

    def made(self, model, clip, source) -> np.ndarray:
        std = clip.template.std.astype(np.float32)
        heard = np.resize(
            source.sound_of(0, len(source)), (len(clip), source.sound_of(0, 1).shape[-1])
        )
        answer = model.sequence(lambda a, b: heard[a:b], clip.subject, len(clip), subject_std=std)
        return answer["lips"]


def windows(run, dataset, clip) -> np.ndarray:
    mel = apc_mel(load_audio(run.sound(dataset, clip), SAMPLE_RATE))
    first = np.round(np.arange(len(clip)) * ROW_RATE / run.fps).astype(int)
    rows = np.clip(first[:, None] + ROWS, 0, len(mel) - 1)
    return mel[rows].reshape(len(clip), -1)


def score(run, made: list[np.ndarray], real: list[np.ndarray]) -> str:
    pairs = [(run.opening(a) / 100, run.opening(b) / 100) for a, b in zip(made, real, strict=True)]
    error = run.px_per_unit * np.mean([np.abs(a - b).mean() for a, b in pairs])
    r = np.mean([np.corrcoef(a, b)[0, 1] if np.ptp(a) > 1e-6 else 0.0 for a, b in pairs])
    return f"{error:6.3f} px   r {r:6.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--dataset", help="whose test clips are used; default: the run's")
    args, settings = parser.parse_known_args()
    wrong = [s for s in settings if not args.dataset or not s.startswith("--") or "=" not in s]
    if wrong:
        parser.error(
            f"unknown: {' '.join(wrong)} (settings need --dataset and the form --key=value)"
        )
    stored = config_of_checkpoint(Path(args.checkpoint))
    cfg = load_config(stored["model"], stored["dataset"], base={**stored, "resume": False})
    model = build_model(cfg)
    load_model_weights(model, Path(args.checkpoint))
    model.eval()
    other = cfg
    if args.dataset:
        own = set(cfg.dataset_entry.values) | {"dataset", "root", "data_root", "person"}
        base = {k: v for k, v in stored.items() if k not in own and "filelist" not in k}
        other = load_config(
            cfg.model,
            args.dataset,
            base=base,
            cli=dict(s.lstrip("-").split("=", 1) for s in settings),
        )
    train, val, test = (
        build_dataset(c, split) for c, split in ((cfg, "train"), (cfg, "val"), (other, "test"))
    )
    run = MODARun(cfg.fps) if cfg.model == "MODA" else Audio2FeatureRun()
    step = max(1, round(run.fps / 30))
    print(f"{len(train.clips)} training clips, {len(test.clips)} test clips of {other.dataset}")

    x = np.concatenate([windows(run, train, clip)[::step] for clip in train.clips])
    y = np.concatenate([run.real(clip)[::step] for clip in train.clips])
    mean, spread = x.mean(0), x.std(0) + 1e-4

    def prepared(values: np.ndarray) -> np.ndarray:
        return np.concatenate([(values - mean) / spread, np.ones((len(values), 1))], axis=1)

    a = prepared(x)
    gram, right = a.T @ a, a.T @ y

    def answers(data, solution: np.ndarray) -> list[np.ndarray]:
        return [prepared(windows(run, data, clip)) @ solution for clip in data.clips]

    solutions = [np.linalg.solve(gram + s * np.eye(len(gram)), right) for s in STRENGTHS]
    real = [run.real(clip) for clip in val.clips]
    losses = [
        np.mean([np.square(a - b).mean() for a, b in zip(answers(val, s), real, strict=True)])
        for s in solutions
    ]
    ridge = answers(test, solutions[int(np.argmin(losses))])
    real = [run.real(clip) for clip in test.clips]
    half = len(test.clips) // 2
    donors = test.clips[half:] + test.clips[:half]
    with torch.no_grad():
        own = [run.made(model, clip, clip) for clip in test.clips]
        wrong = [run.made(model, c, d) for c, d in zip(test.clips, donors, strict=True)]
    still = [np.broadcast_to(motion.mean(0), motion.shape) for motion in real]
    for name, made in (
        (cfg.model, own),
        ("shuffled audio", wrong),
        ("ridge regression", ridge),
        ("clip mean", still),
    ):
        print(f"{name:<18}{score(run, made, real)}")


if __name__ == "__main__":
    main()
