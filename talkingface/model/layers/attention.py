"""Attention with reusable keys, and rotary positions on whole vectors (official code)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KeyValue = tuple[Tensor, Tensor]


class Rotary(nn.Module):
    """Rotary position embedding of neighbouring pairs of values, applied to whole vectors before
    the projections, not per head, as in audio2photoreal.

    Args:
        width: of the vectors; even.
    """

    freqs: Tensor

    def __init__(self, width: int, theta: float = 10_000.0) -> None:
        super().__init__()
        self.register_buffer("freqs", theta ** (-torch.arange(0, width, 2).float() / width))

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """(B,T,D) -> (B,T,D); positions (T,), default 0, 1, 2..."""
        if positions is None:
            positions = torch.arange(x.shape[1], device=x.device)
        angles = positions.to(self.freqs)[:, None] * self.freqs
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)


class Attention(nn.Module):
    """Multi-head attention, batch first, with the parameter names of ``nn.MultiheadAttention``.

    ``keys`` and ``attend`` are its two halves, so that keys and values are projected only once for
    many queries.

    Args:
        width: of all vectors.
        dropout: of the attention weights.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def _project(self, x: Tensor, part: int) -> Tensor:
        width = self.out_proj.in_features
        rows = slice(part * width, (part + 1) * width)
        projected = F.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])
        return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys(self, key: Tensor, value: Tensor) -> KeyValue:
        """(B,L,D) twice -> keys and values (B,H,L,D/H)."""
        return self._project(key, 1), self._project(value, 2)

    def attend(self, query: Tensor, memory: KeyValue, causal: bool = False) -> Tensor:
        """Query (B,T,D) and the result of :meth:`keys` -> (B,T,D)."""
        query, dropout = self._project(query, 0), self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(query, *memory, dropout_p=dropout, is_causal=causal)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, causal: bool = False) -> Tensor:
        return self.attend(query, self.keys(key, value), causal)
