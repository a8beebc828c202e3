"""How often a trained SyncNet finds the offset of sound and picture, on held-out clips.

    python benchmarks/syncnet_offsets.py RUN [--shifts 10] [--clips N] [--window N]
        [--videos a.mp4 b.mp4] [--test_filelist=LIST]

RUN is a run id, run folder or checkpoint of SyncNet. For every clip of its test split (or of
another list), or every ``--window`` frames of it, the sound is moved by -10 to +10 frames; the
offset found (as LSE does, all shifts up to 15) is compared with the true one. ``--videos``, e.g. of
another corpus, are measured as they are and moved in the same way, which is compared with the
offset found without moving.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from talkingface.data.clips import split_clips
from talkingface.data.dataprocess.syncnet.syncnet_process import SyncNetProcess
from talkingface.data.face.boxes import face_boxes
from talkingface.data.face.series import runs
from talkingface.data.face.tracking import video_landmarks
from talkingface.data.media.audio import load_audio
from talkingface.data.media.images import read_image
from talkingface.data.media.reader import read_frames
from talkingface.evaluator.metrics.syncnet.sync_score import (
    FPS,
    SyncScore,
    crops,
    lip_features,
    load_syncnet,
    score,
    sound_features,
)
from talkingface.model.audio_driven_talkingface.syncnet.syncnet_networks import SyncNet
from talkingface.quick_start.infer import configure

FRAME = 640  # samples at 16 kHz


def moved(wave: np.ndarray, frames: int) -> np.ndarray:
    """The sound later by so many frames (earlier if negative), silence where there is none."""
    amount = abs(frames) * FRAME
    silence = np.zeros(amount, wave.dtype)
    if frames >= 0:
        return np.concatenate([silence, wave])[: len(wave)]
    return np.concatenate([wave[amount:], silence])


def judged(lips: np.ndarray, sounds: np.ndarray) -> SyncScore:
    count = min(len(lips) - 1, len(sounds))
    return score(lips[:count], sounds[:count])


def scores_of(
    network: SyncNet, lips: np.ndarray, wave: np.ndarray, shifts: range
) -> list[SyncScore]:
    return [judged(lips, sound_features(network, moved(wave, shift))) for shift in shifts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--shifts", type=int, default=10)
    parser.add_argument("--clips", type=int)
    parser.add_argument("--videos", nargs="*", type=Path, default=[])
    parser.add_argument("--window", type=int, help="frames; default: whole clips")
    parser.add_argument("--test_filelist")
    given = parser.parse_args()
    lists = {"test_filelist": given.test_filelist} if given.test_filelist else {}
    cfg, checkpoint = configure({"checkpoint": given.run}, lists, [])
    network = load_syncnet(checkpoint)
    print(f"{checkpoint}")
    shifts = range(-given.shifts, given.shifts + 1)
    for path in given.videos:
        marks = video_landmarks(path, fps=FPS, tracking=False)
        frames = read_frames(path, fps=FPS)
        lips = lip_features(network, crops(frames, face_boxes(marks, fps=FPS), network.image_size))
        found = scores_of(network, lips, load_audio(path, 16000), shifts)
        own = found[given.shifts]
        follows = [abs(f.offset + s - own.offset) <= 1 for f, s in zip(found, shifts, strict=True)]
        text = f"offset {own.offset:+d}, LSE_C {own.confidence:.2f}, LSE_D {own.distance:.2f}"
        print(f"{path.name}: {text}; follows {np.mean(follows):.0%} of the shifts")
    if given.clips == 0:
        return
    process = SyncNetProcess(cfg)
    clips = split_clips(cfg, "test")[: given.clips]
    usable, bad = process.prepared.select([clip.id for clip in clips])
    if not usable:
        raise SystemExit(f"no clip of {cfg.filelist('test')} is prepared in {process.folder}")
    errors, scores, waves, all_lips = {}, {}, {}, {}
    for clip in tqdm([clip for clip in clips if clip.id in usable], unit="clip"):
        folder = process.folder / clip.id
        segments = np.load(folder / "segments.npy")
        parts = [(b, e) for b, e in runs(segments) if segments[b] >= 0]
        begin, end = max(parts, key=lambda part: part[1] - part[0])
        whole = load_audio(clip.audio, 16000)
        size = given.window or end - begin
        for first in range(begin, end - size + 1, size):
            pictures = (read_image(folder / f"{i}.jpg") for i in range(first, first + size))
            lips, wave = lip_features(network, pictures), whole[first * FRAME :][: size * FRAME]
            found, name = scores_of(network, lips, wave, shifts), f"{clip.id} {first}"
            # Positive offsets: the sound is early. A sound moved later by s has the offset -s.
            errors[name] = [f.offset + s for f, s in zip(found, shifts, strict=True)]
            scores[name] = found[given.shifts]
            waves[name], all_lips[name] = wave, lips
    table = np.array(list(errors.values()))
    for reach in (0, 1, 2):
        hit = np.abs(table) <= reach
        print(f"offset within {reach} frame(s): {hit.mean():.1%} of all pairs of clip and shift; "
              f"all {len(shifts)} shifts right in {hit.all(axis=1).mean():.1%} of {len(table)} "
              f"clips; shift 0 right in {hit[:, given.shifts].mean():.1%}")  # fmt: skip
    names = list(scores)
    wrong = [
        judged(all_lips[name], sound_features(network, np.resize(waves[other], len(waves[name]))))
        for name, other in zip(names, names[1:] + names[:1], strict=True)
    ]
    for title, group in (("true sound", scores.values()), ("sound of another clip", wrong)):
        confidence = np.array([item.confidence for item in group])
        distance = np.array([item.distance for item in group])
        print(f"{title}: LSE_C {confidence.mean():.2f} (std {confidence.std():.2f}), "
              f"LSE_D {distance.mean():.2f} (std {distance.std():.2f})")  # fmt: skip
    if bad:
        print(f"unusable: {bad}")


if __name__ == "__main__":
    main()
