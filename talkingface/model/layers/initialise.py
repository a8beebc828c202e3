"""Initial weights of the networks of Live Speech Portraits."""

from __future__ import annotations

from torch import nn

SLOPE = 0.2  # of every leaky ReLU


def initialise(network: nn.Module) -> None:
    """Official initialisation: normal(0, 0.02) for weights of linear and convolution layers,
    normal(1, 0.02) for those of 2-D batch normalisation, zero biases; PyTorch's for all others."""
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)
