"""The files of a person, made of its training clips."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from talkingface.data.clips import Clip, read_filelist
from talkingface.data.dataprocess.lsp import files
from talkingface.data.dataprocess.lsp.drawing import WINDOW
from talkingface.data.dataprocess.lsp.motion import euler_to_matrix, project
from talkingface.data.dataprocess.lsp.window import Window
from talkingface.data.media.apc_mel import MOTION_FPS
from talkingface.data.media.pictures import PictureReader
from talkingface.data.media.writer import write_image
from talkingface.utils.paths import write_json, write_text

if TYPE_CHECKING:
    from talkingface.data.dataprocess.base import ProcessReport
    from talkingface.data.dataprocess.lsp.lsp_process import LSPProcess

log = logging.getLogger(__name__)

_STATE = ".made_of.json"  # what the person's files were made of
# Clips whose own windows lie so near to the median show the same set-up and share one window.
_SAME_SCALE, _SAME_PLACE = 0.15, 60
_OUTER_LIPS = list(range(46, 58))
_EYE_PAIRS = ((28, 30), (32, 34))
_CANDIDATE_GAP = 1.0  # seconds between two candidate pictures of a clip


def build_persons(process: LSPProcess, report: ProcessReport) -> None:
    """(Re)make the files of every person whose clips, split or windows changed."""
    cfg = process.cfg
    listed = {split: set(read_filelist(cfg.filelist(split))) for split in ("train", "val")}
    good = set(report.of("ok")) - report.dropped
    people: dict[str, list[Clip]] = defaultdict(list)
    for clip_id in sorted(good):
        people[process.person_of(clip_id)].append(report.clips[clip_id])
    if len(people) > 3 and all(len(clips) == 1 for clips in people.values()):
        log.warning(
            "%d people of one clip each. If all clips show one person, say so: --person.name=NAME",
            len(people),
        )
    for name, clips in people.items():
        folder = process.folder / name
        split = {
            key: [clip.id for clip in clips if clip.id in names] for key, names in listed.items()
        }
        if not split["train"]:
            log.warning("%s has no training clip; its own files are made of all its clips", name)
            split["train"] = [clip.id for clip in clips]
        prints = {clip.id: report.markers[clip.id]["fingerprint"] for clip in clips}
        text = json.dumps([1, split, prints, cfg.person.max_seconds], sort_keys=True)
        state = {"hash": hashlib.sha256(text.encode()).hexdigest()}
        try:
            if json.loads((folder / _STATE).read_text("utf-8")) == state:
                continue
        except (OSError, ValueError):
            pass
        log.info("%s: files of the person, from %d training clips", name, len(split["train"]))
        _build(folder, [clip.id for clip in clips], split, cfg.person.max_seconds)
        write_json(folder / _STATE, state)


def _build(folder: Path, ids: list[str], split: dict[str, list[str]], max_seconds: float) -> None:
    # What is made of other clips, here and by speech.py, must not be taken for current.
    for name in (_STATE, files.DATABASE, Path(files.DATABASE).with_suffix(".json").name):
        (folder / name).unlink(missing_ok=True)
    clips = {i: files.ClipFiles(files.clip_folder(folder, i)) for i in ids}
    training = [clips[i] for i in split["train"]]
    window = _share_window(list(clips.values()), training)
    clips = {i: files.ClipFiles(clip.folder) for i, clip in clips.items()}  # read them again
    training = [clips[i] for i in split["train"]]
    same = [clip for clip in training if clip.window == window]
    taken, total = [], 0
    for clip in same:
        if taken and (total + len(clip)) / MOTION_FPS > max_seconds:
            continue  # at least one clip, however long
        taken.append(clip)
        total += len(clip)
    sides = shoulder_sides(training)
    # Generation hangs the shoulders on row 1 of the person, so a clip that has them comes first.
    taken.sort(key=lambda clip: not _has_sides(clip, sides))
    joined = {
        key: np.concatenate([getattr(clip, key) for clip in taken])
        for key in ("points", "angles", "trans", "landmarks", "shoulders", "shoulders_3d")
    }
    files.save_fit(folder, joined["points"], joined["angles"], joined["trans"])
    files.save_array(folder / files.POINTS_2D, joined["landmarks"])
    for name, key in ((files.SHOULDERS, "shoulders"), (files.SHOULDERS_3D, "shoulders_3d")):
        _side_values(joined[key])[:, ~sides] = np.nan
        files.save_array(folder / name, joined[key])
    files.save_array(folder / files.MEAN_POINTS, _mean_points(training))
    first = taken[0]
    files.save_camera(folder, first.scale, first.camera)
    files.save_window(folder, first.window)
    _save_candidates(folder, same)
    (folder / files.EXAMPLE).write_bytes((first.folder / files.EXAMPLE).read_bytes())
    for key in ("train", "val"):
        write_text(folder / f"{key}_list.txt", "".join(f"{i}\n" for i in split[key]))
    facts = {
        "person": folder.name,
        "clips": len(clips),
        "seconds": round(sum(len(c) for c in clips.values()) / MOTION_FPS, 2),
        "training_seconds": round(sum(len(c) for c in training) / MOTION_FPS, 2),
        "window": [window.scale, window.xc, window.yc],
        "clips_with_other_window": sorted(i for i, c in clips.items() if c.window != window),
        "has_shoulders": bool(sides.any()),
        "shoulder_sides": sides.tolist(),
        **files.verify_files(files.Person(folder)),
    }
    files.write_manifest(folder, facts)
    if not sides.all():
        log.warning(
            "%s: %s shoulder found; it is drawn neither in training nor later",
            folder.name,
            "one" if sides.any() else "no",
        )


def _has_sides(clip: files.ClipFiles, sides: np.ndarray) -> bool:
    found = np.isfinite(_side_values(clip.shoulders_3d)).all(axis=(0, 2, 3))
    return bool(found[sides].all())


def _side_values(values: np.ndarray) -> np.ndarray:
    """(N,18,C) as (N,2,9,C), a view."""
    return values.reshape(len(values), 2, 9, values.shape[-1])


def shoulder_sides(clips: list[files.ClipFiles]) -> np.ndarray:
    """(2,) bool: sides found in nearly all training clips."""
    found = [np.isfinite(_side_values(clip.shoulders)).all(axis=(0, 2, 3)) for clip in clips]
    return np.mean(found, axis=0) >= 0.8


def apply_window(folder: Path, window: Window) -> None:
    """(Re)write the files of a clip that refer to the 512 px window."""
    clip = files.MotionFiles(folder)
    facts = clip.manifest
    (folder / files.WINDOW_FILE).unlink(missing_ok=True)
    camera = window.camera(facts["focal"], np.array(facts["center"]))
    files.save_camera(folder, facts["scale"], camera)
    camera = camera.astype(np.float32).astype(np.float64)  # as it is stored
    landmarks = project(clip.points, clip.angles, clip.trans, facts["scale"], camera)
    files.save_array(folder / files.POINTS_2D, landmarks)
    flat = window.points(np.load(folder / files.SOURCE_SHOULDERS))
    files.save_array(folder / files.SHOULDERS, flat)
    # The billboard: as deep as the face of that frame.
    turned = clip.points @ euler_to_matrix(clip.angles).transpose(0, 2, 1)
    depth = (facts["scale"] * turned[..., 2] + clip.trans[:, None, 2]).mean(axis=1)
    rays = np.concatenate([flat, np.ones((*flat.shape[:2], 1))], axis=2)
    rays = rays @ np.linalg.inv(camera).T
    files.save_array(folder / files.SHOULDERS_3D, rays * depth[:, None, None])
    files.save_window(folder, window)  # last: without it the files above are made again


def _share_window(clips: list[files.ClipFiles], training: list[files.ClipFiles]) -> Window:
    """Give all clips of the same set-up one window, so that the background stands still."""

    def key(clip: files.ClipFiles) -> tuple:
        facts = clip.manifest
        return (*facts["size"], round(facts["focal"], 3))

    own = {clip: np.array(clip.manifest["own_window"]) for clip in clips}

    def alike(one: files.ClipFiles, other: files.ClipFiles) -> bool:
        return key(one) == key(other) and _near(own[one], own[other])

    # Around the training clip with the most neighbours; a mean of two set-ups would fit neither.
    middle = max(training, key=lambda one: sum(alike(one, other) for other in training))
    near = {clip for clip in clips if alike(clip, middle)}
    scale, xc, yc = np.median([own[clip] for clip in training if clip in near], axis=0)
    window = Window(float(scale), round(float(xc)), round(float(yc)))
    for clip in clips:
        values = own[clip]
        wanted = (
            window if clip in near else Window(float(values[0]), int(values[1]), int(values[2]))
        )
        whole = (clip.folder / files.WINDOW_FILE).is_file()  # it is written last
        if not whole or clip.window != wanted:
            apply_window(clip.folder, wanted)
    return window


def _near(own: np.ndarray, middle: np.ndarray) -> bool:
    scale = abs(own[0] / middle[0] - 1) < _SAME_SCALE
    return bool(scale and np.abs(own[1:] - middle[1:]).max() < _SAME_PLACE)


def _mean_points(clips: list[files.ClipFiles]) -> np.ndarray:
    total = sum(len(clip) for clip in clips)
    return sum(clip.points.sum(axis=0, dtype=np.float64) for clip in clips) / total


def _save_candidates(folder: Path, clips: list[files.ClipFiles]) -> None:
    """Four pictures of training clips: mouth wide open and closed, and two head turns."""
    frames = []  # (clip number, picture, mouth area, yaw, eye opening)
    for number, clip in enumerate(clips):
        count = int(clip.manifest["frames"])
        rows = np.minimum(np.arange(count) * MOTION_FPS / clip.fps + 0.5, len(clip) - 1).astype(int)
        marks = clip.landmarks[rows]
        lips = marks[:, _OUTER_LIPS]
        x, y = lips[..., 0], lips[..., 1]
        area = 0.5 * np.abs((x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(1))
        eyes = np.mean([np.abs(marks[:, a, 1] - marks[:, b, 1]) for a, b in _EYE_PAIRS], axis=0)
        facts = np.stack([area, clip.angles[rows, 1], eyes, np.full(count, clip.fps)], axis=1)
        frames += [(number, i, *row) for i, row in enumerate(facts)]
    table = np.array(frames)
    awake = table[:, 4] > 0.5 * np.median(table[:, 4])
    pool = table[awake] if awake.sum() >= 4 else table
    rank = min(100, max(1, round(0.02 * len(pool))), len(pool))
    order = np.argsort(pool[:, 2])
    chosen = [pool[order[-rank]], pool[order[rank - 1]]]
    low, high = np.percentile(pool[:, 3], (2, 98))
    for share in (1 / 3, 2 / 3):
        distance = np.abs(pool[:, 3] - (low + share * (high - low)))
        for known in chosen:
            near = np.abs(pool[:, 1] - known[1]) < _CANDIDATE_GAP * known[5]
            distance = np.where((pool[:, 0] == known[0]) & near, np.inf, distance)
        if not np.isfinite(distance).any():  # a very short clip
            distance = np.abs(pool[:, 3] - (low + share * (high - low)))
        chosen.append(pool[int(distance.argmin())])
    (folder / files.CANDIDATES).mkdir(exist_ok=True)
    for j, row in enumerate(chosen):
        clip = clips[int(row[0])]
        picture = PictureReader(clip.pictures_path)[int(row[1])]
        write_image(
            folder / files.CANDIDATES / f"normalized_full_{j}.jpg", clip.window.cut(picture, WINDOW)
        )
