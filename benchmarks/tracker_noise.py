"""Motion that the face tracker reports for a face that does not move, and for real speech.

    python benchmarks/tracker_noise.py CLIPS [--limit=30]

From each video of CLIPS one frame is repeated, with and without camera noise, encoded and measured;
then the video itself. The limits of `Div`, `expression_error`, `jitter` and `BeatAlign` for faces
that are too still lie between.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from talkingface.data.face.pose import head_pose
from talkingface.data.face.scan import scan_video
from talkingface.data.face.topology import N_MESH, STABLE
from talkingface.data.face.tracking import find_persons, meshes
from talkingface.data.media.reader import read_frames
from talkingface.errors import DataError
from talkingface.evaluator.metrics.diversity import face_parts
from talkingface.evaluator.metrics.expression import _aligned
from talkingface.evaluator.metrics.landmark_distance import eye_distance, found
from talkingface.evaluator.metrics.motion import motion_statistics
from talkingface.utils.logs import progress

FRAMES = 40
NOISE = 2.0  # grey levels of camera noise
KINDS = {"still": (0.0, 23), "still, camera noise": (NOISE, 18)}  # noise, quality of x264


def write(path: Path, frames: Iterable[np.ndarray], crf: int) -> None:
    with av.open(str(path), "w") as container:
        stream = None
        for frame in frames:
            frame = np.ascontiguousarray(frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2])
            if stream is None:
                stream = container.add_stream("libx264", rate=25, options={"crf": str(crf)})
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())


def statistics(path: Path) -> dict[str, float] | None:
    """Motion of the main face of a video; None without one."""
    scan = scan_video(path, fps=25.0, tracking=False)
    if not len(scan.frame):
        return None
    points = meshes(scan, find_persons(scan, fps=25.0)[0]).astype(np.float64)
    if found(points).mean() < 0.5:
        return None
    points = points[found(points)][: 2 * FRAMES]
    pose, parts, unit = head_pose(points, sigma=0), face_parts(points), eye_distance(points)
    mesh, base = points[:, :N_MESH], points[0, :N_MESH]
    for _ in range(2):
        aligned = _aligned(mesh, base, list(STABLE))
        base = aligned.mean(axis=0)
    deviation = pose[:, :6].std(axis=0)
    return {
        "largest angle, degrees": deviation[:3].max(),
        "smallest angle, degrees": deviation[:3].min(),
        **{f"Div unit, position {axis}": v for axis, v in zip("xyz", deviation[3:], strict=True)},
        "Div unit, eyes": np.sqrt(parts["Div_E"].var(axis=0).mean()),
        "Div unit, lips": np.sqrt(parts["Div_M"].var(axis=0).mean()),
        "expression / eye distance": np.sqrt(((aligned - base) ** 2).sum(-1).mean()) / unit,
        **{f"{key} / eye distance": v / unit for key, v in motion_statistics(points).items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("--limit", type=int, default=30)
    args = parser.parse_args()
    paths = sorted(args.clips.rglob("*.mp4"))[: args.limit]
    rows: dict[str, list[dict[str, float]]] = {kind: [] for kind in (*KINDS, "speech")}
    for path in progress(paths, desc="videos", unit="video"):
        try:
            frames = list(islice(read_frames(path, fps=25.0), 2 * FRAMES))
        except DataError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        random = np.random.default_rng(0)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy.mp4"
            for kind, (noise, crf) in KINDS.items():
                frame = frames[len(frames) // 2]
                noises = (random.normal(0, noise, frame.shape) for _ in range(FRAMES))
                pictures = (np.clip(frame + n, 0, 255).astype(np.uint8) for n in noises)
                write(copy, pictures, crf)
                rows[kind].append(statistics(copy) or {})
            write(copy, frames, 18)
            rows["speech"].append(statistics(copy) or {})
    for key in next(row for row in rows["speech"] if row):
        print(key)
        for kind, found_rows in rows.items():
            values = np.array([row[key] for row in found_rows if row])
            low, middle, high = np.percentile(values, [0, 50, 100])
            print(f"  {kind:20s} {low:9.4f} {middle:9.4f} {high:9.4f}  (least, median, largest)")


if __name__ == "__main__":
    main()
