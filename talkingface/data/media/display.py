"""Decoded video frames as they are meant to be seen: upright, square pixels, SDR, opaque."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.utils.env import import_av

logger = logging.getLogger(__name__)

GREY = 128  # of the background behind transparent parts
_PQ, _HLG = 16, 18  # transfer functions of ITU-T H.273
_BT2020 = 9
_SDR_WHITE = 203.0  # cd/m2, reference white of HDR pictures (ITU-R BT.2408)
_KNEE = 0.8  # of SDR white; brighter values are compressed
# BT.2020 to BT.709 primaries, linear light (ITU-R BT.2087).
_TO_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)


def orientation_of(frame: Any) -> tuple[bool, bool, bool]:
    """How to make a decoded frame upright: transpose it, then flip it in x, then in y.

    The display matrix maps a pixel to x' = a x + c y, y' = b x + d y (Apple QuickTime File Format,
    "Matrices"); besides rotations it can mirror.
    """
    for side in frame.side_data:
        if side.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(side), np.int32)[:5].tolist()
            if abs(b) + abs(c) > abs(a) + abs(d):
                return True, c < 0, b < 0
            return False, a < 0, d < 0
    return False, False, False


def pixel_aspect(stream: Any) -> float:
    """Width of a pixel divided by its height; 1 when unknown."""
    ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return float(ratio) if ratio and 0.1 < float(ratio) < 10 else 1.0


def displayed_size(frame: Any, aspect: float) -> tuple[int, int]:
    """Width and height of the shown picture of a decoded frame, before it is turned upright."""
    return max(1, round(frame.width * aspect)), frame.height


def deinterlaced(frames: Iterator[Any], stream: Any) -> Iterator[Any]:
    """Frames without combing, if the first one is flagged as interlaced (filter bwdif)."""
    first = next(frames, None)
    if first is None:
        return
    if not first.interlaced_frame:
        yield first
        yield from frames
        return
    av = import_av()
    logger.info("the video is interlaced; it is deinterlaced")
    graph = av.filter.Graph()
    nodes = (
        graph.add_buffer(template=stream),
        graph.add("bwdif", "mode=send_frame:deint=interlaced"),
        graph.add("buffersink"),
    )
    graph.link_nodes(*nodes).configure()

    def finished() -> Iterator[Any]:
        while True:
            try:
                yield graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return

    shape = (first.width, first.height, first.format.name)
    for frame in (f for source in ((first,), frames) for f in source):
        if (frame.width, frame.height, frame.format.name) != shape:
            yield frame
            continue
        graph.push(frame)
        yield from finished()
    graph.push(None)
    yield from finished()


class ToRGB:
    """Convert decoded frames to RGB arrays of one size; every call returns a new array.

    Args:
        path: of the video, for warnings.
        aspect: width of a pixel divided by its height.
    """

    def __init__(self, path: Path, aspect: float) -> None:
        self._path, self._aspect = path, aspect
        self._size: tuple[int, int] | None = None
        self._told: set[str] = set()

    def _tell(self, text: str, level: int = logging.INFO) -> None:
        if text not in self._told:
            self._told.add(text)
            logger.log(level, "%s %s", self._path, text)

    def __call__(self, frame: Any) -> np.ndarray:
        size = displayed_size(frame, self._aspect)
        if self._size is None:
            self._size = size
            if self._aspect != 1:
                self._tell(f"has pixels of aspect {self._aspect:.3f}; they are made square")
        elif size != self._size:
            self._tell("changes its frame size; all frames get the first size", logging.WARNING)
        width, height = self._size
        options = {"width": width, "height": height, "threads": 1}
        trc = int(frame.color_trc)
        if trc in (_PQ, _HLG):
            self._tell("is HDR; it is converted to SDR (BT.709)")
            rgb = sdr_of(frame.to_ndarray(format="rgb48le", **options), trc)
        elif any(component.is_alpha for component in frame.format.components):
            self._tell("has transparent parts; they are shown grey")
            rgb = over_grey(frame.to_ndarray(format="rgba", **options))
        else:
            rgb = frame.to_ndarray(format="rgb24", **options)
            if int(frame.color_primaries) == _BT2020:
                self._tell("has BT.2020 colours; they are converted to BT.709")
                rgb = _from_2020(rgb)
        return upright(rgb, *orientation_of(frame))


def upright(picture: np.ndarray, transposed: bool, flip_x: bool, flip_y: bool) -> np.ndarray:
    """A picture turned and mirrored as :func:`orientation_of` says; unchanged if there is nothing
    to do, else a new contiguous array."""
    if not (transposed or flip_x or flip_y):
        return picture
    picture = picture.swapaxes(0, 1) if transposed else picture
    return np.ascontiguousarray(picture[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def over_grey(rgba: np.ndarray) -> np.ndarray:
    """(H,W,4) uint8 to (H,W,3) uint8 in front of a neutral grey."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.rint(rgba[..., :3] * alpha + GREY * (1 - alpha)).astype(np.uint8)


def sdr_of(rgb: np.ndarray, transfer: int) -> np.ndarray:
    """BT.2020 HDR (H,W,3) uint16 to BT.709 SDR uint8.

    HDR reference white becomes SDR white; brighter values are compressed, all channels of a pixel
    by the same factor, so that the hue stays.
    """
    linear = _linear_table(transfer)[rgb]
    if transfer == _HLG:  # system gamma 1.2 of a display with 1000 cd/m2 (BT.2100, table 5)
        luminance = linear @ np.array([0.2627, 0.6780, 0.0593], np.float32)
        linear = linear * (1000.0 / _SDR_WHITE * np.maximum(luminance, 1e-6) ** 0.2)[..., None]
    linear = np.maximum(linear @ _TO_709.T, 0)
    peak = linear.max(axis=-1, keepdims=True)
    soft = _KNEE + (1 - _KNEE) * np.tanh((peak - _KNEE) / (1 - _KNEE))
    linear *= np.where(peak > _KNEE, soft / np.maximum(peak, 1e-6), 1)
    return _srgb_table()[(np.clip(linear, 0, 1) * 4095 + 0.5).astype(np.uint16)]


def _from_2020(rgb: np.ndarray) -> np.ndarray:
    """SDR with BT.2020 primaries (H,W,3) uint8 to BT.709."""
    levels = np.arange(256, dtype=np.float32) / 255
    linear = np.where(levels < 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    mixed = np.clip(linear.astype(np.float32)[rgb] @ _TO_709.T, 0, 1)
    return _srgb_table()[(mixed * 4095 + 0.5).astype(np.uint16)]


@lru_cache(maxsize=2)
def _linear_table(transfer: int) -> np.ndarray:
    """Linear light of 65,536 signal levels: PQ in units of SDR white, HLG 0..1 of the scene."""
    signal = np.arange(65536) / 65535
    if transfer == _PQ:  # SMPTE ST 2084
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        power = signal ** (1 / m2)
        linear = 10000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1) / _SDR_WHITE
    else:  # ARIB STD-B67
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        linear = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return linear.astype(np.float32)


@lru_cache(maxsize=1)
def _srgb_table() -> np.ndarray:
    """sRGB level (uint8) of 4,096 steps of linear light."""
    linear = np.arange(4096) / 4095
    signal = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * signal).astype(np.uint8)
