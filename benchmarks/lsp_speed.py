"""Live Speech Portraits: speed of each step against the plain formulation, in one run.

    python benchmarks/lsp_speed.py [--seconds 11.5] [--threads 1] [--device cpu] [--no-render]

Untrained networks of the official sizes: speed does not depend on the weights. The plain forms are
those of the official code: a loop over mel frames, a loop over features for neighbours and weights,
and the whole WaveNet over its 255 steps for every head pose (on 30 frames, then scaled).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from talkingface.data.media.apc_mel import SLICE, apc_mel, frame_count, mel_rows, row_start
from talkingface.model.audio_driven_talkingface.lsp.lsp_config import PortraitInfer
from talkingface.model.audio_driven_talkingface.lsp.lsp_motion_networks import (
    Audio2FeatureNet,
    Audio2HeadposeNet,
    PoseGenerator,
    look_ahead,
)
from talkingface.model.fuse import optimize_for_inference
from talkingface.model.layers.apc_networks import APCEncoder
from talkingface.model.layers.feature2face_networks import Feature2FaceNet
from talkingface.model.layers.manifold import ManifoldProjection
from talkingface.pipeline.lsp.lsp_motion import PersonMotion, SpeechMotion

DATABASE = 26_738  # rows of a released person: 223 s
NAIVE_FRAMES = 30


def timed(action: Callable[[], object], repeats: int = 1) -> float:
    action()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def mel_loop(wave: np.ndarray) -> np.ndarray:
    """One torch.stft per row, as the official code."""
    import librosa

    bank = torch.from_numpy(librosa.filters.mel(sr=16000, n_fft=512, n_mels=80, fmin=90, fmax=7600))
    window = torch.hann_window(SLICE)
    padded = torch.from_numpy(np.concatenate([wave, np.zeros(SLICE, np.float32)]))
    rows = []
    for row in range(2 * frame_count(len(wave))):
        start = int(row_start(row))
        piece = padded[start : start + SLICE]
        piece = torch.nn.functional.pad(piece[None, None], (189, 189), "reflect")[0, 0]
        spectrum = torch.stft(  # (257, 1)
            piece, 512, 133, SLICE, window, center=False, return_complex=True
        )[:, 0].abs()
        level = torch.log(torch.clamp(bank @ spectrum, min=1e-5))
        rows.append((level - np.log(1e-5)) / -np.log(1e-5))
    return torch.stack(rows).numpy()


def lle_loop(features: np.ndarray, database: np.ndarray) -> np.ndarray:
    """Neighbours and weights frame by frame."""
    norms = (database**2).sum(1)
    result = []
    for feature in features:
        distance = (feature**2).sum() + norms - 2 * database @ feature
        known = database[np.argsort(distance)[:10]]
        away = (known[1:] - known[0]).T
        rest = np.linalg.solve(away.T @ away, away.T @ (feature - known[0]))
        weights = np.concatenate([[1 - rest.sum()], rest])
        result.append(weights @ known)
    return np.array(result)


@torch.no_grad()
def naive_poses(network: Audio2HeadposeNet, audio: torch.Tensor, count: int) -> None:
    field = network.receptive_field
    padded = torch.cat([audio[:1].expand(field - 1, -1), audio])
    history = torch.zeros(field, 12, device=audio.device)
    for i in range(count):
        params = network(history[None], padded[None, i + 15 : i + 15 + field])
        pose = network.sample(params[:, 0], 0.3, None)
        history = torch.cat([history[1:], pose])


def person() -> PersonMotion:
    rng = np.random.default_rng(0)
    points = rng.normal(0, 0.3, (600, 73, 3))
    trans = np.array([0.0, 0, 900])
    camera = np.array([[700.0, 0, 256], [0, 700, 256], [0, 0, 1]])
    shoulders = rng.normal(0, 50, (18, 3)) + trans
    return PersonMotion(
        points.mean(0), points.mean(0), points[:, :16], trans, shoulders, trans, 90.0, camera
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=11.5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-render", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)
    wave = np.random.default_rng(0).normal(0, 0.1, round(16000 * args.seconds)).astype(np.float32)
    frames = frame_count(len(wave))
    print(f"{args.seconds} s of sound, {frames} motion frames, {device}, {args.threads} thread(s)")

    def row(name: str, plain: float, ours: float, unit: str = "s") -> None:
        print(f"{name:<28} plain {plain:9.4f} {unit}, ours {ours:9.4f} {unit}: x{plain / ours:.1f}")

    assert np.abs(mel_loop(wave[:16000]) - mel_rows(wave[:16000], 0, 120)).max() < 1e-4
    row("mel", timed(lambda: mel_loop(wave)), timed(lambda: apc_mel(wave), 3))

    database = torch.randn(DATABASE, 512).relu()
    features = database[torch.randint(DATABASE, (2 * frames,))] + 0.1 * torch.randn(2 * frames, 512)
    manifold = ManifoldProjection(database, ridge=0.0)
    few, base = features.numpy()[:60], database.numpy()
    assert np.abs(lle_loop(few, base) - manifold(features[:60]).numpy()).max() < 1e-2
    plain = timed(lambda: lle_loop(few, base)) * len(features) / len(few)
    row(f"neighbours + LLE, {DATABASE} rows", plain, timed(lambda: manifold(features)))

    heads = Audio2HeadposeNet().eval().to(device)
    audio = torch.randn(frames, 1024, device=device)
    plain = timed(lambda: naive_poses(heads, audio, NAIVE_FRAMES)) / NAIVE_FRAMES
    heard = look_ahead(audio, 15)
    ours = timed(lambda: list(PoseGenerator(heads).generate(heard))) / frames
    row("head pose, with warm-up", 1000 * plain, 1000 * ours, "ms per frame")

    chain = SpeechMotion(
        APCEncoder().eval().to(device), Audio2FeatureNet().eval().to(device), heads, (18, 15),
        ManifoldProjection(database.to(device)), person(), PortraitInfer(), 0.3,
    )  # fmt: skip
    print(f"whole motion stage           {timed(lambda: chain.generate(wave)):9.3f} s")
    if args.no_render:
        return
    for size, side in (("small", 512), ("normal", 512), ("large", 512), ("normal", 256)):
        net = optimize_for_inference(Feature2FaceNet(size, side.bit_length() - 2).to(device))
        maps = torch.zeros(1, 1, side, side, device=device)
        known = torch.zeros(1, 12, side, side, device=device)
        with torch.inference_mode():
            each = timed(lambda n=net, m=maps, k=known: n(m, k), 3)
        print(f"rendering, {size}, {side} px   {1000 * each:9.1f} ms per frame ({1 / each:.1f}/s)")


if __name__ == "__main__":
    main()
