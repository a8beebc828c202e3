"""Key poses as tokens, and tokens from sound (facebookresearch/audio2photoreal). Official names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkingface.model.audio_driven_talkingface.a2p.a2p_networks import pooled_projection
from talkingface.model.layers.dyad_sound import DyadSound
from talkingface.model.layers.film_decoder import FiLMDecoder, Memory, xavier_normal_weights
from talkingface.model.layers.residual_vq import ResidualVQ, nucleus_sample

_SLOPE = 0.2
_VQ_DILATIONS = (1, 2, 3, 1)
_AUDIO_DILATIONS = (1, 2, 3, 1, 2, 3)


class _PoseEncoder(nn.Module):
    """(B,T,C) -> (B,T,width); causal, sees 7 keys back."""

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
        self.project_mean_shape = nn.Linear(channels, width)  # never used; in official files
        layers: list[nn.Module] = []
        for dilation in _VQ_DILATIONS:
            layers += [nn.Conv1d(width, width, 2, dilation=dilation), nn.LeakyReLU(_SLOPE)]
        self.dec = nn.Sequential(*layers, nn.Conv1d(width, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.dec(F.pad(x.transpose(1, 2), (sum(_VQ_DILATIONS), 0))).transpose(1, 2)


class TemporalVertexCodec(nn.Module):
    """Key poses (B,K,C), standardised, to tokens (B,K,depth) and back.

    Args:
        quantiser: further settings of :class:`ResidualVQ`.
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
        # Reaches no output; without a gradient several processes would wait for it.
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
    """Tokens of key poses, one after the other, from the sound of the whole clip.

    Args:
        codes, depth: of the tokens; the stream is key by key, within a key by depth.
        num_audio_layers: stacks of six convolutions over the sound.
        pad_audio: the convolutions keep the length; official weights were trained without, which
            takes 24 tokens per stack.
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
        self.rotary = nn.Module()
        rates = 1e4 ** (-torch.arange(0, width, 2).float() / width)
        self.rotary.register_buffer("freqs", rates)  # in official files; layers have their own
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

    def train(self, mode: bool = True) -> GuideTransformer:
        super().train(mode)
        self.audio_model.eval()
        return self

    def condition(
        self, features: Tensor, frames: int, keep: Tensor | None = None
    ) -> tuple[Tensor, list[Memory]]:
        """Modulation (B,D) and memory of each layer, from features (B,L,A) of :meth:`encode_sound`.

        Args:
            keep: (B,) bool; other samples go without sound.
        """
        if features.shape[1] <= self.lost:
            raise ValueError(
                f"{features.shape[1]} tokens of sound are too few: {self.lost + 1} are needed"
            )
        tokens = self.cond_projection(self.pre_audio(features.transpose(1, 2)).transpose(1, 2))
        count = tokens.shape[1]
        if keep is not None:
            absent = self.null_cond_embed[:, :count]
            tokens = torch.where(keep[:, None, None], tokens, absent.to(tokens.dtype))
        pooled = self.non_attn_cond_projection(tokens.mean(dim=1))
        if keep is not None:
            pooled = torch.where(keep[:, None], pooled, self.null_cond_hidden.to(pooled.dtype))
        tokens = self.norm_cond(tokens)
        where = None
        if not self.legacy_positions:
            where = (torch.arange(count, device=tokens.device) + self.lost / 2) * (
                frames / features.shape[1]
            )
        return pooled, [Memory(layer.keys(tokens, where)) for layer in self.seqTransDecoder.stack]

    def _places(self, start: int, stop: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Positions of tokens among themselves and against the sound."""
        own = torch.arange(start, stop, device=device)
        if self.legacy_positions:
            return own, own
        return own, torch.div(own, self.depth, rounding_mode="floor") * self.guide_step

    def logits(self, tokens: Tensor, condition: tuple[Tensor, list[Memory]]) -> Tensor:
        """(B,N) tokens, the first of which is ``codes``, -> (B,N,codes) logits of the next ones."""
        film, memory = condition
        own, cross = self._places(0, tokens.shape[1], tokens.device)
        x = self.token_embedding(tokens)
        for layer, seen in zip(self.seqTransDecoder.stack, memory, strict=True):
            x, _ = layer(x, seen, film, causal=True, positions=own, cross_positions=cross)
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
        """Tokens (B,keys,depth), each from those before; their keys and values are kept.

        Args:
            top_p: of the nucleus; 0: always the most probable token.
            given: (B,n,depth) tokens of the first keys, e.g. of an overlapping window.
        """
        film, memory = condition
        batch, device = len(film), film.device
        made = torch.full((batch, 1), self.codes, device=device)
        if given is not None:
            made = torch.cat([made, given.flatten(1).to(device)], dim=1)
        layers = self.seqTransDecoder.stack
        past: list[Any] = [None] * len(layers)
        done = 0
        while made.shape[1] - 1 < keys * self.depth:
            own, cross = self._places(done, made.shape[1], device)
            x = self.token_embedding(made[:, done:])
            for number, (layer, seen) in enumerate(zip(layers, memory, strict=True)):
                x, past[number] = layer(
                    x,
                    seen,
                    film,
                    causal=done == 0 and x.shape[1] > 1,
                    positions=own,
                    cross_positions=cross,
                    past=past[number],
                )
            done = made.shape[1]
            token = nucleus_sample(self.final_layer(x[:, -1]), top_p, generator)
            made = torch.cat([made, token[:, None]], dim=1)
        return made[:, 1 : 1 + keys * self.depth].view(batch, keys, self.depth)
