"""Milliseconds per frame of HyperLips stage 1: plain forward against the optimised path.

    python benchmarks/inference_speed.py                 # official network, 128 px, 1 and 2 threads
    python benchmarks/inference_speed.py --width 0.35 --aspp_channels 64 --hyper_dim 32 \
        --decoder_channels 48 32 32 16 --image_size 96

plain      frame by frame through ``net(audio, face)``, as loaded from a checkpoint
optimised  ``optimize_for_inference``; the audio side once for the clip, then ``decode`` in small
           batches

Both are timed in turns in the same run, so that a busy machine disturbs them alike; the numbers
are medians. Random weights: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from talkingface.model.audio_driven_talkingface.hyperlips.hyperlips_networks import (
    HyperLipsBaseNet,
)
from talkingface.model.fuse import optimize_for_inference


def ms_per_frame(run: Callable[[], object], frames: int) -> float:
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start) / frames


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--aspp_channels", type=int, default=128)
    parser.add_argument("--hyper_dim", type=int, default=64)
    parser.add_argument("--decoder_channels", type=int, nargs=4, default=(80, 40, 32, 64))
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--frames", type=int, default=24, help="length of the clip")
    parser.add_argument("--batch", type=int, default=16, help="optimised: frames per decode call")
    parser.add_argument("--render_batch", type=int, default=2, help="optimised: see decode")
    parser.add_argument("--repeats", type=int, default=7)
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    args = parse_args()
    torch.manual_seed(0)
    size = args.image_size
    plain_net = HyperLipsBaseNet(
        width=args.width,
        aspp_channels=args.aspp_channels,
        hyper_dim=args.hyper_dim,
        decoder_channels=tuple(args.decoder_channels),
        image_size=size,
    ).eval()
    fast_net = optimize_for_inference(plain_net)
    audio = torch.randn(args.frames, 1, 80, 16)
    face = torch.rand(args.frames, 6, size, size)
    plain_frames = min(8, args.frames)  # it is slower and needs no long clip

    def plain() -> torch.Tensor:
        return torch.cat([plain_net(audio[i, None], face[i, None]) for i in range(plain_frames)])

    def optimised() -> torch.Tensor:
        codes = zip(*(code.split(args.batch) for code in fast_net.encode_audio(audio)), strict=True)
        parts = zip(codes, face.split(args.batch), strict=True)
        return torch.cat([fast_net.decode(*p, render_batch=args.render_batch) for p in parts])

    difference = (plain() - optimised()[:plain_frames]).abs().max().item()
    print(
        f"torch {torch.__version__}, {size} px, {args.frames} frames, largest output difference "
        f"{difference:.1e}"
    )
    print(f"{'threads':>7} {'plain ms/frame':>15} {'optimised':>10} {'ratio':>6}")
    for threads in args.threads:
        torch.set_num_threads(threads)
        times: tuple[list[float], list[float]] = ([], [])
        for repeat in range(args.repeats + 1):
            pair = ms_per_frame(plain, plain_frames), ms_per_frame(optimised, args.frames)
            if repeat:  # the first round warms up
                times[0].append(pair[0])
                times[1].append(pair[1])
        slow, fast = map(statistics.median, times)
        print(f"{threads:>7} {slow:>15.1f} {fast:>10.1f} {fast / slow:>6.2f}")


if __name__ == "__main__":
    main()
