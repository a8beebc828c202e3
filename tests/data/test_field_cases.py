"""Files of the kinds that users reported: phones, browsers, HDR, transparency, odd sounds.

Those of ``../shared/data/field_cases`` are used where that folder exists; the others are made here.
"""

from __future__ import annotations

import wave

import cv2
import numpy as np
import pytest

from talkingface.data.media.audio import load_audio
from talkingface.data.media.images import read_image
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import read_frames
from talkingface.errors import DataError


@pytest.fixture(scope="module")
def cases(shared):
    folder = shared / "field_cases"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


def first(path):
    return next(iter(read_frames(path)))


# -- pictures that move ------------------------------------------------------------------------


def test_a_phone_video_is_upright(cases):
    """OpenCV applies the display matrix itself."""
    path = cases / "phone_portrait.mp4"
    capture = cv2.VideoCapture(str(path))
    expected = capture.read()[1][..., ::-1]
    assert first(path).shape == expected.shape
    assert np.abs(first(path).astype(int) - expected).mean() < 3


def test_hdr_is_converted_to_sdr(cases, caplog):
    """The patch in the lower right corner is sRGB (200, 40, 40)."""
    picture = first(cases / "v06_hdr10_pq.mp4")
    height, width = picture.shape[:2]
    patch = picture[round(0.9 * height) : round(0.98 * height), round(0.9 * width) : -12]
    assert np.abs(np.median(patch, axis=(0, 1)) - (200, 40, 40)).max() <= 12
    assert 0.1 < (picture > 128).mean()


def test_pixels_are_made_square(cases):
    info = probe(cases / "v11_anamorphic.mp4")
    assert (info.width, info.height) == (512, 512)
    assert first(cases / "v11_anamorphic.mp4").shape == (512, 512, 3)


def test_interlaced_video_is_not_combed(cases):
    """Combing: rows of one field differ more from their neighbours than from the next rows."""
    for number, picture in enumerate(read_frames(cases / "v10b_interlaced_motion.mpg")):
        grey = picture.mean(axis=2)
        next_row = np.abs(grey[1:] - grey[:-1]).mean()
        second_row = np.abs(grey[2:] - grey[:-2]).mean()
        assert next_row < second_row
        if number == 10:
            break
    assert picture.shape[:2] == (576, 768)


def test_hidden_colours_of_a_transparent_video_stay_hidden(cases):
    opaque = [first(cases / "v01_vp9_alpha.webm"), read_image(cases / "rgba_hidden_magenta.png")]
    for picture in opaque:
        magenta = (picture[..., 0] > 180) & (picture[..., 1] < 90) & (picture[..., 2] > 180)
        grey = (np.abs(picture.astype(int) - 128) < 6).all(axis=2)
        assert magenta.mean() < 0.001 and grey.mean() > 0.02


def test_a_still_from_a_phone_is_upright(cases):
    from PIL import Image, ImageOps

    with Image.open(cases / "exif6.webp") as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
    picture = read_image(cases / "exif6.webp")
    assert picture.shape == expected.shape and np.abs(picture - expected).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_a_picture(tmp_path, orientation):
    from PIL import Image, ImageOps

    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:10, :10], pixels[10:, 20:] = (255, 0, 0), (0, 255, 0)
    for suffix, options in ((".png", {}), (".webp", {"lossless": True}), (".tif", {})):
        path = tmp_path / f"a{suffix}"
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(path, exif=exif, **options)
        with Image.open(path) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        assert np.array_equal(read_image(path), expected), suffix


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((1, 0, 0, 1), lambda a: a),
        ((0, 1, -1, 0), lambda a: np.rot90(a, -1)),
        ((0, -1, 1, 0), lambda a: np.rot90(a)),
        ((-1, 0, 0, -1), lambda a: a[::-1, ::-1]),
        ((-1, 0, 0, 1), lambda a: a[:, ::-1]),
        ((1, 0, 0, -1), lambda a: a[::-1]),
        ((0, 1, 1, 0), lambda a: a.swapaxes(0, 1)),
    ],
)
def test_display_matrices_rotate_and_mirror(matrix, upright):
    from types import SimpleNamespace

    from talkingface.data.media import display

    class Matrix(bytes):
        type = SimpleNamespace(name="DISPLAYMATRIX")

    a, b, c, d = matrix
    data = np.array([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30], np.int32).tobytes()
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    turned = display.upright(
        picture, *display.orientation_of(SimpleNamespace(side_data=[Matrix(data)]))
    )
    assert np.array_equal(turned, upright(picture))


@pytest.mark.parametrize("factor", [1, 2])
def test_a_small_face_in_a_wide_picture_is_found(cases, tmp_path, factor):
    """200 px in 1080p, 400 px in 4K; the detector alone sees none."""
    pytest.importorskip("mediapipe")
    from talkingface.data.face.mesh import FaceMesher
    from talkingface.data.face.scan import scan_frames

    picture = read_image(cases / "halfbody_1920x1080_face200.jpg")
    picture = cv2.resize(picture, None, fx=factor, fy=factor)
    for tracking in (False, True):
        scan = scan_frames([picture] * 3, tracking=tracking)
        assert scan.frame.tolist() == [0, 1, 2]
        height = np.ptp(scan.points[:, :, 1], axis=1)
        assert (abs(height - 200 * factor) < 60 * factor).all()
    small = cv2.resize(picture, (1280, 720), interpolation=cv2.INTER_AREA)
    with FaceMesher(tracking=False, max_faces=3) as mesher:
        assert len(mesher(small)) == 1  # found in two squares, counted once


def test_of_an_animation_the_first_picture_is_used_and_said(cases, caplog):
    assert read_image(cases / "anim.webp").ndim == 3
    assert "animated; only its first picture" in caplog.text


@pytest.mark.parametrize(
    ("name", "reason"),
    [("really_heic.jpg", "HEIC picture"), ("cut.jpg", "cut off"), ("iphone_grid.heic", "HEIC")],
)
def test_the_reason_is_named(cases, name, reason):
    read = read_image if name.endswith("jpg") else probe
    with pytest.raises(DataError, match=reason):
        read(cases / name)


# -- sounds ------------------------------------------------------------------------------------


def test_sound_behind_a_hole_stays_in_place(cases, caplog):
    """Speech of the same length as the file, with 300 ms missing."""
    samples = load_audio(cases / "v04c_hole_300ms.webm")
    video = sum(1 for _ in read_frames(cases / "v04c_hole_300ms.webm", fps=25)) / 25
    assert len(samples) / 16000 == pytest.approx(video, abs=0.12)
    assert "gaps or overlaps in the audio repaired" in caplog.text
    silent = np.abs(samples.reshape(-1)[: len(samples) // 160 * 160].reshape(-1, 160)).max(axis=1)
    runs = "".join("s" if value < 1e-4 else "x" for value in silent).split("x")
    assert max(map(len, runs)) >= 28  # blocks of 10 ms


def test_channels_that_cancel_are_not_averaged(cases, caplog):
    assert np.abs(load_audio(cases / "antiphase.wav")).max() > 0.05
    assert "cancel each other" in caplog.text


def test_floats_with_16_bit_numbers_are_scaled(cases, caplog):
    samples = load_audio(cases / "float_int16_scale.wav")
    assert 0.01 < np.abs(samples).max() <= 1
    assert "16-bit numbers" in caplog.text


def test_huge_samples_and_impossible_rates_are_refused(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "huge.wav", np.full(8000, 1e30, np.float32), 16000, subtype="FLOAT")
    with pytest.raises(DataError, match="values up to 1e"):
        load_audio(tmp_path / "huge.wav")
    with wave.open(str(tmp_path / "slow.wav"), "wb") as file:
        file.setparams((1, 2, 1, 0, "NONE", ""))
        file.writeframes(np.zeros(16000, "<i2").tobytes())
    with pytest.raises(DataError, match=r"1 samples per second|by its time stamps"):
        load_audio(tmp_path / "slow.wav")


# -- names and folders ---------------------------------------------------------------------------


def test_linked_folders_are_read_and_loops_end(tmp_path):
    from talkingface.data.clips import discover_clips

    for name in ("data/a/one.mp4", "elsewhere/two.MTS", "data/._a.mp4", "data/.b/c.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "a" / "loop").symlink_to(tmp_path / "data")
    assert [clip.id for clip in discover_clips(tmp_path / "data")] == ["a/one", "b/two"]


def test_composed_and_decomposed_names_are_one_name(tmp_path):
    from unicodedata import normalize

    from talkingface.data.clips import discover_clips

    name = "Zoë"
    (tmp_path / f"{normalize('NFD', name)}.mp4").write_bytes(b"x")
    (clip,) = discover_clips(tmp_path)
    assert clip.id == normalize("NFC", name)


def test_a_name_that_is_too_long_does_not_stop_the_others(tmp_path, caplog):
    from talkingface.data.clips import discover_clips

    for name in ("a" * 245, "b"):
        (tmp_path / f"{name}.mp4").write_bytes(b"x")
    assert [clip.id for clip in discover_clips(tmp_path)] == ["b"]
    assert "its name is too long" in caplog.text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_windows_programs_are_read(tmp_path, encoding):
    from talkingface.data.filelists import read_filelist

    (tmp_path / "a.txt").write_bytes("one\r\nzwölf\r\n".encode(encoding))
    assert read_filelist(tmp_path / "a.txt") == ["one", "zwölf"]


def test_a_list_in_another_encoding_is_explained(tmp_path):
    from talkingface.data.filelists import read_filelist

    (tmp_path / "a.txt").write_bytes("zwölf\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8.*Save it as UTF-8"):
        read_filelist(tmp_path / "a.txt")


def test_deeply_nested_yaml_is_an_error_with_a_place():
    from talkingface.errors import ConfigError
    from talkingface.utils.yaml_files import parse_yaml

    with pytest.raises(ConfigError, match="a.yaml: the YAML is nested too deeply"):
        parse_yaml("[" * 3000 + "]" * 3000, "a.yaml")


def test_little_shared_memory_loads_in_the_main_process(monkeypatch, caplog):
    from types import SimpleNamespace

    from talkingface.data.dataset import base

    data = [{"x": np.zeros((100, 100, 100), np.float32), "clip_id": "a"}]
    monkeypatch.setattr(base.shutil, "disk_usage", lambda _: SimpleNamespace(free=64 * 2**20))
    assert not base._memory_suffices(data, 16, 2)
    assert "--shm-size" in caplog.text
    assert base._memory_suffices(data, 1, 2)
