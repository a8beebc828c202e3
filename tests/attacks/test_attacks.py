"""Small files that would run code, read other files, fill memory or run for hours."""

from __future__ import annotations

import resource
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest
import torch

from talkingface.data.media.audio import load_audio
from talkingface.data.media.images import read_image
from talkingface.data.media.limits import limit
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import count_frames
from talkingface.data.media.writer import VideoWriter
from talkingface.data.npz import read_npz
from talkingface.errors import DataError, WeightsError
from talkingface.utils.safe_text import csv_cell, csv_text, markdown_cell
from talkingface.utils.weights import read_weights


@pytest.mark.parametrize(
    "text",
    ["ffconcat version 1.0\nfile '{secret}'\n", "#EXTM3U\n#EXTINF:10,\n{secret}\n#EXT-X-ENDLIST\n"],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8", "a.ffconcat"])
def test_a_playlist_reads_no_other_file(tmp_path, text, name):
    secret = tmp_path / "secret.mp4"
    with VideoWriter(secret, 25) as writer:
        writer.write(np.zeros((64, 64, 3), np.uint8))
    (tmp_path / name).write_text(text.format(secret=secret))
    for read in (probe, load_audio, count_frames):
        with pytest.raises(DataError, match="playlist"):
            read(tmp_path / name)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    rows = zlib.compress(bytes((width + 1) * 300), 9)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size + b"\x08\0\0\0\0")
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path):
    (tmp_path / "big.png").write_bytes(png_header(30_000, 30_000))
    with pytest.raises(DataError, match="max_megapixels"):
        read_image(tmp_path / "big.png")


def test_a_gap_of_100_hours_is_refused(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuvj420p"
        for pts in (0, 1, 100 * 3600 * 25):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))
            frame.pts = pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DataError, match="media.max_hours"):
        count_frames(path, 25)


def test_a_small_file_of_huge_arrays_is_refused(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("a.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f8", "fortran_order": False, "shape": (10**8,)}
            )
            for _ in range(800):
                file.write(bytes(10**6))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="It is not opened"):
        read_npz(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_limits_are_keys(monkeypatch):
    from talkingface.config.config import load_config
    from talkingface.data.media.limits import set_limits

    for key in ("max_hours", "max_megapixels", "max_array_gb"):  # undone after the test
        monkeypatch.setenv(f"TALKINGFACE_{key.upper()}", "1")
    cfg = load_config("HyperLipsBase", "Synthetic", cli={"media.max_hours": 0.5})
    set_limits(cfg.media)
    assert limit("max_hours") == 0.5 and limit("max_megapixels") == 100
    code = "from talkingface.data.media.limits import limit; print(limit('max_hours'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "0.5"  # also in other processes


def test_torchscript_is_opened_only_when_it_is_trusted(tmp_path):
    from talkingface.evaluator.metrics.identity import load_embedder
    from talkingface.utils.hashes import sha256_of

    class Network(torch.nn.Module):
        def forward(self, x):
            return x.mean(dim=(2, 3))

    path = tmp_path / "face.pt"
    torch.jit.script(Network()).save(str(path))
    with pytest.raises(WeightsError, match="TorchScript, which can run code.*--trust_checkpoint="):
        load_embedder(path, 0.0)
    embed = load_embedder(path, 0.0, sha256_of(path))
    assert embed(np.full((112, 112, 3), 200, np.uint8)).shape == (3,)
    with pytest.raises(WeightsError):
        read_weights(path)


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1"])
def test_a_spreadsheet_runs_no_cell(text):
    assert csv_cell(text) == f"'{text}"
    assert csv_text([[text, "-0.5", -0.5, "-"]]).rstrip("\n").endswith(",-0.5,-0.5,-")


def test_markdown_shows_names_as_they_are():
    text = markdown_cell("a|b\n<script> [x](y) `z` *s*")
    assert text == r"a\|b \<script\> \[x\](y) \`z\` \*s\*"
