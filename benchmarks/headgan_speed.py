"""HeadGAN: what a frame costs, by step and by preset, against the plain formulation, in one run.

    python benchmarks/headgan_speed.py [--presets light128,light256,official] [--video face.mp4]
                                       [--threads 1] [--device cpu|cuda]

Untrained networks: speed does not depend on the weights. Plain is the network as it is trained
(spectral norms computed at each call, two convolutions per SPADE, the reference encoded for every
frame); ours is what the pipeline runs. On a GPU also bfloat16 with a batch. ``--video`` times
tracking, fitting and drawing of the face at 256 px.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import talkingface
from talkingface.model.fuse import optimize_for_inference


def timed(action: Callable[[], object], device: str, repeats: int = 5) -> float:
    """Best of several runs, in ms."""
    action()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 1000 * best


@torch.inference_mode()
def generator(preset: str, device: str) -> str:
    """A row of the table."""
    model = talkingface.create_model("HeadGAN", preset=preset)
    size = model.cfg.model_params
    plain = model.network.to(device).eval()
    side = size.crop_size
    poses = torch.rand(1, 3 * size.n_frames, side, side, device=device)
    reference = [torch.rand(1, 3, side, side, device=device) for _ in range(2)]
    voice = torch.randn(1, model.naf, device=device)
    fast = optimize_for_inference(plain)
    encoded = fast.encode_reference(*reference)
    repeats = 2 if preset == "official" and device == "cpu" else 5
    one = timed(lambda: plain(poses, *reference, voice), device, repeats)
    two = timed(lambda: fast(poses, *reference, voice, encoded), device, repeats)
    pair = plain(poses, *reference, voice).image, fast(poses, *reference, voice, encoded).image
    apart = (pair[0] - pair[1]).abs().max()
    text = f"{preset:10} {one:10.1f} {two:10.1f}   {one / two:5.2f}   difference {apart:.1e}"
    if device == "cuda":
        with torch.autocast("cuda", torch.bfloat16):
            for count in (1, 8):
                many = poses.expand(count, -1, -1, -1)
                many = many.contiguous(memory_format=torch.channels_last)
                heard = voice.expand(count, -1)
                run = partial(fast, many, *reference, heard, encoded)
                rate = 1000 * count / timed(run, device, 20)
                text += f"\n{'':10} bfloat16, batch {count}: {rate:.0f} frames per second"
    return text


def geometry(video: Path) -> None:
    """Tracking, fitting and drawing at 256 px."""
    from talkingface.config.config import load_config
    from talkingface.data.dataprocess.headgan.headgan_process import HeadGANProcess, square
    from talkingface.data.face.face_model import learn_face_model
    from talkingface.data.face.mesh import FaceMesher
    from talkingface.data.face.series import fill_gaps
    from talkingface.data.face.tracking import track_face
    from talkingface.data.media.reader import read_frames

    cfg = load_config("HeadGAN", "Synthetic")
    track = track_face(video, fps=25, options=cfg.face)
    start, stop = track.longest_take()
    stop = min(stop, start + 100)
    crop = HeadGANProcess(cfg)._crop(fill_gaps(track.landmarks[start:stop]), track.size)
    pictures = [
        square(frame, crop, 256)
        for number, frame in enumerate(read_frames(video, fps=25))
        if start <= number < stop
    ]
    with FaceMesher(tracking=True) as mesher:
        mesher(pictures[0])
        began = time.perf_counter()
        found = [mesher(picture) for picture in pictures]
        tracking = 1000 * (time.perf_counter() - began) / len(pictures)
    points = np.stack([each[0] for each in found if len(each)]).astype(np.float64)
    model = learn_face_model({"one": points}, {"one": "one"})
    neutral = model.neutral_of(points)
    fitting = timed(lambda: model.fit(points, neutral), "cpu") / len(points)
    one_by_one = timed(lambda: [model.fit(p[None], neutral) for p in points[:50]], "cpu") / 50
    placed = model.placed(model.fit(points, neutral))
    drawing = timed(lambda: [model.render(v, 256, 256) for v in placed[:50]], "cpu") / 50
    whole = tracking + fitting + drawing
    print(
        f"face at 256 px, ms per frame: tracking {tracking:.2f}, fitting {fitting:.2f} (frame by "
        f"frame {one_by_one:.2f}), drawing {drawing:.2f}, together {whole:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", default="tiny,light64,light128,light256,official")
    parser.add_argument("--video", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.video:
        geometry(args.video)
    print(f"{'preset':10} {'plain':>10} {'ours':>10}   ratio   ms per frame, one frame at a time")
    for name in filter(None, args.presets.split(",")):
        print(generator(name, args.device), flush=True)


if __name__ == "__main__":
    main()
