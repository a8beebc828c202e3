"""Initial weights of the networks of Live Speech Portraits."""

from __future__ import annotations

from torch import nn

SLOPE = 0.2  # of every leaky ReLU


def initialise(network: nn.Module) -> None:
    """Official start: normal(0, 0.02) for linear and convolution weights, zero biases, and
    normal(1, 0.02) for 2-D batch normalisation; everything else as PyTorch does."""
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)
