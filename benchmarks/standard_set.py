"""Seconds for the standard metrics of a 10 s clip of 512 px on one core, against reference tools.

The metrics are LMD, LMD_v, MA, LSE, NIQE (every fifth frame), PSNR and SSIM. The generated video
is the real one, blurred and encoded again. LSE runs a SyncNet of the official size with random
weights: only time is measured. References, in the same run: MediaPipe frame by frame, scikit-image,
NIQE as it is defined (``tests/slowmetrics.py``), SyncNet window by window in batches of 20 as in
the official script.

    python benchmarks/standard_set.py VIDEO [--niqe=niqe_pris_params.npz]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

if hasattr(os, "sched_setaffinity"):  # before any library counts the cores
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import cv2
import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import slowmetrics as slow

from talkingface.config.config import load_config
from talkingface.data.face.boxes import face_boxes, resize_image
from talkingface.data.face.mesh import FaceMesher
from talkingface.data.media.audio import load_audio
from talkingface.data.media.mfcc import syncnet_mfcc
from talkingface.data.media.reader import read_frames
from talkingface.data.media.writer import VideoWriter
from talkingface.evaluator.clip import ClipPair
from talkingface.evaluator.evaluator import Evaluator, RowResult
from talkingface.evaluator.metrics import niqe
from talkingface.evaluator.metrics.syncnet.sync_score import crops
from talkingface.model.audio_driven_talkingface.syncnet.syncnet_networks import (
    SyncNet,
    audio_windows,
)

METRICS = ["LMD", "LMD_v", "MA", "LSE", "NIQE", "PSNR", "SSIM"]
SECONDS, SIDE, FPS = 10, 512, 25
WANG = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def make_pair(video: Path, folder: Path) -> ClipPair:
    wave = load_audio(video, 16000)[: SECONDS * 16000]
    real, made = folder / "real.mp4", folder / "made.mp4"
    with VideoWriter(real, FPS, audio=(wave, 16000)) as one, VideoWriter(made, FPS) as two:
        for frame in islice(read_frames(video, fps=FPS), SECONDS * FPS):
            frame = frame if frame.shape[:2] == (SIDE, SIDE) else resize_image(frame, SIDE)
            one.write(frame)
            two.write(cv2.GaussianBlur(frame, (0, 0), 1.0))
    return ClipPair("clip", made, real)


def ours(pair: ClipPair, cfg_of: Callable[[list[str]], object], names: list[str]) -> float:
    """Seconds with nothing known before: fresh pair, fresh networks, empty cache of faces."""
    from talkingface.evaluator.metrics import lse

    lse._network.cache_clear()
    lse._sound.cache_clear()
    evaluator = Evaluator(cfg_of(names))
    row = RowResult("made")
    seconds = timed(lambda: evaluator.score_clip(ClipPair("clip", pair.generated, pair.real), row))
    undefined = sorted({key for _, key in row.reasons})
    if undefined:
        print(f"  undefined: {undefined}: {next(iter(row.reasons.values()))}")
    return seconds


def references(pair: ClipPair, network: SyncNet, parameters: Path | None) -> dict[str, float]:
    """Seconds of the reference tools; they read frames from memory, decoding costs nothing."""
    made, real = (list(read_frames(p, fps=FPS)) for p in (pair.generated, pair.real))
    seconds: dict[str, float] = {}
    marks: list[np.ndarray] = []

    def landmarks() -> None:
        for frames in (made, real):
            with FaceMesher(tracking=False) as mesher:
                marks[:] = [mesher(frame)[0] for frame in frames]

    seconds["landmarks"] = timed(landmarks)
    seconds["PSNR"] = timed(
        lambda: [peak_signal_noise_ratio(r, m) for r, m in zip(real, made, strict=True)]
    )
    seconds["SSIM"] = timed(
        lambda: [
            structural_similarity(m, r, data_range=255, channel_axis=-1, **WANG)
            for r, m in zip(real, made, strict=True)
        ]
    )
    if parameters is not None:
        pristine = niqe.read_parameters(parameters)
        seconds["NIQE"] = timed(
            lambda: [
                slow.niqe(niqe.to_luma(m), pristine.mean, pristine.covariance) for m in made[::5]
            ]
        )

    @torch.no_grad()
    def sync() -> None:
        boxes = face_boxes(np.stack(marks), fps=FPS)
        lips = np.stack(list(crops(made, boxes, network.image_size)))[..., ::-1].copy()
        lips = torch.from_numpy(lips).permute(3, 0, 1, 2).float()
        mfcc = torch.from_numpy(syncnet_mfcc(load_audio(pair.real, 16000)))
        sounds = audio_windows(mfcc, len(made) - 5)
        for start in range(0, len(made) - 5, 20):
            stop = min(start + 20, len(made) - 5)
            network.forward_lip(torch.stack([lips[:, v : v + 5] for v in range(start, stop)]))
            network.forward_aud(sounds[start:stop])

    seconds["LSE"] = timed(sync)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--niqe", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["TALKINGFACE_ROOT"] = place
        torch.manual_seed(0)
        network = SyncNet().eval()
        torch.save(network.state_dict(), folder / "random.pth")
        pair = make_pair(given.video, folder)

        def cfg_of(names: list[str]) -> object:
            params: dict[str, dict] = {"LSE": {"weights": str(folder / "random.pth")}}
            if given.niqe:
                params["NIQE"] = {"params": str(given.niqe.resolve())}
            chosen = {k: v for k, v in params.items() if k in names}
            settings = {"metrics": names, "metric_params": chosen}
            return load_config("SyncNet", "Synthetic", overrides=settings)

        names = [m for m in METRICS if m != "NIQE" or given.niqe]
        load_config("SyncNet", "Synthetic")
        ours(pair, cfg_of, ["PSNR"])  # imports
        whole = ours(pair, cfg_of, names)
        known = ours(pair, cfg_of, names)
        slow_ones = references(pair, network, given.niqe)
    total = sum(slow_ones.values())
    print(f"{', '.join(names)} of {SECONDS} s at {SIDE} px, one core:")
    print(f"  ours {whole:.1f} s; {known:.1f} s when the real video's faces are known already")
    print("  references " + ", ".join(f"{k} {v:.1f} s" for k, v in slow_ones.items()))
    print(f"  together {total:.1f} s, ratio {total / whole:.1f}")


if __name__ == "__main__":
    main()
