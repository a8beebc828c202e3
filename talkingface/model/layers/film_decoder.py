"""Transformer layers with rotary positions and feature-wise modulation (official code)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkingface.model.layers.attention import Attention, KeyValue, Rotary


class RotaryEncoderLayer(nn.Module):
    """Pre-norm self-attention and feed-forward block."""

    def __init__(self, width: int, heads: int, ff: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads, dropout)
        self.linear1, self.linear2 = nn.Linear(width, ff), nn.Linear(ff, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.rotary = Rotary(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.norm1(x)
        turned = self.rotary(seen)
        x = x + self.dropout(self.self_attn(turned, turned, seen))
        made = self.linear2(self.dropout(F.gelu(self.linear1(self.norm2(x)))))
        return x + self.dropout(made)


class FiLM(nn.Module):
    """(1 + scale) x + shift, both from one vector per sample (Perez et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Mish(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        scale, shift = self.block(vector)[:, None].chunk(2, dim=-1)
        return (1 + scale) * x + shift


@dataclass
class Memory:
    """Keys and values of one layer for what its cross-attentions look at.

    Attributes:
        tokens: of the sound.
        guide: of the key poses, where the layer looks at them.
    """

    tokens: KeyValue
    guide: KeyValue | None = None


def joined(one: KeyValue, two: KeyValue, dim: int = 2) -> KeyValue:
    """Keys and values one behind the other: along tokens, or along the batch (``dim=0``)."""
    return torch.cat([one[0], two[0]], dim), torch.cat([one[1], two[1]], dim)


class FiLMDecoderLayer(nn.Module):
    """Pre-norm decoder layer; the output of every block is modulated before it is added.

    Args:
        guided: a second cross-attention, for key poses.
    """

    def __init__(
        self, width: int, heads: int, ff: int, dropout: float, guided: bool = False
    ) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads, dropout)
        self.multihead_attn = Attention(width, heads, dropout)
        self.linear1, self.linear2 = nn.Linear(width, ff), nn.Linear(ff, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.film1, self.film2, self.film3 = (FiLM(width) for _ in range(3))
        if guided:
            self.multihead_attn2 = Attention(width, heads, dropout)
            self.norm2a, self.film2a = nn.LayerNorm(width), FiLM(width)
        self.guided = guided
        self.rotary = Rotary(width)
        self.dropout = nn.Dropout(dropout)

    def keys(self, tokens: Tensor, positions: Tensor | None = None) -> KeyValue:
        """Of (B,L,D) tokens for the cross-attention."""
        return self.multihead_attn.keys(self.rotary(tokens, positions), tokens)

    def guide_keys(self, tokens: Tensor, positions: Tensor | None = None) -> KeyValue:
        return self.multihead_attn2.keys(self.rotary(tokens, positions), tokens)

    def own_keys(self, seen: Tensor, positions: Tensor | None) -> KeyValue:
        return self.self_attn.keys(self.rotary(seen, positions), seen)

    def forward(
        self,
        x: Tensor,
        memory: Memory,
        film: Tensor,
        *,
        causal: bool = False,
        positions: Tensor | None = None,
        cross_positions: Tensor | None = None,
        past: KeyValue | None = None,
    ) -> tuple[Tensor, KeyValue]:
        """(B,T,D) -> (B,T,D), and the keys and values of its self-attention.

        Args:
            positions: (T,) of ``x`` in itself.
            cross_positions: (T,) of ``x`` against the memory; default: ``positions``.
            past: keys and values of earlier elements, for generation one by one.
        """
        cross = positions if cross_positions is None else cross_positions
        seen = self.norm1(x)
        own = self.own_keys(seen, positions)
        if past is not None:
            own = joined(past, own)
        turned = self.rotary(seen, positions)
        x = x + self._changed(self.film1, self.self_attn.attend(turned, own, causal), film)
        turned = self.rotary(self.norm2(x), cross)
        made = self.multihead_attn.attend(turned, memory.tokens)
        x = x + self._changed(self.film2, made, film)
        if self.guided:
            turned = self.rotary(self.norm2a(x), cross)
            made = self.multihead_attn2.attend(turned, memory.guide)
            x = x + self._changed(self.film2a, made, film)
        made = self.linear2(self.dropout(F.gelu(self.linear1(self.norm3(x)))))
        return x + self._changed(self.film3, made, film), own

    def _changed(self, film: FiLM, made: Tensor, vector: Tensor) -> Tensor:
        return film(self.dropout(made), vector)


class FiLMDecoder(nn.Module):
    """A stack of layers under the official name ``stack``."""

    def __init__(self, layers: int, *args: object, **kwargs: object) -> None:
        super().__init__()
        self.stack = nn.ModuleList(FiLMDecoderLayer(*args, **kwargs) for _ in range(layers))


def xavier_normal_weights(module: nn.Module) -> None:
    """Official initialisation of encoder, decoder and last layers: matrices Xavier normal, biases
    zero."""
    for name, value in module.named_parameters():
        if value.dim() > 1:
            nn.init.xavier_normal_(value)
        elif name.endswith("bias"):
            nn.init.zeros_(value)
