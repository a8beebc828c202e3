"""HeadGAN between people: how well heads follow another head, and how frontal frontal faces are.

    python benchmarks/headgan_modes.py RUN --sources=a.mp4,b.mp4,... [--drivers=...] [--frames 50]
                                       [--output=sheet.png]

Every source is driven by every other driver (cross reenactment with camera adaptation), turned to
the front, turned by 15 degrees and made to open its mouth. Faces are looked for in the generated
pictures and fitted with the run's face model. Rows: turn between the head that was asked for and
the generated one in degrees, correlation of the lip openings, share of pictures with a face; the
same for the copied reference picture.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from talkingface.components.models import build_model, load_model_weights
from talkingface.data.dataprocess.headgan.headgan_process import resized
from talkingface.data.face.face_model import Geometry
from talkingface.data.face.mesh import FaceMesher
from talkingface.data.face.topology import INNER_LIP_BOTTOM, INNER_LIP_TOP
from talkingface.pipeline.build import build_pipeline
from talkingface.quick_start.infer import configure
from talkingface.utils.env import import_cv2

WIDE = 256  # px at which faces are looked for


def angles(rotation: np.ndarray) -> np.ndarray:
    """(T,3) yaw, pitch and roll in degrees of (T,3,3)."""
    return Rotation.from_matrix(rotation).as_euler("YXZ", degrees=True) * (1, 1, -1)


def turn_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(T,) angle in degrees of the rotation from one (T,3,3) to the other."""
    trace = np.einsum("tij,tij->t", first, second)
    return np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


def pipeline_of(run: str, **keys: object):
    cfg, checkpoint = configure({"checkpoint": run}, {"model": "HeadGAN", **keys}, [])
    model = build_model(cfg)
    load_model_weights(model, checkpoint)
    return build_pipeline(cfg, model.eval(), torch.device("cpu"))


def fitted(pipeline, source, frames: list[np.ndarray]) -> tuple[Geometry | None, np.ndarray]:
    """Geometry of generated frames, in the source's own face, and where a face was found."""
    cv2 = import_cv2()
    with FaceMesher(tracking=False) as mesher:
        found = [mesher(cv2.resize(f, (WIDE, WIDE), interpolation=cv2.INTER_CUBIC)) for f in frames]
    known = np.array([len(each) > 0 for each in found])
    if not known.any():
        return None, known
    points = np.stack([each[0] for each in found if len(each)]).astype(np.float64)
    return pipeline.face.fit(points, source.geometry.neutral), known


def opening(pipeline, geometry: Geometry) -> np.ndarray:
    shapes = pipeline.face.shape(geometry.neutral, geometry.expression)
    return np.linalg.norm(shapes[:, INNER_LIP_TOP] - shapes[:, INNER_LIP_BOTTOM], axis=1)


def compare(pipeline, source, frames: list[np.ndarray], asked: Geometry) -> tuple[float, ...]:
    """Turn in degrees, correlation of the opening, share with a face."""
    made, known = fitted(pipeline, source, frames)
    if made is None:
        return np.nan, np.nan, 0.0
    wanted = asked.part(np.flatnonzero(known))
    turn = turn_between(made.rotation, wanted.rotation).mean()
    gaps = opening(pipeline, made), opening(pipeline, wanted)
    moves = min(gap.std() for gap in gaps) > 1e-6
    return float(turn), float(np.corrcoef(*gaps)[0, 1]) if moves else np.nan, float(known.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--sources", required=True)
    parser.add_argument("--drivers")
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    sources = [Path(p) for p in args.sources.split(",")]
    drivers = [Path(p) for p in (args.drivers or args.sources).split(",")]
    silence = np.zeros(round(args.frames / 25 * 16000), np.float32)
    sheet, rows, still = [], [], []
    cross = pipeline_of(args.run, **{"infer.mode": "cross"})
    for source in sources:
        own = cross.prepare(source)
        line = [cross._picture(own)]
        for driver in drivers:
            if driver == source:
                continue
            own = cross.with_driver(own, driver)
            moving = own.driver
            wave = moving.wave()[: len(silence)]
            count = min(args.frames, cross.frame_count(own, wave))
            frames = [f for f, _ in zip(cross.generate(own, wave), range(count), strict=False)]
            asked = cross.motion(own, wave, count)
            rows.append(compare(cross, own, frames, asked))
            still.append(compare(cross, own, [cross._picture(own)] * 2, asked.part([0, count - 1])))
            far = int(np.abs(angles(asked.rotation)[:, 0]).argmax())
            line += [resized(moving.pictures[far], cross.size), frames[far]]
        sheet.append(np.concatenate(line, axis=1))
    report("driven by others", rows)
    report("copied reference", still)
    edits = {
        "frontalized": {"infer.mode": "frontalize"},
        "turned by 15": {"infer.mode": "edit_pose", "infer.edit.yaw": 15.0},
        "mouth opened": {"infer.mode": "edit_expression", "infer.edit.expression": {"jaw_open": 2}},
    }
    lines: list[list[np.ndarray]] = [[] for _ in sources]
    away: list[list[np.ndarray]] = []
    for title, keys in edits.items():
        pipeline = pipeline_of(args.run, **keys)
        found = []
        for number, source in enumerate(sources):
            own = pipeline.prepare(source)
            count = min(args.frames, pipeline.frame_count(own, silence))
            frames = list(pipeline.generate(own, silence[: round(count / 25 * 16000)]))
            asked = pipeline.motion(own, silence, len(frames))
            found.append(compare(pipeline, own, frames, asked))
            if title == "frontalized":
                made, _ = fitted(pipeline, own, frames)
                if made is not None:
                    pair = [np.abs(angles(g.rotation)).mean(axis=0) for g in (made, own.geometry)]
                    away.append(pair)
                    now, before = (one.round(1).tolist() for one in pair)
                    print(f"  {source.stem}: yaw, pitch, roll {now}, before {before}")
            lines[number].append(frames[0])
        report(title, found)
        if title == "frontalized" and away:
            now, before = np.array(away).mean(axis=0).round(1).tolist()
            print(f"  mean over {len(away)}: yaw, pitch, roll {now}, before {before}")
    if args.output:
        from talkingface.data.media.writer import write_image

        pairs = zip(sheet, lines, strict=True)
        whole = [np.concatenate([row, *line], axis=1) for row, line in pairs]
        wide = max(row.shape[1] for row in whole)  # sources that are drivers have fewer pictures
        whole = [np.pad(row, ((0, 0), (0, wide - row.shape[1]), (0, 0))) for row in whole]
        write_image(args.output, np.concatenate(whole))


def report(title: str, rows: list[tuple[float, ...]]) -> None:
    turn, r, share = np.nanmean(np.array(rows, float), axis=0)
    print(f"{title:18} turn {turn:5.2f} degrees, lips r {r:5.2f}, faces {share:.0%}", flush=True)


if __name__ == "__main__":
    main()
