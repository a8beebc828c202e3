"""MODA: speed of each step against the plain formulation, in one run.

    python benchmarks/moda_speed.py [--threads 1] [--device cpu] [--video face.mp4] [--wav2vec2]

Untrained networks of the official sizes: speed does not depend on the weights. The plain form runs
PyTorch's transformer layers with the official masks, the alignment mask as a T x T matrix.
``--video`` times the preparation of a clip without its cached face scan; ``--wav2vec2`` a
training step on cached features against one that runs the encoder, frozen or trained.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from talkingface.model.audio_driven_talkingface.moda import moda_networks as nets

FRAMES = (75, 300, 1200)


def timed(action: Callable[[], object], repeats: int = 5) -> float:
    action()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def plain(net: nets.MODANet, sound: Tensor, subject: Tensor, masks: dict[str, Tensor]) -> Tensor:
    """The same network through PyTorch's layers."""
    short, long = net.temporal_body.short_layer, net.temporal_body.long_layer
    count = sound.shape[1]
    heard = net.audio_encoder_head(sound)
    code = net.subject_encoder_head(subject.flatten(1))[:, None].expand(-1, count, -1)
    x = code + masks["ppe"]
    one = short.decoder(x, heard, tgt_mask=masks["bias"], memory_mask=masks["aligned"])
    u = code + masks["pe"] + heard
    mu = long.to_mu(long.encoder(u))
    two = long.out(long.decoder(u, long.decode_latent(mu), tgt_mask=masks["causal"]))
    context = torch.cat([one, two], dim=-1)
    tails = (net.lipmotion_tail, net.eyemovement_tail, net.headmotion_tail, net.torsomotion_tail)
    return torch.cat([tail(context) for tail in tails], dim=-1)


@torch.no_grad()
def network(device: torch.device) -> None:
    torch.manual_seed(0)
    net = nets.MODANet(768, length=2400).eval().to(device)
    subject = torch.randn(1, 478, 3, device=device)
    print("network: frames   ours us/frame   plain us/frame   ratio   largest difference")
    for count in FRAMES:
        sound = torch.randn(1, count, 768, device=device)
        frames = torch.arange(count, device=device)
        masks = {
            "ppe": nets.positions(count, 30).to(device),
            "pe": nets.positions(count).to(device),
            "bias": nets.temporal_bias(frames, frames, 30),
            "aligned": ~torch.eye(count, dtype=torch.bool, device=device),
            "causal": torch.full((count, count), float("-inf"), device=device).triu(1),
        }
        made = net(sound, subject)
        joined = torch.cat([made[part] for part in nets.PARTS], dim=-1)
        apart = float((joined - plain(net, sound, subject, masks)).abs().max())
        ours = timed(lambda sound=sound: net(sound, subject))
        theirs = timed(lambda sound=sound, masks=masks: plain(net, sound, subject, masks))
        print(
            f"         {count:6d}   {1e6 * ours / count:13.1f}   {1e6 * theirs / count:14.1f}"
            f"   {theirs / ours:5.2f}   {apart:.1e}"
        )


def preparation(video: Path) -> None:
    from talkingface.config.config import load_config
    from talkingface.data.clips import make_clip
    from talkingface.data.dataprocess.moda.moda_process import MODAProcess
    from talkingface.data.face import tracking

    original = tracking.scan_video
    with tempfile.TemporaryDirectory() as folder:
        cfg = load_config("MODA", "Synthetic", overrides={"root": folder, "person.name": "one"})
        process = MODAProcess(cfg)
        spent = {}

        def scan(*args, **kwargs):
            start = time.perf_counter()
            found = original(*args, **{**kwargs, "cache": False})
            spent["faces"] = time.perf_counter() - start
            return found

        tracking.scan_video = scan
        clip = make_clip(video, video.stem)
        for _ in range(2):  # the first one starts MediaPipe
            out = Path(folder) / "out"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            start = time.perf_counter()
            process.process_clip(clip, out)
            total = time.perf_counter() - start
        count = len(np.load(out / "features.npz")["vertices"])
    whole, faces = 1e3 * total / count, 1e3 * spent["faces"] / count
    print(
        f"preparation: {whole:.1f} ms/frame of {count} frames, faces {faces:.1f} ms, the rest "
        f"{whole - faces:.1f} ms"
    )


def caching(device: torch.device, count: int = 150, items: int = 4) -> None:
    """Training steps on cached features against steps that run the frozen encoder."""
    encoder = nets.wav2vec2(None).to(device).eval()
    net = nets.MODANet(768).to(device).train()
    wave = torch.randn(items, round(count * 640), device=device)
    subject = torch.randn(items, 478, 3, device=device)
    optimizer = torch.optim.Adam(net.parameters())

    def step(sound: Tensor) -> None:
        made = net(sound, subject, noise=torch.randn(items, count, 128, device=device))
        loss = sum(made[part].abs().mean() for part in nets.PARTS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def heard() -> Tensor:
        with torch.no_grad():
            return nets.wav2vec2_at(encoder, wave, count)

    known = heard()
    cached = timed(lambda: step(known), 3)
    frozen = timed(lambda: step(heard()), 1)
    encoder.train()
    encoder.requires_grad_(True)
    encoder.freeze_feature_encoder()
    trained = timed(lambda: step(nets.wav2vec2_at(encoder, wave, count)), 1)
    print(
        f"training step, {items} x {count} frames: cached features {1e3 * cached:.0f} ms; frozen "
        f"wav2vec2 run each time {1e3 * frozen:.0f} ms, ratio {frozen / cached:.1f}; trained "
        f"wav2vec2 (the paper's) {1e3 * trained:.0f} ms, ratio {trained / cached:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--video", type=Path)
    parser.add_argument("--wav2vec2", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    network(device)
    if args.wav2vec2:
        caching(device)
    if args.video:
        preparation(args.video)


if __name__ == "__main__":
    main()
