"""Colours and tracks of videos: HLG, BT.2020 in SDR, and files with two video tracks."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from talkingface.data.media.reader import read_frames

av = pytest.importorskip("av")

PATCH = np.array([200, 40, 40])  # sRGB
# Rows: X, Y, Z of the primaries (ITU-R BT.709 and BT.2020, both with D65).
XYZ_OF_709 = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)
XYZ_OF_2020 = np.array(
    [[0.6370, 0.1446, 0.1689], [0.2627, 0.6780, 0.0593], [0.0000, 0.0281, 1.0610]]
)
HLG, BT2020, SDR = 18, 9, 14  # codes of ITU-T H.273; 14: the 10-bit curve of BT.2020


def in_2020() -> np.ndarray:
    """Linear light of the patch with the primaries of BT.2020, SDR white is 1."""
    signal = PATCH / 255
    linear = np.where(signal < 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    return np.linalg.solve(XYZ_OF_2020, XYZ_OF_709 @ linear)


def hlg_signal(display: np.ndarray) -> np.ndarray:
    """Signal for display light in units of SDR white, 203 of 1000 cd/m2 (BT.2100, table 5)."""
    light = display * 203 / 1000
    luminance = XYZ_OF_2020[1] @ light
    scene = light * luminance ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    bright = a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)


def write(path: Path, signal: np.ndarray, transfer: int) -> Path:
    """A video of one colour with 10 bits, R'G'B' 0..1 by the equations of BT.2020."""
    red, _, blue = signal
    luma = np.array([0.2627, 0.6780, 0.0593]) @ signal
    levels = [
        64 + 876 * luma,
        512 + 896 * (blue - luma) / 1.8814,
        512 + 896 * (red - luma) / 1.4746,
    ]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        context = stream.codec_context
        context.color_primaries = context.colorspace = BT2020
        context.color_trc, context.color_range = transfer, 1
        for _ in range(3):
            frame = av.VideoFrame(64, 64, "yuv420p10le")
            for plane, level in zip(frame.planes, levels, strict=True):
                values = np.full(plane.buffer_size // 2, round(level), np.uint16)
                plane.update(values.tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("kind", ["hlg", "sdr"])
def test_wide_colours_become_those_of_bt709(kind, tmp_path, caplog):
    caplog.set_level(logging.INFO, "talkingface")
    linear = in_2020()
    signal = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    path = tmp_path / "a.mp4"
    write(path, hlg_signal(linear), HLG) if kind == "hlg" else write(path, signal, SDR)
    picture = next(read_frames(path, 25))[8:-8, 8:-8].reshape(-1, 3)
    assert np.abs(picture.mean(axis=0) - PATCH).max() < 5, picture.mean(axis=0)
    assert ("is HDR" if kind == "hlg" else "BT.2020 colours") in caplog.text


@pytest.mark.parametrize("default", [0, 1])
def test_of_two_video_tracks_the_default_one_is_read(default, tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=25) for _ in range(2)]
        for number, stream in enumerate(streams):
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            flag = av.stream.Disposition.default
            stream.disposition = flag if number == default else av.stream.Disposition(0)
        for _ in range(5):
            for number, stream in enumerate(streams):
                grey = np.full((64, 64, 3), 60 + 120 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, "rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    assert np.abs(next(read_frames(path, 25)).mean() - (60 + 120 * default)) < 5
