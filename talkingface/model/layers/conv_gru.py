"""Convolutional GRU cell without state."""

from __future__ import annotations

import torch
from torch import nn


class StatelessConvGRU(nn.Module):
    """One step of a convolutional GRU that starts from a zero state (official code, reduced).

    The official model never passes a state. With h = 0 the cell
    h' = (1 - z) * h + z * tanh(hh([x, r * h])) reduces to z * tanh(hh([x, 0])): the reset gate and
    the weights of h have no effect. They exist so that official files load, but are not computed,
    which saves two thirds of the work.

    Unused entries (their gradient is zero): ``ih.0.weight[:c]``, ``ih.0.bias[:c]``,
    ``ih.0.weight[:, c:]`` and ``hh.0.weight[:, c:]`` with c = channels.

    Shapes:
        input (N, channels, H, W); output the same, in -1..1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.ih = nn.Sequential(nn.Conv2d(2 * channels, 2 * channels, 3, padding=1), nn.Sigmoid())
        self.hh = nn.Sequential(nn.Conv2d(2 * channels, channels, 3, padding=1), nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        c = self.channels
        gate, candidate = self.ih[0], self.hh[0]
        weight = torch.cat((gate.weight[c:, :c], candidate.weight[:, :c]))
        bias = torch.cat((gate.bias[c:], candidate.bias))
        z, h = nn.functional.conv2d(x, weight, bias, padding=1).chunk(2, dim=1)
        return torch.sigmoid(z) * torch.tanh(h)
