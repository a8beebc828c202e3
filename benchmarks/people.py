"""Rendered people: milliseconds a frame by part and size, and a sheet of pictures to look at.

    python benchmarks/people.py [--persons=24] [--sheet=people.png] [--sizes=256,512] [--visemes]

One core. The reference is a Gaussian blur of 31 x 31 pixels of a 1920 x 1080 picture by OpenCV on
one core. ``--visemes`` draws the shapes of the mouth of six persons instead of portraits.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from talkingface.data.synthetic import raster, shading
from talkingface.data.synthetic.body import Scene, build_body
from talkingface.data.synthetic.head import expression
from talkingface.data.synthetic.mouth import PHONES, SHAPES, VISEMES, MouthRig, MouthTrack
from talkingface.data.synthetic.movement import MOODS
from talkingface.data.synthetic.person import Person
from talkingface.data.synthetic.renderer import Pose, Renderer
from talkingface.utils.logs import progress

PARTS = {
    "mesh": (raster, ("vertex_normals", "turn", "project")),
    "depth and shadow": (raster, ("draw_mesh", "draw_shadow_lines", "reduce_depth")),
    "skin and clothes": (shading, ("shade", "coverage", "compose")),
    "hair": (shading, ("shade_lines",)),
    "hair lines": (raster, ("depth_order", "blend_lines")),
}
SHOWN = "SIL AA AE AH IY AO UW W R P F TH L S SH K".split()
FRAMES = 15


def reference() -> float:
    """Seconds of the reference."""
    picture, best = np.zeros((1080, 1920, 3), np.uint8), 9.0
    for _ in range(7):
        began = time.perf_counter()
        cv2.GaussianBlur(picture, (31, 31), 8)
        best = min(best, time.perf_counter() - began)
    return best


def timed(renderer: Renderer) -> dict[str, float]:
    """Milliseconds of each part and of the whole frame."""
    spent: dict[str, float] = defaultdict(float)

    def clock(part: str, function):
        def call(*arguments):
            began = time.thread_time()
            result = function(*arguments)
            spent[part] += time.thread_time() - began
            return result

        return call

    poses = [Pose(expression(jawOpen=0.02 * k), turn=(0, k - 7, 0)) for k in range(FRAMES)]
    renderer.frame(poses[0])
    began = time.thread_time()
    for pose in poses:
        renderer.frame(pose)
    spent["frame"] = time.thread_time() - began
    with ExitStack() as stack:
        for part, (module, names) in PARTS.items():
            for name in names:
                function = clock(part, getattr(module, name))
                stack.enter_context(mock.patch.object(module, name, function))
        for pose in poses:
            renderer.frame(pose)
    return {part: 1000 * seconds / FRAMES for part, seconds in spent.items()}


def visemes(renderer: Renderer) -> np.ndarray:
    """The mouth for each of ``SHOWN``."""
    rig, pictures = MouthRig(renderer.body.face, 1.0), []
    for phone in SHOWN:
        name, opening = PHONES[phone][:2]
        shape = np.array([[VISEMES[name].get(s, 0.0) for s in SHAPES]])
        track = MouthTrack(np.array([opening]), shape, np.array([float(phone == "P")]))
        weights, tongue = rig.frame(track, 0, expression(**MOODS["neutral"]))
        picture = renderer.frame(Pose(weights, tongue=tongue))
        size = len(picture)
        part = picture[int(0.46 * size) : int(0.8 * size), int(0.3 * size) : int(0.7 * size)].copy()
        cv2.putText(part, phone, (3, len(part) - 4), 0, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
        pictures.append(part)
    return np.hstack(pictures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--persons", type=int, default=24)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--sizes", default="256,512")
    parser.add_argument("--visemes", action="store_true")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    blur, sheet = reference(), []
    rows: dict[tuple[int, str], list[dict[str, float]]] = defaultdict(list)
    baked = []
    for seed in progress(range(given.persons), unit="person", desc="rendering"):
        person, rng = Person.draw(seed), np.random.default_rng([7, seed])
        began = time.perf_counter()
        body = build_body(person, Scene.draw(rng))
        baked.append(time.perf_counter() - began)
        for size in map(int, given.sizes.split(",")):
            renderer = Renderer(body, size)
            rows[size, person.hair[0]].append(timed(renderer))
            if size == int(given.sizes.split(",")[0]):
                if given.visemes:
                    sheet.append(visemes(renderer))
                else:
                    yaw = float(rng.uniform(-15, 15))
                    weights = expression(**MOODS["neutral"])
                    sheet.append(renderer.frame(Pose(weights, turn=(0, yaw, 0))))
    print(f"a person is ready after {statistics.median(baked):.1f} s; ms a frame:")
    parts = ["frame", *PARTS]
    print(f"{'size':>5} {'hair':8}" + "".join(f"{part:>18}" for part in parts))
    for (size, hair), values in sorted(rows.items()):
        means = [statistics.mean(value[part] for value in values) for part in parts]
        print(f"{size:>5} {hair:8}" + "".join(f"{mean:18.1f}" for mean in means))
    for size in sorted({size for size, _ in rows}):
        frames = [v["frame"] for (s, _), values in rows.items() for v in values if s == size]
        print(
            f"{size} px: {statistics.mean(frames):.1f} ms, at most {max(frames):.1f}; "
            f"{statistics.mean(frames) / 1000 / blur:.2f} of the reference ({1000 * blur:.1f} ms)"
        )
    if given.sheet:
        columns = 1 if given.visemes else 6
        sheet += [np.zeros_like(sheet[0])] * (-len(sheet) % columns)
        lines = [np.hstack(sheet[i : i + columns]) for i in range(0, len(sheet), columns)]
        cv2.imwrite(str(given.sheet), np.vstack(lines)[..., ::-1])


if __name__ == "__main__":
    main()
