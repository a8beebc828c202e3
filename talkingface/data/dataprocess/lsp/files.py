"""The files of a person, with the names of the official code (YuanxunLu/LiveSpeechPortraits).

One folder per person: files of the person at the top, those of each clip in ``clips/<clip>/``. All
pixels refer to the 512 px window, all motion is at 60 Hz. The pictures in ``<clip>.h5`` are source
frames at the frame rate of the source.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.dataprocess.lsp.motion import euler_to_matrix, matrix_to_euler, project
from talkingface.data.dataprocess.lsp.window import Window
from talkingface.data.media.pictures import PictureReader
from talkingface.data.npz import read_npy, read_npz, save_npz
from talkingface.errors import DataError
from talkingface.utils.env import import_cv2
from talkingface.utils.limits import require_resources
from talkingface.utils.paths import atomic, write_json

log = logging.getLogger(__name__)

FIT = "3d_fit_data.npz"
POINTS_3D = "tracked3D_normalized_pts_fix_contour.npy"
POINTS_2D = "tracked2D_normalized_pts_fix_contour.npy"
MEAN_POINTS = "mean_pts3d.npy"
SCALE = "id_scale.mat"
CAMERA = "camera_intrinsic.npy"
WINDOW_FILE = "change_paras.npz"
SHOULDERS = "normalized_shoulder_points.npy"
SHOULDERS_3D = "shoulder_points3D.npy"
DATABASE = "APC_feature_base.npy"
EXAMPLE = "example.png"
CANDIDATES = "candidates"
MANIFEST = "manifest.json"
SOURCE_SHOULDERS = "source_shoulders.npy"  # not official: in source pixels

MAX_PROJECTION_ERROR = 0.05  # px between 2-D points and projected 3-D points
EYES_FROM = 10  # first frame of the training sequence whose eyes are used


def _load(path: Path) -> Any:
    if not path.is_file():
        raise DataError(f"{path} is missing, a required file of Live Speech Portraits.")
    read = read_npz if path.suffix == ".npz" else read_npy
    return read(path, remedy="Copy the file, or prepare the person, again.")


def _entry(path: Path, name: str) -> np.ndarray:
    content = _load(path)
    if not isinstance(content, dict) or name not in content:
        raise DataError(f"{path} has no entry '{name}'.")
    return content[name]


def save_array(path: Path, values: np.ndarray) -> None:
    """Write float32 (N, ...) atomically."""
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.save(file, np.asarray(values, np.float32))


def save_fit(folder: Path, points: np.ndarray, angles: np.ndarray, trans: np.ndarray) -> None:
    """``3d_fit_data.npz`` and the points alone: (N,73,3), (N,3) degrees, (N,3) camera units."""
    arrays = {"pts_3d": points, "rot_angles": angles, "trans": trans[..., None]}
    save_npz(folder / FIT, {key: value.astype(np.float32) for key, value in arrays.items()})
    save_array(folder / POINTS_3D, points)


def save_camera(folder: Path, scale: float, camera: np.ndarray) -> None:
    """Scale and intrinsic matrix."""
    from scipy.io import savemat

    buffer = io.BytesIO()
    savemat(buffer, {"scale": np.array([[scale]], np.float64)})
    with atomic(folder / SCALE) as temporary:
        # Without the time of writing in the header, equal values have equal bytes.
        temporary.write_bytes(b"MATLAB 5.0 MAT-file".ljust(116) + buffer.getvalue()[116:])
    save_array(folder / CAMERA, camera)


def save_window(folder: Path, window: Window) -> None:
    """``change_paras.npz``."""
    save_npz(folder / WINDOW_FILE, {"scale": window.scale, "xc": window.xc, "yc": window.yc})


def save_motion(folder: Path, clips: list[ClipFiles], sides: np.ndarray) -> None:
    """Concatenate the motion files of clips; shoulders outside ``sides`` (2,) bool become NaN."""

    def joined(key: str) -> np.ndarray:
        return np.concatenate([getattr(clip, key) for clip in clips])

    save_fit(folder, joined("points"), joined("angles"), joined("trans"))
    save_array(folder / POINTS_2D, joined("landmarks"))
    for name, key in ((SHOULDERS, "shoulders"), (SHOULDERS_3D, "shoulders_3d")):
        values = joined(key)
        side_values(values)[:, ~sides] = np.nan
        save_array(folder / name, values)


def side_values(values: np.ndarray) -> np.ndarray:
    """Shoulder points (N,18,C) as (N,2,9,C), a view."""
    return values.reshape(len(values), 2, 9, values.shape[-1])


@dataclass(frozen=True)
class MotionFiles:
    """Motion files of a clip, or of a person."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def points(self) -> np.ndarray:
        """(N,73,3) object points with a constant face contour."""
        return _load(self.folder / POINTS_3D).astype(np.float32)

    @cached_property
    def angles(self) -> np.ndarray:
        """(N,3) degrees, x near +-180."""
        return _entry(self.folder / FIT, "rot_angles").astype(np.float32)

    @cached_property
    def trans(self) -> np.ndarray:
        """(N,3) camera units."""
        return _entry(self.folder / FIT, "trans").reshape(-1, 3).astype(np.float32)

    @cached_property
    def scale(self) -> float:
        """Camera units per object unit."""
        from scipy.io import loadmat

        path = self.folder / SCALE
        if not path.is_file():
            raise DataError(f"{path} is missing, the scale of the person.")
        try:
            return float(loadmat(path)["scale"][0, 0])
        except (KeyError, ValueError, NotImplementedError, OSError, IndexError) as error:
            require_resources(error)
            raise DataError(f"{path} is damaged or has no entry 'scale': {error}") from error

    @cached_property
    def camera(self) -> np.ndarray:
        """(3,3) intrinsics of the 512 px window."""
        return _load(self.folder / CAMERA).astype(np.float64)

    @cached_property
    def window(self) -> Window:
        path = self.folder / WINDOW_FILE
        scale, xc, yc = (_entry(path, name) for name in ("scale", "xc", "yc"))
        return Window(float(scale), int(xc), int(yc))

    @cached_property
    def landmarks(self) -> np.ndarray:
        """(N,73,2) window pixels."""
        return _load(self.folder / POINTS_2D).astype(np.float32)

    @cached_property
    def shoulders(self) -> np.ndarray:
        """(N,18,2) window pixels, NaN on a side that is not drawn."""
        path = self.folder / SHOULDERS
        if not path.is_file():
            return np.full((len(self.landmarks), 18, 2), np.nan, np.float32)
        return _load(path).astype(np.float32)

    @cached_property
    def shoulders_3d(self) -> np.ndarray:
        """(N,18,3) camera units."""
        path = self.folder / SHOULDERS_3D
        if not path.is_file():
            return np.full((2, 18, 3), np.nan, np.float32)
        return _load(path).astype(np.float32)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        path = self.folder / MANIFEST
        return json.loads(path.read_text("utf-8")) if path.is_file() else {}

    def __len__(self) -> int:
        return len(self.points)

    def projection(self) -> np.ndarray:
        """(N,73,2) window pixels of the 3-D points."""
        return project(self.points, self.angles, self.trans, self.scale, self.camera)


class ClipFiles(MotionFiles):
    """Files of one clip."""

    @property
    def pictures_path(self) -> Path:
        return self.folder / f"{self.name}.h5"

    @property
    def sound_path(self) -> Path:
        """The denoised sound if there is one, as in the official code."""
        denoised = self.folder / f"{self.name}_denoise.wav"
        return denoised if denoised.is_file() else self.folder / f"{self.name}.wav"

    def features_path(self, apc: str) -> Path:
        """Cached speech features of the APC with the identifier ``apc`` (``apc_id``)."""
        return self.folder / f"{self.name}_APC_feature_{apc}.npy"

    @property
    def fps(self) -> float:
        """Frame rate of the pictures; official trees have one picture per motion frame."""
        return float(self.manifest.get("fps", 60.0))


class Person(MotionFiles):
    """Files of a person and of its clips; also reads the official inference tree."""

    @cached_property
    def mean_points(self) -> np.ndarray:
        """(73,3) points that the displacements of Audio2Feature are added to."""
        return _load(self.folder / MEAN_POINTS).astype(np.float32)

    def clip(self, clip_id: str) -> ClipFiles:
        return ClipFiles(clip_folder(self.folder, clip_id))

    @property
    def database_apc(self) -> str | None:
        """Identifier of the APC of the database of speech features; None: unknown."""
        try:
            content = (self.folder / DATABASE).with_suffix(".json").read_text("utf-8")
            return json.loads(content)["apc"]
        except (OSError, ValueError, KeyError) as error:
            require_resources(error)
            return None

    def listed(self, split: str) -> list[str]:
        """Names of the clips in ``train_list.txt`` or ``val_list.txt``."""
        path = self.folder / f"{split}_list.txt"
        return path.read_text("utf-8").splitlines() if path.is_file() else []

    def candidates(self, size: int) -> np.ndarray:
        """(size,size,12) uint8: the channels of four RGB pictures."""
        cv2 = import_cv2()
        pictures = []
        for number in range(4):
            path = self.folder / CANDIDATES / f"normalized_full_{number}.jpg"
            data = np.fromfile(path, np.uint8) if path.is_file() else np.zeros(0, np.uint8)
            image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
            if image is None:
                raise DataError(f"{path} is missing or damaged; prepare the person again.")
            if image.shape[:2] != (size, size):
                image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
            pictures.append(image[..., ::-1])
        return np.concatenate(pictures, axis=-1)


def clip_folder(person: Path, clip_id: str) -> Path:
    """Folder of a clip; a slash in the id becomes two underscores."""
    name = clip_id.replace("/", "__")
    if "/" in clip_id and "__" in clip_id:  # keeps "a/b__c" and "a__b/c" apart
        name += "-" + hashlib.blake2b(clip_id.encode(), digest_size=4).hexdigest()
    return person / "clips" / name


def person_folders(root: Path) -> dict[str, Path]:
    """Prepared people by name."""
    paths = root.glob(f"*/{MEAN_POINTS}") if root.is_dir() else ()
    return {path.parent.name: path.parent for path in sorted(paths)}


# -- checks ----------------------------------------------------------------------------------------


def verify_files(files: MotionFiles, *, official: bool = False) -> dict[str, float]:
    """Check a folder: lengths, finite values, angles, projection, pictures.

    Args:
        official: for official files: a projection error is a warning, since it is unknown how the
            authors computed the 2-D points.

    Returns:
        Largest ``projection_error`` (px) and ``angle_error`` (degrees).

    Raises:
        DataError: a check fails; names the file.
    """
    count = len(files.points)
    shapes = [
        (POINTS_3D, files.points, (count, 73, 3)),
        (FIT + ": rot_angles", files.angles, (count, 3)),
        (FIT + ": trans", files.trans, (count, 3)),
        (CAMERA, files.camera, (3, 3)),
    ]
    for name, shape in ((SHOULDERS, (count, 18, 2)), (SHOULDERS_3D, (count, 18, 3)),
                        (MEAN_POINTS, (73, 3))):  # fmt: skip
        if (files.folder / name).is_file():
            shapes.append((name, _load(files.folder / name), shape))
    for name, values, shape in shapes:
        if values.shape != shape:
            raise DataError(f"{files.folder}: {name} has shape {values.shape} instead of {shape}")
        if name not in (SHOULDERS, SHOULDERS_3D) and not np.isfinite(values).all():
            raise DataError(f"{files.folder}: {name} contains NaN or infinite values")
    back = matrix_to_euler(euler_to_matrix(files.angles))
    angle = float(np.abs((back - files.angles + 180) % 360 - 180).max(initial=0.0))
    if angle > 0.01 or np.abs(files.angles[:, 0]).min(initial=180) < 90:
        raise DataError(
            f"{files.folder}: the angles of {FIT} are not those of a face toward the camera in "
            "degrees: x must be near +-180, y within +-90"
        )
    result = {"angle_error": angle}
    pictures = files.folder / f"{files.name}.h5"
    if pictures.is_file():
        reader = PictureReader(pictures)
        rows, stored = reader.rows(), len(reader)
        if len(rows) != count or rows.max(initial=-1) >= stored:
            raise DataError(
                f"{pictures}: {len(rows)} motion frames and {stored} pictures do not fit the "
                f"{count} frames of {POINTS_3D}"
            )
    if (files.folder / POINTS_2D).is_file():
        if files.landmarks.shape != (count, 73, 2):
            raise DataError(f"{files.folder}: {POINTS_2D} has shape {files.landmarks.shape}")
        error = float(np.abs(files.projection() - files.landmarks).max(initial=0.0))
        result["projection_error"] = error
        if not error < MAX_PROJECTION_ERROR:
            text = (
                f"{files.folder}: the projected 3-D points miss the 2-D points by {error:.2f} px. "
                f"Check {SCALE}, {CAMERA}, the angles (degrees, x near 180), and that 2-D points "
                "and camera are of the same window."
            )
            if not official:
                raise DataError(text)
            log.warning("%s", text)
    return result


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    write_json(folder / MANIFEST, content)
