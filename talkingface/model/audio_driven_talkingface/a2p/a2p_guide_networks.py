"""Networks of key poses: VQ-VAE of poses, and a transformer from sound to its tokens.

The ``state_dict`` names are those of the official ``model/vqvae.py`` and ``model/guide.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkingface.model.audio_driven_talkingface.a2p.a2p_networks import (
    drop_sound,
    pooled_projection,
)
from talkingface.model.layers.attention import Rotary
from talkingface.model.layers.dyad_sound import DyadSound
from talkingface.model.layers.film_decoder import FiLMDecoder, Memory, xavier_normal_weights
from talkingface.model.layers.residual_vq import ResidualVQ, nucleus_sample

_SLOPE = 0.2
_VQ_DILATIONS = (1, 2, 3, 1)
_AUDIO_DILATIONS = (1, 2, 3, 1, 2, 3)


class _PoseEncoder(nn.Module):
    """(B,T,C) -> (B,T,width); causal, with a receptive field of 7 earlier key poses."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv1d(channels, width, 1)]
        for dilation in _VQ_DILATIONS:
            layers += [nn.LeakyReLU(_SLOPE), nn.Conv1d(width, width, 2, dilation=dilation)]
        self.enc = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.enc(F.pad(x.transpose(1, 2), (sum(_VQ_DILATIONS), 0))).transpose(1, 2)


class _PoseDecoder(nn.Module):
    """(B,T,width) -> (B,T,C); causal."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.project_mean_shape = nn.Linear(channels, width)  # unused, but in official files
        layers: list[nn.Module] = []
        for dilation in _VQ_DILATIONS:
            layers += [nn.Conv1d(width, width, 2, dilation=dilation), nn.LeakyReLU(_SLOPE)]
        self.dec = nn.Sequential(*layers, nn.Conv1d(width, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.dec(F.pad(x.transpose(1, 2), (sum(_VQ_DILATIONS), 0))).transpose(1, 2)


class TemporalVertexCodec(nn.Module):
    """Standardised key poses (B,K,C) to tokens (B,K,depth) and back.

    Args:
        quantiser: further arguments of :class:`ResidualVQ`.
    """

    def __init__(
        self,
        channels: int = 104,
        width: int = 64,
        codes: int = 1024,
        depth: int = 4,
        **quantiser: Any,
    ) -> None:
        super().__init__()
        self.encoder = _PoseEncoder(channels, width)
        self.decoder = _PoseDecoder(channels, width)
        self.quantizer = ResidualVQ(width, codes, depth, **quantiser)
        # Not used in forward: distributed training would wait for its gradient.
        self.decoder.project_mean_shape.requires_grad_(False)

    def forward(self, poses: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction (B,K,C), codes (B,K,depth), commitment loss."""
        quantised, codes, commit = self.quantizer(self.encoder(poses))
        return self.decoder(quantised), codes, commit

    @torch.no_grad()
    def encode(self, poses: Tensor) -> Tensor:
        """(B,K,C) -> (B,K,depth) int64."""
        return self.forward(poses)[1]

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """(B,K,depth) -> (B,K,C)."""
        return self.decoder(self.quantizer.vectors(codes))


class GuideTransformer(DyadSound):
    """Autoregressive transformer from the sound of a clip to the tokens of its key poses.

    Args:
        codes, depth: codes per stage and stages; tokens are ordered by key pose, then by stage.
        num_audio_layers: stacks of six convolutions over the sound.
        pad_audio: the convolutions keep the length; official weights were trained without padding,
            which shortens the sound by 24 tokens per stack.
        legacy_positions: as in :class:`FiLMTransformer`.
        guide_step: frames between key poses.
    """

    def __init__(
        self,
        codes: int = 1024,
        depth: int = 4,
        width: int = 64,
        layers: int = 6,
        heads: int = 4,
        ff: int = 1024,
        dropout: float = 0.1,
        max_frames: int = 600,
        num_audio_layers: int = 2,
        guide_step: int = 30,
        pad_audio: bool = True,
        legacy_positions: bool = False,
        **sound: Any,
    ) -> None:
        super().__init__(**sound)
        self.codes, self.depth, self.guide_step = codes, depth, guide_step
        self.pad_audio, self.legacy_positions = pad_audio, legacy_positions
        self.max_frames = max_frames
        self.null_cond_embed = nn.Parameter(torch.randn(1, self.token_count(max_frames), width))
        self.null_cond_hidden = nn.Parameter(torch.randn(1, width))
        self.token_embedding = nn.Embedding(codes + 1, width)
        self.rotary = Rotary(width)  # unused, but in official files; each layer has its own
        inputs = self.sound_width
        stacks: list[nn.Module] = []
        for dilation in _AUDIO_DILATIONS * num_audio_layers:
            padding = dilation if pad_audio else 0
            conv = nn.Conv1d(inputs, inputs, 3, dilation=dilation, padding=padding)
            stacks += [conv, nn.LeakyReLU(_SLOPE), nn.Dropout(0.2)]
        self.pre_audio = nn.Sequential(*stacks, nn.Conv1d(inputs, inputs, 1))
        self.norm_cond = nn.LayerNorm(width)
        self.cond_projection = nn.Linear(inputs, width)
        self.non_attn_cond_projection = pooled_projection(width)
        self.seqTransDecoder = FiLMDecoder(layers, width, heads, ff, dropout)
        self.final_layer = nn.Linear(width, codes)
        for part in (self.pre_audio, self.seqTransDecoder, self.final_layer):
            xavier_normal_weights(part)
        self.lost = 0 if pad_audio else 24 * num_audio_layers

    def condition(
        self, features: Tensor, frames: int, keep: Tensor | None = None
    ) -> tuple[Tensor, list[Memory]]:
        """FiLM vector (B,D) and memory of each layer, from (B,L,A) of :meth:`encode_sound`.

        Args:
            keep: (B,) bool; False drops the sound of a sample.
        """
        if features.shape[1] <= self.lost:
            raise ValueError(
                f"{features.shape[1]} tokens of sound are too few: {self.lost + 1} are needed"
            )
        tokens = self.cond_projection(self.pre_audio(features.transpose(1, 2)).transpose(1, 2))
        tokens, pooled = drop_sound(self, tokens, keep)
        tokens = self.norm_cond(tokens)
        at = None
        if not self.legacy_positions:
            place = torch.arange(tokens.shape[1], device=tokens.device) + self.lost / 2
            at = place * (frames / features.shape[1])
        return pooled, [Memory(layer.keys(tokens, at)) for layer in self.seqTransDecoder.stack]

    def _positions(self, start: int, stop: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Positions of tokens for self-attention and for cross-attention to the sound."""
        own = torch.arange(start, stop, device=device)
        if self.legacy_positions:
            return own, own
        return own, torch.div(own, self.depth, rounding_mode="floor") * self.guide_step

    def logits(self, tokens: Tensor, condition: tuple[Tensor, list[Memory]]) -> Tensor:
        """(B,N) tokens that begin with the start token ``codes`` -> (B,N,codes) logits of the next
        ones."""
        film, memory = condition
        own, cross = self._positions(0, tokens.shape[1], tokens.device)
        x = self.token_embedding(tokens)
        for layer, keys in zip(self.seqTransDecoder.stack, memory, strict=True):
            x, _ = layer(x, keys, film, causal=True, positions=own, cross_positions=cross)
        return self.final_layer(x)

    def forward(self, tokens: Tensor, wave: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B,N) tokens and (B,S,2) sound -> (B,N,codes)."""
        frames = round(wave.shape[1] * self.fps / self.rate)
        return self.logits(tokens, self.condition(self.encode_sound(wave), frames, keep))

    @torch.no_grad()
    def generate(
        self,
        condition: tuple[Tensor, list[Memory]],
        keys: int,
        *,
        top_p: float = 0.94,
        generator: torch.Generator | None = None,
        given: Tensor | None = None,
    ) -> Tensor:
        """Tokens (B,keys,depth), sampled one by one; attention keys and values are cached.

        Args:
            top_p: probability mass of the nucleus; 0: always the most probable token.
            given: (B,n,depth) tokens of the first key poses, e.g. of an overlapping window.
        """
        film, memory = condition
        batch, device = len(film), film.device
        tokens = torch.full((batch, 1), self.codes, device=device)
        if given is not None:
            tokens = torch.cat([tokens, given.flatten(1).to(device)], dim=1)
        layers = self.seqTransDecoder.stack
        past: list[Any] = [None] * len(layers)
        done = 0
        while tokens.shape[1] - 1 < keys * self.depth:
            own, cross = self._positions(done, tokens.shape[1], device)
            x = self.token_embedding(tokens[:, done:])
            options = {"causal": done == 0 and x.shape[1] > 1, "positions": own}
            for number, (layer, sound) in enumerate(zip(layers, memory, strict=True)):
                x, past[number] = layer(
                    x, sound, film, cross_positions=cross, past=past[number], **options
                )
            done = tokens.shape[1]
            token = nucleus_sample(self.final_layer(x[:, -1]), top_p, generator)
            tokens = torch.cat([tokens, token[:, None]], dim=1)
        return tokens[:, 1 : 1 + keys * self.depth].view(batch, keys, self.depth)
