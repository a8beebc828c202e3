"""The files of a person, computed from its training clips."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from talkingface.data.clips import Clip
from talkingface.data.dataprocess.lsp import files
from talkingface.data.dataprocess.lsp.drawing import WINDOW
from talkingface.data.dataprocess.lsp.motion import euler_to_matrix, project
from talkingface.data.dataprocess.lsp.window import Window
from talkingface.data.face.portrait import presentable, sharpest
from talkingface.data.filelists import read_filelist
from talkingface.data.media.apc_mel import MOTION_FPS
from talkingface.data.media.pictures import PictureReader
from talkingface.data.media.writer import write_image
from talkingface.data.npz import read_npy
from talkingface.utils.paths import read_json, write_json, write_text

if TYPE_CHECKING:
    from talkingface.data.dataprocess.lsp.lsp_process import LSPProcess
    from talkingface.data.dataprocess.report import ProcessReport

log = logging.getLogger(__name__)

_STATE = ".made_of.json"  # hash of the clips and settings that the files were computed from
# Largest difference in scale (relative) and place (px) of windows of the same set-up.
_SAME_SCALE, _SAME_PLACE = 0.15, 60
_OUTER_LIPS = list(range(46, 58))
_EYE_PAIRS = ((28, 30), (32, 34))
_CANDIDATE_GAP = 1.0  # seconds between two candidate pictures of a clip


def build_persons(process: LSPProcess, report: ProcessReport) -> None:
    """Write the files of each person whose clips, split or windows changed."""
    cfg = process.cfg
    listed = {split: set(read_filelist(cfg.filelist(split))) for split in ("train", "val")}
    good = set(report.of("ok")) - report.dropped
    people: dict[str, list[Clip]] = defaultdict(list)
    for clip_id in sorted(good):
        people[process.person_of(clip_id)].append(report.clips[clip_id])
    if len(people) > 3 and all(len(clips) == 1 for clips in people.values()):
        log.warning(
            "%d people with one clip each. If all clips show one person, set --person.name=NAME",
            len(people),
        )
    for name, clips in people.items():
        folder = process.folder / name
        split = {
            key: [clip.id for clip in clips if clip.id in names] for key, names in listed.items()
        }
        if not split["train"]:
            log.warning("%s has no training clip: its files are computed from all clips", name)
            split["train"] = [clip.id for clip in clips]
        prints = {clip.id: report.markers[clip.id]["fingerprint"] for clip in clips}
        text = json.dumps([2, split, prints, cfg.person.max_seconds], sort_keys=True)
        state = {"hash": hashlib.sha256(text.encode()).hexdigest()}
        if read_json(folder / _STATE) == state:
            continue
        log.info("%s: files of the person, from %d training clips", name, len(split["train"]))
        _build(folder, [clip.id for clip in clips], split, cfg.person.max_seconds)
        for clip in clips:
            process.prepared.refresh(clip.id)
        write_json(folder / _STATE, state)


def _build(folder: Path, ids: list[str], split: dict[str, list[str]], max_seconds: float) -> None:
    # Files of other clips, also the database of speech.py, must not be taken for current ones.
    for name in (_STATE, files.DATABASE, Path(files.DATABASE).with_suffix(".json").name):
        (folder / name).unlink(missing_ok=True)
    clips = {i: files.ClipFiles(files.clip_folder(folder, i)) for i in ids}
    training = [clips[i] for i in split["train"]]
    window = _share_window(list(clips.values()), training)
    clips = {i: files.ClipFiles(clip.folder) for i, clip in clips.items()}  # without cached values
    training = [clips[i] for i in split["train"]]
    same = [clip for clip in training if clip.window == window]
    taken, total = [], 0
    for clip in same:
        if taken and (total + len(clip)) / MOTION_FPS > max_seconds:
            continue  # the first clip is used at any length
        taken.append(clip)
        total += len(clip)
    sides = shoulder_sides(training)
    # Generation uses the shoulders of row 1, so a clip with complete shoulders comes first.
    taken.sort(key=lambda clip: not _complete_sides(clip.shoulders_3d)[sides].all())
    files.save_motion(folder, taken, sides)
    files.save_array(folder / files.MEAN_POINTS, _mean_points(training))
    first = taken[0]
    files.save_camera(folder, first.scale, first.camera)
    files.save_window(folder, first.window)
    _save_candidates(folder, same)
    (folder / files.EXAMPLE).write_bytes((first.folder / files.EXAMPLE).read_bytes())
    for key in ("train", "val"):
        write_text(folder / f"{key}_list.txt", "".join(f"{i}\n" for i in split[key]))
    manifest = {
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
    files.write_manifest(folder, manifest)
    if not sides.all():
        log.warning(
            "%s: %s shoulder was detected; a side without detection is not drawn",
            folder.name,
            "one" if sides.any() else "no",
        )


def _complete_sides(values: np.ndarray) -> np.ndarray:
    """(2,) bool: sides of the shoulder points (N,18,C) without NaN."""
    return np.isfinite(files.side_values(values)).all(axis=(0, 2, 3))


def shoulder_sides(clips: list[files.ClipFiles]) -> np.ndarray:
    """(2,) bool: sides with a complete shoulder in at least 80 % of the training clips."""
    return np.mean([_complete_sides(clip.shoulders) for clip in clips], axis=0) >= 0.8


def apply_window(folder: Path, window: Window) -> None:
    """Write the files of a clip that refer to the 512 px window."""
    clip = files.MotionFiles(folder)
    manifest = clip.manifest
    (folder / files.WINDOW_FILE).unlink(missing_ok=True)
    camera = window.camera(manifest["focal"], np.array(manifest["center"]))
    files.save_camera(folder, manifest["scale"], camera)
    camera = camera.astype(np.float32).astype(np.float64)  # as it is stored
    landmarks = project(clip.points, clip.angles, clip.trans, manifest["scale"], camera)
    files.save_array(folder / files.POINTS_2D, landmarks)
    flat = window.points(read_npy(folder / files.SOURCE_SHOULDERS))
    files.save_array(folder / files.SHOULDERS, flat)
    # The billboard of the shoulders has the mean depth of the face in each frame.
    turned = clip.points @ euler_to_matrix(clip.angles).transpose(0, 2, 1)
    depth = (manifest["scale"] * turned[..., 2] + clip.trans[:, None, 2]).mean(axis=1)
    rays = np.concatenate([flat, np.ones((*flat.shape[:2], 1))], axis=2)
    rays = rays @ np.linalg.inv(camera).T
    files.save_array(folder / files.SHOULDERS_3D, rays * depth[:, None, None])
    files.save_window(folder, window)  # last: it marks the files above as complete


def _share_window(clips: list[files.ClipFiles], training: list[files.ClipFiles]) -> Window:
    """Give all clips of the same set-up one window, so that the background does not move."""

    def key(clip: files.ClipFiles) -> tuple:
        return (*clip.manifest["size"], round(clip.manifest["focal"], 3))

    windows = {clip: np.array(clip.manifest["own_window"]) for clip in clips}

    def alike(one: files.ClipFiles, other: files.ClipFiles) -> bool:
        first, second = windows[one], windows[other]
        scale, shift = first[0] / second[0], first[1:] - second[1:]
        near = abs(scale - 1) < _SAME_SCALE and np.abs(shift).max() < _SAME_PLACE
        return bool(near and key(one) == key(other))

    # The set-up with the most training clips; a mean over two set-ups would fit neither.
    middle = max(training, key=lambda one: sum(alike(one, other) for other in training))
    near = {clip for clip in clips if alike(clip, middle)}
    scale, xc, yc = np.median([windows[clip] for clip in training if clip in near], axis=0)
    window = Window(float(scale), round(float(xc)), round(float(yc)))
    for clip in clips:
        target = window if clip in near else Window(*clip.manifest["own_window"])
        complete = (clip.folder / files.WINDOW_FILE).is_file()  # it is written last
        if not complete or clip.window != target:
            apply_window(clip.folder, target)
    return window


def _mean_points(clips: list[files.ClipFiles]) -> np.ndarray:
    total = sum(len(clip) for clip in clips)
    return sum(clip.points.sum(axis=0, dtype=np.float64) for clip in clips) / total


def _save_candidates(folder: Path, clips: list[files.ClipFiles]) -> None:
    """Four pictures of training clips: mouth wide open and closed, and two head turns; with open
    eyes, still and sharp (the official ones were chosen by hand)."""
    frames = []  # (clip number, picture number, mouth area, yaw, open eyes and still, fps)
    for number, clip in enumerate(clips):
        count = int(clip.manifest["frames"])
        rows = np.minimum(np.arange(count) * MOTION_FPS / clip.fps + 0.5, len(clip) - 1).astype(int)
        marks = clip.landmarks[rows]
        lips = marks[:, _OUTER_LIPS]
        x, y = lips[..., 0], lips[..., 1]
        area = 0.5 * np.abs((x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(1))
        eyes = np.mean([np.abs(marks[:, a, 1] - marks[:, b, 1]) for a, b in _EYE_PAIRS], axis=0)
        good = presentable(eyes, marks)
        values = np.stack([area, clip.angles[rows, 1], good, np.full(count, clip.fps)], axis=1)
        frames += [(number, i, *row) for i, row in enumerate(values)]
    table = np.array(frames)
    pool = table[table[:, 4] > 0] if (table[:, 4] > 0).sum() >= 4 else table
    rank = min(100, max(1, round(0.02 * len(pool))), len(pool))
    order = np.argsort(pool[:, 2])
    readers = [PictureReader(clip.pictures_path) for clip in clips]

    def sharp(rows: np.ndarray) -> np.ndarray:
        """The sharpest of the first rows, if they are of one clip."""
        rows = rows[rows[:, 0] == rows[0, 0]]
        best = sharpest(readers[int(rows[0, 0])], rows[:, 1].astype(int))
        return rows[rows[:, 1] == best][0]

    chosen = [sharp(pool[order[max(0, len(pool) - rank - 2) :]]), sharp(pool[order[rank - 1 :]])]
    low, high = np.percentile(pool[:, 3], (2, 98))
    for share in (1 / 3, 2 / 3):
        away = np.abs(pool[:, 3] - (low + share * (high - low)))
        apart = away.copy()
        for other in chosen:
            near = np.abs(pool[:, 1] - other[1]) < _CANDIDATE_GAP * other[5]
            apart[(pool[:, 0] == other[0]) & near] = np.inf
        free = np.isfinite(apart).any()  # else a very short clip
        order = np.argsort(apart if free else away, kind="stable")
        chosen.append(sharp(pool[order][: max(1, np.isfinite(apart).sum()) if free else None]))
    (folder / files.CANDIDATES).mkdir(exist_ok=True)
    for j, row in enumerate(chosen):
        clip = clips[int(row[0])]
        picture = readers[int(row[0])][int(row[1])]
        write_image(
            folder / files.CANDIDATES / f"normalized_full_{j}.jpg", clip.window.cut(picture, WINDOW)
        )
