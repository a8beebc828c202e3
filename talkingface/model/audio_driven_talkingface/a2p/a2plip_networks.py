"""Lip regressor of audio2photoreal: voice of this person to lip vertices.

Names and sizes are those of the official ``model/diffusion.py``. Unlike FaceFormer the network is
not autoregressive and has no periodic positional encoding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkingface.model.layers.attention import Attention
from talkingface.model.layers.dyad_sound import LogMelTokens
from talkingface.model.layers.wav2vec1 import RATE, Wav2VecLarge
from talkingface.utils.env import require

_TABLE = 1024  # positions of the official table
_LEAD = 320  # samples of silence in front of the sound, so that 4 s give 400 tokens


class SinusoidalPositions(nn.Module):
    """Adds sines (even) and cosines (odd) of the position."""

    pe: Tensor

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        place = torch.arange(_TABLE).float()[:, None]
        rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
        table = torch.zeros(_TABLE, width)
        table[:, 0::2], table[:, 1::2] = torch.sin(place * rate), torch.cos(place * rate)
        self.register_buffer("pe", table)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x + self.pe[: x.shape[1]])


def _attention(name: str, width: int, heads: int, dropout: float) -> nn.ModuleDict:
    return nn.ModuleDict({name: Attention(width, heads, dropout)})


def _feed_forward(width: int, ff: int, dropout: float) -> nn.ModuleDict:
    layers = nn.Linear(width, ff), nn.ReLU(), nn.Dropout(dropout), nn.Linear(ff, width)
    return nn.ModuleDict({"ff": nn.Sequential(*layers)})


class _EncoderLayer(nn.Module):
    def __init__(self, width: int, heads: int, ff: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_attn = _attention("self_attn", width, heads, dropout)
        self.feedforward = _feed_forward(width, ff, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.dropout(self.self_attn["self_attn"](normed, normed, normed))
        return x + self.dropout(self.feedforward["ff"](self.norm2(x)))


class _DecoderLayer(nn.Module):
    def __init__(self, width: int, heads: int, ff: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.self_attn = _attention("self_attn", width, heads, dropout)
        self.cross_attn = _attention("cross_attn", width, heads, dropout)
        self.feedforward = _feed_forward(width, ff, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.dropout(self.self_attn["self_attn"](normed, normed, normed))
        x = x + self.dropout(self.cross_attn["cross_attn"](self.norm2(x), memory, memory))
        return x + self.dropout(self.feedforward["ff"](self.norm3(x)))


class RegressionTransformer(nn.Module):
    """(B,L,D) tokens of sound -> (B,T,D); the decoder's input is zeros plus positions."""

    def __init__(
        self, width: int, heads: int, ff: int, encoders: int, decoders: int, dropout: float
    ) -> None:
        super().__init__()
        self.cond_positional_encoding = SinusoidalPositions(width, dropout)
        self.target_positional_encoding = SinusoidalPositions(width, dropout)
        sizes = (width, heads, ff, dropout)
        self.transformer_encoder = nn.ModuleList(_EncoderLayer(*sizes) for _ in range(encoders))
        self.transformer_decoder = nn.ModuleList(_DecoderLayer(*sizes) for _ in range(decoders))

    def forward(self, tokens: Tensor, frames: int) -> Tensor:
        memory = self.cond_positional_encoding(tokens)
        for layer in self.transformer_encoder:
            memory = layer(memory)
        empty = tokens.new_zeros(len(tokens), frames, tokens.shape[-1])
        x = self.target_positional_encoding(empty)
        for layer in self.transformer_decoder:
            x = layer(x, memory)
        return x


class OfficialLipEncoder(nn.Module):
    """wav2vec large at 16 kHz (official)."""

    def __init__(self, rate: int, log_compression: bool = True) -> None:
        super().__init__()
        self.wav2vec_model = Wav2VecLarge(log_compression).requires_grad_(False)
        transforms = require("torchaudio.transforms", why="The wav2vec front end")
        self.resampler = transforms.Resample(rate, RATE)

    def forward(self, wave: Tensor) -> Tensor:
        """(B,S) -> (B,L,512)."""
        with torch.no_grad():
            return self.wav2vec_model(F.pad(self.resampler(wave), (_LEAD, 0)))


class LogMelLipEncoder(nn.Module):
    """Log-mel tokens, one per frame, projected to the transformer's width (not in the paper)."""

    def __init__(self, rate: int, fps: float, bands: int, width: int) -> None:
        super().__init__()
        self.mel = LogMelTokens(rate, fps, bands)
        self.projection = nn.Linear(self.mel.width, width)

    def forward(self, wave: Tensor) -> Tensor:
        """(B,S) -> (B,T,width)."""
        return self.projection(self.mel(wave))


class LipRegressor(nn.Module):
    """(B,S) normalised voice of this person -> (B,T,n_vertices,3).

    Args:
        frontend: ``wav2vec`` (official; needs width 512) or ``logmel``.
        block: frames that are predicted together; blocks do not overlap (official: 120, 4 s at
            30 fps).
    """

    def __init__(
        self,
        n_vertices: int = 338,
        width: int = 512,
        heads: int = 4,
        ff: int = 1024,
        encoders: int = 2,
        decoders: int = 4,
        dropout: float = 0.1,
        frontend: str = "wav2vec",
        rate: int = 48_000,
        fps: float = 30.0,
        bands: int = 80,
        block: int = 120,
        log_compression: bool = True,
    ) -> None:
        super().__init__()
        self.n_vertices, self.block, self.frame = n_vertices, block, round(rate / fps)
        if frontend == "wav2vec":
            self.audio_encoder: nn.Module = OfficialLipEncoder(rate, log_compression)
        else:
            self.audio_encoder = LogMelLipEncoder(rate, fps, bands, width)
        self.regression_model = RegressionTransformer(width, heads, ff, encoders, decoders, dropout)
        self.project_output = nn.Linear(width, 3 * n_vertices)

    def of_tokens(self, tokens: Tensor, frames: int) -> Tensor:
        """(B,L,D) tokens of one block -> (B,frames,n_vertices,3)."""
        points = self.project_output(self.regression_model(tokens, frames))
        return points.unflatten(-1, (self.n_vertices, 3))

    def forward(self, wave: Tensor) -> Tensor:
        frames = wave.shape[1] // self.frame
        whole, rest = divmod(frames, self.block)
        cut = whole * self.block * self.frame
        parts = []
        if whole:
            blocks = wave[:, :cut].reshape(len(wave) * whole, -1)
            lips = self.of_tokens(self.audio_encoder(blocks), self.block)
            parts.append(lips.reshape(len(wave), whole * self.block, self.n_vertices, 3))
        if rest:
            last = wave[:, cut : frames * self.frame]
            parts.append(self.of_tokens(self.audio_encoder(last), rest))
        return torch.cat(parts, dim=1)
