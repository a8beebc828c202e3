"""Make a GIF for the docs from videos of a result: a column for each clip, a row for each folder.

python tools/make_gif.py docs/images/dubbing.gif --rows=source:DIR,dubbed:DIR --clips=a,b,c
"""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

from talkingface.data.face.boxes import resize_image  # noqa: E402
from talkingface.data.media.reader import read_frames  # noqa: E402

FPS = 12.5


def frames_of(path: Path, side: int, count: int) -> list[np.ndarray]:
    frames = list(islice(read_frames(path, fps=FPS), count))
    return [resize_image(frame, (side, side)) for frame in frames]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--rows", required=True, help="title:folder, separated by commas")
    parser.add_argument("--clips", required=True, help="names of clips, separated by commas")
    parser.add_argument("--side", type=int, default=176, help="of a face, in pixels")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--colours", type=int, default=96)
    args = parser.parse_args()
    count = round(args.seconds * FPS)
    rows, titles = [], []
    for part in args.rows.split(","):
        title, _, folder = part.partition(":")
        clips = [Path(folder) / f"{name}.mp4" for name in args.clips.split(",")]
        columns = [frames_of(path, args.side, count) for path in clips]
        rows.append([np.concatenate(frames, 1) for frames in zip(*columns, strict=False)])
        titles.append(title)
    pictures = []
    for parts in zip(*rows, strict=False):
        picture = Image.fromarray(np.concatenate(parts))
        draw = ImageDraw.Draw(picture)
        for number, title in enumerate(titles):
            place = (6, number * args.side + 4)
            draw.text(place, title, fill="white", stroke_width=2, stroke_fill="black", font_size=13)
        pictures.append(picture)
    # One palette for all frames, so that the background does not flicker.
    sheet = Image.fromarray(np.concatenate([np.asarray(p) for p in pictures[::6]]))
    palette = sheet.quantize(args.colours, method=Image.Quantize.MEDIANCUT)
    quantized = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    options = {"save_all": True, "append_images": quantized[1:], "loop": 0, "optimize": True}
    quantized[0].save(args.output, duration=round(1000 / FPS), **options)
    print(f"{args.output}: {len(pictures)} frames, {args.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
