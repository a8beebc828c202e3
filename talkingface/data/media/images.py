"""Reading pictures: upright, opaque, with an error that says what is wrong with a file."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np

from talkingface.data.media.display import over_grey, upright
from talkingface.data.media.files import what_it_is
from talkingface.data.media.jpeg import require_intact
from talkingface.data.media.limits import require_pixels
from talkingface.errors import DataError
from talkingface.utils.env import import_cv2, require
from talkingface.utils.limits import require_resources

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
# EXIF orientation 1 to 8 as (transpose, flip x, flip y), see display.upright.
_EXIF = (
    *((False, False, False), (False, True, False), (False, True, True), (False, False, True)),
    *((True, False, False), (True, True, False), (True, True, True), (True, False, True)),
)


def is_image(path: str | Path) -> bool:
    """Whether a path has the suffix of a picture."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def read_image(path: str | Path) -> np.ndarray:
    """Read a picture as uint8 (H, W, 3), RGB, rotated upright by its EXIF tag.

    Transparent parts are shown grey; of an animation the first picture is read.

    Raises:
        DataError: the file is missing, empty, damaged, too large or not a picture.
    """
    path = Path(path)
    cv2 = import_cv2()
    try:
        data = np.fromfile(path, dtype=np.uint8)  # cv2.imread fails on Unicode paths on Windows
    except OSError as error:
        require_resources(error)
        raise DataError(
            f"Cannot read the picture {path}: {error.strerror or error}. Check the path."
        ) from error
    head = data[:4096].tobytes()
    require_intact(data.data, path)
    if head.startswith(b"\xff\xd8"):
        image = _decoded(data, cv2.IMREAD_COLOR, path)
        if image is not None and b"\xff\xd9" not in data[-64:].tobytes():
            raise DataError(f"The picture {path} is cut off at its end. Copy or download it again.")
    else:
        image = _of_other_format(data, head, path)
    if image is None:
        raise DataError(
            f"Not a picture that can be read: {path} ({data.size} bytes): {what_it_is(head)}."
        )
    return np.ascontiguousarray(image[..., ::-1])


def _decoded(data: np.ndarray, flags: int, path: Path) -> np.ndarray | None:
    """BGR of the file's content, None when it cannot be decoded."""
    pillow = require("PIL.Image", why="Reading pictures")
    try:
        with pillow.open(io.BytesIO(data.data)) as header:  # reads no pixels
            require_pixels(*header.size, path)
    except pillow.DecompressionBombError as error:
        limit = "more than media.max_megapixels allows"
        raise DataError(f"{path} has too many pixels, {limit}. Make it smaller.") from error
    except (OSError, ValueError, SyntaxError):
        pass  # formats that only OpenCV knows; it has limits of its own
    cv2 = import_cv2()
    try:
        return cv2.imdecode(data, flags) if data.size else None
    except cv2.error:
        return None


def _of_other_format(data: np.ndarray, head: bytes, path: Path) -> np.ndarray | None:
    """BGR of a picture that may be transparent, turned or animated."""
    cv2 = import_cv2()
    raw = _decoded(data, cv2.IMREAD_UNCHANGED, path)
    if raw is None:
        return None
    if (head[:4] == b"RIFF" and b"ANIM" in head) or b"acTL" in head:
        logger.warning("%s is animated; only its first picture is used", path)
    turned = _EXIF[_orientation(data) - 1]
    if any(turned) and head.startswith((b"II*", b"MM\0*")):  # OpenCV turns TIFF, but only half
        why = "Reading TIFF pictures"
        with require("PIL.Image", why=why).open(io.BytesIO(data.data)) as picture:
            picture = require("PIL.ImageOps", why=why).exif_transpose(picture)
            return np.asarray(picture.convert("RGB"))[..., ::-1]
    if raw.ndim == 3 and raw.shape[2] == 4 and raw[..., 3].min() < np.iinfo(raw.dtype).max:
        logger.info("%s has transparent parts; they are shown grey", path)
        scale = np.iinfo(raw.dtype).max / 255
        return upright(over_grey(np.rint(raw / scale).astype(np.uint8)), *turned)
    return upright(cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION), *turned)


def _orientation(data: np.ndarray) -> int:
    """The EXIF orientation, 1 to 8."""
    pillow = require("PIL.Image", why="Reading pictures")
    try:
        with pillow.open(io.BytesIO(data.data)) as picture:
            value = picture.getexif().get(0x0112, 1)
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError):
        return 1
    return value if value in range(1, 9) else 1
