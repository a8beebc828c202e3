"""Denoising network of audio2photoreal, for face codes and for poses.

The ``state_dict`` names are those of the official ``model/diffusion.py``. Everything that depends
neither on the noise nor on its level is computed once per clip, in
:meth:`FiLMTransformer.condition`: features, projections, and the keys and values of all
cross-attentions. A step of the sampler only runs the decoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkingface.model.layers.attention import Rotary
from talkingface.model.layers.dyad_sound import DyadSound, full_precision
from talkingface.model.layers.film_decoder import (
    FiLMDecoder,
    Memory,
    RotaryEncoderLayer,
    joined,
    xavier_normal_weights,
)

_DILATIONS = (1, 2, 3, 1, 2, 3)
_SLOPE = 0.2


@dataclass
class Condition:
    """The encoded condition of a clip, input of the decoder.

    Attributes:
        pooled: (B,D) vector of the whole sound.
        memory: keys and values for each layer.
        frames: number of frames of the clip.
    """

    pooled: Tensor
    memory: list[Memory]
    frames: int

    def beside(self, other: Condition) -> Condition:
        """Concatenate two conditions along the batch, e.g. with and without sound for guidance."""
        memory = []
        for one, two in zip(self.memory, other.memory, strict=True):
            guide = None if one.guide is None else joined(one.guide, two.guide, 0)
            memory.append(Memory(joined(one.tokens, two.tokens, 0), guide))
        return Condition(torch.cat([self.pooled, other.pooled]), memory, self.frames)


class SinusoidalTime(nn.Module):
    """(B,) diffusion steps 0..999 -> (B,D): sines, then cosines."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, t: Tensor) -> Tensor:
        half = self.width // 2
        rate = torch.exp(torch.arange(half, device=t.device) * (-math.log(1e4) / (half - 1)))
        angles = t.float()[:, None] * rate
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


def pooled_projection(width: int) -> nn.Sequential:
    """Mean of the tokens -> vector for the FiLM layers."""
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)
    )


def drop_sound(network: nn.Module, tokens: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """Tokens (B,L,D) of the sound and their pooled vector (B,D); samples whose ``keep`` (B,) is
    False get the learnt embeddings of absent sound."""
    if keep is None:
        return tokens, network.non_attn_cond_projection(tokens.mean(dim=1))
    absent = network.null_cond_embed[:, : tokens.shape[1]]
    tokens = torch.where(keep[:, None, None], tokens, absent.to(tokens.dtype))
    pooled = network.non_attn_cond_projection(tokens.mean(dim=1))
    return tokens, torch.where(keep[:, None], pooled, network.null_cond_hidden.to(pooled.dtype))


class FiLMTransformer(DyadSound):
    """x_t and a condition -> x_0.

    Args:
        channels: C, values per frame.
        width: D.
        max_frames: longest clip; also the length of the learnt embedding of absent sound.
        encoders: rotary layers over the sound (official: 2 for the face, 0 for the pose).
        lips: lip regressor, frozen (``lip_model``); None: the condition is the sound only.
        guide_step: frames between key poses; None: no key poses.
        legacy_positions: the position of a token is its index (official). By default all positions
            are in frames, so that motion and sound of the same time have the same position.
        sound: arguments of :class:`DyadSound`.
    """

    def __init__(
        self,
        channels: int = 256,
        width: int = 512,
        layers: int = 8,
        heads: int = 8,
        ff: int = 1024,
        dropout: float = 0.1,
        max_frames: int = 600,
        encoders: int = 2,
        lips: nn.Module | None = None,
        guide_step: int | None = None,
        legacy_positions: bool = False,
        **sound: Any,
    ) -> None:
        super().__init__(**sound)
        self.channels, self.max_frames, self.guide_step = channels, max_frames, guide_step
        self.legacy_positions = legacy_positions
        inputs = self.sound_width
        if lips is not None:
            self.lip_model = lips.requires_grad_(False)
            inputs += 3 * lips.n_vertices
        self.null_cond_embed = nn.Parameter(torch.randn(1, self.token_count(max_frames), width))
        self.null_cond_hidden = nn.Parameter(torch.randn(1, width))
        self.time_mlp = nn.Sequential(SinusoidalTime(width), nn.Linear(width, 4 * width), nn.Mish())
        self.to_time_cond = nn.Sequential(nn.Linear(4 * width, width))
        self.to_time_tokens = nn.Sequential(nn.Linear(4 * width, 2 * width))
        self.norm_cond = nn.LayerNorm(width)
        self.input_projection = nn.Linear(channels, width)
        self.cond_projection = nn.Linear(inputs, width)
        self.non_attn_cond_projection = pooled_projection(width)
        self.rotary = Rotary(width)  # unused, but in official files; each layer has its own
        if encoders:
            self.cond_encoder = nn.Sequential(
                *(RotaryEncoderLayer(width, heads, ff, dropout) for _ in range(encoders))
            )
            xavier_normal_weights(self.cond_encoder)
        guided = guide_step is not None
        if guided:
            self.null_pose_embed = nn.Parameter(torch.randn(1, -(-max_frames // guide_step), width))
            self.frame_cond_projection = nn.Linear(channels, width)
            self.frame_norm_cond = nn.LayerNorm(width)
            sizes = [channels, width, *[channels] * 5]
            self.post_pose_layers = nn.ModuleList(
                nn.Conv1d(a, b, 3, dilation=d)
                for a, b, d in zip(sizes, sizes[1:], _DILATIONS, strict=False)
            )
            self.final_conv = nn.Conv1d(channels, channels, 1)
            xavier_normal_weights(self.post_pose_layers)
            xavier_normal_weights(self.final_conv)
        self.seqTransDecoder = FiLMDecoder(layers, width, heads, ff, dropout, guided=guided)
        self.final_layer = nn.Linear(width, channels)
        xavier_normal_weights(self.seqTransDecoder)
        xavier_normal_weights(self.final_layer)
        self.post_dropout = nn.Dropout(0.2)

    # -- condition ---------------------------------------------------------------------------------

    @torch.no_grad()
    def lips(self, wave: Tensor) -> Tensor | None:
        """(B,T,V,3) lip points from the first channel of (B,S,2); None without a lip model."""
        if not hasattr(self, "lip_model"):
            return None
        with full_precision(wave):
            return self.lip_model(wave[..., 0].float())

    def condition(
        self,
        features: Tensor,
        frames: int,
        lips: Tensor | None = None,
        guide: Tensor | None = None,
        keep: Tensor | None = None,
        keep_guide: Tensor | None = None,
    ) -> Condition:
        """Encode all inputs of the decoder except the noisy motion and its diffusion step.

        Args:
            features: (B,L,A) from :meth:`encode_sound`.
            lips: (B,T,V,3) from :meth:`lips`.
            guide: (B,K,C) key poses; 0 where there are none.
            keep, keep_guide: (B,) bool; False drops the sound, the key poses of a sample.
        """
        count = features.shape[1]
        if count > self.null_cond_embed.shape[1]:
            raise ValueError(
                f"{frames} frames are more than the {self.max_frames} of the network: cut the "
                "sound into windows"
            )
        if lips is not None:
            flat = lips.flatten(2).transpose(1, 2)
            flat = F.interpolate(flat, size=count, mode="nearest-exact").transpose(1, 2)
            features = torch.cat([features, flat], dim=-1)
        tokens = self.cond_projection(features)
        if hasattr(self, "cond_encoder"):
            tokens = self.cond_encoder(tokens)
        tokens, pooled = drop_sound(self, tokens, keep)
        if guide is not None:
            guide = self.frame_norm_cond(self.frame_cond_projection(guide))
            if keep_guide is not None:
                absent = self.null_pose_embed[:, : guide.shape[1]]
                guide = torch.where(keep_guide[:, None, None], guide, absent.to(guide.dtype))
        return self._prepared(tokens, pooled, guide, frames)

    def absent(self, batch: int, tokens: int, frames: int) -> Condition:
        """The condition without sound and key poses, for classifier-free guidance.

        Args:
            tokens: number of sound tokens.
        """
        empty = self.null_cond_embed[:, :tokens].expand(batch, -1, -1)
        guide = None
        if self.guide_step:
            keys = -(-frames // self.guide_step)
            guide = self.null_pose_embed[:, :keys].expand(batch, -1, -1)
        return self._prepared(empty, self.null_cond_hidden.expand(batch, -1), guide, frames)

    def _prepared(
        self, tokens: Tensor, pooled: Tensor, guide: Tensor | None, frames: int
    ) -> Condition:
        tokens = self.norm_cond(tokens)
        positions = self._positions(tokens.shape[1], frames, tokens.device)
        memory = [Memory(layer.keys(tokens, positions)) for layer in self.seqTransDecoder.stack]
        if guide is not None:
            at = None
            if not self.legacy_positions:
                at = torch.arange(guide.shape[1], device=tokens.device) * self.guide_step
            for layer, part in zip(self.seqTransDecoder.stack, memory, strict=True):
                part.guide = layer.guide_keys(guide, at)
        return Condition(pooled, memory, frames)

    def _positions(self, count: int, frames: int, device: torch.device) -> Tensor | None:
        if self.legacy_positions:
            return None
        return torch.arange(count, device=device) * (frames / count)

    # -- decoder -----------------------------------------------------------------------------------

    def denoise(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """(B,T,C) noisy motion and (B,) diffusion steps 0..999 -> (B,T,C) clean motion."""
        hidden = self.time_mlp(t)
        film = self.to_time_cond(hidden) + condition.pooled
        tokens = self.norm_cond(self.to_time_tokens(hidden).unflatten(-1, (2, -1)))
        count = condition.memory[0].tokens[0].shape[2]
        first = count if self.legacy_positions else condition.frames
        positions = first + torch.arange(2, device=x.device)
        x = self.input_projection(x)
        layers: Sequence[Any] = self.seqTransDecoder.stack
        for layer, memory in zip(layers, condition.memory, strict=True):
            keys = joined(memory.tokens, layer.keys(tokens, positions))
            x, _ = layer(x, Memory(keys, memory.guide), film)
        x = self.final_layer(x)
        return self._smoothed(x) if self.guide_step else x

    def _smoothed(self, x: Tensor) -> Tensor:
        """Causal convolutions over the decoded poses."""
        x = F.pad(x.transpose(1, 2), (2 * sum(_DILATIONS), 0))
        for conv in self.post_pose_layers:
            y = self.post_dropout(F.leaky_relu(conv(x), _SLOPE))
            x = (x[..., -y.shape[-1] :] + y) / 2 if y.shape[1] == x.shape[1] else y
        return self.final_conv(x).transpose(1, 2)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        wave: Tensor,
        guide: Tensor | None = None,
        keep: Tensor | None = None,
        keep_guide: Tensor | None = None,
    ) -> Tensor:
        """Condition and denoise: (B,T,C) noisy motion, (B,) steps, (B,S,2) sound -> (B,T,C)."""
        features, lips = self.encode_sound(wave), self.lips(wave)
        condition = self.condition(features, x.shape[1], lips, guide, keep, keep_guide)
        return self.denoise(x, t, condition)
