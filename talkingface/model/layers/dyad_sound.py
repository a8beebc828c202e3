"""Input of the audio2photoreal models: tokens of two-channel sound.

The front ends are frozen. They are submodules of the networks, so that official files load by name.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from talkingface.model.layers.wav2vec1 import RATE, VQWav2Vec
from talkingface.utils.env import require

ROWS = 4  # of the log-mel spectrogram per frame


class LogMelTokens(nn.Module):
    """One token per video frame: four rows of a log-mel spectrogram. It has no weights.

    Args:
        rate: samples per second.
        fps: frames per second; ``rate / fps`` is a whole multiple of 4.
        bands: number of mel bands, 50 Hz to 8 kHz.
    """

    filters: Tensor
    window: Tensor

    def __init__(self, rate: int, fps: float, bands: int) -> None:
        super().__init__()
        self.hop = round(rate / fps / ROWS)
        self.size = 2 ** round(rate * 0.04 - 1).bit_length()
        torchaudio = require("torchaudio", why="The log-mel front end of audio2photoreal")
        filters = torchaudio.functional.melscale_fbanks(
            self.size // 2 + 1, 50.0, min(8000.0, rate / 2), bands, rate, norm="slaney"
        )
        window = torch.hann_window(self.size)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", window / window.square().sum().sqrt(), persistent=False)
        self.width = ROWS * bands

    def forward(self, wave: Tensor) -> Tensor:
        """(B,S) -> (B,T,4 * bands), roughly in -3..3 for speech with standard deviation 1."""
        spectrum = torch.stft(
            wave, self.size, self.hop, window=self.window, pad_mode="constant", return_complex=True
        )
        mel = spectrum.abs().square().transpose(1, 2) @ self.filters
        frames = min(mel.shape[1], wave.shape[1] // self.hop) // ROWS
        log_mel = torch.log(mel[:, : frames * ROWS] + 1e-4) / 3 + 1.5
        return log_mel.reshape(len(wave), frames, self.width)


def full_precision(like: Tensor) -> torch.autocast:
    """Disable autocast, since spectra and norms of a sound overflow in half precision."""
    return torch.autocast(like.device.type, enabled=False)


class DyadSound(nn.Module):
    """Base of networks whose input is the sound of both persons.

    The front end has the official name ``audio_model``, a lip regressor ``lip_model``. Both are
    frozen and stay in evaluation mode.

    Args:
        frontend: ``vqwav2vec`` (official) or ``logmel``.
        rate: of the sound, samples per second.
        fps: of the motion, frames per second.
    """

    def __init__(
        self,
        frontend: str,
        rate: int = 48_000,
        fps: float = 30.0,
        bands: int = 80,
        log_compression: bool = False,
    ) -> None:
        super().__init__()
        self.frontend, self.rate, self.fps = frontend, rate, fps
        if frontend == "vqwav2vec":
            self.audio_model: nn.Module = VQWav2Vec(log_compression)
            transforms = require("torchaudio.transforms", why="The wav2vec front end")
            self.audio_resampler = transforms.Resample(rate, RATE)
            self.sound_width = 2 * 512
        else:
            self.audio_model = LogMelTokens(rate, fps, bands)
            self.sound_width = 2 * self.audio_model.width
        self.audio_model.requires_grad_(False)

    def train(self, mode: bool = True) -> DyadSound:
        super().train(mode)
        for name in ("audio_model", "lip_model"):
            if hasattr(self, name):
                getattr(self, name).eval()
        return self

    @torch.no_grad()
    def encode_sound(self, wave: Tensor) -> Tensor:
        """(B,S,2) normalised samples -> (B,L,A) features of both channels, without gradients."""
        with full_precision(wave):
            return torch.cat([self._channel(wave[..., i].float()) for i in range(2)], dim=-1)

    def _channel(self, wave: Tensor) -> Tensor:
        if self.frontend == "vqwav2vec":
            wave = self.audio_resampler(wave)
        return self.audio_model(wave)

    def token_count(self, frames: int) -> int:
        """Number of tokens for the sound of a number of frames."""
        if self.frontend == "logmel":
            return frames
        samples = -(-round(frames * self.rate / self.fps) * RATE // self.rate)
        return self.audio_model.feature_extractor.token_count(samples)
