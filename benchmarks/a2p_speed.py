"""audio2photoreal: what sampling costs with and without caches, on the official sizes, in one run.

    python benchmarks/a2p_speed.py [--seconds 20] [--threads 1] [--device cpu|cuda] [--preset paper]

Untrained networks: speed does not depend on the weights. Uncached is the released formulation: a
face step hears both voices, predicts the lips and encodes them twice (with and without condition),
in two passes; every token of the guide hears everything again and runs over all tokens before it.
Ours hears once, keeps the keys and values of the sound, and batches both passes of the guidance.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from talkingface.components.models import build_model
from talkingface.config.config import load_config
from talkingface.model.diffusion import Diffusion, guided


def seconds(action: Callable[[], object], device: str, repeats: int = 2) -> float:
    """Best of several runs."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def network_of(model: str, preset: str, device: str, **more: object) -> tuple:
    over = {"audio.weights": "random"} if preset == "paper" else {}
    cfg = load_config(model, "SyntheticDyad", preset=preset, overrides={**over, **more})
    built = build_model(cfg)
    return cfg, built.network.to(device).eval()


@torch.no_grad()
def face(preset: str, length: float, device: str) -> None:
    cfg, net = network_of("A2PFace", preset, device)
    frames = min(round(length * cfg.fps), cfg.data.max_seq_length)
    wave = torch.randn(1, round(frames * 48000 / cfg.fps), 2, device=device)
    x = torch.randn(1, frames, net.channels, device=device)
    t = torch.tensor([500], device=device)
    keep = torch.tensor([True], device=device)

    def uncached() -> torch.Tensor:
        one, two = net(x, t, wave, keep=keep), net(x, t, wave, keep=~keep)
        return two + 10 * (one - two)

    def conditions() -> Callable:
        features = net.encode_sound(wave)
        seen = net.condition(features, frames, net.lips(wave))
        return guided(net.denoise, seen, net.absent(1, features.shape[1], frames), 10.0)

    denoise = conditions()
    apart = (denoise(x, t) - uncached()).abs().max()
    plain, ours = seconds(uncached, device), seconds(lambda: denoise(x, t), device, 4)
    once = seconds(conditions, device)
    whole = seconds(lambda: Diffusion().sample(conditions(), x, 50), device, 1)
    print(
        f"A2PFace, {preset}, {frames / cfg.fps:.0f} s of sound, guided step: uncached {plain:.3f} "
        f"s, cached {ours:.3f} s, {plain / ours:.1f} times faster (difference {apart:.1e}); "
        f"conditions once {once:.2f} s; clip with 50 steps {whole:.1f} s"
    )


@torch.no_grad()
def guide(preset: str, length: float, device: str) -> None:
    cfg, net = network_of("A2PGuide", preset, device)
    keys = max(1, round(length * cfg.fps) // cfg.data.guide_step)
    frames = keys * cfg.data.guide_step
    wave = torch.randn(1, round(frames * 48000 / cfg.fps), 2, device=device)
    count = keys * cfg.vq.depth

    def cached() -> torch.Tensor:
        return net.generate(net.condition(net.encode_sound(wave), frames), keys, top_p=0.0)

    made = cached().flatten(1)
    stream = torch.cat([torch.full((1, 1), cfg.vq.codes, device=device), made], dim=1)
    # All tokens cost nearly the same without caches: four of them, evenly spread, stand for all.
    places = [round((count - 1) * share) for share in (0, 1 / 3, 2 / 3, 1)]
    started = time.perf_counter()
    for place in places:
        logits = net(stream[:, : place + 1], wave)
        assert int(logits[0, -1].argmax()) == int(stream[0, place + 1])
    plain = (time.perf_counter() - started) / len(places) * count
    condition = net.condition(net.encode_sound(wave), frames)
    heard_once = seconds(
        lambda: [net.logits(stream[:, : n + 1], condition) for n in range(count)], device, 1
    ) + seconds(lambda: net.condition(net.encode_sound(wave), frames), device, 1)
    ours = seconds(cached, device)
    print(
        f"A2PGuide, {preset}, {frames / cfg.fps:.0f} s, {count} tokens: uncached {plain:.1f} s "
        f"(from {len(places)} tokens), sound heard once {heard_once:.2f} s, with kept keys and "
        f"values {ours:.2f} s, {plain / ours:.0f} times faster"
    )


@torch.no_grad()
def pose(preset: str, length: float, device: str) -> None:
    cfg, net = network_of("A2PPose", preset, device)
    frames = min(round(length * cfg.fps), cfg.data.max_seq_length)
    wave = torch.randn(1, round(frames * 48000 / cfg.fps), 2, device=device)
    x = torch.randn(1, frames, net.channels, device=device)
    keys = torch.randn(1, -(-frames // net.guide_step), net.channels, device=device)

    def whole() -> torch.Tensor:
        features = net.encode_sound(wave)
        seen = net.condition(features, frames, guide=keys)
        blind = net.absent(1, features.shape[1], frames)
        return Diffusion().sample(guided(net.denoise, seen, blind, 2.0), x, 50)

    print(f"A2PPose, {preset}, clip with 50 steps: {seconds(whole, device, 1):.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--preset", default="paper")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    for part in (face, guide, pose):
        part(options.preset, options.seconds, options.device)


if __name__ == "__main__":
    main()
