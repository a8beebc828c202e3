"""Mel front end of Wav2Lip and HyperLips: 80 bands, 80 columns per second, values in [-4, 4]."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np

from talkingface.data.media.files import exact_fps
from talkingface.errors import DataError

# All constants are those of hparams.py in the official Wav2Lip repository.
SAMPLE_RATE = 16000
HOP = 200
N_MELS = 80
COLUMNS_PER_SECOND = SAMPLE_RATE // HOP
WINDOW = 16
SILENCE = -4.0

_N_FFT = 800
_LOW_HZ, _HIGH_HZ = 55.0, 7600.0
_PRE_EMPHASIS = 0.97
_FLOOR = 1e-5
_REFERENCE_DB, _MIN_DB, _MAX_ABS = 20.0, -100.0, 4.0
_ROW_OFFSETS = np.arange(-12, 13, 3)  # columns around a video frame: +-0.15 s
ROW_SIZE = N_MELS * len(_ROW_OFFSETS)
_BLOCK = 2048  # columns per transform; limits the memory for long audio


def wav2lip_mel(wave: np.ndarray) -> np.ndarray:
    """Compute the normalised log-mel spectrogram that is the input of Wav2Lip and HyperLips.

    Pre-emphasis 0.97; STFT of 800 samples, hop 200, Hann window, centred with zero padding as in
    librosa 0.9.2; magnitude; 80 Slaney bands from 55 to 7600 Hz; 20 log10, reference 20 dB;
    [-100, 0] dB mapped to [-4, 4] and clipped.

    Args:
        wave: float (N,), 16 kHz mono, about [-1, 1].

    Returns:
        float32 (80, T) with T = 1 + N // 200 (:data:`COLUMNS_PER_SECOND` columns per second).

    Raises:
        DataError: no samples, wrong shape, NaN or infinite values.
    """
    wave = np.asarray(wave)
    if wave.ndim != 1 or not len(wave):
        raise DataError(f"The mel front end needs audio of shape (N,), N > 0; got {wave.shape}.")
    if not np.isfinite(wave).all():
        raise DataError("The audio for the mel front end contains NaN or infinite values.")
    wave = wave.astype(np.float32, copy=False)
    padded = np.zeros(len(wave) + _N_FFT, np.float32)
    body = padded[_N_FFT // 2 : _N_FFT // 2 + len(wave)]
    body[:] = wave
    body[1:] -= np.float32(_PRE_EMPHASIS) * wave[:-1]
    segments = np.lib.stride_tricks.sliding_window_view(padded, _N_FFT)[::HOP]
    columns = 1 + len(wave) // HOP
    window = np.hanning(_N_FFT + 1)[:-1]  # periodic
    bank = _filter_bank()
    mel = np.empty((N_MELS, columns), np.float32)
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        magnitude = np.abs(np.fft.rfft(segments[start:stop] * window, axis=1))
        decibel = 20 * np.log10(np.maximum(_FLOOR, bank @ magnitude.T)) - _REFERENCE_DB
        level = 2 * _MAX_ABS * (decibel - _MIN_DB) / -_MIN_DB - _MAX_ABS
        mel[:, start:stop] = np.clip(level, -_MAX_ABS, _MAX_ABS)
    return mel


@lru_cache(maxsize=1)
def _filter_bank() -> np.ndarray:
    """Triangular mel filters (80, 401) of Slaney's Auditory Toolbox, each of unit area."""
    # Slaney's scale: 200/3 Hz per mel below 1 kHz, then 27 mels per factor of 6.4.
    step, knee, log_step = 200 / 3, 1000.0, np.log(6.4) / 27

    def to_mel(hertz: float) -> float:
        if hertz < knee:
            return hertz / step
        return knee / step + np.log(hertz / knee) / log_step

    mels = np.linspace(to_mel(_LOW_HZ), to_mel(_HIGH_HZ), N_MELS + 2)
    high = knee * np.exp(log_step * (mels - knee / step))
    edges = np.where(mels < knee / step, mels * step, high)
    bins = np.arange(_N_FFT // 2 + 1) * SAMPLE_RATE / _N_FFT
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    bank = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    bank.setflags(write=False)
    return bank


def window_start(frame_index: int, fps: float | Fraction) -> int:
    """First mel column of a frame: floor(80 * frame_index / fps), computed with integers."""
    rate = exact_fps(fps)
    return COLUMNS_PER_SECOND * int(frame_index) * rate.denominator // rate.numerator


def mel_windows(mel: np.ndarray, fps: float | Fraction, *, offset: int = 0) -> np.ndarray:
    """Cut a spectrogram into the windows of the output frames, as Wav2Lip does at inference.

    Frame i gets 16 columns (200 ms) from ``window_start(i)`` on, as long as they fit. The last
    window consists of the final 16 columns. The number of windows is the number of output frames;
    they are about 0.1 s shorter than the audio. Shorter spectrograms are padded with silence to 16
    columns.

    Args:
        mel: (80, T) from :func:`wav2lip_mel`.
        fps: frames per second of the video.
        offset: frame i gets the window of frame i + offset, clipped to the spectrogram. The
            official inference uses 0, the official training -1. The number of windows is the same.

    Returns:
        (n, 80, 16), a copy.
    """
    missing = max(0, WINDOW - mel.shape[1])
    if missing:
        mel = np.pad(mel, ((0, 0), (0, missing)), constant_values=SILENCE)
    last = mel.shape[1] - WINDOW
    rate = exact_fps(fps)
    # Number of indices whose start is at most `last`: floor(80 i / fps) < last + 1.
    fitting = -(-(last + 1) * rate.numerator // (COLUMNS_PER_SECOND * rate.denominator))
    index = np.arange(fitting + 1, dtype=np.int64) + offset
    starts = np.clip(COLUMNS_PER_SECOND * index * rate.denominator // rate.numerator, 0, last)
    windows = np.lib.stride_tricks.sliding_window_view(mel, WINDOW, axis=1)
    return np.ascontiguousarray(windows[:, starts].transpose(1, 0, 2))


def sound_rows(mel: np.ndarray, frames: int, fps: float) -> np.ndarray:
    """(frames,ROW_SIZE) float32, the mel spectrogram (80,T) around each video frame.

    The mean spectrum of the louder half is subtracted: that of the microphone and of the voice.
    Digital silence does not count, so that silence before or after a sound changes nothing.
    """
    level = mel.mean(0)
    sounding = level[level > SILENCE + 0.05]
    if len(sounding):
        mel = mel - mel[:, level >= np.median(sounding)].mean(1, keepdims=True)
    centre = np.round(np.arange(frames) * COLUMNS_PER_SECOND / fps).astype(int)
    columns = np.clip(centre[:, None] + _ROW_OFFSETS, 0, mel.shape[1] - 1)
    return mel[:, columns].transpose(1, 2, 0).reshape(frames, -1)
