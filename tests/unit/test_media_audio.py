"""Sound: decoding, clock of the picture, resampling, mel front end."""

from __future__ import annotations

import logging
import os
import sys
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from talkingface.data.media import mel as mel_module
from talkingface.data.media.audio import load_audio, save_wav
from talkingface.data.media.mel import mel_windows, wav2lip_mel, window_start
from talkingface.errors import DataError

av = pytest.importorskip("av")
SHARED = Path(os.environ.get("TALKINGFACE_SHARED", Path(__file__).parents[2].parent / "shared"))


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype("f4")


def mux(path: Path, channels: np.ndarray, rate: int, codec: str, layout: str, **options) -> Path:
    """Write sound (channels, N) with PyAV; options: start (s), video_start (s), tracks, hole."""
    start, hole = options.get("start", 0.0), options.get("hole", 0.0)
    sample_format = options.get("sample_format", "fltp")
    with av.open(str(path), "w", format=options.get("container")) as out:
        video = None
        if "video_start" in options:
            video = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            video.width = video.height = 64
            video.pix_fmt = "yuv420p"
            video.codec_context.max_b_frames = 0
        streams = [
            out.add_stream(codec, rate=rate, layout=layout) for _ in range(options.get("tracks", 1))
        ]
        if "default" in options:
            for number, stream in enumerate(streams):
                stream.disposition = 1 if number == options["default"] else 0
        if video is not None:
            for number in range(50):
                frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                frame.pts = number + round(options["video_start"] * 25)
                frame.time_base = Fraction(1, 25)
                out.mux(video.encode(frame))
            out.mux(video.encode(None))
        half = channels.shape[1] // 2
        for number, stream in enumerate(streams):
            for first, last, moment in ((0, half, start), (half, None, start + half / rate + hole)):
                data = np.ascontiguousarray(channels[:, first:last]) * (1 - 0.5 * number)
                for at in range(0, data.shape[1], 1024):
                    block = data[:, at : at + 1024]
                    if sample_format == "s16":
                        block = (block.T.reshape(1, -1) * 32767).astype(np.int16)
                    frame = av.AudioFrame.from_ndarray(
                        np.ascontiguousarray(block), format=sample_format, layout=layout
                    )
                    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                    frame.pts = round(moment * rate) + at
                    out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    return path


def delay(wave_: np.ndarray, reference: np.ndarray) -> int:
    """Samples by which ``wave_`` lags ``reference``."""
    size = 2 * max(len(wave_), len(reference))
    product = np.fft.irfft(np.fft.rfft(wave_, size) * np.conj(np.fft.rfft(reference, size)), size)
    best = int(product.argmax())
    return best - size if best > size // 2 else best


def noise(rate: int, seconds: float) -> np.ndarray:
    return (0.2 * np.random.default_rng(1).standard_normal(int(rate * seconds))).astype("f4")


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_wav_round_trip(tmp_path, rate):
    samples = tone(rate)
    save_wav(tmp_path / "中 a.wav", samples, rate)
    assert np.abs(load_audio(tmp_path / "中 a.wav", rate) - samples).max() <= 0.5 / 32768 + 1e-7
    resampled = load_audio(tmp_path / "中 a.wav", 16000)
    assert len(resampled) == 16000
    inner = slice(400, -400)
    assert np.abs(resampled - tone(16000))[inner].max() < 2e-3


def test_resampling_equals_librosa_and_is_deterministic(tmp_path):
    librosa = pytest.importorskip("librosa")
    samples = noise(44100, 2.0)
    save_wav(tmp_path / "a.wav", samples, 44100)
    stored = load_audio(tmp_path / "a.wav", 44100)
    expected = librosa.resample(stored, orig_sr=44100, target_sr=16000)
    first = load_audio(tmp_path / "a.wav", 16000)
    assert first.shape == expected.shape and np.abs(first - expected).max() < 1e-5
    assert np.array_equal(first, load_audio(tmp_path / "a.wav", 16000))


def test_wav_values_are_clipped_and_checked(tmp_path):
    save_wav(tmp_path / "a.wav", np.array([2.0, -2.0, 0.0]), 8000)
    with wave.open(str(tmp_path / "a.wav")) as file:
        pcm = np.frombuffer(file.readframes(3), "<i2")
        assert file.getparams()[:3] == (1, 2, 8000)
    assert pcm.tolist() == [32767, -32768, 0]
    for bad in (np.zeros((2, 9)), np.zeros(9, np.int16), np.array([np.nan])):
        with pytest.raises(DataError):
            save_wav(tmp_path / "b.wav", bad, 8000)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("layout", "count"), [("mono", 1), ("stereo", 2), ("5.1", 6)])
@pytest.mark.parametrize("codec", ["pcm_s16le", "aac"])
def test_channels_are_averaged(tmp_path, layout, count, codec):
    levels = np.linspace(0.2, 1.0, count, dtype=np.float32)[:, None]
    if count == 6:
        levels[3] = 0  # the LFE channel of AAC drops everything above some 100 Hz
    source = levels * tone(44100, 1.0)
    kind = "s16" if codec == "pcm_s16le" else "fltp"
    path = mux(tmp_path / "a.mkv", source, 44100, codec, layout, sample_format=kind)
    result = load_audio(path, 44100)[8000:40000]  # the encoder overshoots at the onset
    expected = source.mean(axis=0)
    assert np.abs(result).max() == pytest.approx(np.abs(expected).max(), rel=0.05)
    assert delay(result[:4000], expected[8000:12000]) == 0


@pytest.mark.parametrize("container", ["mp4", "mov", "matroska", "mpegts"])
@pytest.mark.parametrize(
    ("start", "video_start"), [(0.0, 0.0), (0.4, 0.0), (0.4, 1.0), (0.0, 0.52)]
)
def test_sound_is_on_the_clock_of_the_picture(tmp_path, container, start, video_start):
    rate = 16000
    source = noise(rate, 2.0)
    path = mux(
        tmp_path / "a.bin",
        source[None],
        rate,
        "aac",
        "mono",
        start=start,
        video_start=video_start,
        container=container,
    )
    shift = round((start - video_start) * rate)
    tolerance = 0.002 * rate  # milliseconds of Matroska; TS without edit lists keeps AAC priming
    if container == "mpegts":
        tolerance = 1100
    assert abs(delay(load_audio(path, rate), source) - shift) <= tolerance
    if shift > 0:
        assert not load_audio(path, rate)[: shift - 1200].any()


def test_holes_in_the_time_stamps_become_silence(tmp_path, caplog):
    source = np.concatenate([noise(16000, 1.0), noise(16000, 1.0)])
    path = mux(
        tmp_path / "a.mkv",
        source[None],
        16000,
        "pcm_s16le",
        "mono",
        hole=0.5,
        sample_format="s16",
        container="matroska",
    )
    with caplog.at_level(logging.WARNING):
        result = load_audio(path, 16000)
    assert "1 gaps" in caplog.text
    assert abs(len(result) - 40000) <= 20
    assert not result[16100:23900].any() and np.abs(result[24100:]).max() > 0.3


def test_default_track_is_taken_and_logged(tmp_path, caplog):
    source = tone(16000)[None]
    for default, level in ((0, 0.5), (1, 0.25)):
        path = mux(
            tmp_path / f"{default}.mkv",
            source,
            16000,
            "pcm_s16le",
            "mono",
            tracks=2,
            default=default,
            sample_format="s16",
            container="matroska",
        )
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert np.abs(load_audio(path)).max() == pytest.approx(level, abs=0.01)
        assert f"2 audio tracks; using number {default + 1}" in caplog.text


def test_float_wav_with_nan_and_empty_sound(tmp_path):
    samples = tone(16000)
    samples[5000] = np.nan
    path = mux(tmp_path / "nan.wav", samples[None], 16000, "pcm_f32le", "mono", sample_format="flt")
    with pytest.raises(DataError, match="NaN"):
        load_audio(path)
    with wave.open(str(tmp_path / "zero.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
    with pytest.raises(DataError, match="no samples|Not a media file"):
        load_audio(tmp_path / "zero.wav")


def test_mel_golden_values():
    time = np.arange(16000) / 16000
    mel = wav2lip_mel((0.5 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32))
    assert mel.shape == (80, 81) and mel.dtype == np.float32
    assert np.allclose(mel[23:28, 40], [-4.0, 1.0494, 2.5503, 2.1534, -4.0], atol=1e-3)
    assert mel.mean() == pytest.approx(-3.6236, abs=1e-3)
    assert (wav2lip_mel(np.zeros(16000)) == -4).all()


def test_mel_equals_the_shared_reference(monkeypatch):
    if not (SHARED / "golden" / "hyperlips").is_dir():
        pytest.skip(f"no golden references in {SHARED}")
    monkeypatch.syspath_prepend(str(SHARED / "golden"))
    import golden

    time = np.arange(16000) / 16000
    sweep = 0.5 * np.sin(2 * np.pi * (100 * time + 1950 * time**2))
    result = golden.compare("hyperlips/mel_sweep/mel", wav2lip_mel(sweep.astype(np.float32)))
    sys.modules.pop("golden")
    assert result, result


def test_filter_bank_equals_librosa():
    librosa = pytest.importorskip("librosa")
    bank = librosa.filters.mel(sr=16000, n_fft=800, n_mels=80, fmin=55, fmax=7600)
    assert np.abs(bank - mel_module._filter_bank()).max() < 1e-7


@pytest.mark.parametrize("count", [1, 199, 200, 201, 16000, 200 * 2048, 200 * 2049 + 7])
def test_mel_length(count):
    wave_ = noise(16000, 30)[:count]
    mel = wav2lip_mel(wave_)
    assert mel.shape == (80, 1 + len(wave_) // 200) and np.isfinite(mel).all()


def test_mel_blocks_do_not_show():
    wave_ = noise(16000, 30)
    whole = wav2lip_mel(wave_)  # 2401 columns: two blocks
    part = wav2lip_mel(wave_[200 * 2000 : 200 * 2100])
    assert np.abs(whole[:, 2010:2090] - part[:, 10:90]).max() < 1e-4


@pytest.mark.parametrize("bad", [np.zeros(0), np.zeros((2, 900)), np.array([0.0, np.nan])])
def test_mel_refuses(bad):
    with pytest.raises(DataError):
        wav2lip_mel(bad)


def test_window_start_is_exact():
    assert all(window_start(i, 25) == 16 * i // 5 for i in range(20000))
    assert [window_start(i, 30) for i in (0, 3, 6, 30)] == [0, 8, 16, 80]
    assert all(window_start(i, 29.97) == 80 * i * 1001 // 30000 for i in range(20000))
    assert window_start(-1, 25) == -4


@pytest.mark.parametrize("fps", [23.976, 25, 29.97, 30, 50])
@pytest.mark.parametrize("columns", [1, 10, 16, 17, 81, 500])
def test_windows_follow_the_official_loop(columns, fps):
    mel = np.tile(np.arange(columns, dtype=np.float32), (80, 1))
    length, index, starts = max(columns, 16), 0, []
    while window_start(index, fps) + 16 <= length:
        starts.append(window_start(index, fps))
        index += 1
    starts.append(length - 16)
    windows = mel_windows(mel, fps)
    assert windows.shape == (len(starts), 80, 16)
    assert windows[:, 0, 0].tolist() == starts
    if columns < 16:
        assert (windows[:, :, columns:] == -4).all()
    padded = np.pad(mel, ((0, 0), (0, length - columns)), constant_values=-4)
    for window, start in zip(windows, starts, strict=True):
        assert np.array_equal(window, padded[:, start : start + 16])


def test_window_offset_moves_and_keeps_the_count():
    mel = np.tile(np.arange(100, dtype=np.float32), (80, 1))
    plain, earlier, later = (mel_windows(mel, 25, offset=o) for o in (0, -1, 2))
    assert plain.shape == earlier.shape == later.shape
    assert earlier[0, 0, 0] == 0 and np.array_equal(earlier[1:-1], plain[:-2])
    assert later[-1, 0, 0] == 84 and np.array_equal(later[:-3], plain[2:-1])
