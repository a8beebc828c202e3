"""How exact our instruments are: the face tracker, pose, blinks and offsets on rendered people.

    python benchmarks/synthetic_truth.py [--persons=8] [--seconds=6] [--folder=DIR] [--syncnet=RUN]

Renders clips of people whose truth is known (into DIR, or a temporary folder; existing clips are
used again) with turns of up to about 30 degrees, and compares what the instruments find with it.
Rows: what, number of frames or clips, and the figures. The last row is about still pictures of
each person with the mouth shape of every phone. ``--syncnet``, a run id or checkpoint of SyncNet,
adds its offsets.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from talkingface.data.face.boxes import face_boxes
from talkingface.data.face.mesh import FaceMesher
from talkingface.data.face.portrait import eye_aspect_ratio
from talkingface.data.face.pose import head_pose
from talkingface.data.face.scan import scan_video
from talkingface.data.face.topology import IBUG68
from talkingface.data.face.tracking import find_persons, meshes
from talkingface.data.media.audio import load_audio
from talkingface.data.media.reader import read_frames
from talkingface.data.quality import av_offset, speech_frames
from talkingface.data.synthetic.body import Scene, build_body
from talkingface.data.synthetic.head import expression
from talkingface.data.synthetic.mouth import PHONES, SHAPES, VISEMES, MouthRig, MouthTrack
from talkingface.data.synthetic.movement import MOODS
from talkingface.data.synthetic.people import AMPLITUDE, PersonClip, Truth, render_clip
from talkingface.data.synthetic.person import Person
from talkingface.data.synthetic.renderer import Pose, Renderer
from talkingface.data.synthetic.source import VERSION, is_done
from talkingface.evaluator.metrics.blink import blinks
from talkingface.evaluator.metrics.syncnet.sync_score import (
    crops,
    lip_features,
    load_syncnet,
    score,
    sound_features,
)
from talkingface.quick_start.infer import configure
from talkingface.utils.logs import progress

FPS, RATE = 25, 16000
PARTS = {
    "jaw": range(17), "brows": range(17, 27), "nose": range(27, 36), "eyes": range(36, 48),
    "lips": range(48, 68),
}  # fmt: skip
YAWS = (0, 5, 10, 15, 20, 30)
OFFSETS = range(-5, 6)
BLINK_THRESHOLD = 0.75  # of the median of the open eyes


class Clip:
    """Truth and what the tracker found."""

    def __init__(self, root: Path, clip: PersonClip) -> None:
        self.path = path = clip.path(root, ".mp4")
        with np.load(clip.path(root, ".truth.npz")) as file:
            self.truth = {name: file[name] for name in file.files if name != "labels"}
        self.phones = json.loads(clip.path(root, ".truth.json").read_text("utf-8"))["phones"]
        scan = scan_video(path, fps=float(FPS), tracking=True)
        persons = find_persons(scan, fps=float(FPS))
        missing = np.full((len(self.truth["pose"]), 478, 3), np.nan)
        self.points = meshes(scan, persons[0]).astype(float) if persons else missing
        self.found = np.isfinite(self.points).all((1, 2))
        self.audio = load_audio(path, RATE)


def rendered(root: Path, persons: int, seconds: float) -> list[PersonClip]:
    settings = {
        "seed": 7, "seconds": seconds, "size": 256, "fps": FPS, "voices": "espeak", "pose": 3.0,
        "light": "varied", "expression": "neutral", "masks": False,
    }  # fmt: skip
    digest = json.dumps([VERSION, settings])
    clips = [PersonClip(f"p{k:02d}", k, 0, "train", settings, digest) for k in range(persons)]
    for clip in progress(clips, desc="rendering", unit="clip"):
        if not is_done(root, clip):
            render_clip(root, clip)
    return clips


def row(what: str, count: int, **values: float) -> None:
    print(f"{what:44}{count:7}  " + "  ".join(f"{k} {v:.3g}" for k, v in values.items()))


def landmarks(clips: list[Clip]) -> None:
    """Distance of the 68 landmarks in pixels, by part and by yaw.

    The constant difference of a person (another idea of where a point lies) is told apart from
    what changes from frame to frame.
    """
    total, moving, yaws = [], [], []
    for clip in clips:
        error = clip.points[clip.found][:, IBUG68, :2] - clip.truth["landmarks"][clip.found]
        total.append(np.linalg.norm(error, axis=2))
        moving.append(np.linalg.norm(error - np.median(error, 0), axis=2))
        yaws.append(np.abs(clip.truth["pose"][clip.found, 1]))
    total, moving, yaws = (np.concatenate(x) for x in (total, moving, yaws))
    for part, points in PARTS.items():
        at = list(points)
        row(
            f"landmarks of {part}, px",
            len(total),
            mean=total[:, at].mean(),
            varying=moving[:, at].mean(),
        )
    for low, high in zip(YAWS, YAWS[1:], strict=False):
        chosen = (yaws >= low) & (yaws < high)
        if chosen.any():
            row(f"landmarks, yaw {low} to {high} degrees, px", int(chosen.sum()),
                mean=total[chosen].mean(), varying=moving[chosen].mean())  # fmt: skip


def mouth(clips: list[Clip]) -> None:
    """Opening and width of the inner lips against the truth, and LMD between truth and tracker."""
    for name, a, b, truth in (("opening", 13, 14, "opening"), ("width", 78, 308, "width")):
        r, slope = [], []
        for clip in clips:
            points, real = clip.points[clip.found], clip.truth[truth][clip.found]
            height = np.linalg.norm(points[:, 168, :2] - points[:, 152, :2], axis=1)
            seen = np.linalg.norm(points[:, a] - points[:, b], axis=1) / height
            r.append(np.corrcoef(seen, real)[0, 1])
            slope.append(seen.std() / clip.truth[f"mouth_{name}"][clip.found].std())
        row(
            f"{name} of the lips, r per clip",
            len(r),
            mean=np.mean(r),
            least=np.min(r),
            size=np.mean(slope),
        )
    lips = [
        np.linalg.norm(
            c.points[c.found][:, IBUG68[48:], :2] - c.truth["landmarks"][c.found, 48:], axis=2
        )
        for c in clips
    ]
    row("LMD of the same video, px", len(lips), mean=np.mean([x.mean() for x in lips]))


def pose(clips: list[Clip]) -> None:
    """Angles in degrees without the constant difference of a clip."""
    found = [  # head_pose: yaw to the person's right, pitch down, roll
        head_pose(c.points, sigma=0)[c.found][:, [1, 0, 2]] * (-1, -1, 1) for c in clips
    ]
    real = [c.truth["pose"][c.found] for c in clips]
    for k, name in enumerate(("pitch", "yaw", "roll")):
        pairs = [(f[:, k], t[:, k]) for f, t in zip(found, real, strict=True)]
        error = np.concatenate([np.abs(f - t - np.median(f - t)) for f, t in pairs])
        row(f"pose, {name}, degrees", len(error), mean=error.mean(), p95=np.percentile(error, 95),
            r=np.mean([np.corrcoef(f, t)[0, 1] for f, t in pairs]),
            slope=np.mean([np.polyfit(t, f, 1)[0] for f, t in pairs]))  # fmt: skip


def blinking(clips: list[Clip]) -> None:
    hit, real, wrong, frames = 0, 0, 0, sum(len(clip.found) for clip in clips)
    for clip in clips:
        ratio = eye_aspect_ratio(clip.points)
        threshold = BLINK_THRESHOLD * float(np.nanmedian(ratio))
        low = ratio < threshold
        shut = clip.truth["blink"] > 0.5
        starts = np.flatnonzero(np.diff(shut.astype(int), prepend=0) == 1)
        real += len(starts)
        seen = sum(bool(low[max(s - 1, 0) : s + 5].any()) for s in starts)
        hit += seen
        wrong += max(len(blinks(ratio, FPS, threshold)) - seen, 0)
    row("blinks", real, found=hit / max(real, 1), false_per_minute=60 * FPS * wrong / frames)


def offsets(clips: list[Clip]) -> None:
    """The offset that sound and picture are found to have, for known offsets in frames."""
    errors = []
    for clip in clips:
        for shift in OFFSETS:
            moved = np.roll(clip.audio, round(shift * RATE / FPS))
            found, sure = av_offset(clip.points, moved, FPS)
            if np.isfinite(found) and sure >= 0.15:
                errors.append(abs(found + 1000 * shift / FPS))
    if errors:
        row("AV offset by energy, ms (confidence 0.15)", len(errors), median=np.median(errors),
            within_60=np.mean(np.array(errors) <= 60))  # fmt: skip


def sync_offsets(clips: list[Clip], run: str) -> None:
    """The same by a SyncNet, in frames."""
    _, checkpoint = configure({"checkpoint": run}, {}, [])
    network, errors = load_syncnet(checkpoint), []
    for clip in progress(clips, desc="SyncNet", unit="clip"):
        boxes = face_boxes(clip.points.astype(np.float32), fps=FPS)
        frames = crops(read_frames(clip.path, fps=FPS), boxes, network.image_size)
        lips = lip_features(network, frames)
        for shift in OFFSETS:
            sounds = sound_features(network, np.roll(clip.audio, round(shift * RATE / FPS)))
            count = min(len(lips) - 1, len(sounds))
            errors.append(abs(score(lips[:count], sounds[:count]).offset + shift))
    row("AV offset by SyncNet, frames", len(errors), exact=np.mean(np.array(errors) == 0),
        within_1=np.mean(np.array(errors) <= 1))  # fmt: skip


def silence(clips: list[Clip]) -> None:
    """10 ms frames of speech against the phones."""
    right = total = 0
    for clip in clips:
        speech = speech_frames(clip.audio)
        truth = np.zeros(len(speech), bool)
        for name, start, end in clip.phones:
            if name != "SIL":
                truth[round(start * 100) : round(end * 100)] = True
        right, total = right + (speech == truth).sum(), total + len(speech)
    row("speech or silence, 10 ms frames", total, right=right / total)


def shapes(persons: int) -> None:
    """Opening in still pictures of all phones, with turned heads, against the truth."""
    r, found, total = [], 0, 0
    with FaceMesher(tracking=False) as mesher:
        for seed in progress(range(persons), desc="shapes", unit="person"):
            rng = np.random.default_rng([8, seed])
            renderer = Renderer(build_body(Person.draw(seed), Scene.draw(rng)), 256)
            rig, pairs = MouthRig(renderer.body.face, sum(AMPLITUDE) / 2), []
            for phone, (name, opening, *_) in PHONES.items():
                shape = np.array([[VISEMES[name].get(s, 0.0) for s in SHAPES]])
                track = MouthTrack(np.array([opening]), shape, np.array([float(phone == "P")]))
                weights, tongue = rig.frame(track, 0, expression(**MOODS["neutral"]))
                turn = (rng.uniform(-6, 6), rng.uniform(-12, 12), 0)
                faces = mesher(renderer.frame(Pose(weights, turn=turn, tongue=tongue)))
                total += 1
                if len(faces):
                    found += 1
                    points = faces[0].astype(float)
                    seen = np.linalg.norm(points[13] - points[14])
                    seen /= np.linalg.norm(points[168] - points[152])
                    truth = Truth(renderer, masks=False)
                    truth.add(Pose(weights, turn=turn, tongue=tongue))
                    pairs.append((seen, truth.rows[0]["mouth_opening"]))
            r.append(np.corrcoef(np.transpose(pairs))[0, 1])
    row("opening, stills of all phones, r per person", total, mean=np.mean(r), least=np.min(r),
        found=found / total)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--persons", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--syncnet")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = given.folder or Path(temporary)
        made = rendered(root, given.persons, given.seconds)
        clips = [Clip(root, clip) for clip in progress(made, desc="tracking", unit="clip")]
        frames = sum(len(c.found) for c in clips)
        row("faces found, frames", frames, share=sum(c.found.sum() for c in clips) / frames)
        for measure in (landmarks, mouth, pose, blinking, offsets, silence):
            measure(clips)
        if given.syncnet:
            sync_offsets(clips, given.syncnet)
    shapes(given.persons)


if __name__ == "__main__":
    main()
