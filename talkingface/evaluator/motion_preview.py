"""Pictures and videos of motions, on the CPU: heat maps, curves, lips, skeleton.

They show motion data, not a rendering of a person.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.face.series import runs
from talkingface.data.media.writer import write_image, write_video
from talkingface.utils.env import import_cv2, require

_SIZE = (960, 720)  # of the curves, pixels
_TITLE = "motion preview, not a rendering of a person"


def _loudness(sound: np.ndarray, frames: int) -> np.ndarray:
    """(frames, channels) root mean square of samples (S, channels)."""
    step = len(sound) // frames
    parts = sound[: step * frames].reshape(frames, step, -1)
    return np.sqrt(np.square(parts, dtype=np.float64).mean(axis=1))


def _components(motion: np.ndarray, count: int = 3) -> Callable:
    """Projection onto the first principal components of a motion."""
    rows = motion[np.isfinite(motion).all(axis=1)]
    centred = rows - rows.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    return lambda values: (values - rows.mean(axis=0)) @ directions[:count].T


def curves(
    generated: np.ndarray,
    sound: np.ndarray,
    fps: float,
    *,
    real: np.ndarray | None = None,
    keys: np.ndarray | None = None,
    key_step: int = 30,
    kind: str = "face",
) -> tuple[np.ndarray, tuple[int, int]]:
    """A picture (H,W,3) uint8 RGB of a motion, and the columns of its first and last frame.

    Face codes: heat maps and the first principal components. Poses: root, energy of the joints, and
    key poses as dots. Below: the loudness of both voices. Missing frames are grey.

    Args:
        generated: (T,C), NaN in missing frames.
        sound: (S,2).
        real: (T,C) to compare with.
        keys: (K,C) key poses, every ``key_step`` frames.
        kind: ``face`` or ``pose``.
    """
    require("matplotlib", why="Pictures of motions")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    time = np.arange(len(generated)) / fps
    figure = Figure(figsize=(_SIZE[0] / 100, _SIZE[1] / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    body = kind == "pose"
    rows = 4 if real is None or body else 5
    axes = list(figure.subplots(rows, 1, sharex=True))
    figure.suptitle(f"{kind}: {_TITLE}", fontsize=9)
    span = (0.0, len(generated) / fps)
    panels = iter(axes)
    if body:
        axis = next(panels)
        for column, name in enumerate("xyz"):
            values = generated[:, column]
            axis.plot(time, values - np.nanmean(values), lw=1, label=name)
        axis.set_ylabel("root place")
        axis.legend(fontsize=6, ncol=3, loc="upper right")
        axis = next(panels)
        turns = np.unwrap(np.nan_to_num(generated[:, 3:6]), axis=0)
        axis.plot(time, turns, lw=1)
        if keys is not None:
            at = np.arange(len(keys)) * key_step
            near = turns[np.minimum(at, len(turns) - 1)]  # to choose the multiple of 2 pi
            dots = keys[:, 3:6] + 2 * np.pi * np.round((near - keys[:, 3:6]) / (2 * np.pi))
            axis.plot(at / fps, dots, "k.", ms=4)
        axis.set_ylabel("root turn, rad")
        axis = next(panels)
        for values, name in ((generated, "generated"), (real, "real")):
            if values is not None:
                energy = np.square(np.diff(values[:, 6:], axis=0)).mean(axis=1) * fps**2
                axis.plot(time[1:], energy, lw=1, label=name)
        axis.set_ylabel("joint energy")
        axis.legend(fontsize=6, loc="upper right")
    else:
        shown = [("real", real)] if real is not None else []
        reference = generated if real is None else real
        mean, spread = np.nanmean(reference, axis=0), np.nanstd(reference, axis=0) + 1e-6
        for name, values in [*shown, ("generated", generated)]:
            axis = next(panels)
            extent = (*span, values.shape[1], 0)
            picture = ((values - mean) / spread).T
            axis.imshow(
                picture, aspect="auto", extent=extent, vmin=-2.5, vmax=2.5, cmap="RdBu",
                interpolation="nearest",
            )  # fmt: skip
            axis.set_ylabel(f"{name}\ncodes", fontsize=7)
        axis = next(panels)
        project = _components(reference)
        if real is not None:
            axis.plot(time, project(real), "k-", lw=0.7, alpha=0.5)
        axis.plot(time, project(generated), lw=1)
        axis.set_ylabel("components", fontsize=7)
        axis = next(panels)
        change = np.linalg.norm(np.diff((generated - mean) / spread, axis=0), axis=1) * fps
        axis.plot(time[1:], change, lw=1)
        axis.set_ylabel("speed", fontsize=7)
        missing = ~np.isfinite(reference).all(axis=1)
        for start, stop in runs(missing):
            if missing[start]:
                for axis in axes[:-1]:
                    axis.axvspan(start / fps, stop / fps, color="0.8", lw=0)
    axis = axes[-1]
    loud = _loudness(sound, len(generated))
    for channel, name in zip(loud.T, ("this person", "partner"), strict=False):
        axis.plot(time, channel, lw=1, label=name)
    axis.legend(fontsize=6, loc="upper right")
    axis.set_ylabel("loudness", fontsize=7)
    axis.set_xlabel("s", fontsize=7)
    axis.set_xlim(*span)
    for axis in axes:
        axis.tick_params(labelsize=6)
    figure.subplots_adjust(left=0.09, right=0.985, top=0.94, bottom=0.06, hspace=0.12)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    box = axes[-1].get_window_extent()
    return picture, (round(box.x0), round(box.x1) - 1)


def with_cursor(picture: np.ndarray, columns: tuple[int, int], frames: int) -> Iterator[np.ndarray]:
    """One copy of the picture per frame, with a vertical line at its time."""
    for number in range(frames):
        shown = picture.copy()
        place = columns[0] + round((columns[1] - columns[0]) * (number + 0.5) / frames)
        shown[:, place : place + 2] = (220, 30, 30)
        yield shown


def lips(points: np.ndarray, sound: np.ndarray, side: int = 480) -> Iterator[np.ndarray]:
    """Frames (side, 2 side, 3): lip points (T,V,3) from the front, and the loudness of the voice.

    Args:
        points: x to the right and y down, in any unit.
    """
    cv2 = import_cv2()
    flat = points[..., :2]
    middle = flat.reshape(-1, 2).mean(axis=0)
    reach = np.abs(flat - middle).max() * 1.15 + 1e-9
    places = np.rint((flat - middle) / reach * side / 2 + side / 2).astype(int)
    loud = _loudness(sound, len(points))[:, 0]
    curve = side - 20 - loud / max(loud.max(), 1e-9) * (side - 40)
    at = np.linspace(0, side - 1, len(points))
    line = np.stack([at, curve], axis=1).astype(np.int32)
    wave = np.full((side, side, 3), 255, np.uint8)
    cv2.polylines(wave, [line], False, (40, 90, 160), 1, cv2.LINE_AA)
    for number, frame in enumerate(places):
        front = np.full((side, side, 3), 255, np.uint8)
        for place in frame:
            cv2.circle(front, tuple(int(v) for v in place), 4, (190, 40, 60), -1, cv2.LINE_AA)
        right = wave.copy()
        column = round(float(at[number]))
        right[:, max(column - 1, 0) : column + 1] = (220, 30, 30)
        yield np.concatenate([front, right], axis=1)


def bones(joints: np.ndarray, parents: np.ndarray, side: int = 480) -> Iterator[np.ndarray]:
    """Frames (side, 2 side, 3) of a skeleton (T,J,3), from the front and from its left side.

    Args:
        joints: y up.
        parents: (J,) index of the parent joint, negative at the root.
    """
    cv2 = import_cv2()
    middle = (joints.reshape(-1, 3).max(axis=0) + joints.reshape(-1, 3).min(axis=0)) / 2
    reach = np.abs(joints - middle).max() * 1.1 + 1e-9
    scaled = (joints - middle) / reach * (side / 2)
    for frame in scaled:
        views = []
        for axis in (0, 2):
            picture = np.full((side, side, 3), 255, np.uint8)
            flat = np.stack([frame[:, axis], -frame[:, 1]], axis=1) + side / 2
            for joint, parent in enumerate(parents):
                if parent >= 0:
                    ends = [tuple(int(v) for v in np.rint(flat[i])) for i in (parent, joint)]
                    cv2.line(picture, *ends, (40, 90, 160), 2, cv2.LINE_AA)
            views.append(picture)
        yield np.concatenate(views, axis=1)


def write_preview(
    path: Path,
    generated: np.ndarray,
    sound: np.ndarray,
    rate: int,
    fps: float,
    *,
    video: bool = True,
    crf: int = 18,
    **options: Any,
) -> None:
    """Write ``path.png`` of :func:`curves` and, with ``video``, ``path.mp4`` (cursor, sound)."""
    picture, columns = curves(generated, sound, fps, **options)
    write_image(path.with_name(f"{path.name}.png"), picture)
    if video:
        frames = with_cursor(picture, columns, len(generated))
        voices = (sound.mean(axis=1), rate)
        write_video(path.with_name(f"{path.name}.mp4"), frames, fps, audio=voices, crf=crf)
