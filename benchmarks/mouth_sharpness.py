"""How sharp are generated mouths? Strength of fine details against the real video.

    python benchmarks/mouth_sharpness.py results/HyperLipsHR/<Dataset>/<run>/videos

Every folder of videos inside is a row; "real video (re-encoded)" is the reference and shows where
the mouth is. detail: deviation of the Laplacian in twice the lip box; gradient: mean length
of the Sobel gradient; both on grey pictures of 0 to 255, every tenth frame. Sharper is not better
where it is not real: read them beside PSNR, SSIM and LMD.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from talkingface.data.media.reader import read_frames
from talkingface.evaluator.clip import ClipPair
from talkingface.utils.env import import_cv2

REAL = "real_video_(re-encoded)"


def details(picture: np.ndarray) -> tuple[float, float]:
    """Laplacian deviation and mean gradient of (H,W,3) uint8 RGB."""
    cv2 = import_cv2()
    grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY).astype(np.float32)
    slopes = (cv2.Sobel(grey, cv2.CV_32F, *axes) for axes in ((1, 0), (0, 1)))
    return float(cv2.Laplacian(grey, cv2.CV_32F).std()), float(np.hypot(*slopes).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("videos", type=Path)
    parser.add_argument("--clips", type=int, default=10)
    args = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {}
    for real in sorted((args.videos / REAL).rglob("*.mp4"))[: args.clips]:
        name = real.relative_to(args.videos / REAL)
        pair = ClipPair(str(name), real, real)
        for row in sorted(p.name for p in args.videos.iterdir()):
            for index, frame in enumerate(read_frames(args.videos / row / name, fps=25)):
                box = None if index % 10 else pair.region("mouth", index)
                if box is not None:
                    x0, y0, x1, y1 = np.rint(box).astype(int)
                    found.setdefault(row, []).append(details(frame[y0:y1, x0:x1]))
    print(f"{'':28}{'detail':>9}{'gradient':>10}")
    for row, values in found.items():
        detail, gradient = np.mean(values, axis=0)
        print(f"{row:28}{detail:9.2f}{gradient:10.2f}")


if __name__ == "__main__":
    main()
