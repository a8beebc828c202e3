"""The mouths of rendered people against a real speaker who says the same.

    python benchmarks/people_movement.py --clips=FOLDER [--number=60] [--persons=8]

FOLDER holds videos of a speaker with their words: files of the GRID corpus, whose names encode
them, or ``name.txt`` beside ``name.mp4``; ``--number`` of them are taken, evenly spread over the
names. The words are aligned to the sound (``pip install -e '.[voices]'``), the phones move the
mouths of rendered people (no pictures are made), and opening and width of the inner lips, over the
height of the face, are compared with those of the tracked video. Columns: Pearson r per clip (mean,
median); standard deviation and 95th percentile of the change per frame, each of the rendered and of
the real mouth.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from talkingface.data.face.scan import scan_video
from talkingface.data.face.topology import IBUG68
from talkingface.data.face.tracking import find_persons, meshes
from talkingface.data.media.audio import load_audio
from talkingface.data.synthetic.align import RATE, Phone, align
from talkingface.data.synthetic.face import make_face
from talkingface.data.synthetic.head import expression
from talkingface.data.synthetic.mouth import MouthRig, mouth_track
from talkingface.data.synthetic.movement import MOODS
from talkingface.data.synthetic.people import AMPLITUDE
from talkingface.data.synthetic.person import Person
from talkingface.errors import DataError
from talkingface.utils.logs import progress

FPS = 25.0
GRID = (
    dict(b="bin", l="lay", p="place", s="set"), dict(b="blue", g="green", r="red", w="white"),
    dict(a="at", b="by", i="in", w="with"), {}, dict(zip("z123456789", "zero one two three four "
    "five six seven eight nine".split(), strict=True)),
    dict(a="again", n="now", p="please", s="soon"),
)  # fmt: skip


def words(video: Path) -> str:
    text = video.with_suffix(".txt")
    if text.is_file():
        return text.read_text("utf-8")
    return " ".join(word.get(c, c) for word, c in zip(GRID, video.stem.lower(), strict=True))


def lips(marks: np.ndarray) -> np.ndarray:
    """Opening and width of the inner lips over the height of the face: (T, 2)."""
    height = np.linalg.norm(marks[:, 27] - marks[:, 8], axis=1)
    gaps = np.linalg.norm(marks[:, [61, 62, 63]] - marks[:, [67, 66, 65]], axis=2).mean(1)
    widths = np.linalg.norm(marks[:, 60] - marks[:, 64], axis=1)
    return np.stack([gaps, widths], 1) / height[:, None]


def real(video: Path) -> tuple[np.ndarray, list[Phone]]:
    """Of a video: lips (T, 2) and phones."""
    scan = scan_video(video, fps=FPS, tracking=True)
    points = meshes(scan, find_persons(scan, fps=FPS)[0]).astype(float)
    return lips(points[:, IBUG68, :2]), align(load_audio(video, RATE), words(video))


def rendered(phones: list[Phone], frames: int, person: int) -> np.ndarray:
    face = make_face(Person.draw(person).shapes())
    rig = MouthRig(face, sum(AMPLITUDE) / 2)
    track, rest = mouth_track(phones, frames, FPS), MOODS["neutral"]
    marks = face.head.landmarks
    moved = face.head.expressions[:, marks]
    weights = np.stack([rig.frame(track, i, expression(**rest))[0] for i in range(frames)])
    return lips(face.neutral[marks] + np.tensordot(weights, moved, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--number", type=int, default=60)
    parser.add_argument("--persons", type=int, default=8)
    given = parser.parse_args()
    files = sorted(p for p in given.clips.iterdir() if p.suffix in (".mp4", ".mpg"))
    files = files[:: max(len(files) // given.number, 1)][: given.number]
    found = []
    for video in progress(files, desc="tracking", unit="clip"):
        try:
            found.append(real(video))
        except (DataError, IndexError, ValueError) as error:
            print(f"{video} is left out: {error or 'no face'}")
    pairs = [
        (lips_real, rendered(phones, len(lips_real), k % given.persons))
        for k, (lips_real, phones) in enumerate(found)
    ]
    print(f"{len(pairs)} of {len(files)} clips, {given.persons} rendered persons")
    print(f"{'':8}{'r mean':>9}{'r median':>10}{'deviation':>20}{'speed p95':>20}")
    for k, name in enumerate(("opening", "width")):
        pair = [(a[:, k], b[:, k]) for a, b in pairs]
        good = [np.isfinite(a) for a, _ in pair]
        r = [np.corrcoef(a[g], b[g])[0, 1] for (a, b), g in zip(pair, good, strict=True)]
        numbers = []
        for side in (1, 0):
            numbers.append((
                np.mean([np.nanstd(p[side]) for p in pair]),
                np.nanpercentile(np.concatenate([np.abs(np.diff(p[side])) for p in pair]), 95),
            ))  # fmt: skip
        (sd, fast), (sd_real, fast_real) = numbers
        print(f"{name:8}{np.mean(r):9.3f}{np.median(r):10.3f}{sd:10.4f} /{sd_real:8.4f}"
              f"{fast:10.4f} /{fast_real:8.4f}")  # fmt: skip


if __name__ == "__main__":
    main()
