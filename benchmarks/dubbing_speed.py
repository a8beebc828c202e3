"""Milliseconds per frame of dubbing a video, by step, against the chain of the official code.

    python benchmarks/dubbing_speed.py clip_720p.mp4                  # base, then base + HR 256
    python benchmarks/dubbing_speed.py clip.mp4 --preset=cpu --threads 1 2 --device=cuda

Random weights of the chosen preset (default: the official size); speed does not depend on them. The
official chain is timed in the same run on the same frame, each part by what dominates it: the VGG16
trunk of S3FD on the whole frame, the plain base network, the ResNet-18 trunk of BiSeNet at 512 px,
erosion, 75 px blur and blend of the whole frame. All of them are lower bounds of the real parts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from talkingface.components.models import build_model
from talkingface.config.config import load_config
from talkingface.data.face.boxes import crop_face
from talkingface.data.face.scan import scan_frames
from talkingface.data.face.tracking import follow
from talkingface.data.media.audio import load_audio
from talkingface.data.media.reader import read_frames
from talkingface.data.media.writer import VideoWriter
from talkingface.model.component import Component
from talkingface.pipeline.hyperlips.dubbing import DubbingPipeline
from talkingface.pipeline.hyperlips.dubbing_hr import HyperLipsHRPipeline
from talkingface.utils.env import import_cv2

FPS = 25


def ms(run: Callable[[], object], frames: int) -> float:
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start) / frames


def official_chain(frame: np.ndarray, device: torch.device) -> dict[str, float]:
    """Medians of three runs of what dominates each official step."""
    from torchvision.models import resnet18, vgg16

    from talkingface.model.audio_driven_talkingface.hyperlips.hyperlips_networks import (
        HyperLipsBaseNet,
    )

    cv2 = import_cv2()
    height, width = frame.shape[:2]
    trunk = vgg16().features.eval().to(device)
    base = HyperLipsBaseNet().eval().to(device)
    parser = torch.nn.Sequential(*list(resnet18().children())[:-2]).eval().to(device)
    whole = torch.rand(1, 3, height, width, device=device)
    small = torch.rand(1, 3, 512, 512, device=device)
    audio, face = torch.rand(1, 1, 80, 16, device=device), torch.rand(1, 6, 128, 128, device=device)
    mask = np.zeros((height, width, 3), np.float32)
    mask[height // 3 : height // 2, width // 3 : width // 2] = 1

    def blend() -> None:
        soft = cv2.GaussianBlur(cv2.erode(mask, np.ones((5, 5))), (75, 75), 0)
        (frame * (1 - soft) + frame * soft).astype(np.uint8)

    steps = {
        "face detection (S3FD)": lambda: trunk(whole),
        "base network": lambda: base(audio, face),
        "face parsing (BiSeNet)": lambda: parser(small),
        "blend of the frame": blend,
    }
    result = {}
    for name, run in steps.items():
        run()
        result[name] = statistics.median(ms(run, 1) for _ in range(3))
    return result


def our_chain(
    pipeline: DubbingPipeline, video: Path, frames: list[np.ndarray], wave: np.ndarray
) -> dict[str, float]:
    """Each step on all frames, as the pipeline takes it."""
    count, cfg = len(frames), pipeline.cfg
    steps = {"decode (twice)": 2 * ms(lambda: list(read_frames(video, fps=FPS)), count)}
    scans: list = []
    found = {"tracking": True, "options": cfg.face}
    steps["find faces, track"] = ms(lambda: scans.append(scan_frames(frames, **found)), count)
    steps["boxes, persons"] = ms(lambda: follow(scans[0], fps=FPS), count)
    source = pipeline.prepare(video)
    track = source.track
    windows = pipeline._windows(wave, FPS)[:count]
    codes: list = []
    steps["sound"] = ms(lambda: codes.extend(pipeline._codes(windows)), len(windows))
    numbers = range(min(count, len(windows)))
    size = cfg.infer.batch_size
    groups = [numbers[i : i + size] for i in range(0, len(numbers), size)]
    faces: list[np.ndarray] = []

    def paint() -> None:
        for group in groups:
            crops = [crop_face(frames[n], track.boxes[n])[..., ::-1] for n in group]
            own = [level[group[0] : group[-1] + 1] for level in codes]
            faces.extend(pipeline._synthesize(crops, source, list(group), own))

    steps["crop, base network"] = ms(paint, len(numbers))
    if isinstance(pipeline, HyperLipsHRPipeline):
        items = [(n, frames[n], face) for n, face in zip(numbers, faces, strict=True)]
        lined: list = []
        draw = lambda: lined.extend(pipeline._sketched(items, source))  # noqa: E731
        steps["sketches"] = ms(draw, len(numbers))
        faces = []

        def sharpen() -> None:
            for i in range(0, len(lined), size):
                part = lined[i : i + size]
                faces.extend(pipeline._sharpen([p[1] for p in part], [p[2] for p in part]))

        steps["HR network"] = ms(sharpen, len(numbers))
    pasted: list[np.ndarray] = []

    def paste() -> None:
        with pipeline._mesher() as mesher:
            for n, face in zip(numbers, faces, strict=True):
                pasted.append(pipeline._paste(source, n, frames[n], face[..., ::-1], mesher))

    steps["paste"] = ms(paste, len(numbers))
    with tempfile.TemporaryDirectory() as folder:

        def encode() -> None:
            with VideoWriter(Path(folder) / "a.mp4", FPS, audio=(wave, 16000)) as writer:
                for frame in pasted:
                    writer.write(frame)

        steps["encode"] = ms(encode, len(numbers))
    return steps


def whole_command(pipeline: DubbingPipeline, video: Path, wave: np.ndarray) -> float:
    """Milliseconds per frame of ``render``, faces not cached."""
    from talkingface.data.face import tracking

    scan = tracking.scan_video
    tracking.scan_video = lambda *args, **kwargs: scan(*args, **{**kwargs, "cache": False})
    try:
        with tempfile.TemporaryDirectory() as folder:
            done = pipeline.render(video, wave, Path(folder) / "a.mp4")
    finally:
        tracking.scan_video = scan
    return 1000 * done.seconds_taken / done.frames


def build(name: str, preset: str | None, size: int, device: torch.device) -> DubbingPipeline:
    torch.manual_seed(0)
    known = {"HyperLipsHR": {"model_params.image_size": size}}
    cfg = load_config(name, "Synthetic", preset=preset, overrides=known.get(name, {}))
    model = build_model(cfg).eval()
    if name == "HyperLipsHR":
        base = build_model(load_config("HyperLipsBase", "Synthetic", preset=preset))
        model.components["base"] = Component(base.network)
        return HyperLipsHRPipeline(cfg, model, device)
    return DubbingPipeline(cfg, model, device)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("video")
    parser.add_argument("--preset", help="e.g. cpu; default: the official size")
    parser.add_argument("--hr_size", type=int, default=256, choices=(128, 256, 512))
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--threads", type=int, nargs="+", default=[2])
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device, video = torch.device(args.device), Path(args.video)
    frames = []
    for frame in read_frames(video, fps=FPS):
        frames.append(frame)
        if len(frames) == args.frames:
            break
    wave = load_audio(video, 16000)
    names = {"base": "HyperLipsBase", f"base + HR {args.hr_size}": "HyperLipsHR"}
    for threads in args.threads:
        torch.set_num_threads(threads)
        print(f"\n{video.name}, {frames[0].shape[1]} x {frames[0].shape[0]}, {threads} thread(s)")
        official = official_chain(frames[0], device)
        for name, value in official.items():
            print(f"  official: {name:26} {value:8.1f} ms per frame (lower bound)")
        for title, name in names.items():
            pipeline = build(name, args.preset, args.hr_size, device)
            for step, value in our_chain(pipeline, video, frames, wave).items():
                print(f"  {title}: {step:26} {value:8.1f}")
            total = whole_command(pipeline, video, wave)
            ratio = sum(official.values()) / total
            print(f"  {title}: the whole command, faces not cached: {total:.1f} ms per frame; the "
                  f"official parts {sum(official.values()):.0f} ms, ratio {ratio:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
