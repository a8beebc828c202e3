"""Preparation speed by step, in milliseconds per frame on one core.

Each video goes through the steps of HyperLips' preparation and of LSP's; the cache is off. The
reference of the same run is the originals' habit of making a new FaceMesh object for every image,
on the same frames. (Their S3FD detector alone takes 8 s per 720p frame on a CPU, measured on the
original network; it is not part of this program.)

    python benchmarks/preparation_speed.py a.mp4 b.mp4 ...
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

if hasattr(os, "sched_setaffinity"):  # before any library counts the cores
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from talkingface.data.clips import make_clip
from talkingface.data.dataprocess.sheet import contact_sheet, picture, sheet_frames
from talkingface.data.face.boxes import crop_face
from talkingface.data.face.lifting import lift
from talkingface.data.face.mesh import FaceMesher
from talkingface.data.face.person import track_shoulders
from talkingface.data.face.pose import head_pose
from talkingface.data.face.scan import scan_frames
from talkingface.data.face.series import fill_gaps
from talkingface.data.face.tracking import follow
from talkingface.data.media.audio import load_audio
from talkingface.data.media.mel import wav2lip_mel
from talkingface.data.media.reader import read_frames
from talkingface.data.media.writer import write_image
from talkingface.data.quality import measure
from talkingface.utils.env import import_cv2

FPS, LIMIT = 25, 150  # frames per video that are measured


class Clock:
    """Adds up seconds per step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, step: str, work: Callable[..., Any], *args: Any, **options: Any) -> Any:
        started = time.perf_counter()
        result = work(*args, **options)
        self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - started
        return result

    def each(self, step: str, items: Iterator) -> Iterator:
        while (item := self(step, next, items, None)) is not None:
            yield item


def frames_of(video: Path) -> Iterator[np.ndarray]:
    for index, frame in enumerate(read_frames(video, fps=FPS)):
        if index >= LIMIT:
            return
        yield frame


def main() -> None:
    videos = [Path(name) for name in sys.argv[1:]]
    if not videos:
        sys.exit("Give videos of a talking person: preparation_speed.py a.mp4 ...")
    import_cv2().setNumThreads(1)
    warm = scan_frames(frames_of(videos[0]), tracking=True)  # models are loaded once
    measure(follow(warm, fps=FPS), np.ones(16000, np.float32), FPS)
    for video in videos:
        with tempfile.TemporaryDirectory() as folder:
            measure_video(video, Path(folder))


def measure_video(video: Path, folder: Path) -> None:
    common, hyperlips, lsp = Clock(), Clock(), Clock()
    kept = list(common.each("decode", frames_of(video)))
    scan = common("faces, cuts, sharpness", scan_frames, kept, tracking=True)
    track = common("tracks and boxes", follow, scan, fps=FPS)
    wave = common("sound", load_audio, make_clip(video).audio, 16000)[: len(kept) * 640]
    common("measures", measure, track, wave, FPS)
    wanted = sheet_frames(track)
    drawn = [common("contact sheet", picture, kept[i], track, i) for i in wanted]
    common("contact sheet", contact_sheet, drawn, track, wave, FPS)

    hyperlips("second decode", lambda: [None for _ in frames_of(video)])
    for index, frame in enumerate(kept):
        crop = crop_face(frame, track.boxes[index])
        hyperlips("crops to disk", write_image, folder / f"{index}.jpg", crop, sync=False)
    hyperlips("mel", wav2lip_mel, wave)

    size = (kept[0].shape[1], kept[0].shape[0])
    start, stop = track.longest_take()
    take = fill_gaps(track.landmarks[start:stop])
    lifted = lsp("lifting and smoothing", lift, take, size, 1.2 * max(size))
    lsp("lifting and smoothing", lifted.smoothed)
    lsp("head pose", head_pose, track.landmarks, segments=track.segments)
    lsp("shoulders", track_shoulders, kept[start:stop], take)
    for index, frame in enumerate(kept):
        lsp("source frames to disk", write_image, folder / f"w{index}.jpg", frame, sync=False)

    def fresh_mesh(frame: np.ndarray) -> None:
        with FaceMesher(tracking=False) as mesher:
            mesher(frame)

    reference = Clock()
    for frame in kept[:20]:
        reference("new FaceMesh per image", fresh_mesh, frame)

    def total(*clocks: Clock) -> float:
        return 1000 * sum(sum(c.seconds.values()) for c in clocks) / len(kept)

    print(f"\n{video.name}: {size[0]}x{size[1]}, {len(kept)} frames; ms per frame, one core")
    for title, clock in (("common", common), ("HyperLips", hyperlips), ("LSP", lsp)):
        for step, seconds in clock.seconds.items():
            print(f"  {title:10} {step:24} {1000 * seconds / len(kept):6.2f}")
    new_mesh = 1000 * reference.seconds["new FaceMesh per image"] / 20
    detection = 1000 * common.seconds["faces, cuts, sharpness"] / len(kept)
    for title, clocks in (("HyperLips", (common, hyperlips)), ("LSP", (common, lsp))):
        ms = total(*clocks)
        print(f"  {title:10} {'whole preparation':24} {ms:6.2f}   = {1000 / ms:.0f} frames/s")
    print(f"  reference  new FaceMesh per image   {new_mesh:6.2f}   (ours/reference "
          f"{detection / new_mesh:.2f})")  # fmt: skip


if __name__ == "__main__":
    main()
