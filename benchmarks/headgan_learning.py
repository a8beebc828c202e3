"""HeadGAN on one real clip: what a training of two minutes gives on frames it has not seen.

    python benchmarks/headgan_learning.py face.mp4 [--other=b.mp4] [--steps=700] [key=value ...]

The clip is cropped once; its first four fifths train, its end is generated from the first picture
of the beginning, with the camera as it is. Rows: generated, warped, the copied picture, and the
same model driven by the end of another clip. Keys are those of the configuration, e.g.
``model_params.use_audio=false``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SHARE = 0.8  # of the clip, for training
PIECES = ("begin", "end")


def write_pieces(video: Path, folder: Path, size: int = 256) -> None:
    """The crop of a whole clip, its beginning and its end as videos of their own."""
    from talkingface.config.config import load_config
    from talkingface.data.dataprocess.headgan.headgan_process import HeadGANProcess, square
    from talkingface.data.face.series import fill_gaps
    from talkingface.data.face.tracking import track_face
    from talkingface.data.media.audio import load_audio
    from talkingface.data.media.reader import read_frames
    from talkingface.data.media.writer import VideoWriter

    cfg = load_config("HeadGAN", "Synthetic", overrides={"root": str(folder)})
    track = track_face(video, fps=cfg.fps, options=cfg.face)
    start, stop = track.longest_take()
    crop = HeadGANProcess(cfg)._crop(fill_gaps(track.landmarks[start:stop]), track.size)
    wave, cut = load_audio(video, 16000), start + round(SHARE * (stop - start))
    spans = dict(zip(PIECES, ((start, cut), (cut, stop)), strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    for name, (first, last) in spans.items():
        heard = wave[round(first / cfg.fps * 16000) : round(last / cfg.fps * 16000)]
        with VideoWriter(folder / f"{name}.mp4", cfg.fps, audio=(heard, 16000), crf=4) as writer:
            for number, frame in enumerate(read_frames(video, fps=cfg.fps)):
                if first <= number < last:
                    writer.write(square(frame, crop, size))


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    from talkingface.evaluator.metrics.image_quality import psnr as of_pictures

    return float(np.mean([of_pictures(a, b) for a, b in zip(first, second, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--other", type=Path)
    parser.add_argument("--steps", type=int, default=700, help="two minutes on one core")
    parser.add_argument("--preset", default="light64")
    parser.add_argument("--output", type=Path, help="where pictures go")
    args, keys = parser.parse_known_args()
    settings = dict(key.split("=", 1) for key in keys)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TALKINGFACE_ROOT"] = folder
        result, pictures = measure(
            args.video, args.other, Path(folder), args.preset, args.steps, **settings
        )
    if args.output:
        from talkingface.data.media.writer import write_image

        write_image(args.output, pictures)
    base = result["copied"]
    for title, value in result.items():
        print(f"{title:14} {value:6.2f} dB  {value - base:+.2f}")


def measure(
    video: Path, other: Path | None, root: Path, preset: str, steps: int, **keys: object
) -> tuple[dict[str, float], np.ndarray]:
    """Mean PSNR in dB by row, and pictures: reference, real, warped and generated side by side."""
    import torch

    import talkingface
    from talkingface.components.models import build_model, load_model_weights
    from talkingface.config.config import load_config
    from talkingface.pipeline.build import build_pipeline

    clips = root / "clips"
    write_pieces(video, clips)
    for split, name in (("train", "begin"), ("val", "end"), ("test", "end")):
        (root / "filelist").mkdir(exist_ok=True)
        (root / "filelist" / f"{split}.txt").write_text(name + "\n")
    settings = {
        **{"root": str(root), "data_root": str(clips), "prep.crop": False, "min_seconds": 0.2},
        **{"person.name": "one", "max_steps": steps, **keys},
    }
    done = talkingface.run(
        "HeadGAN", "HDTF", overrides={**settings, "stages": "preprocess,train"}, preset=preset
    )
    settings |= {"infer.mode": "cross", "infer.camera": "raw", "infer.reference_frame": 0}
    cfg = load_config("HeadGAN", "HDTF", overrides=settings, preset=preset)
    model = build_model(cfg)
    load_model_weights(model, done.checkpoint)
    pipeline = build_pipeline(cfg, model.eval(), torch.device("cpu"))
    source, held = (pipeline.prepare(clips / f"{name}.mp4") for name in PIECES)
    wave = held.wave()
    real = np.stack([pipeline._sized(held.pictures[n]) for n in range(len(held))])
    crossed = pipeline.with_driver(source, clips / "end.mp4")
    rows = {
        title: np.stack(list(pipeline.generate(crossed, wave, baseline=baseline)))
        for title, baseline in (
            ("generated", None), ("warped", "warped"), ("copied", "copy_reference")
        )
    }  # fmt: skip
    count = min(map(len, (*rows.values(), real)))
    pictures = [rows["copied"], real, rows["warped"], rows["generated"]]
    if other is not None:
        write_pieces(other, root / "other")
        # Another person's camera says nothing here: only its turns and expressions are taken.
        cfg = load_config("HeadGAN", "HDTF", preset=preset,
                          overrides={**settings, "infer.camera": "adapt"})  # fmt: skip
        pipeline = build_pipeline(cfg, model, torch.device("cpu"))
        crossed = pipeline.with_driver(source, root / "other" / "end.mp4")
        rows["other driver"] = np.stack(list(pipeline.generate(crossed, wave)))
        count = min(count, len(rows["other driver"]))
    result = {title: psnr(made[:count], real[:count]) for title, made in rows.items()}
    shown = np.linspace(0, count - 1, 4).astype(int)
    return result, np.concatenate([np.concatenate([p[n] for p in pictures], 1) for n in shown])


if __name__ == "__main__":
    main()
