"""Figures that depend on the face tracker, on a folder of real clips: what its limits rest on.

Run it after the tracker changed (MediaPipe, the model file, the options), on the same clips as
before, and compare: thresholds and documented figures follow from these numbers.

    python benchmarks/tracker_calibration.py CLIPS --speaker=CLIPS_OF_ONE_SPEAKER [--output=x.json]

CLIPS holds videos of many people, in sub-folders; the second folder many short clips of one person
whose sound and picture are in step (e.g. a GRID speaker).
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import combinations
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from talkingface.config.schema import QualitySection
from talkingface.data.clips import make_clip
from talkingface.data.face.pose import (
    canonicalize,
    face_center,
    flip_depth,
    head_pose,
    pose_template,
    procrustes,
)
from talkingface.data.face.scan import FaceScan, scan_video
from talkingface.data.face.topology import EYE_LEFT, EYE_RIGHT, LIPS, STABLE
from talkingface.data.face.tracking import find_persons, follow
from talkingface.data.media.audio import load_audio
from talkingface.data.media.mel import wav2lip_mel
from talkingface.data.quality import av_offset, measure, mouth_opening, violations
from talkingface.utils.logs import progress

SUFFIXES = (".mp4", ".mov", ".avi", ".mpg", ".mkv")
FPS = 25.0
_SHAPE = sorted({*STABLE, *pose_template()[0].tolist()})


def videos(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)


def shape(landmarks: np.ndarray) -> np.ndarray:
    """Median shape without pose and size, as the grouping of persons compares it."""
    points = flip_depth(landmarks[np.isfinite(landmarks).all(axis=(1, 2))])
    vertices, template = pose_template()
    scale, rotation, shift = procrustes(template, points[:, vertices])
    own = (points[:, _SHAPE] - shift[:, None]) @ rotation / scale[:, None, None]
    return np.median(own, axis=0)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(((a - b) ** 2).sum(1).mean()))


def jitter(values: np.ndarray) -> float:
    return float(np.sqrt((np.diff(values, 2, axis=0) ** 2).mean() / 6))


def per_clip(path: Path, scan: FaceScan) -> dict[str, float]:
    """Found faces, fit of the template, steadiness and quality of one clip."""
    track = follow(scan, fps=FPS)
    wave = load_audio(make_clip(path).audio, rate=16000) if _has_sound(path) else np.zeros(16000)
    measures = measure(track, wave.astype(np.float32), FPS)
    points = track.landmarks[track.found]
    vertices, template = pose_template()
    flipped = flip_depth(points)
    scale, rotation, shift = procrustes(template, flipped[:, vertices])
    fitted = scale[:, None, None] * (template @ np.swapaxes(rotation, 1, 2)) + shift[:, None]
    residual = np.sqrt(((fitted - flipped[:, vertices])[..., :2] ** 2).sum(axis=-1).mean())
    eyes = np.linalg.norm(points[:, 263, :2] - points[:, 33, :2], axis=1).mean()
    pose = head_pose(points, sigma=0)
    still = canonicalize(flipped, head_pose(points), face_center(*track.size))
    gap = still[:, list(EYE_RIGHT)].mean(axis=1) - still[:, list(EYE_LEFT)].mean(axis=1)
    return {
        "found": track.found_ratio,
        "persons": track.persons,
        "template residual, % of the eye distance": 100 * float(residual / eyes),
        "pose jitter, degrees": jitter(pose[:, :3]) if len(points) > 2 else np.nan,
        "landmark jitter, % of the eye distance": 100 * jitter(points[..., :2]) / float(eyes),
        "canonical eye distance, px": float(np.linalg.norm(gap.mean(axis=0))),
        "lips over steady points, canonical spread": float(
            still[:, list(LIPS)].std(axis=0).mean() / still[:, vertices].std(axis=0).mean()
        ),
        **{f"quality {k}": v for k, v in measures.items() if isinstance(v, (int, float))},
        **{f"flagged {k}": 1.0 for k in violations(measures, QualitySection())},
    }


def _has_sound(path: Path) -> bool:
    from talkingface.data.media.probe import probe

    return probe(make_clip(path).audio).has_audio


def persons(shapes: list[list[np.ndarray]]) -> dict[str, float]:
    """Distances of shapes inside a clip (its thirds) and between clips of different folders."""
    inside = [distance(a, b) for own in shapes for a, b in combinations(own, 2)]
    between = [distance(a[0], b[0]) for a, b in combinations(shapes, 2)]
    limits = np.arange(0.015, 0.06, 0.001)
    balance = [(np.mean(np.array(inside) < k) + np.mean(np.array(between) > k)) / 2 for k in limits]
    return {
        "same clip below 0.030": float(np.mean(np.array(inside) < 0.030)),
        "other people above 0.030": float(np.mean(np.array(between) > 0.030)),
        "best limit": float(limits[int(np.argmax(balance))]),
        "balanced accuracy there": float(max(balance)),
    }


def speaker(paths: list[Path]) -> dict[str, float]:
    """Offset of the sound, and how well a ridge regression reads the mouth from it."""
    offsets, inputs, outputs = [], [], []
    for path in progress(paths, desc="one speaker", unit="clip"):
        scan = scan_video(path, fps=FPS, tracking=True)
        if not len(scan.frame):
            continue
        marks, wave = follow(scan, fps=FPS).landmarks, load_audio(path, rate=16000)
        offsets.append(av_offset(marks, wave, FPS))
        mel = wav2lip_mel(wave)
        centres = np.minimum((np.arange(len(marks)) + 0.5) * 80 / FPS, mel.shape[1] - 9).astype(int)
        windows = [mel[:, max(c - 8, 0) : max(c - 8, 0) + 16].ravel() for c in centres]
        height = np.linalg.norm(marks[:, 10, :2] - marks[:, 152, :2], axis=1)
        inner = np.linalg.norm(marks[:, 13, :2] - marks[:, 14, :2], axis=1)
        known = np.isfinite(inner)
        inputs.append(np.array(windows)[known])
        outputs.append(np.stack([inner / np.nanmedian(height), mouth_opening(marks)], 1)[known])
    cut = 3 * len(inputs) // 4
    x, y = np.concatenate(inputs[:cut]), np.concatenate(outputs[:cut])
    mean = x.mean(axis=0)
    gram = (x - mean).T @ (x - mean) + 1e3 * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, (x - mean).T @ (y - y.mean(axis=0)))
    guess = (np.concatenate(inputs[cut:]) - mean) @ weights
    truth = np.concatenate(outputs[cut:])
    value, trust = np.array(offsets).T
    sure = trust >= 0.2
    return {
        "clips": len(offsets),
        "offset within 60 ms": float(np.mean(np.abs(value) <= 60)),
        "confident": float(sure.mean()),
        "offset within 60 ms, confident": float(np.mean(np.abs(value[sure]) <= 60)),
        "offset within 120 ms, confident": float(np.mean(np.abs(value[sure]) <= 120)),
        "median offset, ms": float(np.nanmedian(value)),
        "ridge r, inner gap": float(np.corrcoef(guess[:, 0], truth[:, 0])[0, 1]),
        "ridge r, outer lips": float(np.corrcoef(guess[:, 1], truth[:, 1])[0, 1]),
        "inner gap, standard deviation, % of the face height": 100 * float(truth[:, 0].std()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("--speaker", type=Path)
    parser.add_argument("--limit", type=int, default=160, help="clips of the speaker")
    parser.add_argument("--output", type=Path, help="JSON with all values")
    args = parser.parse_args()
    rows, shapes = {}, []
    for path in progress(videos(args.clips), desc="clips", unit="clip"):
        if args.speaker and args.speaker in path.parents:
            continue
        try:
            scan = scan_video(path, fps=FPS, tracking=True)
            if not len(scan.frame):
                raise ValueError("no face")
            name = str(path.relative_to(args.clips))
            rows[name] = per_clip(path, scan)
            main_person = find_persons(scan, fps=FPS)[0]
            if len(main_person) >= 30:
                thirds = np.array_split(scan.points[main_person], 3)
                shapes.append([shape(part) for part in thirds])
        except Exception as error:
            print(f"left out: {path.name}: {error}", file=sys.stderr)
    result = {"clips": rows, "persons": persons(shapes)}
    if args.speaker:
        result["speaker"] = speaker(videos(args.speaker)[: args.limit])
    for title in ("persons", "speaker"):
        for key, value in result.get(title, {}).items():
            print(f"{title}: {key}: {value:.4g}")
    keys = sorted({key for row in rows.values() for key in row})
    for key in keys:
        values = np.array([row.get(key, np.nan) for row in rows.values()], float)
        if key.startswith("flagged"):
            print(f"{key}: {int(np.nansum(values))} of {len(rows)} clips")
        elif np.isfinite(values).any():
            low, middle, high = np.nanpercentile(values, [5, 50, 95])
            print(f"{key}: median {middle:.4g}, 5 % {low:.4g}, 95 % {high:.4g}")
    if args.output:
        args.output.write_text(json.dumps(result, indent=1), "utf-8")


if __name__ == "__main__":
    main()
