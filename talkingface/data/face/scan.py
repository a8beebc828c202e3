"""One pass over a video: landmarks of all faces, image measures and scene cuts, cached.

The cache key is the file's content and the settings: a moved or renamed file keeps its cache, and
all families, the evaluation and the report share one detection.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from pathlib import Path

import numpy as np

from talkingface.config.schema import FaceSection
from talkingface.data.face.mesh import TRACKER, FaceMesher
from talkingface.data.face.occlusion import SKIN, skin_colours
from talkingface.data.face.topology import LIPS_OUTER, N_POINTS
from talkingface.data.media.files import cannot_open
from talkingface.data.media.images import is_image, read_image
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import read_frames
from talkingface.errors import TalkingFaceError
from talkingface.utils.env import import_cv2
from talkingface.utils.logs import progress
from talkingface.utils.paths import atomic, project_root

log = logging.getLogger(__name__)

_CACHE_VERSION = 4
_PATCH = 128  # side of the face patch on which sharpness and change are measured, in pixels
_THUMBNAIL = (32, 18)
_PER_FACE = ("frame", "points", "sharpness", "mouth_texture", "face_change", "skin")
# Scene cut: the thumbnails of two frames differ by more than _CUT_CHANGE (of 255) and by more than
# _CUT_RATIO times the median difference of the _CUT_MEMORY frames before. The ratio excludes a
# waving hand or a zoom.
_CUT_CHANGE, _CUT_RATIO, _CUT_MEMORY = 12.0, 4.0, 5


@dataclass(frozen=True)
class FaceScan:
    """All faces of a video at a constant frame rate.

    Attributes:
        n_frames: number of frames of the video.
        size: (2,) width and height in pixels.
        frame: (N,) frame index of each detection, ascending.
        points: (N,478,3) float32 pixels, see :class:`~talkingface.data.face.mesh.FaceMesher`.
        sharpness: (N,) variance of the Laplacian of the face, scaled to 128 px, 8-bit grey.
        mouth_texture: (N,) standard deviation of the grey values in the lips' box.
        face_change: (N,) mean absolute grey difference of the face to the previous frame (0-255).
        skin: (N,P,3) uint8 colours around the mouth, see :func:`skin_colours`.
        cuts: indices of the first frames after scene cuts.
    """

    n_frames: int
    size: np.ndarray
    frame: np.ndarray
    points: np.ndarray
    sharpness: np.ndarray
    mouth_texture: np.ndarray
    face_change: np.ndarray
    skin: np.ndarray
    cuts: np.ndarray


def scan_frames(
    frames: Iterable[np.ndarray], *, tracking: bool, options: FaceSection | None = None
) -> FaceScan:
    """Detect the faces of consecutive frames.

    Args:
        frames: (H,W,3) uint8 RGB.
        tracking: see :class:`~talkingface.data.face.mesh.FaceMesher`.
        options: limits of the detection; None: the default values.
    """
    cv2 = import_cv2()
    options = options or FaceSection()
    limits = {"max_faces": options.max_faces, "min_detection": options.min_detection}
    numbers, points, measures, skin, changes, cuts = [], [], [], [], [], []
    previous = thumbnail = None
    size = (0, 0)
    index = -1
    with FaceMesher(tracking=tracking, **limits) as mesher:
        for index, frame in enumerate(frames):
            height, width = frame.shape[:2]
            size = (width, height)
            # An integer factor averages blocks of whole pixels: fast and without aliasing.
            factor = -(-max(height, width) // options.max_side)
            if factor > 1:
                frame = frame[: height - height % factor, : width - width % factor]
                small = (frame.shape[1] // factor, frame.shape[0] // factor)
                frame = cv2.resize(frame, small, interpolation=cv2.INTER_AREA)
            last, thumbnail = thumbnail, _thumbnail(frame)
            changes.append(0.0 if last is None else float(cv2.absdiff(thumbnail, last).mean()))
            usual = np.median(changes[-1 - _CUT_MEMORY : -1] or [0.0])
            if changes[-1] > max(_CUT_CHANGE, _CUT_RATIO * usual):
                cuts.append(index)
                mesher.reset()
            for face in mesher(frame):
                numbers.append(index)
                points.append(face * factor)
                measures.append(_measures(frame, previous, face))
                skin.append(skin_colours(frame, face))
            previous = frame
    columns = np.array(measures, np.float32).reshape(-1, 3).T
    return FaceScan(
        n_frames=index + 1,
        size=np.array(size),
        frame=np.array(numbers, np.int32),
        points=np.array(points, np.float32).reshape(-1, N_POINTS, 3),
        sharpness=columns[0],
        mouth_texture=columns[1],
        face_change=columns[2],
        skin=np.array(skin, np.uint8).reshape(-1, len(SKIN), 3),
        cuts=np.array(cuts, np.int32),
    )


def _thumbnail(frame: np.ndarray) -> np.ndarray:
    """Reduce a frame to a thumbnail, first by 2x2 blocks: faster than one fractional step."""
    cv2 = import_cv2()
    while min(frame.shape[0] // _THUMBNAIL[1], frame.shape[1] // _THUMBNAIL[0]) >= 4:
        half = (frame.shape[1] // 2, frame.shape[0] // 2)
        frame = cv2.resize(frame[: 2 * half[1], : 2 * half[0]], half, interpolation=cv2.INTER_AREA)
    return cv2.resize(frame, _THUMBNAIL, interpolation=cv2.INTER_AREA)


def _measures(
    frame: np.ndarray, previous: np.ndarray | None, face: np.ndarray
) -> tuple[float, float, float]:
    """Sharpness, mouth texture and change of one face."""
    cv2 = import_cv2()

    def grey_crop(image: np.ndarray, points: np.ndarray) -> np.ndarray | None:
        x0, y0 = np.maximum(np.floor(points.min(axis=0)).astype(int), 0)
        x1, y1 = np.maximum(np.ceil(points.max(axis=0)).astype(int), 0)
        crop = image[y0:y1, x0:x1]
        return cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) if min(crop.shape[:2]) >= 2 else None

    patch = grey_crop(frame, face[:, :2])
    if patch is None:
        return np.nan, np.nan, np.nan
    side = (_PATCH, _PATCH)
    patch = cv2.resize(patch, side, interpolation=cv2.INTER_AREA)
    sharpness = float(cv2.Laplacian(patch, cv2.CV_32F).var())
    mouth = grey_crop(frame, face[list(LIPS_OUTER), :2])
    texture = np.nan if mouth is None else float(mouth.std())
    before = None if previous is None else grey_crop(previous, face[:, :2])
    if before is None:
        return sharpness, texture, np.nan
    before = cv2.resize(before, side, interpolation=cv2.INTER_AREA)
    return sharpness, texture, float(cv2.absdiff(patch, before).mean())


def _begin(scan: FaceScan, count: int | None) -> FaceScan:
    """The scan of the first frames."""
    if count is None or count >= scan.n_frames:
        return scan
    kept = int(np.searchsorted(scan.frame, count))
    parts = {name: getattr(scan, name)[:kept] for name in _PER_FACE}
    return replace(scan, n_frames=count, cuts=scan.cuts[scan.cuts < count], **parts)


def content_hash(path: Path) -> str:
    """Hash of a file's bytes.

    Raises:
        DataError: the file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=12)
    try:
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except OSError as error:
        raise cannot_open(Path(path), error) from error
    return digest.hexdigest()


def cache_folder() -> Path:
    """Folder of the cached scans of all datasets."""
    return project_root() / "dataset" / ".cache" / "faces"


def scan_video(
    path: Path,
    *,
    fps: float,
    tracking: bool,
    options: FaceSection | None = None,
    cache: bool = True,
    first: int | None = None,
    show_progress: str | bool = False,
) -> FaceScan:
    """Scan a video at a constant frame rate, or load the result from the cache.

    Args:
        path: video or still picture (one frame).
        fps: frame rate at which the video is read.
        tracking, options: as for :func:`scan_frames`.
        cache: load and store the result in :func:`cache_folder`.
        first: scan this number of frames only. The result is not stored, but cut from a stored
            scan of all frames if there is one.

    Raises:
        DataError: the file cannot be decoded.
    """
    options = options or FaceSection()
    settings = (
        f"v{_CACHE_VERSION}-{TRACKER}-fps{fps:g}-track{int(tracking)}-faces{options.max_faces}"
        f"-{options.max_side}-{options.min_detection:g}"
    )
    name = f"{content_hash(path)}-{settings}.npz"
    stored = cache_folder() / name[:2] / name
    if cache and stored.exists():
        try:
            with np.load(stored) as data:
                values = {field.name: data[field.name] for field in fields(FaceScan)}
            return _begin(FaceScan(**{**values, "n_frames": int(values["n_frames"])}), first)
        except Exception as error:  # numpy and zipfile raise many types for damaged files
            log.warning("%s is damaged (%s); detecting again", stored, error)
    still = is_image(path)
    frames = [read_image(path)] if still else islice(read_frames(path, fps=fps), first)
    total = 1 if still or not show_progress else round(probe(path).duration * fps) or None
    if first is not None and total is not None:
        total = min(first, total)
    watched = progress(
        frames,
        desc=f"faces of {Path(path).name}",
        total=total,
        unit="frame",
        show=show_progress,
        leave=False,
    )
    scan = scan_frames(watched, tracking=tracking, options=options)
    if cache and (first is None or scan.n_frames < first):
        try:
            with atomic(stored) as temporary, open(temporary, "wb") as file:
                np.savez(file, **asdict(scan))
        except TalkingFaceError as error:  # e.g. a read-only disk; the result is still valid
            log.debug("faces are not cached: %s", error)
    return scan
