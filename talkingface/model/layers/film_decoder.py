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
        normed = self.norm1(x)
        rotated = self.rotary(normed)
        x = x + self.dropout(self.self_attn(rotated, rotated, normed))
        out = self.linear2(self.dropout(F.gelu(self.linear1(self.norm2(x)))))
        return x + self.dropout(out)


class FiLM(nn.Module):
    """(1 + scale) x + shift, computed from one vector per sample (Perez et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Mish(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        scale, shift = self.block(vector)[:, None].chunk(2, dim=-1)
        return (1 + scale) * x + shift


@dataclass
class Memory:
    """Keys and values of the cross-attentions of one layer.

    Attributes:
        tokens: of the sound.
        guide: of the key poses, in guided layers.
    """

    tokens: KeyValue
    guide: KeyValue | None = None


def joined(one: KeyValue, two: KeyValue, dim: int = 2) -> KeyValue:
    """Concatenate keys and values along tokens, or along the batch (``dim=0``)."""
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
        """Keys and values of (B,L,D) tokens for the cross-attention."""
        return self.multihead_attn.keys(self.rotary(tokens, positions), tokens)

    def guide_keys(self, tokens: Tensor, positions: Tensor | None = None) -> KeyValue:
        return self.multihead_attn2.keys(self.rotary(tokens, positions), tokens)

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
            positions: (T,) positions of ``x`` in the self-attention.
            cross_positions: (T,) positions of ``x`` in the cross-attention; default: ``positions``.
            past: keys and values of earlier elements, for generation one by one.
        """
        cross = positions if cross_positions is None else cross_positions
        normed = self.norm1(x)
        own = self.self_attn.keys(self.rotary(normed, positions), normed)
        if past is not None:
            own = joined(past, own)
        out = self.self_attn.attend(self.rotary(normed, positions), own, causal)
        x = x + self.film1(self.dropout(out), film)
        out = self.multihead_attn.attend(self.rotary(self.norm2(x), cross), memory.tokens)
        x = x + self.film2(self.dropout(out), film)
        if self.guided:
            out = self.multihead_attn2.attend(self.rotary(self.norm2a(x), cross), memory.guide)
            x = x + self.film2a(self.dropout(out), film)
        out = self.linear2(self.dropout(F.gelu(self.linear1(self.norm3(x)))))
        return x + self.film3(self.dropout(out), film), own


class FiLMDecoder(nn.Module):
    """A stack of layers under the official name ``stack``."""

    def __init__(self, layers: int, *args: object, **kwargs: object) -> None:
        super().__init__()
        self.stack = nn.ModuleList(FiLMDecoderLayer(*args, **kwargs) for _ in range(layers))


def xavier_normal_weights(module: nn.Module) -> None:
    """Official initialisation of encoder, decoder and last layers: Xavier normal, biases zero."""
    for name, value in module.named_parameters():
        if value.dim() > 1:
            nn.init.xavier_normal_(value)
        elif name.endswith("bias"):
            nn.init.zeros_(value)
